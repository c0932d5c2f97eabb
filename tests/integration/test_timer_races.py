"""Answers and ticks at the same moment, many workers at once: a timer fires once, and never for an answered question."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from tests.conftest import Database
from tests.support.access import Conn
from tests.support.ageing import elapse
from tests.support.auto import check, conversation, rule, say, tick
from tests.support.desk import check as check_desk
from tests.support.desk import people
from tests.support.story import check_stories
from tests.support.waiting import let_pass, wait_until

RACES = int(os.environ.get("GRE_RACES", "1000"))


def answer(conn: Conn, player_id: int, together: threading.Barrier, delay: float) -> None:
    """Answer a question a moment after a worker ticks."""
    together.wait(60)
    let_pass(random.random() * delay, "the difference between the answer and the tick")
    say(conn, player_id, "staff")


def fire(worker: Conn, together: threading.Barrier) -> None:
    """Tick until the timer that is due is gone: while the session is locked by its answer, a tick leaves it."""
    together.wait(60)
    wait_until(lambda: tick(worker)["handled"] == 1, every=0.001)


def test_an_answer_and_the_timer_of_its_question_1000_times_at_once(db: Database) -> None:
    found = Counter[str]()
    # Seconds by which an answer comes later than the tick, at most: as many as let each win now and then on this machine.
    delay = 0.004
    with (
        db.connect() as conn,
        db.connect() as staffs,
        db.connect("authenticator") as worker,
        ThreadPoolExecutor(2) as pool,
    ):
        people(conn, 1)
        rule(conn, "waiting", "Soon", wait=timedelta(hours=1), once="question")
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) select n, 'player', 'x' from generate_series(1, %s) n",
            [RACES],
        )
        elapse(conn, 3_601)
        conn.execute("update gre_timers set due_at = clock_timestamp() + interval '1 hour'")
        for player_id in range(1, RACES + 1):
            conn.execute(
                "update gre_timers set due_at = clock_timestamp() where session_id ="
                " (select id from gre_chat_sessions where player_id = %s)",
                [player_id],
            )
            together = threading.Barrier(2)
            both = [
                pool.submit(answer, staffs, player_id, together, delay),
                pool.submit(fire, worker, together),
            ]
            for one in both:
                one.result(60)
            told = " ".join(conversation(conn, player_id))
            found[told] += 1
            delay = min(0.5, delay * 1.1) if told == "P S" else max(0.0005, delay / 1.1)
        check(conn)
    assert found.keys() == {"P Soon S", "P S"}
    assert min(found.values()) > RACES / 50, found


@contextmanager
def threads(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """Run `work` in threads beside the block; raise what one of them raised."""
    errors: list[Exception] = []

    def run(n: int) -> None:
        try:
            work(n)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    running = [threading.Thread(target=run, args=[n], daemon=True) for n in range(count)]
    for thread in running:
        thread.start()
    yield
    for thread in running:
        thread.join(300)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def change(conn: Conn, turn: int, number: int) -> None:
    """What people do with a session; every fourth time its timers become due."""
    match turn % 4:
        case 0:
            say(conn, number)
        case 1:
            say(conn, number, "staff")
        case 2:
            conn.execute(
                "update gre_chat_sessions set assigned_staff_id = %s where player_id = %s and status <> 'closed'",
                [f"s{1 + turn % 3}", number],
            )
        case _:
            conn.execute(
                "update gre_timers set due_at = due_at - interval '5 minutes'"
                " where session_id in (select id from gre_chat_sessions where player_id = %s)",
                [number],
            )


def test_ten_workers_fire_each_timer_once_while_sessions_change(db: Database) -> None:
    """Messages, answers, transfers and closings by others meanwhile: no deadlock, nothing twice, all counters right."""
    players = range(100, 200)
    stop = threading.Event()

    def write(n: int) -> None:
        with db.connect() as other:
            for turn in range(60):
                change(other, turn, 100 + (n * 37 + turn * 7) % 100)

    def work(_: int) -> None:
        with db.connect("authenticator") as worker:
            while not stop.is_set():
                tick(worker, late_after=86_400)

    with db.connect() as conn:
        people(conn, 3)
        conn.execute(
            "update gre_chat_settings set idle_warn_after = '2 minutes', idle_close_after = '2 minutes'"
        )
        rule(conn, "waiting", "w1", wait=timedelta(minutes=1), once="question")
        rule(conn, "waiting", "w2", wait=timedelta(minutes=4), once="question")
        for occasion in ("idle_warning", "idle_close", "opened"):
            rule(conn, occasion, once="question")
        for number in players:
            say(conn, number)
            if number % 2:
                say(conn, number, "staff")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's' || (1 + player_id % 3)")
        with threads(10, work):
            with threads(4, write):
                pass
            elapse_all(db)
            stop.set()
        check(conn)
        check_desk(conn)
        check_stories(conn)
        rows = conn.execute(
            "select distinct closed_by from gre_chat_sessions where status = 'closed'"
        ).fetchall()
        assert rows == [{"closed_by": "idle"}]
        # The text of the closing is the last message, and the timers of a question are told in their order.
        last = conn.execute(
            "select m.message from gre_chat_messages m join gre_chat_sessions s on s.id = m.session_id and s.last_seq = m.seq"
            " where s.status = 'closed'"
        ).fetchall()
        assert {row["message"] for row in last} == {"idle_close"}
        for number in players:
            assert conversation(conn, number)[:2] == ["P", "opened"]


def elapse_all(db: Database) -> None:
    """Let time pass, for sessions and timers in one transaction, until no timer is left."""
    with db.connect("supabase_admin") as conn:
        while conn.execute("select from gre_timers limit 1").fetchall():
            if not conn.execute("select from gre_timers where due_at > now() limit 1").fetchall():
                let_pass(0.01, "the workers fire what is due")
                continue
            with conn.transaction():
                elapse(conn, 3_600)


def test_a_worker_that_is_killed_in_a_tick_leaves_the_timer_to_the_next(db: Database) -> None:
    with db.connect() as conn:
        people(conn, 1)
        rule(conn, "waiting", "Soon")
        say(conn)
        elapse(conn, 301)
        for _ in range(3):
            victim = db.connect()
            victim.execute("begin")
            row = victim.execute("select gre_tick_v1() as found, pg_backend_pid() as pid").fetchone()
            assert row is not None
            assert row["found"]["sent"] == 1
            conn.execute("select pg_terminate_backend(%s, 10000)", [row["pid"]])
            with pytest.raises(psycopg.OperationalError):
                victim.execute("commit")
            assert conversation(conn) == ["P"]
        with db.connect("authenticator") as worker:
            assert tick(worker)["sent"] == 1
            assert tick(worker)["handled"] == 0
        assert conversation(conn) == ["P", "Soon"]
        check(conn)
