"""The migration files that this release ships, and what is said about them.

Pure: reads files and builds values, and never opens a connection; `gre_bridge.migrations.runner` does.
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
"""Versions of the files before 0.1.0, which no later file continues."""

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
        """The file's statements, without their semicolons: what the Supabase CLI keeps in its ledger."""
        parts = [""]
        for token in _TOKEN.finditer(self.sql):
            if token.group() == ";":
                parts.append("")
            else:
                parts[-1] += token.group()
        return [part.strip() for part in parts if part.strip()]

    def matches(self, statements: list[str] | None) -> bool:
        """Whether the ledger's statements are this file's; spacing and semicolons do not count."""
        return statements is None or _bare("".join(statements)) == _bare(self.sql)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One migration and where it stands."""

    version: str
    name: str
    state: State


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What `migrate --status` reports. `installed`: the functions of gre-bridge are there, whatever is recorded."""

    entries: list[Entry]
    installed: bool = False

    @property
    def good(self) -> bool:
        """False when something is pending or drifted."""
        return all(entry.state == "applied" for entry in self.entries)

    @property
    def applied(self) -> bool:
        """Whether nothing is pending; what is applied may be drifted."""
        return all(entry.state != "pending" for entry in self.entries)

    def lines(self) -> list[str]:
        """For people: one line each."""
        note = {"drifted": "  (applied with other text than this release ships)"}
        lines = [f"{e.version}  {e.state:8}  {e.name}{note.get(e.state, '')}" for e in self.entries]
        if self.unrecorded:
            lines.append(
                "installed, but nothing is recorded: gre-bridge migrate --record checks it and records it"
            )
        return lines

    @property
    def unrecorded(self) -> bool:
        """Whether the schema came by other means than the ledger says: a restored dump, a ledger that was repaired."""
        return self.installed and all(entry.state == "pending" for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"good": self.good, **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Something on an adopted table that goes or changes: a policy, a grant, a view or a column."""

    kind: str
    relation: str
    name: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `migrate --dry-run` reports."""

    pending: list[str]
    blockers: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """False when something blocks the adoption."""
        return not self.blockers

    def lines(self) -> list[str]:
        """For people: one line each."""
        verbs = {"policy": "drops policy", "grant": "revokes from"}
        return [
            *(f"cannot adopt: {blocker}" for blocker in self.blockers),
            *(f"applies {name}" for name in self.pending),
            *(f"{verbs.get(c.kind, c.kind)} {c.name} on {c.relation}: {c.detail}" for c in self.changes),
            *(f"closes session {session}" for session in self.closes),
            *self.notes,
        ] or ["nothing to do"]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"good": self.good, **asdict(self)}


def shipped(directory: Path | None = None) -> list[Migration]:
    """The migrations that this release ships, in order; `directory` is another `sql/migrations`."""
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
