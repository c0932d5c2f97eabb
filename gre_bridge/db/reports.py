"""The calls for figures: reports, their check, the export, and a player's rating. A part of `db.users`, with the same rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gre_bridge.db.answers import ChangedSession
from gre_bridge.db.callers import CallerDatabase
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.report_answers import CountedPage, ExportPage, LiveFigures, Report, ReportCheck
from gre_bridge.db.types import Json


@dataclass(frozen=True, slots=True)
class ReportQuestion:
    """What a report is about: [since, until) as ISO 8601; `timezone` is a name that PostgreSQL knows.

    `by`: none, hour, day, week, month or staff. `basis`: None, asked, answered or closed. `in_hours`: durations in
    opening hours.
    """

    since: str
    until: str
    timezone: str
    by: str
    basis: str | None
    in_hours: bool

    def arguments(self) -> Json:
        """Return the arguments of the functions."""
        given = asdict(self)
        return {
            "p_from": given.pop("since"),
            "p_to": given.pop("until"),
            **{f"p_{k}": v for k, v in given.items()},
        }


class ReportDatabase(CallerDatabase):
    """The functions for figures, typed. Every method may raise Refused or TransientError."""

    async def report(self, caller: Caller, question: ReportQuestion) -> Report:
        """Count, see docs/reports.md. For staff."""
        return await self._read(Report, "gre_report", question.arguments(), caller)

    async def report_sessions(
        self,
        caller: Caller,
        question: ReportQuestion,
        *,
        metric: str,
        key: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> CountedPage:
        """List what a cell counts: {"items": [{"session_id", "cycle", "at", "value", "count", "staff_id"}], "next"}.

        `key` is that of the row; None: the total.
        """
        arguments = {
            **question.arguments(),
            "p_metric": metric,
            "p_key": key,
            "p_cursor": cursor,
            "p_limit": limit,
        }
        return await self._read(CountedPage, "gre_report_sessions", arguments, caller)

    async def report_live(self, caller: Caller) -> LiveFigures:
        """Read who is there, and what waits. For staff."""
        return await self._read(LiveFigures, "gre_report_live", {}, caller)

    async def report_check(
        self, caller: Caller, since: str, until: str, *, cursor: str | None = None
    ) -> ReportCheck:
        """Compare the figures of sessions that changed in [since, until) with their messages and events. For admins."""
        arguments = {"p_from": since, "p_to": until, "p_cursor": cursor}
        return await self._read(ReportCheck, "gre_report_check", arguments, caller)

    async def export(
        self,
        caller: Caller,
        what: str,
        *,
        since: str | None = None,
        until: str | None = None,
        cursor: str | None = None,
        limit: int = 1000,
    ) -> ExportPage:
        """Read a page of an export, in the order of time: at most `limit` rows and about 1 MB. For admins."""
        arguments = {"p_what": what, "p_from": since, "p_to": until, "p_cursor": cursor, "p_limit": limit}
        return await self._read(ExportPage, "gre_export", arguments, caller)

    async def rate_session(
        self, caller: Caller, session_id: str, *, score: int, comment: str | None
    ) -> ChangedSession:
        """Rate a closed session, as its player. Safe to repeat."""
        arguments = {"p_session_id": session_id, "p_score": score, "p_comment": comment}
        answer = await self._write(ChangedSession, "gre_rate_session", arguments, caller)
        self._observer.session_written(session_id)
        return answer
