"""Limits the number of open connections, and drops idle ones when there are too many.

A connection costs a file descriptor and some 20 KB even if its peer sends nothing. At the limit, the visitor with the most
connections loses the one that has waited longest for its peer; a new connection is refused only if all others are busy.
"""

from __future__ import annotations

import contextlib
import functools
import resource
from dataclasses import dataclass
from typing import Protocol

import structlog

from gre_bridge.api.addresses import TrustedProxies, network
from gre_bridge.config.settings import Settings

log = structlog.get_logger("gre.http")

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted, as far as `net.core.somaxconn` allows. Of more, clients try again
by themselves, seconds later, and those that were answered with a SYN cookie can be reset: in a storm some hundreds of them."""
MOST_OF_ONE = 256
"""HTTP connections of one visitor, trusted proxies apart."""
RESERVED = 160
"""Descriptors for everything else: the pools of connections to Supabase, the log, the listeners."""


class Connection(Protocol):
    """A connection, as the limiter sees it."""

    def drop(self) -> None:
        """Close it now, without an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Allotment:
    """How many connections of each kind the process may hold."""

    http: int
    sockets: int


@functools.cache
def _descriptors(wanted: int) -> int:
    """Return the limit of open files, raised to `wanted` where that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else soft


def allot(settings: Settings) -> Allotment:
    """Share the process's descriptors among HTTP connections and WebSockets, and warn where they do not suffice."""
    http, sockets = settings.max_connections, settings.max_sockets
    limit = _descriptors(http + sockets + RESERVED)
    room = max(limit - RESERVED, 8)
    if http + sockets <= room:
        return Allotment(http, sockets)
    shared = Allotment(
        http=max(2, room * http // (http + sockets)), sockets=max(2, room * sockets // (http + sockets))
    )
    log.warning(
        "too_few_file_descriptors",
        message="GRE_MAX_SOCKETS and GRE_MAX_CONNECTIONS were reduced",
        limit=limit, connections=shared.http, sockets=shared.sockets,
    )  # fmt: skip
    return shared


class ConnectionLimiter:
    """Counts open connections by visitor."""

    def __init__(self, *, most: int, trusted: TrustedProxies) -> None:
        """`most` in all; `trusted` proxies have no limit of their own."""
        self._most = most
        self._trusted = trusted
        self._open: dict[str, dict[Connection, None]] = {}
        self._waiting: dict[str, dict[Connection, None]] = {}
        """Connections that wait for their peer, the longest waiting first."""
        self._keys: dict[Connection, str] = {}

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._keys)

    def count_of(self, host: str) -> int:
        """Return how many of this visitor are open."""
        return len(self._open.get(network(host), ()))

    def admit(self, connection: Connection, host: str, most_of_one: int = MOST_OF_ONE) -> bool:
        """Count a new connection, which waits for its peer. Returns False when there is no room for it."""
        key = network(host)
        if self.count_of(host) >= most_of_one and host not in self._trusted:
            if not self._drop_one_of(key):
                return False
        elif len(self._keys) >= self._most and not self._drop_one():
            return False
        self._open.setdefault(key, {})[connection] = None
        self._keys[connection] = key
        self.waits(connection)
        return True

    def waits(self, connection: Connection) -> None:
        """Note that the connection waits for its peer: it may be dropped."""
        if (key := self._keys.get(connection)) is not None:
            waiting = self._waiting.setdefault(key, {})
            waiting.pop(connection, None)
            waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """Note that a request of the connection is in progress: it is not dropped."""
        if (key := self._keys.get(connection)) is not None:
            self._discard(self._waiting, key, connection)

    def release(self, connection: Connection) -> None:
        """Remove a connection that has ended or was upgraded."""
        if (key := self._keys.pop(connection, None)) is not None:
            self._discard(self._open, key, connection)
            self._discard(self._waiting, key, connection)

    def drop_for(self, host: str, most_of_one: int) -> bool:
        """Drop a waiting connection of the visitor that has the most, if these are more than `most_of_one` and than this host's."""
        busiest = max(self._open, key=lambda key: len(self._open[key]), default=None)
        if busiest is None or len(self._open[busiest]) <= max(most_of_one, self.count_of(host)):
            return False
        return self._drop_one_of(busiest)

    def _drop_one(self) -> bool:
        """Drop a waiting connection of the visitor that has the most connections; trusted proxies come last."""
        found = [(key in self._trusted, -len(self._open[key]), key) for key in self._waiting]
        return bool(found) and self._drop_one_of(min(found)[2])

    def _drop_one_of(self, key: str) -> bool:
        connection = next(iter(self._waiting.get(key, ())), None)
        if connection is None:
            return False
        self.release(connection)
        connection.drop()
        return True

    @staticmethod
    def _discard(table: dict[str, dict[Connection, None]], key: str, connection: Connection) -> None:
        if (found := table.get(key)) is not None:
            found.pop(connection, None)
            if not found:
                del table[key]
