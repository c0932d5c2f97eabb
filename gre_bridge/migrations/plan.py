"""`gre-bridge migrate --dry-run`: lists the changes of the migrations, then applies them and rolls back.

The lists are read in a read-only transaction. The trial applies the migrations in a transaction that is rolled back, so
it locks the chat's tables as long as the migration itself; it acquires the locks in the same way.
"""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from gre_bridge.db.catalog import expected_catalog
from gre_bridge.db.postgres import CANNOT_ADOPT, connected
from gre_bridge.db.sql_files import sql_file
from gre_bridge.errors import BridgeError, TransientError
from gre_bridge.migrations.files import Change, Migration, Plan, shipped
from gre_bridge.migrations.runner import (
    APPLICATION,
    LOCK_TIMEOUT,
    Progress,
    apply_pending,
    forward_notices,
    read_ledger,
    refuse_replaced,
    retry_locks,
)

_COLUMN = re.compile(
    r"(gre_chat_sessions|gre_chat_messages|gre_online_status|push_notifications)\.(\w+) (.+)"
)
_LISTED = re.compile(r"gre-bridge: (dropping policy|revoking|closing session|view) ")


def plan(
    db_url: str,
    *,
    on_progress: Progress | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    directory: Path | None = None,
) -> Plan:
    """Return the changes and blockers of `migrate`. Changes nothing; raises as `migrate` does."""
    with connected(db_url, application=f"{APPLICATION} --dry-run") as connection:
        files = shipped(directory)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            found = _lists(connection, files)
        connection.isolation_level = None
        connection.read_only = None
        if found.pending and not found.blockers:
            if on_progress:
                on_progress(
                    "trying the migrations in a transaction that is rolled back; writes to the chat's tables wait meanwhile"
                )
            _try(connection, files, found, on_progress or _ignore, lock_timeout)
    return found


def _lists(connection: psycopg.Connection, files: list[Migration]) -> Plan:
    ledger = read_ledger(connection)
    refuse_replaced(ledger)
    pending = [m for m in files if m.version not in ledger]
    found = Plan(pending=[f"{m.version}_{m.name}" for m in pending])
    found.blockers.extend(_blockers(connection, pending))
    adopts = any(m.name == "gre_adoption" for m in pending)
    if adopts:
        found.changes.extend(_columns(connection))
    if any(m.name == "gre_access" for m in pending):
        rows = connection.execute(sql_file("adoption_plan.sql").read_bytes()).fetchall()
        found.changes.extend(
            Change(kind=kind, relation=on, name=name, detail=detail) for kind, on, name, detail in rows
        )
    if adopts and not found.blockers:
        found.closes.extend(_closes(connection))
    return found


def _try(
    connection: psycopg.Connection, files: list[Migration], found: Plan, report: Progress, lock_timeout: float
) -> None:
    notes: list[str] = []
    forward_notices(connection, notes.append)

    def work() -> None:
        notes.clear()
        with connection.transaction(force_rollback=True):
            apply_pending(connection, files, wait=0)

    try:
        retry_locks(work, lock_timeout=lock_timeout, report=report)
    except TransientError:
        raise
    except BridgeError as error:
        found.blockers.append(str(error))
    found.notes.extend(note.removeprefix("gre-bridge: ") for note in notes if not _LISTED.match(note))


def _blockers(connection: psycopg.Connection, pending: list[Migration]) -> list[str]:
    found: list[str] = []
    for check in (s for m in pending for s in m.statements if "do $check$" in s):
        try:
            with connection.transaction():
                connection.execute(check.encode())
        except psycopg.Error as error:
            if error.sqlstate != CANNOT_ADOPT:
                raise
            found += (error.diag.message_detail or "").splitlines()
    return found


def _columns(connection: psycopg.Connection) -> list[Change]:
    """Return the columns that are added to existing tables or change their type."""
    present: dict[str, dict[str, str]] = {}
    for relation, name, type_ in connection.execute(
        "select c.relname, a.attname, format_type(a.atttypid, null) from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped"
    ):
        present.setdefault(relation, {})[name] = type_
    changes = []
    for relation, name, type_ in (
        m.groups() for m in map(_COLUMN.fullmatch, expected_catalog()["columns"]) if m
    ):
        has = present.get(relation, {}).get(name)
        if relation in present and has is None:
            changes.append(Change(kind="adds column", relation=relation, name=name, detail=type_))
        elif has not in (None, type_) and (relation, name) != ("push_notifications", "id"):
            changes.append(
                Change(kind="retypes column", relation=relation, name=name, detail=f"{has} to {type_}")
            )
    return changes


def _closes(connection: psycopg.Connection) -> list[str]:
    both = connection.execute(
        "select to_regclass('public.gre_chat_sessions') is not null and to_regclass('public.gre_chat_messages') is not null"
    ).fetchone()
    if not both or not both[0]:
        return []
    connection.execute("set local timezone = 'UTC'")
    rows = connection.execute(sql_file("adoption_sessions.sql").read_bytes())
    return [f"{session} of player {player}" for session, player in rows]


def _ignore(_line: str) -> None:
    pass
