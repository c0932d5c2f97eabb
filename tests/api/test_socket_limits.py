"""The limits of `/ws`: time, size, rate, number, slow readers, expiring tokens, origins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin
from websockets.uri import parse_uri

from tests.api.client import WITHIN, Client, entered, opened, ws_url
from tests.api.conftest import NO_MEDIA, ORIGIN, Api, start
from tests.support.hostile import UPGRADE
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import next_turn, pause, wait_until


@pytest.fixture(scope="module")
def small(stack_process: StackProcess) -> Iterator[Worker]:
    """A daemon with low limits."""
    limits = {"GRE_SOCKETS_PER_PERSON": "2", "GRE_AUTH_FAILURES_PER_MINUTE": "5", "GRE_MAX_SOCKETS": "4"}
    with stack_process.worker(**NO_MEDIA, **limits) as worker:
        yield worker


def token(stack: StackProcess, player_id: int, **more: Any) -> str:
    return stack.keys.user_token("player", player_id=player_id, **more)


async def closed_with(client: Client, within: float = WITHIN) -> tuple[int | None, str | None]:
    """Return the close code, and the code of the error frame before it."""
    code = await client.end(within)
    errors = client.all("error")
    return code, errors[-1]["code"] if errors else None


async def test_a_connection_must_authenticate_within_ten_seconds(api: Api, player_id: int) -> None:
    began = time.monotonic()
    async with opened(api.worker.url) as silent, opened(api.worker.url) as busy:
        await busy.send("ping")
        await busy.wait("pong")
        await busy.send("send_message", message="Hi", clientId="early")
        assert (await busy.wait("error", clientId="early"))["code"] == "not_authenticated"
        assert await closed_with(silent) == (4408, "not_authenticated")
        assert await closed_with(busy) == (4408, "not_authenticated")
        assert time.monotonic() - began > 9.5


async def test_a_connection_whose_token_expired_may_renew_it_for_ten_seconds(
    api: Api, player_id: int
) -> None:
    async with entered(api.worker.url, token(api.stack, player_id, expires_in=12)) as expired:
        assert (await expired.wait("error"))["code"] == "token_expired"
        told_at = time.monotonic()
        assert expired.code is None
        assert await closed_with(expired) == (4401, "token_expired")
        assert time.monotonic() - told_at > 5


@pytest.mark.parametrize(
    "frame",
    ["", "hello", "[]", '"authenticate"', "null", "7", "{}", '{"type": null}', '{"type": {}}', '{"type": "ping"', b'{"type": "ping"}',
     "[" * 30_000, '{"type":"ping","x":' + '{"a":' * 9_000 + "1" + "}" * 9_000 + "}"],
    ids=lambda f: repr(f[:20]),
)  # fmt: skip
@pytest.mark.parametrize("inside", [False, True])
async def test_an_invalid_frame_ends_the_connection(
    api: Api, player_id: int, frame: str | bytes, inside: bool
) -> None:
    async with opened(api.worker.url) as client:
        if inside:
            await client.send("authenticate", token=token(api.stack, player_id))
            await client.wait("authenticated")
        await client.ws.send(frame)
        assert await closed_with(client) == (4400, "bad_frame")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "dance"}, "type_unknown"),
        ({"type": "send_message"}, "value_invalid"),
        ({"type": "send_message", "message": ""}, "value_invalid"),
        ({"type": "send_message", "message": " \u3000\n"}, "message_empty"),
        ({"type": "send_message", "message": "x" * 4001}, "value_invalid"),
        ({"type": "send_message", "message": "cut in two \ud83d"}, "value_invalid"),
        ({"type": "send_message", "message": "a\0b"}, "value_invalid"),
        ({"type": "send_message", "message": ["a"]}, "value_invalid"),
        ({"type": "send_message", "message": "a", "id": "1"}, "value_invalid"),
        ({"type": "send_message", "message": "a", "sessionId": "x"}, "value_invalid"),
        ({"type": "send_message", "message": "a", "playerId": True}, "value_invalid"),
        ({"type": "send_message", "message": "a", "playerId": 2**64}, "value_invalid"),
        ({"type": "mark_read"}, "value_invalid"),
        ({"type": "mark_read", "sessionId": "00000000-0000-4000-8000-000000000000", "upToSeq": -1}, "value_invalid"),
        ({"type": "mark_read", "sessionId": "00000000-0000-4000-8000-000000000000", "upToSeq": 1}, "session_unknown"),
        ({"type": "typing", "typing": "maybe"}, "value_invalid"),
        ({"type": "set_status", "status": "gone"}, "value_invalid"),
    ],
    ids=str,
)  # fmt: skip
async def test_an_invalid_field_is_reported_and_the_connection_stays(
    api: Api, player_id: int, frame: dict[str, Any], code: str
) -> None:
    async with entered(api.worker.url, token(api.stack, player_id)) as client:
        await client.ws.send(json.dumps({**frame, "clientId": "mine"}))
        error = await client.wait("error")
        assert (error["code"], error["clientId"]) == (code, "mine") and "\n" not in error["error"]
        await client.send("send_message", message="fine", clientId="c" * 64)
        assert (await client.wait("message_ack"))["clientId"] == "c" * 64
    assert len(api.sql("select id from gre_chat_messages where player_id = %s", player_id)) == 1


async def test_a_frame_over_64_kb_is_1009(api: Api, player_id: int) -> None:
    async with entered(api.worker.url, token(api.stack, player_id)) as client:
        await client.ws.send(json.dumps({"type": "ping", "x": "y" * (64 * 1024 - 40)}))
        await client.wait("pong")
        await client.ws.send(json.dumps({"type": "ping", "x": "y" * 70_000}))
        assert await client.end() == 1009


async def test_too_many_frames_are_refused_and_far_too_many_end_it(api: Api, player_id: int) -> None:
    async with (
        entered(api.worker.url, token(api.stack, player_id)) as client,
        entered(api.worker.url, token(api.stack, player_id)) as other,
    ):
        # As many as it takes, since more may be sent with time; fewer at once than end it, for the server may read them late.
        for _ in range(200):
            for n in range(90):
                await client.send("typing", clientId=f"t{n}")
            await client.send("ping", clientId="t")
            await client.until(lambda: client.all("pong") or client.all("error", code="too_fast"))
            if client.all("error", code="too_fast"):
                break
            client.forget()
        error = await client.wait("error", code="too_fast")
        assert error["retryAfter"] > 0 and error["clientId"].startswith("t")
        with contextlib.suppress(ConnectionClosed):
            for _ in range(20_000):
                await client.send("ping")
                await next_turn()
        assert await closed_with(client) == (4429, "too_fast")
        await other.settled()


async def test_the_connections_of_a_person_are_limited(
    small: Worker, stack_process: StackProcess, player_id: int
) -> None:
    mine = token(stack_process, player_id)
    async with entered(small.url, mine), entered(small.url, mine):
        async with opened(small.url) as third:
            await third.send("authenticate", token=mine)
            assert await closed_with(third) == (4429, "too_many_connections")
        async with entered(small.url, token(stack_process, player_id + 10**9)), opened(small.url):
            with pytest.raises(InvalidStatus) as full:
                await connect(ws_url(small.url), proxy=None)
            assert full.value.response.status_code == 503
            assert int(full.value.response.headers["Retry-After"]) > 0
    async with entered(small.url, mine):
        pass


async def test_an_address_with_bad_tokens_waits_and_known_subjects_there_do_not(
    small: Worker, stack_process: StackProcess, player_id: int
) -> None:
    """Behind a portal's proxy all clients have one address: bad tokens of one do not lock out those who were known."""
    forwarded = {"X-Forwarded-For": "203.0.113.9"}
    known = token(stack_process, player_id)
    async with entered(small.url, known, headers=forwarded):
        pass
    for _ in range(5):
        async with opened(small.url, headers=forwarded) as client:
            await client.send("authenticate", token="nonsense")
            assert await closed_with(client) == (4401, "token_invalid")
    async with opened(small.url, headers=forwarded) as client:
        await client.send("authenticate", token="another one")
        assert await closed_with(client) == (4429, "too_many_failures")
    async with entered(small.url, known, headers=forwarded):
        pass
    async with entered(
        small.url, token(stack_process, player_id), headers={"X-Forwarded-For": "203.0.113.10"}
    ):
        pass


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{ORIGIN}.evil.example", "http://portal.example"]
)
async def test_a_page_of_another_origin_may_not_connect(api: Api, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(ws_url(api.worker.url), origin=Origin(origin), proxy=None)
    assert refused.value.response.status_code == 403


async def test_pages_of_known_origins_and_of_this_host_may_connect(api: Api) -> None:
    for origin in (ORIGIN, api.worker.url, None):
        async with opened(api.worker.url, origin=origin) as client:
            await client.settled()


async def test_the_server_answers_pings(api: Api, player_id: int) -> None:
    async with entered(api.worker.url, token(api.stack, player_id)) as client:
        async with asyncio.timeout(WITHIN):
            await (await client.ws.ping())


async def test_a_new_connection_is_admitted_however_many_are_pending(api: Api, player_id: int) -> None:
    """Connections that never authenticate use all places: the oldest of them is closed."""
    held: list[asyncio.StreamWriter] = []
    host, port = api.worker.url.removeprefix("http://").split(":")

    async def wait_for_ever(address: str) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        held.append(writer)
        writer.write(UPGRADE + f"X-Forwarded-For: {address}\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"101"

    try:
        for n in range(0, 1_000, 50):
            await asyncio.gather(*(wait_for_ever(f"198.51.100.{n // 250}") for _ in range(50)))
        # From an address that nobody else has, from one of the crowd's, and from the IPv6 network of one of them.
        for address in ("203.0.113.99", "198.51.100.1", "2001:db8::1"):
            async with entered(
                api.worker.url, token(api.stack, player_id), headers={"X-Forwarded-For": address}
            ):
                pass
        for burst in range(10):  # on a slow machine some are closed because their time is over
            await asyncio.gather(*(wait_for_ever(f"2001:db8:0:1:{burst}::{n:x}") for n in range(100)))
            if api.worker.metric("gre_socket_closes_total", code="4429") > 75:
                break
        else:
            pytest.fail("a /64 is one visitor")
    finally:
        for writer in held:
            writer.transport.abort()


# Tokens ----------------------------------------------------------------------------------------------------


async def test_an_expiring_token_must_be_renewed(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    async with entered(api.worker.url, token(api.stack, player_id, expires_in=12)) as client:
        await asyncio.to_thread(player.send, "before")
        await client.wait("chat_message", message={"message": "before"})
        await client.wait("error", code="token_expired")
        for text in ("while", "expired"):
            await asyncio.to_thread(player.send, text)
        await client.send("send_message", message="not mine any more", clientId="late")
        assert (await client.wait("error", clientId="late"))["code"] == "token_expired"
        async with entered(
            api.worker.url, token(api.stack, player_id)
        ) as other:  # its news have been sent by now
            await asyncio.to_thread(player.send, "mark")
            await other.wait("chat_message", message={"message": "mark"})
        await client.settled()
        assert [f["message"]["message"] for f in client.all("chat_message")] == ["before"]
        client.forget()
        await client.send("authenticate", token=token(api.stack, player_id))
        await client.send("send_message", message="again", clientId="again")
        await client.wait("authenticated")
        assert (await client.wait("message_ack", clientId="again"))["seq"] == 5
        await client.until(lambda: len(client.all("chat_message")) == 3)
        assert [f["message"]["message"] for f in client.all("chat_message")] == ["while", "expired", "mark"]


async def test_a_token_renewed_in_time_changes_nothing(api: Api, player_id: int) -> None:
    async with entered(api.worker.url, token(api.stack, player_id, expires_in=12)) as client:
        client.forget()
        await client.send("authenticate", token=token(api.stack, player_id, expires_in=120))
        assert (await client.wait("authenticated"))["sessions"] == []
        await pause(12, "the first token expires")
        await client.settled()
        assert not client.all("error")


@pytest.mark.parametrize("who", ["other player", "staff", "bad"])
async def test_a_connection_cannot_change_its_person(
    api: Api, player_id: int, other_id: int, who: str
) -> None:
    tokens = {
        "other player": token(api.stack, other_id),
        "staff": api.stack.keys.user_token("staff", staff_id="s1"),
        "bad": "x.y.z",
    }
    async with entered(api.worker.url, token(api.stack, player_id)) as client:
        await client.send("authenticate", token=tokens[who])
        code, error = await closed_with(client)
        assert code == 4401 and error in ("identity_mismatch", "token_invalid")


@pytest.mark.parametrize(
    ("role", "claims"),
    [
        ("player", {"playerId": 1}), ("player", {"staffId": "s1"}), ("player", {"role": "gre_staff"}), ("player", {"role": "admin"}),
        ("staff", {"staffId": "s2"}), ("staff", {"role": "player"}), ("staff", {"role": "admin"}), ("staff", {"playerId": 29}),
        ("admin", {"role": "player"}),
    ],
)  # fmt: skip
async def test_a_claim_that_the_token_does_not_carry_is_refused(
    api: Api, player_id: int, role: Any, claims: dict[str, Any]
) -> None:
    mine = api.stack.keys.user_token(
        role, **({"player_id": player_id} if role == "player" else {"staff_id": "s1"})
    )
    async with opened(api.worker.url) as client:
        await client.send("authenticate", token=mine, **claims)
        assert await closed_with(client) == (4401, "identity_mismatch")
        assert not client.all("authenticated")


async def test_a_disabled_player_is_disconnected(api: Api, player_id: int) -> None:
    await asyncio.to_thread(api.player(player_id).send)
    async with entered(api.worker.url, token(api.stack, player_id)) as client:
        await asyncio.to_thread(api.staff().post, f"/api/gre-chat/enable-player/{player_id}", enabled=False)
        assert await closed_with(client) == (4403, "chat_disabled")
    async with opened(api.worker.url) as client:
        await client.send("authenticate", token=token(api.stack, player_id))
        assert await closed_with(client) == (4403, "chat_disabled")
    await asyncio.to_thread(api.staff().post, f"/api/gre-chat/enable-player/{player_id}", enabled=True)
    async with entered(api.worker.url, token(api.stack, player_id)):
        pass


async def test_a_deactivated_staff_member_is_disconnected(api: Api, player_id: int) -> None:
    staff_id = f"l{player_id}"
    api.sql("insert into gre_staff (staff_id, display_name, role) values (%s, 'Lee', 'staff')", staff_id)
    mine = api.stack.keys.user_token("staff", staff_id=staff_id)
    async with entered(api.worker.url, mine) as client:
        api.sql("update gre_staff set active = false where staff_id = %s", staff_id)
        assert await closed_with(client) == (4403, "no_identity")
    async with opened(api.worker.url) as client:
        await client.send("authenticate", token=mine)
        assert await closed_with(client) == (4401, "no_identity")


# A slow reader -----------------------------------------------------------------------------------------------


def deaf(url: str, mine: str, **claims: Any) -> socket.socket:
    """An authenticated client that has a small buffer and stops reading."""
    protocol = ClientProtocol(parse_uri(ws_url(url)))
    host, port = url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect((host, int(port)))
    protocol.send_request(protocol.connect())
    sock.sendall(b"".join(protocol.data_to_send()))
    protocol.receive_data(sock.recv(4096))
    protocol.send_text(json.dumps({"type": "authenticate", "token": mine, **claims}).encode())
    sock.sendall(b"".join(protocol.data_to_send()))
    assert b"authenticated" in sock.recv(4096)
    return sock


@pytest.fixture(scope="module")
def impatient(stack_process: StackProcess) -> Iterator[Api]:
    """A daemon that waits 10 s for a client to read, in place of 30."""
    yield from start(stack_process, constants={"gre_bridge.api.ws.transport.WRITE_TIMEOUT": 10.0})


async def test_a_slow_reader_is_dropped_and_delays_no_other(
    impatient: Api, player_id: int, request: pytest.FixtureRequest
) -> None:
    api = impatient
    staff = api.stack.keys.user_token("staff", staff_id="s1")
    process = psutil.Process(api.worker.pids["api"])
    session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
    dropped = api.worker.metric("gre_socket_closes_total", code="1013")
    async with entered(api.worker.url, staff) as desk:
        before = process.memory_info().rss
        slow = [await asyncio.to_thread(deaf, api.worker.url, staff) for _ in range(2)]
        for sock in slow:
            request.addfinalizer(sock.close)
        slowest = 0.0
        # (The kernel alone takes some 4 MB for each.)
        for turn in range(16):
            started = time.monotonic()
            await asyncio.to_thread(
                api.sql,
                "insert into gre_chat_messages (session_id, player_id, sender, message)"
                " select %s, %s, 'staff', repeat('💬', 4000) from generate_series(1, 100)", session, player_id,
            )  # fmt: skip
            await desk.wait("chat_message", message={"session_id": session, "seq": 101 + turn * 100})
            slowest = max(slowest, time.monotonic() - started)
        seqs = [f["message"]["seq"] for f in desk.all("chat_message", message={"session_id": session})]
        assert seqs == list(range(2, 1602))
        # An insert of 100 messages and their arrival, however long the others do not read: they have ten seconds.
        assert slowest < 10.0
        assert process.memory_info().rss - before < 60 * 1024 * 1024
        await asyncio.to_thread(
            wait_until, lambda: api.worker.metric("gre_socket_closes_total", code="1013") >= dropped + 2,
        )  # fmt: skip
    # Staff who reconnect within a minute would receive all of these 25 MB.
    api.stack.http.post(
        "/rest/v1/rpc/gre_erase_player", json={"p_player_id": player_id}, headers=api.stack.headers()
    ).raise_for_status()
