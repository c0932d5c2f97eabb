"""What operators ask of the outbox, typed: status, dead letters, replay, reconciliation, expiry, pruning.

The third part of the one room that knows the names of functions (`store` is the worker's, `portal` the
callers'). Long work goes page by page, so that no statement runs long and a stop loses nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.relay import classify_error
from gre_bridge.db.types import Json
from gre_bridge.errors import TransientError

PAGE = 500
LOCKED = ("55P03", "40P01")
"""What a page says that met another's locks: nothing was done, and it may be asked again at once."""
PATIENCE = 30.0
"""Seconds for which a page is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFilter:
    """Which dead letters: all that match every part that is given.

    `older_than` is in seconds since they died; `before` is a time of the database (ISO 8601): those that died before it.
    """

    sink: str | None = None
    session: str | None = None
    older_than: float | None = None
    error: str | None = None
    ids: Sequence[str] | None = None
    before: str | None = None

    def arguments(self) -> Json:
        """As `gre_relay_dead` takes them."""
        return {
            "p_sink": self.sink,
            "p_session": self.session,
            "p_older_than": None if self.older_than is None else _interval(self.older_than),
            "p_error": self.error,
            "p_ids": None if self.ids is None else list(self.ids),
            "p_before": self.before,
        }


def _interval(seconds: float) -> str:
    return f"{seconds:.6f} seconds"


def _after(time: str) -> str:
    """Return the first moment that is certainly later than `time`, which the database has cut to milliseconds."""
    return (datetime.fromisoformat(time) + timedelta(milliseconds=1)).isoformat()


def _locked(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.code in LOCKED


class OperatorDatabase:
    """The outbox as those see it who run it. Every method may raise a BridgeError."""

    def __init__(self, rest: PostgrestClient) -> None:
        """Call through `rest`, which `aclose` closes."""
        self._rest = rest

    @classmethod
    async def open(cls, *, url: str, key: str, apikey: str | None = None, timeout: float = 60.0) -> Self:
        """The project at `url` with its service key and anon key; `timeout` (seconds) bounds each call."""
        return cls(
            await PostgrestClient.open(url=url, key=key, apikey=apikey, timeout=timeout, connections=2)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def __aenter__(self) -> Self:
        """Use as a context."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def _call(self, function: str, arguments: Json, shape: type) -> Any:
        return await AsyncRetrying(
            retry=retry_if_exception(_locked),
            wait=wait_random_exponential(0.05, max=1),
            stop=stop_after_delay(PATIENCE),
            reraise=True,
        )(self._once, function, arguments, shape)

    async def _once(self, function: str, arguments: Json, shape: type) -> Any:
        try:
            answer = await self._rest.rpc(function, {k: v for k, v in arguments.items() if v is not None})
        except PostgrestError as error:
            raise classify_error(error, function) from None
        if not isinstance(answer, shape):
            raise TransientError(f"{function}: the answer is not the database's", code="unreadable")
        return answer

    async def status(self, *, blocked: int = 10) -> Json:
        """What waits and why: {"now", "sinks", "blocked" (at most so many lanes), "workers"}."""
        status: Json = await self._call("gre_relay_status", {"p_blocked": blocked}, dict)
        return status

    async def dead(self, which: DeadFilter, *, limit: int = 100) -> list[Json]:
        """List dead letters, newest first. They hold ids, never text."""
        letters: list[Json] = await self._call(
            "gre_relay_dead", {**which.arguments(), "p_limit": limit}, list
        )
        return letters

    async def resolve(self, which: DeadFilter, *, drop: bool = False) -> AsyncIterator[int]:
        """Send all matching dead letters again, or drop them; yields how many each page had.

        One that dies again meanwhile is left as it is.
        """
        while letters := await self.dead(which, limit=PAGE):
            if which.before is None:
                which = replace(which, before=_after(letters[0]["died_at"]))
            ids = [letter["id"] for letter in letters]
            done: int = await self._call("gre_relay_retry", {"p_ids": ids, "p_drop": drop}, int)
            if not done:
                return
            yield done

    async def replay(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        session: str | None = None,
        sink: str | None = None,
        dry_run: bool = False,
    ) -> AsyncIterator[int]:
        """Announce again what went already, each marked as replayed; yields how many messages each page had.

        `since` and `until` are times that PostgreSQL reads.
        """
        arguments = {
            "p_since": since, "p_until": until, "p_session": session, "p_sink": sink,
            "p_dry_run": dry_run, "p_limit": PAGE,
        }  # fmt: skip
        async for page in self._pages("gre_relay_replay", arguments):
            yield page["messages"]

    async def reconcile(self, *, dry_run: bool = False) -> AsyncIterator[Json]:
        """Compare messages with deliveries and repair: yields {"checked", "missing": {sink: n}, "lanes"} a page."""
        async for page in self._pages("gre_relay_reconcile", {"p_dry_run": dry_run, "p_limit": 1000}):
            yield page

    async def _pages(self, function: str, arguments: Json) -> AsyncIterator[Json]:
        after: str | None = None
        while True:
            page = await self._call(function, {**arguments, "p_after": after}, dict)
            yield page
            after = page["next"]
            if after is None:
                return

    async def expire(
        self, *, before: str, sink: str | None = None, dry_run: bool = False
    ) -> AsyncIterator[int]:
        """Give up what waits and is older; yields how many each page had."""
        arguments = {"p_before": before, "p_sink": sink, "p_dry_run": dry_run, "p_limit": 1000}
        while count := await self._call("gre_relay_expire", arguments, int):
            yield count
            if dry_run:
                return

    async def prune(self, *, keep: float, retention: float | None = None) -> AsyncIterator[Json]:
        """Delete what was settled more than `keep` seconds ago; yields what each page deleted.

        With `retention` (seconds) also closed sessions whose last message is older, with their messages.
        """
        arguments = {
            "p_keep": _interval(keep),
            "p_retention": None if retention is None else _interval(retention),
        }
        while any((page := await self._call("gre_relay_prune", arguments, dict)).values()):
            yield page
