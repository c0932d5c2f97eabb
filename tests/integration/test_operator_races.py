"""Operators at work beside portals, workers and each other: nobody is killed, nothing is lost, order stays."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.access import SERVICE, Door, RefusalError
from tests.conftest import Database
from tests.integration.test_outbox import all_done, claim, one, send, settle

BUSY = ("55P03", "40P01")


@contextmanager
def beside(*loops: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Run loops in threads until the block ends; what one raises fails the test."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def run(loop: Callable[[threading.Event], None]) -> None:
        try:
            loop(stop)
        except BaseException as error:  # noqa: BLE001 - told to the test
            raised.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=[loop]) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    if raised:
        raise raised[0]
    assert not any(thread.is_alive() for thread in threads)


def asked(desk: Door, function: str, **arguments: Any) -> Any:
    """A page, asked again when it met others' locks, as `operate` does."""
    while True:
        try:
            return desk.call(function, **arguments)
        except RefusalError as refusal:
            if refusal.sqlstate not in BUSY:
                raise


class Arrivals:
    """What reached the sinks, as the workers sent it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.replayed = 0

    def take(self, sink: str, got: dict[str, Any]) -> None:
        with self.lock:
            for lane in got["lanes"]:
                for d in lane["deliveries"]:
                    if d["event"] == "message" and (m := d["message"]):
                        self.replayed += bool(d["data"])
                        if m["id"] not in self.ids[sink]:
                            self.ids[sink].add(m["id"])
                            self.seen[sink, m["session_id"]].append(m["seq"])


def test_operators_beside_portals_and_workers_lose_nothing_and_kill_nobody(db: Database) -> None:
    arrivals = Arrivals()
    players = range(1, 9)
    erased = 99

    def portal(number: int) -> Callable[[threading.Event], None]:
        def loop(stop: threading.Event) -> None:
            mine = random.Random(number)
            with db.connect() as conn, Door(db, SERVICE) as service:
                while not stop.is_set():
                    if mine.random() < 0.7:
                        send(conn, mine.choice(players))
                    else:
                        service.call("gre_send_messages", messages=[{"message": "x", "player_id": p, "sender": "player"}
                                                                    for p in mine.sample(players, 4)])  # fmt: skip

        return loop

    def worker(sink: str, number: int) -> Callable[[threading.Event], None]:
        def loop(stop: threading.Event) -> None:
            mine = random.Random(number)
            with db.connect() as conn:
                while not stop.is_set():
                    got = claim(conn, sink, lanes=3, per_lane=5)
                    arrivals.take(sink, got)
                    results = all_done(got)
                    if sink == "onesignal":  # where some die, order is not first arrivals' any more
                        for result in results:
                            if mine.random() < 0.3:
                                ids = result.pop("done")
                                result |= {"done": ids[:-1], "failed": {"ids": ids[-1:], "state": "dead", "error": "413", "spend": True}}  # fmt: skip
                    while results:
                        busy = settle(conn, *results, sink=sink)["busy"]
                        results = [r for r in results if r["lane"] in busy]

        return loop

    def retrying(stop: threading.Event) -> None:
        with Door(db, SERVICE) as desk:
            while not stop.is_set():
                ids = [uuid.UUID(letter["id"]) for letter in desk.call("gre_relay_dead")]
                asked(desk, "gre_relay_retry", ids=ids)

    def replaying(stop: threading.Event) -> None:
        with Door(db, SERVICE) as desk:
            while not stop.is_set():
                asked(desk, "gre_relay_replay", since="2001-01-01", limit=50)
                asked(desk, "gre_relay_reconcile", limit=50)
                stop.wait(0.05)

    def forgetting(stop: threading.Event) -> None:
        with Door(db, SERVICE) as desk, db.connect("supabase_admin") as root:
            root.execute("set session_replication_role = replica")
            while not stop.is_set():
                # Time passes for what is done: it may go, with the lanes at rest.
                root.execute("update gre_relay_deliveries set settled_at = now() - interval '2 hours', created_at = now() - interval '2 hours'"
                             " where id in (select id from gre_relay_deliveries where state = 'done' limit 100 for update skip locked)")  # fmt: skip
                root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'"
                             " where id in (select id from gre_chat_sessions for update skip locked)")  # fmt: skip
                asked(desk, "gre_relay_prune", keep="1 hour", retention="1 day")

    def erasing(stop: threading.Event) -> None:
        with Door(db, SERVICE) as desk, db.connect() as conn:
            while not stop.is_set():
                for _ in range(3):
                    send(conn, erased)
                desk.call("gre_erase_player", player_id=erased)
                stop.wait(0.02)

    with beside(portal(1), portal(2), worker("pusher", 3), worker("pusher", 4), worker("onesignal", 5),
                retrying, replaying, forgetting, erasing) as stop:  # fmt: skip
        stop.wait(5)
    with db.connect() as conn, Door(db, SERVICE) as desk:
        desk.call("gre_erase_player", player_id=erased)
        for sink in ("pusher", "onesignal"):
            while letters := desk.call("gre_relay_dead", sink=sink):
                desk.call("gre_relay_retry", ids=[uuid.UUID(letter["id"]) for letter in letters])
            for _ in range(1000):
                got = claim(conn, sink, lanes=200)
                arrivals.take(sink, got)
                settle(conn, *all_done(got), sink=sink)
                if not got["lanes"] and not got["rested"]:
                    break
            assert got["next_in"] is None
        committed = {str(r["id"]) for r in conn.execute("select id from gre_chat_messages").fetchall()}
        assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 0
    assert len(committed) > 50
    assert arrivals.replayed > 50
    for sink in ("pusher", "onesignal"):
        assert not committed - arrivals.ids[sink]
    for (sink, _), seqs in arrivals.seen.items():
        if sink == "pusher":
            assert seqs == sorted(seqs)


def test_prune_beside_inserts_never_takes_a_lane_from_under_a_message(db: Database) -> None:
    """Lanes at rest are deleted and made anew all the time; every message is found exactly once."""
    arrivals = Arrivals()
    count = [0, 0]

    def portal(number: int) -> Callable[[threading.Event], None]:
        def loop(stop: threading.Event) -> None:
            with db.connect() as conn:
                while not stop.is_set():
                    send(conn, 1 + number)
                    count[number] += 1

        return loop

    def worker(stop: threading.Event) -> None:
        with db.connect() as conn:
            while not stop.is_set():
                got = claim(conn)
                arrivals.take("pusher", got)
                results = all_done(got)
                while results:
                    busy = settle(conn, *results)["busy"]
                    results = [r for r in results if r["lane"] in busy]

    deleted = 0
    with db.connect() as setup:
        setup.execute("update gre_relay_sinks set enabled = name = 'pusher'")
    with (
        beside(portal(0), portal(1), worker),
        Door(db, SERVICE) as desk,
        db.connect("supabase_admin") as root,
    ):
        root.execute("set session_replication_role = replica")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'")
            deleted += asked(desk, "gre_relay_prune", keep="1 hour")["lanes"]
    assert deleted > 5
    with db.connect() as conn:
        got = claim(conn)
        arrivals.take("pusher", got)
        settle(conn, *all_done(got))
        assert claim(conn)["next_in"] is None
        assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 0
    assert sorted(len(seqs) for (_, _), seqs in arrivals.seen.items()) == sorted(count)
    for seqs in arrivals.seen.values():
        assert seqs == list(range(1, len(seqs) + 1))


def test_reconcile_beside_prune_finds_nothing_missing(db: Database) -> None:
    """What prune takes away while reconcile looks for it must not be announced again."""
    with db.connect("supabase_admin") as root, Door(db, SERVICE) as desk, db.connect() as conn:
        for player in range(1, 11):
            send(conn, player)
        while (got := claim(conn, "pusher"))["lanes"]:
            settle(conn, *all_done(got))
        root.execute("set session_replication_role = replica")
        root.execute("update gre_chat_messages set created_at = now() - interval '2 hours'")
        root.execute("update gre_relay_deliveries set state = 'done', settled_at = now() - interval '2 hours', created_at = now() - interval '2 hours'")  # fmt: skip
        root.execute("create table kept as select * from gre_relay_deliveries")
        found: list[Any] = []

        def reconciling(stop: threading.Event) -> None:
            with Door(db, SERVICE) as other:
                while not stop.is_set():
                    found.append(asked(other, "gre_relay_reconcile", dry_run=True)["missing"])

        pruned = 0
        with beside(reconciling):
            for _ in range(100):
                with root.transaction():
                    root.execute("insert into gre_relay_deliveries select * from kept on conflict do nothing")
                    root.execute("update gre_relay_sinks set announced_from = now() - interval '1 day'")
                pruned += asked(desk, "gre_relay_prune", keep="1 hour")["deliveries"]
        assert pruned == 100 * one(root, "select count(*) from kept")
        assert len(found) > 20
        assert {str(one) for one in found} == {"{}"}


def test_a_portal_that_takes_lanes_in_another_order_is_not_the_one_to_be_killed(db: Database) -> None:
    """It holds one lane and wants the other, the operator holds the other and wants the first."""
    with db.connect() as conn:
        first, second = (str(send(conn, player)["session_id"]) for player in (1, 2))
        for sink in ("pusher", "onesignal"):
            while (got := claim(conn, sink))["lanes"]:
                settle(conn, *all_done(got), sink=sink)
    low, high = sorted((first, second))
    with db.connect(autocommit=False) as portal, db.connect(autocommit=False) as holder:
        lock: Any = "select from gre_relay_lanes where lane_key = %s and sink = 'pusher' for no key update"
        portal.execute(lock, [high])
        answers: list[str] = []

        def operator() -> None:
            with Door(db, SERVICE) as desk:
                try:
                    desk.call("gre_relay_replay", since="2001-01-01", sink="pusher")
                    answers.append("done")
                except RefusalError as refusal:
                    answers.append(refusal.sqlstate)

        thread = threading.Thread(target=operator)
        thread.start()
        deadline = time.monotonic() + 5
        while not one(
            holder, "select count(*) from pg_locks where not granted and locktype = 'transactionid'"
        ):
            assert time.monotonic() < deadline
        portal.execute(lock, [low])
        thread.join(10)
        portal.commit()
    assert answers == ["55P03"]


@pytest.mark.parametrize("function", ["gre_relay_replay", "gre_relay_expire", "gre_relay_prune", "gre_relay_reconcile"])  # fmt: skip
def test_a_worker_never_waits_for_an_operator(db: Database, function: str) -> None:
    arguments = {
        "gre_relay_replay": "p_since => '2001-01-01'", "gre_relay_expire": "p_before => '2999-01-01', p_sink => 'onesignal'",
        "gre_relay_prune": "p_keep => '1 hour', p_retention => '1 day'", "gre_relay_reconcile": "",
    }[function]  # fmt: skip
    with db.connect() as conn, db.connect(autocommit=False) as operator:
        for player in (1, 2):
            send(conn, player)
        got = claim(conn, lanes=1)
        operator.execute(f"select {function}({arguments})".encode())
        conn.execute("set statement_timeout = '1s'")
        settle(conn, *all_done(got))
        claim(conn)
        claim(conn, "onesignal")
        conn.execute(
            "select gre_relay_extend('pusher', %s, %s)", [got["token"], [got["lanes"][0]["lane_key"]]]
        )
        conn.execute("select gre_relay_release('pusher', %s)", [got["token"]])
        conn.execute("select gre_relay_stats(), gre_relay_status(), gre_relay_dead()")
        operator.rollback()
