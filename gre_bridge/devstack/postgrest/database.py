"""PostgREST's connections: the schema cache kept fresh, and one transaction for one request.

This module owns the listening connection and runs transactions on the pool. It must not know HTTP beyond
the errors it raises, and never looks into a statement.

A transaction whose result needs no verdict is sent at once and commits with its Sync: one round trip.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
import psycopg
import psycopg_pool
import structlog

from gre_bridge.devstack.postgrest.catalog import Catalog, load
from gre_bridge.devstack.postgrest.errors import RETRY, ServerError, from_database
from gre_bridge.devstack.postgrest.pipeline import Connection, Result, execute, last_words
from gre_bridge.devstack.postgrest.sql import Statement

# total rows, rows on the page, body, response.headers, response.status, whether a row was inserted
Row = tuple[int | None, int, bytes, str, str, bool]

_SETTINGS: Final = "select count(set_config(key, value, true)) from json_each_text($1)"
_AGAIN: Final = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
_RETRY_SECONDS: Final = 10.0
_CHANNEL: Final = "pgrst"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one request does: `settings` is a JSON object of text, `verdict` raises to roll back.

    With `explain`, the planner's guess is the total where the exact count is missing or above `cap`.
    """

    settings: str
    statement: Statement
    anonymous: bool
    cap: int = 0
    verdict: Callable[[Row], None] | None = None


def open_pool(dsn: str, *, size: int = 10) -> psycopg_pool.AsyncConnectionPool[Any]:
    """A closed pool as this face wants it, for the role `authenticator`; the caller opens and closes it."""
    return psycopg_pool.AsyncConnectionPool(
        dsn,
        min_size=min(size, 4),
        max_size=size,
        open=False,
        kwargs={"autocommit": True, "application_name": "postgrest"},
        # Reconnecting is paced by the listening connection; the pool must not sleep through its news.
        reconnect_timeout=0.5,
    )


class Database:
    """The schema cache and the transactions of one PostgREST."""

    def __init__(
        self, *, pool: psycopg_pool.AsyncConnectionPool[Any], schemas: tuple[str, ...],
        acquire_timeout: float, request_timeout: float,
    ) -> None:  # fmt: skip
        """Times are in seconds: to wait for a connection, and for a whole request."""
        self._pool = pool
        self._schemas = schemas
        self._acquire_timeout = acquire_timeout
        self._request_timeout = request_timeout
        self._catalog: Catalog | None = None
        self._listening = False
        self._pending = True
        self._delay = 0.0
        self._loaded = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Row]] = set()

    async def start(self, *, timeout: float = 10.0) -> None:
        """Load the schema cache and listen; raises TimeoutError when that takes longer than `timeout` seconds."""
        self._watcher = asyncio.create_task(self._watch(), name="postgrest-listener")
        try:
            await asyncio.wait_for(self._loaded.wait(), timeout)
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, timeout: float = 5.0) -> None:
        """Let the transactions under way end, for `timeout` at most, and stop listening."""
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=timeout)
            for task in late:
                task.cancel()
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def reload(self) -> None:
        """Load the schema cache, and return when it is there; a notification is followed some time later only."""
        async with self._pool.connection() as conn:
            self._catalog = await load(conn, self._schemas)

    @property
    def catalog(self) -> Catalog:
        """The schema cache; raises PGRST002 while there is none."""
        if self._pending or self._catalog is None:
            raise ServerError(
                503,
                "PGRST002",
                "Could not query the database for the schema cache. Retrying.",
                headers=(("retry-after", str(int(self._delay))),),
            )
        return self._catalog

    async def run(self, transaction: Transaction, gone: Callable[[], Awaitable[Any]]) -> Row:
        """Run a transaction to its end even if the caller is cancelled (measured: a client that leaves
        cancels nothing, its statement commits later). `gone` returns when the client has left.
        """
        task = asyncio.create_task(self._run(transaction, gone))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def _run(self, transaction: Transaction, gone: Callable[[], Awaitable[Any]]) -> Row:
        conn = await self._connection()
        try:
            async with asyncio.timeout(self._request_timeout):
                return await self._attempts(conn, transaction, gone)
        except psycopg.Error as error:
            if error.sqlstate:
                self._pending = self._pending or (error.sqlstate == "57P01" and not self._listening)
                raise from_database(error, anonymous=transaction.anonymous) from None
            raise _client_error() from None
        except TimeoutError:
            raise ServerError(504, "57014", "the embedded stack gave up waiting for the statement") from None
        finally:
            await self._pool.putconn(conn)

    async def _connection(self) -> Connection:
        listening = self._listening
        try:
            return cast("Connection", await self._pool.getconn(self._acquire_timeout if listening else 0.3))
        except psycopg_pool.PoolTimeout:
            if listening:
                message = "Timed out acquiring connection from connection pool."
                raise ServerError(504, "PGRST003", message) from None
            # The database may have come back while we waited.
            self._pending = self._pending or not self._listening
            raise _client_error() from None

    async def _attempts(
        self, conn: Connection, transaction: Transaction, gone: Callable[[], Awaitable[Any]]
    ) -> Row:
        """Re-run what ended with 40001 or 40P01, as PostgREST up to 15 does; but it does so for ever, even
        after the client has left, and can eat a machine: this gives up when the client leaves, or after 10 s,
        and then answers 500 like PostgREST 16.
        """
        loop, pause = asyncio.get_running_loop(), 0.005
        deadline = loop.time() + _RETRY_SECONDS
        leaving: asyncio.Task[Any] | None = None
        try:
            while True:
                try:
                    return await self._attempt(conn, transaction)
                except _AGAIN:
                    leaving = leaving or asyncio.create_task(_forever(gone))
                    left, _ = await asyncio.wait([leaving], timeout=pause)
                    if left or loop.time() > deadline:
                        raise
                    pause = min(pause * 2, 0.2)
        finally:
            if leaving:
                leaving.cancel()

    async def _attempt(self, conn: Connection, transaction: Transaction) -> Row:
        stale, statement = _has_news(conn), transaction.statement
        if stale and (words := last_words(conn)):
            self._pending = not self._listening
            await conn.close()
            raise ServerError(503, *words, headers=RETRY)
        statements = [(_SETTINGS, [transaction.settings]), (statement.text, statement.params)]
        if statement.explain:
            statements.append((statement.explain.text, statement.explain.params))
        if transaction.verdict:
            statements.insert(0, ("BEGIN", []))
        try:
            results = await execute(conn, statements)
            row = _row(results[1 + bool(transaction.verdict)])
            if statement.explain:
                row = _estimated(row, results[-1], transaction.cap)
            if transaction.verdict:
                transaction.verdict(row)
                await conn.commit()
            return row
        except psycopg.Error as error:
            if stale and not error.sqlstate:
                # Its idle connection was dead: PostgREST 14.5 answers 400 with an empty code (measured).
                raise ServerError(400, "", "") from None
            raise
        finally:
            if transaction.verdict and not conn.closed:
                await conn.rollback()

    async def _watch(self) -> None:
        """Hold one connection that listens: its loss tells that the database is down, its return reloads."""
        while True:
            try:
                conn = await psycopg.AsyncConnection.connect(
                    str(self._pool.conninfo), autocommit=True, connect_timeout=5, application_name="postgrest"
                )
                async with conn:
                    await conn.execute(f"listen {_CHANNEL}")
                    self._catalog = await load(conn, self._schemas)
                    if self._loaded.is_set():
                        await asyncio.wait_for(self._pool.check(), 10)
                    self._listening, self._pending, self._delay = True, False, 0.0
                    self._loaded.set()
                    await self._follow(conn)
            except (psycopg.Error, TimeoutError) as error:
                sqlstate = getattr(error, "sqlstate", None)
                _log.warning("postgrest_database_lost", error=type(error).__name__, sqlstate=sqlstate)
            finally:
                self._listening = False
            self._delay = min(max(self._delay * 2, 0.25), 1.0)
            await asyncio.sleep(self._delay)

    async def _follow(self, conn: Connection) -> None:
        """Reload on every notification; one that says `reload config` may have changed the roles' settings."""
        while True:
            notes = [note async for note in conn.notifies(timeout=30, stop_after=1)]
            if not notes:
                await conn.execute("select 1")
                continue
            # A migration notifies once per statement: one reload for all.
            async for _ in conn.notifies(timeout=0.05):
                pass
            self._catalog = await load(conn, self._schemas)


async def _forever(gone: Callable[[], Awaitable[Any]]) -> None:
    await gone()


def _client_error() -> ServerError:
    return ServerError(
        503,
        "PGRST001",
        "Database client error. Retrying the connection.",
        details="no connection to the server\n",
        headers=RETRY,
    )


def _has_news(conn: Connection) -> bool:
    """Whether the server spoke, or hung up, while the connection was idle."""
    if conn.closed:
        return True
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _row(values: Result) -> Row:
    total, shown, body, headers, status, inserted = values
    return (
        None if total is None else int(total),
        int(shown or 0),
        body or b"",
        headers.decode() if headers else "",
        status.decode() if status else "",
        bool(inserted and int(inserted)),
    )


def _estimated(row: Row, plan: Result, cap: int) -> Row:
    guess = int(orjson.loads(plan[0] or b"")[0]["Plan"]["Plan Rows"])
    total = guess if row[0] is None else max(row[0], guess) if row[0] > cap else row[0]
    return (total, *row[1:])
