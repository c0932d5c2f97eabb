"""The worker's own role: a daemon relays with a token of it, and the token has no other rights."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest
from websockets.sync.client import connect

from tests.conftest import Database
from tests.support.stack import StackProcess, judge
from tests.support.waiting import wait_until


def token(stack: StackProcess, role: str = "gre_worker", lasts: float = 3600) -> str:
    """The token that docs/operations.md describes."""
    now = int(time.time())
    claims = {"role": role, "iss": "gre-bridge", "iat": now, "exp": int(now + lasts)}
    return jwt.encode(claims, stack.keys.jwt_secret, "HS256")


def rest(stack: StackProcess, method: str, path: str, **options: Any) -> httpx.Response:
    """Calls with the worker's token."""
    return stack.http.request(method, f"/rest/v1/{path}", headers=stack.headers(token(stack)), **options)


def test_a_daemon_relays_and_receives_wakeups_with_the_workers_token(stack: StackProcess) -> None:
    with stack.worker(SUPABASE_SERVICE_KEY=token(stack)) as worker:
        wait_until(lambda: worker.metric("gre_realtime_state", state="live") == 1, what="a live subscription")
        assert "no broadcast" not in worker.log.read_text()
        assert "no postgres_changes" not in worker.log.read_text()
        rung = worker.metric("gre_wakeups_total")
        for n in range(5):
            assert stack.insert(player_id=29, sender="player", message=f"m{n}").status_code == 201
        assert stack.insert(player_id=29, sender="staff", sender_id="s1", message="hello").status_code == 201
        queued = {"message_id": "queued", "session_id": "queued", "seq": 1}
        stack.insert("push_notifications", audience="staff", title="queued", data=queued)
        stack.drained()

        def heard() -> bool:
            # While the worker polls, a message sends none.
            with stack.db() as conn:
                conn.execute("select realtime.send('{}', 'wakeup', 'gre:relay', true)")
            return worker.metric("gre_wakeups_total") >= rung + 2

        wait_until(heard, every=0.5, what="wake-ups")
        told, *_ = sorted(
            rest(stack, "POST", "rpc/gre_relay_status", json={}).json()["workers"],
            key=lambda one: one["info"]["process"] != "relay",
        )
        assert told["seen"] < 60
    assert "may not" not in worker.log.read_text()
    verdict = judge(stack)
    assert verdict.committed == 6
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}
    assert verdict.repeats == {"pusher": [], "onesignal": []}
    with stack.db() as conn:
        rows = conn.execute("select status, count(*) as n from push_notifications group by 1").fetchall()
    assert {r["status"]: r["n"] for r in rows} == {"sent": 7}


@pytest.mark.parametrize(
    "path",
    [
        "gre_chat_messages?select=message", "gre_chat_messages", "gre_chat_sessions", "gre_chat_players", "gre_staff", "gre_online_status",
        "push_notifications", "gre_chat_events", "gre_relay_deliveries", "gre_relay_lanes", "gre_relay_sinks", "gre_relay_workers",
        "gre_chat_notes", "gre_chat_blocks", "gre_chat_assignments", "gre_chat_settings", "gre_staff_load",
        "gre_templates", "gre_auto_replies", "gre_auto_sent", "gre_timers",
    ],
)  # fmt: skip
def test_it_reads_no_table_over_rest(stack: StackProcess, path: str) -> None:
    stack.insert(player_id=29, sender="player", message="zebra")
    answer = rest(stack, "GET", path)
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_of_messages_it_reads_the_two_keys_that_row_changes_need(stack: StackProcess) -> None:
    row = stack.http.post(
        "/rest/v1/gre_chat_messages", json={"player_id": 29, "sender": "player", "message": "zebra"},
        headers={**stack.headers(), "Prefer": "return=representation"},
    ).json()[0]  # fmt: skip
    (seen,) = rest(stack, "GET", "gre_chat_messages?select=id,session_id,seq").json()
    assert seen == {"id": row["id"], "session_id": row["session_id"], "seq": row["seq"]}
    for method, body in (("POST", {"player_id": 29, "sender": "player", "message": "forged"}), ("PATCH", {"status": "read"}), ("DELETE", None)):  # fmt: skip
        answer = rest(stack, method, f"gre_chat_messages?id=eq.{row['id']}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_it_calls_the_daemons_functions_and_no_other(db: Database) -> None:
    """All functions of all schemas of a portal's database, without PostgreSQL's own."""
    with db.connect() as conn:
        rows = conn.execute(
            "select p.pronamespace::regnamespace || '.' || p.proname as f from pg_proc p"
            " where has_function_privilege('gre_worker', p.oid, 'execute')"
            " and has_schema_privilege('gre_worker', p.pronamespace, 'usage')"
            " and p.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
            " and p.pronamespace <> 'realtime'::regnamespace"
        ).fetchall()
        tables = conn.execute(
            "select c.oid::regclass::text as t from pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')"
            " and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
            " and has_schema_privilege('gre_worker', c.relnamespace, 'usage')"
            " and case when c.relkind = 'S' then has_sequence_privilege('gre_worker', c.oid, 'usage, select, update')"
            "     else has_table_privilege('gre_worker', c.oid, 'select, insert, update, delete, truncate, references, trigger')"
            "       or has_any_column_privilege('gre_worker', c.oid, 'select, insert, update, references') end"
        ).fetchall()
        role = conn.execute("select * from pg_roles where rolname = 'gre_worker'").fetchone()
        schemas = conn.execute(
            "select nspname from pg_namespace where has_schema_privilege('gre_worker', oid, 'create')"
        ).fetchall()
        member = conn.execute(
            "select roleid::regrole from pg_auth_members where member = 'gre_worker'::regrole"
        ).fetchall()
    worker = {
        "claim_v1", "settle_v1", "exchange_v1", "extend_v1", "release_v1", "stats_v1", "report_v1", "leave_v1", "status", "notify_v1",
        "listen_v1", "unlisten_v1",
    }  # fmt: skip
    assert {r["f"] for r in rows} == {f"public.gre_relay_{name}" for name in worker} | {
        "public.gre_schema_version", "public.gre_hub_changes_v1", "public.gre_hub_presence_v1", "public.gre_assign_waiting_v1", "public.gre_desk_stats_v1", "public.gre_report_pack_v1", "public.gre_tick_v1",
        "public.gre_media_claim_v1", "public.gre_media_extend_v1", "public.gre_media_settle_v1", "public.gre_media_sweep_v1", "public.gre_storage_state_v1",
        "public.gre_storage_deletions_claim_v1", "public.gre_storage_deletions_settle_v1",
    }  # fmt: skip
    assert {r["t"] for r in tables} == {"gre_chat_messages", "realtime.messages"}
    assert role is not None
    assert not any(role[f"rol{name}"] for name in ("super", "inherit", "createrole", "createdb", "canlogin", "replication", "bypassrls"))  # fmt: skip
    assert (schemas, member) == ([], [])


def joins(stack: StackProcess, topic: str) -> bool:
    """Return True if the worker's token may join a private topic of Realtime."""
    url = f"{stack.url.replace('http', 'ws')}/realtime/v1/websocket?vsn=1.0.0&apikey={stack.env['SUPABASE_ANON_KEY']}"
    payload = {"config": {"private": True}, "access_token": token(stack)}
    with connect(url, open_timeout=60) as socket:
        socket.send(json.dumps({"topic": f"realtime:{topic}", "event": "phx_join", "payload": payload, "ref": "1", "join_ref": "1"}))  # fmt: skip
        while (answer := json.loads(socket.recv(60)))["event"] != "phx_reply":
            pass
    return bool(answer["payload"]["status"] == "ok")


def test_it_joins_the_relays_topics_and_no_other(stack: StackProcess) -> None:
    topics = {"gre:relay": True, "gre:relay:rows": True, "room:1": False, "gre:relay2": False}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda topic: joins(stack, topic), topics)
    assert dict(zip(topics, found, strict=True)) == topics


def test_an_expired_token_or_one_of_another_role_does_not_relay(stack: StackProcess) -> None:
    headers = {"apikey": stack.env["SUPABASE_ANON_KEY"]}
    for bad in (token(stack, lasts=-120), token(stack, role="gre_nobody")):
        answer = stack.http.post("/rest/v1/rpc/gre_relay_stats_v1", json={}, headers={**headers, "Authorization": f"Bearer {bad}"})  # fmt: skip
        assert answer.status_code in (401, 403)
