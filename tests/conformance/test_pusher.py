"""The embedded stack's Pusher, judged by the `pusher` package and by a client that speaks protocol 7."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pusher
import pusher.errors
import pytest
from websockets.asyncio.client import ClientConnection, connect

from gre_bridge.devstack.faults import Faults, Received
from gre_bridge.devstack.pusher import Pusher
from gre_bridge.devstack.pusher_socket import sign
from gre_bridge.devstack.server import listen, serve
from tests.support.loopback import NO_TLS, PATIENT

APP, KEY, SECRET = "4242", "278d425bdf160c739803", "7ad3773142a6692b25b8"


class Server:
    """A served Pusher with its record, and clients for it."""

    def __init__(self, url: str, service: Pusher, faults: Faults, received: Received) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.service = service
        self.faults = faults
        self._received = received

    def client(self, *, app_id: str = APP, key: str = KEY, secret: str = SECRET) -> pusher.Pusher:
        return pusher.Pusher(app_id, key, secret, host="127.0.0.1", port=self.port, ssl=False)

    def connect(self, *, key: str = KEY, query: str = "protocol=7&client=js&version=8.4.0") -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/app/{key}?{query}")

    def received(self, since: int = 0) -> list[dict[str, Any]]:
        return list(self._received.since(since, 10_000))

    def signed(self, path: str, body: bytes, *, at: float | None = None, **change: str) -> str:
        """The URL of a signed POST, made by hand so that each part of it can be wrong."""
        query = {
            "auth_key": KEY,
            "auth_timestamp": str(int(at or time.time())),
            "auth_version": "1.0",
            "body_md5": hashlib.md5(body).hexdigest(),
            **change,
        }
        text = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
        return f"{self.url}{path}?{text}&auth_signature={sign(SECRET, f'POST{chr(10)}{path}{chr(10)}{text}')}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    received = Received()
    service = Pusher(app_id=APP, key=KEY, secret=SECRET, received=received)
    faults = Faults(service, refused=service.refused)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (service.channels if scope["type"] == "websocket" else faults)(scope, receive, send)

    with listen(0) as listening:
        async with serve(app, listening) as url:
            yield Server(url, service, faults, received)


async def hear(socket: ClientConnection) -> dict[str, Any]:
    """The next frame; the data of events is a JSON string, that of errors and pings an object."""
    frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
    return {**frame, "data": json.loads(frame["data"]) if isinstance(frame["data"], str) else frame["data"]}


async def say(socket: ClientConnection, event: str, data: Any, **more: str) -> None:
    await socket.send(json.dumps({"event": event, "data": data, **more}))


async def subscribe(socket: ClientConnection, channel: str, **data: str) -> dict[str, Any]:
    await say(socket, "pusher:subscribe", {"channel": channel, **data})
    return await hear(socket)


async def socket_id(socket: ClientConnection) -> str:
    frame = await hear(socket)
    assert frame["event"] == "pusher:connection_established"
    assert frame["data"]["activity_timeout"] == 120
    return str(frame["data"]["socket_id"])


async def test_an_event_that_the_package_triggers_reaches_each_subscriber(server: Server) -> None:
    async with server.connect() as staff, server.connect() as other:
        await socket_id(staff)
        await socket_id(other)
        subscribed = await subscribe(staff, "staff-portal")
        assert subscribed == {
            "event": "pusher_internal:subscription_succeeded",
            "channel": "staff-portal",
            "data": {},
        }
        await subscribe(other, "elsewhere")
        client = server.client()
        await asyncio.to_thread(client.trigger, ["staff-portal", "elsewhere"], "new", {"message": "né 🎲"})
        for socket, channel in ((staff, "staff-portal"), (other, "elsewhere")):
            assert await hear(socket) == {"event": "new", "channel": channel, "data": {"message": "né 🎲"}}
        channels = await asyncio.to_thread(client.channels_info, "staff-")
        assert channels == {"channels": {"staff-portal": {}}}


async def test_a_batch_is_recorded_in_order_as_one_request(server: Server) -> None:
    batch = [{"channel": f"c{n}", "name": "e", "data": {"seq": n}} for n in range(10)]
    await asyncio.to_thread(server.client().trigger_batch, batch)
    received = server.received()
    assert [(item["n"], item["channel"], item["data"]["seq"]) for item in received] == [
        (n + 1, f"c{n}", n) for n in range(10)
    ]
    assert {(item["status"], item["request"]) for item in received} == {(200, 1)}
    await asyncio.to_thread(server.client().trigger, "c", "e", "x")
    assert [(item["n"], item["request"]) for item in server.received(10)] == [(11, 11)]


async def test_the_sender_named_by_socket_id_does_not_hear_itself(server: Server) -> None:
    async with server.connect() as one, server.connect() as two:
        me = await socket_id(one)
        await socket_id(two)
        await subscribe(one, "c")
        await subscribe(two, "c")
        await asyncio.to_thread(server.client().trigger, "c", "first", {}, me)
        await asyncio.to_thread(server.client().trigger, "c", "second", {})
        assert (await hear(one))["event"] == "second"
        assert (await hear(two))["event"] == "first"


@pytest.mark.parametrize(
    ("wrong", "status", "error"),
    [
        ({"key": "0" * 20}, 400, pusher.errors.PusherBadRequest),  # pusher-http-php#118: not 401
        ({"secret": "0" * 20}, 401, pusher.errors.PusherBadAuth),
    ],
)
async def test_wrong_credentials_are_refused_and_recorded(
    server: Server, wrong: dict[str, str], status: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await asyncio.to_thread(server.client(**wrong).trigger, "c", "e", {"id": 1})
    (item,) = server.received()
    assert (item["status"], item["data"]) == (status, {"id": 1})


async def test_an_unknown_app_is_404(server: Server) -> None:
    with pytest.raises(pusher.errors.PusherBadStatus, match="404"):
        await asyncio.to_thread(server.client(app_id="1").trigger, "c", "e", {})


async def test_a_clock_off_by_more_than_600_s_a_wrong_body_or_version_is_401(server: Server) -> None:
    path, body = f"/apps/{APP}/events", b'{"name":"e","data":"{}","channel":"c"}'
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:

        async def post(url: str) -> tuple[int, str]:
            response = await http.post(url, content=body)
            return response.status_code, response.text

        assert await post(server.signed(path, body, at=time.time() - 590)) == (200, "{}")
        for late in (-610, 610):
            status, text = await post(server.signed(path, body, at=time.time() + late))
            assert (status, "not within 600s of server time" in text) == (401, True)
        assert (await post(server.signed(path, body, body_md5="0" * 32)))[0] == 401
        assert (await post(server.signed(path, body, auth_version="2.0")))[0] == 401
        assert (await post(server.signed(path, body).replace("auth_signature=", "auth_signature=0")))[
            0
        ] == 401


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (413, {"name": "e", "channel": "c", "data": "x" * 10_241}),
        (413, {"name": "e", "channel": "c", "data": "é" * 5_121}),
        (200, {"name": "e", "channel": "c", "data": "x" * 10_240}),
        (413, {"batch": [{"name": "e", "channel": "c", "data": "x" * n} for n in (1, 10_241)]}),
        (400, {"batch": [{"name": "e", "channel": "c", "data": "x"}] * 11}),
        (400, {"name": "e" * 201, "channel": "c", "data": "x"}),
        (400, {"name": "e", "channels": ["c"] * 101, "data": "x"}),
        (200, {"name": "e", "channels": ["c"] * 100, "data": "x"}),
        (400, {"name": "e", "channel": "white space", "data": "x"}),
        (400, {"name": "e", "channel": "c", "data": {"not": "a string"}}),
        (501, {"name": "e", "channel": "c", "data": "x", "info": "subscription_count"}),
        (400, []),
    ],
)
async def test_the_limits_of_the_api(server: Server, status: int, content: Any) -> None:
    body = json.dumps(content, ensure_ascii=False).encode()
    path = f"/apps/{APP}/{'batch_events' if 'batch' in content else 'events'}"
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
        assert (await http.post(server.signed(path, body), content=body)).status_code == status
    assert {item["status"] for item in server.received()} == {status}


async def test_private_channels_want_the_signature_that_the_package_makes(server: Server) -> None:
    async with server.connect() as socket:
        me = await socket_id(socket)
        assert (await subscribe(socket, "private-x"))["event"] == "pusher:error"
        bad = await subscribe(socket, "private-x", auth=f"{KEY}:{'0' * 64}")
        assert bad["event"] == "pusher:error"
        assert bad["data"]["message"].startswith(
            f"Invalid signature: Expected HMAC SHA256 hex digest of {me}:private-x"
        )
        other = server.client().authenticate("private-y", me)
        assert (await subscribe(socket, "private-x", **other))["event"] == "pusher:error"
        good = server.client().authenticate("private-x", me)
        assert (await subscribe(socket, "private-x", **good))[
            "event"
        ] == "pusher_internal:subscription_succeeded"
        await asyncio.to_thread(server.client().trigger, "private-x", "e", {"seq": 1})
        assert (await hear(socket))["data"] == {"seq": 1}
        await say(socket, "pusher:unsubscribe", {"channel": "private-x"})
        await say(socket, "pusher:ping", {})
        assert (await hear(socket))["event"] == "pusher:pong"
        await asyncio.to_thread(server.client().trigger, "private-x", "e", {"seq": 2})
        await say(socket, "pusher:ping", {})
        assert (await hear(socket))["event"] == "pusher:pong"


async def test_presence_channels_know_their_members(server: Server) -> None:
    async with server.connect() as one:
        first = server.client().authenticate(
            "presence-x", await socket_id(one), {"user_id": "1", "user_info": {"a": 1}}
        )
        data = (await subscribe(one, "presence-x", **first))["data"]
        assert data == {"presence": {"count": 1, "ids": ["1"], "hash": {"1": {"a": 1}}}}
        async with server.connect() as two:
            second = server.client().authenticate("presence-x", await socket_id(two), {"user_id": "2"})
            assert (await subscribe(two, "presence-x", **second))["data"]["presence"]["count"] == 2
            assert (await hear(one))["event"] == "pusher_internal:member_added"
        left = await hear(one)
        assert (left["event"], left["data"]) == ("pusher_internal:member_removed", {"user_id": "2"})


async def test_client_events_go_to_the_others_of_a_private_channel_ten_a_second(server: Server) -> None:
    async with server.connect() as one, server.connect() as two:
        for socket in (one, two):
            auth = server.client().authenticate("private-x", await socket_id(socket))
            await subscribe(socket, "private-x", **auth)
        await subscribe(one, "public")
        await say(one, "client-typing", {"by": 1}, channel="public")
        assert (await hear(one))["event"] == "pusher:error"
        for n in range(11):
            await say(one, "client-typing", {"n": n}, channel="private-x")
        for n in range(10):
            assert await hear(two) == {"event": "client-typing", "channel": "private-x", "data": {"n": n}}
        assert (await hear(one))["data"]["code"] == 4301


@pytest.mark.parametrize(
    ("key", "query", "code"), [("0" * 20, "protocol=7", 4001), (KEY, "protocol=9", 4007), (KEY, "", 4008)]
)
async def test_a_connection_that_cannot_be_is_told_why_and_closed(
    server: Server, key: str, query: str, code: int
) -> None:
    async with server.connect(key=key, query=query) as socket:
        frame = await hear(socket)
        assert (frame["event"], frame["data"]["code"]) == ("pusher:error", code)
        await asyncio.wait_for(socket.wait_closed(), 60)
        assert socket.close_code == code


async def test_frames_that_make_no_sense_do_not_end_the_connection(server: Server) -> None:
    async with server.connect() as socket:
        await socket_id(socket)
        for nonsense in (
            "{",
            "[]",
            '{"event":7}',
            '{"event":"pusher:subscribe"}',
            '{"event":"pusher:signin","data":{}}',
        ):
            await socket.send(nonsense)
            assert (await hear(socket))["event"] == "pusher:error"
        assert (await subscribe(socket, "c"))["event"] == "pusher_internal:subscription_succeeded"


async def test_dropped_sockets_are_told_to_come_back(server: Server) -> None:
    async with server.connect() as socket:
        await socket_id(socket)
        assert server.service.channels.drop_sockets() == 1
        await asyncio.wait_for(socket.wait_closed(), 60)
        assert socket.close_code == 4200


@pytest.mark.parametrize(
    ("rule", "raised", "recorded"),
    [
        ({"status": 503, "retry_after": 2}, pusher.errors.PusherBadStatus, 503),
        ({"mode": "refuse"}, Exception, 0),
        ({"mode": "garbage"}, Exception, 200),
        ({"mode": "lose_answer"}, Exception, 200),
        ({"mode": "truncate"}, Exception, 200),
    ],
)
async def test_a_fault_happens_as_often_as_asked_and_is_recorded(
    server: Server, rule: dict[str, Any], raised: type[Exception], recorded: int
) -> None:
    server.faults.set({**rule, "times": 1, "match": "poison"})
    client = server.client()
    await asyncio.to_thread(client.trigger, "c", "e", {"id": "harmless"})
    with pytest.raises(raised):
        await asyncio.to_thread(client.trigger, "c", "e", {"id": "poison"})
    await asyncio.to_thread(client.trigger, "c", "e", {"id": "poison"})
    assert [(item["status"], item["data"]["id"]) for item in server.received()] == [
        (200, "harmless"),
        (recorded, "poison"),
        (200, "poison"),
    ]


async def test_a_hanging_answer_ends_when_the_client_gives_up(server: Server) -> None:
    server.faults.set({"mode": "hang", "times": 1})
    path, body = f"/apps/{APP}/events", b'{"name":"e","data":"{}","channel":"c"}'
    async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(server.signed(path, body), content=body, timeout=httpx.Timeout(60, read=0.5))
        assert (await http.post(server.signed(path, body), content=body)).status_code == 200
    assert [item["status"] for item in server.received()] == [0, 200]


async def sign_in(server: Server, socket: ClientConnection, user: dict[str, Any]) -> dict[str, Any]:
    signed = server.client().authenticate_user(await socket_id(socket), user)
    await say(socket, "pusher:signin", signed)
    return await hear(socket)


async def test_a_user_signs_in_and_its_connections_are_terminated(server: Server) -> None:
    """https://pusher.com/docs/channels/server_api/terminating-user-connections; only connections that have signed in end."""
    async with (
        server.connect() as one,
        server.connect() as two,
        server.connect() as other,
        server.connect() as none,
    ):
        for socket, user in ((one, "staff_s1"), (two, "staff_s1"), (other, "staff_s10")):
            signed = await sign_in(server, socket, {"id": user, "name": "Sam"})
            assert signed["event"] == "pusher:signin_success"
            assert json.loads(signed["data"]["user_data"]) == {"id": user, "name": "Sam"}
            # What pusher-js does next.
            channel = f"#server-to-user-{user}"
            assert (await subscribe(socket, channel, auth=""))[
                "event"
            ] == "pusher_internal:subscription_succeeded"
        await socket_id(none)
        assert (await subscribe(none, "#server-to-user-staff_s1"))["event"] == "pusher:error"
        # (The package's method, 3.3.4, leaves /apps/{id} out of the path.)
        path = f"/apps/{APP}/users/staff_s1/terminate_connections"
        async with httpx.AsyncClient(verify=NO_TLS, timeout=PATIENT) as http:
            answer = await http.post(server.signed(path, b"{}"), content=b"{}")
        assert (answer.status_code, answer.json()) == (200, {})
        for socket in (one, two):
            assert (await hear(socket))["data"]["code"] == 4009
            async with asyncio.timeout(120):
                await socket.wait_closed()
            assert socket.close_code == 4009
        for socket in (other, none):
            await say(socket, "pusher:ping", {})
            assert (await hear(socket))["event"] == "pusher:pong"


async def test_a_sign_in_that_is_not_signed_for_this_socket_is_refused(server: Server) -> None:
    async with server.connect() as socket, server.connect() as other:
        signed = server.client().authenticate_user(await socket_id(other), {"id": "staff_s1"})
        await socket_id(socket)
        for data in (
            signed,
            {**signed, "auth": f"{KEY}:{'0' * 64}"},
            {"auth": "", "user_data": '{"id": "a"}'},
        ):
            await say(socket, "pusher:signin", data)
            assert (await hear(socket))["event"] == "pusher:error"
