"""Assignment under load: races, kills and crossing locks, checked in snapshots."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import pytest

from tests.conftest import Database
from tests.support.access import SERVICE, Conn, RefusalError, Rest, staff
from tests.support.desk import assign, check, configure, people, set_presence, waiting
from tests.support.waiting import let_pass, wait_until

CROSSINGS = int(os.environ.get("GRE_CROSSINGS", "10000"))
"""Transfers, closings and messages in the test of deadlocks."""

WAITS: LiteralString = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        yield found


@pytest.fixture
def worker(db: Database) -> Iterator[Conn]:
    with db.connect("authenticator") as found:
        yield found


def take(rest: Rest, session: UUID, together: threading.Barrier) -> str:
    """Take a session at the same time as another connection; return its staff member, or the refusal."""
    together.wait(60)
    try:
        found = rest.call("gre_take_session", session_id=session)
    except RefusalError as error:
        return f"{error.status} {error.code}: {json.loads(error.detail)['by']}"
    return str(found["session"]["assigned_staff_id"])


def test_of_two_who_take_at_once_one_gets_409_and_the_name_of_who_has_it(db: Database, conn: Conn) -> None:
    people(conn, 2)
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two, ThreadPoolExecutor(2) as pool:
        for session in waiting(conn, *range(100, 160)):
            together = threading.Barrier(2)
            tries = [pool.submit(take, rest, session, together) for rest in (one, two)]
            found = sorted(t.result(60) for t in tries)
            assert found in (["409 session_taken: s1", "s1"], ["409 session_taken: s2", "s2"])
    check(conn)


def test_of_two_who_take_at_once_the_first_gets_it_whoever_that_is(db: Database, conn: Conn) -> None:
    """Both wait for the session's lock when it is released. A loaded machine may let one of two win every race of the test above."""
    people(conn, 2)
    conn.execute(
        "alter function public.gre_take_session set lock_timeout = '1min'"
    )  # not what is tested here
    with Rest(db, staff("s1")) as one, Rest(db, staff("s2")) as two, ThreadPoolExecutor(2) as pool:
        for n, session in enumerate(waiting(conn, *range(100, 106))):
            tries = []
            with conn.transaction():
                conn.execute("select from gre_chat_sessions where id = %s for update", [session])
                for waiters, rest in enumerate((one, two) if n % 2 else (two, one), 1):
                    tries.append(pool.submit(take, rest, session, threading.Barrier(1)))
                    wait_until(lambda: conn.execute(WAITS).fetchone() == {"n": waiters}, every=0.005)  # noqa: B023
            winner = "s1" if n % 2 else "s2"
            assert [t.result(60) for t in tries] == [winner, f"409 session_taken: {winner}"]
    check(conn)


def overtaken(conn: Conn) -> list[tuple[UUID, UUID]]:
    """Return pairs of sessions: the first was in the queue and waited for longer when the second was assigned.

    Sessions without staff's messages that were closed only while they were assigned.
    """
    since = {
        row["session_id"]: row["created_at"]
        for row in conn.execute(
            "select session_id, created_at from gre_chat_messages where seq = 1"
        ).fetchall()
    }
    events = []
    for row in conn.execute("select * from gre_chat_assignments").fetchall():
        events.append((row["started_at"], row["session_id"], row["how"]))
        if row["end_how"] in ("released", "offline"):
            events.append((row["ended_at"], row["session_id"], "returned"))
    found, queue = [], set(since)
    for _, session, how in sorted(events, key=lambda event: event[0]):
        if how == "returned":
            queue.add(session)
        else:
            first = min(queue, key=since.__getitem__)
            if how in ("auto", "returning") and first != session:
                found.append((first, session))
            queue.remove(session)
    return found


class Workers:
    """Worker processes that call without a pause, and are started again when they end."""

    def __init__(self, db: Database, count: int, script: Path) -> None:
        self.db = db
        self.script = script
        self.kills = Counter[str]()
        script.write_text("select gre_assign_waiting_v1(20) \\watch 0.005\n")
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        address = self.db.dsn() + "?application_name=assigning"
        return subprocess.Popen(
            [self.db.pg.bin_dir / "psql", "-qXd", address, "-f", self.script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, admin: Conn, rng: random.Random) -> None:
        """Kill a process, or a backend, which ends its process too; then start all ended processes again."""
        if rng.random() < 0.5:
            rng.choice(self.processes).kill()
            self.kills["process"] += 1
        else:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'assigning'"
                " and datname = current_database() order by state <> 'active', random() limit 1"
            )
            self.kills["backend"] += 1
        for n, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[n] = self._start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(60)


def repeat(
    db: Database, stop: threading.Event, every: float, step: Callable[[Conn, random.Random], Any]
) -> None:
    """Call `step` with a superuser's connection every `every` seconds until `stop`."""
    rng = random.Random(1)
    with db.connect("supabase_admin") as own:
        while not stop.wait(every):
            step(own, rng)


def close_one(conn: Conn, _: random.Random) -> None:
    """Close one assigned session."""
    conn.execute(
        "update gre_chat_sessions set status = 'closed' where status <> 'closed' and assigned_staff_id is not null"
        " and id = (select session_id from gre_chat_assignments where ended_at is null order by random() limit 1)"
    )


def count(conn: Conn, what: str) -> int:
    """Count rows; `what` is a table with its condition."""
    row = conn.execute(f"select count(*) as n from {what}".encode()).fetchone()
    assert row is not None
    return int(row["n"])


def test_ten_workers_assign_no_session_twice_exceed_no_limit_and_overtake_nobody_while_they_are_killed(
    db: Database, conn: Conn, worker: Conn, tmp_path: Path
) -> None:
    """10 workers, 500 sessions, 20 staff whose presence changes; checked in a snapshot every few milliseconds."""
    names = people(conn, 20)
    configure(conn, "least_busy", max_sessions=12, offline_after="0")
    waiting(conn, *range(1000, 1500))
    stop = threading.Event()
    workers = Workers(db, 10, tmp_path / "work.sql")

    def come_and_go(own: Conn, rng: random.Random) -> None:
        set_presence(own, rng.choice(names), rng.choice(["online", "online", "online", "away", "offline"]))

    left = (
        "gre_chat_sessions s where not exists (select from gre_chat_assignments a where a.session_id = s.id)"
    )
    snapshots = 0
    with ThreadPoolExecutor(3) as pool:
        steps = [(0.004, come_and_go), (0.004, close_one), (0.04, workers.kill)]
        helpers = [pool.submit(repeat, db, stop, every, step) for every, step in steps]
        deadline = time.monotonic() + 200
        try:
            while workers.kills.total() < 60 or snapshots <= 100 or count(conn, left):
                check(conn)
                assert count(conn, "gre_staff_load where open_sessions > 12") == 0
                snapshots += 1
                assert not any(helper.done() for helper in helpers)
                assert time.monotonic() < deadline, "sessions were not assigned"
                let_pass(0.003, "a snapshot every few milliseconds")
        finally:
            stop.set()
            wait(helpers, 60)  # the last step can start a process
            workers.close()
        for helper in helpers:
            helper.result(60)
    assert min(workers.kills.values()) >= 10, workers.kills
    assert snapshots > 100
    check(conn)
    assert overtaken(conn) == []
    assert count(conn, "gre_chat_assignments where how = 'auto'") >= 500

    conn.execute(
        "update gre_online_status set status = 'offline', updated_at = now() - interval '1 second', last_seen_at = null"
    )
    conn.execute("update gre_chat_assignments set started_at = started_at - interval '1 second'")
    wait_until(lambda: not assign(worker)["more"], every=0.0)
    held = "gre_chat_sessions where status <> 'closed' and waiting_since is not null and assigned_staff_id is not null"
    assert count(conn, held) == 0, "who goes offline holds nothing that waits"


def work(db: Database, seed: int, names: list[str], done: threading.Event) -> Counter[str]:
    """Assign without a pause, and change the presence of staff."""
    rng, found = random.Random(seed), Counter[str]()
    with db.connect("authenticator") as own, db.connect() as presence:
        while not done.is_set():
            for name, number in assign(own, 5).items():
                found[name] += int(number)
            if rng.random() < 0.2:
                set_presence(presence, rng.choice(names), rng.choice(["online", "online", "offline"]))
    return found


class Crossing:
    """The changes of one connection."""

    KINDS = ("message", "message", "reply", "close", "reopen", "take", *["transfer"] * 4)

    def __init__(self, db: Database, seed: int, names: list[str], players: range) -> None:
        self.rng = random.Random(seed)
        self.names = names
        self.players = players
        self.staff = Rest(db, staff(names[seed % len(names)]))
        self.service = Rest(db, SERVICE)

    def run(self, times: int) -> Counter[str]:
        found = Counter[str]()
        with self.staff, self.service:
            for _ in range(times):
                kind = self.rng.choice(self.KINDS)
                try:
                    self.step(kind)
                    found[kind] += 1
                except RefusalError as error:
                    found[error.code] += 1
        return found

    def step(self, kind: str) -> None:
        player = self.rng.choice(self.players)
        newest = "select id from gre_chat_sessions where player_id = %s order by created_at desc limit 1"
        session = self.staff.sql(newest, player)[0]["id"]
        match kind:
            case "message":
                insert = (
                    "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')"
                )
                self.service.sql(insert, player)
            case "reply":
                self.staff.call("gre_staff_reply", session_id=session, message="y")
            case "take":
                self.staff.call("gre_take_session", session_id=session)
            case "transfer":
                self.staff.call(
                    "gre_transfer_session", session_id=session, to_staff=self.rng.choice([*self.names, None])
                )
            case _:
                status = {"close": "closed", "reopen": "active"}[kind]
                self.staff.call("gre_set_session_status", session_id=session, status=status)


def test_crossing_transfers_closings_and_messages_never_deadlock(db: Database, conn: Conn) -> None:
    """10,000 of them by eight connections over eight sessions and four staff, while two workers assign."""
    names, players = people(conn, 4), range(200, 208)
    configure(conn, "least_busy", offline_after="0")
    waiting(conn, *players)
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    before = conn.execute(deadlocks).fetchone()
    done = threading.Event()
    with ThreadPoolExecutor(10) as pool:
        helpers = [pool.submit(work, db, seed, names, done) for seed in range(2)]
        crossing = [pool.submit(Crossing(db, seed, names, players).run, CROSSINGS // 8) for seed in range(8)]
        try:
            found = sum((one.result(600) for one in crossing), Counter[str]())
        finally:
            done.set()
        worked = sum((helper.result(60) for helper in helpers), Counter[str]())
    assert set(found) <= {*Crossing.KINDS, "session_closed", "session_open", "session_taken"}, found
    assert found.total() == CROSSINGS // 8 * 8
    assert sum(found[kind] for kind in set(Crossing.KINDS)) > CROSSINGS / 3, found
    assert worked["assigned"] > CROSSINGS / 200, worked
    assert conn.execute(deadlocks).fetchone() == before
    check(conn)
