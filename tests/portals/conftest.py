"""Fixtures: `gre-bridge dev` for the portals, and the snippets of docs/portals.md."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from gre_bridge.devstack.keys import Keys
from tests.portals.harness import Guide, World, wait_for
from tests.support.memory import cluster_directory

GUIDE = Path(__file__).parents[2] / "docs" / "portals.md"
_BLOCK = re.compile(r"^```(js|python)\n(?://|#) ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def guide() -> Guide:
    """The snippets of docs/portals.md: each fenced block's first line is a comment with its name."""
    text = GUIDE.read_text()
    found = {(language, name): code for language, name, code in _BLOCK.findall(text)}
    assert len(found) == len(re.findall(r"^```(?:js|python)$", text, re.MULTILINE)), (
        "a block without its own name"
    )
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The running `gre-bridge dev`."""
    folder = tmp_path_factory.mktemp("portals")
    env_file, log = folder / "env", folder / "log"
    command = [sys.executable, "-m", "gre_bridge", "dev", "--port", "0", "--http-port", "0"]
    with cluster_directory() as data, log.open("wb") as output:
        command += ["--data-dir", str(data), "--write-env", str(env_file)]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            wait_for(
                lambda: env_file.exists() or process.poll() is not None, "gre-bridge dev is not ready", 150
            )
            assert process.poll() is None, log.read_text()
            env = {name: value or "" for name, value in dotenv_values(env_file).items()}
            env["PUSHER_AUTH_URL"] = f"http://{env['GRE_HTTP_HOST']}:{env['GRE_HTTP_PORT']}/api/pusher/auth"
            yield World(env=env, keys=Keys.of(data))
        finally:
            process.terminate()
            assert process.wait(60) == 0


@pytest.fixture
def world(stack: World) -> Iterator[World]:
    """The stack; the portals that a test opens are closed after it."""
    yield stack
    stack.close_portals()
