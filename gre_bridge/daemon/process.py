"""What both processes of the daemon have: a way to the database, a registration, Realtime, the admin port, a stop.

Start: anything that a person must change (settings) stops the start with one line; anything that may become well
by itself (Supabase down, migrations not yet applied) is waited for, and `/readyz` says what is waited for.
Stop: on SIGTERM what is in flight is finished within `GRE_DRAIN_SECONDS`. Killed anywhere, nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
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
from gre_bridge.db.types import NewRow
from gre_bridge.logging import LOGS
from gre_bridge.metrics import Metrics
from gre_bridge.realtime.subscription import Subscription, SubscriptionState, Timing

log = structlog.get_logger("gre.daemon")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process is given by whoever starts it."""

    settings: Settings
    listeners: Listeners
    reports: Reports
    link: Link | None = None
    """The line to the other process; None for a process without one."""

    @property
    def alone(self) -> bool:
        """Whether this process is the whole daemon."""
        return self.link is None


class DaemonProcess(ABC):
    """One process. `run` returns after a graceful stop."""

    name: ClassVar[ProcessName]

    def __init__(self, surroundings: Surroundings) -> None:
        """Nothing is connected yet. Raises ConfigurationError when there is nothing that this process could do."""
        self._around = surroundings
        self._settings = surroundings.settings
        self._reports = surroundings.reports
        self._link = surroundings.link
        self._stop = asyncio.Event()
        self._opened: RelayDatabase | None = None
        self.metrics = Metrics(LOGS)

    @property
    @abstractmethod
    def health(self) -> ProcessHealth:
        """The state of this process."""

    @abstractmethod
    async def _work(self, store: RelayDatabase) -> None:
        """Do the work of this process until the stop, and finish what is in flight."""

    @abstractmethod
    def _make_registration(self) -> WorkerRegistration:
        """The registration in `gre_relay_workers`."""

    @abstractmethod
    def _heard_hint(self, hint: str) -> None:
        """Take a hint of the other process."""

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

    def database_called(self, function: str) -> None:
        """See StoreObserver."""
        self._count_request(function)

    def database_recovered(self) -> None:
        """Rely on no wake-up for a while: the database answers again after an outage."""
        self._feed.mark_unreliable()

    async def run(self) -> None:
        """Run until a signal to end."""
        self._feed = self._subscribe()
        self._registration = self._make_registration()
        async with self._store() as store:
            self._opened = store
            self.health.database = status = DatabaseStatus(store, self.metrics)
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
                group.create_task(self._registration.run(store, self.health.registration)),
                group.create_task(self._feed.run()),
                group.create_task(admin.serve(self._around.listeners.admin)),
            ]
            working = group.create_task(self._work(store))
            keep_what_is_there()
            # Ready is: the loops run. Supabase may be away; then they wait for it.
            self._reports.ready("waiting for the database")
            await self._stop.wait()
            log.info("stopping")
            self._reports.stopping("finishing what is in flight")
            await asyncio.wait({working})
            for task in background:
                task.cancel()

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncGenerator[RelayDatabase]:
        settings = self._settings
        rest = await PostgrestClient.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            timeout=database_timeout(settings),
        )
        rest.on_call = self._note_call
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
        with self._link.serving(admin.answer, self._heard_hint):
            yield

    @contextlib.contextmanager
    def _handling_signals(self) -> Generator[None]:
        """Stop gracefully on the first signal to end, at once on the second; under a supervisor on its SIGTERM alone."""
        main, loop = asyncio.current_task(), asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop.is_set() and self._around.alone and main is not None:
                log.warning("second signal: stopping at once")
                main.cancel()
            self._stop.set()

        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: the caller stops us
            loop.add_signal_handler(signal.SIGTERM, on_signal)
            if self._around.alone:
                loop.add_signal_handler(signal.SIGINT, on_signal)
                # A terminal that closes sends it twice, and nohup does not want to hear of it.
                if not signals.is_ignored(signal.SIGHUP):
                    loop.add_signal_handler(signal.SIGHUP, self._stop.set)
        yield

    def _note_call(self, function: str, seconds: float) -> None:
        self.metrics.database_time.labels(function).observe(seconds)

    def _count_request(self, function: str) -> None:
        self.metrics.database_requests.labels(function).inc()

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
        if self._opened is not None:
            await self._opened.probe()

    def on_subscription_change(self, state: SubscriptionState) -> None:
        """See SubscriptionListener."""
        for known in SubscriptionState:
            self.metrics.realtime_state.labels(known.value).set(known is state)
        for reason, count in self._feed.reconnections.items():
            counter = self.metrics.realtime_reconnections.labels(reason)
            counter.inc(max(0.0, count - counter._value.get()))  # noqa: SLF001 - the feed keeps the count
        self._on_realtime_change()


def keep_what_is_there() -> None:
    """Leave what the start has made out of all later collections: each whole one held the loop for some 50 ms."""
    gc.collect()
    gc.freeze()


def run_in_loop(process: Callable[[], DaemonProcess]) -> None:
    """Run a process in an event loop of its own, uvloop's where that is installed. Raises what it raises."""
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
