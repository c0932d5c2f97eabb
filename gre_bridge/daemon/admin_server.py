"""The admin port: `/healthz`, `/readyz` (503 with the reasons) and `/metrics`, for the whole daemon.

Both processes accept connections on it, so it answers while one of them runs. The process that accepts asks the other
one over the link, with a time limit. The server is independent of the API, bounds its connections and reads no body.
`?process=relay` or `?process=api` selects one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from gre_bridge.config.settings import Settings
from gre_bridge.daemon.health import ProcessHealth, ProcessName
from gre_bridge.daemon.link import Link
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import Json
from gre_bridge.metrics import Metrics

PEER_TIMEOUT = 1.5
"""Seconds for the response of the other process: longer than its own limit for the database."""
CONNECTIONS = 64
"""Most concurrent connections; further ones get 503."""
IDLE = 30.0
"""Seconds after which a connection without a request is closed."""
_STATE, _METRICS = "state", "metrics"
_OTHER: Mapping[ProcessName, ProcessName] = {"relay": "api", "api": "relay"}
_FROM_A_PROXY = {
    "forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip", "cf-ray", "fly-client-ip", "x-client-ip",
    "x-cluster-client-ip", "x-envoy-external-address", "x-original-host", "x-amzn-trace-id", "cdn-loop",
}  # fmt: skip


async def ask_relay(link: Link | None) -> Json | None:
    """Return the state of the relay; None without one, or if it does not answer in time."""
    return await _other_state(link, ask_database=False)


async def _other_state(link: Link | None, *, ask_database: bool = True) -> Json | None:
    if link is None:
        return None
    response = await link.request(_STATE if ask_database else f"{_STATE} quick", timeout=PEER_TIMEOUT)
    return None if response is None else cast("Json", orjson.loads(response))


class AdminServer:
    """The admin server of one process."""

    def __init__(
        self,
        *,
        health: ProcessHealth,
        status: DatabaseStatus,
        metrics: Metrics,
        link: Link | None,
        settings: Settings,
    ) -> None:
        """`link` connects to the other process, if there is one."""
        self._health = health
        self._status = status
        self._metrics = metrics
        self._link = link
        self._token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
        self._seen_other = False
        self.app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._scrape),
            ]
        )

    async def answer(self, request: str) -> bytes:
        """See RequestHandler."""
        if request == _METRICS:
            if self._health.process == "relay":
                await self._status.refresh()
            else:
                self._status.clear()
            return self._own_metrics()
        return orjson.dumps(await self._health.state(ask_database=request == _STATE))

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        config = uvicorn.Config(
            self.app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=int(IDLE),
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        try:
            await server.serve(sockets=[listener])
        except asyncio.CancelledError:
            server.should_exit = True
            if server.started:
                await server.shutdown(sockets=[listener])
            raise

    async def _healthz(self, _: Request) -> Response:
        """Answer 503 if a loop of this process is stalled."""
        return PlainTextResponse("stuck\n", 503) if self._health.stalled() else PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        """Answer 503 with the reasons if the daemon is not ready."""
        wanted = request.query_params.get("process")
        if wanted not in (None, "relay", "api"):
            return PlainTextResponse("process must be relay or api\n", 400)
        own = self._health.process
        states: dict[str, Json | None] = {}
        if self._link is None:
            states[own] = await self._health.state()
        else:
            states[own], states[_OTHER[own]] = await asyncio.gather(
                self._health.state(), _other_state(self._link)
            )
            self._seen_other |= states[_OTHER[own]] is not None
        if wanted is not None:
            if wanted not in states:
                return PlainTextResponse(f"this daemon has no process {wanted}\n", 404)
            states = {wanted: states[wanted]}
        report = _report(states, relay_may_be_away=self._seen_other and wanted is None)
        return Response(orjson.dumps(report), 200 if report["ready"] else 503, media_type="application/json")

    async def _scrape(self, request: Request) -> Response:
        """Answer in Prometheus' text format."""
        if not self._may_scrape(request):
            return PlainTextResponse("metrics need the token (GRE_METRICS_TOKEN) or loopback\n", 403)
        wanted = request.query_params.get("process")
        own = self._health.process
        other = None if self._link is None else await self._link.request(_METRICS, timeout=PEER_TIMEOUT)
        if own == "relay" or other is None:
            await self._status.refresh()
        else:
            self._status.clear()
        texts = {own: self._own_metrics(), _OTHER[own]: other}
        chosen = [text for name, text in texts.items() if text is not None and wanted in (None, name)]
        return Response(merged(chosen), media_type=CONTENT_TYPE_LATEST)

    def _own_metrics(self) -> bytes:
        return generate_latest(_Labelled(self._metrics.registry, self._health.process))

    def _may_scrape(self, request: Request) -> bool:
        """Return True for a caller with the token if one is set, else for a caller on this machine."""
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(given.strip().encode(), self._token.encode())
            return scheme.lower() == "bearer" and matches
        # Behind a local proxy every caller has a loopback address.
        return (
            _is_loopback(request.client.host if request.client else "")
            and _is_local_host(request.headers.get("host", ""))
            and not _came_through_a_proxy(request.headers)
        )


def _report(states: Mapping[str, Json | None], *, relay_may_be_away: bool) -> Json:
    """Return the body of `/readyz`; None stands for a process that does not answer.

    A relay that restarts does not affect the clients of the API, so it is only a warning.
    """
    problems: list[str] = []
    warnings: list[str] = []
    sinks: list[Json] = []
    for name, state in states.items():
        if state is None:
            away = warnings if name == "relay" and relay_may_be_away else problems
            away.append(f"{name}: the process does not answer")
            continue
        problems += [line for line in state["problems"] if line not in problems]
        warnings += [line for line in state["warnings"] if line not in warnings]
        sinks += state["overview"]["sinks"]
    return {
        "ready": not problems,
        "problems": problems,
        "warnings": warnings,
        "sinks": sinks,
        "processes": {name: state and {"pid": state["pid"], "ready": not state["problems"]} for name, state in states.items()},
    }  # fmt: skip


def merged(texts: Iterable[bytes]) -> bytes:
    """Merge the metrics of several processes; the format requires the samples of a metric to be adjacent.

    The texts come from `generate_latest`: a metric is a HELP line, a TYPE line and its samples. A full parse would block
    the loop of the relay for some milliseconds at each scrape.
    """
    metrics: dict[bytes, list[bytes]] = {}
    for text in texts:
        for part in (b"\n" + text).split(b"\n# HELP ")[1:]:
            name, _, rest = part.partition(b" ")
            known = metrics.setdefault(name, [])
            # HELP and TYPE once, then the samples of all processes.
            known += rest.rstrip(b"\n").split(b"\n")[2 if known else 0 :]
    return b"".join(
        b"# HELP " + name + b" " + b"\n".join(lines) + b"\n" for name, lines in sorted(metrics.items())
    )


class _Labelled(CollectorRegistry):
    """The metrics of a registry, with the label `process` on each sample."""

    def __init__(self, registry: CollectorRegistry, process: str) -> None:
        super().__init__()
        self._source = registry
        self._process = process

    def collect(self) -> Iterable[Metric]:
        for metric in self._source.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "process": self._process})
                for sample in metric.samples
            ]
            yield metric


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_local_host(host: str) -> bool:
    """Return True if a Host header names the loopback interface."""
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 or host.startswith("[") else host
    name = host if host.endswith("]") else name
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))


def _came_through_a_proxy(headers: Headers) -> bool:
    return any(name in _FROM_A_PROXY or name.startswith("x-forwarded") for name in headers)


class _Protocol(H11Protocol):
    """uvicorn's h11 protocol, which closes a connection without a request after IDLE seconds."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(IDLE, self._abort_if_idle)

    def _abort_if_idle(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers of its own."""

    def capture_signals(self) -> object:  # type: ignore[override]
        """Leave signals to the process."""
        return contextlib.nullcontext()
