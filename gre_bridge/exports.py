"""Rows of an export as NDJSON or CSV, with the columns in a fixed order. The rows are those of `gre_export`.

CSV is that of RFC 4180 in UTF-8: a header, CRLF, quotes where they are needed. A text that a spreadsheet would take for a
formula gets a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

ExportList = Literal["sessions", "messages", "responses", "events", "ratings", "assignments"]
ExportFormat = Literal["ndjson", "csv"]

COLUMNS: Mapping[ExportList, tuple[str, ...]] = {
    "sessions": (
        "session_id", "cycle", "player_id", "player_name", "player_key", "status", "assigned_staff_id", "opened_at",
        "opened_staff_id", "asked_at", "staff_at", "closed_at", "closed_by", "closed_staff_id", "close_seconds",
        "close_open_seconds", "missed", "dropped", "rating_asked",
    ),
    "messages": (
        "id", "session_id", "seq", "player_id", "player_name", "sender", "sender_id", "sender_name", "origin", "status",
        "message", "attachment_ids", "created_at", "timestamp",
    ),
    "responses": (
        "session_id", "cycle", "n", "first", "asked_seq", "asked_at", "due_at", "ended", "ended_at", "answered_seq",
        "answered_at", "staff_id", "wait_seconds", "open_seconds",
    ),
    "events": ("session_id", "rev", "at", "after_seq", "kind", "staff_id", "by_staff_id", "data"),
    "ratings": ("session_id", "cycle", "score", "comment", "staff_id", "rated_at"),
    "assignments": (
        "session_id", "n", "staff_id", "how", "by_staff_id", "after_seq", "started_at", "ended_at", "end_how", "open_seconds",
    ),
}  # fmt: skip
"""The columns of each list, in order."""
TIMES: Mapping[ExportList, str] = {
    "sessions": "opened_at", "messages": "created_at", "responses": "asked_at", "events": "at", "ratings": "rated_at",
    "assignments": "started_at",
}  # fmt: skip
"""The column by which the rows of each list are in order."""
MEDIA_TYPES: Mapping[ExportFormat, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""


def head(what: ExportList, form: ExportFormat) -> bytes:
    """Return the bytes before the first row."""
    return _csv([COLUMNS[what]]) if form == "csv" else b""


def encode(what: ExportList, form: ExportFormat, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the bytes of some rows. A column that a row lacks is null."""
    columns = COLUMNS[what]
    if form == "csv":
        return _csv([[_cell(row.get(name)) for name in columns] for row in rows])
    lines = (
        orjson.dumps({name: row.get(name) for name in columns}, option=orjson.OPT_APPEND_NEWLINE)
        for row in rows
    )
    return b"".join(lines)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, bool | dict | list):
        return orjson.dumps(value).decode()
    return str(value)
