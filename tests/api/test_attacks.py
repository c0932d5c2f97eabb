"""Attacks on every interface: nothing is disclosed, nothing is changed, nothing fails."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import psutil
import pytest
from websockets.asyncio.client import connect

from gre_bridge.api.server.websocket_protocol import CLOSE_WITHIN
from gre_bridge.api.ws.endpoint import HANDSHAKE_LASTS, HANDSHAKES, MAX_PENDING
from tests.api.client import Client, entered, opened
from tests.api.conftest import Api, Person
from tests.support.waiting import pause, until

SECRET = "the wedding is on the ninth"
SQL = [
    "'; drop table gre_chat_messages; --",
    "1' or '1'='1",
    "\\'; select pg_sleep(10); --",
    "$$; truncate gre_chat_sessions; $$",
    "1) union select message from gre_chat_messages --",
    "*,gre_chat_messages(*)",
    "in.(1,2)",
    "%27%3B--",
    "\u02bc or 1=1 --",
]


@dataclass
class Victim:
    """Player B and its rows."""

    api: Api
    player_id: int
    session: str
    message: str

    @property
    def token(self) -> str:
        return self.api.stack.keys.user_token("player", player_id=self.player_id)

    def state(self) -> list[Any]:
        """All rows that an attack could change."""
        tables = ("gre_chat_messages", "gre_chat_sessions", "gre_chat_players")
        return [
            self.api.sql(f"select * from {table} where player_id = %s order by 1", self.player_id)
            for table in tables
        ] + [self.api.sql("select * from gre_staff order by 1")]


@pytest.fixture
def victim(api: Api, other_id: int) -> Victim:
    sent = api.player(other_id).send(SECRET)
    api.staff().post("/api/gre-admin/reply", sessionId=sent["sessionId"], message=SECRET)
    return Victim(api, other_id, sent["sessionId"], sent["messageId"])


def claims(victim: Victim, **more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "aud": "authenticated", "role": "authenticated", "sub": str(uuid.uuid4()), "iat": now - 7200, "exp": now + 3600,
        "app_metadata": {"gre_role": "player", "player_id": victim.player_id}, **more,
    }  # fmt: skip


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _tampered(victim: Victim) -> str:
    own = victim.api.stack.keys.user_token("player", player_id=victim.player_id + 1)
    head, _, signature = own.split(".")
    return f"{head}.{_part(claims(victim))}.{signature}"


FORGED: dict[str, Callable[[Victim], str]] = {
    "expired": lambda v: jwt.encode(
        claims(v, exp=int(time.time()) - 3600), v.api.stack.keys.jwt_secret, "HS256"
    ),
    "other key": lambda v: jwt.encode(claims(v), "x" * 54, "HS256"),
    "other key, service": lambda _: jwt.encode(
        {"role": "service_role", "exp": int(time.time()) + 60}, "x" * 54, "HS256"
    ),
    "alg none": lambda v: f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims(v))}.",
    "alg NONE, signed": lambda v: f"{_part({'alg': 'NONE', 'typ': 'JWT'})}.{_part(claims(v))}.{'A' * 43}",
    "unsigned": lambda v: f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims(v))}.",
    "tampered": _tampered,
    "no token": lambda _: "nonsense",
    "anon key": lambda v: v.api.stack.env["SUPABASE_ANON_KEY"],
}
# Signed by the project, but nobody in the chat: users can write their user_metadata themselves.
NOBODY: dict[str, Callable[[Victim], str]] = {
    "user_metadata": lambda v: jwt.encode(
        claims(v, app_metadata={}, user_metadata={"gre_role": "admin", "staff_id": "s1", "player_id": v.player_id}, gre_role="admin"),
        v.api.stack.keys.jwt_secret, "HS256",
    ),
    "half a player": lambda v: jwt.encode(claims(v, app_metadata={"gre_role": "player"}), v.api.stack.keys.jwt_secret, "HS256"),
    "half of staff": lambda v: jwt.encode(
        claims(v, app_metadata={"gre_role": "staff", "player_id": v.player_id}), v.api.stack.keys.jwt_secret, "HS256"
    ),
    "an unknown role": lambda v: jwt.encode(
        claims(v, app_metadata={"gre_role": "root", "player_id": v.player_id, "staff_id": "s1"}), v.api.stack.keys.jwt_secret, "HS256"
    ),
}  # fmt: skip


def rest_attempts(person: Person, player: int, session: str, message: str) -> dict[str, httpx.Response]:
    """Every path of the API, aimed at a player."""
    return {
        "messages": person.get(f"/api/gre-chat/messages/{player}"),
        "history": person.get(f"/api/chat-history/{player}"),
        "session's messages": person.get(f"/api/gre-admin/messages/{session}"),
        "send": person.post("/api/gre-chat/send", playerId=player, message="forged"),
        "send to the session": person.post(
            "/api/unified-chat/send", sessionId=session, message="forged", playerId=player
        ),
        "send as staff": person.post(
            "/api/gre-chat/send", playerId=player, message="forged", sender="staff", staffId="s1"
        ),
        "reply": person.post("/api/gre-admin/reply", playerId=player, message="forged"),
        "status": person.put(f"/api/gre-admin/session/{session}/status", status="closed"),
        "assign": person.put(f"/api/gre-admin/session/{session}/status", status="assigned", staffId="s1"),
        "close": person.post(f"/api/gre-chat/close-session/{player}"),
        "disable": person.post(f"/api/gre-chat/enable-player/{player}", enabled=False),
        "enable all": person.post("/api/gre-chat/enable-all-players"),
        "same id": person.post("/api/gre-chat/send", playerId=player, message="forged", id=message),
        "pusher": person.post("/api/pusher/auth", socket_id="1.2", channel_name=f"private-player-{player}"),
        "pusher staff": person.post("/api/pusher/auth", socket_id="1.2", channel_name="private-staff-portal"),
        "pusher presence": person.post(
            "/api/pusher/auth", socket_id="1.2", channel_name="presence-staff-portal"
        ),
    }


def table_attempts(victim: Victim, token: str) -> dict[str, httpx.Response]:
    """As supabase-js does: every table and function that could read or write rows of the victim."""
    http, headers, b = (
        victim.api.stack.http,
        {**victim.api.stack.headers(token), "Prefer": "return=representation"},
        victim.player_id,
    )

    def ask(method: str, path: str, body: Any = None) -> httpx.Response:
        return http.request(method, f"/rest/v1/{path}", json=body, headers=headers)

    mine = {"player_id": b, "message": "forged"}
    return {
        "read messages": ask("GET", f"gre_chat_messages?player_id=eq.{b}"),
        "read sessions": ask(
            "GET", f"gre_chat_sessions?id=eq.{victim.session}&select=*,gre_chat_messages(*)"
        ),
        "read profile": ask("GET", f"gre_chat_players?player_id=eq.{b}"),
        "read staff": ask("GET", "gre_staff"),
        "read outbox": ask("GET", "gre_relay_deliveries"),
        "read pushes": ask("GET", "push_notifications"),
        "insert": ask("POST", "gre_chat_messages", {**mine, "sender": "player"}),
        "insert as staff": ask("POST", "gre_chat_messages", {**mine, "sender": "staff", "sender_id": "s1"}),
        "insert as system": ask("POST", "gre_chat_messages", {**mine, "sender": "system"}),
        "insert session": ask("POST", "gre_chat_sessions", {"player_id": b, "status": "active"}),
        "update message": ask(
            "PATCH", f"gre_chat_messages?player_id=eq.{b}", {"message": "forged", "status": "read"}
        ),
        "update session": ask("PATCH", f"gre_chat_sessions?id=eq.{victim.session}", {"status": "closed"}),
        "delete message": ask("DELETE", f"gre_chat_messages?player_id=eq.{b}"),
        "delete session": ask("DELETE", f"gre_chat_sessions?id=eq.{victim.session}"),
        "enable": ask("POST", "gre_chat_players", {"player_id": b, "chat_enabled": False}),
        "become staff": ask("POST", "gre_staff", {"staff_id": "evil", "role": "admin"}),
        "rpc send": ask("POST", "rpc/gre_send_message", {"p_message": "forged", "p_player_id": b}),
        "rpc send many": ask("POST", "rpc/gre_send_messages", {"p_messages": [mine]}),
        "rpc reply": ask(
            "POST", "rpc/gre_staff_reply", {"p_message": "forged", "p_session_id": victim.session}
        ),
        "rpc history": ask("POST", "rpc/gre_chat_history", {"p_player_id": b}),
        "rpc history of session": ask("POST", "rpc/gre_chat_history", {"p_session_id": victim.session}),
        "rpc page": ask(
            "POST", "rpc/gre_chat_history", {"p_session_id": victim.session, "p_before": victim.message}
        ),
        "rpc read": ask("POST", "rpc/gre_mark_read", {"p_session_id": victim.session, "p_up_to_seq": 9}),
        "rpc close": ask("POST", "rpc/gre_close_session", {"p_player_id": b}),
        "rpc disable": ask("POST", "rpc/gre_enable_player", {"p_player_id": b, "p_enabled": False}),
        "rpc erase": ask("POST", "rpc/gre_erase_player", {"p_player_id": b}),
        "rpc link": ask("POST", "rpc/gre_link_user", {"p_user_id": str(uuid.uuid4()), "p_player_id": b}),
        "rpc hub": ask("POST", "rpc/gre_hub_changes_v1", {"p_sessions": [victim.session]}),
        "rpc claim": ask(
            "POST", "rpc/gre_relay_claim_v1", {"p_sink": "pusher", "p_token": str(uuid.uuid4())}
        ),
    }


def nothing_told(answers: dict[str, httpx.Response]) -> None:
    """No answer contains the victim's text, and no successful one had an effect."""
    for name, answer in answers.items():
        assert SECRET not in answer.text, name
        assert answer.status_code < 500 or answer.status_code == 501, (name, answer.text)
        assert not answer.is_success or answer.json() in ([], None), (name, answer.text)


async def alive(victim: Victim, before: list[Any]) -> None:
    """Nothing has changed, and the victim can chat on."""
    assert await asyncio.to_thread(victim.state) == before
    async with entered(victim.api.worker.url, victim.token) as client:
        await client.send("send_message", message="still here", clientId="alive")
        await client.wait("message_ack", clientId="alive")


@pytest.mark.parametrize("kind", FORGED)
async def test_a_forged_token_is_refused(victim: Victim, kind: str) -> None:
    before, token = victim.state(), FORGED[kind](victim)
    answers = await asyncio.to_thread(
        rest_attempts, victim.api.with_token(token), victim.player_id, victim.session, victim.message
    )
    nothing_told(answers)
    # (The anon key is no forgery, only nobody's: its channels are refused as somebody else's.)
    wrong = {n: a.status_code for n, a in answers.items() if a.status_code != 401}
    assert not wrong or (
        kind == "anon key" and set(wrong.values()) == {403} and all("pusher" in n for n in wrong)
    ), wrong
    answers = await asyncio.to_thread(table_attempts, victim, token)
    nothing_told(answers)
    async with opened(victim.api.worker.url) as client:
        await client.send(
            "authenticate", token=token, role="player", playerId=victim.player_id, since={victim.session: 0}
        )
        assert await client.end() == 4401
        assert [f["type"] for f in client.frames] == ["error"] and SECRET not in str(client.frames)
    async with opened(
        victim.api.worker.url, headers={"Authorization": f"Bearer {token}", "X-GRE-Act-As": "staff:s1"}
    ) as client:
        await client.send("authenticate")
        assert await client.end() == 4401
    await alive(victim, before)


@pytest.mark.parametrize("kind", NOBODY)
async def test_a_user_without_an_identity_has_no_access(victim: Victim, kind: str) -> None:
    before, token = victim.state(), NOBODY[kind](victim)
    answers = await asyncio.to_thread(
        rest_attempts, victim.api.with_token(token), victim.player_id, victim.session, victim.message
    )
    nothing_told(answers)
    assert {a.status_code for a in answers.values()} <= {401, 403}
    nothing_told(await asyncio.to_thread(table_attempts, victim, token))
    async with opened(victim.api.worker.url) as client:
        await client.send("authenticate", token=token)
        assert await client.end() == 4401
    await alive(victim, before)


async def test_a_player_cannot_attack_another(api: Api, victim: Victim, player_id: int) -> None:
    before = victim.state()
    me = api.player(player_id)
    own = (await asyncio.to_thread(me.send, "my own"))["sessionId"]
    answers = await asyncio.to_thread(rest_attempts, me, victim.player_id, victim.session, victim.message)
    nothing_told(answers)
    assert {a.status_code for a in answers.values()} <= {403, 404, 409}, {
        n: a.status_code for n, a in answers.items()
    }
    mixed = {
        "page of another's session": me.get(f"/api/gre-chat/messages/{player_id}?sessionId={victim.session}"),
        "page before another's message": me.get(
            f"/api/gre-chat/messages/{player_id}?before={victim.message}"
        ),
        "after in another's session": me.get(
            f"/api/gre-chat/messages/{player_id}?sessionId={victim.session}&after_seq=0"
        ),
        "own session, another's edge": me.get(
            f"/api/chat-history/{player_id}?sessionId={own}&before={victim.message}"
        ),
        "acting as another": Person(
            api.http, api.stack.keys.user_token("player", player_id=player_id), f"player:{victim.player_id}"
        ).get(f"/api/gre-chat/messages/{victim.player_id}"),
        "channels at once": me.post(
            "/api/pusher/auth",
            socket_id="1.2",
            channel_name=f"private-player-{player_id},private-player-{victim.player_id}",
        ),
        "a signed text of its own": me.post(
            "/api/pusher/auth",
            socket_id=f"1.2:private-player-{victim.player_id}",
            channel_name=f"private-player-{player_id}",
        ),
        "an encrypted channel": me.post(
            "/api/pusher/auth", socket_id="1.2", channel_name=f"private-encrypted-player-{player_id}"
        ),
    }
    nothing_told(mixed)
    nothing_told(
        await asyncio.to_thread(
            table_attempts, victim, api.stack.keys.user_token("player", player_id=player_id)
        )
    )

    token = api.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(api.worker.url, victim.token) as other,
        entered(api.worker.url, token, since={victim.session: 0, str(uuid.uuid4()): 0, own: 1}) as client,
    ):
        assert [s["id"] for s in client.all("authenticated")[0]["sessions"]] == [own]
        attempts: dict[str, dict[str, Any]] = {
            "player_mismatch": {"type": "send_message", "message": "forged", "playerId": victim.player_id},
            "session_mismatch": {"type": "send_message", "message": "forged", "sessionId": victim.session},
            "id_conflict": {"type": "send_message", "message": SECRET, "id": victim.message},
            "session_unknown": {"type": "mark_read", "sessionId": victim.session, "upToSeq": 2},
            "session_unknown ": {"type": "typing", "sessionId": victim.session},
            "staff_only": {"type": "set_status", "status": "online", "staffId": "s1"},
        }
        for code, frame in attempts.items():
            await client.ws.send(json.dumps({**frame, "clientId": code}))
            assert (await client.wait("error", clientId=code))["code"] == code.strip()
        await client.send(
            "send_message",
            message="as staff",
            sender="staff",
            senderType="staff",
            staffId="s1",
            clientId="own",
        )
        mine = (await client.wait("message_ack", clientId="own"))["id"]
        assert api.sql("select sender, sender_id from gre_chat_messages where id = %s", mine) == [
            {"sender": "player", "sender_id": str(player_id)}
        ]
        await other.settled()
        assert not other.all("typing") and not other.all("chat_message") and not other.all("messages_read")
        assert SECRET not in str(client.frames)
    await alive(victim, before)


async def test_another_players_session_looks_unknown(api: Api, victim: Victim, player_id: int) -> None:
    me, token = api.player(player_id), api.stack.keys.user_token("player", player_id=player_id)
    await asyncio.to_thread(me.send)

    async def ask(session: str, message: str) -> list[Any]:
        answers = await asyncio.to_thread(
            lambda: [
                me.get(f"/api/gre-admin/messages/{session}"), me.get(f"/api/gre-chat/messages/{player_id}?sessionId={session}"),
                me.get(f"/api/gre-chat/messages/{player_id}?before={message}"), me.post("/api/gre-chat/send", message="x", sessionId=session),
                me.put(f"/api/gre-admin/session/{session}/status", status="closed"), me.post("/api/gre-admin/reply", message="x", sessionId=session),
                *(api.stack.http.post(f"/rest/v1/rpc/{name}", json=body, headers=api.stack.headers(token)) for name, body in (
                    ("gre_mark_read", {"p_session_id": session, "p_up_to_seq": 1}), ("gre_chat_history", {"p_session_id": session}),
                    ("gre_send_message", {"p_session_id": session, "p_message": "x"}),
                )),
            ]
        )  # fmt: skip
        found: list[Any] = [
            (a.status_code, a.json().get("error"), a.json().get("message"), a.json().get("code"))
            for a in answers
        ]
        async with entered(api.worker.url, token) as client:
            for frame in (
                {"type": "typing"},
                {"type": "mark_read", "upToSeq": 1},
                {"type": "send_message", "message": "x"},
            ):
                client.forget()
                await client.ws.send(json.dumps({**frame, "sessionId": session}))
                found.append(await client.wait("error"))
        return found

    assert await ask(victim.session, victim.message) == await ask(str(uuid.uuid4()), str(uuid.uuid4()))


async def test_realtime_sends_rows_to_their_readers_only(api: Api, victim: Victim, player_id: int) -> None:
    """No stranger may join the relay's topic or sees the victim's rows; the victim sees its own."""
    env = api.stack.env
    url = (
        env["SUPABASE_URL"].replace("http", "ws", 1)
        + f"/realtime/v1/websocket?apikey={env['SUPABASE_ANON_KEY']}&vsn=1.0.0"
    )
    tokens = {kind: make(victim) for kind, make in {**FORGED, **NOBODY}.items()}
    tokens["another player"] = api.stack.keys.user_token("player", player_id=player_id)
    tokens["staff"] = api.stack.keys.user_token("staff", staff_id="s1")

    async def join(stack: AsyncExitStack, key: str, topic: str) -> Client:
        """A socket whose join has been answered: it is subscribed before its silence is judged."""
        ear = Client(await stack.enter_async_context(connect(url, proxy=None, close_timeout=0.2)))
        rows = [{"event": "*", "schema": "public", "table": "gre_chat_messages"}] if topic == "rows" else []
        config = {
            "broadcast": {"ack": True, "self": True},
            "presence": {"key": ""},
            "postgres_changes": rows,
            "private": not rows,
        }
        frame = {
            "topic": f"realtime:{topic}",
            "event": "phx_join",
            "payload": {"config": config, "access_token": key},
            "ref": "1",
            "join_ref": "1",
        }
        await ear.ws.send(json.dumps(frame))
        done = "system" if rows else "phx_reply"
        await ear.until(
            lambda: any(f["event"] == done or f["payload"].get("status") == "error" for f in ear.frames)
        )
        return ear

    async def joined(stack: AsyncExitStack, key: str) -> tuple[Client, Client]:
        both = await asyncio.gather(join(stack, key, "gre:relay"), join(stack, key, "rows"))
        assert both[0].frames[0]["payload"]["status"] == "error"
        return both

    async with AsyncExitStack() as stack:
        own, *others = await asyncio.gather(*(joined(stack, key) for key in (victim.token, *tokens.values())))
        ears = dict(zip(tokens, others, strict=True))
        text = f"for you alone {uuid.uuid4()}"
        await asyncio.to_thread(api.player(victim.player_id).send, text)
        for _, rows in (own, ears.pop("staff")):
            await rows.until(lambda e=rows: text in str(e.frames))
        for kind, both in ears.items():
            for ear in both:
                assert text not in str(ear.frames) and victim.session not in str(ear.frames), kind


async def test_sql_and_html_are_text_in_every_field(api: Api, victim: Victim, player_id: int) -> None:
    before, me = victim.state(), api.player(player_id)
    texts = [
        *SQL,
        "<img src=x onerror=alert(1)>",
        "<script>alert('x')</script>",
        "{{7*7}} ${7*7} #{7*7}",
        "javascript:alert(1)",
        "&lt;b&gt;",
    ]
    token = api.stack.keys.user_token("player", player_id=player_id)
    async with (
        entered(api.worker.url, token) as client,
        entered(api.worker.url, api.stack.keys.user_token("staff", staff_id="s1")) as desk,
    ):
        for n, text in enumerate(texts):
            await client.send("send_message", message=text, clientId=f"{n} {text}"[:64])
            assert (await client.wait("message_ack", clientId=f"{n} {text}"[:64]))["seq"] == n + 1
            assert (await desk.wait("chat_message", message={"player_id": player_id, "seq": n + 1}))[
                "message"
            ]["message"] == text
        for text in SQL:
            for frame in (
                {"type": "send_message", "message": "x", "sessionId": text}, {"type": "send_message", "message": "x", "playerId": text},
                {"type": "send_message", "message": "x", "id": text}, {"type": "mark_read", "sessionId": text, "upToSeq": text},
                {"type": "typing", "sessionId": text}, {"type": "set_status", "status": text}, {"type": text},
            ):  # fmt: skip
                client.forget()
                await client.ws.send(json.dumps(frame))
                assert (await client.wait("error"))["code"] in (
                    "value_invalid",
                    "type_unknown",
                    "too_fast",
                )
                await pause(0.02, "below the limit of frames per second")

    def rest() -> None:
        page = me.get(f"/api/gre-chat/messages/{player_id}?limit=500")
        assert [m["message"] for m in page.json()] == texts
        assert page.headers["content-type"] == "application/json"
        staff = api.staff()
        for text in SQL:
            for name in ("playerId", "sessionId", "id", "sender", "senderType"):
                assert me.post("/api/gre-chat/send", message="x", **{name: text}).status_code in (
                    400,
                    403,
                    422,
                ), name
            assert (
                me.post("/api/gre-chat/send", message="named", playerName=text).json()["message"][
                    "player_name"
                ]
                is not None
            )
            for name in ("limit", "before", "sessionId", "after_seq"):
                assert me.get(f"/api/gre-chat/messages/{player_id}", params={name: text}).status_code in (
                    400,
                    404,
                    422,
                ), name
            for name in ("status", "cursor", "limit"):
                assert staff.get("/api/gre-admin/sessions", params={name: text}).status_code in (400, 422), (
                    name
                )
            assert staff.get("/api/gre-admin/sessions", params={"assigned": text}).json()["sessions"] == []
            path = f"/api/gre-admin/session/{page.json()[0]['session_id']}/status"
            assert staff.put(path, status="assigned", staffId=text).status_code in (400, 404, 422)
            assert staff.put(path, status=text).status_code in (400, 422)
            assert me.post("/api/pusher/auth", socket_id=text, channel_name=text).status_code == 403
            quoted = httpx.URL("/").copy_with(path=f"/api/gre-chat/messages/{text}").raw_path.decode()
            assert api.http.get(quoted, headers=me.headers).status_code in (400, 404, 422)
            assert (
                staff.ask(
                    "GET", f"/api/gre-chat/messages/{player_id}", headers={"X-GRE-Act-As": "x"}
                ).status_code
                == 400
            )

    await asyncio.to_thread(rest)
    await alive(victim, before)


@pytest.mark.parametrize("staff_id", SQL[:4])
async def test_sql_in_act_as_is_text(api: Api, staff_id: str) -> None:
    person = api.backend(f"staff:{staff_id}")
    answer = await asyncio.to_thread(person.get, "/api/gre-admin/sessions?assigned=me")
    assert answer.status_code in (400, 403)


async def test_malformed_bodies_are_refused(api: Api, victim: Victim, player_id: int) -> None:
    before, headers = victim.state(), api.player(player_id).headers
    bodies: list[tuple[bytes, set[int]]] = [
        (b"", {400, 422}), (b"{", {400, 422}), (b"[]", {400, 422}), (b"null", {400, 422}), (b'"x"', {400, 422}),
        (b"[" * 50_000, {400, 422}), (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, {400, 422}),
        (b'{"message": "' + b"x" * 4001 + b'"}', {400, 422}), (b'{"message": "' + b"x" * 70_000 + b'"}', {413}),
        (b'{"message": "\\ud83d"}', {400, 422}), (b'{"message": "a\\u0000b"}', {400, 422}), (b'{"message": "\xff"}', {400, 422}),
        (b'{"message": 1e999}', {400, 422}), (b'{"message": "x", "playerId": 1e999}', {400, 422}), (b'{"message": "x", "playerId": NaN}', {400, 422}),
        (b'{"message": "x", "playerId": ' + b"9" * 5000 + b"}", {400, 422}), (b"x" * 2_000_000, {413}), (b"\x1f\x8b\x08\x00", {400, 422}),
    ]  # fmt: skip

    def ask() -> None:
        for path in ("/api/gre-chat/send", "/api/unified-chat/send", "/api/gre-admin/reply"):
            for body, wanted in bodies:
                answer = api.http.post(
                    path, content=body, headers={**headers, "Content-Type": "application/json"}
                )
                staffs = (
                    {403} if path.startswith("/api/gre-admin/") else set()
                )  # before its body is looked at
                assert answer.status_code in wanted | staffs, (path, body[:40], answer.status_code)
                assert answer.json()["success"] is False

    await asyncio.to_thread(ask)
    assert api.sql("select id from gre_chat_messages where player_id = %s", player_id) == []
    await alive(victim, before)


async def test_a_page_cannot_choose_its_identity(api: Api, victim: Victim, player_id: int) -> None:
    """X-GRE-Act-As changes nothing for a user's token, nor for a token from a frame."""
    token = api.stack.keys.user_token("player", player_id=player_id)
    for headers in ({"X-GRE-Act-As": f"player:{victim.player_id}"}, {"X-GRE-Act-As": "staff:s1"}):
        async with entered(
            api.worker.url, None, headers={**headers, "Authorization": f"Bearer {token}"}
        ) as client:
            assert client.all("authenticated")[0]["playerId"] == player_id
        async with opened(api.worker.url, headers=headers) as client:
            await client.send("authenticate", token=api.stack.env["SUPABASE_SERVICE_KEY"])
            assert await client.end() == 4401
    twice = [
        ("Authorization", f"Bearer {api.stack.env['SUPABASE_SERVICE_KEY']}"),
        ("X-GRE-Act-As", f"player:{player_id}"),
        ("X-GRE-Act-As", "staff:s1"),
    ]
    async with opened(api.worker.url, headers=twice) as client:  # type: ignore[arg-type]
        await client.send("authenticate")
        assert await client.end() == 4401


async def test_ten_thousand_connections_that_never_authenticate(
    api: Api, victim: Victim, player_id: int
) -> None:
    before, process = victim.state(), psutil.Process(api.worker.pids["api"])
    files, memory = process.num_fds(), process.memory_info().rss
    host, port = api.worker.url.removeprefix("http://").split(":")
    outcomes: Counter[str] = Counter()
    at_once, slowest, most = asyncio.Semaphore(500), 0.0, files

    def request(n: int) -> bytes:
        # Most from one address, the others from many.
        address = "198.51.100.1" if n % 9 else f"198.51.{100 + n % 50}.{n % 250}"
        return (
            f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Forwarded-For: {address}\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(n.to_bytes(16, 'big')).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    held: list[asyncio.StreamWriter] = []

    async def attempt(n: int) -> None:
        async with at_once, asyncio.timeout(300):
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                outcomes["cut"] += 1
                return
            try:
                writer.write(request(n))
                answer = (await reader.readline()).split(b" ")[1].decode()
                outcomes[answer] += 1
            except (OSError, IndexError):
                outcomes["cut"] += 1
                writer.transport.abort()  # (what ends from over there stays half open until it is closed here)
                return
        if answer == "101" and n % 4:
            held.append(writer)  # most say nothing more, some send rubbish
            return
        writer.write(b"\x81\x85\x00\x00\x00\x00hello" if answer == "101" else b"")
        await reader.read(4096)
        writer.transport.abort()

    mine = api.stack.keys.user_token("player", player_id=player_id)
    async with entered(api.worker.url, mine) as client:
        flood = asyncio.gather(*(attempt(n) for n in range(10_000)))
        try:
            while not flood.done():
                started = time.monotonic()
                client.forget()
                await client.send("send_message", message="hello")
                await client.wait("message_ack")
                slowest = max(slowest, time.monotonic() - started)
                most = max(most, process.num_fds())
                await pause(0.6, "between two messages")
            await flood
            async with entered(api.worker.url, mine):
                pass  # hundreds still hold on, and whoever comes is served
        finally:
            flood.cancel()
            for writer in held:
                writer.transport.abort()
    assert sum(outcomes.values()) == 10_000
    assert outcomes["101"] > 250, outcomes
    # The waiting places, those on their way in (at_once), those that made room and have two seconds to close, and a few of its own.
    closing = HANDSHAKES / HANDSHAKE_LASTS * CLOSE_WITHIN
    assert most < files + MAX_PENDING + 500 + closing + 50, "those that wait longest make room"
    assert outcomes["cut"] < 100, outcomes
    assert slowest < 20.0, "whoever is inside chats on"
    await until(lambda: process.num_fds() <= files + 20, every=0.1)
    assert process.memory_info().rss - memory < 80 * 1024 * 1024
    await alive(victim, before)
