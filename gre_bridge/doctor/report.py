"""What the doctor found: findings that name their fix, for people as a table and for programs as JSON.

Nothing is looked at here. Whatever text comes in, no secret goes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


class Status(StrEnum):
    """How bad it is. Only FAIL changes the exit status."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


_STYLE = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIPPED: "dim"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is one line, `seconds` the time of a hop where one was measured."""

    check: str
    status: Status
    found: str
    fix: str = ""
    seconds: float | None = None


def ok(check: str, found: str, *, seconds: float | None = None) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, found, seconds=seconds)


def warn(check: str, found: str, fix: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(check, Status.WARN, found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """It does not work, or will not."""
    return Finding(check, Status.FAIL, found, fix)


def skipped(check: str, why: str) -> Finding:
    """It could not be looked at."""
    return Finding(check, Status.SKIPPED, why)


def ms(seconds: float) -> str:
    """A time, as people read it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


class Report:
    """All findings, in order, without the secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets` are blanked wherever they turn up."""
        self._secrets = sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True)
        self.findings: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings, on one line each."""
        self.findings += [replace(f, found=self._clean(f.found), fix=self._clean(f.fix)) for f in findings]

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return not any(finding.status is Status.FAIL for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"good": self.good, "checks": [asdict(finding) for finding in self.findings]}

    def table(self) -> Table:
        """For people: the fix stands under what was found."""
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
        """One line."""
        counts = {status: sum(f.status is status for f in self.findings) for status in Status}
        said = [f"{count} {status}" for status, count in counts.items() if count]
        return ", ".join(said)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())
