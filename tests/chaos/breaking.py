"""The faults: each breaks something when it is entered and heals it when it is left."""

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
from tests.chaos.watch import SINKS
from tests.chaos.wire import Wire
from tests.support.waiting import wait_until

SETTLE = {"path": "/rest/v1/rpc/gre_relay_", "match": "p_results"}
CLAIM = {"path": "/rest/v1/rpc/gre_relay_", "match": "p_per_lane"}
"""Calls with a settle or a claim in them: alone, or several as one."""
EMPTY_CODE = '{"code":"","details":null,"hint":null,"message":""}'
NO_CONNECTION = '{"code":"PGRST001","details":"no connection to the server\\n","hint":null,"message":"Database client error. Retrying the connection."}'
GATEWAY_PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"


# What answers wrongly -----------------------------------------------------------------------------------------


def face(*names: str, **rule: Any) -> Fault:
    """A rule of /__stack/faults at one or more faces."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        for name in names:
            scene.stack.fault(name, rule)
        yield
        for name in names:
            scene.stack.fault(name, None)

    return fault


def marked(*names: str, **rule: Any) -> Fault:
    """A rule that meets marked messages only; their sessions are the concerned ones."""
    whole = face(*names, match=f'"{MARK}' if names == ("onesignal",) else MARK, **rule)

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        with whole(scene):
            yield
        with scene.stack.db() as conn:
            rows = conn.execute(
                "select id::text from gre_chat_sessions where player_id = any (%s)", [list(scene.marked)]
            ).fetchall()
        scene.concerned |= {row["id"] for row in rows}

    return fault


def realtime(drop: bool = True, **flags: Any) -> Fault:
    """Realtime misbehaves; with `drop` its sockets go first, so that the worker meets it when it comes back."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.stack.fault("realtime", flags)
        if drop:
            scene.stack.fault("realtime", {"action": "close_all", "code": 1006})
        yield
        scene.stack.fault("realtime", None)

    return fault


def action(name: str, what: dict[str, Any], *, after: dict[str, Any] | None = None) -> Fault:
    """Something that the stack does once, and perhaps something else that heals it."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.stack.fault(name, what)
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
    """The worker's key runs out while it is joined; a person gives it a new one and starts it again."""
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
    """The database's clock steps by so much: every time it wrote down is as far off, in the other direction."""

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
    """Wait until so many more have arrived."""
    goal = scene.arrived() + messages
    wait_until(lambda: scene.arrived() >= goal, 40, 0.002, what="progress")


@contextlib.contextmanager
def killed_at_random(scene: Scene) -> Iterator[None]:
    """SIGKILL in three random moments, each time with a new start."""
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
            wait_until(lambda gone=gone: worker.pids.get(name, gone) != gone, 20, what="a new process")  # type: ignore[misc]
        yield
        scene.until_live(worker)

    return fault


@contextlib.contextmanager
def killed_before_settle(scene: Scene) -> Iterator[None]:
    """Settles hang, so that what was sent stays unsettled; then SIGKILL."""
    scene.stack.fault("rest", {"mode": "hang", **SETTLE})
    _progress(scene, 10)
    scene.workers[0].kill()
    scene.stack.fault("rest", None)
    yield
    scene.workers[0].start(ready=False)
    scene.until_live(scene.workers[0])


@contextlib.contextmanager
def one_of_two_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL for one of two workers in the middle of its sends; the other goes on."""
    _halt_one(scene, signal.SIGKILL)
    worker = scene.workers.pop(0)
    worker.kill()
    yield


@contextlib.contextmanager
def one_of_two_paused(scene: Scene) -> Iterator[None]:
    """SIGSTOP for longer than a lease, then SIGCONT: a worker that does not know how late it is."""
    _halt_one(scene, signal.SIGSTOP)
    yield
    scene.workers[0].signal(signal.SIGCONT)


def _halt_one(scene: Scene, number: signal.Signals) -> None:
    """Signal one of two workers while it holds lanes: these are the concerned sessions."""
    with _slow_sinks(scene):
        wait_until(lambda: len(scene.leased()) >= 4, 30, 0.01, what="lanes in hand")
        scene.workers[0].signal(number)
        scene.broken_at = scene.healed_at = time.time()
    scene.concerned |= scene.orphaned(after=0.9)
    scene.check(scene.concerned, "it had nothing in hand")


@contextlib.contextmanager
def _slow_sinks(scene: Scene) -> Iterator[None]:
    """Answers that take a while: at any moment both workers hold lanes, and one can carry it alone."""
    for sink in SINKS:
        scene.stack.fault(sink, {"delay": 0.15})
    scene.hold(0.6)
    yield
    for sink in SINKS:
        scene.stack.fault(sink, None)


@contextlib.contextmanager
def terminated(scene: Scene) -> Iterator[None]:
    """SIGTERM under load: what is in flight is settled, leases are handed back; later a new worker starts."""
    began = time.monotonic()
    scene.check(scene.workers[0].stop(20) == 0, "SIGTERM: exit status is not 0")
    scene.check(time.monotonic() - began < 12, "SIGTERM: took longer than GRE_DRAIN_SECONDS and 2 s")
    scene.check(not scene.leased(), "SIGTERM: left leases behind")
    yield
    scene.workers[0].start(ready=False)
    scene.until_live(scene.workers[0])


@contextlib.contextmanager
def terminated_twice(scene: Scene) -> Iterator[None]:
    """SIGTERM while a sink hangs, and again: the second ends it at once; its leases have to run out."""
    scene.stack.fault("pusher", {"mode": "hang"})
    wait_until(scene.leased, 10, 0.01, what="lanes in hand")
    worker = scene.workers[0]
    worker.signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in scene.problems_told(worker), 5, what="/readyz to say that it stops")
    scene.check(
        worker.process and worker.process.poll() is None, "SIGTERM: did not wait for what is in flight"
    )
    began = time.monotonic()
    worker.stop(10)
    scene.check(time.monotonic() - began < 5, "a second SIGTERM did not end it at once")
    scene.stack.fault("pusher", None)
    yield
    worker.start(ready=False)
    scene.until_live(worker)


# The network --------------------------------------------------------------------------------------------------


def wire(*names: str, breaks: Callable[[Wire], None]) -> Fault:
    """Something happens to the wires of these names."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        for name in names:
            breaks(scene.wires[name])
        yield
        for name in names:
            scene.wires[name].heal()

    return fault
