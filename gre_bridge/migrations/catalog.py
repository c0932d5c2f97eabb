"""Compares what a database has of gre-bridge with what the migrations make (`sql/catalog.sql`, `sql/expected.json`).

Used by `doctor`, which tells each difference, and by `migrate --record`, which records nothing while there is one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import psycopg

from gre_bridge.migrations.files import sql_file

Catalog = dict[str, list[str]]

_OPEN_TO = re.compile(r"^(anon|authenticated) may ")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the migrations make it. `kind` is the list of the catalog that it is in."""

    kind: str
    line: str
    missing: bool
    """True: the migrations make it and it is not there. False: it is there and the migrations do not make it."""


def catalog(connection: psycopg.Connection) -> Catalog:
    """What this database has."""
    with connection.transaction():
        connection.execute("set local search_path = public")  # so that names are written as in the file
        row = connection.execute(sql_file("catalog.sql").read_bytes()).fetchone()
    found: Catalog = row[0] if row and row[0] else {}
    return found


def expected() -> Catalog:
    """What a new project has after all migrations of this release."""
    wanted: Catalog = json.loads(sql_file("expected.json").read_text(encoding="utf-8"))
    return wanted


def differences(found: Catalog, wanted: Catalog) -> list[Difference]:
    """What is missing, and what is there besides and opens the chat to somebody.

    A project's own columns, indexes, triggers and functions are its own business.
    """
    has_worker = any(line.startswith("gre_worker ") for line in found.get("privileges", ()))
    result = []
    for kind, lines in wanted.items():
        there = {_bare(kind, line) for line in found.get(kind, ())}
        result += [
            Difference(kind, line, missing=True)
            for line in lines
            if _bare(kind, line) not in there and (has_worker or "gre_worker" not in line)
        ]
    for kind in ("policies", "privileges", "open functions"):
        known = {_bare(kind, line) for line in wanted.get(kind, ())}
        result += [
            Difference(kind, line, missing=False)
            for line in found.get(kind, ())
            if _bare(kind, line) not in known and (kind != "privileges" or _OPEN_TO.match(line))
        ]
    return result


def _bare(kind: str, line: str) -> str:
    """A line without what another version of PostgreSQL writes otherwise: parentheses, aliases and casts of a condition."""
    return re.sub(r"[()\s]| AS \w+|::text", "", line) if kind == "policies" else line
