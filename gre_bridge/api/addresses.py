"""Client addresses: one spelling for each, and the unit by which visitors are counted.

A dual-stack listener shows IPv4 peers as `::ffff:192.0.2.1`. Without one spelling a trusted proxy would not be recognised,
and one visitor would be counted twice.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=4096)
def _parsed(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def canonical(host: str) -> str:
    """Return the canonical spelling of an address; other text is only cut to 64 characters."""
    return str(_parsed(host[:64]) or host[:64])


def network(host: str | None) -> str:
    """Return the key by which a visitor is counted: an IPv4 address, or the /64 network of an IPv6 address."""
    host = (host or "")[:64]
    address = _parsed(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(address or host)


def is_loopback(host: str) -> bool:
    """Return True for a loopback address and for `localhost`."""
    address = _parsed(host)
    return host == "localhost" if address is None else address.is_loopback


class TrustedProxies(_TrustedHosts):
    """The proxies whose X-Forwarded-For is trusted, however their address is spelled."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """`hosts` are addresses, networks, or `*` for all."""
        super().__init__(list(hosts))

    def _compute_trust(self, host: str) -> bool:
        return super()._compute_trust(canonical(host))


class ProxyHeaders(ProxyHeadersMiddleware):
    """Takes the client's address and scheme from the headers of a trusted proxy."""

    def __init__(self, app: object, trusted: TrustedProxies) -> None:
        """Put around `app`."""
        super().__init__(app, [])  # type: ignore[arg-type]
        self.trusted_hosts = trusted
