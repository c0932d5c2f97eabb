"""The console's REST calls: queue, staff, players, operations, dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api, Person
from tests.support.story import as_replayed, replay
from tests.support.waiting import wait_until

STAFF_ONLY = ("queue", "staff", "player/29", "operations", "dead")


@pytest.fixture(scope="module", autouse=True)
def people(api: Api) -> Iterator[None]:
    api.sql(
        "insert into gre_staff (staff_id, display_name, role) values ('s7', 'Sam', 'staff') on conflict do nothing"
    )
    yield
    api.sql("delete from gre_staff where staff_id = 's7'")


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def mine(who: Person, player_id: int, **params: Any) -> Any:
    """The only session of this player in the queue."""
    (found,) = ok(who.get("/api/gre-admin/queue", params={"player": player_id, **params}))["sessions"]
    return found


def test_the_queue_contains_the_time_since_which_a_session_waits(api: Api, player_id: int) -> None:
    sent = api.player(player_id).send()
    found = mine(api.staff(), player_id)
    assert (found["id"], found["waiting_since"]) == (sent["sessionId"], sent["message"]["created_at"])
    assert found["last_message"] == "Is table 4 open?"
    api.staff().post("/api/gre-admin/reply", playerId=player_id, message="Yes")
    assert mine(api.staff(), player_id)["waiting_since"] is None
    assert "waiting_since" not in api.staff().get("/api/gre-admin/sessions").text
    put = api.staff().put(f"/api/gre-admin/session/{sent['sessionId']}/status", status="closed")
    assert "waiting_since" not in put.text
    assert mine(api.staff(), player_id, status="closed")["status"] == "closed"
    assert (
        ok(api.staff().get("/api/gre-admin/queue", params={"player": player_id, "status": "active"}))[
            "sessions"
        ]
        == []
    )


def test_the_queue_is_paged_and_filtered(api: Api, player_id: int) -> None:
    for number in range(player_id + 500_000, player_id + 500_005):
        api.player(number).send(playerName=f"Qu_{player_id} {number}")
    which = {"player": f"qu_{player_id}", "limit": 2, "assigned": "none"}
    first = ok(api.staff().get("/api/gre-admin/queue", params=which))
    second = ok(api.staff().get("/api/gre-admin/queue", params={**which, "cursor": first["next"]}))
    third = ok(api.staff().get("/api/gre-admin/queue", params={**which, "cursor": second["next"]}))
    found = [one["player_id"] for page in (first, second, third) for one in page["sessions"]]
    assert found == list(range(player_id + 500_000, player_id + 500_005))
    assert third["next"] is None
    assert ok(api.staff().get("/api/gre-admin/queue", params={**which, "assigned": "me"}))["sessions"] == []
    assert ok(api.staff().get("/api/gre-admin/queue", params={"player": f"qu%{player_id}"}))["sessions"] == []
    for wrong, status in (({"cursor": "x"}, 400), ({"status": "pending"}, 422), ({"limit": 501}, 422)):
        assert api.staff().get("/api/gre-admin/queue", params=wrong).status_code == status


def test_the_story_of_a_session_is_what_was_done_over_rest(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    status, path = f"/api/gre-admin/session/{session}/status", f"/api/gre-admin/events/{session}"
    api.staff().put(status, status="assigned")
    api.staff().post("/api/gre-admin/reply", playerId=player_id, message="Yes")
    api.backend("staff:s7").put(status, status="assigned")
    closed = api.staff().post(f"/api/gre-chat/close-session/{player_id}").json()["session"]
    reopened = api.staff().put(status, status="active").json()["session"]
    events = ok(api.staff().get(path))["events"]
    assert [(e["kind"], e["after_seq"], e["staff_id"], e["by_staff_id"], e["data"]) for e in events] == [
        ("opened", 0, None, None, {}), ("assigned", 1, "s1", "s1", {}), ("transferred", 2, "s7", "s7", {"from": "s1"}),
        ("closed", 2, None, "s1", {"by": "staff"}), ("reopened", 2, None, "s1", {"cycle": 2}), ("released", 2, "s7", "s1", {}),
    ]  # fmt: skip
    assert replay(events[:4]) == as_replayed(closed)
    assert replay(events) == as_replayed(reopened)
    for spelling in ("after_rev", "afterRev"):
        rest = ok(api.staff().get(path, params={spelling: events[3]["rev"]}))
        assert rest == {"success": True, "events": events[4:], "has_more": False}


def test_a_session_has_new_fields_only_where_they_say_something(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    new = {"closed_by", "cycle"}
    assert mine(api.staff(), player_id).keys() & new == set()
    closed = api.staff().post(f"/api/gre-chat/close-session/{player_id}").json()["session"]
    assert closed.keys() & new == set()
    reopened = api.staff().put(f"/api/gre-admin/session/{session}/status", status="active").json()["session"]
    assert (reopened["cycle"], reopened.keys() & new) == (2, {"cycle"})
    api.sql("update gre_chat_sessions set status = 'closed' where id = %s", session)
    found = mine(api.staff(), player_id, status="closed")
    assert (found["cycle"], found["closed_by"]) == (2, "system")


def test_the_story_is_for_staff_and_of_a_session_that_is_there(api: Api, player_id: int) -> None:
    path = f"/api/gre-admin/events/{api.player(player_id).send()['sessionId']}"
    for who, code in ((api.player(player_id), "staff_only"), (api.backend(), "act_as_required")):
        refused = who.get(path)
        assert (refused.status_code, refused.json()["code"]) == (403, code)
    unknown = api.admin().get(f"/api/gre-admin/events/{uuid.uuid4()}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "session_unknown")
    for wrong in (f"{path}?after_rev=x", "/api/gre-admin/events/1"):
        assert api.staff().get(wrong).status_code == 422


def test_staff_and_players_are_listed(api: Api, player_id: int) -> None:
    found = {one["staffId"]: one for one in ok(api.staff().get("/api/gre-admin/staff"))["staff"]}
    assert found["s7"] == {"staffId": "s7", "displayName": "Sam", "role": "staff", "status": "offline", "active": True,
                           "openSessions": 0, "takesSessions": True, "maxSessions": None}  # fmt: skip
    path = f"/api/gre-admin/player/{player_id}"
    assert ok(api.staff().get(path))["player"] == {
        "playerId": player_id,
        "displayName": None,
        "enabled": True,
    }
    api.staff().post(f"/api/gre-chat/enable-player/{player_id}", enabled=False)
    assert ok(api.staff().get(path))["player"]["enabled"] is False
    assert api.staff().get("/api/gre-admin/player/0").status_code == 422


def test_the_desk_is_for_staff_and_dead_letters_are_for_admins(api: Api, player_id: int) -> None:
    for path in STAFF_ONLY:
        for who in (api.player(player_id), api.backend(f"player:{player_id}")):
            refused = who.get(f"/api/gre-admin/{path}")
            assert (refused.status_code, refused.json()["code"]) == (403, "staff_only")
        assert api.backend().get(f"/api/gre-admin/{path}").json()["code"] == "act_as_required"
        assert api.with_token(None).get(f"/api/gre-admin/{path}").status_code == 401
        assert api.admin().get(f"/api/gre-admin/{path}").status_code == 200
        assert api.staff().get(f"/api/gre-admin/{path}").status_code == (403 if path == "dead" else 200)
    for who, code in ((api.staff(), "admin_only"), (api.player(player_id), "staff_only")):
        answer = who.post("/api/gre-admin/dead/retry", ids=[])
        assert (answer.status_code, answer.json()["code"]) == (403, code)


def test_operations_contain_sinks_realtime_and_rate(api: Api, player_id: int) -> None:
    sent = api.player(player_id).send("zebra")
    api.wait_received("pusher", id=sent["messageId"])
    wait_until(lambda: ok(api.staff().get("/api/gre-admin/operations"))["workers"], what="a heartbeat")
    api.stack.drained()

    def live() -> Any:
        found = ok(api.staff().get("/api/gre-admin/operations"))
        return found["realtime_state"] == "live" and found

    # (Of a daemon that another test killed the last beat counts for a minute.)
    found = wait_until(live, 150, what="a live subscription")
    assert (found["backlog"], found["oldest_age_seconds"]) == (0, None)
    assert {one["name"]: (one["enabled"], one["breaker"]) for one in found["sinks"]} == {"pusher": (True, "closed"), "onesignal": (True, "closed")}  # fmt: skip
    assert sum(one["count"] for one in found["per_minute"]) >= 3
    assert "zebra" not in str(found)


@contextmanager
def renamed(api: Api, function: str) -> Iterator[None]:
    """A database without this function."""
    api.sql(f"alter function {function} rename to gre_not_there")
    try:
        yield
    finally:
        api.sql(f"alter function public.gre_not_there rename to {function.split('.')[1]}")


def test_an_older_schema_is_reported(api: Api, player_id: int) -> None:
    with renamed(api, "public.gre_list_staff"):

        def outdated() -> Any:
            answer = api.staff().get("/api/gre-admin/staff")
            return answer.status_code == 503 and answer.json()

        said = wait_until(outdated, what="the reload")
        assert said["code"] == "schema_outdated"
        assert "gre-bridge migrate" in said["error"]
        api.player(player_id).send()  # the rest goes on
    wait_until(lambda: api.staff().get("/api/gre-admin/staff").status_code == 200)
