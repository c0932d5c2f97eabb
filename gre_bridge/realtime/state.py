"""States of the Realtime subscription, and the time limits of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SubscriptionState(StrEnum):
    """The state of the subscription, as logs, metrics and `/readyz` show it."""

    CONNECTING = "connecting"
    JOINED = "joined"
    """The channel for row changes is joined, but not ready yet (that takes seconds)."""
    LIVE = "live"
    """Broadcasts arrive, or row changes in their place; `Subscription.detail` gives the reason."""
    THROTTLED = "throttled"
    """Connected, but wake-ups do not arrive: Realtime drops events above the project's limit without an error."""
    WAITING = "waiting"
    """There is no connection; the next attempt follows after a backoff."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Time limits and intervals, in seconds. Measured values are those of Realtime 2.122.0."""

    connect: float = 10.0
    """For a connection. A refusal takes 2 s."""
    join: float = 20.0
    """For the reply to a join. A refusal takes 5 s, the second of two 10 s."""
    system: float = 15.0
    """From the joins to "Subscribed to PostgreSQL": 2.9 s measured after the start of a server."""
    heartbeat: float = 20.0
    """Between two heartbeats. The server closes a socket after 60 s without one."""
    heartbeat_reply: float = 10.0
    """For the reply to a heartbeat. Without one the socket counts as half-open."""
    close: float = 2.0
    renew: float = 4 * 3600.0
    """Age at which a connection is replaced; its successor opens first. Tokens rotate, and proxies cut long connections."""
    retry: float = 300.0
    """The same for a connection without broadcasts."""
    backoff: float = 0.5
    backoff_max: float = 30.0
    stable: float = 30.0
    """Age from which the end of a connection resets the backoff."""
    throttled: float = 90.0
    """How long wake-ups count as unreliable after one was missed. Realtime's limit is an average over 60 s, so one wake-up
    that arrives says little about the next."""
    probe: float = 5.0
    """For the arrival of a wake-up that was requested: 11 ms was the worst of 60."""
