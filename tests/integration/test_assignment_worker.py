"""Automatic assignment by real workers: waiting sessions are assigned after a wake-up, and the relay is not delayed."""

from __future__ import annotations

import time

from tests.support.stack import StackProcess, judge
from tests.support.waiting import let_pass, wait_until


def prepare(stack: StackProcess, assignment: str) -> None:
    """Set the mode of assignment; the seeds' staff member s1 is online."""
    with stack.db() as conn:
        conn.execute("update gre_chat_settings set assignment = %s", [assignment])
        conn.execute(
            "insert into gre_online_status (staff_id, status, expires_at) values ('s1', 'online', now() + interval '1 hour')"
            " on conflict (staff_id) do update set status = 'online', expires_at = excluded.expires_at"
        )


def assigned(stack: StackProcess) -> list[int]:
    with stack.db() as conn:
        rows = conn.execute(
            "select player_id from gre_chat_sessions where assigned_staff_id = 's1' order by 1"
        ).fetchall()
    return [row["player_id"] for row in rows]


def test_a_session_that_waits_is_assigned_soon_after_its_message(stack: StackProcess) -> None:
    prepare(stack, "round_robin")
    with stack.worker(only="relay") as one, stack.worker(only="relay"):
        wait_until(lambda: one.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        for player in (41, 42, 43):
            stack.insert(player_id=player, sender="player", message="x")
            wait_until(lambda p=player: p in assigned(stack), 12, 0.02, what="an assignment")  # type: ignore[misc]
        stack.drained()
    verdict = judge(stack)
    assert not any(verdict.lost.values())
    assert not any(verdict.out_of_order.values())
    assert not any(verdict.repeats.values())
    with stack.db() as conn:
        rows = conn.execute("select how, count(*) as n from gre_chat_assignments group by 1").fetchall()
    assert rows == [{"how": "auto", "n": 3}]


def test_while_it_is_off_a_worker_calls_four_times_a_minute_whatever_is_written(stack: StackProcess) -> None:
    prepare(stack, "off")
    with stack.worker(only="relay") as worker:

        def calls() -> float:
            return worker.metric("gre_database_requests_total", function="gre_assign_waiting_v1")

        wait_until(calls)
        began = time.monotonic()
        for n in range(100):
            stack.insert(player_id=41 + n % 7, sender="player", message="x")
        stack.drained()
        let_pass(1, "time for a call that a wake-up would have caused")
        assert calls() <= 2 + (time.monotonic() - began) / 15
        assert assigned(stack) == []


def test_a_call_that_hangs_delays_no_delivery(stack: StackProcess) -> None:
    """Another transaction locks the loads, which each call reads first."""
    prepare(stack, "round_robin")
    with stack.worker(only="relay", GRE_REQUEST_TIMEOUT="90") as worker, stack.db() as holder:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        holder.execute("begin")
        holder.execute("lock table gre_staff_load in access exclusive mode")
        for n in range(20):
            stack.insert(player_id=41 + n, sender="player", message="x")
        stack.drained(50)  # less than the call may last
        assert assigned(stack) == []
        holder.execute("commit")
        wait_until(lambda: len(assigned(stack)) == 20, 150, what="assignments")
