"""The faults: context managers that begin a fault when entered and end it when left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt

from tests.chaos.load import MARK
from tests.chaos.scene import Fault, Scene
from tests.chaos.tcp_proxy import TcpProxy
from tests.chaos.watch import SINKS
from tests.support.waiting import wait_until

SETTLE = {"path": "/rest/v1/rpc/gre_relay_", "match": "p_results"}
CLAIM = {"path": "/rest/v1/rpc/gre_relay_", "match": "p_per_lane"}
"""Calls with a settle or a claim in them: alone, or several as one."""
EMPTY_CODE = '{"code":"","details":null,"hint":null,"message":""}'
NO_CONNECTION = '{"code":"PGRST001","details":"no connection to the server\\n","hint":null,"message":"Database client error. Retrying the connection."}'
GATEWAY_PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"


# Services -----------------------------------------------------------------------------------------------------


def service(*names: str, **rule: Any) -> Fault:
    """A rule of /__stack/faults for one or more services."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        for name in names:
            scene.stack.fault(name, rule)
        yield
        for name in names:
            scene.stack.fault(name, None)

    return fault


def marked(*names: str, **rule: Any) -> Fault:
    """A rule for marked messages only; their sessions are the affected ones."""
    whole = service(*names, match=f'"{MARK}' if names == ("onesignal",) else MARK, **rule)

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        with whole(scene):
            yield
        with scene.stack.db() as conn:
            rows = conn.execute(
                "select id::text from gre_chat_sessions where player_id = any (%s)", [list(scene.marked)]
            ).fetchall()
        scene.affected |= {row["id"] for row in rows}

    return fault


def realtime(drop: bool = True, **flags: Any) -> Fault:
    """Faults of Realtime; with `drop` its sockets are closed first, so that the worker reconnects during the fault."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.stack.fault("realtime", flags)
        if drop:
            scene.stack.fault("realtime", {"action": "close_all", "code": 1006})
        yield
        scene.stack.fault("realtime", None)

    return fault


def action(name: str, body: dict[str, Any], *, after: dict[str, Any] | None = None) -> Fault:
    """An action of the stack, and another one that ends its effect."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.stack.fault(name, body)
        yield
        if after:
            scene.stack.fault(name, after)

    return fault


@contextlib.contextmanager
def backend_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL for one backend of PostgreSQL: the postmaster ends all others and recovers from the WAL."""
    with scene.stack.db() as conn:
        row = conn.execute(
            "select pid from pg_stat_activity where usename = 'authenticator' order by backend_start limit 1"
        ).fetchone()
    assert row is not None
    os.kill(row["pid"], signal.SIGKILL)
    yield


@contextlib.contextmanager
def token_expires(scene: Scene) -> Iterator[None]:
    """The worker's key expires while it is joined; then it is started again with a new one."""
    now = int(time.time())
    ends = now + 25
    claims = {"role": "service_role", "iat": now, "exp": ends}
    token = jwt.encode(claims, scene.stack.keys.jwt_secret, "HS256")
    old, ending = scene.workers[0], scene.worker(ready=False, SUPABASE_SERVICE_KEY=token)
    scene.until_live(ending)
    scene.check(old.stop() == 0, "SIGTERM: exit status is not 0")
    wait_until(lambda: time.time() > ends, 30, what="the end of the token")
    scene.broken_at = time.time()
    yield
    scene.workers = [scene.worker()]
    scene.until_live(scene.workers[0])
    scene.check(ending.stop() == 0, "SIGTERM: exit status is not 0")


def clock_steps(seconds: int) -> Fault:
    """A step of the database's clock: every stored time is shifted in the other direction."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        moved = f"interval '{-seconds} seconds'"
        with scene.stack.db() as conn:
            conn.execute(
                f"update gre_relay_lanes set ready_at = ready_at + {moved}, lease_until = lease_until + {moved}"
            )
        yield

    return fault


# Workers ------------------------------------------------------------------------------------------------------


def _progress(scene: Scene, messages: int) -> None:
    """Wait until so many more messages have arrived."""
    goal = scene.arrived() + messages
    wait_until(lambda: scene.arrived() >= goal, 120, 0.002, what="progress")


@contextlib.contextmanager
def killed_at_random(scene: Scene) -> Iterator[None]:
    """SIGKILL at three random moments, each followed by a start."""
    rng = random.Random()
    worker = scene.workers[0]
    for _ in range(3):
        _progress(scene, rng.randint(5, 30))
        worker.kill()
        worker.start(ready=False)
    yield
    scene.until_live(worker)


def process_killed(name: str) -> Fault:
    """SIGKILL for one of a daemon's two processes, three times."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        worker = scene.workers[0]
        for _ in range(3):
            _progress(scene, 10)
            gone = worker.pids[name]
            os.kill(gone, signal.SIGKILL)
            wait_until(lambda gone=gone: worker.pids.get(name, gone) != gone, what="a new process")  # type: ignore[misc]
        yield
        scene.until_live(worker)

    return fault


@contextlib.contextmanager
def killed_before_settle(scene: Scene) -> Iterator[None]:
    """Settles hang, so that sent deliveries stay unsettled; then SIGKILL."""
    scene.stack.fault("rest", {"mode": "hang", **SETTLE})
    _progress(scene, 10)
    scene.workers[0].kill()
    scene.stack.fault("rest", None)
    yield
    scene.workers[0].start(ready=False)
    scene.until_live(scene.workers[0])


@contextlib.contextmanager
def one_of_two_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL for one of two workers while it sends; the other continues."""
    _signal_one(scene, signal.SIGKILL)
    worker = scene.workers.pop(0)
    worker.kill()
    yield


@contextlib.contextmanager
def one_of_two_paused(scene: Scene) -> Iterator[None]:
    """SIGSTOP for longer than a lease, then SIGCONT: the worker does not know that its leases expired."""
    _signal_one(scene, signal.SIGSTOP)
    yield
    scene.workers[0].signal(signal.SIGCONT)


def _signal_one(scene: Scene, number: signal.Signals) -> None:
    """Signal one of two workers while it holds lanes: their sessions are the affected ones."""
    with _slow_sinks(scene):
        wait_until(lambda: len(scene.leased()) >= 4, 120, 0.01, what="lanes in hand")
        scene.workers[0].signal(number)
        scene.broken_at = scene.healed_at = time.time()
    scene.affected |= scene.orphaned(after=0.9)
    scene.check(scene.affected, "it held no lanes")


@contextlib.contextmanager
def _slow_sinks(scene: Scene) -> Iterator[None]:
    """Slow answers: both workers hold lanes at any moment, and one alone can carry the load."""
    for sink in SINKS:
        scene.stack.fault(sink, {"delay": 0.15})
    scene.hold(0.6)
    yield
    for sink in SINKS:
        scene.stack.fault(sink, None)


@contextlib.contextmanager
def terminated(scene: Scene) -> Iterator[None]:
    """SIGTERM under load: work in flight is settled, leases are released; later a new worker starts."""
    began = time.monotonic()
    scene.check(scene.workers[0].stop(20) == 0, "SIGTERM: exit status is not 0")
    scene.check(time.monotonic() - began < 12, "SIGTERM: took longer than GRE_DRAIN_SECONDS and 2 s")
    scene.check(not scene.leased(), "SIGTERM: left leases behind")
    yield
    scene.workers[0].start(ready=False)
    scene.until_live(scene.workers[0])


@contextlib.contextmanager
def terminated_twice(scene: Scene) -> Iterator[None]:
    """SIGTERM while a sink hangs, and a second one, which ends the worker at once; its leases expire."""
    scene.stack.fault("pusher", {"mode": "hang"})
    wait_until(scene.leased, 60, 0.01, what="lanes in hand")
    worker = scene.workers[0]
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in scene.problems_reported(worker), what="stopping in /readyz")
    scene.check(worker.process and worker.process.poll() is None, "SIGTERM: did not wait for work in flight")
    began = time.monotonic()
    worker.stop(10)
    scene.check(time.monotonic() - began < 5, "a second SIGTERM did not end it at once")
    scene.stack.fault("pusher", None)
    yield
    worker.start(ready=False)
    scene.until_live(worker)


# The network --------------------------------------------------------------------------------------------------


def network(*names: str, breaks: Callable[[TcpProxy], None]) -> Fault:
    """A fault of the connections to these services."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        for name in names:
            breaks(scene.proxies[name])
        yield
        for name in names:
            scene.proxies[name].heal()

    return fault
