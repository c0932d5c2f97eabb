"""Findings, and the report that shows them: a table for people, JSON for programs. No secret leaves the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


class Status(StrEnum):
    """Severity of a finding. Only FAIL changes the exit status."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


_STYLE = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIPPED: "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` is one line; `seconds` is the measured duration, if one was measured."""

    check: str
    status: Status
    found: str
    fix: str = ""
    seconds: float | None = None


def ok(check: str, found: str, *, seconds: float | None = None) -> Finding:
    """Return a finding without a problem."""
    return Finding(check, Status.OK, found, seconds=seconds)


def warn(check: str, found: str, fix: str) -> Finding:
    """Return a finding that works but needs attention."""
    return Finding(check, Status.WARN, found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """Return a finding that does not work, or will stop working."""
    return Finding(check, Status.FAIL, found, fix)


def skipped(check: str, reason: str) -> Finding:
    """Return a finding for a check that could not be made."""
    return Finding(check, Status.SKIPPED, reason)


def ms(seconds: float) -> str:
    """Format a duration."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


class Report:
    """All findings, in order."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets` are replaced by `***` in every text."""
        self._secrets = sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True)
        self.findings: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Append findings, each text as one line."""
        self.findings += [replace(f, found=self._clean(f.found), fix=self._clean(f.fix)) for f in findings]

    @property
    def good(self) -> bool:
        """True if no check failed."""
        return not any(finding.status is Status.FAIL for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values: {"good", "checks"}."""
        return {"good": self.good, "checks": [asdict(finding) for finding in self.findings]}

    def table(self) -> Table:
        """Return the report as a table; the fix is below the finding."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("check", no_wrap=True)
        table.add_column("")
        table.add_column("found", overflow="fold")
        for finding in self.findings:
            found = Text(finding.found)
            if finding.fix:
                found.append(f"\n→ {finding.fix}", style=_STYLE[finding.status])
            table.add_row(finding.check, Text(finding.status, style=_STYLE[finding.status]), found)
        return table

    def summary(self) -> str:
        """Return the number of findings by status, on one line."""
        counts = {status: sum(f.status is status for f in self.findings) for status in Status}
        parts = [f"{count} {status}" for status, count in counts.items() if count]
        return ", ".join(parts)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())
