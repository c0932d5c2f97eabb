"""How far the Realtime subscription is, and how long each of its steps may take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FeedState(StrEnum):
    """How far the subscription got."""

    CONNECTING = "connecting"
    JOINED = "joined"
    """The channel for row changes is joined and not yet ready (that takes seconds)."""
    LIVE = "live"
    """Broadcasts are heard, or row changes in their place; `Feed.detail` says why."""
    THROTTLED = "throttled"
    """Live, and wake-ups do not arrive all the same: Realtime drops events above the project's limit without a word."""
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All in seconds."""

    connect: float = 10.0  # a refusal comes after 2 s
    join: float = (
        20.0  # a refusal comes after 5 s, the second of two after 10 s (measured on Realtime 2.122.0)
    )
    system: float = (
        15.0  # from the joins to "Subscribed to PostgreSQL"; 2.9 s measured after a server's start
    )
    heartbeat: float = 20.0  # the server closes after 60 s without one
    pong: float = 10.0  # for the reply to a heartbeat, else the socket counts as half-open
    close: float = 2.0
    renew: float = 4 * 3600.0
    """Age at which a link is replaced, its successor first: tokens rotate, proxies cut long connections."""
    retry: float = 300.0
    """The same for a link on which broadcasts are not heard."""
    backoff: float = 0.5
    backoff_max: float = 30.0
    stable: float = 30.0  # a link that lived as long as this ends the backoff, one that died sooner does not
    throttled: float = 90.0
    """Seconds without trust after a wake-up was missed. Realtime's limit is an average over 60 s: what brought one wake-up
    through says little about the next."""
    probed: float = 5.0
    """Seconds in which a wake-up that was asked for must come (11 ms was the worst of 60, measured on Realtime 2.122.0)."""
