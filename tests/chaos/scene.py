"""The environment of a case: the stack, its workers, the proxies between them, the writers and the arrivals.

A fault is a context manager over a scene: it begins, the runner waits for the duration of the case, it ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import httpx

from tests.chaos.load import MARK, Load, Sent
from tests.chaos.scanner import scanner
from tests.chaos.senders import Senders
from tests.chaos.tcp_proxy import TcpProxy
from tests.chaos.watch import SINKS, Watch
from tests.support.loopback import HTTP
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

Fault = Callable[["Scene"], AbstractContextManager[None]]
PROXIES = ("supabase", *SINKS)
QUICK_MESSAGES = 15
"""Number of quick messages after which the flow is normal."""


class Scene:
    """One stack with its workers; with `proxied` they connect through `proxies`, which has them by name."""

    def __init__(
        self,
        stack: StackProcess,
        *,
        workers: int = 1,
        env: dict[str, str] | None = None,
        proxied: bool = False,
        marked: frozenset[int] = frozenset(),
        rate: float = 36.0,
        constants: Mapping[str, float] | None = None,
        scanned: bool = False,
        files: float = 0.0,
    ) -> None:
        self.stack = stack
        self.proxies: dict[str, TcpProxy] = {}
        self.env = dict(env or {})
        self._constants = constants
        self._scanned = scanned
        self._count = workers
        self._proxied = proxied
        self.workers: list[Worker] = []
        self.started: list[Worker] = []
        """All workers, ended ones included: for their logs."""
        self.marked = marked
        self.load = Load(stack, marked=marked, rate=rate)
        self.senders = Senders(stack, self.load.sent, rate=files)
        self.watch = Watch(stack)
        self.problems: list[str] = []
        self.affected: set[str] = set()
        """Sessions that the fault affects; all others are bystanders."""
        self.broken_at = self.healed_at = self.over_at = 0.0
        """Unix seconds; recovery is measured from `healed_at`, the fault itself may end later (`over_at`)."""
        self.no_wakeups_until = 0.0
        """Unix seconds of the last sample with a worker that received no wake-ups."""
        self._exits = contextlib.ExitStack()
        self._read = 0
        self._waiting: list[Sent] = []
        self._latest: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            if self._proxied:
                host, port = self.stack.url.removeprefix("http://").split(":")
                self.proxies = {name: exits.enter_context(TcpProxy(host, int(port))) for name in PROXIES}
                self.env |= {
                    "SUPABASE_URL": f"http://127.0.0.1:{self.proxies['supabase'].port}",
                    "PUSHER_PORT": str(self.proxies["pusher"].port),
                    "ONESIGNAL_API_URL": f"http://127.0.0.1:{self.proxies['onesignal'].port}/onesignal",
                }
            if self._scanned:
                self.proxies["scanner"] = exits.enter_context(scanner())
                self.env["GRE_CLAMD_ADDRESS"] = f"tcp://127.0.0.1:{self.proxies['scanner'].port}"
            exits.callback(self._clean_up)
            self.workers = [self.worker(ready=False) for _ in range(self._count)]
            for worker in self.workers:
                self.until_live(worker)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def _clean_up(self) -> None:
        self.load.stop()
        self.senders.stop()
        for worker in self.started:
            worker.kill()
        self.stack.http.delete("/__stack/faults").raise_for_status()

    def worker(self, *, ready: bool = True, **changes: str) -> Worker:
        """Start one more worker."""
        worker = self.stack.worker(constants=self._constants, **{**self.env, **changes})
        self.started.append(worker)
        return worker.start(ready=ready)

    def until_live(self, worker: Worker, within: float = 60.0) -> None:
        """Wait until a worker relays and receives wake-ups."""
        wait_until(worker._ready, within, what="a worker that is ready")
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, within, what="live")

    def check(self, good: object, problem: str) -> None:
        """Record the problem if not `good`."""
        if not good:
            self.problems.append(problem)

    def hold(self, seconds: float) -> None:
        """Let time pass under load during a fault."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            let_pass(min(left, 0.25), "between two samples")
            self.watch.read()

    def arrived(self, sink: str = "pusher") -> int:
        """The number of messages that a sink has received."""
        self.watch.read()
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
        """Lanes of a worker that does not work: still leased under the same token after so many seconds."""
        before = self.leased()
        self.hold(after)
        now = self.leased()
        return {lane for (sink, lane), token in before.items() if now.get((sink, lane)) == token}

    def problems_reported(self, worker: Worker) -> str:
        """The problems that /readyz reports, sinks included; empty if there are none or it does not answer."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = HTTP.get(f"{worker.admin_url}/readyz", timeout=3)
            report = answer.json()
            self.check(
                answer.status_code == (503 if report["problems"] else 200),
                "/readyz: status and problems differ",
            )
            sinks = [
                f"{s['sink']}: {s['error'] or s['breaker']}"
                for s in report["sinks"]
                if s["error"] or s["breaker"] != "closed"
            ]
            return "; ".join([*report["problems"], *report["warnings"], *sinks])
        return ""

    def calm(self, within: float, *, since: float = 0.0, window: float = 1.0) -> bool:
        """Return True if all messages have arrived, 9 in 10 of the latest within `within` seconds.

        Messages since `since` (Unix seconds) count.
        """
        self.watch.read()
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
        return not overdue and len(quick) >= QUICK_MESSAGES and sum(quick) >= 0.9 * len(quick)
