"""The table of docs/files.md that says where each statement is tested: what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w./]+\.(?:py|ts))`(?: \(([^)]*)\))?")


def test_each_file_and_test_that_the_table_names_exists() -> None:
    _, table = (TESTS.parent / "docs" / "files.md").read_text().split("## What is tested, and where\n")
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20
    for row in rows:
        found = NAMED.findall(row)
        assert found, row
        for path, names in found:
            text = (TESTS / path).read_text()
            for name in re.findall(r"`([^`]+)`", names):
                pattern = r"\w*".join(map(re.escape, name.split("…")))
                assert re.search(rf"(?m)^(async )?(def )?{pattern}\b", text), (path, name)
