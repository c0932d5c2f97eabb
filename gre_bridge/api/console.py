"""`/console`: the staff console's built files, as they lie in the package, and the two public values it needs.

The files are read once, at start, into a table of addresses: what is not in the table is not there, whatever an
address looks like. No request is answered from the disk, nothing here is rendered, and no secret may pass.
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
"""What `make console` builds; it is part of the package."""
_HASHED = re.compile(r"-[\w-]{8}\.\w+$")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_FOREVER = "public, max-age=31536000, immutable"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent."""

    body: bytes
    packed: bytes | None
    """The same, compressed."""
    kind: str
    etag: str
    caching: str


def load(folder: Path = BUILT) -> dict[str, Page]:
    """Every built file by its address below /console/; the page itself is at "". Empty where nothing was built."""
    pages = {
        path.relative_to(folder).as_posix(): page_of(path.read_bytes(), path.name)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    index = pages.pop("index.html", None)
    return {**pages, "": index} if index else {}


def page_of(body: bytes, name: str) -> Page:
    """One file; its kind, and how long it may be kept, follow from its name."""
    kind = _KINDS.get(Path(name).suffix)
    return Page(
        body,
        gzip.compress(body, 9, mtime=0) if kind else None,
        f"{kind}; charset=utf-8" if kind else "application/octet-stream",
        f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        _FOREVER if _HASHED.search(name) else "no-cache",
    )


def send_page(request: Request, found: Page | None, policy: str) -> Response:
    """Answer with a file under this Content-Security-Policy: compressed where that is taken, 304 where it is known."""
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
    if found.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = found.packed, "gzip"
    return Response(body, 200, headers, media_type=found.kind)


def public_key(key: str | None) -> str | None:
    """The key, if pages may have it: None for what crosses row-level security."""
    return key if key and read_key(key).role == "anon" else None


def policy(supabase_url: str, host: str) -> str:
    """The page's Content-Security-Policy: its own files, its own host, and Supabase's sign-in."""
    parts = urlsplit(supabase_url)
    # "'self'" covers the WebSocket in most browsers, not in all.
    own = f"ws://{host} wss://{host} " if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' {own}{parts.scheme}://{parts.netloc.rpartition('@')[2]}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def router(settings: Settings) -> APIRouter:
    """The addresses of the console."""
    pages = load()
    if not pages:
        log.warning("the console was not built; see docs/console.md")
    config: Mapping[str, str | None] = {
        "supabaseUrl": settings.supabase_url,
        "anonKey": public_key(settings.anon_key),
    }
    if config["anonKey"] is None:
        log.warning("SUPABASE_ANON_KEY is no publishable key: the console offers no sign-in but by token")
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/console/config.json", methods=["GET", "HEAD"])
    async def public_config() -> Response:
        """What the page must know: public values only."""
        return JsonResponse(config, headers={"Cache-Control": "no-cache"})

    @routes.api_route("/console", methods=["GET", "HEAD"])
    @routes.api_route("/console/{name:path}", methods=["GET", "HEAD"])
    async def page(request: Request, name: str = "") -> Response:
        """One of the built files."""
        host = request.headers.get("host", "")
        return send_page(request, pages.get(name), policy(settings.supabase_url, host))

    return routes
