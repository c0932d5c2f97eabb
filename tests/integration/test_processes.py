"""The daemon's two processes: a fault of one does not affect the other, and all end together."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from tests.support.loopback import HTTP, NO_TLS, free_port
from tests.support.stack import StackProcess, Worker, wait_until_ended
from tests.support.waiting import wait_until

QUICK = 8.0
"""Seconds within which a message reaches Pusher on a busy machine, while nothing is wrong: less than any wait for a lease."""


@contextlib.contextmanager
def talking(stack: StackProcess, every: float = 0.1) -> Iterator[dict[str, float]]:
    """Insert players' messages until the block ends; yield the commit time by message id."""
    written: dict[str, float] = {}
    over = threading.Event()

    def write() -> None:
        while not over.wait(every):
            name = str(uuid.uuid4())
            assert stack.insert(id=name, player_id=29, sender="player", message="hello").status_code == 201
            written[name] = time.time()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield written
        finally:
            over.set()
            writing.result(60)


def slowest(stack: StackProcess, written: dict[str, float]) -> float:
    """Wait until all messages have arrived at Pusher; return the seconds of the slowest."""
    stack.drained()
    first: dict[str, float] = {}
    for item in stack.received("pusher"):
        if item["status"] == 200 and item["name"] == "new-player-message":
            first.setdefault(item["data"]["id"], item["at"])
    assert written.keys() <= first.keys()
    return max(first[name] - at for name, at in written.items())


def ask(url: str, over: threading.Event, answers: list[str]) -> None:
    """Request /healthz over new connections until `over`; return each answer or error."""
    while not over.is_set():
        try:
            answers.append(str(HTTP.get(f"{url}/healthz").status_code))
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)


# One process ---------------------------------------------------------------------------------------------


def test_the_api_answers_while_the_relay_is_killed(stack: StackProcess) -> None:
    with stack.worker(GRE_LEASE_SECONDS="2") as worker, ThreadPoolExecutor(1) as pool:
        before, over = worker.pids, threading.Event()
        answers: list[str] = []
        asking = pool.submit(ask, worker.url, over, answers)
        try:
            with talking(stack):
                for _ in range(2):
                    gone, known = worker.pids["relay"], len(answers)
                    worker.kill_relay()
                    wait_until(lambda gone=gone: worker.pids.get("relay", gone) != gone, what="a new relay")
                    wait_until(lambda known=known: len(answers) > known + 10, what="answers of the API")
        finally:
            over.set()
            asking.result(60)
        stack.drained()
        assert set(answers) == {"200"}
        after = worker.pids
        assert (after["api"], after["relay"] != before["relay"]) == (before["api"], True)
        assert HTTP.get(f"{worker.admin_url}/readyz").status_code == 200
        assert worker.stop() == 0


def test_no_delivery_waits_while_the_api_is_killed(stack: StackProcess) -> None:
    with stack.worker() as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        before = worker.pids
        with talking(stack) as written:
            for _ in range(2):
                gone = worker.pids["api"]
                worker.kill_api()
                # The supervisor keeps the port open: new connections wait for the new process.
                assert HTTP.get(f"{worker.url}/healthz").status_code == 200
                wait_until(lambda gone=gone: worker.pids.get("api", gone) != gone, what="a new API")
        assert slowest(stack, written) < QUICK
        assert worker.pids["relay"] == before["relay"]


def test_no_delivery_is_lost_while_the_api_gets_no_more_memory(stack: StackProcess) -> None:
    with stack.worker() as worker, ThreadPoolExecutor(16) as pool:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        before = worker.pids
        if sys.platform == "linux":
            assert int(Path(f"/proc/{before['api']}/oom_score_adj").read_text()) >= 500
        size = psutil.Process(before["api"]).memory_info().vms
        none = resource.RLIM_INFINITY
        resource.prlimit(before["api"], resource.RLIMIT_AS, (size, none))

        def post(_: int) -> None:
            with contextlib.suppress(httpx.HTTPError):
                HTTP.post(f"{worker.url}/api/gre-chat/send", content=b"x" * 64_000, timeout=5)

        with talking(stack) as written:
            list(pool.map(post, range(48)))
            wait_until(lambda: written, what="a message")
        assert slowest(stack, written) < QUICK
        with contextlib.suppress(ProcessLookupError):  # it may have ended, and been replaced
            resource.prlimit(before["api"], resource.RLIMIT_AS, (none, none))

        def answers() -> bool:
            """A connection that was accepted while there was no memory may never be answered: a client asks again."""
            with contextlib.suppress(httpx.HTTPError):
                return HTTP.get(f"{worker.url}/healthz", timeout=10).status_code == 200
            return False

        wait_until(answers, what="the API")
        assert worker.pids["relay"] == before["relay"]


def test_relay_or_api_alone_is_one_process(stack: StackProcess) -> None:
    with stack.worker("relay") as relay, stack.worker("api") as api:
        assert (len(relay.all()), len(api.all())) == (1, 1)
        assert set(relay.pids) == {"relay"} and set(api.pids) == {"api"}
        token = stack.keys.user_token("player", player_id=29)
        sent = HTTP.post(
            f"{api.url}/api/gre-chat/send",
            json={"message": "hello"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert sent.status_code == 201
        stack.drained()
        # A worker counts a delivery when the database has answered.
        wait_until(lambda: relay.metric("gre_deliveries_settled_total", outcome="done") > 0)
        assert (relay.stop(), api.stop()) == (0, 0)


# The whole daemon --------------------------------------------------------------------------------------------------


def test_both_processes_end_if_the_supervisor_is_killed(stack: StackProcess) -> None:
    worker = stack.worker().start()
    every = worker.all()
    try:
        assert len(every) == 3
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.process is not None
        worker.process.wait(60)
        wait_until_ended(every)
        port = int(worker.url.rpartition(":")[2])

        def is_free() -> bool:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return True
            return False

        # A killed process counts as ended some moments before its last thread closes its sockets.
        wait_until(is_free, what="a free port")
    finally:
        for process in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_a_second_signal_ends_the_daemon_at_once(stack: StackProcess) -> None:
    stack.fault("pusher", {"mode": "hang"})
    with stack.worker(GRE_DRAIN_SECONDS="120", GRE_SEND_TIMEOUT="120") as worker:
        stack.insert(player_id=29, sender="player", message="in flight")
        wait_until(lambda: worker.metric("gre_requests_in_flight", sink="pusher"), what="a request")
        every = worker.all()
        worker.signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in worker.log.read_text(), what="the stop to begin")
        worker.signal(signal.SIGTERM)
        assert worker.process is not None
        worker.process.wait(60)
        wait_until_ended(every)


def test_a_signal_to_every_process_is_one_graceful_stop(stack: StackProcess) -> None:
    stack.fault("pusher", {"delay": 2})
    with stack.worker() as worker:
        stack.insert(player_id=29, sender="player", message="in flight")
        wait_until(lambda: worker.metric("gre_requests_in_flight", sink="pusher"), what="a request")
        for process in worker.all():
            process.send_signal(signal.SIGINT)
        assert worker.process is not None
        assert worker.process.wait(60) == 0
        assert "at once" not in worker.log.read_text()
    with stack.db() as conn:
        (row,) = conn.execute(
            "select count(*) as n from gre_relay_lanes where lease_token is not null"
        ).fetchall()
    assert row["n"] == 0


def test_readyz_reports_the_stop_before_the_port_closes(stack: StackProcess) -> None:
    with stack.worker(GRE_SHUTDOWN_DELAY="12") as worker:
        worker.signal(signal.SIGTERM)
        stopping = wait_until(
            lambda: (answer := HTTP.get(f"{worker.admin_url}/readyz?process=api", timeout=60)).status_code == 503
            and answer, 12, what="/readyz to say so",
        )  # fmt: skip
        assert stopping.json()["problems"] == ["stopping"]
        assert HTTP.get(f"{worker.url}/healthz", timeout=60).status_code == 503
        assert HTTP.get(f"{worker.url}/api/gre-chat/health", timeout=60).status_code == 200
        assert worker.process is not None
        assert worker.process.wait(60) == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Return True if a process has a handler for a signal (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("arguments", [["run"], ["run", "--no-api"]])
def test_sigterm_is_handled_before_the_imports_have_ended(stack: StackProcess, arguments: list[str]) -> None:
    """The kernel ignores a signal for which process 1 has no handler, so it needs one from the start."""

    def early() -> bool:
        worker = stack.worker()
        worker._options = arguments[1:]
        worker.start(ready=False)
        try:

            def caught() -> list[bool]:
                before = "listening" in worker.log.read_text()
                return [before] if catches(worker.pid, signal.SIGTERM) else []

            (said,) = wait_until(caught, every=0.002, what="a handler")
            worker.signal(signal.SIGTERM)
            assert worker.process is not None
            assert worker.process.wait(60) == 0
            assert "Traceback" not in worker.log.read_text()
        finally:
            worker.kill()
        return not said

    # On a busy machine the test may look when the daemon listens already.
    assert any(early() for _ in range(5)), "the handler was installed late, each time"


ORPHANS = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to it, as to process 1
if os.fork() == 0:
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "0.5"])
    os._exit(0)
os.execv(sys.executable, [sys.executable, "-m", "gre_bridge", "run"])
"""


def test_process_1_reaps_orphans_and_ends_with_its_own_status(stack: StackProcess) -> None:
    worker = stack.worker()
    with worker.log.open("wb") as out:
        worker._from = 0
        worker.process = subprocess.Popen(
            [sys.executable, "-c", ORPHANS], env=worker._env, stdout=out, stderr=out
        )
    try:
        wait_until(worker._ready, what="the worker's /readyz")
        ours = set(worker.pids.values())

        def alone() -> bool:
            return {child.pid for child in psutil.Process(worker.pid).children()} == ours

        wait_until(alone, what="the end of the orphans")
        worker.kill_relay()  # nor does a process of the supervisor remain as a zombie
        wait_until(lambda: worker.pids.get("relay") not in {None, *ours}, what="another relay")

        def states() -> list[str]:
            return [child.status() for child in psutil.Process(worker.pid).children(recursive=True)]

        wait_until(lambda: psutil.STATUS_ZOMBIE not in states() and len(states()) == 2, what="two processes")
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_status_watch_ends_by_sigterm(stack: StackProcess) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gre_bridge", "status", "--watch"], env={**os.environ, **stack.env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(lambda: catches(process.pid, signal.SIGTERM), what="a handler")
        wait_until(
            lambda: psutil.Process(process.pid).net_connections(), every=0.02, what="a call to the database"
        )
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (143, b"")


# Output -----------------------------------------------------------------------------------------------


class Muffled(Worker):
    """A worker whose stderr accepts nothing."""

    def __init__(self, stack: StackProcess, stderr: int | IO[bytes], **changes: str) -> None:
        ports = {"GRE_HTTP_PORT": str(free_port()), "GRE_ADMIN_PORT": str(free_port())}
        super().__init__(
            stack.env, stack.directory / "muffled.log", GRE_LOG_LEVEL="debug", **ports, **changes
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gre_bridge", "run"],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._env['GRE_HTTP_PORT']}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._env['GRE_ADMIN_PORT']}"

    def _ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None
        with contextlib.suppress(httpx.HTTPError):
            return HTTP.get(f"{self.admin_url}/readyz", timeout=20).status_code == 200
        return False


@contextlib.contextmanager
def unread_pipe() -> Iterator[int]:
    """A full pipe without a reader."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def broken_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        yield disk.fileno()


@pytest.mark.parametrize(
    "stderr",
    [unread_pipe, broken_pipe, full_disk],
    ids=["a pipe nobody reads", "a reader that has gone", "a full disk"],
)
def test_lines_that_cannot_be_written_are_dropped_and_counted(
    stack: StackProcess, stderr: Callable[[], contextlib.AbstractContextManager[int]]
) -> None:
    with stderr() as descriptor, contextlib.ExitStack() as exits:
        worker = Muffled(stack, descriptor)
        exits.callback(worker.kill)
        wait_until(worker._ready, what="/readyz")
        for _ in range(20):
            assert stack.insert(player_id=29, sender="player", message="hello").status_code == 201
        stack.drained()
        if stderr is not unread_pipe:  # they wait, up to a limit, for a reader
            wait_until(lambda: worker.metric("gre_log_lines_dropped_total", process="relay") > 20)
        assert worker.stop() == 0


def test_the_daemon_works_with_closed_standard_streams(stack: StackProcess) -> None:
    ports = {"GRE_HTTP_PORT": str(free_port()), "GRE_ADMIN_PORT": str(free_port())}
    worker = Worker(stack.env, stack.directory / "closed.log", **ports)
    shell = f'exec "{sys.executable}" -m gre_bridge run <&- >&- 2>&-'
    worker.process = subprocess.Popen(["sh", "-c", shell], env=worker._env)
    try:
        address = f"http://127.0.0.1:{ports['GRE_ADMIN_PORT']}"

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return HTTP.get(f"{address}/readyz", timeout=20).status_code == 200
            return False

        wait_until(ready, what="/readyz")
        stack.insert(player_id=29, sender="player", message="hello")
        stack.drained()
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_each_delivery_and_each_request_has_a_line_without_text(stack: StackProcess) -> None:
    token = stack.keys.user_token("player", player_id=29)
    with (
        stack.worker(GRE_ACCESS_LOG="1") as worker,
        httpx.Client(base_url=worker.url, timeout=60, trust_env=False, verify=NO_TLS) as api,
    ):
        own = {"Authorization": f"Bearer {token}"}
        sent = api.post("/api/gre-chat/send", json={"message": "whispered words"}, headers=own).json()
        api.post(
            "/api/gre-chat/send",
            json={"message": "whispered words"},
            headers={"Authorization": "Bearer a.b.c"},
        )
        api.get("/nowhere?token=whispered", headers={"X-Request-Id": "mine"})
        api.request("BREW", "/healthz")
        api.get(
            "/ws",
            headers={
                "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "https://elsewhere.example",
            },
        )  # fmt: skip
        stack.drained()

        def lines(event: str, **like: Any) -> list[dict[str, Any]]:
            found = [json.loads(line) for line in worker.log.read_text().splitlines()]
            return [one for one in found if one["event"] == event and like.items() <= one.items()]

        for sink in ("pusher", "onesignal"):
            (delivered,) = wait_until(
                lambda sink=sink: lines("delivered", sink=sink, event_name="message"), what="a line"
            )
            message = sent["message"]
            assert (
                delivered.items()
                >= {"message": message["id"], "session": message["session_id"], "seq": 1}.items()
            )
            assert delivered["ms"] >= 0 and delivered["delivery"] and delivered["process"] == "relay"
        wait_until(lambda: lines("request", status=403), what="the last line")
        (good,) = lines("request", status=201)
        assert good.items() >= {"method": "POST", "route": "/api/gre-chat/send", "role": "player"}.items()
        assert good["request_id"] and good["ms"] > 0
        assert lines("request", status=401, route="/api/gre-chat/send")
        assert lines("request", status=404, route="none", request_id="mine", role="none")
        assert lines("request", status=405, method="other")
        assert lines("request", status=403, method="WEBSOCKET", route="/ws")
        assert (
            worker.metric("gre_http_requests_total", route="/api/gre-chat/send", status="201", method="POST")
            == 1
        )
        assert worker.metric("gre_http_request_seconds_count", route="/api/gre-chat/send") == 2
        assert worker.metric("gre_database_request_seconds_count", process="relay") > 0
        assert worker.metric("gre_database_request_seconds_count", process="api") > 0
    text = worker.log.read_text()
    assert "whispered" not in text and token not in text


def test_at_level_info_deliveries_and_requests_have_no_lines(stack: StackProcess) -> None:
    with stack.worker() as worker:
        HTTP.get(f"{worker.url}/nowhere")
        stack.insert(player_id=29, sender="player", message="hello")
        stack.drained()
    assert '"request"' not in worker.log.read_text() and '"delivered"' not in worker.log.read_text()


@pytest.mark.parametrize(
    ("code", "status", "words", "ready"),
    [
        ("25006", 405, "the database is read-only", 200),
        ("PGRST003", 504, "are all taken by other queries", 503),
    ],
)
def test_the_reason_why_the_database_cannot_work_is_reported(
    stack: StackProcess, code: str, status: int, words: str, ready: int
) -> None:
    with stack.worker() as worker:
        body = json.dumps({"code": code, "message": "x", "details": None, "hint": None})
        # A read-only database answers calls that only read.
        claims = (
            {"path": "/rest/v1/rpc/gre_relay_", "match": "p_per_lane"}
            if ready == 200
            else {"path": "/rest/v1/rpc"}
        )
        stack.fault("rest", {"mode": "status", "status": status, "body": body, **claims})
        stack.insert(player_id=29, sender="player", message="hello")
        told = wait_until(
            lambda: words in (answer := HTTP.get(f"{worker.admin_url}/readyz")).text and answer,
            what="/readyz to say so",
        )
        assert told.status_code == ready
        stack.fault("rest", None)
        stack.drained()


@pytest.mark.parametrize(
    "path", ["/healthz", "/api/gre-chat/health", "/console", "/api/gre-chat/messages/29"]
)
def test_head_is_answered_like_get_without_a_body(stack_process: StackProcess, head: str, path: str) -> None:
    own = {"Authorization": f"Bearer {stack_process.keys.user_token('player', player_id=29)}"}
    got, headed = (HTTP.request(method, head + path, headers=own, timeout=60) for method in ("GET", "HEAD"))
    assert (headed.status_code, headed.content) == (got.status_code, b"") == (200, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]


@pytest.fixture(scope="module")
def head(stack_process: StackProcess) -> Iterator[str]:
    """The address of an API."""
    stack_process.reset()
    with stack_process.worker("api") as worker:
        yield worker.url
