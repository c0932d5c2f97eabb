"""A conversation in which every type of frame and of Pusher's events occurs, each held against docs/asyncapi.json."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gre_bridge.api.schemas.frames import SERVER_FRAMES
from gre_bridge.api.schemas.pusher_events import PUSHER_EVENTS
from gre_bridge.api.ws.frames import CLIENT_FRAMES
from tests.api.client import Client, entered
from tests.api.conftest import Api
from tests.api.files import examined, uploaded
from tests.support.canary import note
from tests.support.waiting import wait_until

Json = dict[str, Any]
DOCUMENT: Json = json.loads((Path(__file__).parents[2] / "docs" / "asyncapi.json").read_text())


def closed(schema: Any) -> Any:
    """Copy a schema so that it allows no field but its own: the document leaves room for those of later versions."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(item) for key, item in schema.items()}
    return {**copy, "additionalProperties": False} if isinstance(copy.get("properties"), dict) else copy


COMPONENTS = {"schemas": closed(DOCUMENT["components"]["schemas"])}
VALIDATORS = {
    key: Draft202012Validator({**closed(message["payload"]), "components": COMPONENTS})
    for key, message in DOCUMENT["components"]["messages"].items()
}


def problems(key: str, value: Json) -> list[str]:
    """Return what the document says against this frame or event."""
    return [f"{key} {error.json_path}: {error.message}" for error in VALIDATORS[key].iter_errors(value)]


@pytest.fixture
def ratings(api: Api) -> Iterator[None]:
    """Players are asked for a rating during the test."""
    api.sql("update gre_chat_settings set rating_enabled = true")
    yield
    api.sql("update gre_chat_settings set rating_enabled = false")


async def talk(api: Api, player_id: int, clients: AsyncExitStack) -> list[Client]:
    """Let a player and two of the staff do everything that a socket can do; return their clients."""
    keys = api.stack.keys
    tokens = [keys.user_token("staff", staff_id=name) for name in ("s1", "s2")]
    mine = keys.user_token("player", player_id=player_id)
    attachment_id = await asyncio.to_thread(uploaded, api.player(player_id))
    phone = await clients.enter_async_context(entered(api.worker.url, mine, since={}))
    desk, other = [await clients.enter_async_context(entered(api.worker.url, token)) for token in tokens]

    await phone.send("send_message", message="Hello", attachmentIds=[attachment_id], clientId="c1")
    session = (await phone.wait("message_ack", clientId="c1"))["sessionId"]
    await desk.wait("chat_message", message={"session_id": session})
    await asyncio.to_thread(examined, api, attachment_id)
    await phone.wait("attachment_updated", sessionId=session)
    await phone.send("typing", typing=True)
    await desk.wait("typing", sessionId=session, by="player")
    await desk.send("typing", sessionId=session, typing=True)
    await phone.wait("typing", sessionId=session, by="staff")
    await desk.send("typing", **{"sessionId": session, "typing": True, "for": "note"})
    await other.wait("typing", **{"sessionId": session, "for": "note"})
    await desk.send("viewing", sessionId=session, viewing=True)
    await other.wait("session_viewers", sessionId=session)
    await desk.send("add_note", sessionId=session, text=note(), clientId="n1")
    await desk.wait("session_note", clientId="n1")
    await other.wait("session_note", note={"session_id": session})
    await desk.send("mark_read", sessionId=session, upToSeq=1)
    await phone.wait("messages_read", sessionId=session, by="staff")
    await desk.send("set_status", status="away")
    await phone.wait("staff_status", staffId="s1", status="away")
    await desk.send("set_status", status="online")
    await desk.send("send_message", sessionId=session, message="Yes", clientId="d1", afterSeq=1)
    await desk.wait("message_ack", clientId="d1")
    for who, path, body in (
        (api.staff(), "take", {}), (api.staff(), "transfer", {"toStaffId": "s2"}), (api.staff("s2"), "release", {}),
    ):  # fmt: skip
        answer = await asyncio.to_thread(who.post, f"/api/gre-admin/{path}", sessionId=session, **body)
        assert answer.status_code == 200, answer.text
    await asyncio.to_thread(api.staff().post, f"/api/gre-chat/close-session/{player_id}")
    await phone.wait("session_updated", session={"id": session, "status": "closed"})
    await phone.send("rate_session", sessionId=session, score=5, comment="Quick", clientId="r1")
    await phone.wait("session_rated", clientId="r1")
    await desk.wait("session_event", sessionId=session, event={"kind": "rated"})
    await phone.send("send_message", message="", clientId="c2")
    await phone.wait("error", clientId="c2")
    await phone.settled()
    back = await clients.enter_async_context(entered(api.worker.url, mine, since={session: 1}))
    await back.wait("chat_message", message={"session_id": session, "seq": 2}, replay=True)
    return [phone, desk, other, back]


def one_of_each(key: str, frames: list[Json]) -> dict[str, Json]:
    """Return a frame of each type, under its name in the document."""
    return {f"{key}.{frame['type']}": frame for frame in frames}


@pytest.mark.usefixtures("ratings")
async def test_every_frame_and_event_is_as_the_document_says(api: Api, player_id: int) -> None:
    async with AsyncExitStack() as all_of_them:
        clients = await talk(api, player_id, all_of_them)
        sent = [frame for client in clients for frame in client.sent]
        received = [frame for client in clients for frame in client.frames]
    for key, frames in (("client", sent), ("server", received)):
        # The one frame that is refused is not as the document says.
        wrong = [p for f in frames if f.get("clientId") != "c2" for p in problems(f"{key}.{f['type']}", f)]
        assert wrong == []
    assert {frame["type"] for frame in sent} == CLIENT_FRAMES.keys()
    assert {frame["type"] for frame in received} == SERVER_FRAMES.keys()

    def events() -> list[Json]:
        return [item for item in api.stack.received("pusher") if is_of(item["data"], player_id, sessions)]

    sessions = {frame["sessionId"] for frame in received if frame["type"] == "message_ack"}
    wait_until(lambda: {item["name"] for item in events()} == PUSHER_EVENTS.keys(), what="all events")
    assert [p for item in events() for p in problems(f"pusher.{item['name']}", item["data"])] == []

    # What the document allows is no more than this: each of these with one field more or less is refused.
    examples = one_of_each("client", [f for f in sent if f.get("clientId") != "c2"])
    examples |= one_of_each("server", received)
    examples |= {f"pusher.{item['name']}": item["data"] for item in events()}
    assert examples.keys() == VALIDATORS.keys()
    for key, value in examples.items():
        assert problems(key, {**value, "unknown": 1}), key
        for field in DOCUMENT["components"]["messages"][key]["payload"].get("required", ()):
            assert problems(key, {name: item for name, item in value.items() if name != field}), (key, field)


def is_of(data: Json, player_id: int, sessions: set[str]) -> bool:
    """Return True for the data of an event of this player or one of these sessions."""
    session = data.get("session_id") or data.get("note", {}).get("session_id")
    return session in sessions or data.get("session", data).get("player_id") == player_id


def test_each_message_is_on_a_channel_and_each_reference_leads_somewhere() -> None:
    components = DOCUMENT["components"]
    on_channels = {key for channel in DOCUMENT["channels"].values() for key in channel["messages"]}
    assert on_channels == components["messages"].keys()
    references = set(find_references(DOCUMENT))
    assert len(references) > len(on_channels)
    for reference in references:
        target: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target, reference


def find_references(value: Any) -> Iterator[str]:
    """Find all references in a part of the document."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_references(item)
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"]
