"""`/widget.js` and `/widget/…`: the built files of the chat element, for pages of any origin.

The files are the same for everybody and contain no configuration. A page of another origin needs GRE_CORS_ORIGINS only for
the calls that the element makes, not for these files.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import structlog
from fastapi import APIRouter, Request, Response

from gre_bridge.api.console import Page, page_of, send_page

log = structlog.get_logger("gre.http")

BUILT = Path(__file__).parent.parent / "widget"
"""The output of `make client`, which is part of the package."""
LOADER = "widget.js"
_LOADER_CACHING = "public, max-age=300"
"""Pages load it at each visit. One that is five minutes old works: see `Widget.find`."""
_HASHED = re.compile(r"([a-z]+)-[\w-]{8}\.js")
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_OPEN = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}


class Widget:
    """The built files, read once."""

    def __init__(self, folder: Path = BUILT) -> None:
        """Read the files of `folder`."""
        self._pages = {
            path.name: page_of(path.read_bytes(), path.name)
            for path in sorted(folder.glob("*.js"))
            if path.is_file()
        }
        self._current = {
            match[1]: page for name, page in self._pages.items() if (match := _HASHED.fullmatch(name))
        }
        self.is_built = LOADER in self._pages

    def loader(self) -> Page | None:
        """Return the loader; None if nothing was built."""
        page = self._pages.get(LOADER)
        return page and replace(page, caching=_LOADER_CACHING)

    def find(self, name: str) -> Page | None:
        """Return a file by its name, or None.

        For a name with the hash of another release it is the present file, not to be cached: a page that was loaded before
        an upgrade, or by another instance during one, opens its panel after it.
        """
        if page := self._pages.get(name):
            return page
        match = _HASHED.fullmatch(name)
        page = self._current.get(match[1]) if match else None
        return page and replace(page, caching="no-cache")


def router() -> APIRouter:
    """Return the routes of the files."""
    widget = Widget()
    if not widget.is_built:
        log.warning("widget_not_built", message="see docs/element.md")
    routes = APIRouter(include_in_schema=False)

    def send(request: Request, page: Page | None) -> Response:
        answer = send_page(request, page, _POLICY)
        answer.headers.update(_OPEN)
        return answer

    @routes.api_route("/widget.js", methods=["GET", "HEAD"])
    async def loader(request: Request) -> Response:
        """Send the loader."""
        return send(request, widget.loader())

    @routes.api_route("/widget/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        """Send one of the files that the loader asks for."""
        return send(request, widget.find(name))

    return routes
