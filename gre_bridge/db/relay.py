"""Every call to the database, typed: the only module that knows the names of tables and functions.

All go to PostgREST as the service role. Each is safe to repeat, since a client's time-out does not cancel
the statement (measured on PostgREST 14.5: it commits later).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from gre_bridge.db.joint import Joint, Part
from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.types import Claim, Json, LaneResult
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.polling import Listening

T = TypeVar("T")

SCHEMA_VERSIONS = range(3, 4)
"""Versions of `gre_schema_version()` that this worker can work with."""

UNKNOWN_FUNCTION = "PGRST202"
RELOADS = 60.0
"""Seconds for which a function may be unknown after a change of the schema: PostgREST reads it anew."""

JOINT_RESULTS = 16
"""Lanes of a settle up to which it shares a call with others; more go beside them, not before."""
_CLAIM, _SETTLE, _EXCHANGE = "gre_relay_claim_v1", "gre_relay_settle_v1", "gre_relay_exchange_v1"

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
_AWAY_CODES = {
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
NOTHING_DONE = frozenset({"PGRST002", "PGRST003", "25006", "40001", "40P01", "53300", "55P03", "57014"})
"""With one of these the call certainly had no effect: it never ran, or was rolled back."""
FLAPS = 1.0
"""Seconds: where some calls fail and others do not, each that does not would end the pauses of those that do."""


_IN_WORDS = {
    "25006": "the database is read-only: its disk may be full",
}
"""What a person should think of at these codes."""


def clocks_differ(error: PostgrestError) -> bool:
    """Return True for a token that is good, but not yet by PostgREST's clock: it passes (supabase/supabase#50651)."""
    return error.status == 401 and error.message in ("JWT issued at future", "JWT not yet valid")


def explain(error: Exception, what: str) -> BridgeError:
    """Sort an error of a call into transient, permanent or configuration.

    The text names the call and the code; PostgreSQL's own words, which may quote an argument, are left out.
    """
    if isinstance(error, BridgeError):
        return error
    if not isinstance(error, PostgrestError):
        return PermanentError(f"{what}: {type(error).__name__}")
    code = error.code
    # Codes in P are PostgREST's and our own functions': their words hold no data.
    said = _IN_WORDS.get(code) or (error.message if code.startswith("P") else "")
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


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer of `gre_relay_settle_v1`.

    `busy` lanes were locked by someone else: settle them again in a moment. `lost` lanes had been taken
    over; what went out was recorded all the same. `waiting` is how many freed lanes have more to do that
    no claim of the same call has looked at.
    """

    busy: frozenset[str]
    lost: frozenset[str]
    waiting: int


class RelayDatabase:
    """The database as the worker sees it. Opened with `open`, closed with `aclose`."""

    def __init__(self, *, rest: PostgrestClient, clock: Callable[[], float] = time.monotonic) -> None:
        """Call through `rest`, which `aclose` closes; `clock` is in seconds."""
        self._rest = rest
        self._clock = clock
        self._unknown_since: dict[str, float] = {}
        self._away = False
        self._back_at = -math.inf
        self.on_back: Callable[[], None] = lambda: None
        """Called when PostgreSQL answers again after a call found it away, at most once in FLAPS seconds."""
        self._joint = Joint(alone=self._alone, together=self._together)
        self.on_request: Callable[[str], None] = lambda _: None

    @classmethod
    async def open(cls, *, url: str, key: str, apikey: str | None = None, timeout: float = 10.0) -> Self:
        """The project at `url` with its service key and anon key; `timeout` (seconds) bounds each call.

        Raises ConfigurationError for what is no address or no key.
        """
        return cls(rest=await PostgrestClient.open(url=url, key=key, apikey=apikey, timeout=timeout))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._joint.aclose()
        await self._rest.aclose()

    async def _request(self, function: str, arguments: Json) -> Any:
        self.on_request(function)
        try:
            answer = await self._rest.rpc(function, arguments)
        except Exception as error:  # noqa: BLE001 - sorted here, once, for everyone
            sorted_out = self._not_yet(function, explain(error, function))
            self._away |= isinstance(sorted_out, TransientError) and sorted_out.code in _AWAY_CODES
            raise sorted_out from None
        if self._away and (now := self._clock()) >= self._back_at + FLAPS:
            self._away, self._back_at = False, now
            self.on_back()
        self._unknown_since.pop(function, None)
        return answer

    async def _call(self, function: str, arguments: Json, read: Callable[[Any], T]) -> T:
        return _read(function, await self._request(function, arguments), read)

    async def _alone(self, part: Part, refused: Exception | None) -> Any:
        """Raises for a claim what was `refused` with others, if not by the database: it may have happened all the same."""
        if part.function == _CLAIM and isinstance(refused, BridgeError) and not _is_the_databases(refused):
            raise refused
        return await self._request(part.function, part.arguments)

    async def _together(self, parts: Sequence[Part]) -> Sequence[Any]:
        """Raises what is not transient for a schema that cannot do it yet: then each goes alone, for a minute."""
        since = self._unknown_since.get(_EXCHANGE)
        if since is not None and self._clock() - since < RELOADS:
            raise ConfigurationError(f"{_EXCHANGE}: unknown function", code=UNKNOWN_FUNCTION)
        self._unknown_since.pop(_EXCHANGE, None)
        try:
            answers = await self._request(_EXCHANGE, {"p_parts": [part.arguments for part in parts]})
        except TransientError as error:
            if error.code == UNKNOWN_FUNCTION:
                raise ConfigurationError(str(error), code=error.code) from None
            raise
        if not isinstance(answers, list) or len(answers) != len(parts):
            raise _unreadable(_EXCHANGE)
        return [
            self._part_failed(part.function, answer) or answer
            for part, answer in zip(parts, answers, strict=True)
        ]

    def _part_failed(self, function: str, answer: Any) -> BridgeError | None:
        """The error of one part of a call whose other parts went through."""
        failed = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(failed, dict):
            return None
        code, message = str(failed.get("code")), str(failed.get("message"))
        return self._not_yet(
            function, explain(PostgrestError(status=400, code=code, message=message), function)
        )

    def _not_yet(self, function: str, error: BridgeError) -> BridgeError:
        """The error, or for a function that has been unknown for less than a minute a transient one."""
        if error.code != UNKNOWN_FUNCTION:
            return error
        since = self._unknown_since.setdefault(function, self._clock())
        if self._clock() - since >= RELOADS:
            return error
        return TransientError(str(error), code=error.code)

    async def claim(self, *, sink: str, token: str, lanes: int, per_lane: int, lease: float) -> Claim:
        """Lease up to `lanes` due lanes of `sink` for `lease` seconds under `token`, oldest first.

        After an error the claim may still have happened: release the token.
        Raises TransientError, PermanentError or ConfigurationError, as every method here.
        """
        arguments = {
            "p_sink": sink,
            "p_token": token,
            "p_lanes": lanes,
            "p_per_lane": per_lane,
            "p_lease_seconds": lease,
        }
        answer = await self._joint.call(Part(_CLAIM, arguments, place=1))
        return _read(_CLAIM, answer, lambda answer: Claim.from_json(token, answer))

    async def settle(self, *, sink: str, results: Sequence[LaneResult]) -> Settled:
        """Record what became of claimed deliveries and free exactly these lanes."""
        arguments = {"p_sink": sink, "p_results": [result.to_json() for result in results]}
        if len(results) > JOINT_RESULTS:
            answer, looked = await self._request(_SETTLE, arguments), False
        else:
            part = Part(_SETTLE, arguments, place=0)
            answer = await self._joint.call(part)
            looked = any(other["p_sink"] == sink for other in part.beside)
        return _read(
            _SETTLE,
            answer,
            lambda answer: Settled(
                frozenset(answer["busy"]),
                frozenset(answer["lost"]),
                0 if looked else int(answer["waiting"]),
            ),
        )

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Prolong the leases of `lanes`; returns those extended and those busy: the rest are lost."""
        return await self._call(
            "gre_relay_extend_v1",
            {"p_sink": sink, "p_token": token, "p_lanes": lanes, "p_lease_seconds": lease},
            lambda answer: (frozenset(answer["extended"]), frozenset(answer["busy"])),
        )

    async def release(self, *, sink: str, token: str, lanes: list[str] | None = None) -> bool:
        """Give lanes back unsent (all of `token` when None); False when some were locked: repeat."""
        return await self._call(
            "gre_relay_release_v1",
            {"p_sink": sink, "p_token": token, "p_lanes": lanes},
            lambda answer: bool(answer["busy"] == 0),
        )

    async def stats(self) -> list[Json]:
        """What waits, one object for each sink (`gre_relay_stats_v1`)."""
        return await self._call("gre_relay_stats_v1", {}, lambda rows: [dict(row) for row in rows])

    async def listen(self, listener: str, awake: float) -> Listening:
        """Say that this process is to be woken, but not for so many seconds."""
        arguments = {"p_listener": listener, "p_kind": "relay", "p_polls_for": awake}
        return await self._call(
            "gre_relay_listen_v1",
            arguments,
            lambda answer: Listening(
                int(answer["listeners"]), int(answer["hubs"]), bool(answer["broadcasts"])
            ),
        )

    async def unlisten(self, listener: str) -> None:
        """Say that this process is not to be woken any more."""
        await self._call("gre_relay_unlisten_v1", {"p_listener": listener}, lambda _: None)

    async def probe(self) -> None:
        """Have a wake-up sent to everyone."""
        await self._call("gre_relay_notify_v1", {}, lambda _: None)

    async def beat(self, *, worker: str, host: str, version: str, info: Json) -> Json:
        """Say that this daemon is there: {"schema": version, "sinks": [{"sink", "enabled"}]}."""
        return await self._call(
            "gre_relay_report_v1",
            {"p_worker": worker, "p_host": host, "p_version": version, "p_info": info},
            lambda answer: {"schema": int(answer["schema"]), "sinks": list(answer["sinks"])},
        )

    async def leave(self, worker: str) -> None:
        """Say that this daemon has stopped."""
        await self._call("gre_relay_leave_v1", {"p_worker": worker}, lambda _: None)

    async def schema_version(self) -> int:
        """Version of the migrated schema; ConfigurationError when there is none."""
        return await self._call("gre_schema_version", {}, int)


def _read(function: str, answer: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        # JSON, but not ours: it may have happened all the same.
        raise _unreadable(function) from None


def _is_the_databases(error: BridgeError) -> bool:
    """Whether PostgreSQL or PostgREST said so: then nothing was done. A proxy may say it of what was."""
    return len(error.code) == 5 or error.code.startswith("PGRST")


def _unreadable(function: str) -> TransientError:
    return TransientError(f"{function}: the answer is not the database's", code="unreadable")
