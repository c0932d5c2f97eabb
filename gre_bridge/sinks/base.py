"""The protocol between the relay and a sink.

Routing turns deliveries into records; a sink sends records and returns an outcome for each. A sink never decides about
retries, and knows nothing of leases or the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from gre_bridge.errors import BridgeError, PermanentError

PushStatus = Literal["sent", "failed", "expired", "no_recipients"]


@dataclass(frozen=True, slots=True)
class PusherEvent:
    """One event on one channel. `data` is ASCII JSON text, at most 10,240 bytes."""

    channel: str
    name: str
    data: str


@dataclass(frozen=True, slots=True)
class Push:
    """One push: `body` is the JSON body for OneSignal without app_id; `row` the fixed part of its receipt.

    `row` names either `delivery_id` and the columns of a new push_notifications row, or `push_id`, a
    row that a portal queued itself and that only needs its status.
    """

    body: dict[str, Any]
    row: dict[str, Any]


class Result(StrEnum):
    """Result of a record."""

    ACCEPTED = "accepted"
    """The service took it."""
    REJECTED = "rejected"
    """The service refused this very record (400, 413), while it took something else: `error` is permanent."""
    FAILED = "failed"
    """The service as a whole failed (no connection, 5xx, 429, bad credentials): not the record's fault."""
    UNSENT = "unsent"
    """Not tried, because an earlier record (of its lane, or of the request) did not go through."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`receipts` are push_notifications rows to be written with the settle."""

    result: Result
    error: BridgeError | None = None
    receipts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """What a sink sends for one or more deliveries of one lane; they succeed or fail together.

    `payloads` may be empty: then there is nothing to send, and `expired` says whether the deliveries
    count as expired rather than done. `receipts` are rows to write although nothing is sent. `error`
    says that routing itself found the record cannot be sent, now or later (an event that this version
    does not know). Sink records of a lane come in the order of their last deliveries.
    """

    lane_key: str
    deliveries: tuple[str, ...]
    payloads: tuple[PusherEvent | Push, ...] = ()
    expired: bool = False
    attempts: int = 0
    receipts: tuple[dict[str, Any], ...] = ()
    error: PermanentError | None = None

    def outcome_without_request(self) -> Outcome | None:
        """Return the outcome of a record that needs no request; None if it must be sent.

        An unroutable record counts as rejected: it spends attempts, so that a newer worker can take it during an
        upgrade, and then becomes dead. It never counts as delivered.
        """
        if self.error is not None:
            return Outcome(Result.REJECTED, self.error, list(self.receipts))
        return None if self.payloads else Outcome(Result.ACCEPTED, receipts=list(self.receipts))


def receipt(
    row: Mapping[str, Any], status: PushStatus, *, provider_id: str | None = None, error: str | None = None
) -> dict[str, Any]:
    """Return a push_notifications row for the settle: the fixed part and the result of the push."""
    return {**row, "status": status, "provider_id": provider_id, "error": error}


class Sink(Protocol):
    """An outside service that events are sent to."""

    name: str
    """Name in gre_relay_sinks, metrics and logs."""
    batch_size: int
    """Payloads per request, at most."""
    concurrency: int
    """Requests in flight, at most."""

    async def send(self, records: Sequence[SinkRecord]) -> list[Outcome]:
        """Send records in order, at most `batch_size` payloads in all (more are split in order).

        Returns one outcome for each record, in the same order, and never raises for an answer of the service.
        After the first record of a lane that was not accepted, the later ones of that lane are UNSENT. Once the service
        as a whole has failed, nothing more is sent. A refusal is the record's fault only if the service accepted
        something else in the same call, if necessary a control event that is valid by construction. A wrong key, a proxy
        or a firewall refuses everything: that is an outage (FAILED), and tells nothing about a single record.
        A record with nothing to send is ACCEPTED (its `expired` and its receipts stay valid), unless its lane has
        stopped before it.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
