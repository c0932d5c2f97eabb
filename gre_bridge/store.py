"""Every call to the database, typed: the only module that knows the names of tables and functions.

All go through Supabase's Python client to PostgREST as the service role. Each is safe to repeat, since
a client's time-out does not cancel the statement (measured on PostgREST 14.5: it commits later).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx
from httpx_aiohttp import AiohttpTransport
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions, AsyncSupabaseException, acreate_client

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.models import Claim, Json, LaneResult

T = TypeVar("T")

SCHEMA_VERSIONS = range(1, 2)
"""Versions of `gre_schema_version()` that this worker can work with."""

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
_status: ContextVar[list[int] | None] = ContextVar("status", default=None)


def explain(error: Exception, what: str, status: int | None = None) -> BridgeError:
    """Sort an error of the client into transient, permanent or configuration.

    `status` is the HTTP status, where one came: a gateway's refusal has no code of its own. The text names
    the call and the code; PostgreSQL's own words, which may quote an argument, are left out.
    """
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{what}: no answer in time", code="timeout")
    if isinstance(error, httpx.HTTPError | OSError):
        return TransientError(f"{what}: {type(error).__name__}", code="connection")
    if not isinstance(error, APIError):
        return PermanentError(f"{what}: {type(error).__name__}")
    code = str(status or "") if error.code is None else str(error.code)
    # Codes in P are PostgREST's and our own functions': their words hold no data.
    text = f"{what}: {code or 'the database is away'} {(error.message or '') if code.startswith('P') else ''}"
    if code == "PGRST202":
        return ConfigurationError(f"{what}: unknown function; run `gre-bridge migrate`", code=code)
    if code in ("PGRST301", "PGRST302", "PGRST303", "401", "403"):
        return ConfigurationError(f"{what}: SUPABASE_SERVICE_KEY was refused ({code})", code=code)
    if code == "42501":
        return ConfigurationError(
            f"{what}: SUPABASE_SERVICE_KEY may not do this (not the service key?)", code=code
        )
    if code in _TRANSIENT_CODES or code.startswith(_TRANSIENT_CLASSES):
        return TransientError(text, code=code)
    # A proxy's word, not the database's; but what it finds malformed or too large is halved, not repeated.
    if len(code) == 3 and code.isdigit() and code not in ("400", "413"):
        return TransientError(text, code=code)
    return PermanentError(text, code=code)


async def _note_status(response: httpx.Response) -> None:
    if (seen := _status.get()) is not None:
        seen.append(response.status_code)


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer of `gre_relay_settle`.

    `busy` lanes were locked by someone else: settle them again in a moment. `lost` lanes had been taken
    over; what went out was recorded all the same. `waiting` is how many freed lanes have more to do.
    """

    busy: frozenset[str]
    lost: frozenset[str]
    waiting: int


class Store:
    """The database as the worker sees it. Opened with `open`, closed with `aclose`."""

    def __init__(self, *, client: AsyncClient, http: httpx.AsyncClient) -> None:
        """Use `client`, which sends through `http`."""
        self._client = client
        self._http = http
        self.on_request: Callable[[str], None] = lambda _: None

    @classmethod
    async def open(cls, *, url: str, key: str, timeout: float = 10.0) -> Self:
        """Connect lazily to the project at `url` with its service key; `timeout` (seconds) bounds each call."""
        http = httpx.AsyncClient(
            # Half of httpx's own transport's CPU time for each call, which bounds the relay's latency under load.
            transport=AiohttpTransport(
                limits=httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=60)
            ),
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            event_hooks={"response": [_note_status]},
        )
        try:
            client = await acreate_client(
                url, key, AsyncClientOptions(httpx_client=http, auto_refresh_token=False)
            )
        except AsyncSupabaseException as error:
            await http.aclose()
            raise ConfigurationError(f"SUPABASE_URL or SUPABASE_SERVICE_KEY: {error}") from None
        return cls(client=client, http=http)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, function: str, arguments: Json, read: Callable[[Any], T]) -> T:
        self.on_request(function)
        seen: list[int] = []
        _status.set(seen)
        try:
            answer = (await self._client.rpc(function, arguments).execute()).data
        except Exception as error:  # noqa: BLE001 - sorted here, once, for everyone
            raise explain(error, function, seen[-1] if seen else None) from None
        try:
            return read(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            # A proxy's page with status 200, say: it may have happened all the same.
            raise TransientError(f"{function}: the answer is not the database's", code="unreadable") from None

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
        return await self._call("gre_relay_claim", arguments, lambda answer: Claim.from_json(token, answer))

    async def settle(self, *, sink: str, results: Iterable[LaneResult]) -> Settled:
        """Record what became of claimed deliveries and free exactly these lanes."""
        return await self._call(
            "gre_relay_settle",
            {"p_sink": sink, "p_results": [result.to_json() for result in results]},
            lambda answer: Settled(
                frozenset(answer["busy"]), frozenset(answer["lost"]), int(answer["waiting"])
            ),
        )

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Prolong the leases of `lanes`; returns those extended and those busy: the rest are lost."""
        return await self._call(
            "gre_relay_extend",
            {"p_sink": sink, "p_token": token, "p_lanes": lanes, "p_lease_seconds": lease},
            lambda answer: (frozenset(answer["extended"]), frozenset(answer["busy"])),
        )

    async def release(self, *, sink: str, token: str, lanes: list[str] | None = None) -> bool:
        """Give lanes back unsent (all of `token` when None); False when some were locked: repeat."""
        return await self._call(
            "gre_relay_release",
            {"p_sink": sink, "p_token": token, "p_lanes": lanes},
            lambda answer: bool(answer["busy"] == 0),
        )

    async def stats(self) -> list[Json]:
        """What waits, one object for each sink (`gre_relay_stats`)."""
        return await self._call("gre_relay_stats", {}, lambda rows: [dict(row) for row in rows])

    async def schema_version(self) -> int:
        """Version of the migrated schema; ConfigurationError when there is none."""
        return await self._call("gre_schema_version", {}, int)
