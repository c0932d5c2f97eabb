"""Several statements to PostgreSQL and all their results in one round trip, on libpq itself.

psycopg's own pipeline mode waits several times per request, and (3.3) loses the error of a commit: what a
deferred constraint refuses comes with the Sync, after every statement has succeeded. Statements between two
Syncs are one transaction to the server, so settings and query need no BEGIN and COMMIT of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Generator, Sequence
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait

Connection = psycopg.AsyncConnection[Any]
Result = Sequence[bytes | None]
_Talk = Generator[Wait, Ready | int, list[pq.abc.PGresult]]

# More different statements than this on one connection are not worth remembering a plan for.
_PREPARED_LIMIT: Final = 200
_numbers = itertools.count(1)
_prepared: weakref.WeakKeyDictionary[Connection, dict[str, bytes]] = weakref.WeakKeyDictionary()


async def execute(conn: Connection, statements: Sequence[tuple[str, Sequence[str]]]) -> list[Result]:
    """Run `$n` statements, prepared on first use; returns the first row of each, as text (empty: no row).

    Raises the first `psycopg.Error`; it has no SQLSTATE when the connection was lost. In autocommit mode all
    or nothing is committed, and the return means that it is; after a BEGIN among them the caller ends it.
    """
    known = _prepared.setdefault(conn, {})
    try:
        results = await conn.wait(_exchange(conn.pgconn, statements, known))
    except BaseException:
        # What it would still say belongs to nobody.
        await conn.close()
        raise
    for result in results:
        if _failed(result):
            raise error_from_result(result, "utf-8")
    return [
        [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []
        for result in results
    ]


def last_words(conn: Connection) -> tuple[str, str] | None:
    """The SQLSTATE and text that a server gave an idle connection before it hung up; a crash gives none."""
    notices: list[tuple[str, str]] = []

    def record(words: psycopg.errors.Diagnostic) -> None:
        if words.severity_nonlocalized == "FATAL":
            notices.append((words.sqlstate or "", words.message_primary or ""))

    conn.add_notice_handler(record)
    with contextlib.suppress(psycopg.OperationalError):
        conn.pgconn.consume_input()
    # Asking for notifications makes libpq read what it has, even from a connection that is gone.
    conn.pgconn.notifies()
    conn.remove_notice_handler(record)
    return notices[0] if notices else None


def _exchange(
    pgconn: pq.abc.PGconn, statements: Sequence[tuple[str, Sequence[str]]], known: dict[str, bytes]
) -> _Talk:
    """Send everything and read until the Sync; results of preparations that went well are left out."""
    pgconn.enter_pipeline_mode()
    preparing = _send(pgconn, statements, known)
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results = yield from _receive(pgconn)
    for place, (text, name) in preparing.items():
        if place < len(results) and results[place].status == pq.ExecStatus.COMMAND_OK:
            known[text] = name
    return [result for place, result in enumerate(results) if place not in preparing or _failed(result)]


def _send(
    pgconn: pq.abc.PGconn, statements: Sequence[tuple[str, Sequence[str]]], known: dict[str, bytes]
) -> dict[int, tuple[str, bytes]]:
    """Queue the statements; returns what is being prepared, by the place of its result."""
    preparing: dict[int, tuple[str, bytes]] = {}
    for number, (text, params) in enumerate(statements):
        values = [value.encode() for value in params]
        name = known.get(text)
        if name is None and len(known) < _PREPARED_LIMIT:
            name = b"postgrest_%d" % next(_numbers)
            pgconn.send_prepare(name, text.encode())
            preparing[number + len(preparing)] = (text, name)
        if name is None:
            pgconn.send_query_params(text.encode(), values)
        else:
            pgconn.send_query_prepared(name, values)
    pgconn.pipeline_sync()
    return preparing


def _receive(pgconn: pq.abc.PGconn) -> _Talk:
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            try:
                pgconn.consume_input()
            except psycopg.OperationalError:
                # A server that is being stopped says so before it hangs up.
                if results and _failed(results[-1]):
                    return results
                raise
        result = pgconn.get_result()
        if result is None:
            # The end of one statement's results, or of the connection.
            if pgconn.status == pq.ConnStatus.BAD:
                return results
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            pgconn.exit_pipeline_mode()
            return results
        else:
            results.append(result)


def _failed(result: pq.abc.PGresult) -> bool:
    return result.status == pq.ExecStatus.FATAL_ERROR
