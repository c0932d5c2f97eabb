"""`gre-bridge dev` as a process: the embedded stack with a daemon beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from gre_bridge.devstack.keys import Keys
from tests.support.memory import cluster_directory
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class DevProcess:
    """A running `gre-bridge dev`."""

    env: dict[str, str]
    """The variables that it wrote."""
    keys: Keys

    @property
    def daemon(self) -> str:
        """The daemon's address."""
        return f"http://{self.env['GRE_HTTP_HOST']}:{self.env['GRE_HTTP_PORT']}"


@contextlib.contextmanager
def dev_process(folder: Path) -> Iterator[DevProcess]:
    """Run `gre-bridge dev` on free ports, with its log in `folder`; it must end with status 0."""
    env_file, log = folder / "env", folder / "log"
    command = [sys.executable, "-m", "gre_bridge", "dev", "--port", "0", "--http-port", "0"]
    with cluster_directory() as data, log.open("wb") as output:
        command += ["--data-dir", str(data), "--write-env", str(env_file)]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            wait_until(lambda: env_file.exists() or process.poll() is not None, 150, what="gre-bridge dev")
            assert process.poll() is None, log.read_text()
            env = {name: value or "" for name, value in dotenv_values(env_file).items()}
            yield DevProcess(env, Keys.of(data))
        finally:
            process.terminate()
            assert process.wait(60) == 0
