"""What is committed under gre_bridge/ is what the console's source gives, byte for byte."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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


@functools.cache
def _npm() -> str:
    """npm; skips the test where Node.js is missing or too old."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip(f"Node.js {NODE[0]}.{NODE[1]} or newer with npm is not here: the console cannot be built")
    said = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    version = tuple(int(part) for part in said.strip().lstrip("v").split("."))
    if version < NODE:
        pytest.skip(f"Node.js {said.strip()} is here, Vite needs {NODE[0]}.{NODE[1]} or newer")
    return npm


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def test_the_committed_files_are_what_the_source_gives(tmp_path: Path) -> None:
    npm = _npm()
    source = tmp_path / "console"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("node_modules"))
    _run(source, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    _run(source, npm, "run", "check")
    for config, committed in BUILT.items():
        folder = tmp_path / committed.name / "out"
        _run(
            source,
            npm,
            "exec",
            "--",
            "vite",
            "build",
            "--config",
            config,
            "--outDir",
            str(folder),
            "--emptyOutDir",
        )
        assert _contents(folder) == _contents(committed), f"{committed} is old: run `make console`"


def test_the_lock_names_no_address_and_the_packages_are_exact() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages and all(
        "integrity" in package and "resolved" not in package for package in packages.values()
    )
    given = json.loads((SOURCE / "package.json").read_text())
    assert list(given["dependencies"]) == ["preact"]
    versions = {**given["dependencies"], **given["devDependencies"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())


def test_no_view_writes_html_and_nothing_inline_is_built() -> None:
    for path in [*SOURCE.glob("src/**/*.ts*"), *SOURCE.glob("try/*.ts")]:
        text = path.read_text()
        assert not re.search(
            r"dangerouslySetInnerHTML|innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", text
        )
    for folder in BUILT.values():
        page = (folder / "index.html").read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
