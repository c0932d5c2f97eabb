"""Private channels: signatures by role, and their acceptance by Pusher."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets

from tests.api.conftest import Api, Person


async def subscribe(api: Api, who: Person, channel: str) -> dict[str, Any]:
    """As pusher-js: connect, have the subscription signed for this socket, subscribe; return Pusher's answer."""
    env = api.stack.env
    url = f"ws://{env['PUSHER_HOST']}:{env['PUSHER_PORT']}/app/{env['PUSHER_KEY']}?protocol=7&client=js&version=8"
    async with asyncio.timeout(60), websockets.connect(url) as socket:
        hello = json.loads(await socket.recv())
        form = {"socket_id": json.loads(hello["data"])["socket_id"], "channel_name": channel}
        answer = await asyncio.to_thread(who.ask, "POST", "/api/pusher/auth", data=form)
        assert answer.status_code == 200, answer.text
        await socket.send(
            json.dumps({"event": "pusher:subscribe", "data": {"channel": channel, **answer.json()}})
        )
        event: dict[str, Any] = json.loads(await socket.recv())
        return event


async def test_pusher_accepts_the_signatures(api: Api, player_id: int) -> None:
    for who, channel in (
        (api.player(player_id), f"private-player-{player_id}"),
        (api.backend(f"player:{player_id}"), f"private-player-{player_id}"),
        (api.staff(), "private-staff-portal"),
        (api.backend("staff:s1"), "private-staff-portal"),
    ):
        event = await subscribe(api, who, channel)
        assert (event["event"], event["channel"]) == ("pusher_internal:subscription_succeeded", channel)
    event = await subscribe(api, api.staff(), "presence-staff-portal")
    presence = json.loads(event["data"])["presence"]
    assert presence["hash"] == {"s1": {"name": "Sam", "role": "staff"}}


@pytest.mark.parametrize(
    ("role", "channel"),
    [
        ("player", "private-player-{other}"),
        ("player", "private-player-{own}0"),
        ("player", "private-player-"),
        ("player", "private-player-{player_id}"),
        ("player", "PRIVATE-PLAYER-{own}"),
        ("player", "private-staff-portal"),
        ("player", "presence-staff-portal"),
        ("player", "presence-player-{own}"),
        ("player", "private-encrypted-player-{own}"),
        ("player", "private-player-{own}:{{}}"),
        ("staff", "private-player-{own}"),
        ("staff", "private-encrypted-staff-portal"),
        ("staff", "private-else"),
        ("staff", "staff-portal"),
        ("staff", "private-staff-portal\n"),
        ("staff", "#server-to-user-s1"),
    ],
)
def test_other_channels_are_refused(api: Api, player_id: int, role: str, channel: str) -> None:
    who = api.player(player_id) if role == "player" else api.staff()
    name = channel if channel.endswith("{player_id}") else channel.format(own=player_id, other=player_id + 1)
    for body in (
        {"json": {"socket_id": "1.2", "channel_name": name}},
        {"data": {"socket_id": "1.2", "channel_name": name}},
    ):
        answer = who.ask("POST", "/api/pusher/auth", **body)
        assert (answer.status_code, answer.json()["code"]) == (403, "channel_refused")


@pytest.mark.parametrize(
    "socket_id",
    [
        "",
        "1",
        "1.",
        ".2",
        "1.2:presence-staff-portal",
        "1.2\n",
        "a.b",
        "1.2.3",
        "-1.2",
        1.2,
        None,
        "1" * 70 + ".2",
    ],
)
def test_a_socket_id_is_two_numbers(api: Api, player_id: int, socket_id: Any) -> None:
    """Other text could be signed as another subscription."""
    answer = api.player(player_id).post(
        "/api/pusher/auth", socket_id=socket_id, channel_name=f"private-player-{player_id}"
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "channel_refused")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"socket_id=1.2", b"a=1&" * 50])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", ""])
def test_an_incomplete_body_is_refused(api: Api, content: bytes, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = api.staff().ask("POST", "/api/pusher/auth", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "channel_refused")
