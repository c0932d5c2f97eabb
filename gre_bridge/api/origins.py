"""The origins whose pages may call: GRE_CORS_ORIGINS, for CORS and for WebSocket upgrades."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger("gre.http")

MAX_LOGGED = 100
"""Refused origins that are logged, once each."""


class Origins:
    """The allowed origins; `https://name:*` stands for every port, `*` for every origin."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` are as `Settings.cors_origins` has them."""
        self._names = frozenset(names)
        self._logged: set[str] = set()

    def allows(self, origin: str) -> bool:
        """Return True if pages of this origin may call."""
        origin = origin.lower()
        if origin in self._names or "*" in self._names:
            return True
        host, colon, port = origin.rpartition(":")
        return f"{host if colon and port.isdecimal() else origin}:*" in self._names

    @staticmethod
    def is_same_host(origin: str, host: str) -> bool:
        """Return True if the origin is the requested host itself; `host` is the Host header."""
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(netloc) and netloc.lower() == host.lower()

    def log_refused(self, origin: str) -> None:
        """Log a refused origin, once."""
        if origin not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(origin[:200])
            log.warning("origin_refused", message="GRE_CORS_ORIGINS names those allowed", origin=origin[:200])
