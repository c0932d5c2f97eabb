"""The process that serves the portals and the console: REST, `/ws` and the hub. It cannot delay a delivery."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path

import structlog

from gre_bridge.api.app import create_app, serve
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.pusher_users import PusherUsers
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.api.ws.endpoint import WebSocketEndpoint
from gre_bridge.api.ws.hub import Hub
from gre_bridge.config.keys import opens_storage
from gre_bridge.daemon import asyncapi
from gre_bridge.daemon.admin_server import ask_relay
from gre_bridge.daemon.garbage import LongLived
from gre_bridge.daemon.health import ProcessHealth
from gre_bridge.daemon.link import Link
from gre_bridge.daemon.process import DaemonProcess, ProcessContext
from gre_bridge.daemon.registration import WorkerRegistration
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json, NewRow
from gre_bridge.db.users import UserDatabase
from gre_bridge.storage.client import StorageClient

log = structlog.get_logger()

STORAGE_TIMEOUT = 8.0
"""Seconds in which Storage has to sign an address."""
OOM_SCORE = 500
"""Added to the kernel's OOM score of this process: it is killed before the relay."""


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
    """Serves HTTP and WebSockets."""

    name = "api"

    def __init__(self, context: ProcessContext) -> None:
        """See DaemonProcess."""
        # Imported here for the sake of the relay's process, and before `gc.freeze`: it takes 0.3 s and 12 MB.
        from gre_bridge.db import writes  # noqa: PLC0415

        super().__init__(context)
        self._writes = writes
        self._hub: Hub | None = None

    def _make_registration(self, database: DatabaseStatus) -> WorkerRegistration:
        registration = WorkerRegistration(sinks=frozenset(), listener=self)
        self.health = ProcessHealth(
            process=self.name,
            settings=self._settings,
            subscription=self._subscription,
            database=database,
            schema=lambda: registration.problem,
            stopping=self._stop,
            hub=lambda: self._hub,
        )
        return registration

    async def _work(self, _store: RelayDatabase) -> None:
        gc.callbacks.append(LongLived())
        portal = await self._open_portal()
        serving = asyncio.create_task(self._serve(portal))
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                # Meanwhile /readyz reports the stop to load balancers.
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
            log.warning("api_off", message="SUPABASE_ANON_KEY is missing")
            return None
        rest = await PostgrestClient.open(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=anon_key,
            timeout=settings.request_timeout,
            connections=32,
        )
        writes = self._writes.Writes(
            url=settings.supabase_url,
            anon_key=anon_key,
            transport=self._writes.PoolTransport(rest.pool),
        )
        return UserDatabase(rest, writes, self)

    def _open_storage(self) -> StorageClient | None:
        settings = self._settings
        if not opens_storage(settings.service_key):
            log.warning(
                "files_off", message="Storage takes no key of role gre_worker: the API begins no files"
            )
            return None
        return StorageClient.open(
            url=settings.supabase_url,
            public_url=settings.public_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            timeout=STORAGE_TIMEOUT,
        )

    async def _serve(self, portal: UserDatabase | None) -> None:
        """Serve HTTP and WebSockets until cancelled."""
        settings, subscription = self._settings, self._subscription
        authenticator = Authenticator(portal, AuthThrottle(settings.auth_failures))
        listener = self._context.listeners.api
        assert listener is not None
        health = ApiHealth(
            process=self.health, database=self.health.database, stopping=self._stop, link=self._link
        )
        if portal is None:
            app = create_app(
                health=health, authenticator=authenticator, settings=settings, endpoint=None,
                metrics=self.metrics,
            )  # fmt: skip
            await serve(app, settings=settings, sock=listener)
            return
        pusher_users = PusherUsers.from_settings(settings)
        storage = self._open_storage()
        hub = self._hub = Hub(
            users=portal,
            metrics=self.metrics,
            poll_interval=settings.poll_interval,
            fast_poll_interval=settings.fast_poll_interval,
            realtime=subscription,
            external=pusher_users,
        )
        endpoint = WebSocketEndpoint(
            hub=hub, users=portal, metrics=self.metrics, settings=settings, authenticator=authenticator
        )
        app = create_app(
            health=health, authenticator=authenticator, settings=settings, endpoint=endpoint,
            metrics=self.metrics, pusher_users=pusher_users, storage=storage,
            asyncapi=asyncapi.text() if settings.docs else None,
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
                if storage is not None:
                    await storage.aclose()

    def on_hint(self, hint: str) -> None:
        """See HintListener. The relay sends none."""

    def session_written(self, session: str) -> None:
        """See WriteObserver. Wake hub and relay after a client's write, if wake-ups are unreliable."""
        if not self._subscription.healthy:
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

    def on_schema_checked(self, problem: str) -> None:
        """See SchemaListener."""
        self.metrics.schema_supported.set(not problem)

    def _on_realtime_change(self) -> None:
        if self._hub is not None:
            self._hub.on_realtime_changed()


def raise_oom_score() -> None:
    """Have the kernel kill this process before the relay if memory runs out (on Linux; may be refused)."""
    with (
        contextlib.suppress(OSError, ValueError),
        Path("/proc/self/oom_score_adj").open("r+", encoding="ascii") as file,
    ):
        score = int(file.read())
        file.seek(0)
        file.write(str(min(1000, score + OOM_SCORE)))
