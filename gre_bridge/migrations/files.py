"""The migration files of this release, and reports about them as values.

This module reads files and never connects to a database; `gre_bridge.migrations.runner` does.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gre_bridge.db.sql_files import sql_file
from gre_bridge.errors import ConfigurationError

State = Literal["applied", "pending", "drifted"]

REPLACED = frozenset(
    [
        "20261122100000",
        "20261122100050",
        "20261122100100",
        "20261122100200",
        "20261122100300",
        "20261122100400",
        "20261122120000",
        "20261122130000",
        "20261122150000",
        "20261122160000",
        "20261122170000",
    ]
)
"""Versions of the files before 0.1.0, which this release replaces."""

_FILE = re.compile(r"^(\d+)_(.+)\.sql$")
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$|;|[^;'"$/-]+|.""", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One file of `sql/migrations`."""

    version: str
    name: str
    sql: str

    @property
    def statements(self) -> list[str]:
        """The statements without semicolons, as the Supabase CLI records them in its ledger."""
        parts = [""]
        for token in _TOKEN.finditer(self.sql):
            if token.group() == ";":
                parts.append("")
            else:
                parts[-1] += token.group()
        return [part.strip() for part in parts if part.strip()]

    def matches(self, statements: list[str] | None) -> bool:
        """Return True if the ledger's statements equal this file's; white space and semicolons are ignored."""
        return statements is None or _bare("".join(statements)) == _bare(self.sql)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One migration and its state."""

    version: str
    name: str
    state: State


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """The report of `migrate --status`. `installed`: the database has gre-bridge's functions, recorded or not."""

    entries: list[Entry]
    installed: bool = False

    @property
    def good(self) -> bool:
        """True if no migration is pending or drifted."""
        return all(entry.state == "applied" for entry in self.entries)

    @property
    def applied(self) -> bool:
        """True if no migration is pending; an applied one may be drifted."""
        return all(entry.state != "pending" for entry in self.entries)

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        note = {"drifted": "  (applied with a text that differs from this release's)"}
        lines = [f"{e.version}  {e.state:8}  {e.name}{note.get(e.state, '')}" for e in self.entries]
        if self.unrecorded:
            lines.append("installed, but not recorded: gre-bridge migrate --record checks and records it")
        return lines

    @property
    def unrecorded(self) -> bool:
        """True if the schema exists but no migration is recorded: a restored dump, or a repaired ledger."""
        return self.installed and all(entry.state == "pending" for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"good": self.good, **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A policy, grant, view or column of an adopted table that is dropped or changed."""

    kind: str
    relation: str
    name: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The report of `migrate --dry-run`."""

    pending: list[str]
    blockers: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """True if nothing blocks the adoption."""
        return not self.blockers

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        verbs = {"policy": "drops policy", "grant": "revokes from"}
        return [
            *(f"cannot adopt: {blocker}" for blocker in self.blockers),
            *(f"applies {name}" for name in self.pending),
            *(f"{verbs.get(c.kind, c.kind)} {c.name} on {c.relation}: {c.detail}" for c in self.changes),
            *(f"closes session {session}" for session in self.closes),
            *self.notes,
        ] or ["nothing to do"]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"good": self.good, **asdict(self)}


def shipped(directory: Path | None = None) -> list[Migration]:
    """Return the migrations of this release in order; `directory` replaces `sql/migrations`."""
    files = [
        (path, _FILE.match(path.name)) for path in sorted((directory or sql_file("migrations")).glob("*.sql"))
    ]
    found = [
        Migration(version=m[1], name=m[2], sql=path.read_text(encoding="utf-8")) for path, m in files if m
    ]
    if not found:
        raise ConfigurationError("no migrations found: the installation is incomplete")
    return found


def _bare(sql: str) -> str:
    return re.sub(r"[\s;]+", "", sql)
