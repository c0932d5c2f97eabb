"""Files by WebSocket: sent in a frame, and their changes to everybody in the session, also after a gap."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.api.client import Client, entered
from tests.api.conftest import Api
from tests.api.files import examined, uploaded
from tests.api.test_socket_flow import player_token, staff_token

Json = dict[str, Any]


def states(client: Client, attachment_id: str) -> list[str]:
    """The states of a file that the client was told, in the order of arrival."""
    found = []
    for frame in client.frames:
        match frame:
            case {"type": "attachment_updated", "attachment": attachment}:
                files = [attachment]
            case {"type": "chat_message", "message": {"attachments": files}}:
                pass
            case _:
                continue
        found += [one["state"] for one in files if one["id"] == attachment_id]
    return found


async def test_a_file_is_sent_by_socket_and_its_changes_reach_the_session(
    api: Api, player_id: int, other_id: int
) -> None:
    player = api.player(player_id)
    attachment_id = await asyncio.to_thread(uploaded, player)
    async with AsyncExitStack() as all_of_them:
        enter = all_of_them.enter_async_context
        phone = await enter(entered(api.worker.url, player_token(api, player_id)))
        laptop = await enter(entered(api.worker.url, player_token(api, player_id)))
        desk = await enter(entered(api.worker.url, staff_token(api)))
        stranger = await enter(entered(api.worker.url, player_token(api, other_id)))
        await phone.send("send_message", attachmentIds=[attachment_id], clientId="c1")
        ack = await phone.wait("message_ack", clientId="c1")
        (attachment,) = ack["attachments"]
        assert (attachment["id"], attachment["kind"], attachment["place"]) == (attachment_id, "file", 0)
        for client in (laptop, desk):
            frame = await client.wait("chat_message", message={"id": ack["id"]})
            assert [item["id"] for item in frame["message"]["attachments"]] == [attachment_id]
        await asyncio.to_thread(examined, api, attachment_id)
        for client in (phone, laptop, desk):
            update = await client.wait(
                "attachment_updated", attachment={"id": attachment_id, "state": "ready"}
            )
            assert update.keys() == {"type", "sessionId", "attachment"}
            assert update["sessionId"] == ack["sessionId"]
            assert update["attachment"].keys() == attachment.keys()
            await client.settled()
            assert len(client.all("attachment_updated")) == 1
        await stranger.settled()
        assert attachment_id not in str(stranger.frames)
        await phone.send("send_message", message="and?")
        more = await phone.wait("message_ack", clientId=None)
        assert "attachments" not in more


async def test_refusals_name_the_frame(api: Api, player_id: int) -> None:
    used = await asyncio.to_thread(uploaded, api.player(player_id))
    async with entered(api.worker.url, player_token(api, player_id)) as phone:
        await phone.send("send_message", message="x", attachmentIds=[used] * 6, clientId="c1")
        assert (await phone.wait("error", clientId="c1"))["code"] == "value_invalid"
        await phone.send("send_message", attachmentIds=[], clientId="c2")
        assert (await phone.wait("error", clientId="c2"))["code"] == "value_invalid"
        await phone.send("send_message", attachmentIds=[used], clientId="c3")
        await phone.wait("message_ack", clientId="c3")
        await phone.send("send_message", message="x", attachmentIds=[used], clientId="c4")
        assert (await phone.wait("error", clientId="c4"))["code"] == "attachment_used"


async def test_a_reader_that_was_away_gets_the_newest_state(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    first, second, third = [await asyncio.to_thread(uploaded, player) for _ in range(3)]
    sent = await asyncio.to_thread(player.send, "one", attachmentIds=[first, second])
    session = sent["sessionId"]
    async with entered(api.worker.url, player_token(api, player_id), since={}) as phone:
        await phone.wait("chat_message", message={"seq": 1})
        await asyncio.to_thread(examined, api, first)
        await phone.wait("attachment_updated", attachment={"id": first})
    await asyncio.to_thread(examined, api, second, "refused", code="virus")
    await asyncio.to_thread(player.send, "two", attachmentIds=[third])
    await asyncio.to_thread(examined, api, third)
    for token in (player_token(api, player_id), staff_token(api)):
        async with entered(api.worker.url, token, since={session: 1}) as back:
            await back.wait("chat_message", message={"session_id": session, "seq": 2})
            await back.wait("attachment_updated", attachment={"id": second})
            await back.settled()
            assert states(back, second) == ["refused"]
            (update,) = back.all("attachment_updated", attachment={"id": second})
            assert (update["attachment"]["refused"], update["sessionId"]) == ("virus", session)
            assert set(states(back, third)) == {"ready"}
            assert back.code is None
        # A client that does not know the message, or wants nothing of before, is told nothing.
        for since in ({"since": {}}, {}):
            async with entered(api.worker.url, token, **since) as new:
                await new.settled()
                assert not new.all("attachment_updated", attachment={"id": second})


async def test_many_changes_close_no_connection(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    ids: list[str] = []
    for _ in range(6):
        five = [await asyncio.to_thread(uploaded, player) for _ in range(5)]
        sent = await asyncio.to_thread(player.send, "five", attachmentIds=five)
        ids += five
    async with (
        entered(api.worker.url, player_token(api, player_id)) as phone,
        entered(api.worker.url, staff_token(api)) as desk,
    ):
        for attachment_id in ids:
            await asyncio.to_thread(examined, api, attachment_id)
        for client in (phone, desk):
            await client.until(lambda c=client: all(states(c, one) for one in ids))
            assert client.code is None
    async with entered(api.worker.url, player_token(api, player_id), since={sent["sessionId"]: 6}) as back:
        await back.until(lambda: all(states(back, one) for one in ids))
        await back.settled()
        assert back.code is None and not back.all("chat_message")


async def test_a_backlog_of_changes_in_one_session_reaches_everybody(api: Api, player_id: int) -> None:
    """After an outage of the decoder: more than the hub reads of a session at once."""
    player = api.player(player_id)
    attachment_id = await asyncio.to_thread(uploaded, player)
    sent = await asyncio.to_thread(player.send, "one", attachmentIds=[attachment_id])
    async with (
        entered(api.worker.url, player_token(api, player_id), since={}) as phone,
        entered(api.worker.url, staff_token(api), since={sent["sessionId"]: 1}) as desk,
    ):
        await phone.wait("chat_message", message={"seq": 1})
        await desk.settled()
        rows = api.sql(
            "with s as (update gre_chat_sessions set rev = rev + 250 where id = %s returning id, rev - 250 as rev)"
            " insert into gre_chat_attachments (id, player_id, session_id, message_id, place, by, name, kind, type, bytes,"
            " announced_bytes, object_type, state, rev, changed_at)"
            " select gen_random_uuid(), %s, s.id, (select id from gre_chat_messages m where m.session_id = s.id), 0, 'player', 'x', 'file', 'x', 1, 1, 'x', 'ready', s.rev + g, now()"
            " from s, generate_series(1, 250) g returning id::text",
            sent["sessionId"], player_id,
        )  # fmt: skip
        ids = {row["id"] for row in rows}
        for client in (phone, desk):
            await client.until(lambda c=client: all(states(c, one) for one in ids))
            await client.settled()
            assert all(states(client, one) == ["ready"] for one in ids)
            assert client.code is None
