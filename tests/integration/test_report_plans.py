"""What reports read, with 20,000 cycles: entries of indexes only, few of them once hours are packed, and few for a list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.integration.filling import without_indexes
from tests.support.access import SERVICE, Rest, staff
from tests.support.counters import count_now
from tests.support.report_year import fill, pack

TABLES = (
    "gre_chat_cycles", "gre_chat_responses", "gre_chat_activity", "gre_chat_ratings", "gre_chat_assignments", "gre_chat_events",
)  # fmt: skip
PACKED = ("report_hours", "report_months", "report_days")
YEAR = {"from": "2025-10-01T00:00:00+02:00", "to": "2026-10-01T00:00:00+02:00", "timezone": "Europe/Malta"}


@pytest.fixture(scope="module")
def large(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    """A year of 20,000 cycles, 90,000 questions and 300,000 messages."""
    pg.create_database("large_reports", migrated_template)
    database = Database(pg, "large_reports")
    with database.connect("supabase_admin") as admin:
        with without_indexes(admin, *TABLES):
            fill(admin, 20_000)
        admin.execute("vacuum analyze")
    yield database
    pg.drop_database("large_reports")


class Meter:
    """Counts what one call reads: rows of sequential scans, and rows or entries by index."""

    def __init__(self, db: Database) -> None:
        self.rest = Rest(db, staff("s1"))
        self.watch = db.connect("supabase_admin")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest.conn.close()
        self.watch.close()

    def _now(self) -> tuple[int, int, int]:
        self.rest.conn.execute("select pg_stat_force_next_flush()")
        self.watch.execute("select pg_stat_clear_snapshot()")
        row = self.watch.execute(
            "select coalesce(sum(t.seq_tup_read), 0)::bigint as scanned,"
            " coalesce(sum(x.read) filter (where t.relname = any(%(facts)s)), 0)::bigint as facts,"
            " coalesce(sum(x.read) filter (where t.relname = any(%(packed)s)), 0)::bigint as packed"
            " from pg_stat_user_tables t cross join lateral"
            " (select sum(i.idx_tup_read) as read from pg_stat_user_indexes i where i.relid = t.relid) x"
            " where t.relname = any(%(facts)s || %(packed)s)",
            {"facts": list(TABLES), "packed": list(PACKED)},
        ).fetchone()
        assert row is not None
        return row["scanned"], row["facts"], row["packed"]

    def searches(self, index: str) -> int:
        """Return how often an index has been searched."""
        self._now()
        row = self.watch.execute(
            "select idx_scan as n from pg_stat_user_indexes where indexrelname = %s", [index]
        ).fetchone()
        assert row is not None
        return int(row["n"])

    def reads(self, function: str, **arguments: Any) -> tuple[Any, int, int]:
        """Return the answer, the facts read and the packed rows read; nothing is scanned."""
        before = self._now()
        answer = self.rest.call(function, **arguments)
        scanned, facts, packed = (after - old for after, old in zip(self._now(), before, strict=True))
        assert scanned == 0
        return answer, facts, packed


def test_reports_and_lists_read_indexes(large: Database) -> None:
    """Before and after packing, and the answers are the same."""
    with Meter(large) as meter:
        answers = {}
        for by in ("day", "staff", "none", "week"):
            answers[by], facts, packed = meter.reads("gre_report", **YEAR, by=by)
            assert answers[by]["total"]["reply"]["n"] > 50_000
            assert (packed, facts > 200_000) == (0, True)
        for basis in ("asked", "answered", "closed"):
            meter.reads("gre_report", **YEAR, by="month", basis=basis)
        day, facts, _ = meter.reads("gre_report", **(YEAR | {"from": "2026-09-30T00:00:00+02:00"}))
        assert (len(day["rows"]), facts < 8_000) == (1, True)
        for metric in (
            "reply",
            "first_reply",
            "sessions_opened",
            "missed",
            "transfers",
            "rating",
            "handle",
            "time_to_close",
        ):
            page, facts, _ = meter.reads("gre_report_sessions", **YEAR, by="none", metric=metric, limit=50)
            assert (len(page["items"]), facts < 6_000) == (50, True), (metric, facts)
        meter.reads("gre_report_live")
        with Rest(large, SERVICE) as worker:
            pack(large, worker)
        for by in ("day", "staff", "none"):
            answer, facts, packed = meter.reads("gre_report", **YEAR, by=by)
            assert answer == answers[by]
            # The total of all is read from months, and from days where the range cuts one; that of each person needs hours there.
            limit = 20_000 if by == "staff" else 10_000
            assert (facts < 10, packed < limit) == (True, True), (by, facts, packed)
        # The index of packing: PostgreSQL 18 can read an index once for each value of its first column.
        before = meter.searches("report_hours_until")
        meter.reads("gre_report", **(YEAR | {"from": "2026-09-30T00:00:00+02:00"}), by="hour")
        assert meter.searches("report_hours_until") == before


@pytest.mark.past_triggers("a year is written without messages")
def test_replies_since_the_last_packing_are_read_once(db: Database) -> None:
    """Not once for each hour of the report."""
    with db.connect("supabase_admin") as admin, Rest(db, SERVICE) as worker:
        fill(admin, 2_000)
        count_now(admin)
        pack(db, worker)
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, ended, ended_at, answered_seq, answered_at,"
            " staff_id, wait_seconds, open_seconds)"
            " select md5('late' || g)::uuid, 1, 1, true, 1, x.at - interval '1 minute', 'answered', x.at, 2, x.at, 's1', 60, 60"
            " from generate_series(1, 30) g cross join lateral (select now() - g * interval '1 second' as at) x"
        )
        count_now(admin)
        admin.execute("vacuum analyze gre_chat_responses")
    end = datetime.now(UTC)
    with Meter(db) as meter:
        answer, facts, _ = meter.reads(
            "gre_report", **{"from": end - timedelta(days=100), "to": end}, by="hour"
        )
    assert answer["total"]["first_reply"]["n"] >= 30
    assert facts < 10_000
