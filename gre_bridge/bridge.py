"""Composes the parts into the running daemon: store, feed, one dispatcher for each sink, HTTP.

Start: anything that a person must mend (settings) stops the start with one line; anything that may mend
itself (Supabase down, migrations not yet applied) is waited for, and `/readyz` says what is waited for.
Stop: on the first SIGTERM or SIGINT nothing more is claimed, what is in flight is settled within
`GRE_DRAIN_SECONDS`; a second signal ends it at once. Killed anywhere, nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential_jitter

from gre_bridge import __version__
from gre_bridge.api.health import Health, serve
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.feed import Feed, FeedState, Timing
from gre_bridge.models import Claim, Lane
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, BreakerState, RetryPolicy
from gre_bridge.relay.routing import PusherRoutes, PushRoutes, route_onesignal, route_pusher
from gre_bridge.relay.sender import Route
from gre_bridge.settings import Settings
from gre_bridge.sinks.base import Parcel, Sink
from gre_bridge.sinks.onesignal import OneSignalSink
from gre_bridge.sinks.pusher import PusherSink
from gre_bridge.store import SCHEMA_VERSIONS, Store
from gre_bridge.telemetry import Metrics

log = structlog.get_logger("gre.bridge")

GIVE_UP = 2.0
"""Seconds that a stop which ran out of time may take to hand its leases back."""
SCHEMA_CHECK = 3600.0
"""Seconds between checks of the schema's version."""


@contextlib.contextmanager
def _naming(variables: str) -> Iterator[None]:
    """Put the variables in front of what a part says about its configuration."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{variables}: {error}") from None


def build_sinks(settings: Settings) -> list[tuple[Sink, Route, int]]:
    """The sinks that have credentials, each with its routing and the rows that one claim takes of a lane.

    Raises ConfigurationError for settings that only the sink can judge.
    """
    sinks: list[tuple[Sink, Route, int]] = []
    if settings.pusher_app_id and settings.pusher_key and settings.pusher_secret:
        with _naming("GRE_PUSHER_…_CHANNELS"):
            routes = PusherRoutes(
                player_channels=settings.pusher_player_channels,
                staff_channels=settings.pusher_staff_channels,
                session_channels=settings.pusher_session_channels,
                read_channels=settings.pusher_read_channels,
                late_after=settings.late_after,
            )
        pusher = PusherSink(
            app_id=settings.pusher_app_id,
            key=settings.pusher_key,
            secret=settings.pusher_secret.get_secret_value(),
            cluster=settings.pusher_cluster,
            host=settings.pusher_host,
            port=settings.pusher_port,
            ssl=settings.pusher_ssl,
            concurrency=settings.pusher_concurrency,
            timeout=settings.send_timeout,
        )

        def to_pusher(lane: Lane, _: Claim) -> list[Parcel]:
            return route_pusher(lane, routes)

        sinks.append((pusher, to_pusher, 10))
    if settings.onesignal_app_id and settings.onesignal_api_key:
        with _naming("GRE_PUSH_…_EXTERNAL_ID"):
            pushes = PushRoutes(
                player_external_id=settings.push_player_external_id,
                staff_external_id=settings.push_staff_external_id,
                preview=settings.push_preview,
                late_after=settings.late_after,
                max_age=settings.push_max_age,
                ttl=settings.push_ttl,
            )
        onesignal = OneSignalSink(
            app_id=settings.onesignal_app_id,
            api_key=settings.onesignal_api_key.get_secret_value(),
            api_url=settings.onesignal_api_url,
            concurrency=settings.onesignal_concurrency,
            timeout=settings.send_timeout,
        )

        def to_onesignal(lane: Lane, claim: Claim) -> list[Parcel]:
            return route_onesignal(lane, pushes, claim.staff)

        sinks.append((onesignal, to_onesignal, 50))
    return sinks


class Bridge:
    """One daemon. `run` returns after a graceful stop."""

    def __init__(self, settings: Settings, *, relay: bool = True, http: bool = True) -> None:
        """Check the settings as a whole; nothing is connected yet.

        Raises ConfigurationError when there is nothing that this daemon could do.
        """
        self._settings = settings
        self._http = http
        self.metrics = Metrics()
        self._sinks = build_sinks(settings) if relay else []
        if relay and not self._sinks:
            raise ConfigurationError(
                "PUSHER_APP_ID: is missing, and ONESIGNAL_APP_ID too: no sink to relay to"
            )
        self._dispatchers: list[Dispatcher] = []
        self._feed: Feed | None = None
        self._schema_problem = "the database has not been reached yet"
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin a graceful stop."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop`, SIGTERM or SIGINT."""
        settings = self._settings
        for name, on in (("pusher", settings.has_pusher), ("onesignal", settings.has_onesignal)):
            if not on:
                log.warning("sink is off: no credentials", sink=name)
        store = await Store.open(
            url=settings.supabase_url,
            key=settings.supabase_service_key.get_secret_value(),
            # A claim that took longer than its lease could send nothing.
            timeout=min(settings.request_timeout, settings.lease_seconds),
        )
        store.on_request = lambda function: self.metrics.store_requests.labels(function).inc()
        main = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop.is_set() and main is not None:
                log.warning("second signal: stopping at once")
                main.cancel()
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: the caller stops us
                loop.add_signal_handler(number, on_signal)
        try:
            await self._run(store)
        finally:
            for sink, _, _ in self._sinks:
                await sink.aclose()
            await store.aclose()
            log.info("stopped")

    async def _run(self, store: Store) -> None:
        log.info("starting", version=__version__, sinks=[sink.name for sink, _, _ in self._sinks])
        async with asyncio.TaskGroup() as group:
            background: list[asyncio.Task[None]] = []
            if self._http:
                health = Health(self.metrics, store, self.problems, self.alive, self._settings)
                background.append(
                    group.create_task(serve(health, self._settings.http_host, self._settings.http_port))
                )
            relaying = group.create_task(self._relay(store)) if self._sinks else None
            await self._stop.wait()
            log.info("stopping")
            if relaying is not None:
                for dispatcher in self._dispatchers:
                    dispatcher.stop()
                if not self._dispatchers:
                    relaying.cancel()
                _, late = await asyncio.wait({relaying}, timeout=self._settings.drain_seconds)
                if late:
                    log.warning("not everything was settled in time")
                    relaying.cancel()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(GIVE_UP):
                            await asyncio.gather(*(d.give_up() for d in self._dispatchers))
            for task in background:
                task.cancel()

    async def _relay(self, store: Store) -> None:
        """Wait for the schema, then relay until the dispatchers have stopped."""
        await self._await_schema(store)
        settings = self._settings
        dispatchers: list[Dispatcher] = []

        def ring(_: frozenset[str] | None) -> None:
            self.metrics.rings.inc()
            for dispatcher in dispatchers:
                dispatcher.ring()

        feed = Feed(
            url=settings.supabase_url,
            key=settings.supabase_service_key.get_secret_value(),
            on_ring=ring,
            on_state=self._feed_changed,
            private=settings.realtime_private,
            timing=Timing(renew=settings.realtime_renew),
        )
        self._feed = feed
        for sink, route, rows in self._sinks:
            dispatchers.append(
                Dispatcher(
                    store=store,
                    sink=sink,
                    route=route,
                    metrics=self.metrics,
                    retry=RetryPolicy(max_attempts=settings.max_attempts),
                    breaker=Breaker(),
                    lease_seconds=settings.lease_seconds,
                    sweep_interval=settings.sweep_interval,
                    fast_sweep_interval=settings.fast_sweep_interval,
                    lanes_per_claim=1000 // rows,
                    rows_per_lane=rows,
                    feed_healthy=lambda: feed.healthy,
                    on_missed=feed.missed,
                )
            )
        self._dispatchers = dispatchers
        if self._stop.is_set():
            return
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(feed.run()), group.create_task(self._watch_schema(store))]
            try:
                async with asyncio.TaskGroup() as relaying:
                    for dispatcher in dispatchers:
                        relaying.create_task(dispatcher.run())
            finally:
                for task in helpers:
                    task.cancel()

    def _feed_changed(self, state: FeedState) -> None:
        for known in FeedState:
            self.metrics.feed_state.labels(known.value).set(known is state)
        if self._feed is not None:
            if not self._feed.healthy:  # a slow sweep that is waiting becomes a fast one
                for dispatcher in self._dispatchers:
                    dispatcher.ring()
            for reason, count in self._feed.reconnections.items():
                counter = self.metrics.reconnections.labels(reason)
                counter.inc(max(0.0, count - counter._value.get()))  # noqa: SLF001 - the feed keeps the count

    async def _schema_now(self, store: Store) -> str:
        """What is wrong with the schema, or an empty string."""
        try:
            version = await store.schema_version()
        except BridgeError as error:
            return str(error)
        if version not in SCHEMA_VERSIONS:
            known = f"{SCHEMA_VERSIONS[0]} to {SCHEMA_VERSIONS[-1]}"
            return f"schema version {version}, this worker knows {known}; run `gre-bridge migrate` or upgrade the worker"
        return ""

    async def _await_schema(self, store: Store) -> None:
        def still_waiting(attempt: RetryCallState) -> None:
            assert attempt.outcome is not None
            problem = attempt.outcome.result()
            if problem != self._schema_problem:
                log.warning("waiting for the database", problem=problem)
            self._schema_problem = problem

        await AsyncRetrying(
            retry=retry_if_result(bool),
            wait=wait_exponential_jitter(initial=0.2, max=5, jitter=0.5),
            before_sleep=still_waiting,
        )(self._schema_now, store)
        self._schema_problem = ""
        log.info("database is ready")

    async def _watch_schema(self, store: Store) -> None:
        while True:
            await asyncio.sleep(SCHEMA_CHECK)
            self._schema_problem = await self._schema_now(store)
            if self._schema_problem:
                log.error("schema check", problem=self._schema_problem)

    def alive(self) -> bool:
        """Whether the loop turns: the answer is only given if it does."""
        return True

    def problems(self) -> list[str]:
        """Why this daemon is not ready, one line each; empty when it is."""
        found: list[str] = []
        if self._schema_problem and self._sinks:
            found.append(self._schema_problem)
        if self._stop.is_set():
            found.append("stopping")
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            name = dispatcher.sink.name
            if dispatcher.breaker.state(now) is not BreakerState.CLOSED:
                found.append(f"{name}: {dispatcher.breaker.reason}")
            if dispatcher.last_error:
                found.append(f"{name}: {dispatcher.last_error}")
        return found


def run(settings: Settings, *, relay: bool = True, http: bool = True) -> None:
    """Run the daemon in this process until it is told to stop. Raises ConfigurationError."""
    loops: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - an optional extra

        loops = uvloop.new_event_loop

    async def main() -> None:
        await Bridge(settings, relay=relay, http=http).run()

    with (
        contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt),
        asyncio.Runner(loop_factory=loops) as runner,
    ):
        runner.run(main())
