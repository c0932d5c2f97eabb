"""`/try`: a player's page to try the whole with, served by the embedded stack alone.

The page is the smallest portal there can be, on the public interfaces that docs/portals.md shows; this module only hands
out its built files, and to this machine a ready-made player's token. Production never runs it.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from gre_bridge.devstack.faults import Receive, Scope, Send, answer
from gre_bridge.devstack.keys import Keys

BUILT = Path(__file__).parent / "try"
"""What `make console` builds; it is part of the package."""
PLAYER, NAME = 29, "Asha"
_TOKEN_FOR = 7 * 86400.0
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_LOCAL = ("127.0.0.1", "localhost")


def is_local(host: str) -> bool:
    """Return True if a Host header names this machine; a page with a rebound DNS name sends its own name."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname in _LOCAL and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


class TryPage:
    """The ASGI application for /try and what is below it."""

    def __init__(self, keys: Keys) -> None:
        """`keys` sign the player's token."""
        self._keys = keys
        self.daemon_url: str | None = None
        """The daemon's address; None while the stack runs without one."""
        self._own_url = ""
        self._files = {
            f"/try/{path.relative_to(BUILT).as_posix()}": path for path in BUILT.rglob("*") if path.is_file()
        }
        if index := self._files.pop("/try/index.html", None):
            self._files |= {"/try": index, "/try/": index}

    def beside(self, daemon_url: str, own_url: str) -> dict[str, str]:
        """Note where the daemon is; the variables with which it lets pages from here subscribe, and has pages itself."""
        self.daemon_url, self._own_url = daemon_url, own_url
        return {
            "PUSHER_AUTH_URL": f"{daemon_url}/api/pusher/auth",
            "GRE_CORS_ORIGINS": os.environ.get("GRE_CORS_ORIGINS")
            or f"{own_url},http://localhost:*,http://127.0.0.1:*",
            "GRE_DOCS": os.environ.get("GRE_DOCS") or "true",
            "GRE_DEV_PAGES": "true",
        }

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        # A name that was made to point here (DNS rebinding) must not read the token.
        if not is_local(host):
            return await answer(send, 403, {"message": "this page is for this machine alone"})
        if scope["path"] == "/try/config.json":
            return await answer(send, 200, self._config(host), [("cache-control", "no-store")])
        path = self._files.get(scope["path"])
        if path is None or scope["method"] not in ("GET", "HEAD"):
            return await answer(send, 404, {"message": "there is nothing at this address"})
        said = [
            ("content-type", _KINDS.get(path.suffix, "application/octet-stream")),
            ("cache-control", "no-cache"),
        ]
        said += [("content-security-policy", self._policy(host)), ("referrer-policy", "no-referrer")]
        return await answer(send, 200, path.read_bytes(), [*said, ("x-content-type-options", "nosniff")])

    def _policy(self, host: str) -> str:
        # The page may be opened by another name of this machine than the one in the addresses of files.
        known = f"{self.daemon_url or ''} {self._own_url} ws://{host}"
        return (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: {self._own_url}; "
            f"connect-src 'self' {known}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def _config(self, host: str) -> dict[str, object]:
        parts = urlsplit(f"//{host}")
        return {
            "supabaseUrl": f"http://{host}",
            "anonKey": self._keys.anon_key,
            "pusherKey": self._keys.pusher_key,
            "pusherHost": parts.hostname,
            "pusherPort": parts.port or 80,
            "pusherAuthUrl": self.daemon_url and f"{self.daemon_url}/api/pusher/auth",
            "bridgeUrl": self.daemon_url,
            "playerId": PLAYER,
            "playerName": NAME,
            "token": self._keys.user_token("player", player_id=PLAYER, expires_in=_TOKEN_FOR),
        }
