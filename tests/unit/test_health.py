"""The operator's endpoints over ASGI: liveness, readiness with its problems, and access to the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from pydantic import SecretStr

from gre_bridge.api.app import create_app
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.config.settings import Settings
from gre_bridge.daemon import link
from gre_bridge.daemon.admin_server import AdminServer, merged
from gre_bridge.daemon.api_process import ApiHealth
from gre_bridge.daemon.health import ProcessHealth, ProcessName, iteration_patience
from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.status import DatabaseStatus
from gre_bridge.db.types import DeskStats
from gre_bridge.errors import BridgeError, TransientError
from gre_bridge.metrics import Metrics
from tests.support.waiting import pause

LOCAL, REMOTE = ("127.0.0.1", 40000), ("203.0.113.9", 40000)
ROW = {"sink": "pusher", "enabled": True, "pending": 7, "oldest_age": 12.5, "dead": 2, "lanes_blocked": 1}
DESK = DeskStats(
    "least_busy", unassigned=3, assigned=2, oldest_age=61.5, available_staff=1, staff=4, opens=True
)


def settings(**more: Any) -> Settings:
    return Settings(supabase_url="https://p.supabase.co", supabase_service_key=SecretStr("key"), **more)


class Figures:
    """A database with a backlog."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = [ROW]
        self.desk = DESK
        self.asked = 0
        self.error: BridgeError | None = None
        self.desk_error: BridgeError | None = None
        self.hangs = False

    async def _answer(self) -> None:
        await pause(3600 if self.hangs else 0, "a database that hangs")
        if self.error is not None:
            raise self.error

    async def stats(self) -> list[dict[str, Any]]:
        self.asked += 1
        await self._answer()
        return self.rows

    async def desk_stats(self) -> DeskStats:
        await self._answer()
        if self.desk_error is not None:
            raise self.desk_error
        return self.desk

    async def schema_version(self) -> int:
        await self._answer()
        return 2


class StubHealth:
    """The health of a process, set by the test."""

    def __init__(self, process: ProcessName, status: DatabaseStatus) -> None:
        self.process = process
        self.database = status
        self.known_problems: list[str] = []
        self.known_warnings: list[str] = []
        self.stalled_loop = ""
        self.sinks: list[dict[str, Any]] = []

    def stalled(self) -> str:
        return self.stalled_loop

    async def state(self, *, ask_database: bool = True) -> dict[str, Any]:
        problem = await self.database.problem() if ask_database else ""
        return {
            "process": self.process,
            "pid": 1,
            "problems": [*self.known_problems, *([problem] if problem else [])],
            "warnings": self.known_warnings,
            "overview": {"connections": 0, "realtime": {}, "sinks": self.sinks},
        }


class Operator:
    """A process's admin port and its client."""

    def __init__(
        self, token: str | None = None, process: ProcessName = "relay", line: link.Link | None = None
    ) -> None:
        self.figures = Figures()
        self.metrics = Metrics()
        status = DatabaseStatus(cast("RelayDatabase", self.figures), self.metrics)
        self.health = StubHealth(process, status)
        self.server = AdminServer(
            health=cast("ProcessHealth", self.health), status=status, metrics=self.metrics, link=line,
            settings=settings(metrics_token=token),
        )  # fmt: skip

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        client: tuple[str, int] = LOCAL,
        headers: dict[str, Any] | None = None,
        base: str = "http://127.0.0.1:5001",
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.server.app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            return await http.request(method, path, headers=headers)


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[Operator, Operator]]:
    """A relay and an API with the link between them."""
    ends = link.pair()
    lines = [link.Link(end) for end in ends]
    relay, api = Operator(process="relay", line=lines[0]), Operator(process="api", line=lines[1])
    try:
        with lines[0].serving(relay.server), lines[1].serving(api.server):
            yield relay, api
    finally:
        for end in ends:
            end.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# Liveness and readiness --------------------------------------------------------------------------------------------


async def test_healthz_covers_this_process_only() -> None:
    operator = Operator()
    operator.health.known_problems = ["the database has not been reached yet"]
    answer = await operator.ask("/healthz", client=REMOTE)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    operator.health.stalled_loop = "pusher: its loop has not turned for 99 s"
    assert (await operator.ask("/healthz")).status_code == 503
    assert operator.figures.asked == 0


async def test_readyz_answers_503_with_the_problems_until_there_are_none() -> None:
    operator = Operator()
    operator.health.known_problems = ["schema version 1, this worker knows 2", "stopping"]
    answer = await operator.ask("/readyz", client=REMOTE)
    assert answer.status_code == 503
    assert (answer.json()["ready"], answer.json()["problems"]) == (False, operator.health.known_problems)
    operator.health.known_problems = []
    answer = await operator.ask("/readyz", client=REMOTE)
    assert (answer.status_code, answer.json()["ready"], answer.json()["problems"]) == (200, True, [])


async def test_an_unavailable_sink_is_reported_and_does_not_affect_readiness() -> None:
    operator = Operator()
    operator.health.sinks = [{"sink": "pusher", "breaker": "open", "error": "Pusher answered HTTP 500"}]
    answer = await operator.ask("/readyz")
    assert (answer.status_code, answer.json()["sinks"]) == (200, operator.health.sinks)


@pytest.mark.parametrize(
    ("error", "hangs"), [(TransientError("gre_schema_version: PGRST001"), False), (None, True)]
)
async def test_a_database_that_does_not_answer_is_a_problem(error: BridgeError | None, hangs: bool) -> None:
    operator = Operator()
    operator.figures.error, operator.figures.hangs = error, hangs
    async with asyncio.timeout(60):
        answer = await operator.ask("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"] == [str(error) if error else "the database has not answered within 1 s"]


async def test_a_read_only_database_is_a_warning() -> None:
    operator = Operator()
    operator.health.known_warnings = ["pusher: gre_relay_claim_v1: the database is read-only"]
    answer = await operator.ask("/readyz")
    assert (answer.status_code, answer.json()["warnings"]) == (200, operator.health.known_warnings)


async def test_either_process_answers_for_both() -> None:
    async with two() as (relay, api):
        relay.health.known_problems, api.health.known_problems = ["relay's"], ["api's", "relay's"]
        relay.health.sinks = [{"sink": "pusher", "breaker": "closed", "error": None}]
        for operator in (relay, api):
            body = (await operator.ask("/readyz")).json()
            assert sorted(body["problems"]) == ["api's", "relay's"]
            assert body["sinks"] == relay.health.sinks
            assert set(body["processes"]) == {"relay", "api"}
            one = (await operator.ask("/readyz?process=relay")).json()
            assert (one["problems"], set(one["processes"])) == (["relay's"], {"relay"})
        assert (await relay.ask("/readyz?process=none")).status_code == 400


async def test_a_process_that_does_not_answer_is_reported_and_not_waited_for() -> None:
    ends = link.pair()
    relay_line, api_line = (link.Link(end) for end in ends)
    api = Operator(process="api", line=api_line)
    relay = Operator(process="relay", line=relay_line)
    try:
        with api_line.serving(api.server):
            async with asyncio.timeout(60):
                first = await api.ask("/readyz")
            assert (first.status_code, first.json()["problems"]) == (
                503,
                ["relay: the process does not answer"],
            )
            with relay_line.serving(relay.server):
                assert (await api.ask("/readyz")).status_code == 200
            async with asyncio.timeout(60):
                again = await api.ask("/readyz")
            # It is being restarted, so clients of the API need no other instance.
            assert (again.status_code, again.json()["warnings"]) == (
                200,
                ["relay: the process does not answer"],
            )
            assert "gre_build_info" in (await api.ask("/metrics")).text
    finally:
        for end in ends:
            end.close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_head_is_answered_without_a_body(path: str) -> None:
    answer = await Operator().ask(path, method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await Operator().ask(path, method="POST")).status_code == 405


# Metrics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:5001", "http://localhost", "http://[::1]:5001", "http://127.0.0.1"]
)
async def test_metrics_are_open_on_loopback(host: str, base: str) -> None:
    answer = await Operator().ask("/metrics", client=(host, 1), base=base)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'gre_backlog{process="relay",sink="pusher"} 7.0' in answer.text


@pytest.mark.parametrize("host", ["203.0.113.9", "10.0.0.1", "2001:db8::1", "unix:", "testclient"])
async def test_metrics_are_closed_to_others(host: str) -> None:
    operator = Operator()
    answer = await operator.ask("/metrics", client=(host, 1))
    assert answer.status_code == 403
    assert "gre_backlog" not in answer.text
    assert operator.figures.asked == 0


PROXY = [
    {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"X-Forwarded-For": ""},
    {"X-Real-IP": "203.0.113.9"}, {"Via": "1.1 proxy"}, {"CF-Connecting-IP": "203.0.113.9"},
    {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Host": "chat.example.com"}, {"Host": "chat.example.com"},
    {"Host": "203.0.113.9:5001"}, {"Host": "localhost.example.com"},
]  # fmt: skip


@pytest.mark.parametrize("header", PROXY, ids=str)
async def test_a_proxied_request_is_not_local(header: dict[str, str]) -> None:
    assert (await Operator().ask("/metrics", headers=header)).status_code == 403
    with_token = Operator("the-token")
    assert (await with_token.ask("/metrics", headers=header)).status_code == 403
    answer = await with_token.ask("/metrics", headers={**header, **bearer("the-token")})
    assert answer.status_code == 200


@pytest.mark.parametrize("client", [LOCAL, REMOTE])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer("the-token"), 200),
        (bearer("the-tokem"), 403),
        (bearer(""), 403),
        ({"Authorization": "Basic the-token"}, 403),
        ({"Authorization": "Bearer th\u00e9-token"}, 403),
        ({}, 403),
    ],
)
async def test_a_configured_token_is_required_from_every_address(
    headers: dict[str, str], status: int, client: tuple[str, int]
) -> None:
    """With a proxy that sends no client address every request looks local."""
    answer = await Operator("the-token").ask(
        "/metrics", client=client, headers={k: v.encode("latin-1") for k, v in headers.items()}
    )
    assert answer.status_code == status
    assert "the-token" not in answer.text


async def test_the_backlog_is_read_when_scraped_and_cached_between() -> None:
    operator = Operator()
    await operator.ask("/readyz")
    assert operator.figures.asked == 0
    await asyncio.gather(*(operator.ask("/metrics") for _ in range(5)))
    assert operator.figures.asked == 1


async def test_an_error_of_the_queue_does_not_hide_the_backlog() -> None:
    operator = Operator()
    operator.figures.desk_error = TransientError("the queue cannot be read")
    assert 'gre_backlog{process="relay",sink="pusher"} 7.0' in (await operator.ask("/metrics")).text


async def test_an_empty_backlog_is_exported_as_zero() -> None:
    operator = Operator()
    operator.figures.rows = [{**ROW, "pending": 0, "oldest_age": None, "dead": 0, "lanes_blocked": 0}]
    text = (await operator.ask("/metrics")).text
    assert 'gre_backlog{process="relay",sink="pusher"} 0.0' in text
    assert 'gre_backlog_oldest_age_seconds{process="relay",sink="pusher"} 0.0' in text


async def test_the_queue_is_exported_with_the_mode_of_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator()
    text = (await operator.ask("/metrics")).text
    for line in (
        'gre_sessions_waiting{assigned="no",process="relay"} 3.0',
        'gre_sessions_waiting{assigned="yes",process="relay"} 2.0',
        'gre_queue_oldest_age_seconds{assignment="least_busy",process="relay"} 61.5',
        'gre_staff_available{assignment="least_busy",process="relay"} 1.0',
    ):
        assert line in text
    operator.figures.desk = dataclasses.replace(DESK, assignment="off", oldest_age=0, available_staff=0)
    monkeypatch.setattr("gre_bridge.db.status.STATS_AGE", 0.0)
    text = (await operator.ask("/metrics")).text
    assert 'gre_queue_oldest_age_seconds{assignment="off",process="relay"} 0.0' in text
    assert "least_busy" not in text


async def test_metrics_are_served_while_the_database_is_down() -> None:
    operator = Operator()
    operator.figures.error = TransientError("gre_relay_stats_v1: PGRST001")
    answer = await operator.ask("/metrics")
    assert answer.status_code == 200
    assert 'gre_database_errors_total{kind="transient",process="relay"} 1.0' in answer.text


async def test_the_metrics_of_both_processes_are_merged_with_the_backlog_once() -> None:
    async with two() as (relay, api):
        relay.metrics.wakeups.inc(3)
        api.metrics.wakeups.inc(5)
        for operator in (api, relay, api):
            text = (await operator.ask("/metrics")).text
            assert text.count("# TYPE gre_wakeups_total counter\n") == 1
            assert (
                'gre_wakeups_total{process="relay"} 3.0\ngre_wakeups_total{process="api"} 5.0\n' in text
                or ('gre_wakeups_total{process="api"} 5.0\ngre_wakeups_total{process="relay"} 3.0\n' in text)
            )
            assert [line for line in text.splitlines() if line.startswith("gre_backlog{")] == [
                'gre_backlog{process="relay",sink="pusher"} 7.0'
            ]
            one = (await operator.ask("/metrics?process=api")).text
            assert 'gre_wakeups_total{process="api"}' in one and 'process="relay"' not in one


def test_merged_text_keeps_every_sample_under_its_own_metric() -> None:
    one = (
        b'# HELP a Words # HELP b\n# TYPE a gauge\na{x="1"} 1.0\n# HELP c C\n# TYPE c counter\nc_total 2.0\n'
    )
    two = b'# HELP a Words # HELP b\n# TYPE a gauge\na{x="2"} 3.0\n'
    assert merged([one, two]).decode() == (
        '# HELP a Words # HELP b\n# TYPE a gauge\na{x="1"} 1.0\na{x="2"} 3.0\n'
        "# HELP c C\n# TYPE c counter\nc_total 2.0\n"
    )


async def test_the_process_metrics_are_exported() -> None:
    text = (await Operator().ask("/metrics")).text
    for name in (
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "gre_build_info",
    ):
        assert f"\n{name}{{" in text
    assert "_created" not in text


# The link between the processes ----------------------------------------------------------------------------


class Peer:
    def __init__(self) -> None:
        self.hints: list[str] = []

    async def answer(self, request: str) -> bytes:
        await pause(0.01 if request == "slow" else 0, "the slow response comes last")
        return request.encode() * 100_000

    def on_hint(self, hint: str) -> None:
        self.hints.append(hint)


async def test_a_long_response_arrives_whole_and_responses_do_not_mix() -> None:
    ends = link.pair()
    here, there = (link.Link(end) for end in ends)
    peer = Peer()
    with here.serving(peer), there.serving(peer, peer):
        here.hint("a session")
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(here.request(q, timeout=50) for q in ("slow", "b", "c")))
    assert answers == [b"slow" * 100_000, b"b" * 100_000, b"c" * 100_000]
    assert peer.hints == ["a session"]
    for end in ends:
        end.close()


# The API's port ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("docs", [False, True])
async def test_the_api_port_reports_only_ok_or_not(docs: bool) -> None:
    status = DatabaseStatus(cast("RelayDatabase", Figures()), Metrics())
    process: Any = SimpleNamespace(problems=list, stalled=str, overview=dict)
    stopping = asyncio.Event()
    app = create_app(
        health=ApiHealth(process=process, database=status, stopping=stopping, link=None),
        authenticator=Authenticator(None, AuthThrottle(60)), settings=settings(docs=docs), endpoint=None, metrics=Metrics(),
    )  # fmt: skip
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://daemon") as http:
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.text) == (200, "ok\n")
        stopping.set()
        assert (await http.get("/healthz")).status_code == 503
        for path in (
            "/",
            "/readyz",
            "/metrics",
            "/redoc",
            "/docs/",
            "/docs/core.py",
            "/docs/..%2f__init__.py",
        ):
            assert (await http.get(path)).status_code == 404
        for path in ("/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == (200 if docs else 404)


# Limits of stalls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.5, 10, 120])
def test_the_limit_of_a_stall_covers_the_time_limits_of_the_calls_of_a_loop(timeout: float) -> None:
    patience = iteration_patience(settings(request_timeout=timeout, lease_seconds=300, poll_interval=300))
    assert patience > 300 + 2 * timeout
