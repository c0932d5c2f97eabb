"""The operator's endpoints, over ASGI: alive, ready and why not, and who may read the metrics."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest
from pydantic import SecretStr

from gre_bridge.api.access import Access
from gre_bridge.api.app import create_app
from gre_bridge.api.guard import Guard
from gre_bridge.api.health import Health
from gre_bridge.errors import TransientError
from gre_bridge.settings import Settings
from gre_bridge.store import Store
from gre_bridge.telemetry import Metrics

LOCAL, REMOTE = ("127.0.0.1", 40000), ("203.0.113.9", 40000)
ROW = {"sink": "pusher", "enabled": True, "pending": 7, "oldest_age": 12.5, "dead": 2, "lanes_blocked": 1}


class Figures:
    """What the database says about the backlog."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = [ROW]
        self.asked = 0
        self.error: TransientError | None = None

    async def stats(self) -> list[dict[str, Any]]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.rows


class Operator:
    """A daemon's HTTP face and someone who asks it."""

    def __init__(self, token: str | None = None, *, docs: bool = False) -> None:
        self.problems: list[str] = []
        self.alive = True
        self.figures = Figures()
        self.metrics = Metrics()
        settings = Settings(
            supabase_url="https://p.supabase.co",
            supabase_service_key=SecretStr("key"),
            metrics_token=token,
            docs=docs,
        )
        health = Health(
            self.metrics, cast("Store", self.figures), lambda: self.problems, lambda: self.alive, settings
        )
        self.app = create_app(
            health=health, access=Access(None, Guard(60)), settings=settings, sockets=None, overview=dict
        )

    async def get(
        self, path: str, *, client: tuple[str, int] = LOCAL, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon") as http:
            return await http.get(path, headers=headers)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_healthz_is_about_the_process_alone() -> None:
    operator = Operator()
    operator.problems = ["the database has not been reached yet"]
    answer = await operator.get("/healthz", client=REMOTE)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    operator.alive = False
    assert (await operator.get("/healthz")).status_code == 503
    assert operator.figures.asked == 0


async def test_readyz_says_503_with_the_reasons_until_there_are_none() -> None:
    operator = Operator()
    operator.problems = ["pusher: PUSHER_SECRET was refused", "stopping"]
    answer = await operator.get("/readyz", client=REMOTE)
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "problems": ["pusher: PUSHER_SECRET was refused", "stopping"]}
    operator.problems = []
    answer = await operator.get("/readyz", client=REMOTE)
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": []})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_metrics_are_open_on_loopback(host: str) -> None:
    answer = await Operator().get("/metrics", client=(host, 1))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'gre_backlog{sink="pusher"} 7.0' in answer.text


@pytest.mark.parametrize("host", ["203.0.113.9", "10.0.0.1", "2001:db8::1", "unix:", "testclient"])
async def test_metrics_are_closed_to_others(host: str) -> None:
    operator = Operator()
    answer = await operator.get("/metrics", client=(host, 1))
    assert answer.status_code in (401, 403)
    assert "gre_backlog" not in answer.text
    assert operator.figures.asked == 0


@pytest.mark.parametrize(
    "header", [{"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"X-Forwarded-For": ""}]
)
async def test_what_a_proxy_passes_on_is_not_local(header: dict[str, str]) -> None:
    assert (await Operator().get("/metrics", headers=header)).status_code in (401, 403)
    with_token = Operator("the-token")
    assert (await with_token.get("/metrics", headers=header)).status_code in (401, 403)
    answer = await with_token.get("/metrics", headers={**header, **bearer("the-token")})
    assert answer.status_code == 200


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
async def test_the_token_opens_metrics_to_others(headers: dict[str, str], status: int) -> None:
    answer = await Operator("the-token").get(
        "/metrics", client=REMOTE, headers={k: v.encode("latin-1") for k, v in headers.items()}
    )
    assert (200 if answer.status_code == 200 else 403) == status
    assert "the-token" not in answer.text


async def test_a_token_does_not_close_loopback() -> None:
    """The contract is "token or loopback"."""
    assert (await Operator("the-token").get("/metrics")).status_code == 200


async def test_figures_are_read_when_scraped_and_not_more_often_than_they_age() -> None:
    operator = Operator()
    await operator.get("/readyz")
    assert operator.figures.asked == 0
    await asyncio.gather(*(operator.get("/metrics") for _ in range(5)))
    assert operator.figures.asked == 1


async def test_an_empty_backlog_is_nought() -> None:
    operator = Operator()
    operator.figures.rows = [{**ROW, "pending": 0, "oldest_age": None, "dead": 0, "lanes_blocked": 0}]
    text = (await operator.get("/metrics")).text
    assert 'gre_backlog{sink="pusher"} 0.0' in text
    assert 'gre_backlog_oldest_age_seconds{sink="pusher"} 0.0' in text


async def test_metrics_are_served_while_the_database_is_down() -> None:
    operator = Operator()
    operator.figures.error = TransientError("gre_relay_stats: PGRST001")
    answer = await operator.get("/metrics")
    assert answer.status_code == 200
    assert 'gre_store_errors_total{kind="transient"} 1.0' in answer.text


@pytest.mark.parametrize("docs", [False, True])
async def test_the_documentation_is_there_when_asked_for(docs: bool) -> None:
    operator = Operator(docs=docs)
    for path in ("/docs", "/openapi.json"):
        assert (await operator.get(path)).status_code == (200 if docs else 404)
    assert (await operator.get("/redoc")).status_code == 404
