"""The committed build and REST types are up to date, and the TypeScript tests pass."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import npm

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "console"
NODE = (20, 19)
"""The oldest Node.js that Vite 8 runs on."""
BUILT = {
    "vite.config.js": ROOT / "gre_bridge/console",
    "vite.try.config.js": ROOT / "gre_bridge/devstack/try",
}


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the console's source, with its packages installed."""
    npm.node_modules(SOURCE, NODE)
    return SOURCE


def test_the_committed_build_is_up_to_date(source: Path, tmp_path: Path) -> None:
    npm.run(source, "npm", "run", "check")
    for config, committed in BUILT.items():
        folder = tmp_path / committed.name / "out"
        npm.run(
            source, "node_modules/.bin/vite", "build", "--config", config, "--outDir", str(folder), "--emptyOutDir"
        )  # fmt: skip
        assert _contents(folder) == _contents(committed), f"{committed} is out of date: run `make console`"


def test_the_committed_rest_types_are_up_to_date(source: Path, tmp_path: Path) -> None:
    written = tmp_path / "openapi.d.ts"
    npm.run(source, "node", "types.mjs", str(written))
    committed = SOURCE / "src/openapi.d.ts"
    assert written.read_text() == committed.read_text(), f"{committed} is out of date: run `make console`"


def test_the_typescript_tests_pass(source: Path) -> None:
    assert "passed" in npm.run(source, "npm", "test")


def test_the_lock_file_contains_no_addresses_and_versions_are_exact() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages and all(
        "integrity" in package and "resolved" not in package for package in packages.values()
    )
    manifest = json.loads((SOURCE / "package.json").read_text())
    assert list(manifest["dependencies"]) == ["preact", "uplot"]
    versions = {**manifest["dependencies"], **manifest["devDependencies"]}
    exact = r"(npm:[a-z-]+@)?\d+\.\d+\.\d+"
    assert all(re.fullmatch(exact, version) for version in versions.values())


def test_no_source_writes_html_and_no_page_has_inline_code() -> None:
    for path in [*SOURCE.glob("src/**/*.ts*"), *SOURCE.glob("try/*.ts")]:
        text = path.read_text()
        assert not re.search(
            r"dangerouslySetInnerHTML|innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", text
        )
    for folder in BUILT.values():
        page = (folder / "index.html").read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
