"""The operator's commands on the embedded stack: arguments, output and exit status."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from tests.integration.test_dead_letters import drain, kill
from tests.integration.test_outbox import Conn, all_done, claim, send, settle
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until
from tests.unit.test_cli import cli, one_line

Run = Callable[..., Result]
SECRETS = ("SUPABASE_SERVICE_KEY", "SUPABASE_ANON_KEY", "PUSHER_SECRET", "ONESIGNAL_API_KEY")
TEXT = "zebra crossing"


@pytest.fixture
def conn(stack: StackProcess) -> Iterator[Conn]:
    """The connection of the portals and the worker to the stack's database."""
    with stack.db() as connection:
        connection.execute("update gre_relay_sinks set reconcile_from = now() - interval '1 day'")
        yield connection


@pytest.fixture
def run(stack: StackProcess, conn: Conn) -> Run:
    """Run a command; check that it prints no key and no text, and that JSON is one value."""

    def typed(*args: str, **changes: str) -> Result:
        done = cli(*args, env={**stack.env, "COLUMNS": "200", **changes})
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert TEXT not in said
        for name in SECRETS:
            assert stack.env[name] not in said
        if "--json" in args and done.stdout:
            json.loads(done.stdout)
        return done

    return typed


def printed(done: Result, status: int = 0) -> Any:
    """Return the JSON that a command prints."""
    assert done.exit_code == status, done.stderr
    return json.loads(done.stdout)


# Dead letters -------------------------------------------------------------------------------------------------


def test_dead_list_shows_dead_letters_with_their_errors(conn: Conn, run: Run) -> None:
    done = run("dead", "list")
    assert (done.exit_code, done.stdout) == (0, "no dead letters\n")
    assert printed(run("dead", "list", "--json")) == []
    session = send(conn, 1, TEXT)["session_id"]
    send(conn, 2, TEXT)
    died = kill(conn, 2, error="413: too large [/x]")
    done = run("dead", "list")
    assert done.exit_code == 1
    assert all(name in done.stdout for name in died)
    assert "413: too large [/x]" in done.stdout
    assert {one["id"] for one in printed(run("dead", "list", "--json"), 1)} == set(died)
    for args, count in (
        (["--sink", "pusher"], 4), (["--sink", "onesignal"], 0), (["--session", str(session)], 2), (["--error", "TOO LARGE"], 4),
        (["--error", "400"], 0), (["--older-than", "1h"], 0), (["--older-than", "0s"], 4), (["--limit", "3"], 3),
    ):  # fmt: skip
        assert len(printed(run("dead", "list", "--json", *args), 1 if count else 0)) == count, args


def test_dead_show_shows_one(conn: Conn, run: Run) -> None:
    send(conn, 1, TEXT)
    letter = kill(conn, 2, error="413: too large")[1]
    found = printed(run("dead", "show", letter, "--json"))
    assert (found["id"], found["error"], found["event"]) == (letter, "413: too large", "message")
    lines = run("dead", "show", letter).stdout.splitlines()
    assert f"id          {letter}" in lines
    done = run("dead", "show", str(uuid.uuid4()))
    assert (done.exit_code, done.stdout) == (1, "")
    assert one_line(done.stderr).endswith("is not a dead letter")


def test_dead_retry_and_drop_by_id_and_by_filter(conn: Conn, run: Run) -> None:
    for player in range(1, 5):
        send(conn, player, TEXT)
    died = kill(conn, 9)
    drain(conn, "onesignal")
    assert run("dead", "retry", died[0], died[1]).stdout == "2 will be retried\n"
    assert printed(run("dead", "retry", died[0], "--json")) == {"count": 0}
    assert len(drain(conn)) >= 1
    assert printed(run("dead", "drop", "--error", "no such", "--json")) == {"count": 0}
    lane = printed(run("dead", "show", died[2], "--json"))["lane"]
    assert printed(run("dead", "drop", "--session", lane, "--json")) == {"count": 2}
    assert run("dead", "drop", "--sink", "pusher", "--older-than", "1h").stdout == "0 dropped\n"
    assert run("dead", "retry", "--all").stdout == "4 will be retried\n"
    assert run("dead", "list").exit_code == 0
    assert len(drain(conn)) == 2


def test_a_retry_of_many_pages_ends_even_if_they_are_dead_again_at_once(
    stack: StackProcess, conn: Conn, run: Run
) -> None:
    conn.execute("insert into gre_chat_messages (player_id, sender, message) select 1 + g % 50, 'player', 'x' from generate_series(1, 1200) g")  # fmt: skip
    conn.execute("update gre_relay_deliveries set state = 'dead', settled_at = now() where sink = 'pusher'")
    conn.execute("create or replace function pg_temp.die() returns trigger language plpgsql as $$ begin"
                 " new.state := 'dead'; new.settled_at := clock_timestamp(); return new; end $$")  # fmt: skip
    conn.execute("create trigger die before update on gre_relay_deliveries for each row when (new.state = 'pending') execute function pg_temp.die()")  # fmt: skip
    try:
        assert printed(run("dead", "retry", "--all", "--json")) == {"count": 1250}
    finally:
        conn.execute("drop trigger die on gre_relay_deliveries")
    assert len(printed(run("dead", "list", "--json", "--limit", "1000"), 1)) == 1000


# Files --------------------------------------------------------------------------------------------------------


def test_files_again_has_refused_files_examined_again_by_code_and_by_id(conn: Conn, run: Run) -> None:
    rows = conn.execute(
        "insert into gre_chat_attachments (id, player_id, by, name, kind, type, bytes, announced_bytes, object_type, state, refused)"
        " select gen_random_uuid(), 29, 'player', %s, 'file', 'x', 1, 1, 'x', 'refused', case when g > 3 then 'virus' else 'not_scanned' end"
        " from generate_series(1, 6) g returning id::text, refused",
        [TEXT],
    ).fetchall()
    viruses = [row["id"] for row in rows if row["refused"] == "virus"]
    for wrong in ([], ["--json"]):
        done = run("files", "again", *wrong)
        assert (done.exit_code, done.stdout) == (2, "")
        assert one_line(done.stderr) == "gre-bridge: give ids, --refused, or --all"
    assert run("files", "again", "no-id").exit_code == 2
    assert run("files", "again", str(uuid.uuid4())).stdout == "0 will be examined again\n"
    assert run("files", "again", "--refused", "not_scanned").stdout == "3 will be examined again\n"
    assert printed(run("files", "again", *viruses[:2], "--refused", "not_scanned", "--json")) == {"count": 0}
    assert printed(run("files", "again", viruses[0], "--json")) == {"count": 1}
    assert printed(run("files", "again", "--all", "--json")) == {"count": 2}
    waiting = conn.execute("select count(*) as n from gre.media_jobs j join gre_chat_attachments a on a.id = j.attachment_id where a.state = 'stored'")  # fmt: skip
    assert waiting.fetchall() == [{"n": 6}]


def test_files_again_ends_even_if_they_are_refused_again_at_once(conn: Conn, run: Run) -> None:
    conn.execute(
        "insert into gre_chat_attachments (id, player_id, by, name, kind, type, bytes, announced_bytes, object_type, state, refused, created_at)"
        " select gen_random_uuid(), 29, 'player', 'x', 'file', 'x', 1, 1, 'x', 'refused', 'not_scanned', now() + g * interval '1 microsecond'"
        " from generate_series(1, 1100) g"
    )
    conn.execute("create or replace function pg_temp.refuse() returns trigger language plpgsql as $$ begin"
                 " new.state := 'refused'; new.refused := 'not_scanned'; return new; end $$")  # fmt: skip
    conn.execute("create trigger refuse before update on gre_chat_attachments for each row when (new.state = 'stored') execute function pg_temp.refuse()")  # fmt: skip
    try:
        assert printed(run("files", "again", "--refused", "not_scanned", "--json")) == {"count": 1100}
    finally:
        conn.execute("drop trigger refuse on gre_chat_attachments")


# Replay, reconcile, expire, prune -----------------------------------------------------------------------------


def test_replay(conn: Conn, run: Run) -> None:
    session = send(conn, 1, TEXT)["session_id"]
    conn.execute("insert into gre_chat_messages (player_id, sender, message) select 2, 'player', 'm' || g from generate_series(1, 700) g")  # fmt: skip
    for sink in ("pusher", "onesignal"):
        drain(conn, sink)
    assert run("replay", "--since", "1h", "--dry-run").stdout == "701 messages would be sent again\n"
    assert claim(conn)["lanes"] == []
    assert printed(run("replay", "--session", str(session), "--sink", "pusher", "--json")) == {"messages": 1, "dry_run": False}  # fmt: skip
    assert drain(conn) == [TEXT]
    assert run("replay", "--since", "2001-01-01T00:00Z", "--until", "1h").stdout == "0 messages will be sent again\n"  # fmt: skip
    assert run("replay", "--since", "1h", "--sink", "pusher").stdout == "701 messages will be sent again\n"  # fmt: skip
    assert sorted(drain(conn)) == sorted([TEXT, *(f"m{n}" for n in range(1, 701))])
    conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
    done = run("replay", "--since", "1h", "--sink", "onesignal")
    assert done.exit_code in (1, 2)
    assert "there is no such enabled sink" in one_line(done.stderr)


def test_reconcile(stack: StackProcess, conn: Conn, run: Run) -> None:
    assert run("reconcile").stdout == "0 messages checked: nothing is missing\n"
    send(conn, 1, TEXT)
    conn.execute("alter table gre_chat_messages disable trigger user")
    try:
        conn.execute("insert into gre_chat_messages (session_id, seq, player_id, sender, message, created_at)"
                     " select session_id, 2, 1, 'player', %s, now() - interval '5 minutes' from gre_chat_messages", [TEXT])  # fmt: skip
    finally:
        conn.execute("alter table gre_chat_messages enable trigger user")
    conn.execute("update gre_relay_lanes set ready_at = null where sink = 'onesignal'")
    conn.execute("update gre_relay_deliveries set created_at = created_at - interval '5 minutes'")
    line = "2 messages checked: 1 never reached onesignal, 1 never reached pusher; 1 lanes with pending deliveries were not scheduled"
    done = run("reconcile", "--dry-run")
    assert (done.exit_code, done.stdout) == (1, f"{line} (would be repaired)\n")
    done = run("reconcile")
    assert (done.exit_code, done.stdout) == (0, f"{line} (repaired)\n")
    assert printed(run("reconcile", "--json")) == {"checked": 2, "missing": {}, "lanes": 0, "dry_run": False}
    for sink in ("pusher", "onesignal"):
        assert drain(conn, sink) == [TEXT, TEXT]


def test_expire(conn: Conn, run: Run) -> None:
    send(conn, 1, TEXT)
    send(conn, 2, TEXT)
    conn.execute("update gre_relay_deliveries set created_at = created_at - interval '3 hours'")
    assert run("expire", "--before", "2h", "--dry-run").stdout == "6 would be expired\n"
    assert printed(run("expire", "--before", "4h", "--json")) == {"expired": 0, "dry_run": False}
    assert printed(run("expire", "--before", "2h", "--sink", "pusher", "--json")) == {"expired": 4, "dry_run": False}  # fmt: skip
    assert run("expire", "--before", "2h").stdout == "2 expired\n"
    assert drain(conn) == []


def test_prune(conn: Conn, run: Run) -> None:
    session = send(conn, 1, TEXT)["session_id"]
    conn.execute("update gre_chat_sessions set status = 'closed'")
    for sink in ("pusher", "onesignal"):
        drain(conn, sink)
    assert run("prune").stdout == "deleted: nothing\n"
    conn.execute("update gre_relay_deliveries set settled_at = now() - interval '8 days', created_at = now() - interval '8 days'")  # fmt: skip
    assert printed(run("prune", "--keep", "9d", "--json")) == {}
    assert run("prune", "--keep", "7d").stdout == "deleted: 4 deliveries\n"
    conn.execute("alter table gre_chat_sessions disable trigger user")
    try:
        conn.execute("update gre_chat_sessions set updated_at = now() - interval '40 days', last_message_at = now() - interval '40 days'")  # fmt: skip
    finally:
        conn.execute("alter table gre_chat_sessions enable trigger user")
    assert printed(run("prune", "--json")) == {"deliveries": 0, "lanes": 2, "pushes": 0, "messages": 0, "sessions": 0, "attachments": 0}  # fmt: skip
    assert printed(run("prune", "--json", GRE_RETENTION_DAYS="50")) == {}
    assert printed(run("prune", "--json", GRE_RETENTION_DAYS="30"))["sessions"] == 1
    assert conn.execute("select from gre_chat_messages where session_id = %s", [session]).fetchall() == []


# Status -------------------------------------------------------------------------------------------------------


def test_status_reports_that_no_worker_runs(conn: Conn, run: Run) -> None:
    send(conn, 1, TEXT)
    done = run("status")
    assert done.exit_code == 1
    assert "! no worker has reported in the last minute" in done.stdout
    found = printed(run("status", "--json"), 1)
    assert found["problems"] == ["no worker has reported in the last minute"]
    assert {row["sink"]: row["pending"] for row in found["sinks"]} == {"pusher": 2, "onesignal": 1}


def test_status_shows_backlog_rate_and_blocked_sessions(conn: Conn, run: Run) -> None:
    for player in range(1, 41):
        send(conn, player, TEXT)
    got = claim(conn, lanes=30)
    *done, failing = all_done(got)
    ids = failing.pop("done")
    failing |= {"failed": {"ids": ids[:1], "state": "retry", "error": "400: channel [/x] refused", "spend": True}, "retry_in": 300}  # fmt: skip
    settle(conn, *done, failing)
    conn.execute("update gre_relay_deliveries set created_at = created_at - interval '10 minutes' where sink = 'onesignal'")  # fmt: skip
    text = run("status").stdout
    (pusher,) = [line.split() for line in text.splitlines() if line.strip().startswith("pusher ")]
    assert pusher[:2] == ["pusher", "22"]
    assert re.fullmatch(r"[56](\.\d)?/s", pusher[4]), pusher
    (blocked,) = [line for line in text.splitlines() if failing["lane"] in line]
    assert "400: channel [/x] refused" in blocked
    assert "5 m" in blocked
    assert "onesignal: the oldest delivery has been pending for 10 m" in text


def test_status_shows_two_workers_until_and_after_their_end(
    stack: StackProcess, conn: Conn, run: Run
) -> None:
    def workers() -> list[dict[str, Any]]:
        return list(json.loads(run("status", "--json").stdout)["workers"])

    with stack.worker() as one, stack.worker() as two:
        wait_until(lambda: len(workers()) == 4, what="two daemons, each with two processes")
        assert sorted(w["info"]["process"] for w in workers()) == ["api", "api", "relay", "relay"]
        for worker in workers():
            assert worker["seen"] < 60
            assert "state" in worker["info"]["realtime"]
        send(conn, 1, TEXT)
        stack.drained()
        assert "no worker" not in run("status").stdout
        assert one.stop() == 0
        left = [w["id"] for w in workers()]
        assert len(left) == 2
        table = run("status").stdout
        for process, pid in two.pids.items():
            assert f"{process} {pid}" in table
        two.kill()
        assert [w["id"] for w in workers()] == left
        conn.execute("update gre_relay_workers set seen_at = now() - interval '2 minutes'")
        done = run("status")
        assert done.exit_code == 1
        assert "2 m ago (stopped)" in done.stdout
        assert "! no worker has reported in the last minute" in done.stdout


# Errors ------------------------------------------------------------------------------------------------


def test_another_key_is_one_line_and_status_2(stack: StackProcess, run: Run) -> None:
    for args in (["dead", "list"], ["status"], ["prune"], ["replay", "--since", "1h"]):
        done = run(*args, SUPABASE_SERVICE_KEY=stack.env["SUPABASE_ANON_KEY"])
        assert (done.exit_code, done.stdout) == (2, "")
        assert "SUPABASE_SERVICE_KEY" in one_line(done.stderr)


def test_the_error_of_an_unmigrated_database_names_the_command(
    stack: StackProcess, conn: Conn, run: Run
) -> None:
    conn.execute("alter function gre_relay_status rename to gre_relay_status_away")
    try:
        conn.execute("notify pgrst, 'reload schema'")
        wait_until(lambda: "unknown function" in run("status").stderr, what="the reload")
        done = run("status")
        assert done.exit_code == 2
        assert "gre-bridge migrate" in one_line(done.stderr)
    finally:
        conn.execute("alter function gre_relay_status_away rename to gre_relay_status")
        conn.execute("notify pgrst, 'reload schema'")
    wait_until(lambda: run("status", "--json").stdout, what="the reload")


def test_a_page_that_meets_a_portals_lock_is_repeated(stack: StackProcess, conn: Conn, run: Run) -> None:
    """The page is repeated until the portal's transaction has ended."""
    send(conn, 1, TEXT)
    kill(conn, 9)
    with stack.db() as portal:
        portal.autocommit = False
        send(portal, 1, TEXT)
        timer = threading.Timer(1.0, portal.commit)
        timer.start()
        assert run("dead", "retry", "--all").stdout == "2 will be retried\n"
        timer.join()
    assert len(drain(conn)) == 2
