"""The common part of both processes: database, registration, Realtime, admin port, signals and stop.

A configuration error ends the start with one line. Conditions that may end by themselves (Supabase unavailable, pending
migrations) are waited for, and `/readyz` names them. On SIGTERM the work in flight is finished within
`GRE_DRAIN_SECONDS`. A process may be killed at any point without losing a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import structlog

from gre_bridge import __version__
from gre_bridge.config.settings import Settings
from gre_bridge.daemon import signals
from gre_bridge.daemon.admin_server import AdminServer
from gre_bridge.daemon.health import ProcessHealth, ProcessName, database_timeout
from gre_bridge.daemon.link import Link
from gre_bridge.daemon.listeners import Listeners
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.daemon.reports import Reports
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json, NewRow
from gre_bridge.logging import LOGS
from gre_bridge.metrics import Metrics
from gre_bridge.realtime.subscription import Subscription, SubscriptionState, Timing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The environment of a process, created by its starter."""

    settings: Settings
    listeners: Listeners
    reports: Reports
    link: Link | None = None
    """The connection to the other process, or None."""

    @property
    def alone(self) -> bool:
        """True if this process is the whole daemon."""
        return self.link is None


class DaemonProcess(ABC):
    """One process. `run` returns after a graceful stop."""

    name: ClassVar[ProcessName]
    health: ProcessHealth

    def __init__(self, context: ProcessContext) -> None:
        """Connect nothing yet. Raises ConfigurationError if the settings leave this process without work."""
        self._context = context
        self._settings = context.settings
        self._reports = context.reports
        self._link = context.link
        self._stop = asyncio.Event()
        self.metrics = Metrics(LOGS)

    @abstractmethod
    async def _work(self, store: RelayDatabase) -> None:
        """Work until the stop, then finish the work in flight."""

    @abstractmethod
    def _make_registration(self, database: DatabaseStatus) -> WorkerRegistration:
        """Create the registration in `gre_relay_workers`, and `health`."""

    @abstractmethod
    def on_hint(self, hint: str) -> None:
        """See HintListener."""

    def registration(self) -> Json:
        """See SchemaListener."""
        return self.health.registration()

    @abstractmethod
    def on_schema_checked(self, problem: str) -> None:
        """See SchemaListener."""

    @abstractmethod
    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """See SubscriptionListener."""

    @abstractmethod
    def is_handled(self, row: NewRow) -> bool:
        """See SubscriptionListener."""

    @abstractmethod
    def on_event(self, event: str, payload: object) -> None:
        """See SubscriptionListener."""

    @abstractmethod
    def _on_realtime_change(self) -> None:
        """Apply a change of the subscription's health."""

    def database_called(self, function: str) -> AbstractContextManager[object]:
        """See CallObserver."""
        self.metrics.database_requests.labels(function).inc()
        return self.metrics.database_time.labels(function).time()

    def database_recovered(self) -> None:
        """Count wake-ups as unreliable for a while: the database recovered from an outage."""
        self._subscription.mark_unreliable()

    async def run(self) -> None:
        """Run until a termination signal."""
        async with self._open_store() as store:
            self._store = store
            status = DatabaseStatus(store, self.metrics)
            self._subscription = self._subscribe()
            self._registration = self._make_registration(status)
            admin = AdminServer(
                health=self.health, status=status, metrics=self.metrics, link=self._link, settings=self._settings
            )  # fmt: skip
            with self._handling_signals(), self._answering(admin):
                await self._run(store, admin)
        log.info("stopped")

    async def _run(self, store: RelayDatabase, admin: AdminServer) -> None:
        log.info("starting", version=__version__)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._reports.report_alive(self.health)),
                group.create_task(self._registration.run(store)),
                group.create_task(self._subscription.run()),
                group.create_task(admin.serve(self._context.listeners.admin)),
            ]
            working = group.create_task(self._work(store))
            freeze_garbage_collector()
            # Ready means that the loops run; they wait for Supabase if it is unavailable.
            self._reports.ready("waiting for the database")
            await self._stop.wait()
            log.info("stopping")
            self._reports.stopping("finishing the work in flight")
            await asyncio.wait({working})
            for task in background:
                task.cancel()

    @contextlib.asynccontextmanager
    async def _open_store(self) -> AsyncGenerator[RelayDatabase]:
        settings = self._settings
        rest = await PostgrestClient.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            timeout=database_timeout(settings),
        )
        store = RelayDatabase(rest=rest, observer=self)
        try:
            yield store
        finally:
            await store.aclose()

    @contextlib.contextmanager
    def _answering(self, admin: AdminServer) -> Generator[None]:
        if self._link is None:
            yield
            return
        with self._link.serving(admin, self):
            yield

    @contextlib.contextmanager
    def _handling_signals(self) -> Generator[None]:
        """Stop gracefully on the first termination signal, at once on the second; under a supervisor only on its SIGTERM."""
        main, loop = asyncio.current_task(), asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop.is_set() and self._context.alone and main is not None:
                log.warning("stopping_at_once", message="a second signal arrived")
                main.cancel()
            self._stop.set()

        with contextlib.suppress(
            RuntimeError, ValueError
        ):  # not in the main thread: the caller stops the process
            loop.add_signal_handler(signal.SIGTERM, on_signal)
            if self._context.alone:
                loop.add_signal_handler(signal.SIGINT, on_signal)
                # A closing terminal sends it twice; nohup makes the process ignore it.
                if not signals.is_ignored(signal.SIGHUP):
                    loop.add_signal_handler(signal.SIGHUP, self._stop.set)
        yield

    def _subscribe(self) -> Subscription:
        settings = self._settings
        return Subscription(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            listener=self,
            timing=Timing(renew=settings.realtime_renew),
        )

    async def request_wakeup(self) -> None:
        """See SubscriptionListener."""
        await self._store.probe()

    def on_subscription_change(self, state: SubscriptionState) -> None:
        """See SubscriptionListener."""
        for other in SubscriptionState:
            self.metrics.realtime_state.labels(other.value).set(other is state)
        for reason, count in self._subscription.reconnections.items():
            counter = self.metrics.realtime_reconnections.labels(reason)
            counter.inc(max(0.0, count - counter._value.get()))  # noqa: SLF001 - the subscription has the count
        self._on_realtime_change()


def freeze_garbage_collector() -> None:
    """Exclude the objects of the start from later collections: each full one blocked the loop for some 50 ms."""
    gc.collect()
    gc.freeze()


def run_in_loop(process: Callable[[], DaemonProcess]) -> None:
    """Run a process in a new event loop, of uvloop if it is installed. Raises what the process raises."""
    loops: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an optional extra

        loops = uvloop.new_event_loop

    async def main() -> None:
        await process().run()

    with (
        contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt),
        asyncio.Runner(loop_factory=loops) as runner,
    ):
        runner.run(main())
