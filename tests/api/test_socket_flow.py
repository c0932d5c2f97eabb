"""The conversation by WebSocket, alone and mixed with the other interfaces."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.api.client import WITHIN, Client, entered, opened
from tests.api.conftest import NO_MEDIA, Api
from tests.support.ageing import age
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import next_turn, pause, wait_until


def player_token(api: Api, player_id: int, **more: Any) -> str:
    return api.stack.keys.user_token("player", player_id=player_id, **more)


def staff_token(api: Api, staff_id: str = "s1", **more: Any) -> str:
    return api.stack.keys.user_token("staff", staff_id=staff_id, **more)


def texts(client: Client, player_id: int) -> list[tuple[int, str]]:
    """Return the received messages of a player's conversation, in the order of arrival."""
    found = client.all("chat_message", message={"player_id": player_id})
    return [(f["message"]["seq"], f["message"]["message"]) for f in found]


async def test_the_whole_flow_by_socket_alone(api: Api, player_id: int) -> None:
    async with AsyncExitStack() as all_of_them:
        enter = all_of_them.enter_async_context
        phone = await enter(
            entered(api.worker.url, player_token(api, player_id), role="player", playerId=player_id)
        )
        laptop = await enter(entered(api.worker.url, player_token(api, player_id)))
        desk = await enter(entered(api.worker.url, staff_token(api), role="gre_staff", staffId="s1"))
        other = await enter(entered(api.worker.url, staff_token(api, "s2"), role="staff"))

        hello = phone.all("authenticated")[0]
        assert (hello["success"], hello["role"], hello["playerId"], hello["sessions"]) == (
            True,
            "player",
            player_id,
            [],
        )
        assert hello["expiresAt"].endswith("Z") and hello["staffOnline"] >= 0
        assert (await desk.wait("authenticated"))["staffId"] == "s1"

        await phone.send("send_message", message="Is table 4 open?", clientId="c1")
        ack = await phone.wait("message_ack")
        assert ack.keys() == {"type", "clientId", "id", "sessionId", "seq", "timestamp", "duplicate"}
        assert (ack["clientId"], ack["seq"], ack["duplicate"]) == ("c1", 1, False)
        session = ack["sessionId"]
        for client in (laptop, desk, other):
            got = await client.wait("chat_message", message={"id": ack["id"]})
            assert got["replay"] is False
            assert got["message"].keys() == {
                "id", "seq", "session_id", "player_id", "player_name", "message", "sender", "sender_name", "status",
                "timestamp", "created_at",
            }  # fmt: skip
            assert got["message"]["timestamp"] == ack["timestamp"]
        assert (await desk.wait("session_updated", session={"id": session}))["session"]["status"] == "active"

        await desk.send("send_message", sessionId=session, message="From eight.", clientId="d1")
        reply = await desk.wait("message_ack", clientId="d1")
        await desk.send("send_message", playerId=player_id, message="Shall I?")
        more = await desk.wait("message_ack", clientId=None)
        assert (reply["seq"], more["seq"], more["sessionId"]) == (2, 3, session)
        everything = [(1, "Is table 4 open?"), (2, "From eight."), (3, "Shall I?")]
        for client, own in ((phone, {1}), (laptop, set()), (desk, {2, 3}), (other, set())):
            await client.until(lambda c=client, o=own: len(texts(c, player_id)) >= 3 - len(o))
            await client.settled()
            assert texts(client, player_id) == [m for m in everything if m[0] not in own]
        assert desk.all("chat_message", message={"player_id": player_id})[0]["message"]["sender"] == "player"
    history = api.player(player_id).get(f"/api/gre-chat/messages/{player_id}").json()
    assert [(m["seq"], m["message"]) for m in history] == everything


async def test_messages_of_every_interface_reach_every_socket_once_and_in_order(
    api: Api, player_id: int, other_id: int
) -> None:
    player, staff = player_token(api, player_id), staff_token(api)
    http = api.stack.http
    headers = api.stack.headers(player)

    def by_table(text: str, key: str, **row: Any) -> None:
        assert api.stack.insert(key=key, message=text, player_id=player_id, **row).status_code == 201

    def by_function(text: str) -> None:
        body = {"p_message": text}
        assert http.post("/rest/v1/rpc/gre_send_message", json=body, headers=headers).status_code == 200

    async with (
        entered(api.worker.url, player) as phone,
        entered(api.worker.url, player) as laptop,
        entered(api.worker.url, staff) as desk,
        entered(api.worker.url, player_token(api, other_id)) as stranger,
    ):
        sent: list[str] = []
        for turn in range(3):
            interfaces: dict[str, Any] = {
                "rest": lambda t: api.player(player_id).send(t),
                "table": lambda t: by_table(t, player, sender="player"),
                "function": by_function,
                "reply": lambda t: api.staff().post("/api/gre-admin/reply", playerId=player_id, message=t),
                "staff table": lambda t: by_table(t, staff, sender="staff", sender_id="s1"),
                "backend": lambda t: api.backend(f"player:{player_id}").send(t),
            }
            for name, send in interfaces.items():
                sent.append(f"{name} {turn}")
                await asyncio.to_thread(send, sent[-1])
            sent.append(f"socket {turn}")
            await phone.send("send_message", message=sent[-1], clientId=sent[-1])
            assert (await phone.wait("message_ack", clientId=sent[-1]))["seq"] == len(sent)
        everything = list(enumerate(sent, 1))
        for client in (phone, laptop, desk):
            own = 3 if client is phone else 0
            await client.until(lambda c=client, o=own: len(texts(c, player_id)) >= len(sent) - o)
            await client.settled()
            assert texts(client, player_id) == [
                m for m in everything if client is not phone or "socket" not in m[1]
            ]
        await stranger.settled()
        assert not stranger.all("chat_message") and not stranger.all("session_updated")


@pytest.fixture
def without_polls(stack_process: StackProcess) -> Iterator[Worker]:
    """A daemon that reads on wake-ups, and polls far later than any test waits."""
    with stack_process.worker(**NO_MEDIA, GRE_POLL_INTERVAL="300") as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="live")
        yield worker
        worker.stop()  # (the last heartbeat of a killed one would count for a minute)


async def test_a_burst_is_sent_without_waiting_for_a_poll(
    api: Api, without_polls: Worker, player_id: int
) -> None:
    # Each wake-up arrives while the news of an earlier one are read: none may be lost until the next poll.
    async with (
        entered(without_polls.url, staff_token(api)) as desk,
        entered(without_polls.url, player_token(api, player_id)) as phone,
    ):
        for n in range(60):
            await phone.send("send_message", message=f"m{n}", clientId=f"m{n}")
        await phone.until(lambda: len(phone.all("message_ack")) == 60)
        await desk.until(lambda: len(texts(desk, player_id)) >= 60)
        assert texts(desk, player_id) == [(n + 1, f"m{n}") for n in range(60)]
        assert [f["clientId"] for f in phone.all("message_ack")] == [f"m{n}" for n in range(60)]


async def test_a_repeated_id_is_acknowledged_as_a_duplicate(api: Api, player_id: int) -> None:
    message_id = str(uuid.uuid4())
    token = player_token(api, player_id)
    async with entered(api.worker.url, token) as phone, entered(api.worker.url, token) as laptop:
        for client_id in ("first", "again"):
            await phone.send("send_message", message="once", id=message_id, clientId=client_id)
        await laptop.send("send_message", message="once", id=message_id.upper(), client_id="elsewhere")
        first, again = (
            await phone.wait("message_ack", clientId="first"),
            await phone.wait("message_ack", clientId="again"),
        )
        elsewhere = await laptop.wait("message_ack", clientId="elsewhere")
        assert sorted(a["duplicate"] for a in (first, again, elsewhere)) == [False, True, True]
        assert {a["seq"] for a in (first, again, elsewhere)} == {1} and {
            a["id"] for a in (first, again, elsewhere)
        } == {message_id}
        await phone.send("send_message", message="twice", id=message_id, clientId="changed")
        assert (await phone.wait("error", clientId="changed"))["code"] == "id_conflict"
        await phone.settled()
        assert not phone.all("chat_message")
    assert len(api.sql("select id from gre_chat_messages where player_id = %s", player_id)) == 1


async def test_a_reconnected_client_receives_missed_messages_once(
    api: Api, player_id: int, other_id: int
) -> None:
    player = api.player(player_id)
    async with entered(api.worker.url, player_token(api, player_id)) as phone:
        session = (await asyncio.to_thread(player.send, "one"))["sessionId"]
        await phone.wait("chat_message")
    for text in ("two", "three"):
        await asyncio.to_thread(player.send, text)
    new = (await asyncio.to_thread(api.player(other_id).send, "a new session"))["sessionId"]
    for last, token in ((4, player_token(api, player_id)), (5, staff_token(api))):
        async with entered(api.worker.url, token, since={session: 1}) as back:
            hello = (await back.wait("authenticated"))["sessions"]
            assert next(s for s in hello if s["id"] == session)["last_seq"] >= 3
            await asyncio.to_thread(player.send, "live")
            await back.wait("chat_message", message={"session_id": session, "seq": last})
            seqs = [m[0] for m in texts(back, player_id)]
            assert seqs == list(range(2, last + 1))
            assert [f["replay"] for f in back.all("chat_message", message={"player_id": player_id})] == [
                True
            ] * (last - 2) + [False]
            missed = back.all("chat_message", message={"session_id": new})
            assert [f["message"]["message"] for f in missed] == ([] if last == 4 else ["a new session"])
    async with entered(api.worker.url, player_token(api, player_id)) as fresh:
        await fresh.settled()
        assert not fresh.all("chat_message"), "without since there is no replay"


@pytest.mark.parametrize("missed", [250, 1200])
async def test_a_long_absence_leaves_no_gap(api: Api, player_id: int, missed: int) -> None:
    session = (await asyncio.to_thread(api.player(player_id).send, "one"))["sessionId"]
    api.sql(
        "insert into gre_chat_messages (session_id, player_id, sender, message)"
        " select %s, %s, 'staff', 'm' || n from generate_series(2, %s) n", session, player_id, missed + 1,
    )  # fmt: skip
    async with entered(api.worker.url, player_token(api, player_id), since={session: 1}) as back:
        await asyncio.to_thread(api.player(player_id).send, "live")
        await back.wait("chat_message", message={"message": "live"})
        assert [m[0] for m in texts(back, player_id)] == list(range(2, missed + 3))


async def test_a_session_that_ended_while_staff_were_away_is_replayed_too(
    api: Api, player_id: int, other_id: int
) -> None:
    async with entered(api.worker.url, staff_token(api)) as desk:
        known = (await asyncio.to_thread(api.player(other_id).send, "before"))["sessionId"]
        await desk.wait("chat_message", message={"session_id": known})
    session = (await asyncio.to_thread(api.player(player_id).send, "came"))["sessionId"]
    await asyncio.to_thread(api.player(player_id).send, "and went")
    await asyncio.to_thread(api.staff().post, f"/api/gre-chat/close-session/{player_id}")
    async with entered(api.worker.url, staff_token(api), since={known: 1}) as desk:
        await desk.until(lambda: len(texts(desk, player_id)) == 2)
        assert texts(desk, player_id) == [(1, "came"), (2, "and went")]
        assert (
            next(s for s in desk.all("authenticated")[0]["sessions"] if s["id"] == session)["status"]
            == "closed"
        )


async def test_a_replay_that_was_interrupted_is_continued_in_a_session_that_is_named_with_0(
    api: Api, player_id: int, other_id: int
) -> None:
    """Something newer of another session had come before the connection ended, so `session` is not replayed unless it is named."""
    session = (await asyncio.to_thread(api.player(player_id).send, "came"))["sessionId"]
    await asyncio.to_thread(api.player(player_id).send, "and went")
    await asyncio.to_thread(api.staff().post, f"/api/gre-chat/close-session/{player_id}")
    with api.stack.db() as conn:
        age(conn, session)
    newer = (await asyncio.to_thread(api.player(other_id).send, "newer"))["sessionId"]
    async with entered(api.worker.url, staff_token(api), since={newer: 1, session: 0}) as desk:
        await desk.until(lambda: texts(desk, player_id) == [(1, "came"), (2, "and went")])


async def test_the_first_message_of_a_session_opened_long_before(
    api: Api, player_id: int, other_id: int
) -> None:
    # Opened empty (a portal that inserts the session first), used only while staff are away.
    opened_session = api.stack.http.post(
        "/rest/v1/gre_chat_sessions", json={"player_id": player_id, "status": "active"},
        headers={**api.stack.headers(player_token(api, player_id)), "Prefer": "return=representation"},
    ).json()[0]["id"]  # fmt: skip
    with api.stack.db() as conn:
        age(conn, opened_session)
    known = (await asyncio.to_thread(api.player(other_id).send, "seen"))["sessionId"]
    await asyncio.to_thread(api.player(player_id).send, "at last")
    async with entered(api.worker.url, staff_token(api), since={known: 1}) as desk:
        await desk.until(lambda: texts(desk, player_id) == [(1, "at last")])


async def test_typing_is_sent_to_the_others_only(api: Api, player_id: int, other_id: int) -> None:
    session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
    token = player_token(api, player_id)
    async with (
        entered(api.worker.url, token) as phone, entered(api.worker.url, token) as laptop,
        entered(api.worker.url, staff_token(api)) as desk, entered(api.worker.url, player_token(api, other_id)) as stranger,
    ):  # fmt: skip
        await phone.send("typing", typing=True)
        for client in (laptop, desk):
            got = await client.wait("typing", sessionId=session)
            assert got == {
                "type": "typing",
                "sessionId": session,
                "playerId": player_id,
                "by": "player",
                "typing": True,
            }
        await desk.send("typing", session_id=session, typing=False)
        assert (await phone.wait("typing", by="staff"))["typing"] is False
        for client, wrong, code in (
            (desk, None, "session_missing"), (desk, str(uuid.uuid4()), "session_unknown"), (stranger, session, "session_unknown"),
        ):  # fmt: skip
            client.forget()
            await client.send("typing", clientId="x", **({"sessionId": wrong} if wrong else {}))
            assert (await client.wait("error", clientId="x"))["code"] == code
        await stranger.settled()
        assert not stranger.all("typing")
        assert len(phone.all("typing")) == 1 and not phone.all("typing", by="player")


async def test_read_marks_are_sent_and_stored(api: Api, player_id: int) -> None:
    player, staff = api.player(player_id), api.staff()
    session = (await asyncio.to_thread(player.send))["sessionId"]
    await asyncio.to_thread(staff.post, "/api/gre-admin/reply", sessionId=session, message="Yes")
    async with (
        entered(api.worker.url, player_token(api, player_id)) as phone,
        entered(api.worker.url, staff_token(api)) as desk,
    ):
        await desk.send("mark_read", sessionId=session, upToSeq=1)
        read = await phone.wait("messages_read")
        assert (read["sessionId"], read["by"], read["upToSeq"]) == (session, "staff", 1) and read[
            "timestamp"
        ].endswith("Z")
        await phone.send("mark_read", session_id=session, up_to_seq=99)
        assert (await desk.wait("messages_read", by="player"))["upToSeq"] == 2
        await desk.send("mark_read", sessionId=session, upToSeq=1)
        await desk.settled()
        assert len(phone.all("messages_read", by="staff")) == 1, "marks never go back, and are sent once"
    history = player.get(f"/api/gre-chat/messages/{player_id}").json()
    assert [m["status"] for m in history] == ["read", "read"]


async def test_opening_assigning_and_closing_are_sent(api: Api, player_id: int) -> None:
    async with (
        entered(api.worker.url, player_token(api, player_id)) as phone,
        entered(api.worker.url, staff_token(api)) as desk,
    ):
        session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
        path = f"/api/gre-admin/session/{session}/status"
        for body, wanted in (
            (None, {"status": "active", "assigned_staff_id": None}),
            ({"status": "assigned"}, {"status": "active", "assigned_staff_id": "s1"}),
            ({"status": "active"}, {"status": "active", "assigned_staff_id": None}),
            ({"status": "closed"}, {"status": "closed"}),
        ):
            if body:
                phone.forget(), desk.forget()
                await asyncio.to_thread(api.staff().put, path, **body)
            for client in (phone, desk):
                got = await client.wait("session_updated", session={"id": session, **wanted})
                assert got["session"].keys() == {
                    "id", "player_id", "player_name", "status", "assigned_staff_id", "last_seq", "rev", "unread_by_staff",
                    "unread_by_player", "last_message", "last_message_at", "created_at", "closed_at",
                }  # fmt: skip


async def test_a_session_closed_and_reopened_between_two_looks_is_sent(api: Api, player_id: int) -> None:
    async with entered(api.worker.url, staff_token(api)) as desk:
        session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
        await desk.wait("session_updated", session={"id": session})
        desk.forget()
        with api.stack.db() as conn, conn.transaction():
            for status in ("closed", "active"):
                conn.execute("update gre_chat_sessions set status = %s where id = %s", (status, session))
        await desk.wait("session_updated", session={"id": session, "status": "active", "cycle": 2})


def expire(api: Api, player_id: int, where: str) -> None:
    """Let the presence of these staff expire, and send a wake-up, so that the daemon reads it."""
    api.sql(f"update gre_online_status set expires_at = now() - interval '1 second' where {where}")
    api.sql(
        "insert into gre_chat_players (player_id, chat_enabled) values (%s, false)"
        " on conflict (player_id) do update set chat_enabled = excluded.chat_enabled",
        player_id + 10**12,
    )


async def nobody_is_online(api: Api, player_id: int) -> None:
    """Staff that earlier tests left online would expire during this test."""
    async with asyncio.timeout(WITHIN):
        while True:
            expire(api, player_id, "status <> 'offline'")
            async with entered(api.worker.url, player_token(api, player_id)) as client:
                if client.all("authenticated")[0]["staffOnline"] == 0:
                    return
            await pause(0.1, "before the next look")


async def test_presence_follows_the_sockets_of_staff(api: Api, player_id: int) -> None:
    staff_id = f"p{player_id}"
    api.sql("insert into gre_staff (staff_id, display_name, role) values (%s, 'Pat', 'staff')", staff_id)
    await nobody_is_online(api, player_id)
    async with entered(api.worker.url, player_token(api, player_id)) as phone:
        async with entered(api.worker.url, staff_token(api, staff_id)) as desk:
            came = await phone.wait("staff_status", staffId=staff_id)
            assert (came["displayName"], came["status"]) == ("Pat", "online")
            (row,) = api.sql("select * from gre_online_status where staff_id = %s", staff_id)
            assert (
                row["status"] == "online"
                and 0 < (row["expires_at"] - row["last_seen_at"]).total_seconds() <= 60
            )
            async with entered(api.worker.url, player_token(api, player_id)) as second:
                assert second.all("authenticated")[0]["staffOnline"] == 1
            await desk.send("set_status", status="away")
            await phone.wait("staff_status", staffId=staff_id, status="away")
        async with entered(api.worker.url, staff_token(api, staff_id)):
            phone.forget()
            await next_turn()
        assert not phone.all("staff_status", staffId=staff_id, status="online"), (
            "coming back leaves away as it is"
        )
        # The heartbeat has ended: what is past its time becomes offline by itself.
        async with asyncio.timeout(WITHIN):
            while not phone.all("staff_status", staffId=staff_id, status="offline"):
                expire(api, player_id, f"staff_id = '{staff_id}'")  # (a last beat may be under way)
                await pause(0.3, "before the next look")
        assert api.sql("select status from gre_online_status where staff_id = %s", staff_id) == [
            {"status": "offline"}
        ]
        await phone.send("set_status", status="online", clientId="no")
        assert (await phone.wait("error", clientId="no"))["code"] == "staff_only"


async def test_the_portals_own_server_acts_as_its_user(api: Api, player_id: int) -> None:
    service = {"Authorization": f"Bearer {api.stack.env['SUPABASE_SERVICE_KEY']}"}
    for act_as, role in ((f"player:{player_id}", "player"), ("staff:s1", "staff")):
        async with entered(
            api.worker.url, None, headers={**service, "X-GRE-Act-As": act_as}, role=role
        ) as client:
            await client.send("send_message", message="Hi", playerId=player_id, clientId="1")
            await client.wait("message_ack")
    async with entered(
        api.worker.url, None, headers={"Authorization": f"bearer {player_token(api, player_id)}"}
    ) as client:
        assert client.all("authenticated")[0]["playerId"] == player_id
    senders = api.sql(
        "select sender, sender_id from gre_chat_messages where player_id = %s order by seq", player_id
    )
    assert [(s["sender"], s["sender_id"]) for s in senders] == [("player", str(player_id)), ("staff", "s1")]


@pytest.mark.parametrize(
    "act_as",
    [
        None,
        "nobody",
        "player:0",
        "player:1 or 1=1",
        "staff:",
        "service",
        "player:29,staff:s1",
        "staff:undefined",
        "staff:left",
    ],
)
async def test_the_service_key_alone_has_no_identity(api: Api, act_as: str | None) -> None:
    api.sql("insert into gre_staff (staff_id, active) values ('left', false) on conflict do nothing")
    headers = {"Authorization": f"Bearer {api.stack.env['SUPABASE_SERVICE_KEY']}"} | (
        {"X-GRE-Act-As": act_as} if act_as else {}
    )
    async with opened(api.worker.url, headers=headers) as client:
        await client.send("authenticate")
        assert await client.end() == 4401
        assert not client.all("authenticated")


async def test_a_staff_message_by_function_opens_a_session_on_the_players_socket(
    stack_process: StackProcess, api: Api, player_id: int
) -> None:
    """Sent over PostgREST, received on a socket that was open before the player's first session."""
    async with entered(api.worker.url, player_token(api, player_id)) as phone:
        headers = stack_process.headers(staff_token(api))
        async with httpx.AsyncClient(base_url=stack_process.url, verify=NO_TLS, timeout=PATIENT) as http:
            body = {"p_message": "Welcome", "p_player_id": player_id}
            assert (
                await http.post("/rest/v1/rpc/gre_staff_reply", json=body, headers=headers)
            ).status_code == 200
        got = await phone.wait("chat_message")
        assert (
            got["message"]["seq"],
            got["message"]["sender"],
            got["message"]["sender_name"],
        ) == (
            1,
            "staff",
            "Sam",
        )


async def test_an_erased_player_without_a_row_receives_nothing_of_the_erased_session(
    api: Api, player_id: int
) -> None:
    token = player_token(api, player_id)
    async with entered(api.worker.url, token) as phone:
        for n in range(3):
            await phone.send("send_message", message=f"secret {n}", clientId=f"c{n}")
        first = (await phone.wait("message_ack", clientId="c2"))["sessionId"]
        await asyncio.to_thread(api.sql, "select gre_erase_player(%s)", player_id)
        before = len(phone.frames)
        await phone.send("send_message", message="again", clientId="new")
        ack = await phone.wait("message_ack", clientId="new")
        await phone.settled()
        assert (ack["seq"], ack["sessionId"] != first) == (1, True)
        assert "secret" not in str(phone.frames[before:])
    async with entered(api.worker.url, token, since={first: 0}) as phone:
        await phone.settled()
        assert "secret" not in str(phone.frames)
