"""The files in deploy/ agree with the program: metrics, variables, files, commands, limits."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import jwt
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from typer.main import get_command

from gre_bridge.cli.app import app
from gre_bridge.config.settings import Settings, known_names, load_settings, secret_names, variables
from gre_bridge.daemon.relay_process import RELEASE_TIMEOUT
from gre_bridge.db.relay import SCHEMA_VERSIONS
from gre_bridge.doctor.probes.keys import judge_service_key
from gre_bridge.doctor.probes.local import SPARE_FILES
from gre_bridge.metrics import Metrics
from tests.support.loopback import Reply, serving
from tests.support.programs import need

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
DASHBOARD = json.loads((DEPLOY / "grafana" / "gre-bridge.json").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "gre-bridge.service").read_text()
PRUNE = (DEPLOY / "gre-bridge-prune.service").read_text()
TIMER = (DEPLOY / "gre-bridge-prune.timer").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
ADAPTER = (DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def series() -> dict[str, set[str]]:
    """Every series that the daemon can export, with its labels."""
    found: dict[str, set[str]] = {"gre_log_lines_dropped_total": set(), "gre_breaker_state": {"sink"}}
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter):
            found[f"{metric._name}_total"] = set(metric._labelnames)
        elif isinstance(metric, Gauge):
            found[metric._name] = set(metric._labelnames)
        elif isinstance(metric, Histogram):
            labels = set(metric._labelnames)
            found |= {f"{metric._name}_{part}": labels | {"le"} for part in ("bucket", "count", "sum")}
    return found


def expressions() -> list[str]:
    alerts = re.findall(r"^ +expr: (.+)$", ALERTS, re.MULTILINE)
    alerts += re.findall(r"^ +metricsQuery: (.+)$", ADAPTER, re.MULTILINE)
    return alerts + [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


# Metrics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_in_a_query_is_exported(expression: str) -> None:
    known = series()
    names = re.findall(
        r"\b(?:(?:gre|process)_\w+|up)\b(?!=)", re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)", "", expression)
    )
    measured = {
        sample.name
        for one in ProcessCollector(registry=CollectorRegistry()).collect()
        for sample in one.samples
    }
    assert names and set(names) <= known.keys() | {"up"} | measured
    labels = {"instance", "job", "process"}.union(*(known.get(name, set()) for name in names))
    asked = {
        label for part in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=~?\"", part)
    }
    grouped = {
        label.strip()
        for part in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
        for label in part.split(",")
    }
    assert asked | grouped <= labels
    assert expression.count("(") == expression.count(")")


def test_counters_are_queried_as_rates() -> None:
    for expression in expressions():
        for name in re.findall(r"\bgre_\w+_(?:total|bucket)\b", expression):
            assert re.search(rf"(?:rate|increase)\({name}", expression), expression


def test_every_alert_exists_and_is_explained_in_the_guide() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)
    assert {
        "GreOldestPending",
        "GreDead",
        "GreBreakerOpen",
        "GreNoWorker",
        "GreSchemaMismatch",
        "GreSocketsDropped",
        "GreWorkerDown",
    } <= set(alerts)
    assert len(re.findall(r"^ +expr: ", ALERTS, re.MULTILINE)) == len(alerts)
    sections = re.findall(r'^ +runbook: "docs/operations\.md, section (\w+)"$', ALERTS, re.MULTILINE)
    assert sections == alerts and "example.com" not in ALERTS
    for name in alerts:
        assert f"\n### {name}\n" in OPERATIONS


def test_the_dashboard_has_its_variables_and_no_panel_over_another() -> None:
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24 and not cells & taken
        assert panel["description"]
        taken |= cells


# Variables and commands -----------------------------------------------------------------------------------------


def test_every_named_variable_exists() -> None:
    known = {name for field in Settings.model_fields for name in variables(field)}
    known |= {f"{names[0]}_FILE" for names in secret_names()}
    for text in (DOCKERFILE, UNIT, COMPOSE, OPERATIONS):
        named = set(re.findall(r"\b(?:GRE|SUPABASE|PUSHER|ONESIGNAL)_[A-Z_]*[A-Z]\b", text))
        assert named - {"SUPABASE_JWT_SECRET"} <= known


def test_every_command_that_the_guide_names_exists() -> None:
    named = re.findall(r"`gre-bridge ([a-z][^`]*)`", OPERATIONS)
    assert len(named) > 20
    for line in named:
        command: Any = get_command(app)
        words = line.split()
        while hasattr(command, "commands"):
            if command.invoke_without_command and words[:1] not in [[name] for name in command.commands]:
                break
            assert words and words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


# Docker -----------------------------------------------------------------------------------------------------------


def test_every_copied_source_exists_and_is_not_ignored() -> None:
    kept = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], "gre_bridge", "sql"}
    assert needed <= copied
    assert "uvloop" in project["project"]["optional-dependencies"]


def test_the_image_runs_as_a_user_and_installs_only_locked_packages() -> None:
    final = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in DOCKERFILE and "pip install --quiet --no-index" in DOCKERFILE
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.13-slim@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    instructions = re.sub(r"\\\n", " ", DOCKERFILE)
    known = (
        "ARG",
        "FROM",
        "LABEL",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
        "#",
    )
    assert all(line.startswith(known) for line in instructions.splitlines() if line)


def locked(name: str) -> dict[str, set[str]]:
    """The pins of a lock (name==version), each with its hashes."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if found := re.match(r"[\w.-]+==\S+", line):
            pins[found[0]] = pin = set()
        elif found := re.match(r" +--hash=(sha256:[0-9a-f]{64})", line):
            pin.add(found[1])
        else:
            raise AssertionError(line)
    return pins


def needed(name: str, extras: set[str], found: set[str]) -> set[str]:
    """Return the requirements of an installed distribution on this platform, with theirs."""
    for line in metadata.requires(name) or []:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            wanted = canonicalize_name(one.name)
            if wanted not in found:
                found.add(wanted)
                needed(wanted, one.extras, found)
    return found


def test_the_images_lock_has_all_that_the_daemon_needs_and_no_test_tools() -> None:
    runtime, all_of_it = locked("requirements-runtime.lock"), locked("requirements.lock")
    assert runtime.items() <= all_of_it.items(), "the same versions as those that are tested: make lock"
    names = {pin.partition("==")[0] for pin in runtime}
    assert needed("gre-bridge", {"heic", "uvloop"}, {"hatchling"}) <= names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = project["dependency-groups"]["test"] + project["dependency-groups"]["check"]
    tools += project["project"]["optional-dependencies"]["dev"]
    shared = {"pyjwt"}
    assert not {canonicalize_name(Requirement(tool).name) for tool in tools} & names - shared
    assert "-r requirements-runtime.lock -d /wheels" in DOCKERFILE


def test_the_version_of_the_image_is_that_of_the_release() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE) == [version]
    assert re.findall(r"image: (\S+)", COMPOSE) == [f"gre-bridge:{version}"]
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", DOCKERFILE.rsplit("\nFROM ", 1)[1]))
    assert labels == {"title", "description", "licenses", "version", "revision"}


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (None, 1)])
async def test_the_health_check_of_the_image_agrees_with_healthz(
    status: int | None, exit_status: int
) -> None:
    found = re.search(r"^HEALTHCHECK .*?\bCMD (\[.+\])$", re.sub(r"\\\n", " ", DOCKERFILE), re.MULTILINE)
    assert found
    command = json.loads(found[1])
    assert command[0] == "python"
    asked: list[str] = []

    def answer(request: Any) -> Reply:
        asked.append(request.path)
        return Reply(status or 500, gone=status is None)

    async with serving(answer) as port:
        env = {"GRE_ADMIN_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        done = await asyncio.create_subprocess_exec(
            sys.executable, *command[1:], env=env, stderr=subprocess.DEVNULL
        )
        assert await done.wait() == exit_status
    assert asked == ["/healthz"]


def test_compose_gives_each_service_only_secrets_that_are_declared() -> None:
    declared = set(re.findall(r"^  (\w+): \{file: secrets/\1\}$", COMPOSE, re.MULTILINE))
    files = dict(re.findall(r"(\w+)_FILE: /run/secrets/(\w+)", COMPOSE))
    assert set(files.values()) == declared
    assert {name for name, file in files.items() if name.lower().removeprefix("gre_") == file} == files.keys()
    assert {names[0] for names in secret_names()} == files.keys()
    assert re.search(r"replicas: 2\b", COMPOSE)
    worker = COMPOSE.split("\n  worker:\n")[1].split("\n\n")[0]
    assert "supabase_db_url" not in worker


# systemd ------------------------------------------------------------------------------------------------------------


def unit(name: str, text: str = UNIT) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("text", [UNIT, PRUNE])
def test_the_unit_passes_each_credential_that_it_names(text: str) -> None:
    loaded = {one.partition(":")[0] for one in unit("LoadCredential", text)}
    used = {
        m[2]: m[1] for one in unit("Environment", text) if (m := re.fullmatch(r"(\w+)_FILE=%d/(\w+)", one))
    }
    assert used.keys() == loaded
    assert set(used.values()) <= {names[0] for names in secret_names()}


@pytest.mark.parametrize("text", [UNIT, PRUNE])
def test_the_unit_has_the_secret_of_each_service_in_its_settings(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    settings = tmp_path / "env"
    settings.write_text(
        "SUPABASE_URL=https://chat.example.com\nPUSHER_APP_ID=1\nPUSHER_KEY=key\nPUSHER_CLUSTER=eu\n"
        "ONESIGNAL_APP_ID=00000000-0000-4000-8000-000000000000\n"
    )
    for one in unit("LoadCredential", text):
        file = tmp_path / one.partition(":")[0]
        file.write_text("sb_secret_0123456789")
    for one in unit("Environment", text):
        name, _, value = one.partition("=")
        monkeypatch.setenv(name, value.replace("%d", str(tmp_path)))
    found = load_settings(settings)
    assert found.has_pusher and found.has_onesignal


def test_the_limits_of_the_unit_are_sufficient_for_the_daemon() -> None:
    fields = Settings.model_fields
    [stop] = unit("TimeoutStopSec")
    assert int(stop) > fields["drain_seconds"].default + RELEASE_TIMEOUT
    [files] = unit("LimitNOFILE")
    assert int(files) >= fields["max_sockets"].default + SPARE_FILES
    assert unit("Type") == ["notify"] and unit("Restart") == ["always"] and unit("WatchdogSec") == ["60"]


def test_pruning_is_started_once_a_day_with_a_command_that_exists() -> None:
    [command] = unit("ExecStart", PRUNE)
    path, *arguments = command.split()
    assert unit("ExecStart")[0].split()[0] == path and unit("Type", PRUNE) == ["oneshot"]
    said = get_command(app).commands["prune"].params  # type: ignore[attr-defined]
    assert arguments[0] == "prune"
    assert {word for word in arguments if word.startswith("--")} <= {opt for one in said for opt in one.opts}
    assert unit("OnCalendar", TIMER) == ["*-*-* 03:30:00"] and unit("Persistent", TIMER) == ["true"]
    shared = [
        line
        for line in UNIT.split("DynamicUser=")[1].splitlines()
        if line and not line.startswith(("[", "WantedBy"))
    ]
    assert set(shared) <= set(PRUNE.split("DynamicUser=")[1].splitlines()), "the same confinement"


@pytest.mark.parametrize(("name", "text"), [("gre-bridge", UNIT), ("gre-bridge-prune", PRUNE)])
def test_systemd_verifies_the_unit_and_rates_its_exposure_as_low(
    tmp_path: Path, name: str, text: str
) -> None:
    need("systemd-analyze", "systemd")
    here = tmp_path / f"{name}.service"
    here.write_text(text.replace("/opt/gre-bridge/bin/gre-bridge", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(here)], capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    level = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    assert level and float(level[1]) < 2


# The guide ----------------------------------------------------------------------------------------------------------


def test_doctor_accepts_the_token_that_the_guide_signs() -> None:
    found = re.search(
        r'^SUPABASE_JWT_SECRET=… /opt/gre-bridge/bin/python -c "\n(.+?)"$',
        OPERATIONS,
        re.MULTILINE | re.DOTALL,
    )
    assert found
    secret = "a secret that is long enough to sign with"
    done = subprocess.run(
        [sys.executable, "-c", found[1]], env={"SUPABASE_JWT_SECRET": secret}, capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip
    token = done.stdout.strip()
    assert jwt.decode(token, secret, ["HS256"])["role"] == "gre_worker"
    said = judge_service_key(token, url="https://chat.example.com", now=time.time())
    assert said.status == "ok" and "gre_worker" in said.found


def test_the_table_of_versions_ends_with_this_release() -> None:
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| (\d+)(?: to (\d+))? \| (\d+) \|$", OPERATIONS, re.MULTILINE)
    release, lowest, highest, made = rows[-1]
    assert release == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert range(int(lowest), int(highest or lowest) + 1) == SCHEMA_VERSIONS
    assert int(made) == SCHEMA_VERSIONS[-1]


def test_every_link_of_the_guide_has_a_target() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE)
    }
    for name in re.findall(r"\*(Gre\w+|Scale)\*", OPERATIONS):
        assert name.lower() in headings
    for path in re.findall(r"`(deploy/[\w./-]+)`", OPERATIONS):
        assert (ROOT / path).exists()
