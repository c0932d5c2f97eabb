"""The relay's cost as counts of requests and statements, which do not depend on the speed of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.test_outbox import all_done, claim, settle
from tests.support.access import Rest, staff
from tests.support.desk import people
from tests.support.stack import StackProcess, Worker, judge
from tests.support.waiting import wait_until

MESSAGES, SESSIONS = 3_000, 150


@pytest.mark.quiet
def test_a_drain_is_a_tenth_of_a_request_and_a_fiftieth_of_a_call_for_each_event(stack: StackProcess) -> None:
    with stack.db() as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message)"
            " select 1 + g %% %s, 'player', 'm' || g from generate_series(1, %s) g",
            [SESSIONS, MESSAGES],
        )
        # A backlog: recent work would cause frequent polls.
        conn.execute("update gre_relay_deliveries set created_at = created_at - interval '1 minute'")
        row = conn.execute("select count(*) as n from gre_relay_deliveries").fetchone()
        assert row is not None
        deliveries = row["n"]
    with stack.worker("relay") as worker:
        stack.drained(300)
        calls = {
            name: worker.metric("gre_database_requests_total", function=f"gre_relay_{name}_v1")
            for name in ("claim", "settle", "exchange", "extend", "release")
        }
        requests = worker.metric("gre_sink_requests_total", sink="pusher")
    events = sum(item["status"] == 200 for item in stack.received("pusher"))
    assert events == MESSAGES + 2 * SESSIONS  # a session that opens goes to two channels
    assert requests / events <= 0.15
    assert sum(calls.values()) / deliveries <= 0.05
    # At most 1,000 rows in a claim: no small claims, and each row once.
    assert calls["claim"] + calls["exchange"] <= 2 * deliveries / 1000 + 20
    assert calls["release"] == 0
    verdict = judge(stack)
    assert not any(verdict.lost.values())
    assert not any(verdict.out_of_order.values())
    assert not any(verdict.repeats.values())


@pytest.fixture
def live_worker(stack: StackProcess) -> Iterator[Worker]:
    """A worker that receives wake-ups, and reports every 2.5 s in place of 5; the session of player 1 is open."""
    with stack.worker(constants={"gre_bridge.polling.REPORT_INTERVAL": 2.5}) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        stack.insert(player_id=1, sender="player", message="opens the session")
        stack.drained()
        yield worker


@pytest.mark.quiet
def test_an_isolated_message_is_one_call_to_claim_and_one_to_settle_for_each_sink(
    stack: StackProcess, live_worker: Worker
) -> None:
    worker, names = live_worker, ("gre_relay_claim_v1", "gre_relay_settle_v1", "gre_relay_exchange_v1")

    def reports() -> float:
        return worker.metric("gre_database_requests_total", function="gre_relay_listen_v1", process="relay")

    def calls() -> dict[str, float]:
        return {name: worker.metric("gre_database_requests_total", function=name) for name in names}

    found = []
    for _ in range(4):  # a wake-up that comes late counts as missed, and then the worker polls for a while
        before = calls()
        for _ in range(4):
            reported = reports()
            wait_until(lambda n=reported: reports() > n, what="a report of the worker")  # type: ignore[misc]
            stack.insert(player_id=1, sender="player", message="one")
            stack.drained()
        after = calls()
        # The polls of the worker, a second after each message and two seconds later, and a claim that found its lane locked
        # by the insert.
        heard = {name: worker.metric(f"gre_wakeups_{name}") for name in ("total", "missed_total")}
        found.append((before, after, heard))
        if sum(after.values()) - sum(before.values()) <= 2 * (4 * (2 + 2) + 6):
            return
    pytest.fail(f"too many calls, four times: {found}")


def read(conn: psycopg.Connection[dict[str, Any]]) -> int:
    """Return the number of index entries of deliveries that have been read."""
    conn.execute("select pg_stat_force_next_flush()")
    conn.execute("select pg_stat_clear_snapshot()")
    row = conn.execute(
        "select sum(i.idx_tup_read) + max(t.seq_tup_read) as n from pg_stat_user_indexes i"
        " join pg_stat_user_tables t using (relid) where i.relname = 'gre_relay_deliveries'"
    ).fetchone()
    assert row is not None
    return int(row["n"])


def test_a_claim_and_its_settle_read_what_they_take_however_much_waits_and_before_any_analyze(
    db: Database,
) -> None:
    """The planner assumes that a table that was never analyzed is empty, and any plan is equally cheap there."""
    with db.connect() as conn:
        conn.execute("alter table gre_relay_deliveries set (autovacuum_enabled = false)")
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message)"
            " select 1 + g % 100, 'player', 'm' || g from generate_series(1, 6000) g"
        )
        for _ in range(7):  # also once the plans are cached
            before = read(conn)
            got = claim(conn, lanes=20, per_lane=5)
            claimed = read(conn)
            settle(conn, *all_done(got))
            settled = read(conn)
            assert len(got["lanes"]) == 20
            # 100 rows and the heads of 20 lanes; an index may be asked twice for a row, but not for the 6,000 that wait.
            assert claimed - before <= 300
            assert settled - claimed <= 600


def test_a_bulk_into_a_table_that_was_emptied_reads_none_of_it_for_each_message(db: Database) -> None:
    """The planner assumes that a table that was vacuumed while empty is empty, as long as the plan is cached."""
    with db.connect() as conn:
        conn.execute("alter table gre_chat_messages set (autovacuum_enabled = false)")
        conn.execute("insert into gre_chat_messages (player_id, sender, message) values (1, 'player', 'm')")
        conn.execute("delete from gre_chat_messages")
        conn.execute("vacuum analyze gre_chat_messages")
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message)"
            " select 1 + g % 100, 'player', 'm' || g from generate_series(1, 2000) g"
        )
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("select pg_stat_clear_snapshot()")
        row = conn.execute(
            "select seq_tup_read as n from pg_stat_user_tables where relname = 'gre_chat_messages'"
        ).fetchone()
    assert row is not None
    assert row["n"] < 100, "2,000 would be one scan of all of them"


def test_marks_of_messages_are_updated_in_place(db: Database) -> None:
    """Else each adds entries to all indexes, also to that of the search, and leaves as many for vacuum."""
    with db.connect() as conn, Rest(db, staff()) as desk:
        people(conn, 1)
        for _ in range(8):
            for player in range(1, 31):
                for _ in range(2):
                    conn.execute(
                        "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', %s)",
                        [player, "a message as players write it, of some words"],
                    )
            for row in conn.execute("select id, last_seq from gre_chat_sessions").fetchall():
                desk.call("gre_mark_read", session_id=row["id"], up_to_seq=row["last_seq"])
        for each in (conn, desk.conn):
            each.execute("select pg_stat_force_next_flush()")
        conn.execute("select pg_stat_clear_snapshot()")
        found = conn.execute(
            "select n_tup_upd as all, n_tup_hot_upd as here from pg_stat_user_tables where relname = 'gre_chat_messages'"
        ).fetchone()
    assert found is not None
    assert found["all"] == 480
    assert found["here"] >= 0.97 * found["all"], found
