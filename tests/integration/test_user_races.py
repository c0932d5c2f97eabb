"""Simultaneous calls over many connections: the rules hold in any order."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_outbox import all_done, claim, one, settle
from tests.integration.test_send import sessions, stored
from tests.support.access import SERVICE, Caller, RefusalError, Rest, player, staff
from tests.support.waiting import wait_until


@pytest.fixture
def connect(db: Database) -> Iterator[Callable[[Caller], Rest]]:
    """Open connections, and close them after the test."""
    with ExitStack() as stack:
        yield lambda caller: stack.enter_context(Rest(db, caller))


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Start all jobs at the same moment; return the result of each, or the code of its refusal."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(60)
        try:
            return job()
        except RefusalError as refusal:
            return refusal.code

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs, timeout=300))


def sound(db: Database) -> None:
    """Check the invariants: seq without gaps, one open session per player, unread counters equal to the marks."""
    messages = stored(db)
    rows = sessions(db)
    for row in rows:
        own = [m for m in messages if m["session_id"] == row["id"]]
        assert sorted(m["seq"] for m in own) == list(range(1, row["last_seq"] + 1))
        for side, unread in (("staff", "unread_by_staff"), ("player", "unread_by_player")):
            other = [m for m in own if (m["sender"] == "player") == (side == "staff")]
            mark = row[f"{side}_read_seq"]
            assert row[unread] == sum(m["seq"] > mark for m in other)
            assert all((m["status"] == "read") == (m["seq"] <= mark) for m in other)
    still_open = [row["player_id"] for row in rows if row["status"] != "closed"]
    assert len(still_open) == len(set(still_open))


def sending(rest: Rest, **arguments: Any) -> Callable[[], Any]:
    """Return a job that sends one message."""
    return lambda: rest.call("gre_send_message", **arguments)


def test_fifty_first_messages_at_once_open_one_session(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    sent = together(*(sending(connect(player(29)), message=f"m{n}") for n in range(50)))
    assert len({answer["message"]["session_id"] for answer in sent}) == 1
    assert sorted(answer["message"]["seq"] for answer in sent) == list(range(1, 51))
    (row,) = sessions(db)
    assert (row["last_seq"], row["unread_by_staff"], row["rev"]) == (50, 50, 51)


def test_one_id_from_many_connections_is_one_message(db: Database, connect: Callable[[Caller], Rest]) -> None:
    same = [connect(player(29)) for _ in range(8)]
    others = [connect(player(30 + n)) for n in range(4)]
    for _ in range(5):
        sent = together(*(sending(rest, message="x", id=key) for key in [uuid.uuid4()] for rest in same))
        assert sorted(answer["duplicate"] for answer in sent) == [False] + [True] * 7
        # Of several players with one id, one gets it; the others are told nothing and store nothing.
        answers = together(*(sending(rest, message="x", id=key) for key in [uuid.uuid4()] for rest in others))
        assert sorted(a if isinstance(a, str) else "sent" for a in answers) == ["id_conflict"] * 3 + ["sent"]
    sound(db)
    assert len(stored(db)) == 10


def test_bulks_in_opposite_orders_and_single_messages_do_not_deadlock(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    ids = list(range(1, 31))

    def bulks(order: list[int], rest: Rest) -> Callable[[], Any]:
        batch = [{"player_id": p, "message": "x"} for p in order]
        return lambda: [len(rest.call("gre_send_messages", messages=batch)) for _ in range(20)]

    def singles(number: int, rest: Rest) -> Callable[[], Any]:
        return lambda: [rest.call("gre_send_message", message="y")["duplicate"] for _ in range(40)] and number

    jobs = [
        bulks(ids, connect(staff())),
        bulks(ids[::-1], connect(staff("s2"))),
        bulks(ids[15:] + ids[:15], connect(staff("s3"))),
    ]
    answers = together(*jobs, singles(1, connect(player(1))), singles(30, connect(player(30))))
    assert answers == [[30] * 20] * 3 + [1, 30]
    sound(db)
    assert len(stored(db)) == 3 * 600 + 80


def test_bulks_of_one_player_that_name_its_closed_session_do_not_deadlock(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    a, s = connect(SERVICE), connect(staff())
    old = a.call("gre_send_message", message="x", player_id=29, sender="player")["message"]["session_id"]
    s.call("gre_close_session", player_id=29)
    closed, plain = (
        {"player_id": 29, "sender": "player", "message": "x", **more} for more in ({"session_id": old}, {})
    )

    def bulks(batch: list[dict[str, Any]]) -> Callable[[], Any]:
        rest = connect(SERVICE)
        return lambda: [len(rest.call("gre_send_messages", messages=batch)) for _ in range(25)]

    assert together(bulks([closed, plain, closed]), bulks([plain, closed, plain])) == [[3] * 25] * 2
    sound(db)


def test_a_session_is_reopened_while_a_message_opens_another(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    a, s, closer = connect(SERVICE.acting_as("player:29")), connect(staff()), connect(staff())
    old = a.call("gre_send_message", message="x")["message"]["session_id"]
    for turn in range(25):
        closer.call("gre_close_session", player_id=29)
        named = old if turn % 2 else None
        reopened, sent = together(
            lambda: s.call("gre_set_session_status", session_id=old, status="active"),
            lambda named=named: a.call("gre_send_message", message="y", session_id=named),
        )
        assert reopened == "session_open" or reopened["session"]["status"] == "active"
        (row,) = [row for row in sessions(db) if row["status"] != "closed"]
        assert sent["message"]["session_id"] == str(row["id"])
        assert (str(row["id"]) == old) == (reopened != "session_open")
    sound(db)


def test_marks_while_both_sides_send_leave_the_right_counters(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    session = connect(player(29)).call("gre_send_message", message="x")["message"]["session_id"]

    def chatting(rest: Rest, **arguments: Any) -> Callable[[], Any]:
        return lambda: [
            rest.call("gre_send_message", message="y", **arguments)["message"]["seq"] for _ in range(50)
        ][-1]

    def reading(rest: Rest) -> Callable[[], Any]:
        def run() -> int:
            mark = 0
            for _ in range(50):
                page = rest.call("gre_chat_history", session_id=session, limit=1)
                mark = rest.call("gre_mark_read", session_id=session, up_to_seq=page["messages"][-1]["seq"])[
                    "up_to_seq"
                ]
            return mark

        return run

    readers = [reading(connect(who)) for who in (staff(), staff("s2"), player(29))]
    together(chatting(connect(player(29))), chatting(connect(staff()), player_id=29), *readers)
    sound(db)
    (row,) = sessions(db)
    assert row["last_seq"] == 101


def test_no_message_is_lost_while_its_session_is_closed(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    a, s, closer = connect(player(29)), connect(staff()), connect(staff())

    def send() -> Any:
        return [a.call("gre_send_message", message="x")["message"]["id"] for _ in range(60)]

    def reply() -> Any:
        return [s.call("gre_staff_reply", message="x", player_id=29)["message"]["id"] for _ in range(60)]

    def close() -> Any:
        return [closer.call("gre_close_session", player_id=29)["session"] for _ in range(60)]

    mine, theirs, closed = together(send, reply, close)
    sent = [*mine, *theirs]
    assert {str(m["id"]) for m in stored(db)} == set(sent)
    assert len(sent) == 120
    assert sum(row["status"] == "closed" for row in sessions(db)) == sum(c is not None for c in closed)
    sound(db)


def test_a_player_is_erased_while_messages_arrive_and_a_worker_sends(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    a, s, eraser = connect(SERVICE.acting_as("player:29")), connect(staff()), connect(SERVICE)
    stop = threading.Event()
    some: list[Any] = []

    def work() -> int:
        with db.connect() as worker:
            while not stop.is_set():
                for sink in ("pusher", "onesignal"):
                    got = claim(worker, sink, lease=0.1)
                    results = all_done(got)
                    for result in results if sink == "onesignal" else []:
                        result["receipts"] = [{"delivery_id": key, "audience": "staff", "title": "zebra", "status": "sent",
                                               "data": {"session_id": result["lane"]}} for key in result["done"]]  # fmt: skip
                    settle(worker, *results, sink=sink)
                    some.extend(results)
        return len(some)

    def send() -> int:
        for _ in range(60):
            a.call("gre_send_message", message="zebra")
            s.call("gre_staff_reply", message="zebra", player_id=29)
        return 1

    def erase() -> int:
        wait_until(partial(len, some), what="a first delivery")
        erased = sum(eraser.call("gre_erase_player", player_id=29)["messages"] for _ in range(40))
        while one_send.is_alive():
            erased += eraser.call("gre_erase_player", player_id=29)["messages"]
        stop.set()
        return erased

    one_send = threading.Thread(target=send)
    one_send.start()
    delivered, erased = together(work, erase)
    one_send.join(60)
    assert delivered > 0
    assert erased + eraser.call("gre_erase_player", player_id=29)["messages"] == 120
    with db.connect() as conn:
        for table in ("gre_chat_sessions", "gre_chat_messages", "push_notifications", "gre_relay_deliveries"):
            assert one(conn, f"select count(*) from {table}") == 0, table
        assert [claim(conn, sink)["lanes"] for sink in ("pusher", "onesignal")] == [[], []]


def test_a_message_during_the_erasure_of_its_player_opens_a_new_session(
    db: Database, connect: Callable[[Caller], Rest]
) -> None:
    a, s, eraser = connect(player(29)), connect(staff()), connect(SERVICE)
    a.call("gre_send_message", message="old")
    s.call("gre_close_session", player_id=29)
    eraser.sql(
        "insert into push_notifications (audience, data, status) values ('staff', '{\"player_id\": 29}', 'sent')"
    )
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    def send() -> Any:
        # A session is opened when the player's number in figures is deleted; who waits for long is to try again.
        while True:
            with suppress(RefusalError):
                return a.call("gre_send_message", message="new")["message"]

    with db.connect(autocommit=False) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute("select from push_notifications for update")
        erasing = pool.submit(eraser.call, "gre_erase_player", player_id=29)
        with db.connect("supabase_admin") as watch:
            wait_until(lambda: one(watch, waiting) == 1)
            sending = pool.submit(send)
            wait_until(lambda: one(watch, waiting) == 2)
        holder.rollback()
        assert erasing.result(60) == {
            "messages": 1,
            "sessions": 1,
            "pushes": 1,
            "attachments": 0,
            "objects": 0,
        }
    sound(db)
    assert [str(m["id"]) for m in stored(db)] == [sending.result(60)["id"]]


def test_the_same_new_id_in_two_sessions_at_once_leaves_no_gap(db: Database) -> None:
    """Neither reads the other's row when it takes its seq; the row that is not inserted uses no seq."""
    key = str(uuid.uuid4())
    insert = "insert into gre_chat_messages (id, player_id, sender, message) values (%s, %s, 'player', 'm') on conflict do nothing"
    with db.connect(autocommit=False) as first, db.connect() as second, db.connect() as observer:
        observer.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (1, 'player', 'a'), (2, 'player', 'b')"
        )
        first.execute(insert, [key, 1])
        with ThreadPoolExecutor(1) as pool:
            loser = pool.submit(second.execute, insert, [key, 2])
            wait_until(
                lambda: observer.execute(
                    "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", [second.info.backend_pid]
                ).fetchall(),
                what="the second one to wait for the first",
            )  # fmt: skip
            first.commit()
            assert loser.result(60).rowcount == 0
        observer.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (2, 'player', 'c')"
        )
        rows = observer.execute("select player_id, seq from gre_chat_messages order by 1, 2").fetchall()
    assert [(row["player_id"], row["seq"]) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_ten_thousand_messages_of_one_session_in_one_statement_take_seconds(db: Database) -> None:
    """An update of the session's row for each message would read all earlier versions of the row."""
    with db.connect() as conn:
        conn.execute("set statement_timeout = '60s'")
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message)"
            " select 1, case when g %% 3 = 0 then 'staff' else 'player' end, 'm' || g from generate_series(1, %s) g",
            [10_000],
        )
        session = conn.execute("select * from gre_chat_sessions").fetchone()
        (found,) = conn.execute(
            "select count(distinct seq) as n, min(seq) as first, max(seq) as last, max(created_at) as at,"
            " max(created_at) filter (where seq = 10000) as asked from gre_chat_messages"
        ).fetchall()
    assert (found["n"], found["first"], found["last"]) == (10_000, 1, 10_000)
    assert session is not None
    told = (session["last_seq"], session["unread_by_staff"], session["unread_by_player"], session["last_message_at"], session["waiting_since"])  # fmt: skip
    assert told == (10_000, 6667, 3333, found["at"], found["asked"])
