"""The cost of assignment: rows that a call reads beside 100,000 waiting sessions, and time of a message's insert."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, LiteralString, Self

import psycopg
import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.integration.filling import without_indexes
from tests.support.access import WORKER, request
from tests.support.counters import count_now
from tests.support.cpu import server_cpu

TABLES = (
    "gre_chat_sessions",
    "gre_chat_messages",
    "gre_chat_assignments",
    "gre_relay_deliveries",
)
# Sessions 1 to 100,000 wait, the higher the longer. The last 5,000 are assigned to s1 to s5, who are offline; 20 others are online.
FILL = """
set session_replication_role = replica;
insert into gre_staff (staff_id) select 's' || n from generate_series(1, 25) n;
insert into gre_online_status (staff_id, status, last_seen_at, updated_at, expires_at)
  select 's' || n, case when n <= 5 then 'offline' else 'online' end, now(), now(), now() + interval '1 hour'
  from generate_series(1, 25) n;
insert into gre_chat_sessions (id, player_id, last_seq, rev, waiting_since, last_message_at, created_at, updated_at, assigned_staff_id)
  select md5('s' || n)::uuid, n, 1, 2, now() - n * interval '1 second', now() - n * interval '1 second',
    now() - n * interval '1 second', now() - n * interval '1 second', case when n > 95000 then 's' || 1 + n % 5 end
  from generate_series(1, 100000) n;
insert into gre_chat_messages (session_id, seq, player_id, sender, message, created_at)
  select md5('s' || n)::uuid, 1, n, 'player', 'message', now() - n * interval '1 second' from generate_series(1, 100000) n;
insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at)
  select id, 1, assigned_staff_id, 'auto', 1, waiting_since from gre_chat_sessions where assigned_staff_id is not null;
insert into gre_staff_load (staff_id, open_sessions)
  select t.staff_id, count(a.session_id) from gre_staff t left join gre_chat_assignments a on a.staff_id = t.staff_id group by 1;
update gre_chat_settings set assignment = 'least_busy', returning_within = '1 day', offline_after = '1 hour';
set session_replication_role = origin;
"""


@pytest.fixture(scope="module")
def large(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    pg.create_database("large_desk", migrated_template)
    database = Database(pg, "large_desk")
    with database.connect("supabase_admin") as admin:
        with without_indexes(admin, *TABLES):
            admin.execute(FILL, prepare=False)
        admin.execute("vacuum analyze")
    yield database
    pg.drop_database("large_desk")


class Meter:
    """Counts the rows and index entries that calls read; a context manager."""

    def __init__(self, db: Database) -> None:
        self.worker = db.connect("authenticator")
        self.watch = db.connect("supabase_admin")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()
        self.watch.close()

    def counts(self) -> tuple[int, int]:
        self.worker.execute("select pg_stat_force_next_flush()")
        self.watch.execute("select pg_stat_clear_snapshot()")
        row = self.watch.execute(
            "select (select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname = any (%(t)s)) as rows,"
            " (select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = any (%(t)s)) as entries",
            {"t": list(TABLES)},
        ).fetchone()
        assert row is not None
        return row["rows"], row["entries"]

    def reads(
        self, most: int, limit: int = 0, call: LiteralString = "gre_assign_waiting_v1(%(limit)s)"
    ) -> dict[str, Any]:
        """Call eight times (also once plans are cached) within `most` index entries each; return the last answer."""
        before = self.counts()
        found: dict[str, Any] = {}
        for _ in range(8):
            with request(self.worker, WORKER) as conn:
                row = conn.execute(f"select {call} as found", {"limit": limit}).fetchone()
            assert row is not None
            found = row["found"]
        rows, entries = (now - then for now, then in zip(self.counts(), before, strict=True))
        assert rows == 0, f"{rows} rows were read from end to end"
        assert entries <= most * 8, f"{entries // 8} index entries"
        return found


def test_assigning_reads_only_what_it_assigns_beside_100000_sessions(large: Database) -> None:
    with Meter(large) as meter:
        found = meter.reads(1_000, limit=20)
        assert (found["assigned"], found["more"]) == (20, True)
        with large.connect() as conn:  # a thousand at most are looked at, and nobody here has room
            conn.execute("update gre_chat_settings set max_sessions = 1")
            assert meter.reads(20, limit=20)["assigned"] == 0
            conn.execute("update gre_chat_settings set max_sessions = null")


def test_a_session_that_nobody_may_get_again_costs_one_entry_of_each_index(large: Database) -> None:
    with Meter(large) as meter, large.connect() as conn:
        conn.execute("update gre_staff set takes_sessions = false where staff_id <> 's6'")
        conn.execute(
            "insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at, ended_at, end_how)"
            " select id, 5, 's6', 'auto', 1, now(), now(), 'released' from gre_chat_sessions"
            " where waiting_since is not null and assigned_staff_id is null order by waiting_since limit 300"
        )
        count_now(conn)
        found = meter.reads(300 * 25, limit=1)
        assert found["assigned"] == 1
        conn.execute("update gre_staff set takes_sessions = true")


def test_returning_what_waits_for_who_is_offline_reads_only_that(large: Database) -> None:
    with Meter(large) as meter, large.connect() as conn:
        conn.execute("update gre_chat_settings set offline_after = '0'")
        found = meter.reads(1_200, limit=20)
        assert (found["released"], found["more"]) == (20, True)


def test_the_state_of_the_desk_is_read_from_10000_entries_of_each_index_at_most(large: Database) -> None:
    with Meter(large) as meter:
        found = meter.reads(16_000, call="gre_desk_stats_v1()")
        assert found["unassigned"] == 10_000
        assert 4_000 < found["assigned"] < 6_000
        assert found["oldest_age"] > 90_000


def timed(conn: psycopg.Connection[dict[str, Any]], player: int) -> float:
    """Write a message; return the seconds of CPU time that it cost the server."""
    began = server_cpu(conn)
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')", [player]
    )
    return server_cpu(conn) - began


def test_a_message_costs_at_most_300_us_more_while_assignment_is_off(
    pg: EmbeddedPostgres, migrated_template: str
) -> None:
    """Compare with a database without the triggers and indexes: first messages, which open sessions, and later ones."""
    names = ("desk_with", "desk_without")
    for name in names:
        pg.create_database(name, migrated_template)
    try:
        with Database(pg, names[0]).connect() as one, Database(pg, names[1]).connect() as other:
            for trigger in ("", "_update", "_delete", "_truncate"):
                other.execute(f"drop trigger gre_6_assignment{trigger} on gre_chat_sessions".encode())
            other.execute(
                "drop index gre_chat_sessions_assigned_waiting, gre_chat_sessions_unassigned_waiting"
            )
            first: list[list[float]] = [[], []]
            later: list[list[float]] = [[], []]
            for player in range(1, 401):
                for n, conn in enumerate((one, other)):
                    first[n].append(timed(conn, player))
                    later[n].append(timed(conn, player))
        for times in (first, later):
            # The tenth of them that other processes delay least.
            more = statistics.quantiles(times[0], n=10)[0] - statistics.quantiles(times[1], n=10)[0]
            assert more <= 0.0003, f"{more * 1e6:.0f} us more"
    finally:
        for name in names:
            pg.drop_database(name)
