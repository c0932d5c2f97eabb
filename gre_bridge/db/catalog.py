"""Reads a database over a direct connection, for `doctor` and `migrate --record`: its catalog and its state.

The catalog (`sql/catalog.sql`) is compared with the one that the migrations make (`sql/expected.json`). Nothing is changed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import psycopg

from gre_bridge.db.postgres import connected
from gre_bridge.db.sql_files import sql_file
from gre_bridge.db.types import Json

Catalog = dict[str, list[str]]
"""Lines that describe objects, by kind: columns, constraints, functions, policies, privileges and so on."""

_OPEN_TO = re.compile(r"^(anon|authenticated) may ")


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that is not as the migrations make it. `kind` is the list of the catalog that it is in."""

    kind: str
    line: str
    missing: bool
    """True if the migrations make the object and the database lacks it; False if only the database has it."""


def read_catalog(connection: psycopg.Connection) -> Catalog:
    """Return the objects of gre-bridge in this database."""
    with connection.transaction():
        connection.execute("set local search_path = public")  # names are printed as in expected.json
        row = connection.execute(sql_file("catalog.sql").read_bytes()).fetchone()
    found: Catalog = row[0] if row and row[0] else {}
    return found


def read_facts(db_url: str, *, timeout: int) -> Json:
    """Return the facts of `sql/doctor.sql`, and under "catalog" the catalog, from one read-only transaction.

    `timeout` in seconds bounds the connection attempt, and again each statement. Raises as `connected` does.
    """
    with connected(db_url, application="gre-bridge doctor", seconds=timeout) as connection:
        connection.read_only = True
        with connection.transaction():
            connection.execute(f"set local statement_timeout = '{timeout}s'")
            row = connection.execute(sql_file("doctor.sql").read_bytes()).fetchone()
            catalog = read_catalog(connection)
    assert row is not None, "the query returns one row"
    return {**row[0], "catalog": catalog}


def expected_catalog() -> Catalog:
    """Return the catalog of a new project after all migrations of this release."""
    expected: Catalog = json.loads(sql_file("expected.json").read_text(encoding="utf-8"))
    return expected


def differences(found: Catalog, expected: Catalog) -> list[Difference]:
    """Return the missing objects, and the additional ones that give somebody access to the chat.

    A project's own columns, indexes, triggers and functions are not differences.
    """
    has_worker = any(line.startswith("gre_worker ") for line in found.get("privileges", ()))
    result = []
    for kind, lines in expected.items():
        present = {_normalize(kind, line) for line in found.get(kind, ())}
        result += [
            Difference(kind, line, missing=True)
            for line in lines
            if _normalize(kind, line) not in present and (has_worker or "gre_worker" not in line)
        ]
    for kind in ("policies", "privileges", "open functions"):
        known = {_normalize(kind, line) for line in expected.get(kind, ())}
        result += [
            Difference(kind, line, missing=False)
            for line in found.get(kind, ())
            if _normalize(kind, line) not in known and (kind != "privileges" or _OPEN_TO.match(line))
        ]
    return result


def _normalize(kind: str, line: str) -> str:
    """Remove from a policy the parentheses, aliases and casts that other versions of PostgreSQL print differently."""
    return re.sub(r"[()\s]| AS \w+|::text", "", line) if kind == "policies" else line
