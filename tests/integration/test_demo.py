"""`make demo` as a process: the table that it prints, and its exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from gre_bridge.devstack.demo import SCRIPT, Line, problems
from tests.support.memory import cluster_directory

ROW = re.compile(
    r"│ +(\d+) │ (player|staff) +│ (.+?) +│ +(\d+) │ +([\d.-]+) │ +([\d.-]+) │ +([\d.-]+) │ +([\d.-]+) │"
)


def run(*arguments: str) -> tuple[int, list[tuple[str, ...]], str]:
    """Return the exit status, the cells of the table's rows, and the whole output."""
    with cluster_directory() as directory:
        done = subprocess.run(
            [sys.executable, "-m", "gre_bridge.devstack.demo", *arguments],
            env={**os.environ, "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=400,
            check=False,
        )
    return done.returncode, ROW.findall(done.stdout), done.stdout


def test_the_demo_shows_every_line_of_its_conversation_at_every_hop() -> None:
    status, rows, printed = run()
    assert status == 0, printed
    assert [(who, said) for _, who, said, *_ in rows] == list(SCRIPT)
    assert [row[0] for row in rows] == [row[3] for row in rows] == [str(n) for n in range(1, len(SCRIPT) + 1)]
    for row in rows:
        assert all(float(hop) > 0 for hop in row[4:]), printed
    assert f"All {len(SCRIPT)} lines reached both sinks, in order." in printed


def test_the_demo_fails_and_names_the_missing_line_if_a_sink_refuses_it() -> None:
    refused = '{"pusher": {"mode": "status", "status": 400, "match": "table 4"}}'
    status, rows, printed = run("--wait", "12", "--fault", refused)
    assert status == 1, printed
    first, last = rows[0], rows[-1]
    assert first[6] == "-" and float(first[7]) > 0, printed
    assert re.search(r"pusher did not accept #1\b", printed)
    # It may block its session at Pusher; the other sink is not affected.
    assert "onesignal" not in printed and float(last[7]) > 0, printed


def test_a_line_out_of_order_is_reported() -> None:
    first, second = Line("player", "one", session="s", seq=1), Line("staff", "two", session="s", seq=2)
    in_order, turned = [first.id, second.id], [second.id, first.id]
    assert problems([first, second], {"pusher": in_order, "onesignal": in_order}) == []
    assert problems([first, second], {"pusher": turned}) == ["pusher got seq 1 after seq 2"]
    elsewhere = Line("staff", "two", session="t", seq=2)
    assert problems([first, elsewhere], {"pusher": [elsewhere.id, first.id]}) == []
