"""`gre-bridge migrate`: in order, once, all or nothing, in one ledger with the Supabase CLI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from gre_bridge.errors import ConfigurationError, PermanentError, TransientError
from gre_bridge.migrations.files import Migration, shipped
from gre_bridge.migrations.plan import plan
from gre_bridge.migrations.runner import migrate, record, status
from tests.conftest import Database
from tests.support.waiting import wait_until

VERSIONS = [m.version for m in shipped()]
LEDGER = "supabase_migrations.schema_migrations"


def push_like_the_supabase_cli(db: Database) -> None:
    """Apply the files as `supabase db push` does: each as one pipeline of single statements, the ledger row last."""
    with psycopg.connect(db.dsn(), autocommit=True) as conn:
        conn.execute("create schema if not exists supabase_migrations")
        conn.execute(f"create table if not exists {LEDGER} (version text not null primary key)")
        conn.execute(f"alter table {LEDGER} add column if not exists statements text[]")
        conn.execute(f"alter table {LEDGER} add column if not exists name text")
        conn.execute(f"alter table {LEDGER} add column if not exists created_by text")
        for m in shipped():
            conn.execute("reset all")
            with conn.pipeline():
                for statement in m.statements:
                    conn.execute(statement.encode(), prepare=False)
                conn.execute(
                    f"insert into {LEDGER} (version, name, statements) values (%s, %s, %s)",
                    [m.version, m.name, m.statements],
                )


def ledger(db: Database) -> list[tuple[str, str, int]]:
    """Return version, name and number of statements of each row."""
    with db.connect() as conn:
        rows = conn.execute(f"select version, name, cardinality(statements) as n from {LEDGER} order by 1")
        return [(r["version"], r["name"], r["n"]) for r in rows]


@contextmanager
def waiting_for(db: Database, condition: str) -> Iterator[None]:
    """At the end of the block, wait until `condition` holds for a connection of this database; at most half a minute."""
    yield
    with db.connect("supabase_admin") as conn:
        query = f"select from pg_stat_activity where datname = current_database() and ({condition})"
        wait_until(
            lambda: conn.execute(query.encode()).rowcount, every=0.02, what=f"a session that is {condition}"
        )


def test_applies_all_files_in_order_once(supabase_db: Database) -> None:
    said: list[str] = []
    assert [e.state for e in status(supabase_db.dsn()).entries] == ["pending"] * len(VERSIONS)
    assert not status(supabase_db.dsn()).good
    assert plan(supabase_db.dsn()).pending == [f"{m.version}_{m.name}" for m in shipped()]
    assert migrate(supabase_db.dsn(), on_progress=said.append) == VERSIONS
    assert [line for line in said if line.startswith("applied")] == [
        f"applied {m.version}_{m.name}" for m in shipped()
    ]
    assert ledger(supabase_db) == [(m.version, m.name, len(m.statements)) for m in shipped()]
    assert migrate(supabase_db.dsn()) == []
    assert status(supabase_db.dsn()).good
    assert plan(supabase_db.dsn()).lines() == ["nothing to do"]


def test_files_pushed_by_the_supabase_cli_count_as_applied(supabase_db: Database) -> None:
    push_like_the_supabase_cli(supabase_db)
    assert status(supabase_db.dsn()).good
    assert migrate(supabase_db.dsn()) == []


def test_a_ledger_with_the_projects_own_migrations_is_continued(supabase_db: Database) -> None:
    with supabase_db.connect() as conn:
        conn.execute("create schema supabase_migrations")
        conn.execute(f"create table {LEDGER} (version text primary key)")
        conn.execute(f"insert into {LEDGER} values ('20200101000000'), ('20991231000000')")
    migrate(supabase_db.dsn())
    assert [row[0] for row in ledger(supabase_db)] == ["20200101000000", *VERSIONS, "20991231000000"]
    # Recorded by an old CLI without statements: applied, and not compared.
    with supabase_db.connect() as conn:
        conn.execute(f"update {LEDGER} set statements = null where version = '{VERSIONS[0]}'".encode())
    assert status(supabase_db.dsn()).good


def test_drift_is_reported_and_never_applied_again(supabase_db: Database) -> None:
    migrate(supabase_db.dsn())
    with supabase_db.connect() as conn:
        conn.execute(
            f"update {LEDGER} set statements[2] = 'select 1' where version = '{VERSIONS[2]}'".encode()
        )
    found = status(supabase_db.dsn())
    assert [e.version for e in found.entries if e.state == "drifted"] == [VERSIONS[2]]
    assert not found.good
    said: list[str] = []
    assert migrate(supabase_db.dsn(), on_progress=said.append) == []
    assert len(said) == 1
    assert said[0].startswith(f"warning: {VERSIONS[2]}_")


def test_the_ledgers_spacing_and_semicolons_do_not_count_as_drift() -> None:
    text = "create table a (x text default ';'); -- a; b\n\nselect $q$ one; $q$;\n"
    m = Migration(version="1", name="x", sql=text)
    assert m.statements == ["create table a (x text default ';')", "-- a; b\n\nselect $q$ one; $q$"]
    assert m.matches([s + "\r\n;" for s in m.statements])
    assert not m.matches(["create table a (x text)"])


def test_two_at_once_apply_each_file_once(supabase_db: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = [version for got in pool.map(migrate, [supabase_db.dsn()] * 2) for version in got]
    assert sorted(done) == VERSIONS
    assert status(supabase_db.dsn()).good


def test_a_second_migration_waits_and_then_fails_with_a_reason(supabase_db: Database, tmp_path: Path) -> None:
    (tmp_path / "1_slow.sql").write_text("select pg_sleep(30)")
    with ThreadPoolExecutor(1) as pool:
        with waiting_for(supabase_db, "query ~ '^select pg_sleep' and state = 'active'"):
            first = pool.submit(migrate, supabase_db.dsn(), directory=tmp_path)
        with pytest.raises(TransientError, match="another migration is running"):
            migrate(supabase_db.dsn(), wait=0.3)
        with supabase_db.connect("supabase_admin") as conn:
            conn.execute(
                "select pg_cancel_backend(pid) from pg_stat_activity where query ~ '^select pg_sleep'"
            )
        with pytest.raises(TransientError):
            first.result(timeout=60)
    assert migrate(supabase_db.dsn()) == VERSIONS


def test_a_killed_migration_leaves_nothing(supabase_db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(Path(__file__).parents[2] / "sql" / "migrations", folder)
    slow = sorted(folder.iterdir())[2]
    slow.write_text(slow.read_text() + "\nselect pg_sleep(60);\n")
    program = f"from pathlib import Path; from gre_bridge.migrations.runner import migrate; migrate({supabase_db.dsn()!r}, directory=Path({str(folder)!r}))"
    with waiting_for(supabase_db, "wait_event = 'PgSleep'"):
        process = subprocess.Popen([sys.executable, "-c", program])
    process.kill()
    process.wait(timeout=60)
    with supabase_db.connect("supabase_admin") as conn:
        # The server notices a dead client when the statement ends.
        conn.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where wait_event = 'PgSleep'"
        )
        gone = "select to_regnamespace('gre') is null and to_regclass('gre_chat_messages') is null as gone"
        assert conn.execute(gone).fetchone() == {"gone": True}
    assert [e.state for e in status(supabase_db.dsn()).entries] == ["pending"] * len(VERSIONS)
    assert migrate(supabase_db.dsn()) == VERSIONS
    assert status(supabase_db.dsn()).good


DEFERRED = """
create table b (x int references a deferrable initially deferred);
insert into b values (1);
alter table b add column y int;
"""


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("create table b (x int); select 1 / 0;", "division by zero"),
        # SQLSTATE 55006: a later attempt would fail too.
        (
            DEFERRED,
            "cannot ALTER TABLE .* because it has pending trigger events",
        ),
    ],
)
def test_a_failing_file_leaves_nothing_of_any_file_and_is_not_retried(
    supabase_db: Database, tmp_path: Path, bad: str, reason: str
) -> None:
    (tmp_path / "1_good.sql").write_text("create table a (x int primary key);")
    (tmp_path / "2_bad.sql").write_text(bad)
    said: list[str] = []
    with pytest.raises(PermanentError, match=f"bad failed, and nothing was changed: {reason}"):
        migrate(supabase_db.dsn(), directory=tmp_path, on_progress=said.append)
    assert said == []
    assert [e.state for e in status(supabase_db.dsn(), directory=tmp_path).entries] == ["pending", "pending"]
    (tmp_path / "2_bad.sql").write_text("create table b (x int);")
    assert migrate(supabase_db.dsn(), directory=tmp_path) == ["1", "2"]


def test_a_table_in_use_is_waited_for_without_blocking_its_users_for_long(
    supabase_db: Database, tmp_path: Path
) -> None:
    (tmp_path / "1_first.sql").write_text("create table busy (x int);")
    migrate(supabase_db.dsn(), directory=tmp_path)
    (tmp_path / "2_second.sql").write_text(
        "set local lock_timeout = '200ms'; alter table busy add column y int;"
    )
    said: list[str] = []
    held = supabase_db.connect(autocommit=False)
    held.execute("select * from busy")
    release = threading.Event()

    def progress(line: str) -> None:
        said.append(line)
        release.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(migrate, supabase_db.dsn(), directory=tmp_path, on_progress=progress)
        assert release.wait(60)
        held.rollback()
        held.close()
        assert running.result(60) == ["2"]
    assert said[0] == "another transaction locks a table; trying again"


@contextmanager
def reading(db: Database, application: str = "a report") -> Iterator[int]:
    """Keep a transaction open that has read the chat's messages; yield its pid."""
    with db.connect(autocommit=False, application_name=application) as conn:
        conn.execute("select count(*) from gre_chat_messages")
        yield conn.info.backend_pid
        conn.rollback()


LIVE_PROJECT = """
create table gre_chat_messages (id uuid primary key default gen_random_uuid(), player_id int not null, message text not null,
  sender text, session_id uuid, created_at timestamptz default now());
grant insert on gre_chat_messages to anon;
insert into gre_chat_messages (player_id, message, sender) values (29, 'old', 'player');
"""


def test_migrate_names_the_reader_of_a_locked_table_and_no_insert_waits_for_long(
    supabase_db: Database,
) -> None:
    with supabase_db.connect() as conn:
        conn.execute(LIVE_PROJECT)

    def longest() -> float:
        """The longest of the inserts during a run that meets a reader."""
        said: list[str] = []
        waits: list[float] = []
        with (
            reading(supabase_db) as pid,
            ThreadPoolExecutor(1) as pool,
            supabase_db.as_caller({"role": "anon"}) as portal,
        ):
            portal.execute("set statement_timeout = '20s'")
            running = pool.submit(migrate, supabase_db.dsn(), on_progress=said.append, lock_timeout=4.0)
            while not running.done():
                began = time.monotonic()
                portal.execute(
                    "insert into gre_chat_messages (player_id, message, sender) values (29, 'x', 'player')"
                )
                waits.append(time.monotonic() - began)
            with pytest.raises(
                TransientError, match=f"in use by pid {pid} .postgres, a report, idle in transaction"
            ):
                running.result()
        assert re.fullmatch(
            rf"the chat's tables are in use by pid {pid} \(postgres, a report, idle in transaction,"
            r" since \d\d:\d\d:\d\d UTC\); trying again",
            said[0],
        )
        assert len(said) == 1, "reported once"
        return max(waits)

    # Half of the time after which anon's statements are cancelled; a busy machine may delay an insert, but not each time.
    assert any(longest() < 1.5 for _ in range(5))
    assert migrate(supabase_db.dsn()) == VERSIONS


def test_a_push_of_the_supabase_cli_names_the_blocking_connection_at_once(supabase_db: Database) -> None:
    with supabase_db.connect() as conn:
        conn.execute(LIVE_PROJECT)
    began = time.monotonic()
    with (
        reading(supabase_db) as pid,
        pytest.raises(psycopg.errors.LockNotAvailable, match=f"the chat's tables are in use by pid {pid} "),
    ):
        push_like_the_supabase_cli(supabase_db)
    assert time.monotonic() - began < 15
    push_like_the_supabase_cli(supabase_db)
    assert status(supabase_db.dsn()).good


def test_a_dry_run_executes_everything_within_the_lock_timeout_and_rolls_back(
    supabase_db: Database,
) -> None:
    with supabase_db.connect() as conn:
        conn.execute(LIVE_PROJECT)
    said: list[str] = []
    with reading(supabase_db) as pid, pytest.raises(TransientError, match=f"pid {pid} "):
        plan(supabase_db.dsn(), on_progress=said.append, lock_timeout=1.0)
    assert "writes to the chat's tables wait meanwhile" in said[0]
    assert plan(supabase_db.dsn()).good
    assert [e.state for e in status(supabase_db.dsn()).entries] == ["pending"] * len(VERSIONS)
    with supabase_db.connect() as conn:
        left = conn.execute(
            "select to_regnamespace('gre') is null and to_regclass('gre_staff') is null as gone"
        )
        assert left.fetchone() == {"gone": True}


def test_a_schema_applied_by_other_means_is_recognised(db: Database) -> None:
    with pytest.raises(ConfigurationError, match="installed here already, but not recorded"):
        migrate(db.dsn())
    assert not plan(db.dsn()).good


def test_every_command_reports_the_files_from_before_0_1_0(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("create schema supabase_migrations")
        conn.execute(f"create table {LEDGER} (version text primary key, statements text[], name text)")
        conn.execute(f"insert into {LEDGER} values ('20261122100000'), ('20261122170000')")
    for command in (migrate, plan, record, status):
        with pytest.raises(ConfigurationError) as caught:
            command(db.dsn())
        assert str(caught.value) == (
            "this database has migrations from before 0.1.0 (20261122100000 to 20261122170000), which cannot be upgraded:"
            " start with a new database, or restore a backup that was made before them"
        )


def test_a_push_of_the_supabase_cli_reports_the_files_from_before_0_1_0(supabase_db: Database) -> None:
    with supabase_db.connect() as conn:
        conn.execute("create function gre_schema_version() returns integer language sql as 'select 2'")
    with pytest.raises(
        psycopg.errors.DatabaseError, match=r"a gre-bridge from before 0\.1\.0 is installed here"
    ):
        push_like_the_supabase_cli(supabase_db)


def test_a_wrong_address_is_one_clear_line(supabase_db: Database) -> None:
    wrong_password = supabase_db.pg.dsn(dbname=supabase_db.name, password="nobody-knows")
    for url, kind in (
        ("nonsense secret", ConfigurationError),
        (wrong_password, ConfigurationError),
        ("postgresql://postgres@127.0.0.1:1/postgres", TransientError),
    ):
        with pytest.raises(kind) as caught:
            status(url)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "nobody-knows" not in str(caught.value)


def test_a_role_without_rights_is_reported(supabase_db: Database) -> None:
    with supabase_db.connect("supabase_admin") as conn:
        conn.execute("drop role if exists gre_nobody")
        conn.execute("create role gre_nobody login password 'p'")
    try:
        with pytest.raises(ConfigurationError, match="may not"):
            migrate(supabase_db.pg.dsn(user="gre_nobody", dbname=supabase_db.name, password="p"))
    finally:
        with supabase_db.connect("supabase_admin") as conn:
            conn.execute("drop role gre_nobody")


LINT = {
    "row level security is on for every table": "select relname as x from pg_class where relnamespace = 'public'::regnamespace"
    " and relkind in ('r', 'p') and not relrowsecurity",
    "no function's search path can be changed from outside": "select oid::regprocedure::text as x from pg_proc"
    " where pronamespace in ('public'::regnamespace, 'gre'::regnamespace)"
    " and not coalesce('search_path=\"\"' = any (proconfig), false)",
    "views read with their reader's rights": "select relname as x from pg_class where relnamespace = 'public'::regnamespace"
    " and relkind = 'v' and not coalesce('security_invoker=true' = any (reloptions), false)",
    "foreign keys are indexed": "select conname as x from pg_constraint k where contype = 'f' and connamespace = 'public'::regnamespace"
    " and not exists (select from pg_index i where i.indrelid = k.conrelid"
    " and (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey)",
    "one permissive policy for each table, command and role": "select tablename || ' ' || cmd || ' ' || role as x"
    " from pg_policies, unnest(roles) role where permissive = 'PERMISSIVE' and schemaname = 'public'"
    " group by tablename, cmd, role having count(*) > 1",
    "policies call functions once for each statement": "select tablename || ' ' || policyname as x from pg_policies"
    " where schemaname = 'public' and concat(qual, ' ', with_check) ~ '(?<!SELECT )(?<!SELECT \\()gre\\.'",
    "no two indexes are the same": "select indrelid::regclass::text || indkey::text as x from pg_index where indrelid in"
    " (select oid from pg_class where relnamespace = 'public'::regnamespace)"
    " group by indrelid, indkey, coalesce(pg_get_expr(indexprs, indrelid), ''), coalesce(pg_get_expr(indpred, indrelid), ''), indoption"
    " having count(*) > 1",
    "nothing of the worker's is for portals": "select oid::regprocedure::text as x from pg_proc where proname like 'gre_relay%'"
    " and (has_function_privilege('anon', oid, 'execute') or has_function_privilege('authenticated', oid, 'execute'))",
    # An index calls gre.push_keys as the role that inserts a push. Its result depends on its arguments only.
    "public may execute nothing": "select oid::regprocedure::text as x from pg_proc"
    " where pronamespace = 'gre'::regnamespace and has_function_privilege('public', oid, 'execute') and proname <> 'push_keys'",
    "adoption leaves no helper behind": "select proname::text as x from pg_proc where pronamespace = 'gre'::regnamespace"
    " and proname ~ '^(adopt|legacy_)' union all select relname::text from pg_class"
    " where relnamespace = 'gre'::regnamespace and relname ~ 'adopt'"
    " union all select nspname::text from pg_namespace where nspname = 'gre_model'",
}


@pytest.mark.parametrize("rule", LINT)
def test_passes_supabases_database_linter(db: Database, rule: str) -> None:
    with db.connect() as conn:
        assert [r["x"] for r in conn.execute(LINT[rule].encode())] == []


def test_files_contain_only_syntax_that_every_tool_accepts() -> None:
    for m in shipped():
        for statement in m.statements:
            bare = (
                "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
                .strip()
                .lower()
            )
            assert not bare.startswith(("begin", "commit", "rollback", "\\")), m.name
            assert not bare.startswith("lock table"), "only inside a transaction block"
        assert "set local lock_timeout" in m.sql
