"""The order in which the test processes of `make test` get the files, and which files they get in parts."""

from __future__ import annotations

import re

import pytest
from xdist.scheduler import LoadFileScheduling

SLOW = (
    "client/test_client_pages", "client/test_samples_in_chromium", "portals/test_samples", "browser/test_element.py",
    "integration/test_processes", "browser/test_files.py", "api/test_attacks", "browser/test_desk_walk", "client/",
    "browser/", "integration/test_relay", "portals/", "console/", "api/test_socket", "integration/test_demo", "api/",
    "chaos/", "integration/",
)  # fmt: skip
"""Files by their duration, longest first: a long file that starts last would prolong the run.

Those that wait most of their time alternate with those that compute, since they run beside each other. `chaos/` judges times, and
comes when no builds and browsers run beside it.
"""
DIVIDED = {
    "tests/client/test_client_pages.py": re.compile(r"\[(a page of staff|[^-\]]+)"),
    "tests/client/test_samples_in_chromium.py": re.compile(r"\[(\w+)"),
}
"""Files of many minutes. Tests whose parameters begin with the same subject, or the same sample, are a part.

What shares a folder that is built in, such as a sample, is one part.
"""


def rank(name: str) -> int:
    """Return the place of a file, relative to `tests`, among the others: 0 is the first."""
    return next((n for n, prefix in enumerate(SLOW) if name.startswith(prefix)), len(SLOW))


def part(nodeid: str) -> str:
    """Return the name of what one process gets as a whole: the test's file, or its part of the file."""
    path = nodeid.partition("::")[0]
    if path not in DIVIDED:
        return path
    subject = DIVIDED[path].search(nodeid)
    return f"{path}::{subject[1] if subject else ''}"


class Scheduling(LoadFileScheduling):
    """Gives each process one file, or one part of a file, after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return part(nodeid)


def scheduling(config: pytest.Config, log: object) -> Scheduling | None:
    """Return how `--dist loadfile` is done here; None for another distribution, which is left to xdist."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None  # type: ignore[arg-type]
