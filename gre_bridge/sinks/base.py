"""The protocol between the relay and a sink.

Routing turns deliveries into parcels; a sink sends parcels and says for each what became of it. A
sink never decides about retries and knows nothing of leases or the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gre_bridge.errors import BridgeError


@dataclass(frozen=True, slots=True)
class PusherEvent:
    """One event on one channel. `data` is ASCII JSON text, at most 10,240 bytes."""

    channel: str
    name: str
    data: str


@dataclass(frozen=True, slots=True)
class Push:
    """One push: `body` is the JSON body for OneSignal without app_id; `row` is the push_notifications row it is recorded as."""

    body: dict[str, Any]
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one or more deliveries of one lane turn into; they succeed or fail together.

    `payloads` may be empty: then there is nothing to send, and `expired` says whether the deliveries
    count as expired rather than done.
    """

    lane_key: str
    deliveries: tuple[str, ...]
    payloads: tuple[PusherEvent | Push, ...] = ()
    expired: bool = False
    attempts: int = 0


class Result(StrEnum):
    """What became of a parcel."""

    ACCEPTED = "accepted"
    """The service took it."""
    REJECTED = "rejected"
    """The service refused this very parcel (400, 413): `error` is permanent."""
    FAILED = "failed"
    """The service as a whole failed (no connection, 5xx, 429, bad credentials): not the parcel's fault."""
    UNSENT = "unsent"
    """Not tried, because an earlier parcel (of its lane, or of the request) did not go through."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`receipts` are push_notifications rows to be written with the settle."""

    result: Result
    error: BridgeError | None = None
    receipts: list[dict[str, Any]] = field(default_factory=list)


class Sink(Protocol):
    """An outside service that events are sent to."""

    name: str
    """Name in gre_relay_sinks, metrics and logs."""
    batch_size: int
    """Payloads per request, at most."""
    concurrency: int
    """Requests in flight, at most."""

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Send parcels in order, at most `batch_size` payloads in all (a single larger parcel is split in order).

        Returns one outcome for each parcel, in the same order, and never raises for what the service does.
        After a lane's first parcel that did not get through, that lane's later ones are UNSENT.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
