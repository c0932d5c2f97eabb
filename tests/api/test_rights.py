"""A person who loses a right receives nothing more within seconds, on open sockets and at Pusher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator

import jwt
import pytest
import websockets

from gre_bridge.api.pusher_users import user_id
from gre_bridge.db.callers import Identity
from tests.api.client import Client, entered
from tests.api.conftest import Api

SECONDS = 10.0
"""Limit for the end of a lost right on a busy machine; it takes some tenths of a second."""


def token_of(api: Api, user: str) -> str:
    """A token of Supabase Auth without custom claims."""
    claims = {"aud": "authenticated", "role": "authenticated", "sub": user, "exp": int(time.time()) + 3600}
    return jwt.encode(claims, api.stack.keys.jwt_secret, "HS256")


def link(api: Api, user: str, player: int | None = None, staff: str | None = None) -> None:
    api.sql("select gre_link_user(%s, %s, %s)", user, player, staff)


@contextlib.asynccontextmanager
async def bystanders(api: Api, player: int) -> AsyncIterator[None]:
    """Others stay connected: staff, and an enabled player."""
    keys = api.stack.keys
    tokens = (keys.user_token("staff", staff_id="s1"), keys.user_token("player", player_id=player))
    async with entered(api.worker.url, tokens[0]) as desk, entered(api.worker.url, tokens[1]) as phone:
        yield
        for client in (desk, phone):
            await client.settled()


async def loses(client: Client) -> None:
    assert await client.end(SECONDS) == 4403
    assert client.all("error")[-1]["code"] == "no_identity"


@pytest.mark.parametrize("how", ["unlinked", "row deleted", "inactive", "another user's", "role changed"])
async def test_changed_staff_lose_access(api: Api, player_id: int, other_id: int, how: str) -> None:
    user, staff_id = str(uuid.uuid4()), f"r{player_id}"
    link(api, user, staff=staff_id)
    async with bystanders(api, other_id), entered(api.worker.url, token_of(api, user)) as client:
        assert client.all("authenticated")[0]["staffId"] == staff_id
        match how:
            case "unlinked":
                link(api, user)
            case "row deleted":
                api.sql("delete from gre_staff where staff_id = %s", staff_id)
            case "inactive":
                api.sql("update gre_staff set active = false where staff_id = %s", staff_id)
            case "another user's":
                link(api, str(uuid.uuid4()), staff=staff_id)
            case _:
                api.sql("update gre_staff set role = 'admin' where staff_id = %s", staff_id)
        await loses(client)


async def test_staff_by_claims_without_a_row_lose_access(api: Api, player_id: int, other_id: int) -> None:
    staff_id = f"c{player_id}"
    api.sql("insert into gre_staff (staff_id) values (%s)", staff_id)
    mine = api.stack.keys.user_token("staff", staff_id=staff_id)
    service = {
        "Authorization": f"Bearer {api.stack.env['SUPABASE_SERVICE_KEY']}",
        "X-GRE-Act-As": f"staff:{staff_id}",
    }
    async with (
        bystanders(api, other_id), entered(api.worker.url, mine) as client,
        entered(api.worker.url, None, headers=service) as acting,
    ):  # fmt: skip
        assert acting.all("authenticated")[0]["expiresAt"] is None, (
            "the key has no end that concerns the person"
        )
        api.sql("delete from gre_staff where staff_id = %s", staff_id)
        await asyncio.gather(loses(client), loses(acting))


@pytest.mark.parametrize("how", ["moved", "unlinked", "erased", "row deleted"])
async def test_a_changed_player_loses_access(api: Api, player_id: int, other_id: int, how: str) -> None:
    user = str(uuid.uuid4())
    link(api, user, player=player_id)
    async with bystanders(api, other_id), entered(api.worker.url, token_of(api, user)) as client:
        match how:
            case "moved":
                link(api, user, player=player_id + 10**9)
            case "unlinked":
                link(api, user)
            case "erased":
                api.sql("select gre_erase_player(%s)", player_id)
            case _:
                api.sql("delete from gre_chat_players where player_id = %s", player_id)
        await loses(client)


# At Pusher, which checks no right again -----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def at_pusher(
    api: Api, token: str, channel: str, *, signs_in: bool
) -> AsyncIterator[websockets.ClientConnection]:
    """As pusher-js: `signin()` and a subscription, each signed by the bridge."""
    env = api.stack.env
    person = api.with_token(token)
    url = f"ws://{env['PUSHER_HOST']}:{env['PUSHER_PORT']}/app/{env['PUSHER_KEY']}?protocol=7&client=js&version=8"
    async with websockets.connect(url, proxy=None) as client:
        hello = json.loads(json.loads(await client.recv())["data"])
        if signs_in:
            form = {"socket_id": hello["socket_id"]}
            answer = await asyncio.to_thread(person.ask, "POST", "/api/pusher/user-auth", data=form)
            assert answer.status_code == 200, answer.text
            await client.send(json.dumps({"event": "pusher:signin", "data": answer.json()}))
            assert json.loads(await client.recv())["event"] == "pusher:signin_success"
        form = {"socket_id": hello["socket_id"], "channel_name": channel}
        answer = await asyncio.to_thread(person.ask, "POST", "/api/pusher/auth", data=form)
        await client.send(
            json.dumps({"event": "pusher:subscribe", "data": {"channel": channel, **answer.json()}})
        )
        assert json.loads(await client.recv())["event"] == "pusher_internal:subscription_succeeded"
        yield client


async def ended(client: websockets.ClientConnection) -> int | None:
    """Return Pusher's close code; earlier events are ignored."""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code


@pytest.mark.parametrize("how", ["inactive", "row deleted", "chat off", "moved"])
async def test_a_revoked_user_is_disconnected_at_pusher(
    api: Api, player_id: int, other_id: int, how: str
) -> None:
    user, staff_id = str(uuid.uuid4()), f"p{player_id}"
    if how in ("inactive", "row deleted"):
        link(api, user, staff=staff_id)
        channel = "private-staff-portal"
    else:
        link(api, user, player=player_id)
        channel = f"private-player-{player_id}"
    other = api.stack.keys.user_token("player", player_id=other_id)
    async with (
        at_pusher(api, token_of(api, user), channel, signs_in=True) as client,
        at_pusher(api, other, f"private-player-{other_id}", signs_in=True) as bystander,
    ):
        match how:
            case "inactive":
                api.sql("update gre_staff set active = false where staff_id = %s", staff_id)
            case "row deleted":
                api.sql("delete from gre_staff where staff_id = %s", staff_id)
            case "chat off":
                api.sql("update gre_chat_players set chat_enabled = false where player_id = %s", player_id)
            case _:
                link(api, user, player=player_id + 10**9)
        assert await ended(client) == 4009
        await bystander.send(json.dumps({"event": "pusher:ping", "data": {}}))
        assert json.loads(await asyncio.wait_for(bystander.recv(), SECONDS))["event"] == "pusher:pong"


async def test_connections_are_terminated_after_an_outage_of_pusher(api: Api, player_id: int) -> None:
    """An outage of Pusher does not prolong the right."""
    user, staff_id = str(uuid.uuid4()), f"q{player_id}"
    link(api, user, staff=staff_id)
    async with at_pusher(api, token_of(api, user), "private-staff-portal", signs_in=True) as client:
        api.stack.fault("pusher", {"mode": "status", "status": 500, "for": 2})
        link(api, user)
        assert await ended(client) == 4009


@pytest.mark.parametrize("socket_id", ["", "1", "1.2:x", "1.2::user::{}", "1.2\n", None, 1.2])
def test_a_sign_in_is_signed_for_a_socket_id_only(api: Api, player_id: int, socket_id: object) -> None:
    answer = api.player(player_id).post("/api/pusher/user-auth", socket_id=socket_id)
    assert (answer.status_code, answer.json()["code"]) == (403, "socket_refused")


def test_a_sign_in_contains_the_identity(api: Api, player_id: int) -> None:
    for person, wanted in ((api.player(player_id), f"player_{player_id}"), (api.staff(), "staff_s1")):
        signed = person.post("/api/pusher/user-auth", socket_id="123.456").json()
        assert json.loads(signed["user_data"])["id"] == wanted
    stranger = api.with_token(token_of(api, str(uuid.uuid4())))
    assert stranger.post("/api/pusher/user-auth", socket_id="123.456").status_code == 403
    assert api.with_token(None).post("/api/pusher/user-auth", socket_id="123.456").status_code == 401


@pytest.mark.parametrize("staff_id", ["s1", "player_29", "a b", "ü" * 128, "x" * 128])
def test_pushers_user_ids_are_unique(staff_id: str) -> None:
    mine = user_id(Identity("staff", None, staff_id))
    assert re.fullmatch(r"[A-Za-z0-9_\-=@,.;]{1,200}", mine)
    others = ("s2", "player_2", "a", "ü" * 127, "a;b", mine, mine.removeprefix("staff_"))
    assert mine not in {user_id(Identity("staff", None, other)) for other in others if other != staff_id}
    assert mine != user_id(Identity("player", 29))
    mapped = user_id(Identity("staff", None, staff_id, user_id=str(uuid.uuid4())))
    assert mapped != mine and re.fullmatch(r"[A-Za-z0-9_\-=@,.;]{1,200}", mapped)
