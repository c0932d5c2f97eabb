"""Plain values that are passed between packages: what a claim returns and what a settle takes.

They mirror the JSON of `gre_relay_claim_v1` and `gre_relay_settle_v1` (sql/migrations) and hold no logic
beyond reading and writing that JSON. Times called `age` are seconds by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

EventKind = Literal["message", "session", "transfer", "read", "note", "push"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One pending row of the outbox, joined with what it announces.

    `message`: the chat message (event `message`); `session`: the session as it is now (event
    `session`); `note`: a note of staff (event `note`); `push`: a queued row of push_notifications (event `push`);
    `data`: what the trigger kept (event `read`: by, up_to_seq, timestamp, session_id, player_id; event `transfer`:
    session_id, from, to, by; `replayed` for a replay; `push` for an auto-reply that is also sent to phones).
    `fault`: why this delivery cannot be sent, found while it was read; empty when it can.
    """

    id: str
    ord: int
    event: EventKind
    attempts: int
    age: float
    message: Json | None = None
    session: Json | None = None
    note: Json | None = None
    push: Json | None = None
    data: Json = field(default_factory=dict)
    fault: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Delivery:
        """Read one element of a claimed lane's `deliveries`.

        What a row holds fails that delivery alone: it gets a `fault`. Raises KeyError or TypeError for an element
        that is not the database's.
        """
        fault = ""
        data, push = row.get("data"), row.get("push")
        try:
            data = _held(data) or {}
            if push is not None:
                fault = f"the push cannot be sent: {push['fault']}" if "fault" in push else ""
                push = {**push, "data": _held(push.get("data"))}
        except ValueError as error:
            fault = f"its data cannot be sent: {error}"
            data = data if isinstance(data, dict) else {}
        if not isinstance(data, dict):
            data, fault = {}, "its data is no JSON object"
        return cls(
            id=row["id"],
            ord=row["ord"],
            event=row["event"],
            attempts=row["attempts"],
            age=row["age"],
            message=row.get("message"),
            session=row.get("session"),
            note=row.get("note"),
            push=push,
            data=data,
            fault=fault,
        )


def _held(value: Any) -> Any:
    """A jsonb that the claim handed over as text. Raises ValueError, in words without its content."""
    if not isinstance(value, str):
        return value
    try:
        found = orjson.loads(value)
    except ValueError:
        # (jsonb takes any number and any depth.)
        raise ValueError("a number beyond a double, or nested too deep") from None
    try:
        orjson.dumps(found)
    except TypeError:
        raise ValueError("nested too deep") from None
    return found


@dataclass(frozen=True, slots=True)
class NewRow:
    """A message that postgres_changes told of: which one, and its place in its session."""

    id: str
    session_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A leased lane: the pending deliveries of one session (or one queued push) in order."""

    key: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """The arguments of `gre_relay_claim_v1`.

    `owner` is the claiming dispatcher and `token` this claim (UUIDs that the worker chose). `held` are the tokens of
    the owner's earlier claims whose lanes it still has in hand: its lanes under any other token are claimed anew.
    """

    sink: str
    owner: str
    token: str
    held: tuple[str, ...] = ()
    lanes: int
    """Lanes to lease, at most."""
    per_lane: int
    """Deliveries to return of each lane, at most."""
    lease: float
    """Seconds."""

    def to_json(self) -> Json:
        """The arguments as PostgREST takes them."""
        return {
            "p_sink": self.sink,
            "p_owner": self.owner,
            "p_token": self.token,
            "p_held": self.held,
            "p_lanes": self.lanes,
            "p_per_lane": self.per_lane,
            "p_lease_seconds": self.lease,
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer of `gre_relay_claim_v1`.

    `token` is the one the worker chose. `emptied_lanes` is how many lanes were due but had no pending delivery.
    `recovered_lanes` is how many were leased by this owner under a token that it does not hold.
    `next_in` is the time in seconds until the next lane that was not claimed becomes due (0 when more is due now,
    None when no lane waits). `staff` lists active staff as (staff_id, is online), for sinks that address people.
    """

    token: str
    lanes: tuple[Lane, ...]
    next_in: float | None
    emptied_lanes: int = 0
    recovered_lanes: int = 0
    staff: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def from_json(cls, token: str, answer: Mapping[str, Any]) -> Claim:
        """Read the jsonb of `gre_relay_claim_v1`."""
        return cls(
            token=token,
            lanes=tuple(
                Lane(lane["lane_key"], tuple(Delivery.from_json(row) for row in lane["deliveries"]))
                for lane in answer["lanes"]
            ),
            next_in=answer["next_in"],
            emptied_lanes=answer.get("emptied_lanes", 0),
            recovered_lanes=answer.get("recovered_lanes", 0),
            staff=tuple((row["staff_id"], row["online"]) for row in answer.get("staff") or ()),
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer of `gre_relay_settle_v1`.

    `busy` lanes, or a delivery or receipt of theirs, were locked by another transaction: settle them again. `lost`
    lanes had another token; what was sent is recorded all the same. `waiting` is how many freed lanes have pending
    deliveries.
    """

    busy: frozenset[str]
    lost: frozenset[str]
    waiting: int

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Settled:
        """Read the jsonb of `gre_relay_settle_v1`."""
        return cls(frozenset(answer["busy"]), frozenset(answer["lost"]), int(answer["waiting"]))


@dataclass(frozen=True, slots=True)
class Assignments:
    """The answer of `gre_assign_waiting_v1`.

    `enabled` is False while automatic assignment is off. `busy`: another worker assigns at this moment. `more`: call
    again at once. `assigned` sessions got a staff member; `returned` ones lost one who is offline.
    """

    enabled: bool
    busy: bool = False
    more: bool = False
    assigned: int = 0
    returned: int = 0

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Assignments:
        """Read the jsonb of `gre_assign_waiting_v1`."""
        return cls(
            enabled=bool(answer["enabled"]),
            busy=bool(answer["busy"]),
            more=bool(answer["more"]),
            assigned=int(answer["assigned"]),
            returned=int(answer["released"]),
        )


@dataclass(frozen=True, slots=True)
class DeskStats:
    """The answer of `gre_desk_stats_v1`.

    `unassigned` and `assigned` sessions wait for an answer. `oldest_age` is in open seconds, 0 if no session of nobody
    waits. Automatic assignment could give a session to `available_staff` now; `staff` take sessions at all.
    `opens` is False for opening hours without any open time.
    """

    assignment: str
    unassigned: int
    assigned: int
    oldest_age: float
    available_staff: int
    staff: int
    opens: bool

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> DeskStats:
        """Read the jsonb of `gre_desk_stats_v1`."""
        return cls(
            assignment=str(answer["assignment"]),
            unassigned=int(answer["unassigned"]),
            assigned=int(answer["assigned"]),
            oldest_age=float(answer["oldest_age"] or 0),
            available_staff=int(answer["available_staff"]),
            staff=int(answer["staff"]),
            opens=bool(answer["opens"]),
        )


@dataclass(frozen=True, slots=True)
class Tick:
    """The answer of `gre_tick_v1`.

    `enabled` is False while nothing can start a timer. `next_in` is the time in seconds until the next timer is due
    (not positive if it is due and was left), None without timers. `handled` is the number of timers that fired or
    failed; `sent`, `skipped`, `closed` and `failed` count their effects. A session can be closed though its text failed.
    """

    enabled: bool
    next_in: float | None = None
    handled: int = 0
    sent: int = 0
    skipped: int = 0
    closed: int = 0
    failed: int = 0

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Tick:
        """Read the jsonb of `gre_tick_v1`."""
        next_in = answer["next_in"]
        return cls(
            enabled=bool(answer["enabled"]),
            next_in=None if next_in is None else float(next_in),
            handled=int(answer["handled"]),
            sent=int(answer["sent"]),
            skipped=int(answer["skipped"]),
            closed=int(answer["closed"]),
            failed=int(answer["failed"]),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """The deliveries (one, or those merged into one record) at which a lane stopped.

    `state` "retry" leaves it pending, "dead" gives it up; `spend` says whether an attempt was spent
    (an outage spends none); `retry_in` is in seconds.
    """

    deliveries: tuple[str, ...]
    state: Literal["retry", "dead"]
    error: str
    spend: bool = False
    retry_in: float = 0.0


@dataclass(slots=True)
class LaneResult:
    """What became of one claimed lane; `to_json` is one element of the argument of `gre_relay_settle_v1`.

    `keep` records what went out so far and keeps the lane leased; `retry_in` (seconds) frees it for later.
    """

    lane_key: str
    token: str
    done: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    failure: Failure | None = None
    receipts: list[Json] = field(default_factory=list)
    retry_in: float | None = None
    keep: bool = False

    def part(self) -> LaneResult:
        """Take out what went through so far, to be recorded while the lane is kept."""
        part = LaneResult(
            self.lane_key, self.token, self.done, self.expired, receipts=self.receipts, keep=True
        )
        self.done, self.expired, self.receipts = [], [], []
        return part

    def to_json(self) -> Json:
        """The element as `gre_relay_settle_v1` reads it; empty parts are left out."""
        out: Json = {"lane": self.lane_key, "token": self.token}
        if self.done:
            out["done"] = self.done
        if self.expired:
            out["expired"] = self.expired
        if self.failure:
            f = self.failure
            out["failed"] = {"ids": list(f.deliveries), "state": f.state, "error": f.error, "spend": f.spend}
            out["retry_in"] = f.retry_in
        elif self.retry_in is not None:
            out["retry_in"] = self.retry_in
        if self.receipts:
            out["receipts"] = self.receipts
        if self.keep:
            out["keep"] = True
        return out
