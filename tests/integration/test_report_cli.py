"""`gre-bridge report` and `export` on the embedded stack."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from gre_bridge.exports import COLUMNS
from tests.integration.test_operator_cli import Run, conn, printed, run
from tests.integration.test_outbox import Conn
from tests.unit.test_cli import one_line

__all__ = ["conn", "run"]

EXPORTS = tuple(COLUMNS)


@pytest.fixture(autouse=True)
def talk(conn: Conn) -> None:
    """One answered question, one that is missed, and one that is open."""
    for player in (29, 30, 31):
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', '=1+1')",
            [player],
        )
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, sender_id, message) values (29, 'staff', 's1', 'yes, \"of\ncourse\"')"
    )
    conn.execute("update gre_chat_sessions set status = 'closed' where player_id in (29, 30)")


def test_a_report_in_json_is_the_databases_answer(run: Run, conn: Conn) -> None:
    found = printed(run("report", "--by", "staff", "--from", "2h", "--timezone", "Europe/Berlin", "--json"))
    total = found["total"]
    assert (total["sessions_opened"], total["sessions_closed"], total["missed"], total["dropped"]) == (
        3,
        2,
        1,
        0,
    )
    assert total["messages"] == {"player": 3, "staff": 1, "auto": 0}
    assert total["first_reply"]["n"] == 1
    assert 0 <= total["first_reply"]["max"] < 60
    assert found["timezone"] == "Europe/Berlin"
    assert "s1" in [row["key"] for row in found["rows"]]


def test_a_report_is_a_table_with_its_zone_and_the_total(run: Run) -> None:
    done = run("report", "--from", "2d", "--timezone", "Europe/Berlin")
    assert done.exit_code == 0, done.stderr
    assert "Europe/Berlin" in done.stdout
    assert "first reply time" in done.stdout
    assert "Figures are whole from" in done.stdout
    hours = run("report", "--by", "none", "--from", "1h", "--in-hours", "--basis", "asked")
    assert "in opening hours" in hours.stdout


def test_the_check_counts_again_and_names_what_is_wrong(run: Run, conn: Conn) -> None:
    done = run("report", "--check", "--from", "1h")
    assert (done.exit_code, done.stdout.strip()) == (0, "3 sessions counted again: all figures agree")
    assert printed(run("report", "--check", "--from", "1h", "--json"))["differences"] == []
    conn.execute("update gre_chat_responses set wait_seconds = 777 where answered_at is not null")
    done = run("report", "--check", "--from", "1h")
    assert done.exit_code == 1
    assert "1 differences" in done.stdout
    assert "777" in done.stdout
    assert len(printed(run("report", "--check", "--from", "1h", "--json"), status=1)["differences"]) == 1
    conn.execute("update gre_chat_responses set wait_seconds = 0 where answered_at is not null")
    # As if hours had been packed without these figures.
    conn.execute("update gre.report_packed set until = now()")
    done = run("report", "--check", "--from", "2h")
    assert done.exit_code == 1
    assert "packed reply" in done.stdout
    conn.execute("select gre.report_unpack()")
    assert run("report", "--check", "--from", "2h").exit_code == 0


@pytest.mark.parametrize("what", EXPORTS)
def test_an_export_is_written_whole_for_its_owner_only(run: Run, tmp_path: Path, what: str) -> None:
    target = tmp_path / "rows.ndjson"
    target.write_text("older")
    done = run("export", what, "-o", str(target), "--from", "1h")
    assert done.exit_code == 0, done.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in target.read_text().splitlines()]
    assert done.stderr.strip().endswith(f"{len(rows)} rows written to {target}")
    assert all(list(row) == list(COLUMNS[what]) for row in rows)
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]
    if what == "messages":
        assert [row["message"] for row in rows] == ["=1+1"] * 3 + ['yes, "of\ncourse"']
    if what in ("sessions", "responses"):
        assert len(rows) == 3


def test_a_csv_export_to_standard_output(run: Run) -> None:
    done = run("export", "messages", "-o", "-", "--format", "csv", "--from", "1h")
    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert [row["message"] for row in rows] == ["'=1+1"] * 3 + ['yes, "of\ncourse"']
    assert done.stderr.strip() == "4 rows written"


def test_a_failed_export_leaves_what_was_there(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("older")
    done = run("export", "events", "-o", str(target), SUPABASE_SERVICE_KEY="eyJhbGciOiJIUzI1NiJ9.e30.wrong")
    assert done.exit_code != 0
    assert one_line(done.stderr)
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["report", "--timezone", "Mars/Base"], 2, "--timezone: must be an IANA time zone"),
        (["report", "--from", "soon"], 2, "--from: must be a time"),
        (["report", "--from", "1h", "--to", "2h"], 2, "--from: must be before --to"),
        (["report", "--by", "hour", "--from", "1000d"], 1, "2500 rows"),
        (["export", "events", "-o", "/nowhere/rows.csv"], 2, "--output: No such file"),
        (["export", "events", "-o", "/"], 2, "--output: it is a directory"),
    ],
)
def test_refusals_are_one_line(run: Run, arguments: list[str], status: int, words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == status, done.stderr
    assert words in one_line(done.stderr)


def test_local_dates_are_those_of_the_zone(run: Run) -> None:
    found = printed(
        run("report", "--from", "2026-10-24", "--to", "2026-10-26", "--timezone", "Europe/Berlin", "--json")
    )
    assert [row["start"] for row in found["rows"]] == ["2026-10-23T22:00:00.000Z", "2026-10-24T22:00:00.000Z"]
    assert found["rows"][-1]["end"] == "2026-10-25T23:00:00.000Z"
