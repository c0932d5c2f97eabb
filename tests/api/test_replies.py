"""REST of templates and auto-replies, and one greeting for first messages that come over all interfaces at once."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.client import entered
from tests.api.conftest import Api, Person
from tests.support.loopback import PATIENT

GREETING = {"name": "Greeting", "occasion": "opened", "texts": {"en": "Hello {{player_name|there}}!"}}
HELLO = {
    "shortcut": "hello",
    "title": "A greeting",
    "texts": {"en": "Hello {{player_name|there}}, I owe you {{?amount}}."},
}


@pytest.fixture(autouse=True)
def no_rules(api: Api) -> Iterator[None]:
    """The shared daemon has no rules and templates before and after each test."""
    for table in ("gre_auto_replies", "gre_templates"):
        api.sql(f"delete from {table}")
    yield
    for table in ("gre_auto_replies", "gre_templates"):
        api.sql(f"delete from {table}")


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str, Any]:
    body = answer.json()
    return answer.status_code, body["code"], body.get("details")


def path(kind: str, key: str = "") -> str:
    return f"/api/gre-admin/{kind}" + (f"/{key}" if key else "")


def test_templates_are_written_rendered_and_sent(api: Api, player_id: int) -> None:
    admin, s1 = api.admin(), api.staff()
    session = api.player(player_id).send()["sessionId"]
    shared = ok(admin.post(path("templates"), **HELLO), 201)["template"]
    own = ok(s1.post(path("templates"), **(HELLO | {"title": "Mine"})), 201)["template"]
    assert (shared["staff_id"], own["staff_id"]) == (None, "s1")
    assert ok(s1.get(path("templates")))["templates"] == [own, shared]
    assert ok(s1.get(path("templates", shared["id"])))["template"] == shared
    assert ok(admin.put(path("templates", shared["id"]), **(shared | {"active": False})))[
        "template"
    ] == shared | {"active": False}
    rendered = ok(s1.post(path("templates", own["id"]) + "/render", sessionId=session))
    assert rendered == {"success": True, "text": "Hello there, I owe you {{?amount}}.", "missing": ["amount"]}
    reply = s1.post("/api/gre-admin/reply", sessionId=session, message=rendered["text"], templateId=own["id"])
    assert refusal(reply) == (400, "template_incomplete", {"missing": ["amount"]})
    text = rendered["text"].replace("{{?amount}}", "5")
    ok(s1.post("/api/gre-admin/reply", sessionId=session, message=text, templateId=own["id"]), 201)
    ok(s1.post("/api/gre-chat/send", sessionId=session, message=text, template_id=own["id"]), 201)
    assert ok(s1.get(path("templates", own["id"])))["template"]["uses"] == 2
    for key, who in ((own["id"], s1), (shared["id"], admin)):
        assert ok(who.ask("DELETE", path("templates", key))) == {"success": True}
        assert refusal(who.ask("DELETE", path("templates", key))) == (404, "template_unknown", None)


def test_auto_replies_are_written_and_show_what_would_be_sent_now(api: Api, player_id: int) -> None:
    admin, s1 = api.admin(), api.staff()
    assert ok(s1.get(path("auto-replies"))) == {"success": True, "auto_replies": [], "now": None}
    rule = ok(admin.post(path("auto-replies"), **GREETING), 201)["auto_reply"]
    assert rule == {**GREETING, "id": rule["id"], "wait": None, "once": "cycle", "hours": None, "priority": 0, "push": False,
                    "active": True, "valid_from": None, "valid_to": None}  # fmt: skip
    assert ok(s1.get(path("auto-replies")))["now"] == {
        "id": rule["id"],
        "text": "Hello there!",
        "missing": [],
    }
    api.player(player_id).send()
    messages = api.player(player_id).get(f"/api/gre-chat/messages/{player_id}").json()
    assert [(m["seq"], m["message"], m.get("auto")) for m in messages] == [
        (1, "Is table 4 open?", None),
        (2, "Hello there!", True),
    ]
    changed = ok(
        admin.put(path("auto-replies", rule["id"]), validTo="2026-01-01T00:00:00+01:00", priority=5)
    )["auto_reply"]
    assert changed == rule | {"priority": 5, "valid_to": "2025-12-31T23:00:00.000Z"}
    assert ok(s1.get(path("auto-replies", rule["id"])))["auto_reply"] == changed
    assert ok(s1.get(path("auto-replies")))["now"] is None
    assert ok(admin.ask("DELETE", path("auto-replies", rule["id"]))) == {"success": True}
    assert refusal(admin.ask("DELETE", path("auto-replies", rule["id"]))) == (404, "auto_reply_unknown", None)


def test_who_may_not_is_refused_and_nothing_is_changed(api: Api, player_id: int) -> None:
    rule = ok(api.admin().post(path("auto-replies"), **GREETING), 201)["auto_reply"]
    shared = ok(api.admin().post(path("templates"), **HELLO), 201)["template"]
    session = api.player(player_id).send()["sessionId"]
    writes = [("POST", path("auto-replies"), GREETING), ("PUT", path("auto-replies", rule["id"]), {"priority": 1}),
              ("DELETE", path("auto-replies", rule["id"]), None), ("POST", path("templates"), HELLO | {"staffId": None}),
              ("PUT", path("templates", shared["id"]), {"title": "x"}), ("DELETE", path("templates", shared["id"]), None)]  # fmt: skip
    reads = [("GET", path("auto-replies"), None), ("GET", path("auto-replies", rule["id"]), None), ("GET", path("templates"), None),
             ("GET", path("templates", shared["id"]), None), ("POST", path("templates", shared["id"]) + "/render", {"sessionId": session})]  # fmt: skip
    callers: list[tuple[Person, int, set[str]]] = [
        (api.with_token(None), 401, {"not_authenticated"}), (api.player(player_id), 403, {"staff_only", "admin_only"}),
        (api.backend(f"player:{player_id}"), 403, {"staff_only", "admin_only"}), (api.backend("staff:nobody"), 403, {"act_as_required"}),
    ]  # fmt: skip
    for who, status, codes in callers:
        for method, where, body in writes + reads:
            answer = who.ask(method, where, json=body)
            assert answer.status_code == status
            assert answer.json()["code"] in codes
    for method, where, body in writes:
        assert refusal(api.staff().ask(method, where, json=body)) == (403, "admin_only", None)
    assert refusal(api.admin().post(path("templates"), **(HELLO | {"staffId": "s1"}))) == (
        403,
        "staff_mismatch",
        None,
    )
    assert ok(api.admin().get(path("auto-replies")))["auto_replies"] == [rule]
    assert ok(api.admin().get(path("templates")))["templates"] == [shared]


@pytest.mark.parametrize(
    ("kind", "body", "status", "code", "details"),
    [
        ("templates", HELLO | {"texts": {"en": "{{nobody}}"}}, 400, "placeholder_unknown", {"unknown": ["nobody"]}),
        ("templates", HELLO | {"texts": {"en": "{{"}}, 400, "placeholder_invalid", None),
        ("templates", HELLO | {"texts": {}}, 400, "texts_invalid", None),
        ("templates", HELLO | {"texts": "Hello"}, 422, "invalid", None),
        ("templates", HELLO | {"texts": {"en": "a\0b"}}, 422, "invalid", None),
        ("templates", HELLO | {"texts": {"en": "\ud800"}}, 422, "invalid", None),
        ("templates", HELLO | {"shortcut": "Not One"}, 400, "template_invalid", None),
        ("templates", HELLO | {"title": None}, 422, "invalid", None),
        ("templates", HELLO | {"title": ""}, 400, "template_invalid", None),
        ("templates", HELLO | {"active": "maybe"}, 422, "invalid", None),
        ("templates", {}, 422, "invalid", None),
        ("templates", [], 422, "invalid", None),
        ("auto-replies", GREETING | {"texts": {"en": "{{?amount}}"}}, 400, "placeholder_unknown", {"unknown": ["?amount"]}),
        ("auto-replies", GREETING | {"occasion": "sometimes"}, 422, "invalid", None),
        ("auto-replies", GREETING | {"occasion": "waiting"}, 400, "auto_reply_invalid", None),
        ("auto-replies", GREETING | {"wait": 1e308}, 422, "invalid", None),
        ("auto-replies", GREETING | {"wait": "60"}, 422, "invalid", None),
        ("auto-replies", GREETING | {"wait": 60}, 400, "auto_reply_invalid", None),
        ("auto-replies", GREETING | {"priority": 2**63}, 422, "invalid", None),
        ("auto-replies", GREETING | {"validFrom": "tomorrow"}, 422, "invalid", None),
        ("auto-replies", GREETING | {"validFrom": "2026-01-01T00:00:00"}, 422, "invalid", None),
        ("auto-replies", GREETING | {"active": None}, 422, "invalid", None),
        ("auto-replies", GREETING | {"hours": "nowhere"}, 404, "hours_unknown", None),
    ],
)  # fmt: skip
def test_a_malformed_body_is_refused(
    api: Api, kind: str, body: Any, status: int, code: str, details: Any
) -> None:
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    admin = api.admin()
    assert refusal(admin.ask("POST", path(kind), content=content, headers=headers)) == (status, code, details)
    assert not ok(admin.get(path(kind)))[kind.replace("-", "_")]
    for key, expected in ((str(uuid.uuid4()), 404), ("x", 422)):
        answer = admin.ask("PUT", path(kind, key), content="{}", headers=headers)
        assert answer.status_code == expected


def test_a_taken_shortcut_is_a_conflict_and_unknown_keys_are_ignored(api: Api) -> None:
    ok(api.admin().post(path("templates"), **HELLO, colour="red"), 201)
    assert refusal(api.admin().post(path("templates"), **HELLO)) == (409, "shortcut_taken", None)


async def test_fifty_first_messages_over_all_interfaces_get_one_greeting_at_seq_2(
    api: Api, player_id: int
) -> None:
    """By table, REST and socket at once. A third of the answers is lost, and these messages are sent again."""
    ok(api.admin().post(path("auto-replies"), **GREETING), 201)
    token = api.stack.keys.user_token("player", player_id=player_id)
    ids = [str(uuid.uuid4()) for _ in range(50)]
    start = asyncio.Event()
    rest = api.stack.env["SUPABASE_URL"] + "/rest/v1/gre_chat_messages"
    bearer = {"Authorization": f"Bearer {token}"}

    async with httpx.AsyncClient(trust_env=False, timeout=PATIENT) as http:

        async def by_table(key: str) -> None:
            await start.wait()
            headers = {**bearer, "apikey": api.stack.env["SUPABASE_ANON_KEY"]}
            answer = await http.post(rest, json={"id": key, "message": "x"}, headers=headers)
            assert answer.status_code in (201, 409), answer.text

        async def by_rest(key: str) -> None:
            await start.wait()
            answer = await http.post(
                f"{api.worker.url}/api/gre-chat/send", json={"message": "x", "id": key}, headers=bearer
            )
            assert answer.status_code in (200, 201), answer.text

        async def by_socket(key: str, *, wait: bool) -> None:
            async with entered(api.worker.url, token) as client:
                await start.wait()
                await client.send("send_message", message="x", id=key, clientId=key)
                if wait:
                    await client.wait("message_ack", clientId=key)

        async with asyncio.TaskGroup() as group:
            for n, key in enumerate(ids):
                match n % 3:
                    case 0:
                        group.create_task(by_table(key))
                    case 1:
                        group.create_task(by_rest(key))
                    case _:
                        # The socket closes before its answer; another path sends the message again.
                        group.create_task(by_socket(key, wait=False))
                        group.create_task((by_table if n % 2 else by_rest)(key))
            group.create_task(by_socket(ids[0], wait=True))
            start.set()
        messages = (
            await http.get(f"{api.worker.url}/api/gre-chat/messages/{player_id}", headers=bearer)
        ).json()
    assert [m["seq"] for m in messages] == list(range(1, 52))
    assert [m["seq"] for m in messages if m.get("auto")] == [2]
    assert {m["id"] for m in messages if not m.get("auto")} == set(ids)


async def test_a_socket_gets_the_auto_reply_and_sends_from_a_template(api: Api, player_id: int) -> None:
    ok(api.admin().post(path("auto-replies"), **GREETING), 201)
    template = ok(api.staff().post(path("templates"), **HELLO), 201)["template"]
    token = api.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(api.worker.url, token) as page,
        entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as desk,
    ):
        await page.send("send_message", message="x")
        got = await page.wait("chat_message", message={"player_id": player_id, "auto": True})
        assert (got["message"]["seq"], got["message"]["sender"]) == (2, "system")
        session = got["message"]["session_id"]
        await desk.send(
            "send_message", sessionId=session, message="{{?amount}}", templateId=template["id"], clientId="a"
        )
        assert (await desk.wait("error", clientId="a"))["code"] == "template_incomplete"
        await desk.send(
            "send_message", sessionId=session, message="5", templateId=template["id"], clientId="b"
        )
        await desk.wait("message_ack", clientId="b")
    (row,) = api.sql(
        "select origin from gre_chat_messages where player_id = %s and sender = 'staff'", player_id
    )
    assert row["origin"] == "template"
