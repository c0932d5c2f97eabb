"""REST of the desk: taking, releasing and transferring sessions, load, settings, opening hours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api, Person
from tests.support.canary import note
from tests.support.waiting import wait_until

ADMINS_ONLY = (
    ("PUT", "settings", {}), ("POST", "hours", {"name": "x", "timezone": "UTC"}), ("PUT", "hours/x", {"timezone": "UTC"}),
    ("DELETE", "hours/x", None), ("PUT", "staff/s2", {}),
)  # fmt: skip
STAFF_ONLY = (("GET", "settings", None), ("GET", "hours", None), ("GET", "hours/x", None))


@pytest.fixture(autouse=True)
def desk(api: Api) -> Iterator[None]:
    """The shared daemon's desk, as new before and after each test."""
    reset(api)
    yield
    reset(api)


def reset(api: Api) -> None:
    api.sql("delete from gre_chat_settings")
    api.sql("insert into gre_chat_settings default values")
    api.sql("delete from gre_hours")
    api.sql("update gre_staff set takes_sessions = true, max_sessions = null")


@pytest.fixture
def session(api: Api, player_id: int) -> str:
    """A session that waits, of nobody."""
    return str(api.player(player_id).send()["sessionId"])


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str, Any]:
    body = answer.json()
    return answer.status_code, body["code"], body.get("details")


def take(who: Person, session: str, **body: Any) -> httpx.Response:
    return who.post("/api/gre-admin/take", sessionId=session, **body)


# Assignment -----------------------------------------------------------------------------------------------------


def test_a_session_is_taken_transferred_with_a_note_and_released(api: Api, session: str) -> None:
    s1, s2 = api.staff(), api.staff("s2")
    assert ok(take(s1, session))["session"]["assigned_staff_id"] == "s1"
    assert ok(take(s1, session))["session"]["assigned_staff_id"] == "s1", "a repeat is no error"
    moved = s1.post("/api/gre-admin/transfer", sessionId=session, toStaffId="s2", note=note("asks for a refund"), afterSeq=1)  # fmt: skip
    assert ok(moved)["session"]["assigned_staff_id"] == "s2"
    assert ok(take(s1, session, fromStaffId="s2"))["session"]["assigned_staff_id"] == "s1"
    released = s1.post("/api/gre-admin/release", session_id=session)
    assert ok(released)["session"]["assigned_staff_id"] is None
    kept = ok(s2.post("/api/gre-admin/transfer", sessionId=session, toStaffId=None, note=note("and back")))
    assert kept["session"]["rev"] == released.json()["session"]["rev"] + 1, "the note"
    notes = api.sql("select staff_id, text from gre_chat_notes where session_id = %s order by n", session)
    assert [(row["staff_id"], row["text"]) for row in notes] == [("s1", note("asks for a refund")), ("s2", note("and back"))]  # fmt: skip


def test_pusher_tells_staff_alone_of_a_transfer(api: Api, player_id: int, session: str) -> None:
    ok(take(api.staff(), session))
    ok(api.staff().post("/api/gre-admin/transfer", sessionId=session, toStaffId="s2"))
    ok(take(api.staff(), session, fromStaffId="s2"))
    ok(api.staff().post("/api/gre-admin/release", sessionId=session))
    last = api.player(player_id).send()["messageId"]
    api.wait_received("pusher", id=last)  # sent in order
    found = [
        item
        for item in api.stack.received("pusher")
        if session in str(item) and "from" in item.get("data", {})
    ]
    assert [(item["channel"], item["name"], item["data"]) for item in found] == [
        ("private-staff-portal", "session-transferred", {"session_id": session, "from": before, "to": after, "by": "s1"})
        for before, after in (("s1", "s2"), ("s2", "s1"))
    ]  # fmt: skip


def test_of_two_who_take_at_once_one_is_told_who_has_it(api: Api, session: str) -> None:
    people = {"s1": api.staff(), "s2": api.staff("s2")}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            answers = dict(zip(people, pool.map(lambda who: take(who, session), people.values()), strict=True))  # fmt: skip
            (winner,) = [name for name, answer in answers.items() if answer.status_code == 200]
            (loser,) = [name for name in people if name != winner]
            assert refusal(answers[loser]) == (409, "session_taken", {"by": winner})
            assert answers[winner].json()["session"]["assigned_staff_id"] == winner
            ok(people[winner].post("/api/gre-admin/release", sessionId=session))


def test_a_colleagues_session_is_not_released_and_not_transferred_over_its_reply(
    api: Api, session: str
) -> None:
    ok(take(api.staff(), session))
    refused = api.staff("s2").post("/api/gre-admin/release", sessionId=session)
    assert refusal(refused) == (409, "session_taken", {"by": "s1"})
    api.staff().post("/api/gre-admin/reply", sessionId=session, message="Yes")
    refused = api.staff("s2").post("/api/gre-admin/transfer", sessionId=session, toStaffId="s2", afterSeq=1)
    assert refusal(refused) == (409, "session_moved", {"by": "s1", "seq": 2})
    (row,) = api.sql("select assigned_staff_id from gre_chat_sessions where id = %s", session)
    assert row["assigned_staff_id"] == "s1"


def test_a_transfer_takes_no_session_from_a_colleague_who_has_taken_it_meanwhile(
    api: Api, session: str
) -> None:
    s1, s2 = api.staff(), api.staff("s2")
    own = {"sessionId": session, "toStaffId": "s9", "note": note("for you"), "noteId": str(uuid.uuid4())}
    ok(take(s2, session))
    for seen in (None, "s9"):
        refused = s1.post("/api/gre-admin/transfer", **own, fromStaffId=seen)
        assert refusal(refused) == (409, "session_taken", {"by": "s2"})
    for _ in range(2):  # the second one is a repeat: its first answer was lost
        moved = ok(s1.post("/api/gre-admin/transfer", **own, fromStaffId="s2"))
        assert moved["session"]["assigned_staff_id"] == "s9"
    assert len(api.sql("select id from gre_chat_notes where session_id = %s", session)) == 1
    ok(s1.post("/api/gre-admin/transfer", sessionId=session, toStaffId=None))  # without the field: anybody's


def test_work_beyond_the_limit_is_done_and_said(api: Api, session: str) -> None:
    ok(api.admin().put("/api/gre-admin/staff/s9", maxSessions=0))
    moved = ok(api.staff().post("/api/gre-admin/transfer", sessionId=session, toStaffId="s9"))
    assert moved["over_limit"] == {"open_sessions": 1, "max_sessions": 0}
    listed = {one["staffId"]: one for one in ok(api.staff().get("/api/gre-admin/staff"))["staff"]}
    assert (listed["s9"]["openSessions"], listed["s9"]["maxSessions"]) == (1, 0)
    assert listed["s9"]["takesSessions"] is True
    api.staff().post("/api/gre-admin/transfer", sessionId=session, toStaffId=None)


@pytest.mark.parametrize("path", ["take", "release", "transfer"])
def test_who_may_not_assign_is_told_why_and_changes_nothing(
    api: Api, player_id: int, session: str, path: str
) -> None:
    path, body = f"/api/gre-admin/{path}", {"sessionId": session, "toStaffId": "s2"}
    for who, answer in (
        (api.player(player_id), (403, "staff_only", None)),
        (api.backend(f"player:{player_id}"), (403, "staff_only", None)),
        (api.backend(), (403, "act_as_required", None)),
        (api.backend("staff:nobody"), (403, "act_as_required", None)),
        (api.with_token(None), (401, "not_authenticated", None)),
        (api.with_token("x.y.z"), (401, "token_invalid", None)),
    ):
        assert refusal(who.post(path, **body)) == answer
    unknown = api.staff().post(path, **{**body, "sessionId": str(uuid.uuid4())})
    assert refusal(unknown) == (404, "session_unknown", None)
    api.staff().post(f"/api/gre-chat/close-session/{player_id}")
    assert refusal(api.staff().post(path, **body)) == (409, "session_closed", None)
    (row,) = api.sql("select assigned_staff_id from gre_chat_sessions where id = %s", session)
    assert row["assigned_staff_id"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("take", {}, 422, "invalid"), ("take", {"sessionId": 5}, 422, "invalid"), ("take", {"sessionId": None}, 422, "invalid"),
        ("take", {"sessionId": "SESSION", "fromStaffId": ["s2"]}, 422, "invalid"),
        ("take", {"sessionId": "SESSION", "fromStaffId": "\0"}, 422, "invalid"),
        ("release", {"sessionId": {}}, 422, "invalid"), ("release", {"sessionId": "9" * 5000}, 422, "invalid"),
        ("transfer", {"sessionId": "SESSION"}, 422, "invalid"), ("transfer", {"sessionId": "SESSION", "toStaffId": 2}, 422, "invalid"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "afterSeq": -1}, 422, "invalid"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "afterSeq": 2**63}, 422, "invalid"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "note": 7}, 422, "invalid"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": ""}, 404, "staff_unknown"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s" * 5000}, 404, "staff_unknown"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "nobody"}, 404, "staff_unknown"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "note": " "}, 400, "note_empty"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "note": "n" * 4001}, 400, "note_too_long"),
        ("transfer", {"sessionId": "SESSION", "toStaffId": "s2", "note": "n" * 70_000}, 413, "too_large"),
    ],
)  # fmt: skip
def test_a_malformed_request_changes_nothing(
    api: Api, session: str, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    given = {key: session if value == "SESSION" else value for key, value in body.items()}
    assert refusal(api.staff().post(f"/api/gre-admin/{path}", **given)) == (status, code, None)
    (row,) = api.sql("select assigned_staff_id, rev from gre_chat_sessions where id = %s", session)
    assert (row["assigned_staff_id"], row["rev"]) == (None, 2)
    assert api.sql("select 1 from gre_chat_notes where session_id = %s", session) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 60_000])
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    for method, path in (
        ("POST", "take"), ("POST", "release"), ("POST", "transfer"), ("PUT", "settings"), ("POST", "hours"), ("PUT", "hours/x"), ("PUT", "staff/s2"),
    ):  # fmt: skip
        assert api.admin().ask(method, f"/api/gre-admin/{path}", content=body).status_code in (400, 422)


def test_a_workers_assignment_is_seen_over_rest(api: Api, player_id: int, session: str) -> None:
    """The whole way: an admin switches assignment on, a relay process assigns, the load shows it."""
    api.sql("insert into gre_online_status (staff_id, status, last_seen_at, expires_at) values ('s9', 'online', now(), now() + interval '1 h')"
            " on conflict (staff_id) do update set status = 'online', last_seen_at = now(), expires_at = excluded.expires_at")  # fmt: skip
    for other in ("s1", "s2", "a1", "s7"):
        api.sql("update gre_staff set takes_sessions = false where staff_id = %s", other)
    ok(api.admin().put("/api/gre-admin/settings", assignment="least_busy"))
    try:

        def assigned() -> Any:
            found = ok(api.staff().get(f"/api/gre-admin/messages/{session}"))
            return found["session"]["assigned_staff_id"] == "s9"

        wait_until(assigned, 120, what="the assignment")
    finally:
        ok(api.admin().put("/api/gre-admin/settings", assignment="off"))
        api.sql("delete from gre_online_status where staff_id = 's9'")
        api.sql("update gre_chat_sessions set status = 'closed' where assigned_staff_id = 's9'")


# Staff ------------------------------------------------------------------------------------------------------------


def test_an_admin_sets_who_takes_how_many(api: Api) -> None:
    found = ok(api.admin().put("/api/gre-admin/staff/s2", takesSessions=False, maxSessions="7"))["staff"]
    assert (found["staffId"], found["takesSessions"], found["maxSessions"]) == ("s2", False, 7)
    found = ok(api.admin().put("/api/gre-admin/staff/s2", max_sessions=None))["staff"]
    assert (found["takesSessions"], found["maxSessions"]) == (False, None)
    for body, status, code in (
        ({"maxSessions": -1}, 422, "invalid"), ({"maxSessions": 1001}, 422, "invalid"), ({"maxSessions": 1e300}, 422, "invalid"),
        ({"maxSessions": "many"}, 422, "invalid"), ({"takesSessions": None}, 422, "invalid"), ({"takesSessions": "perhaps"}, 422, "invalid"),
        ({"role": "admin"}, 400, "settings_invalid"), ({"active": False}, 400, "settings_invalid"),
    ):  # fmt: skip
        assert refusal(api.admin().put("/api/gre-admin/staff/s2", **body)) == (status, code, None)
    assert refusal(api.admin().put("/api/gre-admin/staff/nobody", maxSessions=1)) == (404, "staff_unknown", None)  # fmt: skip
    assert api.admin().put("/api/gre-admin/staff/%00", maxSessions=1).status_code == 422


# Settings ---------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "assignment": "off", "max_sessions": None, "returning_within": None, "offline_after": 120, "idle_warn_after": None,
    "idle_close_after": None, "first_reply_goal": None, "reply_goal": None, "goals_in_hours": True, "hours": None,
    "rating_enabled": False,
}  # fmt: skip


def test_settings_are_changed_one_by_one_in_either_spelling(api: Api) -> None:
    path = "/api/gre-admin/settings"
    assert ok(api.staff().get(path))["settings"] == DEFAULTS
    changed = ok(api.admin().put(path, assignment="round_robin", maxSessions=5, reply_goal=90.5))["settings"]
    assert changed == DEFAULTS | {"assignment": "round_robin", "max_sessions": 5, "reply_goal": 90.5}
    changed = ok(api.admin().put(path, max_sessions=None, returningWithin=3600))["settings"]
    assert changed == DEFAULTS | {"assignment": "round_robin", "reply_goal": 90.5, "returning_within": 3600}
    assert ok(api.admin().put(path))["settings"] == changed, "nothing given, nothing changed"
    assert ok(api.admin().put(path, **changed))["settings"] == changed, "what was read can be sent"
    assert ok(api.staff().get(path))["settings"] == changed


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"colour": "red"}, 400, "settings_invalid"), ({"settings": {"assignment": "off"}}, 400, "settings_invalid"),
        ({"single": False}, 400, "settings_invalid"), ({"__class__": 1}, 400, "settings_invalid"),
        ({"assignment": "random"}, 422, "invalid"), ({"assignment": None}, 422, "invalid"), ({"max_sessions": 0}, 400, "settings_invalid"),
        ({"max_sessions": 10**30}, 422, "invalid"), ({"max_sessions": True}, 422, "invalid"), ({"offline_after": None}, 422, "invalid"),
        ({"offline_after": -1}, 422, "invalid"), ({"offline_after": "1 hour"}, 422, "invalid"), ({"reply_goal": 0.5}, 400, "settings_invalid"),
        ({"reply_goal": 10**400}, 422, "invalid"), ({"reply_goal": True}, 422, "invalid"), ({"goals_in_hours": {"a": 1}}, 422, "invalid"),
        ({"hours": "unknown"}, 404, "hours_unknown"), ({"hours": ""}, 404, "hours_unknown"), ({"hours": 7}, 422, "invalid"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_allowed_changes_nothing(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    refused = api.admin().put("/api/gre-admin/settings", rating_enabled=True, **body)
    assert refusal(refused) == (status, code, None)
    assert ok(api.staff().get("/api/gre-admin/settings"))["settings"] == DEFAULTS


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_number_that_json_does_not_have_is_refused(api: Api, number: bytes) -> None:
    """NaN must not become null, which switches the goal off."""
    ok(api.admin().put("/api/gre-admin/settings", reply_goal=60))
    refused = api.admin().ask("PUT", "/api/gre-admin/settings", content=b'{"reply_goal": ' + number + b"}")
    assert refused.status_code in (400, 422)
    assert ok(api.staff().get("/api/gre-admin/settings"))["settings"]["reply_goal"] == 60


def test_the_desk_is_read_by_staff_and_changed_by_admins(api: Api, player_id: int) -> None:
    nobody = [
        (api.player(player_id), (403, "staff_only")), (api.backend(f"player:{player_id}"), (403, "staff_only")),
        (api.backend(), (403, "act_as_required")), (api.with_token(None), (401, "not_authenticated")), (api.with_token("x"), (401, "token_invalid")),
    ]  # fmt: skip
    for method, path, body in (*STAFF_ONLY, *ADMINS_ONLY):
        for who, expected in nobody:
            assert refusal(who.ask(method, f"/api/gre-admin/{path}", json=body))[:2] == expected
    for method, path, body in ADMINS_ONLY:
        for who in (api.staff(), api.backend("staff:s1")):
            assert refusal(who.ask(method, f"/api/gre-admin/{path}", json=body))[:2] == (403, "admin_only")
    assert api.sql("select 1 from gre_hours") == []
    assert ok(api.backend("staff:a1").put("/api/gre-admin/settings", rating_enabled=True))["settings"]["rating_enabled"]  # fmt: skip


# Opening hours ----------------------------------------------------------------------------------------------------


def test_hours_are_created_read_replaced_and_deleted(api: Api) -> None:
    admin, path = api.admin(), "/api/gre-admin/hours"
    (row,) = api.sql("select (now() at time zone 'Europe/Malta')::date as today")
    today: date = row["today"]
    week = [
        {"weekday": 1, "opens": "09:00", "closes": "18:00"},
        {"weekday": "2", "opens": "22:00", "closes": "06:00"},
    ]
    holiday = {"day": (today + timedelta(days=30)).isoformat(), "label": "a holiday"}
    created = ok(admin.post(path, name="desk", timezone="Europe/Malta", week=week, dates=[holiday]), 201)["hours"]  # fmt: skip
    assert created == {
        "name": "desk", "timezone": "Europe/Malta",
        "week": [{"weekday": 1, "opens": "09:00", "closes": "18:00", "valid_from": today.isoformat()},
                 {"weekday": 2, "opens": "22:00", "closes": "06:00", "valid_from": today.isoformat()}],
        "dates": [{**holiday, "opens": None, "closes": None}],
    }  # fmt: skip
    assert ok(api.staff().get(path))["hours"] == [created]
    assert ok(api.staff().get(f"{path}/desk"))["hours"] == created
    assert ok(admin.put(f"{path}/desk", **created))["hours"] == created, "what was read can be sent"
    replaced = ok(admin.put(f"{path}/desk", timezone="Europe/Malta", week=[{"weekday": 7, "validFrom": holiday["day"]}]))["hours"]  # fmt: skip
    assert replaced["week"] == [{"weekday": 7, "opens": None, "closes": None, "valid_from": holiday["day"]}]
    assert replaced["dates"] == []
    assert ok(admin.put("/api/gre-admin/settings", hours="desk"))["settings"]["hours"] == "desk"
    assert refusal(admin.ask("DELETE", f"{path}/desk")) == (409, "hours_in_use", None)
    ok(admin.put("/api/gre-admin/settings", hours=None))
    assert ok(admin.ask("DELETE", f"{path}/desk")) == {"success": True}
    for method, body in (("GET", None), ("PUT", {"timezone": "UTC"}), ("DELETE", None)):
        assert refusal(admin.ask(method, f"{path}/desk", json=body)) == (404, "hours_unknown", None)


def test_hours_with_this_name_are_not_created_again(api: Api) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: api.admin().post("/api/gre-admin/hours", name="desk", timezone="UTC", week=[{"weekday": n}]), range(1, 5)))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    (created,) = [answer.json()["hours"] for answer in answers if answer.status_code == 201]
    assert ok(api.staff().get("/api/gre-admin/hours"))["hours"] == [created]
    assert {refusal(a) for a in answers if a.status_code == 409} == {(409, "hours_exist", None)}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"timezone": "Mars/Base"}, 400, "timezone_unknown"), ({"timezone": "CET"}, 400, "timezone_unknown"), ({"timezone": ""}, 400, "timezone_unknown"),
        ({"timezone": "x" * 5000}, 400, "timezone_unknown"), ({"timezone": None}, 422, "invalid"), ({"timezone": "\0"}, 422, "invalid"),
        ({"name": "other"}, 400, "hours_invalid"), ({"name": 7}, 422, "invalid"), ({"week": "always"}, 422, "invalid"), ({"week": [7]}, 422, "invalid"),
        ({"week": [{"weekday": 8}]}, 422, "invalid"), ({"week": [{"weekday": 10**30}]}, 422, "invalid"), ({"week": [{}]}, 422, "invalid"),
        ({"week": [{"weekday": 1, "opens": "now", "closes": "10:00"}]}, 422, "invalid"),
        ({"week": [{"weekday": 1, "opens": "9:00", "closes": "10:00"}]}, 422, "invalid"),
        ({"week": [{"weekday": 1, "opens": "09:00:30", "closes": "10:00"}]}, 422, "invalid"),
        ({"week": [{"weekday": 1, "opens": "24:00", "closes": "10:00"}]}, 400, "hours_invalid"),
        ({"week": [{"weekday": 1, "opens": "09:00"}]}, 400, "hours_invalid"),
        ({"week": [{"weekday": 1, "opens": "09:00", "closes": "10:00"}] * 2}, 400, "hours_invalid"),
        ({"week": [{"weekday": 1, "valid_from": "infinity"}]}, 422, "invalid"), ({"week": [{"weekday": 1}] * 501}, 422, "invalid"),
        ({"week": [{"weekday": 1, "valid_from": "2001-01-01"}]}, 409, "hours_in_the_past"),
        ({"dates": [{"day": "2999-02-30"}]}, 422, "invalid"), ({"dates": [{"day": "today"}]}, 422, "invalid"), ({"dates": [{}]}, 422, "invalid"),
        ({"dates": [{"day": "2001-01-01"}]}, 409, "hours_in_the_past"), ({"dates": [{"day": "2999-01-01", "label": "x" * 81}]}, 400, "hours_invalid"),
        ({"timezone": "Europe/Malta"}, 409, "hours_counted"),
    ],
)  # fmt: skip
def test_hours_that_are_not_valid_change_nothing(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    admin, path = api.admin(), "/api/gre-admin/hours"
    before = ok(admin.post(path, name="desk", timezone="UTC", week=[{"weekday": 1}]), 201)["hours"]
    assert refusal(admin.put(f"{path}/desk", **{"timezone": "UTC", **body})) == (status, code, None)
    assert ok(api.staff().get(path))["hours"] == [before]


@pytest.mark.parametrize("name", ["No Name", "", "-x", "a" * 41, "ä", "a/b", "desk\n", None])
def test_a_name_that_no_path_can_hold_is_refused(api: Api, name: str | None) -> None:
    refused = api.admin().post("/api/gre-admin/hours", name=name, timezone="UTC")
    assert refused.status_code in (400, 422)
    assert api.sql("select 1 from gre_hours") == []


def test_pages_of_other_origins_may_delete(api: Api) -> None:
    answer = api.http.options(
        "/api/gre-admin/hours/desk",
        headers={"Origin": "https://portal.example", "Access-Control-Request-Method": "DELETE"},
    )
    assert answer.status_code == 200
    assert "DELETE" in answer.headers["access-control-allow-methods"]
