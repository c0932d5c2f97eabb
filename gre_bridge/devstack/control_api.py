"""The control API of the stack at /__stack: faults, the requests that the sinks received, and health.

`GET /__stack/health`; `GET|DELETE /__stack/received`; `GET|POST|DELETE /__stack/faults`. Each service implements its
own faults; this module reads and writes the JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qs

import orjson

from gre_bridge.devstack.faults import Faults, Receive, Received, Scope, Send, answer, read_body
from gre_bridge.devstack.onesignal import OneSignal
from gre_bridge.devstack.postgres import EmbeddedPostgres
from gre_bridge.devstack.pusher import Pusher
from gre_bridge.devstack.realtime.app import Realtime
from gre_bridge.devstack.realtime.faults import RealtimeFaults
from gre_bridge.devstack.try_page import is_local

_LIMIT = 10_000


def _is_local_request(scope: Scope) -> bool:
    """Return False for a request of another site's page: a developer's browser sends its simple requests here too."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get(b"origin")
    return is_local(headers.get(b"host", "")) and (
        origin is None or (origin.startswith("http://") and is_local(origin.removeprefix("http://")))
    )


_CHANNELS = 50
"""The most channels in `health`, those with the most events first."""
_REALTIME = {field.name: field.default for field in fields(RealtimeFaults) if field.name != "sockets"}


class ControlApi:
    """The ASGI application for paths below /__stack/."""

    def __init__(
        self,
        *,
        faults: Mapping[str, Faults],
        received: Mapping[str, Received],
        pusher: Pusher,
        onesignal: OneSignal,
        realtime: Realtime,
        postgres: EmbeddedPostgres,
    ) -> None:
        self._faults = faults
        self._received = received
        self._pusher = pusher
        self._onesignal = onesignal
        self._realtime = realtime
        self._postgres = postgres
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        pairs = parse_qs(scope["query_string"].decode("latin-1"))
        query = {name: values[-1] for name, values in pairs.items()}
        method, path = scope["method"], scope["path"].removeprefix("/__stack/")
        if not _is_local_request(scope):
            await answer(send, 403, {"error": "only programs and pages of this machine may use this"})
            return
        try:
            if path == "faults" and method in ("GET", "POST", "DELETE"):
                if method == "POST":
                    for service, value in orjson.loads(await read_body(receive)).items():
                        await self.set_fault(service, value)
                elif method == "DELETE":
                    every = [*self._faults, "subscribers", "realtime"]
                    for service in [query["service"]] if "service" in query else every:
                        await self.set_fault(service, None)
                await answer(send, 200, self.faults())
            elif path == "received" and method in ("GET", "DELETE"):
                await answer(send, 200, self._read(query) if method == "GET" else self._clear(query))
            elif path == "health" and method == "GET":
                await answer(send, 200, self.health())
            else:
                await answer(send, 404, {"error": "unknown path: there are health, received and faults"})
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            await answer(send, 400, {"error": f"{type(error).__name__}: {error}"})

    def _read(self, query: dict[str, str]) -> dict[str, Any]:
        since = int(query.get("since", 0))
        items = list(self._received[query["sink"]].since(since, int(query.get("limit", _LIMIT))))
        return {"items": items, "last": items[-1]["n"] if items else since}

    def _clear(self, query: dict[str, str]) -> dict[str, Any]:
        for name in [query["sink"]] if "sink" in query else list(self._received):
            self._received[name].clear()
        return {}

    def health(self) -> dict[str, Any]:
        """Return the state of PostgreSQL and counts for each sink. It is cheap to poll."""
        counts = {
            name: {"requests": sink.requests, "accepted": sink.accepted}
            for name, sink in self._received.items()
        }
        tenant = self._realtime.tenant
        realtime = {
            "handed_out": dict(tenant.handed_out.most_common(_CHANNELS)),
            "dropped": dict(tenant.dropped.most_common(_CHANNELS)),
            "sockets": tenant.sockets,
        }
        running = self._postgres.running
        return {"status": "ok", "postgres": running, "received": counts, "realtime": realtime}

    def faults(self) -> dict[str, Any]:
        """Return the faults in force."""
        subscribers = self._onesignal.subscribers
        return {
            **{name: faults.to_json() for name, faults in self._faults.items()},
            "subscribers": None if subscribers is None else sorted(subscribers),
            "realtime": {name: getattr(self._realtime.faults, name) for name in _REALTIME},
            "postgres": "running" if self._postgres.running else "stopped",
        }

    async def set_fault(self, service: str, value: Any) -> None:
        """Set a service's faults, clear them (None), or run its `action`. Raises ValueError for an unknown service or action."""
        value = dict(value) if isinstance(value, dict) else value
        action = value.pop("action", None) if isinstance(value, dict) else None
        match service, action:
            case "postgres", _:
                await self._act_on_postgres(action)
            case "realtime", None:
                self._set_realtime(value or {})
            case "realtime", "close_all":
                self._realtime.faults.close_all(value.get("code", 1006))
            case "realtime", "phx_close_all":
                self._realtime.faults.phx_close_all()
            case "realtime", "system_error_all":
                self._realtime.faults.system_error_all(value.get("message", "fault"))
            case "pusher", "drop_sockets":
                self._pusher.channels.drop_sockets()
            case "subscribers", None:
                self._onesignal.subscribers = None if value is None else set(value)
            case _, None if service in self._faults:
                self._faults[service].set(value)
            case _:
                raise ValueError(f"no service {service}" + (f" with action {action}" if action else ""))

    def _set_realtime(self, value: dict[str, Any]) -> None:
        if unknown := value.keys() - _REALTIME.keys():
            raise ValueError(f"realtime has no fault {', '.join(sorted(unknown))}")
        for name, part in {**_REALTIME, **value}.items():
            setattr(self._realtime.faults, name, part)
        self._realtime.set_limit()

    async def _act_on_postgres(self, action: str | None) -> None:
        steps: dict[str | None, list[Callable[[], Any]]] = {
            "stop": [self._postgres.stop],
            "start": [self._postgres.start],
            "crash": [self._postgres.crash],
            "restart": [self._postgres.stop, self._postgres.start],
            "terminate_backends": [self._postgres.terminate_backends],
        }
        if action not in steps:
            raise ValueError("postgres has the actions stop, start, crash, restart, terminate_backends")
        async with self._one_at_a_time:
            for step in steps[action]:
                await asyncio.to_thread(step)
