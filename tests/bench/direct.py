"""The relay's calls over a connection of its own, beside those over PostgREST: latency, CPU, and what a full pool does.

A trial of an option that the product does not have (docs/decisions.md). The stack's PostgREST is a stand-in: its CPU says
nothing of the real one's, and it is shown for that reason with the other stand-ins' only.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
from psycopg import sql
from yarl import URL

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.bench.direct_worker import CHANNEL
from tests.bench.lab import ROOT, Committed, Lab, ObservedWorker, Steal, percentile
from tests.bench.report import Section
from tests.support.stack import StackProcess
from tests.support.waiting import let_pass, wait_until

Say = Callable[[str], None]

WAYS = ("postgrest", "direct", "direct, listen")
RATES = {50.0: 400, 500.0: 2000}
HELD, HOLDERS = 6.0, 12
"""Seconds of one query of somebody else, and how many there are at any time; the pool has 10 connections."""
WRITERS, WRITING, RATE = 16, 6, 500
FLUSH = (0, 1000, 5000)
"""Microseconds by which a flush of the log takes longer, as on a network's disk (commit_delay)."""

NOTIFY = f"""
  create or replace function bench_feed() returns trigger language plpgsql as $$ begin perform pg_notify('{CHANNEL}', ''); return null; end $$;
  create trigger bench_feed after insert on {{}} for each statement execute function bench_feed()"""
LOGIN = """do $$ begin
    create role gre_bench login in role gre_worker;
  exception when duplicate_object then null; end $$"""
HOLD = """create or replace function public.bench_hold(seconds float8) returns void language sql as 'select pg_sleep(seconds)';
  notify pgrst, 'reload schema'"""


class DirectWorker(ObservedWorker):
    """The relay alone, over its own connections."""

    module = "tests.bench.direct_worker"


class RestWorker(ObservedWorker):
    """The relay alone, as it is."""

    module = "gre_bridge"


@dataclass
class Round:
    """Milliseconds from commit to arrival; CPU in milliseconds for a message: worker, stand-ins, PostgreSQL."""

    times: list[float]
    lost: int
    cpu: tuple[float, float, float]
    steal: float


def direct(lab: Lab, say: Say, *, quick: bool) -> Iterator[Section]:
    """Measure everything; the ways take turns in each round."""
    yield _notify(lab, say, quick=quick)
    found: dict[tuple[str, float], list[Round]] = {}
    held: dict[str, Round] = {}
    for number in range(1 if quick else 3):
        for way in WAYS:
            say(f"direct: {way}, round {number + 1}")
            with _running(lab, way) as worker:
                for rate, count in RATES.items():
                    one = _round(lab, worker, count // (4 if quick else 1), rate)
                    found.setdefault((way, rate), []).append(one)
                    say(" ".join(_row(way, f"{rate:g}/s", [one])))
    for way in WAYS:
        say(f"direct: {way}, while other queries hold PostgREST's pool")
        with _running(lab, way) as worker, _holding(lab):
            held[way] = _round(lab, worker, 100 if quick else 200, 10.0)
    rows = [_row(way, f"{rate:g}/s", found[way, rate]) for rate in RATES for way in WAYS]
    rows += [_row(way, "10/s, pool held", [held[way]]) for way in WAYS]
    yield Section(
        "A direct connection for the relay",
        ["calls", "load", "p50 ms", "p99 ms", "max", "lost", "CPU ms/message: worker", "stand-ins", "PostgreSQL", "steal %"],
        rows,
        "Milliseconds from commit to arrival at Pusher, two sinks; percentiles are the median of the rounds. The stand-ins are PostgREST and Realtime of the embedded stack, in one"
        " process of Python: their CPU is not that of the real ones. PostgreSQL's CPU includes that of the inserts.",
    )  # fmt: skip


def _row(way: str, load: str, rounds: list[Round]) -> list[str]:
    def median(read: Callable[[Round], float]) -> str:
        return f"{statistics.median(map(read, rounds)):.1f}"

    return [
        way, load, median(lambda r: percentile(r.times, 0.5)), median(lambda r: percentile(r.times, 0.99)),
        median(lambda r: max(r.times)), str(sum(r.lost for r in rounds)),
        *(f"{statistics.median(r.cpu[n] for r in rounds):.2f}" for n in range(3)),
        f"{max(r.steal for r in rounds) * 100:.0f}",
    ]  # fmt: skip


def direct_worker(
    stack: StackProcess, env: dict[str, str], log: Path, *, listen: bool = False
) -> DirectWorker:
    """A relay for this stack with connections of its own, not started; with `listen` its messages notify it, too."""
    url = URL(stack.env["SUPABASE_DB_URL"]).with_user("gre_bench")
    with stack.db() as conn:
        conn.execute(LOGIN)
        conn.execute(sql.SQL("alter role gre_bench password {}").format(url.password))
        if listen:
            conn.execute(NOTIFY.format("gre_chat_messages"))
    changes = {"BENCH_DIRECT_URL": str(url), **({"BENCH_DIRECT_LISTEN": "1"} if listen else {})}
    return DirectWorker(env, log, **changes)


@contextlib.contextmanager
def _running(lab: Lab, way: str) -> Iterator[ObservedWorker]:
    lab.fresh(sinks=("pusher", "onesignal"))
    with lab.stack.db() as conn:
        conn.execute(HOLD)
    lab._runs += 1
    log = lab.stack.directory / f"direct-{lab._runs}.log"
    if way == "postgrest":
        worker: ObservedWorker = RestWorker(lab.env, log)
    else:
        worker = direct_worker(lab.stack, lab.env, log, listen=way == "direct, listen")
    try:
        worker.start(within=60)
        wait_until(
            lambda: worker.metric("gre_realtime_state", state="live") == 1, 30, what="a live subscription"
        )
        lab.all_arrived(lab.insert(60, 20), 20)
        yield worker
    finally:
        worker.stop(60)


def _round(lab: Lab, worker: ObservedWorker, count: int, rate: float) -> Round:
    steal, before = Steal(), _cpu(lab, worker)
    committed: list[Committed] = lab.insert(count, rate)
    first = lab.all_arrived(committed, 60)
    used = [(now - then) * 1000 / count for then, now in zip(before, _cpu(lab, worker), strict=True)]
    times = [(first[c.id] - c.at) * 1000 for c in committed if c.id in first]
    return Round(times, len(committed) - len(times), (used[0], used[1], used[2]), steal.share())


def _cpu(lab: Lab, worker: ObservedWorker) -> tuple[float, float, float]:
    """CPU seconds so far of the worker, of the stand-ins and of PostgreSQL, whose ended processes count too."""
    assert lab.stack.process is not None
    stack = psutil.Process(lab.stack.process.pid)
    server = [one for one in stack.children(recursive=True) if one.name().startswith("postgres")]
    parent = next(one for one in server if not any(one.ppid() == other.pid for other in server))
    ended = sum(parent.cpu_times()[2:4])
    return (
        sum(sum(one.cpu_times()[:2]) for one in worker.all()),
        sum(stack.cpu_times()[:2]),
        ended + sum(sum(one.cpu_times()[:2]) for one in server),
    )


@contextlib.contextmanager
def _holding(lab: Lab) -> Iterator[None]:
    """Have others call a slow function through PostgREST, more at a time than its pool has connections."""
    ended = threading.Event()

    def hold() -> None:
        with httpx.Client(base_url=lab.stack.url, timeout=60, trust_env=False) as client:
            while not ended.is_set():
                client.post("/rest/v1/rpc/bench_hold", json={"seconds": HELD}, headers=lab.stack.headers())

    threads = [threading.Thread(target=hold) for _ in range(HOLDERS)]
    for thread in threads:
        thread.start()
    let_pass(1, "the pool is taken")
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _notify(lab: Lab, say: Say, *, quick: bool) -> Section:
    """What a notification in each insert's transaction costs the inserts: it takes one lock for all commits.

    The table has no triggers, so that the machine's CPU is not the limit.
    """
    rows = []
    for flush in FLUSH:
        for notify in (False, True):
            say(f"direct: inserts, {'with' if notify else 'without'} notify, a flush {flush} µs longer")
            lab.fresh(sinks=())
            with lab.stack.db() as conn:
                conn.execute("create table bench_inserts (id int, message text)")
                if notify:
                    conn.execute(NOTIFY.format("bench_inserts"))
                listening = lab.stack.db()
                listening.execute(f"listen {CHANNEL}")
            with _flush(lab, flush), contextlib.closing(listening):
                paced = _pgbench(lab, RATE, 2 if quick else WRITING)
                most = _pgbench(lab, 0, 2 if quick else WRITING)
            with lab.stack.db() as conn:
                conn.execute("drop table bench_inserts")
            rows.append([
                f"{flush / 1000:g} ms", "yes" if notify else "no", f"{percentile(paced, 0.5):.1f}",
                f"{percentile(paced, 0.99):.1f}", f"{len(most) / (2 if quick else WRITING):.0f}",
            ])  # fmt: skip
    return Section(
        "What a notification in each insert costs",
        [
            "flush of the log takes longer by",
            "notify",
            f"insert p50 ms at {RATE}/s",
            "p99 ms",
            "most inserts/s",
        ],
        rows,
        f"{WRITERS} writers (pgbench) into a table without other triggers, one listener. commit_delay makes the flush longer.",
    )


@contextlib.contextmanager
def _flush(lab: Lab, longer: int) -> Iterator[None]:
    url = URL(lab.stack.env["SUPABASE_DB_URL"]).with_user("supabase_admin")
    with psycopg.connect(str(url), autocommit=True) as conn:
        try:
            conn.execute(f"alter system set commit_delay = {longer}")
            conn.execute("alter system set commit_siblings = 0")
            conn.execute("select pg_reload_conf()")
            yield
        finally:
            conn.execute("alter system reset all")
            conn.execute("select pg_reload_conf()")


def _pgbench(lab: Lab, rate: int, seconds: int) -> list[float]:
    """Insert with WRITERS connections, `rate` a second in all (0: as many as possible); milliseconds of each insert."""
    program = EmbeddedPostgres(data_dir=Path()).bin_dir / "pgbench"
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "insert.sql"
        script.write_text("\\set p random(1, 1000)\ninsert into bench_inserts values (:p, 'bench');\n")
        command = [
            str(program), "--no-vacuum", "--protocol=prepared", f"--client={WRITERS}", "--jobs=2", f"--time={seconds}",
            f"--file={script}", "--log", f"--log-prefix={directory}/log", lab.stack.env["SUPABASE_DB_URL"],
        ]  # fmt: skip
        subprocess.run(
            [*command, *([f"--rate={rate}"] if rate else [])], check=True, capture_output=True, cwd=ROOT
        )
        lines = [
            line.split() for file in Path(directory).glob("log*") for line in file.read_text().splitlines()
        ]
    return [int(line[2]) / 1000 for line in lines]
