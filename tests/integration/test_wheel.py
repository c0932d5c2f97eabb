"""The installed wheel: it contains the SQL and the pages, and its command migrates, serves and relays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.support.loopback import HTTP, NO_TLS, PATIENT
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only the installed wheel."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", wheels, ROOT], check=True, timeout=120)
    (wheel,) = wheels.glob("gre_bridge-*.whl")
    subprocess.run([*pip, "install", *options, "--target", target, wheel], check=True, timeout=120)
    return target


def test_it_contains_every_file_of_the_package_and_the_sql(installed: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "gre_bridge", "sql"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = {
        name.replace("sql/", "gre_bridge/_sql/", 1) if name.startswith("sql/") else name for name in tracked
    }
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {n for n in found if n.startswith("gre_bridge/") and "__pycache__" not in n} == expected
    assert not [n for n in found if n.startswith("tests")]


def test_its_command_migrates_serves_the_console_and_relays(installed: Path, tmp_path: Path) -> None:
    env_file, log = tmp_path / "env", tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "gre_bridge",
        "dev",
        "--port",
        "0",
        "--data-dir",
        "data",
        "--write-env",
        env_file,
    ]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    try:
        wait_until(lambda: env_file.exists() or process.poll() is not None, 90, what="the env file")
        assert process.poll() is None, log.read_text()
        values = dict(
            line.split("=", 1)
            for line in env_file.read_text().splitlines()
            if line and not line.startswith("#")
        )
        env = {name: value.strip("'\"") for name, value in values.items()}
        shown = subprocess.run(
            [sys.executable, "-c", "import gre_bridge; print(gre_bridge.__file__)"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert Path(shown.strip()).is_relative_to(installed)
        key = env["SUPABASE_SERVICE_KEY"]
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        with httpx.Client(
            base_url=env["SUPABASE_URL"], headers=headers, timeout=PATIENT, trust_env=False, verify=NO_TLS
        ) as stack:
            row = {"player_id": 29, "sender": "player", "message": "from a wheel"}
            assert stack.post("/rest/v1/gre_chat_messages", json=row).status_code == 201
            wait_until(
                lambda: "from a wheel" in stack.get("/__stack/received", params={"sink": "pusher"}).text,
                30,
                what="the event",
            )
        page = HTTP.get(f"http://127.0.0.1:{env['GRE_HTTP_PORT']}/console/", timeout=60)
        assert page.status_code == 200
        assert "<script" in page.text
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
