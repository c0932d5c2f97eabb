"""`/docs`: the API's reference in Swagger UI, from /openapi.json; `/asyncapi.json`, the frames and events; under `gre-bridge dev` also `/`, a page of links.

The files come from the package fastapi-offline, whose code does not run. The page has no inline script, so its
Content-Security-Policy allows neither inline code nor another host.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from gre_bridge.api.console import page_of, send_page

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Addresses are relative, because a proxy may serve the daemon below a path.
_PAGE = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gre-bridge API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = b"""\
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null })
"""
_LINKS = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gre-bridge dev</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1>gre-bridge dev</h1>
<ul>
<li><a href="console">Staff console</a> (gre-bridge dev prints a link that signs in)</li>
<li><a href="{stack}/try">A player's page</a></li>
<li><a href="docs">Reference of the REST API</a></li>
<li>Received by <a href="{stack}/__stack/received?sink=pusher">Pusher</a> and
<a href="{stack}/__stack/received?sink=onesignal">OneSignal</a></li>
</ul>
</body>
</html>
"""
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")


def router(asyncapi: str | None) -> APIRouter:
    """Return the routes of the page and its files, which are read once, here. `asyncapi` is the document of the live messages."""
    folder = files("fastapi_offline") / "static"
    page = page_of(_PAGE, "index.html")
    pages = {"start.js": page_of(_START, "start.js")}
    pages |= {name: page_of((folder / name).read_bytes(), name) for name in _FILES}
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def reference(request: Request) -> Response:
        """Send the page."""
        return send_page(request, page, _POLICY)

    @routes.api_route("/docs/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        """Send one of its files."""
        return send_page(request, pages.get(name), _POLICY)

    if asyncapi is not None:
        live = page_of(asyncapi.encode(), "asyncapi.json")

        @routes.api_route("/asyncapi.json", methods=["GET", "HEAD"])
        async def messages(request: Request) -> Response:
            """Send the document of the live messages."""
            return send_page(request, live, _POLICY)

    return routes


def links(stack: str) -> APIRouter:
    """Return the route of `/` for developers: links to this daemon and to the embedded stack at `stack`. Not for production."""
    page = page_of(_LINKS.format(stack=escape(stack)).encode(), "index.html")
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def start(request: Request) -> Response:
        """Send the page."""
        return send_page(request, page, _POLICY)

    return routes
