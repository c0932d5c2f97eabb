"""The embedded stack, one process and one port: PostgreSQL, and stand-ins for Supabase, Pusher and OneSignal.

This module composes the services and routes requests; it must not know their protocols.
Development and tests only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg_pool import AsyncConnectionPool

from gre_bridge.devstack.control_api import ControlApi
from gre_bridge.devstack.faults import (
    App,
    BodyTooLargeError,
    Faults,
    Receive,
    Received,
    Request,
    Scope,
    Send,
    answer,
)
from gre_bridge.devstack.keys import Keys
from gre_bridge.devstack.onesignal import OneSignal
from gre_bridge.devstack.postgres import SUPERUSER, EmbeddedPostgres
from gre_bridge.devstack.postgrest.app import PostgREST, open_pool
from gre_bridge.devstack.pusher import Pusher
from gre_bridge.devstack.realtime.app import Realtime
from gre_bridge.devstack.server import listen, serve
from gre_bridge.devstack.storage.app import Storage
from gre_bridge.devstack.storage.faults import StorageFaults
from gre_bridge.devstack.try_page import TryPage


class Stack:
    """The running stack; an async context manager. All times are in seconds."""

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        bin_dir: Path | None = None,
        durable: bool = True,
        on_request: Callable[[str, Request], None] | None = None,
    ) -> None:
        """`port` 0 takes a free one. `on_request` is called with the sink's name and each request as it comes in."""
        self.data_dir = data_dir.absolute()
        self.port = port
        self.keys = Keys.of(self.data_dir)
        self.user_token = self.keys.user_token
        self.postgres = EmbeddedPostgres(data_dir=self.data_dir, bin_dir=bin_dir, durable=durable)
        self.received = {
            sink: Received(on_request=functools.partial(on_request, sink) if on_request else None)
            for sink in ("pusher", "onesignal")
        }
        self.pusher = Pusher(
            app_id=self.keys.pusher_app_id,
            key=self.keys.pusher_key,
            secret=self.keys.pusher_secret,
            received=self.received["pusher"],
        )
        self.onesignal = OneSignal(
            app_id=self.keys.onesignal_app_id,
            api_key=self.keys.onesignal_api_key,
            received=self.received["onesignal"],
        )
        self.faults = {
            "pusher": Faults(self.pusher, refused=self.pusher.refused),
            "onesignal": Faults(self.onesignal, refused=self.onesignal.refused),
        }
        self.try_page = TryPage(self.keys)
        self._routes: tuple[tuple[str, str, App], ...] = ()
        self._exit = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The address of all services: http://127.0.0.1:PORT."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything; raises ConfigurationError (a port in use, PostgreSQL's reason)."""
        async with contextlib.AsyncExitStack() as exits:
            listening = exits.enter_context(listen(self.port))
            exits.push_async_callback(asyncio.to_thread, self.postgres.stop)
            await asyncio.to_thread(self.postgres.start)
            await asyncio.to_thread(self.postgres.install_supabase)
            pool = open_pool(self.postgres.dsn(user="authenticator"))
            exits.push_async_callback(pool.close, timeout=5)
            await pool.open(wait=True, timeout=30)
            for service in self._supabase(pool):
                await service.start()
                exits.push_async_callback(service.stop)
            await exits.enter_async_context(serve(self, listening))
            self.port = listening.getsockname()[1]
            self._exit = exits.pop_all()

    async def stop(self) -> None:
        """Stop everything, PostgreSQL last."""
        await self._exit.aclose()

    def _supabase(self, pool: AsyncConnectionPool) -> tuple[PostgREST, Realtime, Storage]:
        rest = self.rest = PostgREST(pool=pool, jwt_secret=self.keys.jwt_secret, require_apikey=True)
        self.realtime = Realtime(dsn=self.postgres.dsn(user=SUPERUSER), jwt_secret=self.keys.jwt_secret)
        storage = Storage(
            dsn=self.postgres.dsn(user="supabase_storage_admin"),
            jwt_secret=self.keys.jwt_secret,
            directory=self.data_dir / "storage",
        )
        self.faults["rest"] = Faults(_mounted(rest, "/rest/v1"))
        self.faults["storage"] = StorageFaults(_mounted(storage, "/storage/v1"))
        control_api = ControlApi(
            faults=self.faults,
            received=self.received,
            pusher=self.pusher,
            onesignal=self.onesignal,
            realtime=self.realtime,
            postgres=self.postgres,
        )
        self._routes = (
            ("/rest/v1/", "http", self.faults["rest"]),
            ("/storage/v1/", "http", self.faults["storage"]),
            ("/apps/", "http", self.faults["pusher"]),
            ("/onesignal/", "http", self.faults["onesignal"]),
            ("/realtime/v1/", "http", self.realtime),
            ("/realtime/v1/", "websocket", self.realtime),
            ("/app/", "websocket", self.pusher.channels),
            ("/__stack/", "http", control_api),
            ("/try", "http", self.try_page),
        )
        return rest, self.realtime, storage

    def env(self) -> dict[str, str]:
        """Return the variables with which the bridge and the portals connect to this stack."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_ANON_KEY": self.keys.anon_key,
            "SUPABASE_SERVICE_KEY": self.keys.service_key,
            "SUPABASE_JWT_SECRET": self.keys.jwt_secret,
            "SUPABASE_DB_URL": self.postgres.dsn(),
            "PUSHER_APP_ID": self.keys.pusher_app_id,
            "PUSHER_KEY": self.keys.pusher_key,
            "PUSHER_SECRET": self.keys.pusher_secret,
            "PUSHER_CLUSTER": "mt1",
            "PUSHER_HOST": "127.0.0.1",
            "PUSHER_PORT": str(self.port),
            "PUSHER_SSL": "false",
            "ONESIGNAL_APP_ID": self.keys.onesignal_app_id,
            "ONESIGNAL_API_KEY": self.keys.onesignal_api_key,
            "ONESIGNAL_API_URL": f"{self.url}/onesignal",
            "GRE_DEV_STACK": self.url,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to its service, or refuse it."""
        path = scope["path"]
        for prefix, kind, app in self._routes:
            if path.startswith(prefix) and kind == scope["type"]:
                try:
                    return await app(scope, receive, send)
                except BodyTooLargeError:
                    return await answer(send, 413, {"message": "the body is too large"})
                except ConnectionError:
                    return None  # the client left while it sent its request
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008, "reason": "not offered"})
        return await answer(
            send, 501, {"message": f"the embedded stack does not offer {path}", "code": "not_offered"}
        )


def _mounted(app: App, root: str) -> App:
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": root}, receive, send)

    return mounted
