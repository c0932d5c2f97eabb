"""Tests that measure a time run while no other test runs.

`make test` runs several files at a time. A test with the mark `quiet` waits until the others have finished what they
run, and they wait for it. Its fixtures are set up beside other tests: put into them all that is not measured. The processes agree through two locked files: `running`, which ordinary tests share and a
quiet one has for itself, and `queue`, which a quiet one keeps while it waits, so that no new test starts before it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(directory: Path, *, quiet: bool) -> Iterator[None]:
    """Hold the machine for one test, together with other ordinary ones or, if `quiet`, alone."""
    with (directory / "queue").open("w") as queue, (directory / "running").open("w") as running:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if quiet else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        yield
