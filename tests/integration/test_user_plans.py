"""Plans: with 45,000 sessions, the frequent calls of portals and the hub read few rows.

The statements run inside functions, so the tests read PostgreSQL's counters: rows of sequential scans, and entries of
each index (a scan of a whole index uses an index, too).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any, Self

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database
from tests.integration.filling import without_indexes
from tests.support.access import SERVICE, Caller, Rest, player, staff
from tests.support.counters import count_now

# Session n is player n's. 1 to 5,000 are open, 5,001 to 45,000 closed, the lower the later; session 1 has 10,000 messages,
# an open one 22; of a closed one the last two are kept.
FILL = """
set session_replication_role = replica;
insert into gre_staff (staff_id) values ('s1');
insert into gre_chat_sessions (id, player_id, player_name, waiting_since, status, last_seq, rev, last_message_at, created_at, updated_at)
  select md5('s' || n)::uuid, n, md5(n::text), case when n <= 5000 and n % 2 = 0 then now() - n * interval '1 minute' end, case when n <= 5000 then 'active' else 'closed' end, case when n = 1 then 10000 else 22 end, 30,
    now() - n * interval '1 minute', now() - n * interval '1 minute', now() - n * interval '1 minute'
  from generate_series(1, 45000) n;
insert into gre_chat_messages (session_id, seq, player_id, sender, message, status, created_at)
  select md5('s' || n)::uuid, seq, n, case when seq % 2 = 0 then 'staff' else 'player' end, 'message', 'sent',
    now() - n * interval '1 minute' - (s.top - seq) * interval '1 second'
  from generate_series(1, 45000) n cross join lateral (select case when n = 1 then 10000 else 22 end as top) s,
    generate_series(case when n <= 5000 then 1 else s.top - 1 end, s.top) seq;
update gre_chat_sessions set assigned_staff_id = 's1' where player_id % 100 = 7;
insert into gre_chat_events (session_id, rev, at, after_seq, kind)
  select md5('s' || n)::uuid, rev, now(), 1, case when rev = 1 then 'opened' else 'assigned' end
  from generate_series(1, 45000) n, generate_series(1, case when n = 1 then 10000 else 3 end) rev;
set session_replication_role = origin;
"""


@pytest.fixture(scope="module")
def large(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    pg.create_database("large", migrated_template)
    database = Database(pg, "large")
    with database.connect("supabase_admin") as admin:
        with without_indexes(admin, "gre_chat_messages", "gre_chat_sessions", "gre_chat_events"):
            admin.execute(FILL, prepare=False)
        admin.execute("vacuum analyze gre_chat_sessions, gre_chat_messages, gre_chat_events")
    yield database
    pg.drop_database("large")


class Meter:
    """A context manager that counts the rows and index entries that one call reads."""

    def __init__(self, db: Database, caller: Caller) -> None:
        self.rest = Rest(db, caller)
        self.watch = db.connect("supabase_admin")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest.conn.close()
        self.watch.close()

    def counts(self) -> tuple[int, int]:
        self.rest.conn.execute("select pg_stat_force_next_flush()")
        self.watch.execute("select pg_stat_clear_snapshot()")
        row = self.watch.execute(
            "select (select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname in ('gre_chat_sessions', 'gre_chat_messages', 'gre_chat_events')) as rows,"
            " (select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname in ('gre_chat_sessions', 'gre_chat_messages', 'gre_chat_events')) as entries"
        ).fetchone()
        assert row is not None
        return row["rows"], row["entries"]

    def reads(self, function: str, most: int, **arguments: Any) -> Any:
        """Call eight times (from the sixth on PostgreSQL may choose a plan for any arguments) within `most` index entries each."""
        before = self.counts()
        for _ in range(8):
            answer = self.rest.call(function, **arguments)
        rows, entries = (now - then for now, then in zip(self.counts(), before, strict=True))
        assert rows == 0, f"{function}({sorted(arguments)}) read {rows} rows in sequential scans"
        assert entries <= most * 8, f"{function}({sorted(arguments)}) read {entries // 8} index entries"
        return answer


@pytest.fixture(params=["player", "back end as player", "staff", "back end as staff"])
def meter(request: pytest.FixtureRequest, large: Database) -> Iterator[Meter]:
    who = {"player": player(1), "staff": staff(), "back end as player": SERVICE.acting_as("player:1"),
           "back end as staff": SERVICE.acting_as("staff:s1")}[request.param]  # fmt: skip
    with Meter(large, who) as found:
        yield found


def test_pages_of_history(large: Database, meter: Meter) -> None:
    with large.connect() as conn:
        row = conn.execute(
            "select md5('s1')::uuid as s, id from gre_chat_messages where session_id = md5('s1')::uuid and seq = 5000"
        ).fetchone()
        count_now(conn)
    assert row is not None
    newest = meter.reads("gre_chat_history", 130, player_id=1, limit=50, sessions=True)
    assert len(newest["messages"]) == 50
    middle = meter.reads("gre_chat_history", 130, player_id=1, before=row["id"], limit=50)
    assert middle["messages"][-1]["seq"] == 4999
    for paging in ({}, {"before_seq": 5000}, {"before": row["id"]}, {"after_seq": 5000}, {"after_seq": 0}):
        page = meter.reads("gre_chat_history", 130, session_id=row["s"], limit=50, **paging)
        assert len(page["messages"]) == 50


def test_pages_of_the_session_list(meter: Meter) -> None:
    staffs = "staff" in str(meter.rest.caller)
    page = meter.reads("gre_list_sessions", 230, limit=50)
    assert len(page["sessions"]) == (50 if staffs else 1)
    if staffs:
        # The first page of closed ones skips the open ones, which are the latest.
        for status, first in ((None, 230), ("active", 230), ("closed", 5300)):
            page = meter.reads("gre_list_sessions", first, limit=50, status=status)
            for _ in range(8):
                page = meter.rest.call("gre_list_sessions", limit=50, status=status, cursor=page["next"])
            meter.reads("gre_list_sessions", 230, limit=50, status=status, cursor=page["next"])
        assert (
            len(meter.reads("gre_list_sessions", 5300, limit=50, status="active", assigned="me")["sessions"])
            == 50
        )


def test_pages_of_the_queue(large: Database) -> None:
    """A page of answered sessions may skip the waiting ones, and a search among open ones may read all of them twice."""
    with Meter(large, staff()) as meter:
        page = meter.reads("gre_session_queue", 2900, limit=50)
        assert all(one["waiting_since"] for one in page["sessions"])
        for status, first, later in (("active", 2900, 2900), ("closed", 230, 230), (None, 2900, 2900)):
            page = meter.reads("gre_session_queue", first, limit=50, status=status)
            while "0_" in page["next"][:2]:  # those that wait
                page = meter.rest.call("gre_session_queue", limit=500, status=status, cursor=page["next"])
            for _ in range(2):
                page = meter.reads("gre_session_queue", later, limit=50, status=status, cursor=page["next"])
                assert len(page["sessions"]) == 50
        name = "ab1"
        named = sum(hashlib.md5(str(n).encode()).hexdigest().startswith(name) for n in range(1, 45001))
        assert 0 < named < 50
        for which, most, count in (
            ({"player": "44999"}, 10_300, 1),
            ({"player": name}, 10_300, named),
            ({"player": name, "status": "closed"}, 200, None),
            ({"player": "zzz"}, 10_300, 0),
            ({"assigned": "me"}, 10_300, 50),
            ({"assigned": "me", "status": "closed"}, 230, 50),
            ({"assigned": "nobody that is"}, 10_300, 0),
        ):
            found = meter.reads("gre_session_queue", most, limit=50, **which)["sessions"]
            assert count is None or len(found) == count, which


def test_pages_of_the_queue_with_a_goal_for_the_first_reply(large: Database) -> None:
    """For each open session two entries more: staff's last message, and none beyond the first page's 50 sessions."""
    with large.connect() as conn:
        conn.execute("update gre_chat_settings set first_reply_goal = '1 min'")
    try:
        with Meter(large, staff()) as meter:
            page = meter.reads("gre_session_queue", 3200, limit=50)
            assert all(one["replied"] and one["waiting_since"] for one in page["sessions"])
            page = meter.reads("gre_session_queue", 230, limit=50, status="closed")
            assert not any("replied" in one for one in page["sessions"])
    finally:
        with large.connect() as conn:
            conn.execute("update gre_chat_settings set first_reply_goal = null")


def test_pages_of_a_story(large: Database) -> None:
    """Session 1 has 10,000 events; the planner must read a page of them in the order of the key."""
    session = uuid.UUID(hashlib.md5(b"s1").hexdigest())
    for who in (staff(), SERVICE.acting_as("staff:s1")):
        with Meter(large, who) as meter:
            for after in (None, 0, 5000, 9990):
                page = meter.reads("gre_session_events", 230, session_id=session, after_rev=after)
                assert len(page["events"]) == (10 if after == 9990 else 200)
            short = meter.reads(
                "gre_session_events", 230, session_id=uuid.UUID(hashlib.md5(b"s2").hexdigest())
            )
            assert len(short["events"]) == 3


def test_pages_of_an_export(large: Database) -> None:
    """All events have the same time."""
    with Meter(large, SERVICE) as meter:
        for what, later in (("messages", 110), ("events", 110)):
            page = meter.reads("gre_export", 110, what=what, limit=100)
            for _ in range(2):
                page = meter.reads("gre_export", later, what=what, limit=100, cursor=page["next"])
                assert len(page["rows"]) == 100


def test_catching_up(large: Database, meter: Meter) -> None:
    with large.connect() as conn:
        keys = [
            r["s"]
            for r in conn.execute("select md5('s' || n) ::uuid::text as s from generate_series(1, 300) n")
        ]
    staffs = "staff" in str(meter.rest.caller)
    assert len(meter.reads("gre_catch_up", 1300)["sessions"]) == (100 if staffs else 1)
    found = meter.reads("gre_catch_up", 3000, since=dict.fromkeys(keys, 20))
    assert len(found["missed"]) == (200 + 299 * 2 if staffs else 200)


def test_a_reader_who_has_missed_nothing(large: Database) -> None:
    """Some entries for each session named; of session 1, which is not, the messages of the last two minutes are read."""
    key = str(uuid.UUID(hashlib.md5(b"s7").hexdigest()))
    for who in (player(7), SERVICE.acting_as("player:7")):
        with Meter(large, who) as meter:
            found = meter.reads("gre_catch_up", 12, since={key: 22}, total=0)
            assert ([s["id"] for s in found["sessions"]], found["positions"]) == ([key], {})
    since = {str(uuid.UUID(hashlib.md5(f"s{n}".encode()).hexdigest())): 22 for n in range(2, 102)}
    with Meter(large, staff()) as meter:
        found = meter.reads("gre_catch_up", 530, since=since, total=0)
        assert since.keys() <= {s["id"] for s in found["sessions"]}
        assert not found["positions"].keys() & since.keys()


def test_a_list_of_sessions_does_not_ask_for_each_of_them_who_the_caller_is(large: Database) -> None:
    """Row-level security asks that in each statement, so a statement for each session would cost ten times as much."""
    with large.connect("supabase_admin") as admin:
        admin.execute("alter database large set track_functions = 'all'")
    asked = "select coalesce(sum(calls), 0)::bigint as n from pg_stat_user_functions where funcname = 'current_actor'"
    try:
        with Meter(large, staff()) as meter:
            for function, most, arguments in (
                ("gre_catch_up", 20, {"total": 0}),
                ("gre_list_sessions", 8, {"limit": 100}),
                ("gre_session_queue", 8, {"limit": 100}),
            ):
                calls = []
                for _ in range(2):
                    meter.counts()
                    calls += meter.watch.execute(asked).fetchall()
                    assert len(meter.rest.call(function, **arguments)["sessions"]) == 100
                meter.counts()
                calls += meter.watch.execute(asked).fetchall()
                assert 0 < calls[2]["n"] - calls[1]["n"] <= most, function
    finally:
        with large.connect("supabase_admin") as admin:
            admin.execute("alter database large reset track_functions")


def test_sending_and_marking_in_a_session_of_ten_thousand(large: Database) -> None:
    for who in (SERVICE.acting_as("player:1"), player(2), staff()):
        target = {"player_id": 1} if who == staff() else {}
        with Meter(large, who) as meter:
            meter.reads("gre_send_message", 160, message="paced", **target)
            meter.reads("gre_send_messages", 160 * 5, messages=[{"message": "paced", **target}] * 5)
    with large.connect() as conn:
        row = conn.execute("select id, last_seq from gre_chat_sessions where player_id = 1").fetchone()
        count_now(conn)
    assert row is not None
    with Meter(large, staff()) as meter:
        meter.rest.call("gre_mark_read", session_id=row["id"], up_to_seq=row["last_seq"] - 16)
        for seq in (row["last_seq"] - 8, row["last_seq"]):
            meter.reads("gre_mark_read", 60, session_id=row["id"], up_to_seq=seq)


def test_the_hubs_reads(large: Database) -> None:
    with large.connect() as conn:
        found = conn.execute(
            "select id::text, last_seq, rev, updated_at from gre_chat_sessions where status <> 'closed' order by updated_at desc"
        ).fetchall()
        count_now(conn)
    known = {row["id"]: [row["last_seq"], row["rev"]] for row in found}
    behind = {row["id"]: [row["last_seq"] - 2, row["rev"] - 2] for row in found}
    since = found[100]["updated_at"]
    with Meter(large, SERVICE) as meter:
        assert meter.reads("gre_hub_changes_v1", 150, positions=known, since=since)["sessions"] == []
        assert (
            meter.reads("gre_hub_changes_v1", 150, positions=known, since=since, players=[1, 2, 3])[
                "sessions"
            ]
            == []
        )
        news = meter.reads("gre_hub_changes_v1", 1000, positions=behind, since=since, epoch=since)
        assert [len(item["messages"]) for item in news["sessions"]] == [2] * 100
        named = meter.reads(
            "gre_hub_changes_v1", 75, positions=behind, sessions=[uuid.UUID(row["id"]) for row in found[:5]]
        )
        assert len(named["sessions"]) == 5
