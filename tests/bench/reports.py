"""Reports of a year of 2,000,000 messages, beside the same question asked of the messages themselves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.bench.report import Section
from tests.conftest import MIGRATIONS, Database
from tests.support.access import SERVICE, Conn, Rest, staff
from tests.support.report_year import fill, pack

CYCLES = 130_000
YEAR = {"from": "2025-10-01T00:00:00+02:00", "to": "2026-10-01T00:00:00+02:00", "timezone": "Europe/Malta"}
MESSAGES = """
set session_replication_role = replica;
drop index gre_chat_messages_search; -- filling it would take minutes
insert into gre_chat_messages (session_id, seq, player_id, sender, sender_id, message, created_at)
  select x.session_id, row_number() over (partition by x.session_id order by x.at), 1, x.sender, x.who, 'message', x.at
  from (select session_id, asked_at as at, 'player' as sender, null as who from gre_chat_responses
        union all select session_id, asked_at + interval '0.5 seconds', 'player', null from gre_chat_responses
        union all select session_id, answered_at, 'staff', staff_id from gre_chat_responses where answered_at is not null
        union all select session_id, opened_at + interval '1 second', 'system', null from gre_chat_cycles
        union all select session_id, closed_at + interval '1 second', 'system', null from gre_chat_cycles where closed_by = 'idle') x;
"""
# Reply times of each day, or of each person: a question begins with a player's message after one of staff, and ends with the next of staff.
RAW = """
with said as (
  select session_id, seq, sender, sender_id, created_at, lag(sender) over w as before from gre_chat_messages
  where created_at >= %(from)s::timestamptz - interval '1 day' and created_at < %(to)s and sender <> 'system'
  window w as (partition by session_id order by seq)
), turns as (
  select session_id, sender, created_at, lead(created_at) over w as answered_at, lead(sender_id) over w as who from said
  where sender is distinct from before window w as (partition by session_id order by seq)
)
select {key} as key, count(*) as n, percentile_disc(array[0.5, 0.9]) within group (order by floor(extract(epoch from answered_at - created_at))) as p
from turns where sender = 'player' and answered_at >= %(from)s and answered_at < %(to)s group by 1 order by 1
"""
KEYS = {"day": "date_trunc('day', answered_at, %(timezone)s)", "staff": "who"}


def reports(say: Callable[[str], None], cycles: int = CYCLES) -> Section:
    """Measure the report by day and by staff: from facts, from packed hours, and from messages."""
    with (
        tempfile.TemporaryDirectory(prefix="gre-bench-") as directory,
        EmbeddedPostgres(data_dir=Path(directory), durable=False) as pg,
    ):
        pg.install_supabase()
        with psycopg.connect(pg.dsn(), autocommit=True) as conn:
            for path in MIGRATIONS:
                with conn.transaction():
                    conn.execute(path.read_bytes(), prepare=False)
        return _measure(Database(pg, "postgres"), say, cycles)


def _measure(database: Database, say: Callable[[str], None], cycles: int) -> Section:
    with (
        database.connect("supabase_admin") as admin,
        Rest(database, staff("s1")) as desk,
        Rest(database, SERVICE) as worker,
    ):
        say(f"reports: a year of {cycles:,} cycles")
        desk.conn.execute("set statement_timeout = 0")
        worker.conn.execute("set statement_timeout = 0")
        fill(admin, cycles)
        admin.execute(MESSAGES, prepare=False)
        admin.execute("vacuum analyze", prepare=False)
        count = admin.execute("select count(*) as n from gre_chat_messages").fetchone()
        assert count is not None
        found: dict[str, dict[str, tuple[float, Any]]] = {}
        for by, key in KEYS.items():
            say(f"reports: by {by}, from messages and from facts")
            found[by] = {
                "messages": _quickest(lambda key=key: _raw(admin, key), 2),
                "facts": _quickest(lambda by=by: desk.call("gre_report", **YEAR, by=by), 3),
            }
        say("reports: packing")
        began = time.perf_counter()
        pack(database, worker)
        packing = time.perf_counter() - began
        rows = []
        for by, times in found.items():
            times["packed"] = _quickest(lambda by=by: desk.call("gre_report", **YEAR, by=by), 7)
            report, raw = times["packed"][1], times["messages"][1]
            same = [
                (row["reply"]["n"], [row["reply"]["median"], row["reply"]["p90"]])
                for row in report["rows"]
                if row["reply"]["n"]
            ]
            if report != times["facts"][1] or same != raw:
                raise AssertionError(f"the answers by {by} differ")
            rows.append(
                [
                    f"by {by}",
                    str(len(report["rows"])),
                    *(f"{times[name][0] * 1000:.0f} ms" for name in ("messages", "facts", "packed")),
                ]
            )
        say("reports: by day, replies at the closing")
        took, _ = _quickest(lambda: desk.call("gre_report", **YEAR, by="day", basis="closed"), 3)
        rows.append(["by day, replies at the closing of their cycle", "365", "", "", f"{took * 1000:.0f} ms"])
    return Section(
        "Reports",
        [
            "a year",
            "rows",
            "reply times only, from messages",
            "all figures, nothing packed",
            "all figures, packed",
        ],
        rows,
        f"{count['n']:,} messages of {cycles:,} cycles, figures of them, and 12 people; the quickest of some calls, caches warm. The"
        f" answers are equal. Packing the whole year took {packing:.0f} s; a worker packs each hour when it is over.",
    )


def _quickest(ask: Callable[[], Any], times: int) -> tuple[float, Any]:
    best, answer = float("inf"), None
    for _ in range(times):
        began = time.perf_counter()
        answer = ask()
        best = min(best, time.perf_counter() - began)
    return best, answer


def _raw(admin: Conn, key: str) -> list[tuple[int, list[int]]]:
    rows = admin.execute(RAW.format(key=key).encode(), YEAR).fetchall()
    return [(row["n"], [int(value) for value in row["p"]]) for row in rows]
