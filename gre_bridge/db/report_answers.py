"""The JSON that the database's functions for figures answer, as typed dictionaries, and the answer that a job reads.

Conventions as in `answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict


class Report(TypedDict):
    """Answer of `gre_report`; the rows are those of docs/reports.md."""

    timezone: str
    by: str
    basis: str | None
    in_hours: bool
    whole_from: str | None
    rows: list[dict[str, Any]]
    total: dict[str, Any]


class CountedPage(TypedDict):
    """Answer of `gre_report_sessions`: what a cell of a report counts; `next` is a cursor."""

    items: list[dict[str, Any]]
    next: str | None


class LiveFigures(TypedDict):
    """Answer of `gre_report_live`; `longest_wait` is in seconds."""

    at: str
    staff: list[dict[str, Any]]
    open: int
    waiting: int
    unassigned: int
    longest_wait: int | None


class ReportCheck(TypedDict):
    """Answer of `gre_report_check`; `next` is a cursor."""

    checked: int
    incomplete: int
    differences: list[dict[str, Any]]
    next: str | None


class ExportPage(TypedDict):
    """Answer of `gre_export`; `next` is a cursor."""

    rows: list[dict[str, Any]]
    next: str | None


@dataclass(frozen=True, slots=True)
class Packing:
    """The answer of `gre_report_pack_v1`: whether something was packed, and whether more waits."""

    packed: bool
    more: bool

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> Packing:
        """Read the jsonb of `gre_report_pack_v1`."""
        return cls(packed=bool(answer["packed"]), more=bool(answer["more"]))
