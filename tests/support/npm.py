"""Install the npm packages of a folder of the repository, once for all test processes."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import subprocess
from pathlib import Path

from tests.support.programs import missing, need

_INSTALL = ("ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error")


def run(folder: Path, *command: str) -> str:
    """Run a command in `folder` and return its standard output; fail the test if the command fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@functools.cache
def node_modules(folder: Path, oldest: tuple[int, int]) -> Path:
    """Run `npm ci` in `folder`, unless the packages of its lock file are installed there; return `node_modules`.

    `oldest` is the oldest usable version of Node.js. Without it the test is skipped, or fails if `CI` is `true`.
    """
    need("node", "nodejs")
    npm = need("npm", "npm")
    version = run(folder, "node", "--version").strip().lstrip("v")
    if tuple(int(part) for part in version.split(".")) < oldest:
        missing(f"Node.js {version} is too old; {folder.name} needs {oldest[0]}.{oldest[1]} or newer")
    modules = folder / "node_modules"
    stamp = modules / ".lock-hash"
    # Test processes run at the same time: the first one installs, the others wait for it.
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = hashlib.sha256(lock.read()).hexdigest()
        if not stamp.exists() or stamp.read_text() != digest:
            run(folder, npm, *_INSTALL)
            stamp.write_text(digest)
    return modules
