"""What the database's calls for a message cost, measured in SQL on one connection."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.costs import Line
from tests.bench.lab import Lab
from tests.support.stack import StackProcess

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    waiting: int
    single: int
    paced: int
    sessions: int
    workers: tuple[int, ...]


class Usage:
    """The CPU seconds of the stack's parts, and the bytes of WAL, since it was made."""

    def __init__(self, stack: StackProcess) -> None:
        self._stack = stack
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        assert self._stack.process is not None
        stand_in = psutil.Process(self._stack.process.pid)
        postgres = 0.0
        for process in stand_in.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("postgres"):
                    times = process.cpu_times()  # with those of its children that have ended
                    postgres += times.user + times.system + times.children_user + times.children_system
        with self._stack.db() as conn:
            row = conn.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as bytes").fetchone()
        assert row is not None
        return {
            "postgres": postgres,
            "stand_in": sum(stand_in.cpu_times()[:2]),
            "wal": float(row["bytes"]),
            "at": time.monotonic(),
        }

    def since(self) -> dict[str, float]:
        """What was used: `postgres` and `stand_in` (CPU seconds), `wal` (bytes), `at` (seconds that passed)."""
        return {name: value - self._before[name] for name, value in self._now().items()}


@dataclass
class Calls:
    """The database's part of a message: CPU seconds and WAL bytes, for one message or row; `disk` in seconds."""

    insert: float
    insert_two: float
    insert_wal: float
    insert_two_wal: float
    claim: Line
    settle: Line
    claim_wal: float
    settle_wal: float
    batch_wal: float
    """Of a claim and a settle, for a row of a large one."""
    disk: float


def database(lab: Lab, say: Say, size: Size) -> Calls:
    """Measure the calls in SQL, on one connection."""
    say("scale: inserts, claims and settles in SQL")
    inserts = {}
    for sinks in (("pusher", "onesignal"), ("pusher",)):
        lab.fresh(sinks=sinks)
        lab.backlog(size.single, size.single)  # opens the sessions
        with lab.stack.db() as conn:
            usage = Usage(lab.stack)
            for n in range(size.single):
                conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'message')",
                    [1 + n],
                )
            inserts[len(sinks)] = usage.since()
    with lab.stack.db() as conn:
        _claim_all(conn, size.single)  # what opened the sessions, and the inserted messages
        lab.backlog(size.single, size.single)
        empty = _each(lab, size.single, lambda: _claim(conn, "onesignal", 1))
        answers: list[Any] = []
        claims = _each(lab, size.single, lambda: answers.append(_claim(conn, "pusher", 1)))
        rows = sum(len(lane["deliveries"]) for _, lanes in answers for lane in lanes) / size.single
        settles = _each(lab, size.single, lambda: _settle(conn, *answers.pop()))
        lab.backlog(size.waiting, size.single)
        count = max(1, size.waiting // 1000)
        large = _each(lab, count, lambda: answers.append(_claim(conn, "pusher", 100)))
        many = sum(len(lane["deliveries"]) for _, lanes in answers for lane in lanes) / count
        settled = _each(lab, count, lambda: _settle(conn, *answers.pop()))
    one, two = inserts[1], inserts[2]
    return Calls(
        one["postgres"] / size.single, two["postgres"] / size.single, one["wal"] / size.single, two["wal"] / size.single,
        _line((0, empty["postgres"]), (rows, claims["postgres"]), (many, large["postgres"])),
        Line.through((rows, settles["postgres"]), (many, settled["postgres"])),
        claims["wal"] / rows, settles["wal"] / rows, (large["wal"] + settled["wal"]) / many,
        _sync(lab.stack.directory),
    )  # fmt: skip


def _sync(directory: Path) -> float:
    """Seconds until the disk has a page, as the median of some: what a commit waits for."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(100):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _line(empty: tuple[float, float], one: tuple[float, float], many: tuple[float, float]) -> Line:
    """The line through a small and a large claim; a claim of nothing costs no more than its fixed part."""
    line = Line.through(one, many)
    return Line(max(line.fixed, min(empty[1], one[1])), line.each)


def _each(lab: Lab, count: int, act: Callable[[], Any]) -> dict[str, float]:
    """Act so many times; return what one took."""
    usage = Usage(lab.stack)
    for _ in range(count):
        act()
    return {name: value / count for name, value in usage.since().items()}


def _claim(conn: Any, sink: str, lanes: int) -> tuple[str, list[Any]]:
    """Claim as another worker each time, so that no lease counts as its own."""
    token = str(uuid.uuid4())
    row = conn.execute(
        "select gre_relay_claim_v1(%s, %s, %s, 10, 300, %s) as claim", [sink, token, lanes, str(uuid.uuid4())]
    ).fetchone()
    return token, row["claim"]["lanes"]


def _settle(conn: Any, token: str, lanes: list[Any]) -> None:
    results = [
        {"lane": lane["lane_key"], "token": token, "done": [d["id"] for d in lane["deliveries"]]}
        for lane in lanes
    ]
    conn.execute("select gre_relay_settle_v1('pusher', %s)", [json.dumps(results)])


def _claim_all(conn: Any, most: int) -> None:
    """Claim and settle until nothing is due."""
    for _ in range(most):
        token, lanes = _claim(conn, "pusher", 100)
        if not lanes:
            return
        _settle(conn, token, lanes)
