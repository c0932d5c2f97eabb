"""Fixtures of all tests: one real PostgreSQL for the session, and a fresh database for each test."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import tempfile
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg.rows import dict_row

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.support.canary import check_tables
from tests.support.memory import cluster_directory
from tests.support.report_check import check_figures, has_figures
from tests.support.scheduling import rank, scheduling
from tests.support.stack import StackProcess
from tests.support.template import Template
from tests.support.turns import turn

ROOT = Path(__file__).parent.parent
MIGRATIONS = sorted((ROOT / "sql" / "migrations").glob("*.sql"))
_numbers = itertools.count()
# How long it takes to make up an example says something of the machine and nothing of what is tested.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts a command in the background (`make test &`) with SIGINT ignored, and so would be every process here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PLAYER = {"role": "authenticated", "app_metadata": {"gre_role": "player", "player_id": 29}}
STAFF = {"role": "authenticated", "app_metadata": {"gre_role": "staff", "staff_id": "s1"}}
SERVICE = {"role": "service_role"}


@dataclass(frozen=True)
class Database:
    """One database of the cluster."""

    pg: EmbeddedPostgres
    name: str

    def dsn(self, user: str = "postgres") -> str:
        """Its address for a role: `postgres` (no superuser, as on Supabase) or `supabase_admin`."""
        return self.pg.dsn(user=user, dbname=self.name)

    def connect(self, user: str = "postgres", **options: Any) -> psycopg.Connection[dict[str, Any]]:
        """A connection in autocommit mode whose rows are dicts."""
        options.setdefault("autocommit", True)
        return psycopg.connect(self.dsn(user), row_factory=dict_row, connect_timeout=60, **options)

    def as_caller(self, claims: dict[str, Any]) -> psycopg.Connection[dict[str, Any]]:
        """A connection on which statements run as PostgREST would run them for a token with `claims`."""
        conn = self.connect()
        conn.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps(claims)])
        conn.execute(f"set role {claims['role']}")
        return conn


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect no garbage among thousands of collected tests, which all stay: half of the time would go into that."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort long files first, and files with tests that run alone last; the order within a file stays."""
    alone = {item.path for item in items if item.get_closest_marker("quiet")}

    def key(item: pytest.Item) -> tuple[bool, int]:
        return item.path in alone, rank(item.path.relative_to(ROOT / "tests").as_posix())

    items.sort(key=key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out long files in parts."""
    return scheduling(config, log)


def _turn(item: pytest.Item, *, quiet: bool) -> contextlib.AbstractContextManager[None]:
    if os.environ.get("PYTEST_XDIST_WORKER") is None:
        return contextlib.nullcontext()
    # All processes of one run have the same parent of their temporary directories.
    shared = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    return turn(shared, quiet=quiet)


def _is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker("quiet") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep an ordinary test, with its fixtures, from running beside a quiet one."""
    with contextlib.nullcontext() if _is_quiet(item) else _turn(item, quiet=False):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Set a quiet test up beside ordinary ones: nothing is measured yet."""
    with _turn(item, quiet=False) if _is_quiet(item) else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let no other test run beside one that is marked `quiet`, nor the checks of what was there before."""
    if _is_quiet(item):
        wait(CHECKS)
    with _turn(item, quiet=True) if _is_quiet(item) else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Do the same as at its set-up."""
    with _turn(item, quiet=False) if _is_quiet(item) else contextlib.nullcontext():
        return (yield)


@pytest.fixture(scope="session")
def pg() -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL; fsync is off."""
    with cluster_directory() as directory, EmbeddedPostgres(data_dir=directory, durable=False) as server:
        server.install_supabase()
        yield server


@pytest.fixture(scope="session")
def supabase_template(pg: EmbeddedPostgres) -> str:
    """A database as a new Supabase project has it."""
    pg.create_database("template_supabase")
    pg.install_supabase("template_supabase")
    return "template_supabase"


@pytest.fixture(scope="session")
def migrated_template(pg: EmbeddedPostgres, supabase_template: str) -> str:
    """The same with all migrations, applied by the role that is no superuser."""
    pg.create_database("template_migrated", supabase_template)
    with psycopg.connect(pg.dsn(dbname="template_migrated"), autocommit=True) as conn:
        for path in MIGRATIONS:
            with conn.transaction():
                conn.execute(path.read_bytes(), prepare=False)
    return "template_migrated"


@pytest.fixture(scope="session")
def dropping(pg: EmbeddedPostgres) -> Iterator[Executor]:
    """Checks and drops databases while the next test runs: each drop takes a checkpoint."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


CHECKS: list[Future[None]] = []
"""Of the databases that tests of this file have left."""


@pytest.fixture(scope="module", autouse=True)
def _databases_are_right() -> Iterator[None]:
    """Fail a file's last test if a database was not left as it should be."""
    yield
    wrong = [str(error) for check in CHECKS if (error := check.exception())]
    CHECKS.clear()
    assert not wrong, "\n".join(wrong)


def _check_and_drop(database: Database, test: str, past_triggers: str | None) -> None:
    """Raise an AssertionError if there is a note in a wrong table, or a figure is wrong."""
    try:
        with database.connect("supabase_admin") as conn:
            check_tables(conn)
            if past_triggers is None and has_figures(conn):
                check_figures(conn)
    except (AssertionError, psycopg.Error) as error:
        raise AssertionError(f"{test}: database {database.name}: {error}") from None
    finally:
        database.pg.drop_database(database.name)


@contextlib.contextmanager
def own_database(pg: EmbeddedPostgres, template: str, name: str) -> Iterator[Database]:
    """A database for all tests of a file, checked at its end."""
    pg.create_database(name, template)
    yield Database(pg, name)
    _check_and_drop(Database(pg, name), "tests of this file", None)


@contextlib.contextmanager
def _database(
    pg: EmbeddedPostgres, template: str, dropping: Executor, request: pytest.FixtureRequest
) -> Iterator[Database]:
    name = f"t{next(_numbers)}_{uuid.uuid4().hex[:8]}"
    pg.create_database(name, template)
    yield Database(pg, name)
    CHECKS.append(
        dropping.submit(_check_and_drop, Database(pg, name), request.node.nodeid, past_triggers(request.node))
    )


def past_triggers(test: pytest.Item) -> str | None:
    """Return the reason of its marker: why figures are not those of the messages, or of the packed hours, in its database."""
    marker = test.get_closest_marker("past_triggers")
    if marker is None:
        return None
    (reason,) = marker.args
    return str(reason)


@pytest.fixture
def supabase_db(
    pg: EmbeddedPostgres, supabase_template: str, dropping: Executor, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """A fresh database of a new Supabase project, without our migrations."""
    with _database(pg, supabase_template, dropping, request) as database:
        yield database


@pytest.fixture
def db(
    pg: EmbeddedPostgres, migrated_template: str, dropping: Executor, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """A fresh migrated database."""
    with _database(pg, migrated_template, dropping, request) as database:
        yield database


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """The process that the workers are forked from."""
    with tempfile.TemporaryDirectory() as directory, Template(Path(directory)) as template:
        yield template


@pytest.fixture(scope="session")
def stack_process(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[StackProcess]:
    """The embedded stack, without a worker, as a process of its own."""
    with cluster_directory() as data, StackProcess(tmp_path_factory.mktemp("stack"), template, data) as stack:
        yield stack


@pytest.fixture
def stack(stack_process: StackProcess, request: pytest.FixtureRequest) -> Iterator[StackProcess]:
    """The stack, emptied; its figures are checked after the test."""
    stack_process.reset()
    yield stack_process
    if past_triggers(request.node) is None:
        with stack_process.db() as conn:
            if has_figures(conn):
                check_figures(conn)
