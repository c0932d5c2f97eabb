"""Operators beside portals, workers and each other: no deadlock, no loss, and the order is kept."""

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
from psycopg import sql

from tests.conftest import Database
from tests.integration.test_outbox import all_done, claim, one, send, settle
from tests.support.access import SERVICE, RefusalError, Rest

BUSY = ("55P03", "40P01")
SINKS = ("onesignal", "pusher")


@contextmanager
def beside(*loops: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Run loops in threads until the block ends; an exception of one fails the test."""
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
            thread.join(300)
    if raised:
        raise raised[0]
    assert not any(thread.is_alive() for thread in threads)


def asked(rest: Rest, function: str, **arguments: Any) -> Any:
    """Call a page, again if it met a lock, as `gre_bridge.db.operations` does."""
    while True:
        try:
            return rest.call(function, **arguments)
        except RefusalError as refusal:
            if refusal.sqlstate not in BUSY:
                raise


class Arrivals:
    """The deliveries that workers have sent, in order."""

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


PLAYERS = range(1, 9)
ERASED = 99


class Club:
    """The participants, each a loop for one thread."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.arrivals = Arrivals()

    def portal(self, stop: threading.Event) -> None:
        """Write to one session or to several."""
        mine = random.Random(1)
        with self.db.connect() as conn, Rest(self.db, SERVICE) as service:
            while not stop.is_set():
                send(conn, mine.choice(PLAYERS))
                some = mine.sample(PLAYERS, 4)
                service.call("gre_send_messages", messages=[{"message": "x", "player_id": p, "sender": "player"} for p in some])  # fmt: skip

    def worker(self, stop: threading.Event, sink: str = "pusher") -> None:
        """Claim, send, settle."""
        mine = random.Random(2)
        with self.db.connect() as conn:
            while not stop.is_set():
                got = claim(conn, sink, lanes=3, per_lane=5)
                self.arrivals.take(sink, got)
                results = all_done(got)
                # Dead letters change the order of first arrivals, so they occur at OneSignal only.
                for result in results if sink == "onesignal" and mine.random() < 0.3 else ():
                    ids = result["done"]
                    failed = {"ids": ids[-1:], "state": "dead", "error": "413", "spend": True}
                    result |= {"done": ids[:-1], "failed": failed}
                while results:
                    busy = settle(conn, *results, sink=sink)["busy"]
                    results = [r for r in results if r["lane"] in busy]

    def onesignal(self, stop: threading.Event) -> None:
        """Work for the other sink."""
        self.worker(stop, "onesignal")

    def retrying(self, stop: threading.Event) -> None:
        """Send dead letters again."""
        with Rest(self.db, SERVICE) as rest:
            while not stop.is_set():
                ids = [uuid.UUID(letter["id"]) for letter in rest.call("gre_relay_dead")]
                asked(rest, "gre_relay_retry", ids=ids)

    def repairing(self, stop: threading.Event) -> None:
        """Replay and reconcile."""
        with Rest(self.db, SERVICE) as rest:
            while not stop.is_set():
                asked(rest, "gre_relay_replay", since="2001-01-01", limit=50)
                asked(rest, "gre_relay_reconcile", limit=50)
                stop.wait(0.05)

    def pruning(self, stop: threading.Event) -> None:
        """Age and prune settled deliveries and resting lanes."""
        with Rest(self.db, SERVICE) as rest, self.db.connect("supabase_admin") as root:
            root.execute("set session_replication_role = replica")
            while not stop.is_set():
                root.execute("update gre_relay_deliveries set settled_at = now() - interval '2 hours', created_at = now() - interval '2 hours'"
                             " where id in (select id from gre_relay_deliveries where state = 'done' limit 100 for update skip locked)")  # fmt: skip
                root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'"
                             " where id in (select id from gre_chat_sessions for update skip locked)")  # fmt: skip
                asked(rest, "gre_relay_prune", keep="1 hour", retention="1 day")

    def erasing(self, stop: threading.Event) -> None:
        """Insert and erase a player."""
        with Rest(self.db, SERVICE) as rest, self.db.connect() as conn:
            while not stop.is_set():
                for _ in range(3):
                    send(conn, ERASED)
                rest.call("gre_erase_player", player_id=ERASED)
                stop.wait(0.02)

    def finish(self, sink: str) -> None:
        """Retry dead letters and send all pending deliveries."""
        with self.db.connect() as conn, Rest(self.db, SERVICE) as rest:
            while letters := rest.call("gre_relay_dead", sink=sink):
                rest.call("gre_relay_retry", ids=[uuid.UUID(letter["id"]) for letter in letters])
            while (got := claim(conn, sink, lanes=200))["lanes"] or got["emptied_lanes"]:
                self.arrivals.take(sink, got)
                settle(conn, *all_done(got), sink=sink)
            assert got["next_in"] is None


def test_operators_beside_portals_and_workers_lose_nothing_and_do_not_deadlock(db: Database) -> None:
    # Operators give up after 300 ms, others are aborted after a second, as PostgreSQL counts it. On a machine where a process may
    # get no time for that long, who is first is chance: here others wait longer. A deadlock without an operator still fails.
    with db.connect("supabase_admin") as root:
        root.execute(
            sql.SQL("alter database {} set deadlock_timeout = '10s'").format(sql.Identifier(db.name))
        )
    club = Club(db)
    with beside(club.portal, club.portal, club.worker, club.worker, club.onesignal,
                club.retrying, club.repairing, club.pruning, club.erasing) as stop:  # fmt: skip
        began = time.monotonic()
        stop.wait(4)
        with db.connect() as watch:  # until each of them has done something
            written = "select count(*) from gre_chat_messages where player_id <> %s"
            while not stop.is_set() and time.monotonic() < began + 60:
                if club.arrivals.replayed > 50 and one(watch, written, ERASED) > 50:
                    break
                stop.wait(0.1)
    with db.connect() as conn, Rest(db, SERVICE) as rest:
        rest.call("gre_erase_player", player_id=ERASED)
        for sink in SINKS:
            club.finish(sink)
        committed = {str(r["id"]) for r in conn.execute("select id from gre_chat_messages").fetchall()}
        assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 0
    assert len(committed) > 50
    assert club.arrivals.replayed > 50
    assert [committed - club.arrivals.ids[sink] for sink in SINKS] == [set(), set()]
    for (sink, _), seqs in club.arrivals.seen.items():
        assert sink == "onesignal" or seqs == sorted(seqs)


def test_prune_beside_inserts_deletes_no_lane_that_a_message_needs(db: Database) -> None:
    """Resting lanes are deleted and created continuously; every message is sent exactly once."""
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
        Rest(db, SERVICE) as rest,
        db.connect("supabase_admin") as root,
    ):
        root.execute("set session_replication_role = replica")
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 3 or (deleted <= 5 and passed < 60):
            root.execute("update gre_chat_sessions set updated_at = now() - interval '2 hours'")
            deleted += asked(rest, "gre_relay_prune", keep="1 hour")["lanes"]
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


def test_reconcile_and_prune_exclude_each_other(db: Database) -> None:
    """Reconcile would enqueue a message again whose delivery prune deletes meanwhile."""
    with db.connect(autocommit=False) as first, Rest(db, SERVICE) as rest:
        for mine, other, arguments in (
            ("gre_relay_reconcile()", "gre_relay_prune", {"keep": "1 hour"}),
            ("gre_relay_prune('1 hour')", "gre_relay_reconcile", {}),
            ("gre_relay_prune('1 hour')", "gre_relay_prune", {"keep": "1 hour"}),
        ):
            first.execute(f"select {mine}".encode())
            with pytest.raises(RefusalError, match="55P03"):
                rest.call(other, **arguments)
            first.rollback()
            rest.call(other, **arguments)


def test_a_portal_that_locks_lanes_in_another_order_is_not_the_deadlocks_victim(db: Database) -> None:
    """The portal holds one lane and waits for the other; the operator holds the other and waits for the first."""
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
            with Rest(db, SERVICE) as rest:
                try:
                    rest.call("gre_relay_replay", since="2001-01-01", sink="pusher")
                    answers.append("done")
                except RefusalError as refusal:
                    answers.append(refusal.sqlstate)

        thread = threading.Thread(target=operator)
        thread.start()
        deadline = time.monotonic() + 60
        # It waits for 300 ms at most, which may end before the check.
        while not answers and not one(
            holder, "select count(*) from pg_locks where not granted and locktype = 'transactionid'"
        ):
            assert time.monotonic() < deadline
        portal.execute(lock, [low])
        thread.join(60)
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
        got = claim(conn, lanes=1, owner=(owner := str(uuid.uuid4())))
        operator.execute(f"select {function}({arguments})".encode())
        conn.execute("set statement_timeout = '30s'")
        settle(conn, *all_done(got))
        claim(conn)
        claim(conn, "onesignal")
        conn.execute(
            "select gre_relay_extend_v1('pusher', %s, %s)", [got["token"], [got["lanes"][0]["lane_key"]]]
        )
        conn.execute("select gre_relay_release_v1('pusher', %s)", [owner])
        conn.execute("select gre_relay_stats_v1(), gre_relay_status(), gre_relay_dead()")
        operator.rollback()
