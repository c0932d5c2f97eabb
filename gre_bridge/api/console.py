"""`/console`: the built files of the staff console, and its configuration (two public values).

The files are read once, at start, into a table by address. An address that is not in the table is not found, whatever it
looks like. No request is answered from the disk, nothing is rendered, and no secret is served.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Request, Response

from gre_bridge.api.middleware import JsonResponse, problem
from gre_bridge.config.keys import read_key
from gre_bridge.config.settings import Settings

log = structlog.get_logger("gre.http")

BUILT = Path(__file__).parent.parent / "console"
"""The output of `make console`, which is part of the package."""
_HASHED = re.compile(r"-[\w-]{8}\.\w+$")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_FOREVER = "public, max-age=31536000, immutable"
_KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file, ready to be sent."""

    body: bytes
    gzipped: bytes | None
    """The body compressed; None for types that do not compress."""
    kind: str
    etag: str
    caching: str


def load(folder: Path = BUILT) -> dict[str, Page]:
    """Read all built files by their address below /console/; the page itself is at "". Empty if nothing was built."""
    pages = {
        path.relative_to(folder).as_posix(): page_of(path.read_bytes(), path.name)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    index = pages.pop("index.html", None)
    return {**pages, "": index} if index else {}


def page_of(body: bytes, name: str) -> Page:
    """Prepare one file. Its content type and its caching follow from its name."""
    kind = _KINDS.get(Path(name).suffix)
    return Page(
        body,
        gzip.compress(body, 9, mtime=0) if kind else None,
        f"{kind}; charset=utf-8" if kind else "application/octet-stream",
        f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        _FOREVER if _HASHED.search(name) else "no-cache",
    )


def send_page(request: Request, found: Page | None, policy: str) -> Response:
    """Answer with a file and this Content-Security-Policy; compressed if accepted, 304 if the client has it."""
    if found is None:
        return problem(request.scope, 404, "not_found", "there is nothing at this address")
    headers = {
        "Cache-Control": found.caching,
        "ETag": found.etag,
        "Content-Security-Policy": policy,
        "Vary": "Accept-Encoding",
    }
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    body = found.body
    if found.gzipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = found.gzipped, "gzip"
    return Response(body, 200, headers, media_type=found.kind)


def public_key(key: str | None) -> str | None:
    """Return the key if it is public, None if it bypasses row-level security."""
    return key if key and read_key(key).role == "anon" else None


def policy(supabase_url: str, host: str) -> str:
    """Return the page's Content-Security-Policy: its own files, its own host, and of Supabase the sign-in and the chat's files."""
    parts = urlsplit(supabase_url)
    # Not all browsers apply 'self' to WebSockets.
    own = f"ws://{host} wss://{host} " if _HOST.fullmatch(host) else ""
    supabase = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"img-src 'self' data: {supabase}; connect-src 'self' {own}{supabase}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def router(settings: Settings) -> APIRouter:
    """Return the routes of the console."""
    pages = load()
    if not pages:
        log.warning("console_not_built", message="see docs/console.md")
    config: Mapping[str, str | None] = {
        "supabaseUrl": settings.public_url,
        "anonKey": public_key(settings.anon_key),
    }
    if config["anonKey"] is None:
        log.warning(
            "anon_key_not_public",
            message="SUPABASE_ANON_KEY is not a publishable key: the console offers sign-in by token only",
        )
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/console/config.json", methods=["GET", "HEAD"])
    async def public_config() -> Response:
        """The page's configuration: public values only."""
        return JsonResponse(config, headers={"Cache-Control": "no-cache"})

    @routes.api_route("/console", methods=["GET", "HEAD"])
    @routes.api_route("/console/{name:path}", methods=["GET", "HEAD"])
    async def page(request: Request, name: str = "") -> Response:
        """Send one of the built files."""
        host = request.headers.get("host", "")
        return send_page(request, pages.get(name), policy(settings.public_url, host))

    return routes
