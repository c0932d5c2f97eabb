"""The operator's client of the database: status, dead letters, replay, reconciliation, expiry, pruning.

Long operations go page by page, so that each statement is short and an interruption loses nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.relay import classify_error
from gre_bridge.db.types import DeskStats, Json
from gre_bridge.errors import TransientError

PAGE = 500
LOCK_ERRORS = ("55P03", "40P01")
"""SQLSTATEs of a page that found locked rows: it changed nothing and can be repeated at once."""
LOCK_TIMEOUT = 30.0
"""Seconds for which such a page is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadFilter:
    """Selects the dead letters that match every field that is not None.

    `older_than` is in seconds since they died; `before` is a time of the database (ISO 8601): those that died before it.
    """

    sink: str | None = None
    session: str | None = None
    older_than: float | None = None
    error: str | None = None
    ids: Sequence[str] | None = None
    before: str | None = None

    def arguments(self) -> Json:
        """Return the arguments of `gre_relay_dead`."""
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
    """Return a time that is later than `time`, which the database has truncated to milliseconds."""
    return (datetime.fromisoformat(time) + timedelta(milliseconds=1)).isoformat()


def _locked(error: BaseException) -> bool:
    return isinstance(error, TransientError) and error.code in LOCK_ERRORS


class OperatorDatabase:
    """The outbox, for operators. Every method may raise a BridgeError."""

    def __init__(self, rest: PostgrestClient) -> None:
        """Use `rest`, which `aclose` closes."""
        self._rest = rest

    @classmethod
    async def open(cls, *, url: str, key: str, apikey: str | None = None, timeout: float = 60.0) -> Self:
        """Return the project at `url`, called with its service key. `timeout` in seconds bounds each call."""
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
            stop=stop_after_delay(LOCK_TIMEOUT),
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

    async def desk_stats(self) -> DeskStats:
        """Return which sessions wait for the staff, and who could get them."""
        return DeskStats.from_json(await self._call("gre_desk_stats_v1", {}, dict))

    async def status(self, *, blocked: int = 10) -> Json:
        """Return {"now", "sinks", "blocked", "workers"}; `blocked` is the most blocked lanes to return."""
        status: Json = await self._call("gre_relay_status", {"p_blocked": blocked}, dict)
        return status

    async def dead(self, which: DeadFilter, *, limit: int = 100) -> list[Json]:
        """Return dead letters, newest first. They hold ids, never text."""
        deliveries: list[Json] = await self._call(
            "gre_relay_dead", {**which.arguments(), "p_limit": limit}, list
        )
        return deliveries

    async def resolve(self, which: DeadFilter, *, drop: bool = False) -> AsyncIterator[int]:
        """Retry all matching dead letters, or drop them. Yields the number of deliveries of each page.

        A delivery that dies again meanwhile is not retried twice.
        """
        while deliveries := await self.dead(which, limit=PAGE):
            if which.before is None:
                which = replace(which, before=_after(deliveries[0]["died_at"]))
            ids = [delivery["id"] for delivery in deliveries]
            done: int = await self._call("gre_relay_retry", {"p_ids": ids, "p_drop": drop}, int)
            if not done:
                return
            yield done

    async def examine_again(
        self, *, code: str | None = None, ids: Sequence[str] | None = None
    ) -> AsyncIterator[int]:
        """Have refused files examined again: all, those with this code, those with these ids. Yields the number of each page.

        One that is refused again meanwhile is not taken twice.
        """
        arguments = {"p_code": code, "p_ids": None if ids is None else list(ids), "p_limit": PAGE}
        async for page in self._pages("gre_media_again", arguments):
            yield page["files"]

    async def replay(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        session: str | None = None,
        sink: str | None = None,
        dry_run: bool = False,
    ) -> AsyncIterator[int]:
        """Enqueue past messages again, marked as replayed. Yields the number of messages of each page.

        `since` and `until` are ISO 8601.
        """
        arguments = {
            "p_since": since, "p_until": until, "p_session": session, "p_sink": sink,
            "p_dry_run": dry_run, "p_limit": PAGE,
        }  # fmt: skip
        async for page in self._pages("gre_relay_replay", arguments):
            yield page["messages"]

    async def reconcile(self, *, dry_run: bool = False) -> AsyncIterator[Json]:
        """Enqueue messages that have no deliveries. Yields {"checked", "missing": {sink: count}, "lanes"} for each page."""
        async for page in self._pages("gre_relay_reconcile", {"p_dry_run": dry_run, "p_limit": 1000}):
            yield page

    async def report(
        self,
        *,
        begin: str,
        end: str,
        timezone: str,
        by: str,
        basis: str | None = None,
        in_hours: bool = False,
    ) -> Json:
        """Return the figures of [begin, end) (ISO 8601), as `GET /api/gre-admin/reports` does."""
        arguments = {
            "p_from": begin, "p_to": end, "p_timezone": timezone, "p_by": by, "p_basis": basis, "p_in_hours": in_hours,
        }  # fmt: skip
        answer: Json = await self._call("gre_report", arguments, dict)
        return answer

    async def report_check(self, *, begin: str, end: str) -> AsyncIterator[Json]:
        """Count the figures again from messages and events. Yields {"checked", "incomplete", "differences"} for each page."""
        async for page in self._pages("gre_report_check", {"p_from": begin, "p_to": end}, "p_cursor"):
            yield page

    async def export(self, what: str, *, begin: str, end: str) -> AsyncIterator[list[Json]]:
        """Read the rows of [begin, end), in the order of their times. Yields the rows of each page."""
        arguments = {"p_what": what, "p_from": begin, "p_to": end}
        async for page in self._pages("gre_export", arguments, "p_cursor"):
            yield page["rows"]

    async def _pages(self, function: str, arguments: Json, cursor: str = "p_after") -> AsyncIterator[Json]:
        after: str | None = None
        while True:
            page = await self._call(function, {**arguments, cursor: after}, dict)
            yield page
            after = page["next"]
            if after is None:
                return

    async def expire(
        self, *, before: str, sink: str | None = None, dry_run: bool = False
    ) -> AsyncIterator[int]:
        """Expire pending deliveries created before a time (ISO 8601). Yields the number of deliveries of each page."""
        arguments = {"p_before": before, "p_sink": sink, "p_dry_run": dry_run, "p_limit": 1000}
        while count := await self._call("gre_relay_expire", arguments, int):
            yield count
            if dry_run:
                return

    async def prune(self, *, keep: float, retention: float | None = None) -> AsyncIterator[Json]:
        """Delete deliveries settled more than `keep` seconds ago. Yields the counts of each page.

        With `retention` (seconds) also deletes closed sessions whose last message is older, with their messages.
        """
        arguments = {
            "p_keep": _interval(keep),
            "p_retention": None if retention is None else _interval(retention),
        }
        while any((page := await self._call("gre_relay_prune", arguments, dict)).values()):
            yield page
