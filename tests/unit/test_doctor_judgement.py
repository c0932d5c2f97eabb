"""The judgements of doctor, without a server: keys, clocks, sinks, facts of the database, and the report."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gre_bridge.config.settings import Settings
from gre_bridge.db.types import DeskStats
from gre_bridge.doctor import sink_problems
from gre_bridge.doctor.probes import local, sinks
from gre_bridge.doctor.probes.database import judge, judge_migrations, other_project, password_of
from gre_bridge.doctor.probes.files import POLICIES, TRIGGERS
from gre_bridge.doctor.probes.keys import judge_anon_key, judge_service_key, project_of
from gre_bridge.doctor.probes.realtime import suggest_fix
from gre_bridge.doctor.probes.supabase import judge_clock, judge_desk, judge_sinks, judge_workers
from gre_bridge.doctor.report import Finding, Report, Status, failed, ok, skipped, warn
from gre_bridge.migrations.files import Entry
from gre_bridge.migrations.files import Status as Migrations
from tests.support.loopback import Reply, json_reply, serving

NOW = 1_800_000_000.0
DAY = 86400
URL = "https://abcdefghijklmnopqrst.supabase.co"


def jwt(**claims: Any) -> str:
    parts = ({"alg": "HS256"}, claims)
    head, body = (base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
    return f"{head}.{body}.c2lnbmF0dXJl"


def settings(**values: Any) -> Settings:
    needed = {"SUPABASE_URL": URL, "SUPABASE_SERVICE_KEY": "sb_secret_x"}
    return Settings(_env_file=None, **{**needed, **values})  # type: ignore[arg-type]


PUSHER: dict[str, Any] = {
    "PUSHER_APP_ID": "7", "PUSHER_KEY": "key", "PUSHER_SECRET": "hush-hush", "PUSHER_HOST": "127.0.0.1", "PUSHER_SSL": False,
}  # fmt: skip


# Keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "status", "says"),
    [
        (jwt(role="service_role", exp=NOW + 900 * DAY), Status.OK, "service_role"),
        (jwt(role="service_role"), Status.FAIL, "has no expiry"),
        (jwt(role="gre_worker", exp=NOW + 900 * DAY), Status.OK, "gre_worker"),
        ("sb_secret_0123456789", Status.OK, "sb_secret_"),
        (jwt(role="anon", exp=NOW + 900 * DAY), Status.FAIL, "anon key"),
        ("sb_publishable_0123456789", Status.FAIL, "anon key"),
        (jwt(role="authenticated"), Status.FAIL, "authenticated"),
        (jwt(role="service_role", exp=NOW - 3 * DAY), Status.FAIL, "expired 3 days ago"),
        (jwt(role="service_role", exp=NOW + 3 * DAY), Status.WARN, "expires in 3 days"),
        (jwt(role="service_role", ref="zzzzzzzzzzzzzzzzzzzz"), Status.FAIL, "belongs to project"),
        (
            jwt(role="service_role", ref="abcdefghijklmnopqrst", exp=NOW + 900 * DAY),
            Status.OK,
            "service_role",
        ),
        (jwt(role="postgres"), Status.WARN, "postgres"),
        ("not-a-key", Status.FAIL, "neither a JWT"),
        ("a.b.c", Status.FAIL, "neither a JWT"),
    ],
)
def test_other_values_than_a_service_key_are_recognized(key: str, status: Status, says: str) -> None:
    found = judge_service_key(key, url=URL, now=NOW)
    assert found.status is status
    assert says in found.found
    assert key not in found.found + found.fix
    assert (found.status is Status.OK) == (not found.fix)


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (jwt(role="anon", exp=NOW + 900 * DAY), Status.OK),
        ("sb_publishable_0123456789", Status.OK),
        (jwt(role="service_role"), Status.FAIL),
        ("sb_secret_0123456789", Status.FAIL),
        (jwt(role="anon", exp=NOW - 1), Status.FAIL),
        (jwt(role="anon", exp=NOW + DAY), Status.WARN),
    ],
)
def test_a_secret_key_where_the_public_one_belongs_is_found(key: str, status: Status) -> None:
    assert judge_anon_key(key, url=URL, now=NOW).status is status


def test_a_custom_domain_names_no_project() -> None:
    assert project_of(URL) == "abcdefghijklmnopqrst"
    assert project_of("https://chat.example.com") is None
    key = jwt(role="service_role", ref="z", exp=NOW + 900 * DAY)
    assert judge_service_key(key, url="https://chat.example.com", now=NOW).status is Status.OK


@pytest.mark.parametrize(
    ("db_url", "other"),
    [
        ("postgresql://postgres:pw@db.abcdefghijklmnopqrst.supabase.co:5432/postgres", False),
        (
            "postgresql://postgres.abcdefghijklmnopqrst:pw@aws-0-eu-west-1.pooler.supabase.com:5432/postgres",
            False,
        ),
        ("postgresql://postgres:pw@db.zzzzzzzzzzzzzzzzzzzz.supabase.co:5432/postgres", True),
        ("postgresql://postgres:pw@10.0.0.5:5432/postgres", False),
        ("postgresql://[oops", False),
    ],
)
def test_the_database_of_another_project_is_found(db_url: str, other: bool) -> None:
    assert (other_project(db_url, URL) is not None) is other


def test_the_password_of_an_address_is_a_secret_of_the_report() -> None:
    assert password_of("postgresql://u:p%40ss@h/db") == "p@ss"
    assert password_of("postgresql://h/db") == password_of("postgresql://[oops") == ""


# Clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "status"), [(0.3, "ok"), (-29, "ok"), (31, "warn"), (-4000, "warn")])
def test_the_deviation_of_a_clock_is_reported(ahead: float, status: str) -> None:
    found = judge_clock(ahead)
    assert found.status == status
    if status == "warn":
        assert f"{abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}" in found.found


async def pusher_of(handler: Any, **values: Any) -> list[Finding]:
    async with serving(handler) as port:
        return await sinks.probe_pusher(settings(**{**PUSHER, "PUSHER_PORT": port, **values}))


@pytest.mark.parametrize(
    ("minutes", "status", "pusher", "clock"),
    [
        (0, 200, "ok", "ok"),
        (2, 200, "ok", "warn"),
        (-2, 200, "ok", "warn"),
        (30, 401, "fail", "fail"),
        (-30, 401, "fail", "fail"),
    ],
)
async def test_the_deviation_of_the_clock_is_read_from_pushers_date(
    minutes: int, status: int, pusher: str, clock: str
) -> None:
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    seen: list[Any] = []

    def answer(request: Any) -> Reply:
        seen.append(request)
        date = format_datetime(datetime.now(UTC) - timedelta(minutes=minutes), usegmt=True)
        return json_reply({"channels": {}}, status, {"Date": date})

    found = {f.check: f for f in await pusher_of(answer)}
    assert (found[sinks.PUSHER].status, found[sinks.PUSHER_CLOCK].status) == (pusher, clock)
    assert seen[0].method == "GET" and seen[0].path == "/apps/7/channels"
    assert {"auth_key", "auth_signature", "auth_timestamp"} <= seen[0].query.keys()
    if clock != "ok":
        told = found[sinks.PUSHER_CLOCK].found
        assert ("ahead of" if minutes > 0 else "behind") in told and "NTP" in found[sinks.PUSHER_CLOCK].fix
    if pusher == "fail":
        assert "NTP" in found[sinks.PUSHER].fix


@pytest.mark.parametrize(
    ("status", "names"),
    [
        (400, "PUSHER_KEY"),
        (401, "PUSHER_SECRET"),
        (403, "dashboard"),
        (404, "PUSHER_APP_ID"),
        (500, "PUSHER_CLUSTER"),
        (302, "PUSHER_CLUSTER"),
    ],
)
async def test_each_refusal_of_pusher_names_its_cause(status: int, names: str) -> None:
    found = (await pusher_of(lambda _: json_reply({}, status)))[0]
    assert (found.check, found.status) == (sinks.PUSHER, Status.FAIL)
    assert f"HTTP {status}" in found.found and names in found.fix


@pytest.mark.parametrize(
    ("status", "verdict", "names"),
    [(200, "ok", ""), (400, "fail", "ONESIGNAL_API_KEY"), (403, "fail", "ONESIGNAL_API_KEY"), (404, "fail", "ONESIGNAL_APP_ID"),
     (429, "warn", "again"), (502, "fail", "ONESIGNAL_API_URL")],
)  # fmt: skip
async def test_each_answer_of_onesignal_is_reported(status: int, verdict: str, names: str) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Reply:
        seen.append(request)
        return json_reply({"notifications": [{"contents": {"en": "words of a message"}}]}, status)

    async with serving(answer) as port:
        [found] = await sinks.probe_onesignal(
            settings(
                ONESIGNAL_APP_ID="00000000-0000-0000-0000-000000000001",
                ONESIGNAL_API_KEY="os_v2_app_hush",
                ONESIGNAL_API_URL=f"http://127.0.0.1:{port}",
            )
        )
    assert found.status == verdict and names in found.fix
    assert "words" not in found.found and "hush" not in found.found + found.fix
    assert (seen[0].method, seen[0].path, seen[0].query["limit"]) == ("GET", "/notifications", "1")
    assert seen[0].headers["Authorization"] == "Key os_v2_app_hush"


async def test_sinks_without_credentials_are_skipped() -> None:
    assert [
        f.status for f in await sinks.probe_pusher(settings()) + await sinks.probe_onesignal(settings())
    ] == ["skipped"] * 2


@pytest.mark.parametrize(
    ("given", "way"),
    [
        (
            "staff-portal",
            "GRE_PUSHER_PLAYER_CHANNELS=staff-portal,private-staff-portal, then private-staff-portal",
        ),
        ("staff-portal,private-staff-portal", "then private-staff-portal"),
        ("private-staff-portal", ""),
        ("presence-staff", ""),
    ],
)
def test_a_public_channel_is_reported_with_the_setting_for_a_private_one(given: str, way: str) -> None:
    [found] = sinks.check_channels(settings(GRE_PUSHER_PLAYER_CHANNELS=given))
    assert found.status is (Status.WARN if way else Status.OK)
    assert found.fix.endswith(way)


# Sinks and workers --------------------------------------------------------------------------------------------------


def rows(**enabled: bool) -> list[dict[str, Any]]:
    return [{"sink": name, "enabled": on, "pending": 12} for name, on in enabled.items()]


def test_sinks_with_credentials_are_ok() -> None:
    [found] = judge_sinks(rows(pusher=True, onesignal=False), settings(**PUSHER))
    assert (found.status, found.found) == ("ok", "pusher")


def test_an_enabled_sink_without_credentials_is_reported_with_its_backlog() -> None:
    [found] = judge_sinks(rows(pusher=True, onesignal=True), settings(**PUSHER))
    assert found.status is Status.WARN
    assert "onesignal" in found.found and "12 deliveries" in found.found
    assert "enabled = false where name = 'onesignal'" in found.fix and "ONESIGNAL_" in found.fix


@pytest.mark.parametrize("known", [rows(pusher=False), []])
def test_credentials_for_a_disabled_sink_are_reported(known: list[dict[str, Any]]) -> None:
    [found] = judge_sinks(known, settings(**PUSHER))
    assert found.status is Status.WARN and "enabled = true where name = 'pusher'" in found.fix


def test_no_credentials_at_all_is_a_failure() -> None:
    [found] = judge_sinks(rows(pusher=True, onesignal=True), settings())
    assert found.status is Status.FAIL


def test_a_worker_without_a_recent_report_does_not_count() -> None:
    row = {"host": "a", "version": "1.0", "seen": 3.0, "info": {"process": "relay"}}
    api = {**row, "info": {"process": "api"}}
    assert judge_workers([row, api]).found == "2: a (relay, 1.0, 3 s ago), a (api, 1.0, 3 s ago)"
    for nobody in ([], [{**row, "seen": 600.0}], [api]):
        assert judge_workers(nobody).fix == "start one: gre-bridge run"


DESK = DeskStats(
    "least_busy", unassigned=2, assigned=1, oldest_age=30, available_staff=1, staff=3, opens=True
)


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({}, Status.OK, "2 sessions in the queue, 1 of 3 staff available"),
        ({"assignment": "off", "staff": 0, "opens": False, "oldest_age": 9999}, Status.OK, "is off"),
        ({"staff": 0, "available_staff": 0}, Status.WARN, "no active staff member takes sessions"),
        ({"opens": False, "available_staff": 0}, Status.WARN, "no open time"),
        ({"oldest_age": 61}, Status.WARN, "has waited for 61 s although 1"),
        ({"oldest_age": 9999, "available_staff": 0}, Status.OK, "0 of 3 staff available"),
    ],
)
def test_assignment_that_assigns_nothing_is_a_warning(changes: Any, status: Status, word: str) -> None:
    found = judge_desk(replace(DESK, **changes))
    assert found.status is status
    assert word in found.found


# The database's facts ------------------------------------------------------------------------------------------------

STORAGE = {"rls": True, "policies": list(POLICIES), "triggers": list(TRIGGERS), "own": []}
FACTS: dict[str, Any] = {
    "role": "postgres", "wal_level": "logical", "connections": 5, "max_connections": 97, "slots": [], "max_slots": 10,
    "transactions": [], "prepared": 0, "publication": True, "published": True, "open_tables": [], "tables": 10,
    "disabled_triggers": [], "send": True, "send_allowed": True, "send_owner": "postgres", "messages": {"policy": True, "rls": True, "today": True},
    "storage": STORAGE,
}  # fmt: skip
SLOT = {"name": "old", "active": False, "kept": 5 * 1024**3}
OLD = {"pid": 77, "user": "bi", "state": "idle in transaction", "application": "", "age": 660}


def test_a_sound_database_is_ok() -> None:
    assert {f.status for f in judge(FACTS)} == {Status.OK}


@pytest.mark.parametrize(
    ("facts", "check", "status", "fix"),
    [
        ({"open_tables": ["gre_staff"]}, "row-level security", "fail", "alter table public.gre_staff enable row level security"),
        ({"disabled_triggers": ["t on x"]}, "triggers", "fail", "gre-bridge reconcile"),
        ({"published": False}, "publication", "warn", "alter publication supabase_realtime add table"),
        ({"published": False, "publication": False}, "publication", "warn", "create publication"),
        ({"send": False}, "realtime.send", "warn", "upgrade the project"),
        ({"messages": None}, "realtime.send", "warn", "upgrade the project"),
        ({"messages": {"policy": True, "rls": True, "today": False}}, "realtime.send", "fail", "restart Realtime"),
        ({"messages": {"policy": False, "rls": True, "today": True}}, "realtime.send", "warn", "gre_relay_is_private"),
        ({"messages": {"policy": True, "rls": False, "today": True}}, "realtime.send", "fail", "enable row level security"),
        ({"transactions": [OLD]}, "old transactions", "warn", "pg_terminate_backend(77)"),
        ({"prepared": 2}, "old transactions", "warn", "rollback prepared"),
        ({"wal_level": "replica"}, "replication", "fail", "wal_level = logical"),
        ({"slots": [SLOT]}, "replication", "warn", "pg_drop_replication_slot('old')"),
        ({"slots": [{**SLOT, "active": True}]}, "replication", "ok", ""),
        ({"slots": [{**SLOT, "kept": None}], "max_slots": 1}, "replication", "warn", "max_replication_slots"),
        ({"connections": 90}, "connections", "warn", "pooler"),
        ({"storage": None}, "files: policies", "skipped", ""),
        ({"storage": {**STORAGE, "rls": False}}, "files: policies", "fail", "Policies"),
        ({"storage": {**STORAGE, "policies": ["gre_chat_fetch"]}}, "files: policies", "fail", "gre-bridge migrate"),
        ({"storage": {**STORAGE, "triggers": []}}, "files: policies", "fail", "gre-bridge migrate"),
    ],
)  # fmt: skip
def test_each_wrong_fact_has_a_fix(facts: dict[str, Any], check: str, status: str, fix: str) -> None:
    found = {f.check: f for f in judge({**FACTS, **facts})}
    assert found[check].status == status
    assert fix in found[check].fix
    assert {f.status for name, f in found.items() if name != check} == {Status.OK}


def test_pending_and_drifted_migrations_are_named() -> None:
    entries = [
        Entry(version="1", name="a", state="applied"),
        Entry(version="2", name="b", state="pending"),
        Entry(version="3", name="c", state="drifted"),
    ]
    pending, drifted = judge_migrations(Migrations(entries=entries))
    assert (pending.status, pending.found) == (
        "fail",
        "1 pending: 2_b",
    ) and "gre-bridge migrate" in pending.fix
    assert drifted.status is Status.WARN and "3_c" in drifted.found
    [good] = judge_migrations(Migrations(entries=entries[:1]))
    assert good.status is Status.OK


# This machine ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    import os

    for name in list(os.environ):
        if name.startswith(("SUPABASE_", "STAFF_PORTAL_", "PUSHER_", "ONESIGNAL_", "GRE_")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_older_and_unknown_names_are_reported(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(
        "GRE_POLL_INTERVALL=3\nGRE_DEV_STACK=x\nGRE_METRICS_TOKEN_FILE=/run/x\nSTAFF_PORTAL_SUPABASE_SERVICE_KEY=old-key\n"
    )
    file.chmod(0o600)
    clean.setenv("STAFF_PORTAL_SUPABASE_URL", URL)
    clean.setenv("SUPABASE_URL", URL)
    told = {f.found: f.fix for f in local.check_variables(file)}
    assert told == {
        "STAFF_PORTAL_SUPABASE_URL is set, but SUPABASE_URL overrides it": "remove STAFF_PORTAL_SUPABASE_URL",
        "STAFF_PORTAL_SUPABASE_SERVICE_KEY is an older name": "rename it to SUPABASE_SERVICE_KEY",
        "GRE_POLL_INTERVALL is not a variable of gre-bridge": "GRE_POLL_INTERVAL?",
    }


def test_a_file_of_secrets_with_open_permissions_is_reported(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "env"
    file.write_text("")
    file.chmod(0o644)
    [found] = local.check_variables(file)
    assert found.status is Status.WARN and found.fix == "chmod o-r env"
    file.chmod(0o640)
    assert [f.status for f in local.check_variables(file)] == ["ok"]


def test_a_low_limit_of_open_files_is_reported_with_the_needed_number() -> None:
    [found] = local.check_open_files(settings(GRE_MAX_SOCKETS=2000), limit=1024)
    assert found.status is Status.WARN and "4300" in found.fix
    assert [
        f.status
        for f in local.check_open_files(settings(GRE_MAX_SOCKETS=600, GRE_MAX_CONNECTIONS=100), limit=1024)
    ] == ["ok"]
    assert [f.status for f in local.check_open_files(settings(), limit=-1)] == ["ok"]


def test_settings_that_the_daemon_refuses_are_reported() -> None:
    assert sink_problems(settings(**PUSHER)) == []
    [told] = sink_problems(settings(**PUSHER, GRE_PUSHER_PLAYER_CHANNELS="no such channel!"))
    assert told.startswith("GRE_PUSHER_…_CHANNELS: ")


# The report -------------------------------------------------------------------------------------------------------------


def test_the_report_contains_no_secret() -> None:
    report = Report(("hunter2hunter2", "", "abc"))
    report.add([failed("x", "the key hunter2hunter2\nwas refused", "replace hunter2hunter2, abc")])
    assert report.findings == [Finding("x", Status.FAIL, "the key *** was refused", "replace ***, abc")]
    assert "hunter2" not in json.dumps(report.to_json())


def test_a_report_is_good_unless_a_check_failed() -> None:
    report = Report()
    report.add([ok("a", "fine", seconds=0.01), warn("b", "hm", "do it"), skipped("c", "not now")])
    assert report.good and report.summary() == "1 ok, 1 warn, 1 skipped"
    report.add([failed("d", "broken [red]", "mend it")])
    assert not report.good
    assert report.to_json()["checks"][0] == {
        "check": "a",
        "status": "ok",
        "found": "fine",
        "fix": "",
        "seconds": 0.01,
    }
    console = Console(file=io.StringIO(), width=60)
    console.print(report.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "broken [red]" in text and "→ mend it" in text, "markup in a finding is text"


@pytest.mark.parametrize(
    ("detail", "fix"),
    [
        ("broadcast: MissingPartition: no partition for today", "restart Realtime"),
        ("connect: HTTP 403 Realtime was disabled for this tenant", "turned Realtime off for this project"),
        ("connect: HTTP 429 Too many connected users", "over a limit of Realtime"),
        ("connect: HTTP 502 Bad Gateway", "down or restarting"),
        ("connect: HTTP 404 Not Found", "SUPABASE_URL"),
        ("connect: HTTP 401 Token has expired", "SUPABASE_SERVICE_KEY"),
        ("connect: timed out", "let WebSockets through"),
    ],
)
def test_each_error_of_realtime_has_a_fix(detail: str, fix: str) -> None:
    assert fix in suggest_fix(detail)
    assert "GRE_REALTIME_PRIVATE" not in suggest_fix(detail, joined=True)
