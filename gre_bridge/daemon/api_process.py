"""The process that serves the portals and the console: REST, `/ws` and the hub. Nothing that it does delays a delivery."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from gre_bridge.api.app import create_app, serve
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.pusher_users import PusherUsers
from gre_bridge.api.rest.health import Health
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.api.ws.endpoint import WebSocketEndpoint
from gre_bridge.api.ws.hub import Hub
from gre_bridge.daemon.admin_server import ask_relay
from gre_bridge.daemon.health import ProcessHealth
from gre_bridge.daemon.process import DaemonProcess, Surroundings
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Json, NewRow
from gre_bridge.db.users import UserDatabase

log = structlog.get_logger("gre.daemon")

OOM_SCORE = 500
"""Added to the kernel's score of this process: where memory runs out, it goes before the relay."""


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
        access = Authenticator(portal, AuthThrottle(settings.auth_failures))
        listener = self._around.listeners.api
        assert self._health.database is not None
        assert listener is not None
        health = Health(
            database=self._health.database,
            problems=self._health.problems,
            stalled=self._health.stalled,
            stopping=self._stop.is_set,
        )
        if portal is None:
            app = create_app(
                health=health, access=access, settings=settings, sockets=None, overview=self._overview,
                metrics=self.metrics,
            )  # fmt: skip
            await serve(app, settings=settings, sock=listener)
            return
        portal.on_write = self._wrote
        pusher_users = PusherUsers.of(settings)
        hub = self._hub = Hub(
            portal=portal,
            metrics=self.metrics,
            sweep_interval=settings.poll_interval,
            fast_sweep_interval=settings.fast_poll_interval,
            feed_healthy=lambda: feed.healthy,
            broadcast=feed.broadcast,
            elsewhere=pusher_users,
            wakeups=feed,
        )
        door = WebSocketEndpoint(
            hub=hub, portal=portal, metrics=self.metrics, settings=settings, access=access
        )
        app = create_app(
            health=health, access=access, settings=settings, sockets=door.serve, overview=self._overview,
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

    async def _overview(self) -> Json:
        """What this daemon tells staff: its sockets, and the relay's sinks and Realtime where it has a relay."""
        own = self._health.overview()
        relay = await ask_relay(self._link)
        return own if relay is None else {**relay["overview"], "connections": own["connections"]}

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
            self._hub.ring(sessions)
            if self._hub.looks is not None:
                self._hub.looks.poller.woken()

    def is_handled(self, row: NewRow) -> bool:
        """See SubscriptionListener."""
        if self._hub is None or not self._hub.has_told(row):
            return False
        self.metrics.wakeups.inc()
        return True

    def on_event(self, event: str, payload: object) -> None:
        """See SubscriptionListener."""
        if self._hub is not None:
            self._hub.heard(event, payload)

    def _schema_checked(self, problem: str) -> None:
        self.metrics.schema_supported.set(not problem)

    def _on_realtime_change(self) -> None:
        if self._hub is None:
            return
        if not self._feed.healthy:  # a slow poll that is waiting becomes a fast one
            self._hub.ring(None)
        if self._hub.looks is not None:
            self._hub.looks.poller.refresh()


def offer_to_the_oom_killer() -> None:
    """Ask the kernel to end this process rather than the relay when memory runs out (Linux; may be refused)."""
    with (
        contextlib.suppress(OSError, ValueError),
        Path("/proc/self/oom_score_adj").open("r+", encoding="ascii") as file,
    ):
        score = int(file.read())
        file.seek(0)
        file.write(str(min(1000, score + OOM_SCORE)))
