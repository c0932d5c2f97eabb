"""Which pages may call: GRE_CORS_ORIGINS, for CORS and for the socket's upgrade alike."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger("gre.http")

TOLD = 100
"""Refused origins that are logged, once each."""


class Origins:
    """The origins that settings name; `https://name:*` stands for every port, `*` for everybody."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` are as `Settings.cors_origins` has them."""
        self._names = frozenset(names)
        self._told: set[str] = set()

    def allows(self, origin: str) -> bool:
        """Return True when pages of this origin may call."""
        origin = origin.lower()
        if origin in self._names or "*" in self._names:
            return True
        host, colon, port = origin.rpartition(":")
        return f"{host if colon and port.isdecimal() else origin}:*" in self._names

    @staticmethod
    def same(origin: str, host: str) -> bool:
        """Return True for a page of the very host that is asked (by its Host header)."""
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(netloc) and netloc.lower() == host.lower()

    def refused(self, origin: str) -> None:
        """Log a refused origin, the first time that it is met."""
        if origin not in self._told and len(self._told) < TOLD:
            self._told.add(origin[:200])
            log.warning("a page of this origin was refused; see GRE_CORS_ORIGINS", origin=origin[:200])
