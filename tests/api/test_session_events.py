"""Frames `session_event`: staff hear at once what happens to a session, players never."""

from __future__ import annotations

from tests.api.client import entered
from tests.api.conftest import Api


async def test_staff_hear_of_each_event_once_and_players_of_none(api: Api, player_id: int) -> None:
    keys = api.stack.keys
    async with (
        entered(api.worker.url, keys.user_token("player", player_id=player_id)) as phone,
        entered(api.worker.url, keys.user_token("staff", staff_id="s1")) as desk,
        entered(api.worker.url, keys.user_token("staff", staff_id="s2")) as other,
    ):
        session = api.player(player_id).send()["sessionId"]
        for who, path, body in (
            (api.staff(), "take", {}), (api.staff(), "transfer", {"toStaffId": "s2"}), (api.staff("s2"), "release", {}),
        ):  # fmt: skip
            assert who.post(f"/api/gre-admin/{path}", sessionId=session, **body).status_code == 200
        api.staff().post(f"/api/gre-chat/close-session/{player_id}")
        story = api.staff().get(f"/api/gre-admin/events/{session}").json()["events"]
        assert [event["kind"] for event in story] == [
            "opened",
            "assigned",
            "transferred",
            "released",
            "closed",
        ]
        for client in (desk, other):
            await client.until(lambda c=client: len(c.all("session_event", sessionId=session)) >= len(story))
            await client.settled()
            found = client.all("session_event", sessionId=session)
            assert [frame["event"] for frame in found] == story
            assert found[0].keys() == {"type", "sessionId", "event"}
        await phone.wait("session_updated", session={"id": session, "status": "closed"})
        await phone.settled()
        assert phone.all("session_event") == []


async def test_a_later_message_repeats_no_event(api: Api, player_id: int) -> None:
    async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as desk:
        session = api.player(player_id).send()["sessionId"]
        await desk.wait("session_event", sessionId=session, event={"kind": "opened"})
        desk.forget()
        last = api.player(player_id).send()["messageId"]
        await desk.wait("chat_message", message={"id": last})
        await desk.settled()
        assert desk.all("session_event", sessionId=session) == []
