"""The committed build of the client is up to date and small enough, and its TypeScript tests pass."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.portals.harness import node_modules
from tests.support import npm

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "client"
NODE = (20, 19)
"""The oldest Node.js that Vite 8 runs on."""


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the client's source, with its packages installed."""
    npm.node_modules(SOURCE, NODE)
    return SOURCE


def test_the_committed_build_is_up_to_date_and_small(source: Path, tmp_path: Path) -> None:
    built = tmp_path / "dist"
    npm.run(source, "node_modules/.bin/vite", "build", "--outDir", str(built), "--emptyOutDir")
    npm.run(source, "npm", "run", "types", "--", "--outDir", str(built / "types"))
    committed = SOURCE / "dist"
    assert _contents(built) == _contents(committed), f"{committed} is out of date: run `make client`"
    assert re.search(r"at once \d+ of 8192 bytes", npm.run(source, "node", "size.mjs", str(built)))


def test_a_client_that_is_too_large_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "index.js").write_text('import "./part.js"\nimport("./later.js")\n')
    (tmp_path / "later.js").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "part.js").write_text(
        "".join(f"export const a{n} = {n * 7919 % 10007}\n" for n in range(800))
    )
    npm.run(source, "node", "size.mjs", str(tmp_path))
    (tmp_path / "part.js").write_text(
        "".join(f"export const a{n} = {n * 7919 % 10007}\n" for n in range(4000))
    )
    with pytest.raises(AssertionError, match="larger than 8192 bytes"):
        npm.run(source, "node", "size.mjs", str(tmp_path))


def test_the_build_is_imported_without_a_browser(source: Path) -> None:
    """Plain Node.js has no `window`: the import uses nothing of a browser, and no package."""
    script = (
        "import { createChat } from '@gre-bridge/client';"
        "const chat = createChat({ url: 'http://chat.test', getToken: () => null });"
        "console.log(chat.status().connection)"
    )
    assert npm.run(source, "node", "--input-type=module", "--eval", script).strip() == "idle"


def test_a_chat_is_closed_while_its_socket_is_opened_in_nodejs(source: Path) -> None:
    """The package `ws`, unlike browsers, throws the error of such a socket if nobody listens."""
    script = (
        "import net from 'node:net'; import ws from 'ws'; globalThis.WebSocket = ws;"
        f"const {{ createChat }} = await import('{(source / 'dist/index.js').as_uri()}');"
        "const silent = net.createServer(() => { chat.close(); silent.close(); console.log('closed') });"
        "await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));"
        "const url = `http://127.0.0.1:${silent.address().port}`;"
        "const chat = createChat({ url, getToken: () => 'a.e30.c', storage: null });"
        "chat.connect()"
    )
    portals = node_modules().parent  # it has `ws`
    assert npm.run(portals, "node", "--input-type=module", "--eval", script).strip() == "closed"


def test_the_typescript_tests_pass(source: Path) -> None:
    assert "passed" in npm.run(source, "npm", "test")


def test_the_lock_file_contains_no_addresses_and_versions_are_exact() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    assert "resolved" not in {
        key for package in lock["packages"].values() if not package.get("link") for key in package
    }
    manifest = json.loads((SOURCE / "package.json").read_text())
    assert "dependencies" not in manifest
    exact = r"(npm:[a-z-]+@)?\d+\.\d+\.\d+"
    assert all(re.fullmatch(exact, version) for version in manifest["devDependencies"].values())
