"""`gre-bridge doctor` on the real stack: a sound stack has no findings, and each fault is found with its fix."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gre_bridge.config.settings import Settings
from gre_bridge.db.catalog import read_facts
from gre_bridge.db.relay import SCHEMA_VERSIONS
from gre_bridge.db.sql_files import sql_file
from gre_bridge.devstack.stack import Stack
from gre_bridge.doctor import examine, live
from gre_bridge.doctor.probes.database import judge
from gre_bridge.doctor.report import Finding
from tests.conftest import Database
from tests.support.loopback import closed_port
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

SECRETS = (
    "SUPABASE_SERVICE_KEY",
    "SUPABASE_ANON_KEY",
    "SUPABASE_DB_URL",
    "PUSHER_SECRET",
    "ONESIGNAL_API_KEY",
)
Findings = dict[str, Finding]
WAIVED = {"workers": "warn", "Pusher's channels": "warn", "wake-up: postgres_changes": "skipped"}
"""What is not ok on a sound stack without a worker, as new projects have it."""


async def examined(env: dict[str, str], *, with_db: bool = False, **options: Any) -> Findings:
    """Return the worst finding of each check; none may contain a secret."""
    env = env if with_db else {**env, "SUPABASE_DB_URL": ""}
    report = await examine(Settings(_env_file=None, **env), **options)  # type: ignore[arg-type]
    text = json.dumps(report.to_json())
    assert not [name for name in SECRETS if env[name] and env[name] in text]
    worst = ["ok", "skipped", "warn", "fail"]
    found: Findings = {}
    for one in sorted(report.findings, key=lambda f: worst.index(f.status)):
        found[one.check] = one
        assert (one.status in ("warn", "fail")) == bool(one.fix), one
    return found


def bad(found: Findings) -> dict[str, str]:
    """Return the findings that are not ok and that a sound stack does not have."""
    return {
        name: str(one.status)
        for name, one in found.items()
        if one.status in ("warn", "fail") and WAIVED.get(name) != one.status
    }


def doctor(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    ours = ("SUPABASE_", "STAFF_PORTAL_", "PUSHER_", "ONESIGNAL_", "GRE_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-m", "gre_bridge", "doctor", *args],
        env={**clean, **env, "COLUMNS": "160"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def signed(stack: StackProcess, secret: str | None = None, **claims: Any) -> str:
    """A JWT of this stack, or signed with another secret."""
    now = int(time.time())
    return jwt.encode(
        {"iat": now, "exp": now + 400 * 86400, **claims}, secret or stack.keys.jwt_secret, "HS256"
    )


# A sound stack ------------------------------------------------------------------------------------------------------


async def test_a_sound_stack_is_all_ok(stack: StackProcess) -> None:
    found = await examined(stack.env, with_db=True)
    assert {name: one.status for name, one in found.items() if one.status != "ok"} == WAIVED
    assert {"Supabase", "schema", "service key", "anon key", "clock", "sinks", "database", "migrations", "row-level security",
            "triggers", "publication", "realtime.send", "old transactions", "replication", "connections", "Realtime",
            "wake-up: broadcast", "Pusher", "clock and Pusher", "OneSignal", "open files", "variables",
            "files: bucket", "files: policies", "files: decoder", "files: examinations", "files: deletions"} <= found.keys()  # fmt: skip
    assert 0 < (found["wake-up: broadcast"].seconds or 0) < 60


def test_the_command_prints_a_table_and_exits_with_0(stack: StackProcess) -> None:
    done = doctor(stack.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "accepts the credentials" in done.stdout and "→ start one: gre-bridge run" in done.stdout
    assert not [name for name in SECRETS if stack.env[name] in done.stdout]


def test_a_fault_exits_with_1_and_json_is_for_programs(stack: StackProcess) -> None:
    done = doctor({**stack.env, "PUSHER_SECRET": "not-the-secret"}, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["good"] is False
    assert [c["check"] for c in told["checks"] if c["status"] == "fail"] == ["Pusher"]


def test_all_invalid_variables_are_named_and_exit_with_2(stack: StackProcess) -> None:
    done = doctor({**stack.env, "SUPABASE_URL": "nonsense", "GRE_POLL_INTERVAL": "soon"}, "--json")
    told = [one["found"] for one in json.loads(done.stdout)["checks"]]
    assert done.returncode == 2 and len(told) == 2
    assert told[0].startswith("SUPABASE_URL: ") and told[1].startswith("GRE_POLL_INTERVAL: ")


# Keys and addresses ---------------------------------------------------------------------------------------------------


async def test_a_service_key_of_another_secret_is_refused(stack: StackProcess) -> None:
    forged = signed(stack, "another secret that is long enough for HS256", role="service_role")
    found = await examined({**stack.env, "SUPABASE_SERVICE_KEY": forged})
    assert found["service key"].status == "fail" and "PGRST301" in found["service key"].found
    assert "SUPABASE_SERVICE_KEY" in found["service key"].fix
    assert found["Supabase"].status == "ok"
    assert found["Realtime"].status == "skipped"


async def test_the_anon_key_as_service_key_is_recognized(stack: StackProcess) -> None:
    found = await examined({**stack.env, "SUPABASE_SERVICE_KEY": stack.env["SUPABASE_ANON_KEY"]})
    assert found["service key"].status == "fail"
    assert (
        "SUPABASE_SERVICE_KEY contains the anon key" in found["service key"].found
        and "service_role" in found["service key"].fix
    )


async def test_an_expired_service_key_is_recognized(stack: StackProcess) -> None:
    old = signed(stack, role="service_role", exp=int(time.time()) - 3 * 86400)
    found = await examined({**stack.env, "SUPABASE_SERVICE_KEY": old})
    assert found["service key"].status == "fail" and "expired 3 days ago" in found["service key"].found


async def test_a_key_that_realtime_refuses_is_recognized(stack: StackProcess) -> None:
    endless = jwt.encode({"role": "service_role"}, stack.keys.jwt_secret, "HS256")
    found = await examined({**stack.env, "SUPABASE_SERVICE_KEY": endless})
    assert bad(found) == {"service key": "fail"} and "exp" in found["service key"].fix
    with pytest.raises(InvalidStatus, match="401"):
        await connect(
            f"{stack.url.replace('http', 'ws')}/realtime/v1/websocket?apikey={endless}&vsn=1.0.0", proxy=None
        )


async def test_the_service_key_as_anon_key_and_a_forged_anon_key_are_found(stack: StackProcess) -> None:
    found = await examined({**stack.env, "SUPABASE_ANON_KEY": stack.env["SUPABASE_SERVICE_KEY"]})
    assert bad(found) == {"anon key": "fail"} and "SUPABASE_ANON_KEY" in found["anon key"].fix
    found = await examined(
        {**stack.env, "SUPABASE_ANON_KEY": signed(stack, "another secret " * 3, role="anon")}
    )
    assert bad(found) == {"anon key": "fail"} and "refused" in found["anon key"].found
    found = await examined({**stack.env, "SUPABASE_ANON_KEY": ""})
    assert bad(found) == {"anon key": "warn"}


async def test_the_workers_own_role_is_enough_for_the_worker_and_not_for_live(stack: StackProcess) -> None:
    env = {**stack.env, "SUPABASE_SERVICE_KEY": signed(stack, role="gre_worker")}
    found = await examined(env, live=True)
    assert bad(found) == {"live": "fail"} and "service_role key" in found["live"].fix
    assert found["service key"].status == found["wake-up: broadcast"].status == "ok"


async def test_a_failed_connection_to_supabase_is_diagnosed(stack: StackProcess) -> None:
    with closed_port() as port:
        found = await examined({**stack.env, "SUPABASE_URL": f"http://127.0.0.1:{port}"})
    assert found["Supabase"].status == "fail" and "no connection to 127.0.0.1" in found["Supabase"].found
    assert found["Realtime"].status == "skipped"
    assert found["Pusher"].status == found["OneSignal"].status == "ok", "they do not depend on Supabase"
    found = await examined({**stack.env, "SUPABASE_URL": "https://project.invalid"})
    assert "no address in DNS" in found["Supabase"].found and "SUPABASE_URL" in found["Supabase"].fix


@pytest.mark.parametrize(
    ("rule", "says", "fix"),
    [
        ({"status": 540, "body": "{}"}, "paused", "restore it"),
        ({"status": 503, "body": '{"code":"PGRST002","message":"x","details":null,"hint":null}'}, "its database does not", "dashboard"),
        ({"mode": "garbage"}, "not PostgREST's", "SUPABASE_URL"),
        ({"mode": "refuse"}, "does not answer", "SUPABASE_URL"),
    ],
    ids=["paused", "database down", "garbage", "hangs up"],
)  # fmt: skip
async def test_a_server_that_is_not_supabase_is_recognized(
    stack: StackProcess, rule: Any, says: str, fix: str
) -> None:
    stack.fault("rest", rule)
    found = await examined(stack.env)
    assert found["Supabase"].status == "fail"
    assert says in found["Supabase"].found and fix in found["Supabase"].fix


# Schema and database ----------------------------------------------------------------------------------------------------


async def test_a_database_that_was_never_migrated_names_the_command(tmp_path: Path) -> None:
    async with Stack(data_dir=tmp_path, durable=False) as bare:
        found = await examined(bare.env(), with_db=True)
    assert found["schema"].status == found["migrations"].status == "fail"
    assert found["schema"].fix == "gre-bridge migrate" and "gre-bridge migrate" in found["migrations"].fix
    assert found["service key"].status == "ok"
    assert found["sinks"].status == found["workers"].status == found["row-level security"].status == "skipped"


@contextlib.contextmanager
def changed(stack: StackProcess, change: str, back: str) -> Iterator[None]:
    with stack.db() as conn:
        conn.execute(change.encode())
        try:
            yield
        finally:
            conn.execute(back.encode())


def schema_version(number: int) -> str:
    return f"create or replace function public.gre_schema_version() returns integer language sql immutable parallel safe set search_path = '' as $$ select {number} $$"


@pytest.mark.parametrize(("number", "fix"), [(99, "upgrade this worker"), (1, "gre-bridge migrate")])
async def test_the_fix_for_a_schema_of_another_release_names_the_side_to_upgrade(
    stack: StackProcess, number: int, fix: str
) -> None:
    with changed(stack, schema_version(number), schema_version(SCHEMA_VERSIONS[-1])):
        found = await examined(stack.env)
    assert (found["schema"].status, found["schema"].fix) == ("fail", fix)


@pytest.mark.parametrize(
    ("change", "back", "wrong", "fix"),
    [
        ("alter table gre_staff disable row level security", "alter table gre_staff enable row level security",
         {"row-level security": "fail"}, "alter table public.gre_staff enable"),
        ("alter table gre_chat_messages disable trigger user", "alter table gre_chat_messages enable trigger user",
         {"triggers": "fail"}, "gre-bridge reconcile"),
        ("alter publication supabase_realtime drop table gre_chat_messages", "alter publication supabase_realtime add table gre_chat_messages",
         {"publication": "warn", "Realtime": "warn"}, "add table public.gre_chat_messages"),
        ("update supabase_migrations.schema_migrations set version = 'x' || version where version = (select max(version) from supabase_migrations.schema_migrations)",
         "update supabase_migrations.schema_migrations set version = substr(version, 2) where version like 'x%'",
         {"migrations": "fail"}, "gre-bridge migrate"),
        ("update gre_relay_sinks set enabled = false where name = 'onesignal'", "update gre_relay_sinks set enabled = true",
         {"sinks": "warn"}, "enabled = true where name = 'onesignal'"),
        ("update storage.buckets set public = true where id = 'gre-chat'", "select public.gre_storage_adopt()",
         {"files: bucket": "fail"}, "gre-bridge migrate"),
        ("update storage.buckets set allowed_mime_types = null where id = 'gre-chat'", "select public.gre_storage_adopt()",
         {"files: bucket": "fail"}, "gre-bridge migrate"),
        ("drop policy gre_chat_fetch on storage.objects", "select public.gre_storage_adopt()",
         {"files: policies": "fail"}, "gre-bridge migrate"),
    ],
    ids=["row-level security", "trigger", "publication", "migration", "sink", "public bucket", "types of the bucket", "policy"],
)  # fmt: skip
async def test_faults_in_the_database_are_found(
    stack: StackProcess, change: str, back: str, wrong: dict[str, str], fix: str
) -> None:
    with changed(stack, change, back):
        found = await examined(stack.env, with_db=True)
    assert bad(found) == wrong
    assert all(fix in found[name].fix for name in wrong)


async def test_an_invalid_database_address_is_reported_without_its_password(stack: StackProcess) -> None:
    with closed_port() as port:
        env = {
            **stack.env,
            "SUPABASE_DB_URL": f"postgresql://postgres:hunter2hunter2@127.0.0.1:{port}/postgres",
        }
        found = await examined(env, with_db=True)
    assert bad(found) == {"database": "fail"}
    assert "hunter2" not in found["database"].found


def facts(db: Database, sql: str = "") -> Findings:
    with db.connect("supabase_admin") as conn:
        conn.execute(sql.encode())
    return {one.check: one for one in judge(read_facts(db.dsn(), timeout=10))}


def test_a_missing_partition_of_the_day_is_found(db: Database) -> None:
    parted = (
        "drop table realtime.messages; create table realtime.messages (topic text, inserted_at timestamp not null) partition by range (inserted_at);"
        "alter table realtime.messages enable row level security; grant insert on realtime.messages to postgres;"
        "create policy gre_relay_is_private on realtime.messages as restrictive for all to anon using (topic <> 'gre:relay');"
        "do $$ begin execute format('create table realtime.messages_t partition of realtime.messages for values from (%L) to (%L)',"
        " date_trunc('day', now() at time zone 'UTC') + interval '1 day', date_trunc('day', now() at time zone 'UTC') + interval '2 day'); end $$"
    )
    found = facts(db, parted)["realtime.send"]
    assert found.status == "fail" and "no partition for today" in found.found
    today = "alter table realtime.messages attach partition realtime.messages_d for values"
    with db.connect("supabase_admin") as conn:
        conn.execute("create table realtime.messages_d (like realtime.messages including all)")
        row = conn.execute(
            "select date_trunc('day', now() at time zone 'UTC') as a, date_trunc('day', now() at time zone 'UTC') + interval '1 day' as b"
        ).fetchone()
        assert row is not None
        conn.execute(f"{today} from ('{row['a']}') to ('{row['b']}')".encode())
    assert facts(db)["realtime.send"].status == "ok"


def test_wakeups_that_users_could_receive_are_found(db: Database) -> None:
    found = facts(db, "drop policy gre_relay_is_private on realtime.messages")["realtime.send"]
    assert found.status == "warn" and "gre_relay_is_private" in found.fix


def test_policies_of_the_project_for_all_buckets_are_named(db: Database) -> None:
    found = facts(
        db,
        "create policy everybody_reads on storage.objects for select using (true);"
        "create policy users_write on storage.objects for all to authenticated"
        " using (bucket_id in ('films', 'gre-chat')) with check (bucket_id = 'films');"
        "create policy films on storage.objects to anon using (bucket_id in ('films', 'series'));"
        "create policy one on storage.objects for insert to authenticated with check (bucket_id = 'films' and name <> '');"
        "create policy closes on storage.objects as restrictive using (name <> 'x');"
        "create policy back_end on storage.objects to service_role using (true)",
    )["files: policies"]
    assert found.status == "ok"
    assert "own everybody_reads, users_write would" in found.found


def test_a_transaction_that_stays_open_is_found(db: Database) -> None:
    assert facts(db)["old transactions"].status == "ok"
    now = sql_file("doctor.sql").read_text().replace("interval '5 minutes'", "interval '0 seconds'")
    with psycopg.connect(db.dsn(), application_name="report of the month") as idle, db.connect() as conn:
        idle.execute("select 1")
        row = conn.execute(f"select ({now.rstrip().rstrip(';')}) as facts".encode()).fetchone()
        assert row is not None
        names = [one["application"] for one in row["facts"]["transactions"]]
    assert "report of the month" in names


# Realtime ------------------------------------------------------------------------------------------------------------------


async def test_a_realtime_that_refuses_is_a_failure_with_a_fix(stack: StackProcess) -> None:
    stack.fault("realtime", {"refuse": True})
    found = await examined(stack.env)
    assert found["Realtime"].status == "fail" and found["Realtime"].fix
    assert found["wake-up: broadcast"].status == "skipped"
    assert found["Supabase"].status == "ok"


async def test_a_wakeup_that_is_sent_and_not_received_is_a_failure(stack: StackProcess) -> None:
    stack.fault("realtime", {"drop_broadcasts": 1.0})
    found = await examined(stack.env)
    assert bad(found) == {"wake-up: broadcast": "fail"}
    assert "realtime.send" in found["wake-up: broadcast"].fix


# Sinks ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "check", "fix"),
    [
        ({"PUSHER_SECRET": "wrong"}, "Pusher", "PUSHER_SECRET"),
        ({"PUSHER_KEY": "wrong"}, "Pusher", "PUSHER_KEY"),
        ({"PUSHER_APP_ID": "1"}, "Pusher", "PUSHER_APP_ID"),
        ({"PUSHER_HOST": "nowhere.invalid"}, "Pusher", "PUSHER_HOST"),
        ({"ONESIGNAL_API_KEY": "os_v2_app_wrong"}, "OneSignal", "ONESIGNAL_API_KEY"),
        ({"ONESIGNAL_APP_ID": "00000000-0000-0000-0000-000000000000"}, "OneSignal", "ONESIGNAL_APP_ID"),
        ({"ONESIGNAL_API_URL": "http://nowhere.invalid"}, "OneSignal", "ONESIGNAL_API_URL"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_credentials_that_a_sink_refuses_name_the_variable(
    stack: StackProcess, changes: dict[str, str], check: str, fix: str
) -> None:
    found = await examined({**stack.env, **changes})
    assert bad(found) == {check: "fail"}
    assert fix in found[check].fix


async def test_a_sink_without_credentials_and_credentials_without_a_sink_are_reported(
    stack: StackProcess,
) -> None:
    found = await examined({**stack.env, "ONESIGNAL_APP_ID": "", "ONESIGNAL_API_KEY": ""})
    assert bad(found) == {"sinks": "warn"}
    assert "onesignal is enabled" in found["sinks"].found and found["OneSignal"].status == "skipped"


# --live --------------------------------------------------------------------------------------------------------------------


def leftovers(stack: StackProcess) -> int:
    with stack.db() as conn:
        row = conn.execute(
            "select (select count(*) from gre_chat_messages) + (select count(*) from gre_chat_sessions)"
            " + (select count(*) from gre_relay_deliveries) + (select count(*) from push_notifications) as n"
        ).fetchone()
    assert row is not None
    return int(row["n"])


async def test_live_measures_each_step_and_removes_its_rows(stack: StackProcess) -> None:
    with stack.worker():
        found = await examined(stack.env, live=True)
    hops = ["commit", "broadcast", "postgres_changes", "pusher", "onesignal"]
    assert [found[f"live: {hop}"].status for hop in hops] == ["ok"] * 5
    assert all(0 < (found[f"live: {hop}"].seconds or 0) < 60 for hop in hops)
    assert found["live: clean-up"].status == "ok"
    assert leftovers(stack) == 0
    [event] = [one for one in stack.received("pusher") if one["name"] == "new-player-message"]
    assert event["data"]["message"] == live.TEXT and event["data"]["player_id"] == live.PLAYER


async def test_live_receives_its_wakeup_beside_a_busy_worker_that_polls(stack: StackProcess) -> None:
    done = threading.Event()

    def keep_busy() -> None:
        with stack.db() as conn:
            while not done.wait(0.01):
                conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')"
                )

    def all_awake() -> bool:
        row = conn.execute(
            "select count(*) > 0 and bool_and(polls_until > clock_timestamp() + interval '0.8 s') as awake"
            " from gre.listeners where expires_at > clock_timestamp() and kind <> 'idle'"
        ).fetchone()
        return bool(row and row["awake"])

    with stack.worker("relay"), stack.db() as conn:
        load = threading.Thread(target=keep_busy)
        load.start()
        try:
            for _ in range(10):
                wait_until(all_awake, what="the worker to poll")
                found = await examined(stack.env, live=True)
                if all_awake():
                    break
            else:
                pytest.fail("the worker stopped polling meanwhile, each time, so this tested nothing")
        finally:
            done.set()
            load.join()
        hops = ["commit", "broadcast", "postgres_changes", "pusher", "onesignal"]
        assert [found[f"live: {hop}"].status for hop in hops] == ["ok"] * 5
        row = conn.execute("select count(*) as n from gre.listeners where polls_until < now()").fetchone()
        assert row == {"n": 0}, "the registration of doctor is left"


async def test_live_reports_that_no_worker_runs(stack: StackProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SINK_TIMEOUT_WITHOUT_WORKER", 0.5)
    found = await examined(stack.env, live=True)
    assert found["live: pusher"].status == found["live: onesignal"].status == "fail"
    assert "no worker runs" in found["live: pusher"].found and "gre-bridge run" in found["live: pusher"].fix
    assert found["live: broadcast"].status == "ok"
    assert leftovers(stack) == 0


async def test_live_reports_the_reason_of_a_sink_that_refused(
    stack: StackProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SINK_TIMEOUT_WITHOUT_WORKER", 12.0)
    monkeypatch.setattr(live, "SINK_TIMEOUT", 12.0)
    stack.fault("pusher", {"status": 500, "path": "/apps/", "match": "new-player-message"})
    with stack.worker():
        found = await examined(stack.env, live=True)
    assert found["live: onesignal"].status == "ok"
    assert found["live: pusher"].status == "fail" and found["live: clean-up"].status == "ok"


@pytest.mark.parametrize("somebody", ["a conversation", "a profile"])
async def test_live_refuses_an_existing_player(stack: StackProcess, somebody: str) -> None:
    if somebody == "a conversation":
        assert (
            stack.insert(player_id=71, sender="player", sender_name="Asha", message="hello").status_code
            == 201
        )
    else:
        with stack.db() as conn:
            conn.execute("insert into gre_chat_players (player_id, display_name) values (71, 'Asha')")
    before = leftovers(stack)
    found = await examined(stack.env, live=True, player=71)
    assert found["live"].status == "fail" and "--player" in found["live"].fix
    assert leftovers(stack) == before


def test_live_cleans_up_when_it_is_interrupted(stack: StackProcess) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "gre_bridge", "doctor", "--live"],
        env={**os.environ, **stack.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: leftovers(stack) > 0, what="the message")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait(60)
    assert leftovers(stack) == 0
