"""The command line: exit status 0 good, 1 a problem, 2 usage or configuration; an error is one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import Result
from typer.testing import CliRunner

from gre_bridge import __version__
from gre_bridge.cli.app import app
from gre_bridge.config.settings import Settings
from gre_bridge.daemon import run as daemon
from gre_bridge.errors import ConfigurationError, PermanentError, TransientError

OURS = ("SUPABASE_", "STAFF_PORTAL_", "PUSHER_", "ONESIGNAL_", "GRE_")
SUPABASE = {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_KEY": "service-key-hunter2"}
PUSHER = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "k", "PUSHER_SECRET": "s-hunter2", "PUSHER_CLUSTER": "eu"}


def cli(*args: str, env: dict[str, str] | None = None) -> Result:
    """Run a command in this process; `env` has all variables of gre-bridge."""
    hidden = dict.fromkeys(name for name in os.environ if name.startswith(OURS))
    return CliRunner().invoke(app, list(args), env={**hidden, **(env or {})})


def process(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "gre_bridge", *args],
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("gre_bridge.cli.app.configure_logging", lambda **_: None)
    yield
    structlog.reset_defaults()


def one_line(text: str) -> str:
    """Return the only line of an error."""
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    assert "hunter2" not in text
    return text.strip()


# As a process -----------------------------------------------------------------------------------------------


def test_each_missing_variable_is_one_line_and_status_2() -> None:
    done = process("run")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gre-bridge: SUPABASE_URL: is missing",
        "gre-bridge: SUPABASE_SERVICE_KEY: is missing",
    ]
    assert done.stdout == ""


@pytest.mark.parametrize("options", [[], ["--no-relay"], ["--no-api"]])
@pytest.mark.parametrize("name", ["GRE_HTTP_PORT", "GRE_ADMIN_PORT"])
def test_a_port_that_is_taken_is_one_line_and_status_2(name: str, options: list[str]) -> None:
    if name == "GRE_HTTP_PORT" and "--no-api" in options:
        name = "GRE_ADMIN_PORT"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {**SUPABASE, **PUSHER, "GRE_HTTP_PORT": "0", "GRE_ADMIN_PORT": "0", "GRE_LOG_FORMAT": "json"}
        done = process("run", *options, env={**env, name: port})
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(errors) == 1
    assert errors[0].startswith(f"gre-bridge: {name}: ") and port in errors[0]
    assert "hunter2" not in done.stderr


# In this process --------------------------------------------------------------------------------------------


def test_the_version_is_printed() -> None:
    done = cli("--version")
    assert (done.exit_code, done.stdout) == (0, f"gre-bridge {__version__}\n")


def test_help_lists_the_commands() -> None:
    done = cli("--help")
    assert done.exit_code == 0
    for command in ("run", "dev", "migrate"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "args",
    [["fly"], ["run", "--fast"], ["migrate", "extra"], ["dev", "--port", "many"], ["dev", "--port", "65536"]],
)
def test_wrong_usage_is_status_2(args: list[str]) -> None:
    done = cli(*args, env={**SUPABASE, **PUSHER})
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "option"), [("run", "--env-file"), ("migrate", "--env-file"), ("dev", "--write-env")]
)
def test_every_command_takes_an_env_file_and_dev_writes_one(command: str, option: str) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", cli(command, "--help", env={"COLUMNS": "200"}).stdout)
    assert option in text


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_an_env_file_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    done = cli(command, "--env-file", str(tmp_path / "nothing"))
    assert done.exit_code == 2
    assert "--env-file" in one_line(done.stderr) and "nothing" in done.stderr


def test_no_sink_is_a_configuration_error() -> None:
    done = cli("run", env=SUPABASE)
    assert done.exit_code == 2
    assert "PUSHER_APP_ID" in one_line(done.stderr) and "ONESIGNAL_APP_ID" in done.stderr


def test_nothing_to_run_is_one_line() -> None:
    done = cli("run", "--no-api", "--no-relay", env={**SUPABASE, **PUSHER})
    assert done.exit_code == 2
    assert one_line(done.stderr) == "gre-bridge: --no-api and --no-relay: nothing is left to run"


def test_an_incomplete_set_of_credentials_is_one_line() -> None:
    done = cli("run", env={**SUPABASE, **PUSHER, "PUSHER_SECRET": ""})
    assert done.exit_code == 2
    assert one_line(done.stderr) == "gre-bridge: PUSHER_SECRET: is missing, though PUSHER_APP_ID is set"


def test_the_env_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Settings, bool, bool]] = []

    def note(settings: Settings, *, relay: bool, api: bool) -> int:
        seen.append((settings, relay, api))
        return 0

    monkeypatch.setattr(daemon, "run", note)
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in {**SUPABASE, **PUSHER}.items()))
    assert cli("run", "--env-file", str(file)).exit_code == 0
    assert cli("run", "--env-file", str(file), "--no-api", env={"GRE_MAX_ATTEMPTS": "9"}).exit_code == 0
    assert cli("run", "--env-file", str(file), "--no-relay").exit_code == 0
    assert [(relay, api) for _, relay, api in seen] == [(True, True), (True, False), (False, True)]
    assert [settings.max_attempts for settings, _, _ in seen] == [5, 9, 5]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigurationError("GRE_HTTP_PORT: cannot listen"), 2),
        (TransientError("the database went away"), 1),
        (PermanentError("refused"), 1),
        (
            ExceptionGroup(
                "tasks", [ExceptionGroup("inner", [ConfigurationError("GRE_HTTP_PORT: cannot listen")])]
            ),
            2,
        ),
        (ExceptionGroup("tasks", [TransientError("the database went away")]), 1),
    ],
    ids=["configuration", "transient", "permanent", "deep in groups", "in a group"],
)
def test_the_error_that_ends_the_daemon_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(daemon, "run", run)
    done = cli("run", env={**SUPABASE, **PUSHER})
    assert done.exit_code == status
    assert one_line(done.stderr).startswith("gre-bridge: ")


@pytest.mark.parametrize("option", [[], ["--dry-run"], ["--status"]])
def test_migrate_without_an_address_is_status_2(option: list[str]) -> None:
    done = cli("migrate", *option)
    assert done.exit_code == 2
    assert one_line(done.stderr) == "gre-bridge: SUPABASE_DB_URL: is missing"


@pytest.mark.parametrize("option", [[], ["--dry-run"], ["--status", "--json"]])
def test_migrate_without_a_database_is_status_1_and_no_password(option: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = cli(
        "migrate",
        *option,
        env={"SUPABASE_DB_URL": f"postgresql://postgres:hunter2@127.0.0.1:{port}/postgres"},
    )
    assert done.exit_code == 1
    assert one_line(done.stderr).startswith("gre-bridge: ")
    assert done.stdout == ""


def test_migrate_with_a_malformed_address_is_status_2() -> None:
    done = cli("migrate", env={"SUPABASE_DB_URL": "postgresql://postgres:hunter2@db/postgres?nonsense=1"})
    assert done.exit_code == 2
    assert "SUPABASE_DB_URL" in one_line(done.stderr)
