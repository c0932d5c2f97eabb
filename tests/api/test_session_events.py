"""Frames `session_event`: staff hear at once what happens to a session, players never."""

from __future__ import annotations

from tests.api.client import entered
from tests.api.conftest import Api
from tests.support.ageing import age

MANY_EVENTS = """
do $$ begin
  for n in 1..120 loop
    update gre_chat_sessions set assigned_staff_id = 's' || mod(n, 2) + 1 where id = 'SESSION';
    insert into gre_chat_attachments (id, player_id, session_id, message_id, place, by, name, kind, type, bytes,
                                      announced_bytes, object_type, state, rev, changed_at)
    select gen_random_uuid(), s.player_id, s.id, m.id, 0, 'player', 'many', 'file', 'x', 1, 1, 'x', 'ready', s.rev, now()
    from gre_chat_sessions s join gre_chat_messages m on m.session_id = s.id
    where s.id = 'SESSION' and mod(n, 30) < 15;
  end loop;
end $$"""


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


async def test_many_events_between_two_looks_reach_everybody_of_the_staff(api: Api, player_id: int) -> None:
    """More than the hub reads of a session at once, in one transaction, with files that change before and after."""
    session = api.player(player_id).send()["sessionId"]
    async with (
        entered(
            api.worker.url, api.stack.keys.user_token("staff", staff_id="s1"), since={session: 1}
        ) as desk,
        entered(
            api.worker.url, api.stack.keys.user_token("staff", staff_id="s2"), since={session: 1}
        ) as other,
    ):
        for client in (desk, other):
            await client.settled()
            client.forget()
        api.sql(MANY_EVENTS.replace("SESSION", session))
        story = api.staff().get(f"/api/gre-admin/events/{session}").json()["events"][-120:]
        files = api.sql(
            "select id::text from gre_chat_attachments where name = 'many' and session_id = %s", session
        )
        for client in (desk, other):
            await client.until(lambda c=client: len(c.all("session_event", sessionId=session)) >= len(story))
            await client.until(lambda c=client: len(c.all("attachment_updated")) >= len(files))
            await client.settled()
            assert [frame["event"] for frame in client.all("session_event", sessionId=session)] == story
            told = [
                frame["attachment"]["id"] for frame in client.all("attachment_updated", sessionId=session)
            ]
            assert sorted(told) == sorted(row["id"] for row in files)
            assert "rev" not in client.all("attachment_updated")[0]["attachment"]


async def test_many_messages_in_a_quiet_session_bring_its_old_story_to_nobody(
    api: Api, player_id: int
) -> None:
    """The hub has no position of the session, and needs two reads for its messages."""
    session = api.player(player_id).send()["sessionId"]
    for path in ("take", "release"):
        assert api.staff().post(f"/api/gre-admin/{path}", sessionId=session).status_code == 200
    assert api.staff().post(f"/api/gre-chat/read/{session}", upToSeq=1).status_code == 200
    with api.stack.db() as conn:
        age(conn, session)
    async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as desk:
        await desk.settled()
        desk.forget()
        api.sql(
            "begin; insert into gre_chat_messages (player_id, sender, message)"
            f" select {player_id}, 'system', 'x' from generate_series(1, 250);"
            f" update gre_chat_sessions set assigned_staff_id = 's2' where id = '{session}'; commit"
        )
        story = api.staff().get(f"/api/gre-admin/events/{session}").json()["events"]
        await desk.until(lambda: len(desk.all("chat_message")) >= 250)
        await desk.wait("session_event", sessionId=session, event=story[-1])
        await desk.settled()
        assert [frame["event"] for frame in desk.all("session_event", sessionId=session)] == story[-1:]
        assert desk.all("messages_read") == []
