"""Rows as NDJSON and CSV: nothing is lost, and no cell of CSV is a formula."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gre_bridge import exports

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "session_id": TEXTS,
            "rev": st.integers(0, 2**53 - 1),
            "staff_id": st.none() | TEXTS,
            "data": st.dictionaries(TEXTS, TEXTS | st.none() | st.booleans(), max_size=3),
        }
    ),
    max_size=5,
)


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


@given(ROWS)
def test_every_text_survives(rows: list[dict[str, Any]]) -> None:
    whole = [dict.fromkeys(exports.COLUMNS["events"]) | row for row in rows]
    lines = exports.encode("events", "ndjson", rows).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == whole
    assert all(tuple(json.loads(line)) == exports.COLUMNS["events"] for line in lines)
    found = read_csv(exports.head("events", "csv") + exports.encode("events", "csv", rows))
    assert len(found) == len(rows)
    for cells, row in zip(found, rows, strict=True):
        assert not [cell for cell in cells.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        for name in ("session_id", "staff_id"):
            text = row[name] or ""
            guarded = text.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert cells[name] == ("'" if guarded else "") + text
        assert int(cells["rev"]) == row["rev"]
        assert json.loads(cells["data"]) == row["data"]


def test_csv_is_that_of_rfc_4180() -> None:
    rows = [
        {"session_id": 's"1', "cycle": 1, "score": 5, "comment": "Quick,\nand friendly", "rated_at": None}
    ]
    assert exports.head("ratings", "csv") == b"session_id,cycle,score,comment,staff_id,rated_at\r\n"
    assert exports.encode("ratings", "csv", rows) == b'"s""1",1,5,"Quick,\nand friendly",,\r\n'
    assert exports.head("ratings", "ndjson") == b""


@pytest.mark.parametrize("what", get_args(exports.ExportList))
def test_each_list_has_columns(what: exports.ExportList) -> None:
    assert len(set(exports.COLUMNS[what])) == len(exports.COLUMNS[what]) > 5
