"""A player rates its closed session, over REST and over `/ws`; staff hear of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.client import Client, entered
from tests.api.conftest import Api

RATE = "/api/gre-chat/rate"


@pytest.fixture(autouse=True)
def asking(api: Api) -> Iterator[None]:
    """Ratings are on during each test."""
    api.sql("update gre_chat_settings set rating_enabled = true")
    yield
    api.sql("update gre_chat_settings set rating_enabled = false")


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def open_session(api: Api, player_id: int) -> str:
    session: str = api.player(player_id).send()["sessionId"]
    assert api.staff().post("/api/gre-admin/reply", sessionId=session, message="Yes").status_code == 201
    return session


def close(api: Api, session: str) -> None:
    ok(api.staff().put(f"/api/gre-admin/session/{session}/status", status="closed"))


def closed_session(api: Api, player_id: int) -> str:
    session = open_session(api, player_id)
    close(api, session)
    return session


def test_a_closed_session_is_rated_once(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    session = open_session(api, player_id)
    assert code(player.post(RATE, sessionId=session, score=5)) == (409, "session_open")
    close(api, session)
    rating = {"sessionId": session, "score": 4, "comment": "Quick, =and friendly"}
    found = ok(player.post(RATE, **rating))["session"]
    assert (found["id"], found["rating"], found["status"]) == (session, 4, "closed")
    assert ok(player.post(RATE, **rating))["session"] == found, "the same again"
    for other in ({"score": 5}, {"comment": "Slow"}, {"comment": ""}):
        assert code(player.post(RATE, **(rating | other))) == (409, "already_rated")
    events = ok(api.staff().get(f"/api/gre-admin/events/{session}"))["events"]
    assert (events[-1]["kind"], events[-1]["data"], events[-1]["by_staff_id"]) == (
        "rated",
        {"score": 4},
        None,
    )
    export = api.admin().get("/api/gre-admin/export", params={"what": "ratings"})
    rows = [json.loads(line) for line in export.text.splitlines()]
    (row,) = [row for row in rows if row["session_id"] == session]
    assert (row["score"], row["comment"], row["cycle"]) == (4, "Quick, =and friendly", 1)
    # After a reopening it can be rated again.
    ok(api.staff().put(f"/api/gre-admin/session/{session}/status", status="active"))
    assert "rating" not in ok(api.staff().get(f"/api/gre-admin/messages/{session}"))["session"]
    close(api, session)
    assert ok(player.post(RATE, sessionId=session, score=1, comment=" "))["session"]["rating"] == 1
    api.wait_received("pusher", session={**found, "rev": events[-1]["rev"]})


def test_who_may_rate_what(api: Api, player_id: int, other_id: int) -> None:
    session = closed_session(api, player_id)
    body = {"session_id": session, "score": "5"}
    for who, expected in (
        (api.player(other_id), (404, "session_unknown")),
        (api.backend(f"player:{other_id}"), (404, "session_unknown")),
        (api.staff(), (403, "player_only")),
        (api.admin(), (403, "player_only")),
        (api.backend(), (403, "act_as_required")),
        (api.with_token(None), (401, "not_authenticated")),
    ):
        assert code(who.post(RATE, **body)) == expected
    player = api.player(player_id)
    for change, expected in (
        ({"score": 0}, (422, "invalid")),
        ({"score": 6}, (422, "invalid")),
        ({"score": 4.5}, (422, "invalid")),
        ({"score": None}, (422, "invalid")),
        ({"comment": "x" * 1001}, (400, "comment_too_long")),
        ({"comment": "a\0b"}, (422, "invalid")),
        ({"session_id": str(uuid.uuid4())}, (404, "session_unknown")),
    ):
        assert code(player.post(RATE, **(body | change))) == expected
    api.sql("update gre_chat_settings set rating_enabled = false")
    assert code(player.post(RATE, **body)) == (409, "rating_off")
    api.sql("update gre_chat_settings set rating_enabled = true")
    assert ok(api.backend(f"player:{player_id}").post(RATE, **body))["session"]["rating"] == 5


async def test_a_socket_rates_and_staff_see_it_at_once(api: Api, player_id: int) -> None:
    session = closed_session(api, player_id)
    keys = api.stack.keys
    async with (
        entered(api.worker.url, keys.user_token("staff", staff_id="s1")) as staff,
        entered(api.worker.url, keys.user_token("player", player_id=player_id)) as player,
    ):

        async def rate(client: Client, **body: Any) -> None:
            await client.send("rate_session", **({"sessionId": session, "score": 2, "clientId": "c1"} | body))

        await rate(player, score=9)
        assert (await player.wait("error", clientId="c1"))["code"] == "value_invalid"
        await rate(staff)
        assert (await staff.wait("error", clientId="c1"))["code"] == "player_only"
        await rate(player, comment="Slow")
        rated = await player.wait("session_rated", clientId="c1")
        assert (rated["session"]["id"], rated["session"]["rating"]) == (session, 2)
        event = await staff.wait("session_event", sessionId=session, event={"kind": "rated"})
        assert event["event"]["data"] == {"score": 2}
        await staff.wait("session_updated", session={"id": session, "rating": 2})
        await player.wait("session_updated", session={"id": session, "rating": 2})
        player.forget()
        await rate(player, score=3, clientId="c2")
        assert (await player.wait("error", clientId="c2"))["code"] == "already_rated"
        await player.settled()
        assert not player.all("session_event")
