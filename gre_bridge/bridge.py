"""Composes the parts into the running daemon: store, feed, one dispatcher for each sink, HTTP.

Start: anything that a person must mend (settings) stops the start with one line; anything that may mend
itself (Supabase down, migrations not yet applied) is waited for, and `/readyz` says what is waited for.
Stop: on the first SIGTERM or SIGINT nothing more is claimed, what is in flight is settled within
`GRE_DRAIN_SECONDS`; a second signal ends it at once. Killed anywhere, nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import signal
import time
import uuid
from collections.abc import Callable, Iterator

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential_jitter

from gre_bridge import __version__
from gre_bridge.api.app import create_app, serve
from gre_bridge.api.door import Door
from gre_bridge.api.guard import Guard
from gre_bridge.api.health import Health
from gre_bridge.api.hub import Hub
from gre_bridge.errors import BridgeError, ConfigurationError
from gre_bridge.feed import Feed, FeedState, Timing
from gre_bridge.models import Claim, Json, Lane
from gre_bridge.notify import Notifier
from gre_bridge.portal import Portal
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, BreakerState, RetryPolicy
from gre_bridge.relay.routing import PusherRoutes, PushRoutes, route_onesignal, route_pusher
from gre_bridge.relay.sender import Route
from gre_bridge.rest import Rest
from gre_bridge.settings import Settings
from gre_bridge.sinks.base import Parcel, Sink
from gre_bridge.sinks.onesignal import OneSignalSink
from gre_bridge.sinks.pusher import PusherSink
from gre_bridge.store import SCHEMA_VERSIONS, Store
from gre_bridge.telemetry import Metrics

log = structlog.get_logger("gre.bridge")

GIVE_UP = 2.0
"""Seconds that a stop which ran out of time may take to hand its leases back."""
BEAT = 15.0
"""Seconds between heartbeats, which also check the schema's version and the database's list of sinks."""
FEED_PATIENCE = 150.0
"""Seconds that a turn of the feed's loop may take: a link opens, or beats."""


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
        self._hub: Hub | None = None
        self._feed = Feed(
            url=settings.supabase_url,
            key=settings.supabase_service_key.get_secret_value(),
            on_ring=self._ring,
            on_state=self._feed_changed,
            on_event=lambda event, body: self._hub.heard(event, body) if self._hub else None,
            private=settings.realtime_private,
            timing=Timing(renew=settings.realtime_renew),
        )
        self._schema_problem = "the database has not been reached yet"
        self._schema_ready = asyncio.Event()
        self._id = str(uuid.uuid4())
        self._disagreed: set[str] = set()
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
        portal = await self._open_portal() if self._http else None
        store.on_request = self._count_request
        if portal is not None:
            portal.on_request = self._count_request
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
            await self._run(store, portal)
        finally:
            if portal is not None:
                await portal.aclose()
            for sink, _, _ in self._sinks:
                await sink.aclose()
            await store.aclose()
            log.info("stopped")

    async def _open_portal(self) -> Portal | None:
        settings = self._settings
        if settings.supabase_anon_key is None:
            log.warning("the portals' API is off: SUPABASE_ANON_KEY is missing")
            return None
        # A pool of its own: however many call, the relay's calls do not queue behind them.
        return Portal(
            await Rest.open(
                url=settings.supabase_url,
                key=settings.supabase_service_key.get_secret_value(),
                apikey=settings.supabase_anon_key.get_secret_value(),
                timeout=settings.request_timeout,
                connections=32,
            )
        )

    def _count_request(self, function: str) -> None:
        self.metrics.store_requests.labels(function).inc()

    async def _run(self, store: Store, portal: Portal | None) -> None:
        log.info("starting", version=__version__, sinks=[sink.name for sink, _, _ in self._sinks])
        notifier = Notifier.from_environment()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._beat(store, notifier)),
                group.create_task(notifier.feed_watchdog(self.stuck)),
            ]
            if self._sinks or portal is not None:
                background.append(group.create_task(self._feed.run()))
            if self._http:
                background.append(group.create_task(self._serve(store, portal)))
            relaying = group.create_task(self._relay(store)) if self._sinks else None
            # Ready is: the loops run. Supabase may be away; then they wait for it.
            notifier.ready("waiting for the database")
            await self._stop.wait()
            log.info("stopping")
            notifier.stopping("finishing what is in flight")
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

    def _ring(self, sessions: frozenset[str] | None) -> None:
        """A bell: wake whoever reads."""
        self.metrics.rings.inc()
        for dispatcher in self._dispatchers:
            dispatcher.ring()
        if self._hub is not None:
            self._hub.ring(sessions)

    async def _serve(self, store: Store, portal: Portal | None) -> None:
        """Serve HTTP and the sockets until cancelled."""
        settings = self._settings
        guard = Guard(settings.auth_failures)
        health = Health(self.metrics, store, self.problems, self.alive, settings)
        if portal is None:
            app = create_app(
                health=health,
                portal=None,
                settings=settings,
                guard=guard,
                sockets=None,
                overview=self._overview,
            )
            await serve(app, settings=settings)
            return

        def wrote(session: str) -> None:
            if not self._feed.healthy:  # no bell will tell us what we have just done
                self._ring(frozenset((session,)))

        portal.on_write = wrote
        hub = self._hub = Hub(
            portal=portal,
            metrics=self.metrics,
            sweep_interval=settings.sweep_interval,
            fast_sweep_interval=settings.fast_sweep_interval,
            feed_healthy=lambda: self._feed.healthy,
            broadcast=self._feed.broadcast,
        )
        door = Door(hub=hub, portal=portal, metrics=self.metrics, settings=settings, guard=guard)
        app = create_app(
            health=health,
            portal=portal,
            settings=settings,
            guard=guard,
            sockets=door.serve,
            overview=self._overview,
        )
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(hub.run())
            try:
                await serve(app, settings=settings)
            finally:
                telling.cancel()

    def _overview(self) -> Json:
        """What the chat's own health endpoint tells of this instance."""
        now = time.monotonic()
        return {
            "connections": self._hub.connections if self._hub else 0,
            "realtime": {
                "state": self._feed.state.value,
                "healthy": self._feed.healthy,
                "detail": self._feed.detail,
            },
            "sinks": [
                {
                    "sink": d.sink.name,
                    "breaker": d.breaker.state(now).value,
                    "error": d.breaker.reason or d.last_error or None,
                }
                for d in self._dispatchers
            ],
        }

    def _report(self) -> Json:
        """What the heartbeat tells of this daemon, for `gre-bridge status`: the sinks by name."""
        overview = self._overview()
        return {**overview, "sinks": {row["sink"]: row for row in overview["sinks"]}}

    async def _relay(self, store: Store) -> None:
        """Wait for the schema, then relay until the dispatchers have stopped."""
        await self._schema_ready.wait()
        settings = self._settings
        feed = self._feed
        dispatchers = [
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
            for sink, route, rows in self._sinks
        ]
        self._dispatchers = dispatchers
        if self._stop.is_set():
            return
        async with asyncio.TaskGroup() as relaying:
            for dispatcher in dispatchers:
                relaying.create_task(dispatcher.run())

    def _feed_changed(self, state: FeedState) -> None:
        for known in FeedState:
            self.metrics.feed_state.labels(known.value).set(known is state)
        if not self._feed.healthy:  # a slow sweep that is waiting becomes a fast one
            for dispatcher in self._dispatchers:
                dispatcher.ring()
            if self._hub is not None:
                self._hub.ring(None)
        for reason, count in self._feed.reconnections.items():
            counter = self.metrics.reconnections.labels(reason)
            counter.inc(max(0.0, count - counter._value.get()))  # noqa: SLF001 - the feed keeps the count

    async def _schema_now(self, store: Store) -> str:
        """What is wrong with the schema, or an empty string."""
        try:
            return _unknown_schema(await store.schema_version())
        except BridgeError as error:
            return str(error)

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
        self._schema_ready.set()

    async def _beat(self, store: Store, notifier: Notifier) -> None:
        """Wait for the schema, then say now and then that we are there; what the answer says is looked at."""
        await self._await_schema(store)
        await self._say_what_waits(store)
        notifier.status("relaying to " + (", ".join(sink.name for sink, _, _ in self._sinks) or "nothing"))
        try:
            while True:
                with contextlib.suppress(BridgeError):
                    answer = await store.beat(
                        worker=self._id, host=platform.node(), version=__version__, info=self._report()
                    )
                    self._compare(answer)
                # The first one goes out while the dispatchers are being made.
                await asyncio.sleep(BEAT if self._dispatchers or not self._sinks else 1.0)
        finally:
            with contextlib.suppress(BridgeError, TimeoutError):
                async with asyncio.timeout(GIVE_UP):
                    await store.leave(self._id)

    async def _say_what_waits(self, store: Store) -> None:
        """Say what this start will announce: after a first migration or an outage it may be more than one wants."""
        with contextlib.suppress(BridgeError, KeyError, TypeError):
            for row in await store.stats():
                if row["pending"]:
                    log.info(
                        "deliveries are waiting and will be announced (gre-bridge expire --before drops old ones)",
                        sink=row["sink"],
                        pending=row["pending"],
                        oldest_age=row["oldest_age"],
                    )

    def _compare(self, answer: Json) -> None:
        """Hold what the database expects against what this daemon is."""
        problem = _unknown_schema(answer["schema"])
        if problem and problem != self._schema_problem:
            log.error("schema check", problem=problem)
        self._schema_problem = problem
        self.metrics.schema_supported.set(not problem)
        for dispatcher in self._dispatchers:
            dispatcher.pause(problem)
        mine = {sink.name for sink, _, _ in self._sinks}
        for row in answer["sinks"]:
            name, enabled = row["sink"], row["enabled"]
            if self._sinks and enabled != (name in mine) and name not in self._disagreed:
                self._disagreed.add(name)
                log.warning(
                    "the database writes deliveries for this sink, but it has no credentials here"
                    if enabled
                    else "this sink has credentials here, but the database writes no deliveries for it",
                    sink=name,
                )

    def stuck(self) -> str:
        """Which loop does not turn any more; empty while all do."""
        if self._stop.is_set():
            return ""  # draining is bounded by GRE_DRAIN_SECONDS
        now = time.monotonic()
        for dispatcher in self._dispatchers:
            if now - dispatcher.turned > dispatcher.patience:
                return f"{dispatcher.sink.name}: its loop has not turned for {now - dispatcher.turned:.0f} s"
        if self._feed.state is not FeedState.STOPPED and now - self._feed.turned > FEED_PATIENCE:
            return f"feed: its loop has not turned for {now - self._feed.turned:.0f} s"
        return ""

    def alive(self) -> bool:
        """Whether every loop turns."""
        return not self.stuck()

    def problems(self) -> list[str]:
        """Why this daemon is not ready, one line each; empty when it is."""
        found: list[str] = []
        if self._schema_problem:
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


def _unknown_schema(version: int) -> str:
    """What to do about this schema's version; empty when it is one that this worker knows."""
    if version in SCHEMA_VERSIONS:
        return ""
    known = str(SCHEMA_VERSIONS[0])
    if len(SCHEMA_VERSIONS) > 1:
        known += f" to {SCHEMA_VERSIONS[-1]}"
    return (
        f"schema version {version}, this worker knows {known}; run `gre-bridge migrate` or upgrade the worker"
    )


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
