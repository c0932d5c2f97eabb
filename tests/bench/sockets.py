"""The sockets' side of `make bench`: thousands of open WebSockets on one instance, messages to all staff, and storms.

Every member of staff receives every message, so 50 messages a second to 200 of them are 10,000 frames a second. A storm cuts
all sockets at once, or kills the API; messages go on meanwhile, over the database, and the relay's times are taken.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg

from tests.bench import pages
from tests.bench.lab import Steal
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

Say = Callable[[str], None]

FIRST = 1_000
"""The first player's id."""
BACK_WITHIN = 120.0
AGED = """
set session_replication_role = replica;
update gre_chat_messages set created_at = created_at - interval '1 hour';
update gre_chat_sessions set created_at = created_at - interval '1 hour', last_message_at = last_message_at - interval '1 hour';
"""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    staff: int = 200
    players: int = 4_800
    talking: int = 500
    """Players whose sessions get messages."""
    rate: float = 50.0
    seconds: float = 60.0
    idle: float = 10.0
    """Seconds in which nothing is said."""
    storm_rate: float = 20.0
    """Messages a second during a storm."""


QUICK = Size(staff=20, players=480, talking=100, seconds=6.0, idle=3.0)


@dataclass(frozen=True)
class Storm:
    """What happens to all sockets at once."""

    name: str
    cut: bool
    """Connections are cut; else the API is killed."""
    jitter: bool = True
    one_address: bool = False


STORMS = (
    Storm("the API is killed", cut=False),
    Storm("the API is killed, no jitter", cut=False, jitter=False),
    Storm("all are cut, no jitter, one address", cut=True, jitter=False, one_address=True),
)


@dataclass
class Loss:
    """What must be 0."""

    lost: int
    out_of_order: int
    repeats: int


@dataclass
class Load:
    """What was measured while messages were sent."""

    sockets: int
    opened: list[float]
    """Seconds until a page was entered."""
    rss: tuple[int, int, int]
    """Bytes of the API's process: empty, with idle sockets, after the messages."""
    idle_cpu: float
    """Share of a core with idle sockets."""
    cpu: float
    frames: int
    messages: int
    deliveries: int
    store: list[float]
    receipt: list[float]
    sent_to_receipt: list[float]
    loss: Loss
    steal: float
    kinds: dict[str, int] = field(default_factory=dict)


@dataclass
class Stormed:
    """What came of a storm."""

    storm: Storm
    sockets: int
    back: list[float]
    """Seconds until a page was entered again."""
    complete: float
    """Seconds until no page lacked a message."""
    closes: dict[str, int]
    cpu: float
    relay: list[float]
    """Milliseconds from commit to Pusher."""
    loss: Loss
    steal: float


class _Pages:
    """The process of the pages."""

    def __init__(self, worker: Worker, people: list[pages.Person]) -> None:
        url = urlsplit(worker.url)
        context = multiprocessing.get_context("fork")
        self._pipe: Connection
        self._pipe, far = context.Pipe()
        self._process = context.Process(
            target=pages.run, args=(far, url.hostname, url.port, people), daemon=True
        )
        self._process.start()
        far.close()

    def do(self, name: str, **arguments: Any) -> Any:
        """Call a method of Pages there."""
        self._pipe.send((name, arguments))
        found = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(30)


def measure(
    stack: StackProcess, say: Say, size: Size = Size(), storms: tuple[Storm, ...] = STORMS
) -> tuple[Load, list[Stormed]]:
    """Open the sockets, send messages, and raise the storms, one after the other."""
    _track_commits(stack)
    stack.reset()
    with stack.db() as conn:
        conn.execute("update gre_relay_sinks set enabled = false")
        people = _people(stack, conn, size)
        conn.execute("update gre_relay_sinks set enabled = true")
    total = size.staff + size.players
    with stack.worker(GRE_MAX_SOCKETS=str(max(5_000, total))) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, 60, what="live")
        client = _Pages(worker, people)
        try:
            load = _load(stack, worker, client, size, say)
            found = [_storm(stack, worker, client, storm, size, say) for storm in storms]
        finally:
            client.close()
    return load, found


def _track_commits(stack: StackProcess) -> None:
    """Let the database keep the times of commits."""
    assert stack.data is not None
    if _tracked(stack):
        return
    with _superuser(stack) as conn:
        conn.execute("alter system set track_commit_timestamp = on")
    assert stack.process is not None
    stack.process.send_signal(signal.SIGTERM)
    stack.process.wait(60)
    stack.start_again()


def _tracked(stack: StackProcess) -> bool:
    with stack.db() as conn:
        row = conn.execute("show track_commit_timestamp").fetchone()
        return row is not None and row["track_commit_timestamp"] == "on"


def _superuser(stack: StackProcess) -> psycopg.Connection[Any]:
    dsn = stack.env["SUPABASE_DB_URL"].replace("//postgres:", "//supabase_admin:", 1)
    return psycopg.connect(dsn, autocommit=True)


def _people(stack: StackProcess, conn: psycopg.Connection[dict[str, Any]], size: Size) -> list[pages.Person]:
    """Add staff, and a session of one message for each player; return who opens pages."""
    conn.execute(
        "insert into gre_staff (staff_id, display_name, role) select 'b' || n, 'Staff ' || n, 'staff'"
        " from generate_series(1, %s) n",
        [size.staff],
    )
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message)"
        " select %s + n, 'player', 'hello' from generate_series(0, %s - 1) n",
        [FIRST, size.players],
    )
    with _superuser(stack) as admin:
        admin.execute(AGED, prepare=False)
    conn.execute("analyze")
    rows = conn.execute(
        "select id::text, player_id from gre_chat_sessions where player_id >= %s", [FIRST]
    ).fetchall()
    sessions = {row["player_id"]: row["id"] for row in rows}
    everywhere = {sessions[FIRST + n]: 1 for n in range(size.talking)}
    staff = [
        pages.Person(
            stack.keys.user_token("staff", staff_id=f"b{n + 1}"),
            True,
            f"198.51.100.{n + 1}",
            everywhere,
            True,
        )
        for n in range(size.staff)
    ]
    players = [
        pages.Person(stack.keys.user_token("player", player_id=FIRST + n), False, f"10.1.{n // 250}.{n % 250 + 1}",
                     {sessions[FIRST + n]: 1}, n < size.talking)
        for n in range(size.players)
    ]  # fmt: skip
    return staff + players


def _load(stack: StackProcess, worker: Worker, client: _Pages, size: Size, say: Say) -> Load:
    total = size.staff + size.players
    api = psutil.Process(worker.pids["api"])
    empty = api.memory_info().rss
    say(f"sockets: {total:,} are opened")
    opened = client.do("open")
    let_pass(2.0, "presence settles")
    before, began = _cpu(api), time.monotonic()
    let_pass(size.idle, "nothing is said")
    idle_cpu = (_cpu(api) - before) / (time.monotonic() - began)
    idle = api.memory_info().rss
    say(f"sockets: {size.rate:g} messages a second for {size.seconds:g} s")
    client.do("renew")
    steal, before = Steal(), _cpu(api)
    client.do("talk", rate=size.rate, seconds=size.seconds)
    lost = client.do("complete", ends=_ends(stack), within=60.0)
    cpu, share = _cpu(api) - before, steal.share()
    tally: pages.Tally = client.do("figures")
    at = _commits(stack)
    return Load(
        total, opened, (empty, idle, api.memory_info().rss), idle_cpu, cpu, sum(tally.frames.values()), len(tally.acknowledged),
        sum(map(len, tally.heard.values())),
        [(at_ - tally.sent[key]) * 1000 for key, at_ in tally.acknowledged.items()],
        [(heard - at[key]) * 1000 for key, times in tally.heard.items() for heard in times],
        [(heard - tally.sent[key]) * 1000 for key, times in tally.heard.items() if key in tally.sent for heard in times],
        Loss(lost, tally.out_of_order, tally.repeats), share, dict(tally.frames),
    )  # fmt: skip


def _storm(
    stack: StackProcess, worker: Worker, client: _Pages, storm: Storm, size: Size, say: Say
) -> Stormed:
    total = size.staff + size.players
    say(f"sockets: {storm.name}")
    stack.drained()
    first = worker.pids["api"]
    before = _cpu(psutil.Process(first)) if storm.cut else 0.0
    steal = Steal()
    with _writing(stack, size) as written:
        let_pass(1.0, "messages are on their way")
        began = client.do("storm", cut=storm.cut, jitter=storm.jitter, one_address=storm.one_address)
        if not storm.cut:
            worker.kill_api()
        back = client.do("back", began=began, within=BACK_WITHIN)
    lost = client.do("complete", ends=_ends(stack), within=60.0)
    complete = time.time() - began
    share = steal.share()
    stack.drained()
    tally: pages.Tally = client.do("figures")
    at = _commits(stack)
    arrived: dict[str, float] = {}
    for item in stack.received("pusher"):
        key = item["data"].get("id")
        if item["status"] == 200 and item["name"].startswith("new-") and key in written:
            arrived.setdefault(key, item["at"])
    return Stormed(
        storm, total, back, complete, dict(tally.closes), _cpu(psutil.Process(worker.pids["api"])) - before,
        [(arrived[key] - at[key]) * 1000 for key in written if key in arrived],
        Loss(lost + sum(key not in arrived for key in written), tally.out_of_order, tally.repeats), share,
    )  # fmt: skip


@contextlib.contextmanager
def _writing(stack: StackProcess, size: Size) -> Iterator[list[str]]:
    """Insert players' messages, as a portal does, at the rate of storms; yields their ids."""
    written: list[str] = []
    over = threading.Event()

    def write() -> None:
        began = time.monotonic()
        with stack.db() as conn:
            while not over.wait(max(0.0, began + len(written) / size.storm_rate - time.monotonic())):
                row = conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'storm') returning id::text",
                    [FIRST + len(written) % size.talking],
                ).fetchone()
                assert row is not None
                written.append(row["id"])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        over.set()
        thread.join()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _ends(stack: StackProcess) -> dict[str, int]:
    """Return the last seq of each session."""
    with stack.db() as conn:
        rows = conn.execute("select id::text, last_seq from gre_chat_sessions").fetchall()
        return {row["id"]: row["last_seq"] for row in rows}


def _commits(stack: StackProcess) -> dict[str, float]:
    """Return when each message was committed, in Unix seconds."""
    with _superuser(stack) as conn:
        return dict(
            conn.execute(
                "select id::text, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 from gre_chat_messages"
            ).fetchall()
        )
