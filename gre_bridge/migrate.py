"""Applies the SQL migrations, says what they would do, and compares them with what was applied.

The ledger is the Supabase CLI's (`supabase_migrations.schema_migrations`, as its `pkg/migration` creates
and fills it), so `gre-bridge migrate` and `supabase db push` see each other's work. This room talks to
PostgreSQL directly, never through PostgREST, and holds no SQL of the schema: that is in `sql/`. It must
not print; it returns values with `lines()` and calls `on_progress` with one line for each step.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import errors as pg

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.migrations import Change, Entry, Migration, Plan, State, Status, shipped, sql_file

Progress = Callable[[str], None]

CANNOT_ADOPT = "GRE01"
"""SQLSTATE by which the migrations refuse a project; its DETAIL has one line for each reason."""

_LOCK_KEY = 0x6772655F62726467
_LOCK_RETRIES = (0.5, 1.0, 2.0, 4.0)
_SHAPE = re.compile(r"^  \('(\w+)', '(\w+)', '([\w \[\]]+)'\)", re.MULTILINE)


def migrate(
    db_url: str, *, on_progress: Progress | None = None, wait: float = 60.0, directory: Path | None = None
) -> list[str]:
    """Applies what is pending, each file in one transaction together with its ledger row.

    Returns the versions applied. `wait` bounds, in seconds, the wait for another migration to finish.
    Raises ConfigurationError when the project cannot be adopted or the role may not, TransientError when
    a later attempt may succeed (no connection, locks), PermanentError when a migration itself fails.
    What was applied before an error stays applied; a repeated call goes on from there.
    """
    say: Progress = on_progress or _silent
    applied: list[str] = []
    with _connected(db_url) as connection:
        connection.add_notice_handler(
            lambda notice: (
                say(notice.message_primary or "")
                if (notice.message_primary or "").startswith("gre-bridge:")
                else None
            )
        )
        ledger = _ledger(connection)
        for migration in shipped(directory):
            if migration.version in ledger:
                if not migration.matches(ledger[migration.version]):
                    say(
                        f"warning: {migration.version}_{migration.name} was applied with other text; left as it is"
                    )
            elif _apply(connection, migration, wait, say):
                applied.append(migration.version)
                say(f"applied {migration.version}_{migration.name}")
    return applied


def status(db_url: str, *, directory: Path | None = None) -> Status:
    """Where each migration stands; changes nothing. Raises as `migrate` does."""
    with _connected(db_url) as connection:
        ledger = _ledger(connection)
    entries = []
    for m in shipped(directory):
        state: State = "pending"
        if m.version in ledger:
            state = "applied" if m.matches(ledger[m.version]) else "drifted"
        entries.append(Entry(version=m.version, name=m.name, state=state))
    return Status(entries=entries)


def plan(db_url: str, *, directory: Path | None = None) -> Plan:
    """What `migrate` would do, found in a read-only transaction. Raises as `migrate` does."""
    with _connected(db_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            ledger = _ledger(connection)
            pending = [m for m in shipped(directory) if m.version not in ledger]
            names = [f"{m.version}_{m.name}" for m in pending]
            tables = next((m for m in pending if m.name == "gre_tables"), None)
            changes: list[Change] = []
            closes: list[str] = []
            blockers = _blockers(connection, tables) if tables else []
            if tables:
                changes += _columns(connection, tables)
            if any(m.name == "gre_access" for m in pending):
                changes += [
                    Change(kind=kind, relation=relation, name=name, detail=detail)
                    for kind, relation, name, detail in connection.execute(
                        sql_file("adoption_plan.sql").read_bytes()
                    )
                ]
            if tables and not blockers:
                closes = _closes(connection)
            return Plan(pending=names, blockers=blockers, changes=changes, closes=closes)


def _blockers(connection: psycopg.Connection, tables: Migration) -> list[str]:
    check = next(s for s in tables.statements if "do $check$" in s)
    try:
        with connection.transaction():
            connection.execute(check.encode())
    except psycopg.Error as error:
        if error.sqlstate != CANNOT_ADOPT:
            raise
        return (error.diag.message_detail or "").splitlines()
    return []


def _columns(connection: psycopg.Connection, tables: Migration) -> list[Change]:
    """Columns that existing tables get, and columns whose type changes."""
    present: dict[str, dict[str, str]] = {}
    for relation, name, type_ in connection.execute(
        "select c.relname, a.attname, format_type(a.atttypid, null) from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped"
    ):
        present.setdefault(relation, {})[name] = type_
    changes = []
    for relation, name, type_ in _SHAPE.findall(tables.sql):
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


def _apply(connection: psycopg.Connection, migration: Migration, wait: float, say: Progress) -> bool:
    """Applies one file unless another migration has meanwhile. Waits and tries again when locks are in the way."""
    for pause in (*_LOCK_RETRIES, None):
        try:
            with connection.transaction():
                _lock(connection, wait)
                _create_ledger(connection)
                if migration.version in _ledger(connection):
                    return False
                connection.execute(migration.sql.encode())
                connection.execute(
                    "insert into supabase_migrations.schema_migrations (version, name, statements) values (%s, %s, %s)",
                    (migration.version, migration.name, migration.statements),
                )
                return True
        except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
            if pause is None:
                raise TransientError(
                    f"{migration.name}: a table stayed locked by others; try again at a quieter time",
                    code=error.sqlstate or "",
                ) from None
            say(f"{migration.name}: a table is locked by others, trying again")
            time.sleep(pause)
        except psycopg.Error as error:
            raise _explained(f"{migration.name} failed and left nothing behind", error) from None
    raise AssertionError("unreachable")


def _lock(connection: psycopg.Connection, wait: float) -> None:
    """One migration at a time. Held by the transaction, so that it works through a transaction pooler too."""
    deadline = time.monotonic() + wait
    while True:
        row = connection.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK_KEY,)).fetchone()
        if row and row[0]:
            return
        if time.monotonic() >= deadline:
            raise TransientError(f"another migration is running (waited {wait:g} s)")
        time.sleep(0.1)


def _create_ledger(connection: psycopg.Connection) -> None:
    """The table as the Supabase CLI makes it; one that it made is left alone."""
    found = {
        name
        for (name,) in connection.execute(
            "select attname from pg_attribute where attrelid = to_regclass('supabase_migrations.schema_migrations')"
            " and attnum > 0 and not attisdropped"
        )
    }
    if {"version", "statements", "name"} <= found:
        return
    connection.execute(
        "set local lock_timeout = '5s';"
        "create schema if not exists supabase_migrations;"
        "create table if not exists supabase_migrations.schema_migrations (version text not null primary key);"
        "alter table supabase_migrations.schema_migrations add column if not exists statements text[],"
        " add column if not exists name text"
    )


def _ledger(connection: psycopg.Connection) -> dict[str, list[str] | None]:
    """Versions recorded, each with its statements (None where an old CLI kept none)."""
    exists = connection.execute(
        "select to_regclass('supabase_migrations.schema_migrations') is not null"
    ).fetchone()
    if not exists or not exists[0]:
        return {}
    rows = connection.execute(
        "select m.version, to_jsonb(m) -> 'statements' from supabase_migrations.schema_migrations m"
    )
    return dict(rows.fetchall())


def _explained(what: str, error: psycopg.Error) -> BridgeError:
    text, code = error.diag.message_primary or type(error).__name__, error.sqlstate or ""
    if code == CANNOT_ADOPT:
        return ConfigurationError(text, code=code)
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigurationError(f"{what}: the role of SUPABASE_DB_URL may not do this: {text}", code=code)
    if isinstance(error, psycopg.OperationalError):
        return TransientError(f"{what}: {text}", code=code)
    return PermanentError(f"{what}: {text}", code=code)


def _silent(_line: str) -> None:
    pass


@contextmanager
def _connected(db_url: str) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(
            db_url,
            autocommit=True,
            connect_timeout=10,
            prepare_threshold=None,
            application_name="gre-bridge migrate",
        )
    except psycopg.ProgrammingError:
        raise ConfigurationError("SUPABASE_DB_URL is not a PostgreSQL address") from None
    except psycopg.OperationalError as error:
        text = str(error).strip().splitlines()[-1]
        if text.startswith(("invalid", "missing")):  # libpq quotes what it dislikes of an address
            raise ConfigurationError("SUPABASE_DB_URL is not a PostgreSQL address") from None
        wrong = re.search(
            r"authentication failed|does not exist|no pg_hba|not translate|not resolve|password", text
        )
        raise (ConfigurationError if wrong else TransientError)(
            f"cannot connect to the database: {text}"
        ) from None
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise _explained("the database", error) from None
