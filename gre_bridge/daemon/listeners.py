"""Listening sockets, bound before the processes that serve them start.

A port in use is therefore one line at the start, and connections wait in the backlog while a process restarts.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import structlog

from gre_bridge.api.server.connections import BACKLOG
from gre_bridge.config.settings import Settings
from gre_bridge.errors import ConfigurationError

log = structlog.get_logger()


@dataclass(slots=True)
class Listeners:
    """The sockets of the daemon. `api` is None without an API."""

    admin: socket.socket
    api: socket.socket | None = None

    def close(self) -> None:
        """Close the sockets in this process."""
        for listener in (self.admin, self.api):
            if listener is not None:
                listener.close()


def listen(settings: Settings, *, api: bool) -> Listeners:
    """Bind the ports. Raises ConfigurationError if one is in use or its address is not of this machine."""
    public = _bind("GRE_HTTP", settings.http_host, settings.http_port) if api else None
    try:
        admin = _bind("GRE_ADMIN", settings.admin_host, settings.admin_port)
    except ConfigurationError:
        if public is not None:
            public.close()
        raise
    if public is not None:
        log.info("listening", address=_address(settings.http_host, public))
    log.info("admin_listening", admin_address=_address(settings.admin_host, admin))
    return Listeners(admin, public)


def _bind(variable: str, host: str, port: int) -> socket.socket:
    ipv6 = ":" in host
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
            backlog=BACKLOG,
        )
    except OSError:
        raise ConfigurationError(
            f"{variable}_PORT: cannot listen on {host}:{port} (in use, or {variable}_HOST is not an address of this machine)"
        ) from None
    # Connections inherit the option. asyncio does not set it for them, and a response would wait up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
