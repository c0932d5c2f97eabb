"""Which HTTP proxy a connection goes through: HTTP_PROXY, HTTPS_PROXY, WS_PROXY, WSS_PROXY, ALL_PROXY and NO_PROXY.

PostgREST, the sinks and Realtime all ask here, so they agree. (websockets, under the Realtime client, ignores ALL_PROXY.)
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from gre_bridge.errors import ConfigurationError

_SOURCES = {"ws": ("ws", "http", "all"), "wss": ("wss", "https", "all")}
_CHECKED = frozenset({"all", "http", "https", "ws", "wss"})


def proxy_for(url: str) -> str | None:
    """Return the proxy's address for `url` (http, https, ws or wss), or None for a direct connection."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    known = getproxies()
    sources = _SOURCES.get(parts.scheme, (parts.scheme, "all"))
    return next((known[name] for name in sources if name in known), None)


def check_proxies() -> None:
    """Raise ConfigurationError for a proxy that is not an HTTP proxy. No address is quoted: it may hold a password."""
    for scheme, address in sorted(getproxies().items()):
        if scheme in _CHECKED and not address.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{scheme.upper()}_PROXY must begin with http:// or https://; SOCKS is not supported"
            )
