"""`gre-bridge dev` for the portals: the stack and the daemon as a portal developer runs them, and the guide's back end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from gre_bridge.devstack.keys import Keys
from tests.portals.harness import Guide, World, node_modules, wait_for

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
    """The stack with its daemon, both processes of their own."""
    folder = tmp_path_factory.mktemp("portals")
    env_file, log = folder / "env", folder / "log"
    command = [sys.executable, "-m", "gre_bridge", "dev", "--port", "0", "--http-port", "0"]
    command += ["--data-dir", str(folder / "data"), "--env-file", str(env_file)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            wait_for(
                lambda: env_file.exists() or process.poll() is not None, "gre-bridge dev is not ready", 90
            )
            assert process.poll() is None, log.read_text()
            env = {name: value or "" for name, value in dotenv_values(env_file).items()}
            yield World(env=env, keys=Keys.of(folder / "data"))
        finally:
            process.terminate()
            assert process.wait(40) == 0


@pytest.fixture(scope="module")
def signing(stack: World, guide: Guide, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The back end of the guide that signs private channels."""
    node_modules()
    script = tmp_path_factory.mktemp("backend") / "backend.mjs"
    script.write_text(guide["js", "back end: sign private channels"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(["node", str(script)], env={**os.environ, **stack.env, "PORT": str(port)})
    try:
        stack.env["PUSHER_AUTH_URL"] = url = f"http://127.0.0.1:{port}/pusher/auth"
        wait_for(lambda: _answers(url, process), "the back end does not answer")
        yield
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the back end ended"
    try:
        return httpx.post(url, timeout=5).status_code == 403
    except httpx.TransportError:
        return False


@pytest.fixture
def world(stack: World, signing: None) -> Iterator[World]:
    """The stack and the signing back end; the portals that a test opens are closed after it."""
    yield stack
    stack.close_portals()
