"""The cases of files: what is broken while people upload and send them. See `cases` for the times."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import psutil

from tests.chaos import breaking as b
from tests.chaos.cases import Case
from tests.chaos.scene import Fault, Scene
from tests.chaos.watch import SINKS
from tests.support.waiting import let_pass, wait_until

READY = 60.0
"""Files that failed twice wait for 5 s and 10 s, behind them those that were uploaded meanwhile; the rest is for a busy machine."""
CONSTANTS = {
    "gre_bridge.jobs.media.INTERVAL": 0.5,
    "gre_bridge.jobs.media.DEBOUNCE": 0.2,
    "gre_bridge.jobs.media.LEASE": 5.0,
    "gre_bridge.jobs.media.EXTEND": 1.0,
    "gre_bridge.jobs.deletions.INTERVAL": 0.5,
    "gre_bridge.jobs.deletions.LEASE": 5.0,
    "gre_bridge.storage.client.STALL": 3.0,
    "gre_bridge.storage.client.TRANSFER": 3.0,
}
"""Leases and intervals that a case can wait for."""
_ENV = {"GRE_LEASE_SECONDS": "3", "GRE_REQUEST_TIMEOUT": "2"}
_BY_WORKER = {"path": "/object/gre-chat/", "methods": ["POST"]}
"""The worker's uploads: people upload over signed addresses, or in parts."""
_DECODER = "gre_bridge.media.decoder"

Step = tuple[str, str, dict[str, Any]]
STEPS: tuple[Step, ...] = (
    ("an announcement", "rest", {"mode": "hang", "path": "/rest/v1/rpc/gre_attachment_begin"}),
    ("an upload", "storage", {"mode": "hold", "path": "/object/upload/sign/", "methods": ["PUT"]}),
    ("a claim that is not answered", "rest", {"mode": "stall", "path": "/rest/v1/rpc/gre_media_claim_v1"}),
    ("a download", "storage", {"mode": "silent", "path": "/object/authenticated/", "methods": ["GET"]}),
    ("the upload of a view", "storage", {"mode": "hold", **_BY_WORKER}),
    ("an uploaded view", "storage", {"mode": "lose_answer", **_BY_WORKER}),
    ("a result", "rest", {"mode": "hang", "path": "/rest/v1/rpc/gre_media_settle_v1"}),
    ("a result that is stored", "rest", {"mode": "stall", "path": "/rest/v1/rpc/gre_media_settle_v1"}),
    ("a deletion", "storage", {"mode": "silent", "path": "/object/gre-chat", "methods": ["DELETE"]}),
    ("a deleted object", "storage", {"mode": "lose_answer", "path": "/object/gre-chat", "methods": ["DELETE"]}),
    ("deletions to be settled", "rest", {"mode": "hang", "path": "/rest/v1/rpc/gre_storage_deletions_settle_v1"}),
)  # fmt: skip
"""Where a worker is killed: the fault that one request meets, and which shows that it is there."""


def _met(scene: Scene, service: str) -> bool:
    """Return True if the only fault of a service has met its one request (and holds it, if that is its mode)."""
    rules = scene.stack.http.get("/__stack/faults").raise_for_status().json()[service]
    return all(rule.get("held") for rule in rules)


@contextlib.contextmanager
def killed_at_each_step(scene: Scene) -> Iterator[None]:
    """SIGKILL for the whole daemon in the middle of each step of a file's way, then a start."""
    worker = scene.workers[0]
    for what, service, rule in STEPS:
        scene.stack.fault(service, {**rule, "times": 1})
        wait_until(lambda service=service: _met(scene, service), 60, 0.01, what=f"{what} in hand")  # type: ignore[misc]
        worker.kill()
        scene.stack.fault(service, None)
        worker.start(ready=False)
        scene.until_live(worker)
    wait_until(lambda: _decoders(scene), 60, 0.01, what="a decoder at work")
    worker.kill()
    scene.check(not _decoders(scene), "a killed daemon left its decoder behind")
    worker.start(ready=False)
    yield
    scene.until_live(worker)


def _decoders(scene: Scene) -> list[psutil.Process]:
    found = []
    for process in scene.workers[0].all():
        with contextlib.suppress(psutil.Error):
            if _DECODER in process.cmdline():
                found.append(process)
    return found


@contextlib.contextmanager
def decoders_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL for the decoder of three files, as a kernel without memory would."""
    for _ in range(3):
        wait_until(lambda: _decoders(scene), 60, 0.005, what="a decoder at work")
        for process in _decoders(scene):
            with contextlib.suppress(psutil.Error):
                process.kill()
    yield


def started_with(**env: str) -> Fault:
    """The worker is started with other variables, afterwards with its own again."""

    @contextlib.contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        own = scene.workers[0]
        scene.check(own.stop(20) == 0, "SIGTERM: exit status is not 0")
        other = scene.worker(ready=False, **env)
        scene.until_live(other)
        scene.workers = [other]
        yield
        scene.check(other.stop(20) == 0, "SIGTERM: exit status is not 0")
        scene.workers = [own]
        own.start(ready=False)
        scene.until_live(own)

    return fault


@contextlib.contextmanager
def stack_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL for the process of Storage, PostgREST, Realtime and both sinks; PostgreSQL ends with it.

    The worker is stopped for a moment before, because what the sinks have received is lost with them.
    """
    worker = scene.workers[0]
    worker.signal(signal.SIGSTOP)
    let_pass(0.5, "requests in flight arrive")
    scene.watch.read()
    scene.stack.kill()
    worker.signal(signal.SIGCONT)
    let_pass(2.0, "everything is away")
    scene.stack.start_again()
    scene.watch.begin_again()
    yield
    scene.until_live(worker)


@contextlib.contextmanager
def scanner_absent(scene: Scene) -> Iterator[None]:
    """Clamd accepts no connection."""
    scene.proxies["scanner"].unplug()
    yield
    scene.proxies["scanner"].heal()


def _case(name: str, description: str, fault: Fault, lasts: float, **more: Any) -> Case:
    more = {"recovers": 12.0, "files": READY} | more
    return Case(
        name=f"files-{name}", description=description, fault=fault, lasts=lasts, rate=20.0, env=_ENV,
        constants=CONSTANTS, **more,
    )  # fmt: skip


def _storage(name: str, description: str, lasts: float = 6.0, **rule: Any) -> Case:
    return _case(name, description, b.service("storage", **rule), lasts, bystanders=dict.fromkeys(SINKS, 1.5))


_BOTH = frozenset(SINKS)
FILE_CASES: tuple[Case, ...] = (
    _storage("storage-503", "Storage answers 503", mode="refused", status=503),
    _storage("storage-slow", "Storage takes and gives a piece of a file each 0.2 s", mode="slow", delay=0.2),
    _storage("storage-cut", "Storage closes each connection after 50 kB", mode="cut", bytes=50_000),
    _storage("storage-silent", "Storage takes every request and answers none", mode="silent"),
    _storage("storage-answer-lost", "Storage does what it is asked, and its answers are lost", mode="lose_answer"),
    _case(
        "stack-killed", "Storage, PostgREST, Realtime and the sinks are killed (SIGKILL) for 2 s, PostgreSQL ends with them",
        stack_killed, 0.0, recovers=20.0, repeats=_BOTH,
    ),
    _case(
        "postgres-killed", "a backend of PostgreSQL is killed (SIGKILL): all backends end, and PostgreSQL recovers",
        b.backend_killed, 0.5, repeats=frozenset({"pusher"}),
    ),
    _case(
        "worker-killed", f"the worker is killed (SIGKILL) {len(STEPS) + 1} times: in the middle of each step of a file's way",
        killed_at_each_step, 0.0, repeats=_BOTH,
    ),
    _case("decoder-killed", "the decoder is killed (SIGKILL) three times, as without memory", decoders_killed, 0.0),
    _case(
        "decoder-absent", "the worker is started without a decoder, for 6 s", started_with(GRE_MEDIA="off"), 6.0,
    ),
    _case("scanner-absent", "clamd accepts no connection for 6 s", scanner_absent, 6.0, scanned=True),
)  # fmt: skip
