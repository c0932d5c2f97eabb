"""What staff see of each other over REST and on sockets: a colleague's reply, notes, viewers."""

from __future__ import annotations

import uuid

from tests.api.client import Client, entered
from tests.api.conftest import Api
from tests.support.canary import CANARY, note


def test_a_reply_over_a_colleagues_head_is_refused_with_who_and_which_seq(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    key = str(uuid.uuid4())
    own = {"sessionId": session, "message": "Yes", "afterSeq": 1, "id": key}
    assert api.staff("s1").post("/api/gre-admin/reply", **own).status_code == 201
    for path in ("/api/gre-admin/reply", "/api/gre-chat/send", "/api/unified-chat/send"):
        answer = api.staff("s2").post(path, sessionId=session, message="No", afterSeq=1)
        assert (answer.status_code, answer.json()["code"]) == (409, "session_moved")
        assert answer.json()["details"] == {"by": "s1", "seq": 2}
    assert api.staff("s2").post("/api/gre-chat/send", sessionId=session, message="No", after_seq=2).is_success
    assert api.staff("s1").post("/api/gre-admin/reply", **own).status_code == 200, "a repeat"
    wrong = {"playerId": player_id, "message": "No", "afterSeq": 2}
    answer = api.staff().post("/api/gre-admin/reply", **wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "session_missing")
    assert api.staff().post("/api/gre-admin/reply", **{**own, "afterSeq": "-1"}).status_code == 422
    texts = [m["message"] for m in api.staff().get(f"/api/gre-admin/messages/{session}").json()["messages"]]
    assert texts == ["Is table 4 open?", "Yes", "No"]


async def test_a_socket_is_told_who_has_written(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    api.staff("s1").post("/api/gre-admin/reply", sessionId=session, message="Yes")
    token = api.stack.keys.user_token("staff", staff_id="s2")
    async with entered(api.worker.url, token) as desk:
        own = {"sessionId": session, "message": "No", "clientId": "c1"}
        await desk.send("send_message", **own, afterSeq=1)
        error = await desk.wait("error", clientId="c1")
        assert (error["code"], error["details"]) == ("session_moved", {"by": "s1", "seq": 2})
        await desk.send("send_message", **own, afterSeq=2)
        assert (await desk.wait("message_ack", clientId="c1"))["seq"] == 3


# Notes


def test_notes_are_read_and_added_by_staff_only(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    key, path = str(uuid.uuid4()), f"/api/gre-admin/notes/{session}"
    own = {"sessionId": session, "text": note(), "id": key}
    added = api.staff().post("/api/gre-admin/notes", **own)
    assert added.status_code == 201, added.text
    found = added.json()["note"]
    assert (found["id"], found["n"], found["after_seq"], found["staff_id"]) == (key, 1, 1, "s1")
    assert api.staff().post("/api/gre-admin/notes", **own).status_code == 200, "a repeat"
    other = (
        api.staff("s2").post("/api/gre-admin/notes", session_id=session, text=note("Another")).json()["note"]
    )
    assert api.admin().get(path).json() == {"success": True, "notes": [found, other], "has_more": False}
    assert api.backend("staff:s1").get(path, params={"afterN": 1}).json()["notes"] == [other]
    for who in (api.player(player_id), api.backend(f"player:{player_id}")):
        for answer in (who.get(path), who.post("/api/gre-admin/notes", **own)):
            assert (answer.status_code, answer.json()["code"]) == (403, "staff_only")
    wrong = (
        ({"sessionId": session, "text": " "}, 400, "note_empty"),
        ({"sessionId": session, "text": "x" * 4001}, 400, "note_too_long"),
        ({**own, "text": note("Not the same")}, 409, "id_conflict"),
        ({**own, "sessionId": key}, 404, "session_unknown"),
        ({"sessionId": session}, 422, "invalid"),
        ({"sessionId": "x", "text": note()}, 422, "invalid"),
    )
    for body, status, code in wrong:
        answer = api.staff().post("/api/gre-admin/notes", **body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert api.backend().post("/api/gre-admin/notes", **own).json()["code"] == "act_as_required"
    assert api.staff().get(f"/api/gre-admin/notes/{key}").status_code == 404
    assert api.staff().get("/api/gre-admin/notes/x").status_code == 422
    assert len(api.staff().get(path).json()["notes"]) == 2


async def test_a_note_reaches_the_sockets_and_the_private_channel_of_staff_and_no_player(
    api: Api, player_id: int
) -> None:
    session = api.player(player_id).send()["sessionId"]
    tokens = [api.stack.keys.user_token("staff", staff_id=name) for name in ("s1", "s2")]
    mine = api.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(api.worker.url, tokens[0]) as one,
        entered(api.worker.url, tokens[1]) as two,
        entered(api.worker.url, mine, since={}) as phone,
    ):
        own = {"sessionId": session, "text": note(), "id": str(uuid.uuid4()), "clientId": "n1"}
        await one.send("add_note", **own)
        answer = await one.wait("session_note", clientId="n1")
        heard = await two.wait("session_note", note={"id": own["id"]})
        assert answer["note"] == heard["note"]
        assert (heard["note"]["text"], heard["note"]["after_seq"]) == (note(), 1)
        await one.send("add_note", **own)
        await one.until(lambda: len(one.all("session_note", clientId="n1")) == 2)
        api.staff("s2").post("/api/gre-admin/notes", sessionId=session, text=note("Over REST"))
        for desk in (one, two):
            await desk.wait("session_note", note={"text": note("Over REST"), "n": 2})
        await one.send("send_message", sessionId=session, message="Yes", clientId="m1")
        await phone.wait("chat_message", message={"message": "Yes"})
        await phone.send("add_note", **{**own, "clientId": "p1"})
        assert (await phone.wait("error", clientId="p1"))["code"] == "staff_only"
        for desk in (one, two):
            await desk.settled()
            numbers = [frame["note"]["n"] for frame in desk.all("session_note")]
            assert numbers == ([1, 1, 2] if desk is one else [1, 2]), "not also from the hub"
        assert CANARY not in str(phone.frames)
    api.stack.drained()
    announced = [item for item in api.stack.received("pusher") if item["name"] == "session-note"]
    announced = [item for item in announced if item["data"]["note"]["session_id"] == session]
    assert [(item["channel"], item["data"]["note"]["n"]) for item in announced] == [
        ("private-staff-portal", 1),
        ("private-staff-portal", 2),
    ]
    assert CANARY not in str(api.stack.received("onesignal"))


async def test_a_note_whose_answer_is_lost_reaches_its_author(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    async with entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as one:
        lost = {"mode": "lose_answer", "times": 1, "path": "/rest/v1/rpc/gre_add_note"}
        api.stack.fault("rest", lost)
        try:
            await one.send("add_note", sessionId=session, text=note(), clientId="n1")
            # From the hub after the error, or in place of the answer if the hub was faster.
            await one.wait("session_note", note={"session_id": session, "n": 1, "text": note()})
        finally:
            api.stack.http.delete("/__stack/faults").raise_for_status()
        await one.send("add_note", sessionId=session, text=note("Next"), clientId="n2")
        await one.wait("session_note", clientId="n2")
        await one.settled()
        assert [frame["note"]["n"] for frame in one.all("session_note")] == [1, 2]


async def test_typing_a_note_is_shown_to_staff_only(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    tokens = [api.stack.keys.user_token("staff", staff_id=name) for name in ("s1", "s2")]
    mine = api.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(api.worker.url, tokens[0]) as one,
        entered(api.worker.url, tokens[1]) as two,
        entered(api.worker.url, mine) as phone,
    ):
        await one.send("typing", **{"sessionId": session, "typing": True, "for": "note"})
        frame = await two.wait("typing", sessionId=session)
        assert (frame["for"], frame["staffId"]) == ("note", "s1")
        await one.send("typing", sessionId=session, typing=True)
        await phone.wait("typing", sessionId=session)
        assert len(phone.all("typing")) == 1
        assert "for" not in phone.all("typing")[0]
        await phone.send("typing", **{"typing": True, "for": "note", "clientId": "p1"})
        assert (await phone.wait("error", clientId="p1"))["code"] == "staff_only"
        await one.send("typing", **{"sessionId": session, "for": "reply", "clientId": "x"})
        assert (await one.wait("error", clientId="x"))["code"] == "value_invalid"


# Viewers


async def test_staff_see_who_looks_at_a_session_and_players_do_not(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    tokens = [api.stack.keys.user_token("staff", staff_id=name) for name in ("s1", "s2")]
    mine = api.stack.keys.user_token("player", player_id=player_id)

    def names(desk: Client) -> list[str]:
        found = desk.all("session_viewers", sessionId=session)
        return [viewer["staffId"] for viewer in found[-1]["viewers"]] if found else []

    async with (
        entered(api.worker.url, tokens[0]) as one,
        entered(api.worker.url, tokens[1]) as two,
        entered(api.worker.url, mine) as phone,
    ):
        await one.send("viewing", sessionId=session, viewing=True)
        await two.until(lambda: names(two) == ["s1"])
        await two.send("viewing", sessionId=session)
        await one.until(lambda: names(one) == ["s1", "s2"])
        await two.send("typing", sessionId=session, typing=True)
        await one.until(lambda: one.all("session_viewers")[-1]["viewers"][1]["typing"])
        await one.send("viewing", sessionId=session, viewing=False)
        await two.until(lambda: names(two) == ["s2"])
        await phone.send("viewing", sessionId=session, clientId="p1")
        assert (await phone.wait("error", clientId="p1"))["code"] == "staff_only"
        assert phone.all("session_viewers") == []


# Blocks


def test_a_block_has_a_reason_an_author_and_an_end(api: Api, player_id: int) -> None:
    api.player(player_id).send()
    path, known = f"/api/gre-admin/player/{player_id}/block", f"/api/gre-admin/player/{player_id}"
    until = "2099-01-01T10:00:00+01:00"
    answer = api.staff().put(path, until=until, reason="Insulted a dealer.")
    assert answer.status_code == 200, answer.text
    block = answer.json()["player"]["block"]
    assert (block["until"], block["reason"], block["by"]) == (
        "2099-01-01T09:00:00.000Z",
        "Insulted a dealer.",
        "s1",
    )
    assert api.admin().get(known).json() == answer.json()
    for who in (api.player(player_id), api.backend(f"player:{player_id}")):
        refused = who.post("/api/gre-chat/send", message="x")
        assert (refused.status_code, refused.json()["code"]) == (403, "chat_disabled")
        assert refused.json()["details"] == {"until": "2099-01-01T09:00:00.000Z"}
        assert "dealer" not in who.get("/api/gre-chat/me").text
        for method, where in (("PUT", path), ("DELETE", path), ("GET", known)):
            assert who.ask(method, where).json()["code"] == "staff_only"
    api.sql("update gre_chat_players set blocked_until = now() where player_id = %s", player_id)
    api.player(player_id).send()
    assert api.staff().get(known).json()["player"]["enabled"] is True
    assert api.backend("staff:s2").ask("PUT", path).json()["player"]["block"]["by"] == "s2", (
        "no end, no reason"
    )
    assert "details" not in api.player(player_id).post("/api/gre-chat/send", message="x").json()
    for _ in range(2):
        freed = api.staff().ask("DELETE", path).json()["player"]
        assert freed == {"playerId": player_id, "displayName": None, "enabled": True}
    api.player(player_id).send()
    wrong = (
        ({"until": "2001-01-01T00:00:00Z"}, 400, "until_invalid"),
        ({"until": "2099-01-01T00:00:00"}, 422, "invalid"),
        ({"until": "tomorrow"}, 422, "invalid"),
        ({"until": 1e300}, 422, "invalid"),
        ({"reason": "x" * 501}, 400, "reason_too_long"),
        ({"reason": 7}, 422, "invalid"),
    )
    for body, status, code in wrong:
        answer = api.staff().put(path, **body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert api.staff().put("/api/gre-admin/player/0/block").status_code == 422
    api.player(player_id).send()


async def test_a_block_ends_the_players_sockets(api: Api, player_id: int) -> None:
    api.player(player_id).send()
    async with entered(api.worker.url, api.stack.keys.user_token("player", player_id=player_id)) as phone:
        api.staff().put(f"/api/gre-admin/player/{player_id}/block", until="2099-01-01T10:00:00Z")
        assert await phone.end() == 4403
    api.sql("update gre_chat_players set blocked_until = now() where player_id = %s", player_id)
    async with entered(api.worker.url, api.stack.keys.user_token("player", player_id=player_id)) as phone:
        await phone.send("send_message", message="x", clientId="m1")
        await phone.wait("message_ack", clientId="m1")


# Search


def test_staff_search_messages(api: Api, player_id: int) -> None:
    word = f"zebra{player_id}"
    sent = api.player(player_id).send(f"Where is my {word.upper()}?")["message"]
    api.staff().post("/api/gre-admin/reply", playerId=player_id, message=f"The {word}s are late")

    def found(**params: object) -> list[str]:
        answer = api.staff().get("/api/gre-admin/search", params={"q": word, **params})
        assert answer.status_code == 200, answer.text
        assert answer.json()["next"] is None
        return [message["message"] for message in answer.json()["messages"]]

    assert found() == [f"The {word}s are late", f"Where is my {word.upper()}?"]
    assert found(q=f"late {word}") == found(staff="s1") == [f"The {word}s are late"]
    assert len(found(player=player_id, **{"from": sent["created_at"], "to": "", "staff": ""})) == 2
    assert found(to=sent["created_at"]) == found(player=1) == found(q=f"{word}%") == []
    (message, _) = api.admin().get("/api/gre-admin/search", params={"q": word}).json()["messages"]
    assert message["session"]["player_id"] == player_id
    assert (
        api.player(player_id).get("/api/gre-admin/search", params={"q": word}).json()["code"] == "staff_only"
    )
    for params, status, code in (
        ({"q": "x"}, 400, "query_invalid"),
        ({"q": "x" * 101}, 400, "query_invalid"),
        ({}, 422, "invalid"),
        ({"q": word, "from": "2026-01-01"}, 422, "invalid"),
        ({"q": word, "cursor": "x"}, 400, "cursor_invalid"),
        ({"q": word, "player": "x"}, 422, "invalid"),
        ({"q": "\0\0"}, 422, "invalid"),
    ):
        answer = api.staff().get("/api/gre-admin/search", params=params)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
