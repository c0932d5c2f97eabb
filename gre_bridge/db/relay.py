"""Every call that the worker makes to the database, typed.

All go to PostgREST as the service role. Each is safe to repeat, since a client's time-out does not cancel
the statement (measured on PostgREST 14.5: it commits later).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.report_answers import Packing
from gre_bridge.db.types import (
    Assignments,
    Claim,
    ClaimRequest,
    DeskStats,
    Json,
    LaneResult,
    Settled,
    Tick,
)
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.polling import Listening

T = TypeVar("T")

SCHEMA_VERSIONS = range(3, 4)
"""Versions of `gre_schema_version()` that this worker can work with."""

UNKNOWN_FUNCTION = "PGRST202"
SCHEMA_RELOAD_GRACE = 60.0
"""Seconds for which a function may be unknown after a change of the schema: PostgREST reads it anew."""

_TRANSIENT_CODES = {
    "",  # a crashed database answers 400 with an empty code at first
    "502",
    "503",
    "504",
    "520",
    "PGRST000",
    "PGRST001",
    "PGRST002",
    "PGRST003",
    "57014",
    "57P01",
    "57P02",
    "57P03",
    "55P03",
    "40001",
    "40P01",
    "25006",
}
_TRANSIENT_CLASSES = ("08", "53", "58", "XX")
_OUTAGE_CODES = {
    "",
    "connection",
    "502",
    "503",
    "504",
    "PGRST000",
    "PGRST001",
    "PGRST002",
    "57P01",
    "57P02",
    "57P03",
}
"""With one of these a call ends while PostgreSQL is away, and the first one after."""
RECOVERY_DEBOUNCE = 1.0
"""Seconds between two reports of a recovery: where only some calls fail, each other call would report one."""

_HINTS = {
    "25006": "the database is read-only: its disk may be full",
}
"""Explanations of codes for the operator."""


def clocks_differ(error: PostgrestError) -> bool:
    """Return True for a token that is not valid yet by PostgREST's clock, which is temporary (supabase/supabase#50651)."""
    return error.status == 401 and error.message in ("JWT issued at future", "JWT not yet valid")


def classify_error(error: Exception, what: str) -> BridgeError:
    """Sort an error of a call into transient, permanent or configuration.

    The text names the call and the code; PostgreSQL's own words, which may quote an argument, are left out.
    """
    if isinstance(error, BridgeError):
        return error
    if not isinstance(error, PostgrestError):
        return PermanentError(f"{what}: {type(error).__name__}")
    code = error.code
    # Codes in P are PostgREST's and our own functions': their words hold no data.
    said = _HINTS.get(code) or (error.message if code.startswith("P") else "")
    text = f"{what}: {code or 'the database is away'} {said}"
    if code == UNKNOWN_FUNCTION:
        return ConfigurationError(f"{what}: unknown function; run `gre-bridge migrate`", code=code)
    if clocks_differ(error):
        return TransientError(text, code=code)
    if code in ("PGRST301", "PGRST302", "PGRST303", "401", "403"):
        return ConfigurationError(f"{what}: SUPABASE_SERVICE_KEY was refused ({code})", code=code)
    if code == "42501":
        return ConfigurationError(
            f"{what}: SUPABASE_SERVICE_KEY may not do this (not the service key?)", code=code
        )
    if code == "PGRST003":
        return TransientError(
            f"{what}: PostgREST's connections are all taken by other queries (504 PGRST003)", code=code
        )
    if code in _TRANSIENT_CODES or code.startswith(_TRANSIENT_CLASSES):
        return TransientError(text, code=code)
    # A proxy's word, not the database's; but what it finds malformed or too large is halved, not repeated.
    if len(code) == 3 and code.isdigit() and code not in ("400", "413"):
        return TransientError(text, code=code)
    return PermanentError(text, code=code)


class CallObserver(Protocol):
    """Observes the calls to the database."""

    def database_called(self, function: str) -> AbstractContextManager[object]:
        """Return a context that is entered before the call and left after it, whatever its result."""
        ...


class StoreObserver(CallObserver, Protocol):
    """Observes the store's calls and outages."""

    def database_recovered(self) -> None:
        """PostgreSQL answers again after an outage; called at most once in RECOVERY_DEBOUNCE seconds."""


class RelayDatabase:
    """The database as the worker sees it."""

    def __init__(
        self,
        *,
        rest: PostgrestClient,
        observer: StoreObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call through `rest`, which `aclose` closes; `clock` is in seconds."""
        self._rest = rest
        self._observer = observer
        self._clock = clock
        self._unknown_since: dict[str, float] = {}
        self._outage = False
        self._recovered_at = -math.inf

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def call(self, function: str, arguments: Json, read: Callable[[Any], T]) -> T:
        """Call a function as the service and read its answer. Raises as every method here."""
        try:
            with self._observer.database_called(function):
                answer = await self._rest.rpc(function, arguments)
        except Exception as error:  # noqa: BLE001 - classified here, once, for all callers
            classified = self._allow_for_reload(function, classify_error(error, function))
            self._outage |= isinstance(classified, TransientError) and classified.code in _OUTAGE_CODES
            raise classified from None
        if self._outage and (now := self._clock()) >= self._recovered_at + RECOVERY_DEBOUNCE:
            self._outage, self._recovered_at = False, now
            self._observer.database_recovered()
        self._unknown_since.pop(function, None)
        try:
            return read(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            # JSON, but not the database's. The call may have been carried out all the same.
            raise TransientError(f"{function}: the answer is not the database's", code="unreadable") from None

    def _allow_for_reload(self, function: str, error: BridgeError) -> BridgeError:
        """The error, or for a function that has been unknown for less than a minute a transient one."""
        if error.code != UNKNOWN_FUNCTION:
            return error
        since = self._unknown_since.setdefault(function, self._clock())
        if self._clock() - since >= SCHEMA_RELOAD_GRACE:
            return error
        return TransientError(str(error), code=error.code)

    async def claim(self, request: ClaimRequest) -> Claim:
        """Lease due lanes, oldest first.

        After an error the claim may still have been made: the owner's next claim takes its lanes.
        Raises TransientError, PermanentError or ConfigurationError, as every method here.
        """
        return await self.call(
            "gre_relay_claim_v1", request.to_json(), lambda answer: Claim.from_json(request.token, answer)
        )

    async def settle(self, *, sink: str, results: Sequence[LaneResult]) -> Settled:
        """Record what became of claimed deliveries and free exactly these lanes."""
        arguments = {"p_sink": sink, "p_results": [result.to_json() for result in results]}
        return await self.call("gre_relay_settle_v1", arguments, Settled.from_json)

    async def exchange(self, results: Sequence[LaneResult], request: ClaimRequest) -> tuple[Settled, Claim]:
        """Settle `results` of the request's sink, then claim, in one call: both or neither."""
        return await self.call(
            "gre_relay_exchange_v1",
            {**request.to_json(), "p_results": [result.to_json() for result in results]},
            lambda answer: (
                Settled.from_json(answer["settled"]),
                Claim.from_json(request.token, answer["claim"]),
            ),
        )

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Prolong the leases of `lanes`; returns those extended and those busy: the rest are lost."""
        return await self.call(
            "gre_relay_extend_v1",
            {"p_sink": sink, "p_token": token, "p_lanes": lanes, "p_lease_seconds": lease},
            lambda answer: (frozenset(answer["extended"]), frozenset(answer["busy"])),
        )

    async def release(self, *, sink: str, owner: str) -> bool:
        """Give back all lanes of a worker unsent; False when some were locked."""
        return await self.call(
            "gre_relay_release_v1",
            {"p_sink": sink, "p_owner": owner},
            lambda answer: bool(answer["busy"] == 0),
        )

    async def assign_waiting(self) -> Assignments:
        """Assign waiting sessions to staff."""
        return await self.call("gre_assign_waiting_v1", {}, Assignments.from_json)

    async def tick(self, *, late_after: float) -> Tick:
        """Fire due timers; auto-replies that are due for longer than `late_after` seconds are skipped."""
        return await self.call("gre_tick_v1", {"p_late_after": late_after}, Tick.from_json)

    async def pack(self) -> Packing:
        """Pack a day of finished hours for reports."""
        return await self.call("gre_report_pack_v1", {}, Packing.from_json)

    async def stats(self) -> list[Json]:
        """The pending work, one object for each sink (`gre_relay_stats_v1`)."""
        return await self.call("gre_relay_stats_v1", {}, lambda rows: [dict(row) for row in rows])

    async def desk_stats(self) -> DeskStats:
        """Read which sessions wait for the staff, and for how long."""
        return await self.call("gre_desk_stats_v1", {}, DeskStats.from_json)

    async def listen(self, listener: str, polls_for: float, *, idle: bool = False) -> Listening:
        """Register this process as a listener that needs no wake-up for `polls_for` seconds, or none (`idle`)."""
        kind = "idle" if idle else "relay"
        arguments = {"p_listener": listener, "p_kind": kind, "p_polls_for": polls_for}
        return await self.call(
            "gre_relay_listen_v1",
            arguments,
            lambda answer: Listening(
                int(answer["listeners"]), int(answer["hubs"]), bool(answer["broadcasts"])
            ),
        )

    async def unlisten(self, listener: str) -> None:
        """Remove this process from the listeners."""
        await self.call("gre_relay_unlisten_v1", {"p_listener": listener}, lambda _: None)

    async def probe(self) -> None:
        """Have a wake-up sent to everyone."""
        await self.call("gre_relay_notify_v1", {}, lambda _: None)

    async def report(self, *, worker: str, host: str, version: str, info: Json) -> Json:
        """Say that this daemon is there: {"schema": version, "sinks": [{"sink", "enabled"}]}."""
        return await self.call(
            "gre_relay_report_v1",
            {"p_worker": worker, "p_host": host, "p_version": version, "p_info": info},
            lambda answer: {"schema": int(answer["schema"]), "sinks": list(answer["sinks"])},
        )

    async def leave(self, worker: str) -> None:
        """Say that this daemon has stopped."""
        await self.call("gre_relay_leave_v1", {"p_worker": worker}, lambda _: None)

    async def schema_version(self) -> int:
        """Version of the migrated schema; ConfigurationError when there is none."""
        return await self.call("gre_schema_version", {}, int)
