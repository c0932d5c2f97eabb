"""What a fault is let loose on: the stack, its workers, the wires between them, the writers and what arrived.

A fault is a context manager over a scene: it breaks, the runner waits for as long as the case says, it heals.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import httpx

from tests.chaos.load import MARK, Load, Sent
from tests.chaos.watch import SINKS, Watch
from tests.chaos.wire import Wire
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

Fault = Callable[["Scene"], AbstractContextManager[None]]
WIRES = ("supabase", *SINKS)
ENOUGH = 15
"""Messages that have to be as quick as ever before all is well."""


class Scene:
    """One stack with its workers; `wired` puts wires between them, which `wires` has by name."""

    def __init__(
        self,
        stack: StackProcess,
        *,
        workers: int = 1,
        env: dict[str, str] | None = None,
        wired: bool = False,
        marked: frozenset[int] = frozenset(),
        rate: float = 36.0,
    ) -> None:
        self.stack = stack
        self.wires: dict[str, Wire] = {}
        self.env = dict(env or {})
        self._count = workers
        self._wired = wired
        self.workers: list[Worker] = []
        self.every: list[Worker] = []
        """Those that have gone, too: for their logs."""
        self.marked = marked
        self.load = Load(stack, marked=marked, rate=rate)
        self.watch = Watch(stack)
        self.problems: list[str] = []
        self.concerned: set[str] = set()
        """Sessions that the fault is aimed at; all others are bystanders."""
        self.broken_at = self.healed_at = self.over_at = 0.0
        """Unix seconds; `healed_at` is where recovery is counted from, the fault itself may end later (`over_at`)."""
        self.deaf_until = 0.0
        """Unix seconds: when a worker was last seen without wake-ups."""
        self._exits = contextlib.ExitStack()
        self._read = 0
        self._waiting: list[Sent] = []
        self._latest: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            if self._wired:
                host, port = self.stack.url.removeprefix("http://").split(":")
                self.wires = {name: exits.enter_context(Wire(host, int(port))) for name in WIRES}
                self.env |= {
                    "SUPABASE_URL": f"http://127.0.0.1:{self.wires['supabase'].port}",
                    "PUSHER_PORT": str(self.wires["pusher"].port),
                    "ONESIGNAL_API_URL": f"http://127.0.0.1:{self.wires['onesignal'].port}/onesignal",
                }
            exits.callback(self._clear_away)
            self.workers = [self.worker(ready=False) for _ in range(self._count)]
            for worker in self.workers:
                self.until_live(worker)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def _clear_away(self) -> None:
        self.load.stop()
        for worker in self.every:
            worker.kill()
        self.stack.http.delete("/__stack/faults").raise_for_status()

    def worker(self, *, ready: bool = True, **changes: str) -> Worker:
        """Start one more worker."""
        worker = self.stack.worker(**{**self.env, **changes})
        self.every.append(worker)
        return worker.start(ready=ready)

    def until_live(self, worker: Worker, within: float = 30.0) -> None:
        """Wait until a worker relays and hears wake-ups."""
        wait_until(worker._ready, within, what="a worker that is ready")
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, within, what="a live feed")

    def check(self, good: object, problem: str) -> None:
        """Note a problem unless all is well."""
        if not good:
            self.problems.append(problem)

    def hold(self, seconds: float) -> None:
        """Let time pass under load while something is broken."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            let_pass(min(left, 0.25), "between two samples")
            self.watch.look()

    def arrived(self, sink: str = "pusher") -> int:
        """How many messages a sink has taken so far."""
        self.watch.look()
        return len(self.watch.seen[sink].first)

    def leased(self) -> dict[tuple[str, str], Any]:
        """Lanes that are leased now: (sink, lane) to token."""
        with self.stack.db() as conn:
            rows = conn.execute(
                "select sink, lane_key, lease_token from gre_relay_lanes"
                " where lease_token is not null and lease_until > clock_timestamp()"
            ).fetchall()
        return {(row["sink"], row["lane_key"]): row["lease_token"] for row in rows}

    def orphaned(self, after: float) -> set[str]:
        """Lanes of a worker that does nothing any more: still under the same token after so many seconds."""
        before = self.leased()
        self.hold(after)
        now = self.leased()
        return {lane for (sink, lane), token in before.items() if now.get((sink, lane)) == token}

    def problems_told(self, worker: Worker) -> str:
        """What /readyz says is wrong, sinks included; empty when it says that all is well, or nothing."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(f"{worker.admin_url}/readyz", timeout=3)
            told = answer.json()
            self.check(
                answer.status_code == (503 if told["problems"] else 200), "/readyz: status and words differ"
            )
            sinks = [
                f"{s['sink']}: {s['error'] or s['breaker']}"
                for s in told["sinks"]
                if s["error"] or s["breaker"] != "closed"
            ]
            return "; ".join([*told["problems"], *told["warnings"], *sinks])
        return ""

    def calm(self, within: float, *, since: float = 0.0, window: float = 1.0) -> bool:
        """Whether all that was sent has arrived, and what was sent last, as quickly as ever.

        That is, 9 in 10 within `within` seconds; `since` is the time (Unix seconds) from which on it counts.
        """
        self.watch.look()
        now = time.time()
        news = self.load.sent[self._read :]
        self._read += len(news)
        self._waiting += [one for one in news if one.session and not one.id.startswith(MARK)]
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            times = [self.watch.arrival(sink, one.id, one.session, one.seq) for sink in SINKS]
            if None in times:
                self._waiting.append(one)
            else:
                self._latest.append((one.at, max(at for at in times if at is not None) - one.at))
        overdue = any(one.at < now - within - window for one in self._waiting)
        since = max(since, now - within - window)
        self._latest = [(at, took) for at, took in self._latest if at > since]
        quick = [took <= within for at, took in self._latest if at < now - within]
        return not overdue and len(quick) >= ENOUGH and sum(quick) >= 0.9 * len(quick)
