"""The operator's commands without a database: arguments, refusals and output."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from gre_bridge.cli import render
from gre_bridge.cli.commands import common as desk
from gre_bridge.errors import ConfigurationError
from tests.unit.test_cli import SUPABASE, cli, one_line

ID = "11111111-2222-3333-4444-555555555555"
COMMANDS = [
    ["dead", "list"], ["dead", "show", ID], ["dead", "retry", "--all"], ["dead", "drop", ID], ["status"],
    ["replay", "--since", "2h"], ["reconcile"], ["expire", "--before", "2h"], ["prune"],
]  # fmt: skip


# Arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259200), ("1.5h", 5400), (" 0s ", 0)])  # fmt: skip
def test_durations(text: str, value: float) -> None:
    assert desk.seconds(text, "--keep") == value


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "2w", "1e3s", "nan", "9" * 400 + "d", "99999999d", "2h30m"])  # fmt: skip
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--keep: must be a duration"):
        desk.seconds(text, "--keep")


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-22T10:00Z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22T10:00", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22 10:00:00.5+08:00", "2026-11-22T10:00:00.500000+08:00"),
        ("2026-11-22", "2026-11-22T00:00:00+00:00"),
    ],
)
def test_times(text: str, iso: str) -> None:
    assert desk.moment(text, "--since") == iso


def test_a_duration_counts_back_from_now() -> None:
    found = datetime.fromisoformat(desk.moment("2h", "--since"))
    assert abs(datetime.now(UTC) - timedelta(hours=2) - found) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "22.11.2026", "10:00", "99999999d", "-2h", "2026-11-22T10:00Q"])  # fmt: skip
def test_invalid_times(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--since: must be a time like"):
        desk.moment(text, "--since")


# Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_each_missing_variable_is_one_line_and_status_2(args: list[str]) -> None:
    done = cli(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    missing = ("SUPABASE_URL", "SUPABASE_SERVICE_KEY")
    assert done.stderr.splitlines() == [f"gre-bridge: {name}: is missing" for name in missing]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_an_unreachable_database_is_one_line_and_status_1(args: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for extra in ([], ["--json"]):
        done = cli(*args, *extra, env={**SUPABASE, "SUPABASE_URL": f"http://127.0.0.1:{port}"})
        assert (done.exit_code, done.stdout) == (1, "")
        assert one_line(done.stderr).startswith("gre-bridge: gre_relay_")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["dead", "list", "--older-than", "soon"], "--older-than: must be a duration"),
        (["dead", "retry", "--older-than", "-1h"], "--older-than: must be a duration"),
        (["dead", "retry"], "give ids, a filter, or --all"),
        (["dead", "drop"], "give ids, a filter, or --all"),
        (["replay"], "--since or --session: one is required"),
        (["replay", "--sink", "pusher", "--until", "1h"], "--since or --session: one is required"),
        (["replay", "--since", "whenever"], "--since: must be a time"),
        (["replay", "--since", "2h", "--until", "99999999999d"], "--until: must be a time"),
        (["expire", "--before", "then"], "--before: must be a time"),
        (["prune", "--keep", "for ever"], "--keep: must be a duration"),
        (["prune", "--keep", "0s"], "--keep: must be at least 1h"),
        (["prune", "--keep", "59m"], "--keep: must be at least 1h"),
        (["status", "--env-file", "/nothing/there"], "--env-file: cannot read /nothing/there"),
    ],
)
def test_an_error_on_the_command_line_is_one_line_and_status_2(args: list[str], words: str) -> None:
    done = cli(*args, env=SUPABASE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith(f"gre-bridge: {words}")


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["dead", "list", "--sink", "carrier-pigeon"], "--sink"),
        (["dead", "list", "--limit", "0"], "--limit"),
        (["dead", "show", "7"], "delivery"),
        (["dead", "retry", "all"], "ids"),
        (["dead", "drop", "--session", "none"], "--session"),
        (["replay", "--since", "2h", "--sink", "apns"], "--sink"),
        (["expire"], "--before"),
    ],
)
def test_usage_is_status_2_and_names_the_option(args: list[str], word: str) -> None:
    done = cli(*args, env=SUPABASE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert word in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_every_command_takes_an_env_file_and_prints_json(args: list[str]) -> None:
    names = [word for word in args if word.isalpha()]
    text = re.sub(r"\x1b\[[0-9;]*m", "", cli(*names, "--help", env={"COLUMNS": "200"}).stdout)
    assert "--env-file" in text
    assert "--json" in text


def test_the_command_line_imports_only_what_it_needs() -> None:
    code = "import sys, gre_bridge.cli.app; print([m for m in ('aiohttp', 'rich.live', 'realtime', 'uvicorn', 'psycopg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Output ------------------------------------------------------------------------------------------------


def worker(**changes: Any) -> dict[str, Any]:
    info = {
        "realtime": {"state": "live", "healthy": True, "detail": ""},
        "sinks": {name: {"breaker": "closed", "error": None} for name in ("pusher", "onesignal")},
    }
    return {"id": ID, "host": "one", "version": "1", "started_at": "2026-11-22T10:00:00.000Z", "seen": 3.0, "info": info} | changes  # fmt: skip


def sink(name: str = "pusher", **changes: Any) -> dict[str, Any]:
    return {"sink": name, "enabled": True, "pending": 0, "oldest_age": None, "dead": 0, "lanes_waiting": 0,
            "lanes_leased": 0, "lanes_blocked": 0, "rate": 0} | changes  # fmt: skip


def found(**changes: Any) -> dict[str, Any]:
    return {"now": "2026-11-22T12:00:00.123456+00:00", "sinks": [sink(), sink("onesignal")], "blocked": [],
            "workers": [worker()]} | changes  # fmt: skip


def shown(status: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=200, markup=False, highlight=False, emoji=False).print(render.status_view(status))
    return out.getvalue()


def test_a_sound_status_has_no_problems() -> None:
    assert render.problems(found()) == []
    assert "!" not in shown(found())


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (found(workers=[]), "no worker has reported in the last minute"),
        (found(workers=[worker(seen=61)]), "no worker has reported in the last minute"),
        (
            found(workers=[worker(info={"sinks": {"pusher": {"breaker": "closed"}}, "realtime": {"healthy": True}})]),
            "onesignal: the database writes deliveries for it, but no worker sends them",
        ),
        (found(sinks=[sink(pending=4, oldest_age=7200.0)]), "pusher: the oldest delivery has been pending for 2 h"),
        (found(sinks=[sink(dead=2)]), "pusher: 2 dead letters (gre-bridge dead list)"),
        (
            found(workers=[worker(info={**worker()["info"], "sinks": {"pusher": {"breaker": "open", "error": "HTTP 500\x1b[2J"}, "onesignal": {"breaker": "closed"}}})]),
            "pusher: HTTP 500 [2J (one)",
        ),
        (
            found(workers=[worker(info={**worker()["info"], "realtime": {"healthy": False, "detail": "refused"}})]),
            "Realtime: no wake-ups arrive, refused (one)",
        ),
    ],
)  # fmt: skip
def test_each_problem_is_shown(status: dict[str, Any], problem: str) -> None:
    assert render.problems(status) == [problem]
    assert f"! {problem}" in shown(status)


def test_a_worker_that_died_is_no_problem_while_another_lives() -> None:
    status = found(workers=[worker(), worker(host="two", seen=300.0, info={})])
    assert render.problems(status) == []
    assert "5 m ago (stopped)" in shown(status)


def test_a_worker_that_has_just_started_may_still_be_joining() -> None:
    joining = worker(
        started_at="2026-11-22T11:59:50.000Z", info={**worker()["info"], "realtime": {"healthy": False}}
    )
    assert render.problems(found(workers=[joining])) == []
    killed = joining | {"started_at": "2026-11-22T11:59:00.000Z", "seen": 50.0}
    assert render.problems(found(workers=[worker(), killed])) == []
    deaf = joining | {"started_at": "2026-11-22T11:59:00.000Z"}
    assert render.problems(found(workers=[worker(), deaf])) == [
        "Realtime: no wake-ups arrive, no reason (one)"
    ]


def test_a_disabled_sink_needs_no_worker() -> None:
    only = worker(info={"sinks": {"pusher": {"breaker": "closed"}}, "realtime": {"healthy": True}})
    assert render.problems(found(sinks=[sink(), sink("onesignal", enabled=False)], workers=[only])) == []


def test_the_status_shows_the_time_that_a_backlog_takes() -> None:
    text = shown(
        found(sinks=[sink(pending=6000, oldest_age=90.0, rate=10.0, lanes_waiting=7, lanes_blocked=1)])
    )
    (line,) = [line for line in text.splitlines() if line.strip().startswith("pusher ")]
    assert line.split() == ["pusher", "6000", "90.0", "s", "10/s", "10", "m", "7", "1", "0"]


def test_blocked_sessions_show_the_error_for_any_answer() -> None:
    lane = {"sink": "pusher", "lane_key": ID, "retry_in": 12.3, "attempts": 2, "error": "400: [/red] data[name]\x07 :smile:",
            "event": "message", "since": "x"}  # fmt: skip
    text = shown(found(blocked=[lane]))
    assert ID in text
    assert "12.3 s" in text
    assert "400: [/red] data[name]  :smile:" in text


def test_dead_letters_keep_their_ids_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.delenv("COLUMNS", raising=False)
    letter = {"id": ID, "sink": "onesignal", "event": "message", "attempts": 5, "died_at": "2026-11-22T10:00:00.000Z",
              "error": "400: " + "[/x] " * 60}  # fmt: skip
    render.console().print(render.dead_table([letter, {**letter, "error": None}]))
    text = capsys.readouterr().out
    assert text.count(ID) == 2
    assert "\x1b" not in text
