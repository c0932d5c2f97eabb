"""Applies the SQL migrations, records those that came by other means, and says where each stands.

The ledger is the Supabase CLI's (`supabase_migrations.schema_migrations`, as its `pkg/migration` creates
and fills it), so `gre-bridge migrate` and `supabase db push` see each other's work. This room talks to
PostgreSQL directly, never through PostgREST, and holds no SQL of the schema: that is in `sql/`. It must
not print; it returns values with `lines()` and calls `on_progress` with one line for each step.
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
from gre_bridge.db.postgres import connected, explained
from gre_bridge.errors import ConfigurationError, TransientError
from gre_bridge.migrations.files import REPLACED, Entry, Migration, State, Status, shipped

T = TypeVar("T")
Progress = Callable[[str], None]

PATIENCE = 60.0
"""Seconds for which locks that others hold are asked for, again and again."""
APPLICATION = "gre-bridge migrate"

_LOCK_KEY = 0x6772655F62726467
_OURS = "gre-bridge: "


def migrate(
    db_url: str,
    *,
    on_progress: Progress | None = None,
    wait: float = 60.0,
    patience: float = PATIENCE,
    directory: Path | None = None,
) -> list[str]:
    """Applies all that is pending, together with its ledger rows, in one transaction: all of it or nothing.

    Returns the versions applied. `wait` bounds, in seconds, the wait for another migration to finish,
    `patience` the wait for locks. PostgREST is told to read the schema again, whatever was applied.
    Raises ConfigurationError when the project cannot be adopted or the role may not, TransientError when
    a later attempt may succeed (no connection, locks), PermanentError when a migration itself fails.
    """
    say: Progress = on_progress or _silent
    files = shipped(directory)
    with connected(db_url, application=APPLICATION) as connection:
        tell_notices(connection, say)
        recorded = read_ledger(connection)
        refuse_replaced(recorded)
        for migration in files:
            if migration.version in recorded and not migration.matches(recorded[migration.version]):
                say(
                    f"warning: {migration.version}_{migration.name} was applied with other text; left as it is"
                )

        def work() -> list[Migration]:
            with connection.transaction():
                return apply_pending(connection, files, wait)

        applied = with_locks(work, patience=patience, say=say)
        for migration in applied:
            say(f"applied {migration.version}_{migration.name}")
        connection.execute("notify pgrst, 'reload schema'")
    return [migration.version for migration in applied]


def record(db_url: str, *, wait: float = 60.0, directory: Path | None = None) -> list[str]:
    """Enters every file in the ledger without applying it, after it has checked that the schema is what the files make.

    For a schema that came by other means: a restored dump, `psql`, or a ledger that was repaired. Returns the
    versions recorded. Raises ConfigurationError with every difference when the schema is another.
    """
    with connected(db_url, application=APPLICATION) as connection, connection.transaction():
        take_turn(connection, wait)
        _create_ledger(connection)
        ledger = read_ledger(connection)
        refuse_replaced(ledger)
        missing = [m for m in shipped(directory) if m.version not in ledger]
        # A project's own functions that read the chat are doctor's to report: the files do not make them.
        wrong = [
            one
            for one in differences(read_catalog(connection), expected_catalog())
            if one.kind != "open functions"
        ]
        if missing and wrong:
            raise ConfigurationError(
                "nothing recorded: the schema is not what the files make: "
                + "; ".join(one.line if one.missing else f"too much: {one.line}" for one in wrong)
            )
        for migration in missing:
            _record(connection, migration)
    return [migration.version for migration in missing]


def status(db_url: str, *, directory: Path | None = None) -> Status:
    """Where each migration stands; changes nothing. Raises as `migrate` does."""
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
    """Applies, in the caller's transaction, the files that are not in the ledger, and records them.

    Raises psycopg.Error for locks (see `with_locks`), and else as `migrate`; the name of the file is in the text.
    """
    take_turn(connection, wait)
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
            raise explained(f"{migration.name} failed, and nothing was changed", error) from None
    return pending


class _LockedError(Exception):
    """A lock was not to be had; the text says who has it."""


def with_locks(work: Callable[[], T], *, patience: float, say: Progress) -> T:
    """Do `work`, a transaction that needs locks: many short attempts, so that nobody's writes queue behind a long wait.

    Raises TransientError when `patience` seconds are over.
    """
    told: set[str] = set()

    def attempt() -> T:
        try:
            return work()
        except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
            text = error.diag.message_primary or ""
            ours = text.startswith(_OURS)
            raise _LockedError(text.removeprefix(_OURS) if ours else "a table is locked by others") from None

    def tell(state: RetryCallState) -> None:
        text = str(state.outcome.exception()) if state.outcome else ""
        if text not in told:
            told.add(text)
            say(f"{text}; trying again")

    retrying = Retrying(
        retry=retry_if_exception_type(_LockedError),
        stop=stop_after_delay(patience),
        wait=wait_random_exponential(multiplier=0.2, max=3.0),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except _LockedError as error:
        raise TransientError(
            f"{error}; nothing was changed in {patience:g} s of trying: end what is in the way, or try at a quieter time",
            code="55P03",
        ) from None


def tell_notices(connection: psycopg.Connection, say: Progress) -> None:
    """Pass on what the migrations themselves say."""

    def heard(notice: psycopg.errors.Diagnostic) -> None:
        if (notice.message_primary or "").startswith(_OURS):
            say(notice.message_primary or "")

    connection.add_notice_handler(heard)


def take_turn(connection: psycopg.Connection, wait: float) -> None:
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


def refuse_replaced(ledger: Iterable[str]) -> None:
    """Raise ConfigurationError for a database with files from before 0.1.0: the files of this release replace them."""
    if found := sorted(REPLACED.intersection(ledger)):
        raise ConfigurationError(
            f"this database has the migrations of a gre-bridge from before 0.1.0 ({found[0]} to {found[-1]}), and there is"
            " no way on from them: start with a new database, or restore a backup that was made before them"
        )


def _silent(_line: str) -> None:
    pass
