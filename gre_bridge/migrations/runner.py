"""Applies the SQL migrations, records those that were applied by other means, and reports the state of each.

The ledger is the Supabase CLI's (`supabase_migrations.schema_migrations`, as its `pkg/migration` creates and fills
it), so `gre-bridge migrate` and `supabase db push` recognise each other's work. This module connects to PostgreSQL
directly, and contains no SQL of the schema: that is in `sql/`. It does not print: functions return values with
`lines()`, and call `on_progress` with one line for each step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import errors as pg
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from gre_bridge.db.catalog import differences, expected_catalog, read_catalog
from gre_bridge.db.postgres import connected, explain_pg
from gre_bridge.errors import ConfigurationError, TransientError
from gre_bridge.migrations.files import REPLACED, Entry, Migration, State, Status, shipped

T = TypeVar("T")
Progress = Callable[[str], None]

LOCK_TIMEOUT = 60.0
"""Seconds for which `migrate` retries while other transactions hold locks that it needs."""
APPLICATION = "gre-bridge migrate"

_LOCK_KEY = 0x6772655F62726467
_PREFIX = "gre-bridge: "
"""Prefix of the notices and errors that the migrations raise for people."""


def migrate(
    db_url: str,
    *,
    on_progress: Progress | None = None,
    wait: float = 60.0,
    lock_timeout: float = LOCK_TIMEOUT,
    directory: Path | None = None,
) -> list[str]:
    """Apply all pending migrations and their ledger rows in one transaction.

    Returns the versions applied. `wait` is how long to wait for another migration to finish, `lock_timeout` how long to
    retry for locks, both in seconds. PostgREST is notified to reload the schema even if nothing was pending. Raises
    ConfigurationError if the project cannot be adopted or the role lacks a privilege, TransientError if a later attempt
    may succeed (no connection, locks), PermanentError if a migration itself fails.
    """
    report: Progress = on_progress or _ignore
    files = shipped(directory)
    with connected(db_url, application=APPLICATION) as connection:
        forward_notices(connection, report)
        recorded = read_ledger(connection)
        refuse_replaced(recorded)
        for migration in files:
            if migration.version in recorded and not migration.matches(recorded[migration.version]):
                report(
                    f"warning: {migration.version}_{migration.name} was applied with another text; it is left unchanged"
                )

        def work() -> list[Migration]:
            with connection.transaction():
                return apply_pending(connection, files, wait)

        applied = retry_locks(work, lock_timeout=lock_timeout, report=report)
        for migration in applied:
            report(f"applied {migration.version}_{migration.name}")
        adopt_storage(connection, report)
        connection.execute("notify pgrst, 'reload schema'")
    return [migration.version for migration in applied]


def adopt_storage(connection: psycopg.Connection, report: Progress) -> None:
    """Set up the chat's bucket in a project whose Storage is newer than the schema; done again, it changes nothing.

    A refusal is reported and raises nothing: the chat works without files.
    """
    row = connection.execute("select to_regprocedure('public.gre_storage_adopt()') is not null").fetchone()
    if row and row[0]:
        try:
            connection.execute("select public.gre_storage_adopt()")
        except psycopg.Error as error:
            report(
                f"warning: could not set up Storage, so the chat takes no files: {error.diag.message_primary}"
            )


def record(db_url: str, *, wait: float = 60.0, directory: Path | None = None) -> list[str]:
    """Record every file in the ledger without applying it, if the schema equals the one that the files make.

    For a schema that was made by other means: a restored dump, psql, or a repaired ledger. Returns the versions
    recorded. Raises ConfigurationError with every difference if the schema differs.
    """
    with connected(db_url, application=APPLICATION) as connection, connection.transaction():
        acquire_migration_lock(connection, wait)
        _create_ledger(connection)
        ledger = read_ledger(connection)
        refuse_replaced(ledger)
        missing = [m for m in shipped(directory) if m.version not in ledger]
        # Doctor reports a project's own functions that read the chat: they are not part of the files.
        differing = [
            item
            for item in differences(read_catalog(connection), expected_catalog())
            if item.kind != "open functions"
        ]
        if missing and differing:
            raise ConfigurationError(
                "nothing was recorded: the schema differs from the migrations: "
                + "; ".join(
                    f"missing: {item.line}" if item.missing else f"additional: {item.line}"
                    for item in differing
                )
            )
        for migration in missing:
            _record(connection, migration)
    return [migration.version for migration in missing]


def status(db_url: str, *, directory: Path | None = None) -> Status:
    """Return the state of each migration. Changes nothing; raises as `migrate` does."""
    with connected(db_url, application=APPLICATION) as connection:
        ledger = read_ledger(connection)
        refuse_replaced(ledger)
        row = connection.execute(
            "select to_regprocedure('public.gre_schema_version()') is not null"
        ).fetchone()
    entries = []
    for m in shipped(directory):
        state: State = "pending"
        if m.version in ledger:
            state = "applied" if m.matches(ledger[m.version]) else "drifted"
        entries.append(Entry(version=m.version, name=m.name, state=state))
    return Status(entries=entries, installed=bool(row and row[0]))


def apply_pending(connection: psycopg.Connection, files: list[Migration], wait: float) -> list[Migration]:
    """Apply and record, in the caller's transaction, the files that are not in the ledger. Returns them.

    Raises psycopg.Error for locks (see `retry_locks`), otherwise as `migrate`, with the name of the file in the text.
    """
    acquire_migration_lock(connection, wait)
    _create_ledger(connection)
    ledger = read_ledger(connection)
    refuse_replaced(ledger)
    pending = [m for m in files if m.version not in ledger]
    for migration in pending:
        try:
            connection.execute(migration.sql.encode())
            _record(connection, migration)
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            raise
        except psycopg.Error as error:
            raise explain_pg(f"{migration.name} failed, and nothing was changed", error) from None
    return pending


class _LockedError(Exception):
    """A lock is held by another transaction, which the text names."""


def retry_locks(work: Callable[[], T], *, lock_timeout: float, report: Progress) -> T:
    """Run `work`, a transaction that needs locks, in many short attempts: other writes never queue behind a long wait.

    Raises TransientError after `lock_timeout` seconds.
    """
    reported: set[str] = set()

    def attempt() -> T:
        try:
            return work()
        except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
            text = error.diag.message_primary or ""
            from_migration = text.startswith(_PREFIX)
            raise _LockedError(
                text.removeprefix(_PREFIX) if from_migration else "another transaction locks a table"
            ) from None

    def report_wait(state: RetryCallState) -> None:
        text = str(state.outcome.exception()) if state.outcome else ""
        if text not in reported:
            reported.add(text)
            report(f"{text}; trying again")

    retrying = Retrying(
        retry=retry_if_exception_type(_LockedError),
        stop=stop_after_delay(lock_timeout),
        wait=wait_random_exponential(multiplier=0.2, max=3.0),
        before_sleep=report_wait,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except _LockedError as error:
        raise TransientError(
            f"{error}; nothing was changed in {lock_timeout:g} s: end the transactions that hold the locks, or try at a quieter time",
            code="55P03",
        ) from None


def forward_notices(connection: psycopg.Connection, report: Progress) -> None:
    """Pass the notices that the migrations raise for people to `report`."""

    def on_notice(notice: psycopg.errors.Diagnostic) -> None:
        if (notice.message_primary or "").startswith(_PREFIX):
            report(notice.message_primary or "")

    connection.add_notice_handler(on_notice)


def acquire_migration_lock(connection: psycopg.Connection, wait: float) -> None:
    """Wait up to `wait` seconds for other migrations to finish. Raises TransientError if one still runs.

    The transaction holds the lock, so it also works through a transaction pooler.
    """
    deadline = time.monotonic() + wait
    while True:
        row = connection.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK_KEY,)).fetchone()
        if row and row[0]:
            return
        if time.monotonic() >= deadline:
            raise TransientError(f"another migration is running (waited {wait:g} s)")
        time.sleep(0.1)


def _create_ledger(connection: psycopg.Connection) -> None:
    """Create the table as the Supabase CLI does, unless it exists."""
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
        "set local lock_timeout = '2s';"
        "create schema if not exists supabase_migrations;"
        "create table if not exists supabase_migrations.schema_migrations (version text not null primary key);"
        "alter table supabase_migrations.schema_migrations add column if not exists statements text[],"
        " add column if not exists name text"
    )


def _record(connection: psycopg.Connection, migration: Migration) -> None:
    connection.execute(
        "insert into supabase_migrations.schema_migrations (version, name, statements) values (%s, %s, %s)",
        (migration.version, migration.name, migration.statements),
    )


def read_ledger(connection: psycopg.Connection) -> dict[str, list[str] | None]:
    """Return the recorded versions with their statements (None if an old CLI recorded none)."""
    exists = connection.execute(
        "select to_regclass('supabase_migrations.schema_migrations') is not null"
    ).fetchone()
    if not exists or not exists[0]:
        return {}
    rows = connection.execute(
        "select m.version, to_jsonb(m) -> 'statements' from supabase_migrations.schema_migrations m"
    )
    return dict(rows.fetchall())


def refuse_replaced(ledger: Iterable[str]) -> None:
    """Raise ConfigurationError for a database with migrations from before 0.1.0, which this release replaces."""
    if found := sorted(REPLACED.intersection(ledger)):
        raise ConfigurationError(
            f"this database has migrations from before 0.1.0 ({found[0]} to {found[-1]}), which cannot be upgraded:"
            " start with a new database, or restore a backup that was made before them"
        )


def _ignore(_line: str) -> None:
    pass
