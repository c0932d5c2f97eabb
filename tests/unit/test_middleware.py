"""The middleware of every HTTP answer, and signatures for Pusher, without a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
import structlog
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gre_bridge.api import middleware
from gre_bridge.api.app import create_app
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.middleware import BodyLimit, ErrorBoundary, RequestContext
from gre_bridge.api.rest.health import ServiceHealth
from gre_bridge.api.rest.pusher_auth import Signer
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.config.settings import Settings
from gre_bridge.db.callers import Identity, WriteObserver
from gre_bridge.db.postgrest import PostgrestClient
from gre_bridge.db.users import UserDatabase
from gre_bridge.metrics import Metrics

PLAYER, STAFF, NOBODY = Identity("player", player_id=29), Identity("admin", staff_id="s1"), Identity("none")


def settings(**more: Any) -> Settings:
    return Settings(supabase_url="https://p.supabase.co", supabase_service_key=SecretStr("key"), **more)


async def echo(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())}")


async def breaks(request: Request) -> Response:
    raise ValueError(f"secret text {request.url}")


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/breaks", breaks),
    ],
    middleware=[Middleware(RequestContext), Middleware(ErrorBoundary), Middleware(BodyLimit)],
)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=APP), base_url="http://daemon") as client:
        yield client


async def test_an_exception_is_logged_without_its_text(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await http.get("/breaks", headers={"X-Request-Id": "r1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r1")
    assert answer.json() == {
        "success": False, "error": "something went wrong here; it was noted", "code": "internal_error", "request_id": "r1",
    }  # fmt: skip
    (line,) = logs
    assert (line["event"], line["request_id"], line["log_level"]) == ("request_failed", "r1", "error")
    assert "secret" not in line["event"]


async def test_bodies_are_complete_and_limited(http: httpx.AsyncClient) -> None:
    async def parts(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    assert (await http.post("/echo", content=parts(64))).text == "65536"
    assert (await http.post("/echo", content=parts(65))).status_code == 413
    assert (await http.post("/echo", content=parts(2000))).status_code == 413
    assert (await http.post("/echo", content=b"x" * 5_000_000)).status_code == 413


async def test_a_body_has_a_time_limit(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_TIMEOUT", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": [], "query_string": b""}
    await APP(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def signer(**more: Any) -> Signer:
    return Signer(
        settings(
            pusher_app_id="1",
            pusher_key="key",
            pusher_secret=SecretStr("secret"),
            pusher_cluster="eu",
            **more,
        )
    )


@pytest.mark.parametrize(
    ("who", "channel", "may"),
    [
        (PLAYER, "presence-guest-29", True),
        (PLAYER, "presence-guest-2", False),
        (PLAYER, "private-player-29", False),
        (PLAYER, "private-desk", False),
        (STAFF, "private-desk", True),
        (STAFF, "presence-staff-portal", True),
        (STAFF, "private-staff-portal", False),
        (STAFF, "private-encrypted-desk", False),
        (STAFF, "desk", False),
        (STAFF, "presence-guest-{player_id}", False),
        (STAFF, "presence-guest-None", False),
        (NOBODY, "private-desk", False),
        (NOBODY, "presence-guest-None", False),
    ],
)
def test_the_channels_are_those_of_the_settings(who: Identity, channel: str, may: bool) -> None:
    named = signer(
        pusher_player_channels=("desk", "private-encrypted-desk"), pusher_staff_channels=("private-desk",),
        pusher_session_channels=("presence-guest-{player_id}",), pusher_read_channels=(),
        pusher_desk_channels=(),
    )  # fmt: skip
    assert named.may_subscribe(who, channel) is may


def test_the_signature_of_pushers_documentation() -> None:
    documented = Signer(
        settings(
            pusher_app_id="1",
            pusher_key="278d425bdf160c739803",
            pusher_secret=SecretStr("7ad3773142a6692b25b8"),
            pusher_cluster="eu",
        )
    )
    assert documented.sign(STAFF, "1234.1234", "private-foobar") == {
        "auth": "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    }


async def test_without_pusher_nothing_is_signed() -> None:
    rest = await PostgrestClient.open(url="http://127.0.0.1:9", key="key")
    app = create_app(
        health=cast("ServiceHealth", object()),
        authenticator=Authenticator(UserDatabase(rest, rest, cast("WriteObserver", None)), AuthThrottle(60)),
        settings=settings(),
        endpoint=None,
        metrics=Metrics(),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://daemon") as client:
        form = {"socket_id": "1.2", "channel_name": "private-staff-portal"}
        answer = await client.post("/api/pusher/auth", data=form, headers={"Authorization": "Bearer t"})
    await rest.aclose()
    assert (answer.status_code, answer.json()["code"]) == (503, "pusher_off")
