"""The samples of client/samples, built as portals build them: their page shows each message once and in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.browser.world import WITHIN, World
from tests.support import npm
from tests.support.loopback import HTTP, free_port
from tests.support.waiting import wait_until

CLIENT = Path(__file__).parents[2] / "client"
NODE = (20, 19)
"""The oldest Node.js that Vite 8 runs on."""
ASHA = "player:29"
VITE = "node_modules/vite/bin/vite.js"
NEXT = "node_modules/next/dist/bin/next"
MADE_BY_NEXT = (".next", "next-env.d.ts")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as it would be published, built from its source."""
    npm.node_modules(CLIENT, NODE)
    folder = tmp_path_factory.mktemp("client")
    shutil.copy(CLIENT / "package.json", folder)
    npm.run(CLIENT, "node", VITE, "build", "--outDir", str(folder / "dist"), "--emptyOutDir")
    npm.run(CLIENT, "npm", "run", "types", "--", "--outDir", str(folder / "dist/types"))
    return folder


def _installed(name: str, package: Path) -> Path:
    """A sample with its packages, and with the client that was just built."""
    folder = CLIENT / "samples" / name
    copied = npm.node_modules(folder, NODE) / "@gre-bridge/client"
    shutil.rmtree(copied)
    shutil.copytree(package, copied)
    return folder


@contextmanager
def _served(folder: Path, environment: dict[str, str], *command: str) -> Iterator[str]:
    """Run a server of a sample on a free port; yield its address, as `localhost`, whose pages the daemon allows."""
    port = free_port()
    with subprocess.Popen(
        ["node", *command, "--port", str(port)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        address = f"http://localhost:{port}"

        def answers() -> bool:
            assert server.poll() is None, f"the server of {folder.name} has ended"
            with suppress(httpx.HTTPError):
                return HTTP.get(address).status_code == 200
            return False

        try:
            wait_until(answers, what=f"the server of {folder.name}")
            yield address
        finally:
            server.terminate()


def _run(folder: Path, environment: dict[str, str], *command: str) -> None:
    npm.run(folder, "env", *(f"{name}={value}" for name, value in environment.items()), *command)


@pytest.fixture(params=["production", "development"])
def vite_page(request: pytest.FixtureRequest, project: World, package: Path, tmp_path: Path) -> Iterator[str]:
    """The sample for Vite. In a development build, React's StrictMode mounts each component twice."""
    folder = _installed("vite", package)
    out = ("--outDir", str(tmp_path / "dist"))
    environment = {
        "NODE_ENV": request.param,
        "VITE_CHAT_URL": project.console,
        "CHAT_TOKEN": project.token(ASHA),
    }
    npm.run(folder, "npm", "run", "check")
    _run(folder, environment, "node", VITE, "build", *out, "--emptyOutDir")
    with _served(folder, environment, VITE, "preview", *out, "--strictPort") as address:
        yield address


@pytest.fixture
def next_page(project: World, package: Path) -> Iterator[str]:
    """The sample for Next.js, which renders the page on the server first. Its build checks the types, too."""
    folder = _installed("next", package)
    environment = {
        "NODE_ENV": "production",
        "NEXT_TELEMETRY_DISABLED": "1",
        "NEXT_PUBLIC_CHAT_URL": project.console,
        "CHAT_TOKEN": project.token(ASHA),
    }
    _run(folder, environment, "node", NEXT, "build")
    with _served(folder, environment, NEXT, "start") as address:
        yield address
    for name in MADE_BY_NEXT:
        made = folder / name
        shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)


def _converse(world: World, browser: Browser, address: str) -> None:
    """Write, be answered, lose the connection, write and be answered meanwhile, and reload."""
    context = browser.new_context()
    context.set_default_timeout(WITHIN)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # React reports differences between the server's page and the browser's, and its warnings, as errors.
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    sockets: list[WebSocketRoute] = []

    def connect(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket(re.compile("/ws$"), connect)

    def say(text: str) -> None:
        page.get_by_label("Message").fill(text)
        page.get_by_label("Message").press("Enter")

    shown = page.locator("li")
    world.write(29, "Hello", "Asha")
    page.goto(address)
    expect(page.get_by_role("status")).to_have_text("live")
    assert len(sockets) == 1
    say("Is table 4 open?")
    expect(shown).to_have_text(["Asha: Hello", "Asha: Is table 4 open?"])
    world.reply(29, "It is.")
    expect(shown).to_have_text(["Asha: Hello", "Asha: Is table 4 open?", "Sue: It is."])
    assert errors == []

    sockets[-1].close(code=1012)
    world.reply(29, "At eight?")
    say("For four?")
    expect(shown).to_have_count(5)
    page.wait_for_function(
        "[...document.querySelectorAll('li')].every((line) => !line.innerText.endsWith('…'))"
    )
    rows = world.sql("select sender_name, message from gre_chat_messages order by seq")
    stored = [f"{row['sender_name']}: {row['message']}" for row in rows]
    expect(shown).to_have_text(stored)
    page.reload()
    expect(shown).to_have_text(stored)
    context.close()


def test_the_lock_files_of_the_samples_contain_no_addresses() -> None:
    for name in ("vite", "next"):
        lock = json.loads((CLIENT / "samples" / name / "package-lock.json").read_text())
        found = {package["resolved"] for package in lock["packages"].values() if "resolved" in package}
        assert found == {"file:../.."}


def test_the_sample_for_vite_loses_nothing(world: World, browser: Browser, vite_page: str) -> None:
    _converse(world, browser, vite_page)


def test_the_sample_for_nextjs_loses_nothing(world: World, browser: Browser, next_page: str) -> None:
    _converse(world, browser, next_page)
