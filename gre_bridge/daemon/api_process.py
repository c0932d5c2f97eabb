"""The process that serves the portals and the console: REST, `/ws` and the hub. Nothing that it does delays a delivery."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from gre_bridge.api.app import create_app, serve
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.pusher_users import PusherUsers
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.api.ws.endpoint import WebSocketEndpoint
from gre_bridge.api.ws.hub import Hub
from gre_bridge.daemon.admin_server import ask_relay
from gre_bridge.daemon.health import ProcessHealth
from gre_bridge.daemon.link import Link
from gre_bridge.daemon.process import DaemonProcess, Surroundings
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json, NewRow
from gre_bridge.db.users import UserDatabase

log = structlog.get_logger("gre.daemon")

OOM_SCORE = 500
"""Added to the kernel's score of this process: where memory runs out, it goes before the relay."""


class ApiHealth:
    """The state of this process for its API (`ServiceHealth`)."""

    def __init__(
        self, *, process: ProcessHealth, database: DatabaseStatus, stopping: asyncio.Event, link: Link | None
    ) -> None:
        """`link` leads to the relay's process, if there is one."""
        self._process = process
        self._stopping = stopping
        self._link = link
        self.database = database
        self.problems = process.problems

    @property
    def serving(self) -> bool:
        """True while no loop is stalled and the process is not stopping."""
        return not self._process.stalled() and not self._stopping.is_set()

    async def overview(self) -> Json:
        """Return this process's connections, and the relay's sinks and Realtime where it has a relay."""
        own = self._process.overview()
        relay = await ask_relay(self._link)
        return own if relay is None else {**relay["overview"], "connections": own["connections"]}


class ApiProcess(DaemonProcess):
    """Serves HTTP and the sockets."""

    name = "api"

    def __init__(self, surroundings: Surroundings) -> None:
        """See DaemonProcess."""
        # Imported here for the sake of the relay's process, and before `gc.freeze`: it takes 0.3 s and 12 MB.
        from gre_bridge.db import writes  # noqa: PLC0415

        super().__init__(surroundings)
        self._writes = writes
        self._hub: Hub | None = None

    @property
    def health(self) -> ProcessHealth:
        """See DaemonProcess."""
        return self._health

    def _make_registration(self) -> WorkerRegistration:
        registration = WorkerRegistration(sinks=frozenset(), on_schema=self._schema_checked)
        self._health = ProcessHealth(
            process=self.name,
            settings=self._settings,
            feed=self._feed,
            schema=lambda: registration.problem,
            stopping=self._stop,
            hub=lambda: self._hub,
        )
        return registration

    async def _work(self, _store: RelayDatabase) -> None:
        portal = await self._open_portal()
        serving = asyncio.create_task(self._serve(portal))
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                # Load balancers learn from /readyz that this instance is going, while it still serves.
                delay = min(self._settings.shutdown_delay, self._settings.drain_seconds)
                await asyncio.wait({serving}, timeout=delay)
                serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        finally:
            stop.cancel()
            serving.cancel()
            if portal is not None:
                await portal.aclose()

    async def _open_portal(self) -> UserDatabase | None:
        settings = self._settings
        if (anon_key := settings.anon_key) is None:
            log.warning("the portals' API is off: SUPABASE_ANON_KEY is missing")
            return None
        rest = await PostgrestClient.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=anon_key,
            timeout=settings.request_timeout,
            connections=32,
        )
        rest.on_call = self._note_call
        writes = self._writes.Writes(
            url=settings.supabase_url,
            anon_key=anon_key,
            transport=self._writes.PoolTransport(rest.pool),
            on_call=self._note_call,
        )
        portal = UserDatabase(rest, writes)
        portal.on_request = self._count_request
        return portal

    async def _serve(self, portal: UserDatabase | None) -> None:
        """Serve HTTP and the sockets until cancelled."""
        settings, feed = self._settings, self._feed
        authenticator = Authenticator(portal, AuthThrottle(settings.auth_failures))
        listener = self._around.listeners.api
        assert self._health.database is not None
        assert listener is not None
        health = ApiHealth(
            process=self._health, database=self._health.database, stopping=self._stop, link=self._link
        )
        if portal is None:
            app = create_app(
                health=health, authenticator=authenticator, settings=settings, endpoint=None,
                metrics=self.metrics,
            )  # fmt: skip
            await serve(app, settings=settings, sock=listener)
            return
        portal.on_write = self._wrote
        pusher_users = PusherUsers.from_settings(settings)
        hub = self._hub = Hub(
            users=portal,
            metrics=self.metrics,
            poll_interval=settings.poll_interval,
            fast_poll_interval=settings.fast_poll_interval,
            realtime=feed,
            external=pusher_users,
        )
        endpoint = WebSocketEndpoint(
            hub=hub, users=portal, metrics=self.metrics, settings=settings, authenticator=authenticator
        )
        app = create_app(
            health=health, authenticator=authenticator, settings=settings, endpoint=endpoint,
            metrics=self.metrics, pusher_users=pusher_users,
        )  # fmt: skip
        self._reports.status("serving")
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(hub.run())]
            if pusher_users is not None:
                background.append(group.create_task(pusher_users.run()))
            try:
                await serve(app, settings=settings, sock=listener)
            finally:
                for task in background:
                    task.cancel()

    def _heard_hint(self, hint: str) -> None:
        """The relay gives none."""

    def _wrote(self, session: str) -> None:
        """A client wrote: if no wake-up will tell of it, this does."""
        if not self._feed.healthy:
            self.on_wakeup(frozenset((session,)))
            if self._link is not None:
                self._link.hint(session)

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """See SubscriptionListener."""
        self.metrics.wakeups.inc()
        if self._hub is not None:
            self._hub.on_wakeup(sessions)

    def is_handled(self, row: NewRow) -> bool:
        """See SubscriptionListener."""
        if self._hub is None or self._hub.needs(row):
            return False
        self.metrics.wakeups.inc()
        return True

    def on_event(self, event: str, payload: object) -> None:
        """See SubscriptionListener."""
        if self._hub is not None:
            self._hub.on_event(event, payload)

    def _schema_checked(self, problem: str) -> None:
        self.metrics.schema_supported.set(not problem)

    def _on_realtime_change(self) -> None:
        if self._hub is not None:
            self._hub.on_realtime_changed()


def offer_to_the_oom_killer() -> None:
    """Ask the kernel to end this process rather than the relay when memory runs out (Linux; may be refused)."""
    with (
        contextlib.suppress(OSError, ValueError),
        Path("/proc/self/oom_score_adj").open("r+", encoding="ascii") as file,
    ):
        score = int(file.read())
        file.seek(0)
        file.write(str(min(1000, score + OOM_SCORE)))
