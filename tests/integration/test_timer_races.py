"""A timer that fires while its question is answered: a player is never told to wait after the answer."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from tests.conftest import Database
from tests.support.access import Conn
from tests.support.auto import check, conversation, rule, say, tick
from tests.support.desk import people
from tests.support.waiting import let_pass, wait_until

RACES = int(os.environ.get("GRE_RACES", "1000"))
DELAY = 0.004
"""Seconds by which an answer comes later than the tick, at most."""


def answer(conn: Conn, player_id: int, together: threading.Barrier) -> None:
    """Answer a question a moment after a worker ticks."""
    together.wait(10)
    let_pass(random.random() * DELAY, "the difference between the answer and the tick")
    say(conn, player_id, "staff")


def fire(worker: Conn, together: threading.Barrier) -> None:
    """Tick until the timer that is due is gone: while the session is locked by its answer, a tick leaves it."""
    together.wait(10)
    wait_until(lambda: tick(worker)["handled"] == 1, 10, every=0.001)


def test_an_answer_and_the_timer_of_its_question_1000_times_at_once(db: Database) -> None:
    found = Counter[str]()
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
        for player_id in range(1, RACES + 1):
            conn.execute(
                "update gre_timers set due_at = clock_timestamp() where session_id ="
                " (select id from gre_chat_sessions where player_id = %s)",
                [player_id],
            )
            together = threading.Barrier(2)
            both = [pool.submit(answer, staffs, player_id, together), pool.submit(fire, worker, together)]
            for one in both:
                one.result(20)
            found[" ".join(conversation(conn, player_id))] += 1
        check(conn)
    assert found.keys() == {"P Soon S", "P S"}
    assert min(found.values()) > RACES / 50, found
