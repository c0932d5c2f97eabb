"""Storage's transactions: as the role supabase_storage_admin, which becomes the caller in each of them.

The settings are those that policies and triggers can read on v1.70.6 (measured). A transaction never stays open while
bytes flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg
from psycopg.rows import dict_row

from gre_bridge.devstack.storage.errors import database_timeout, from_database
from gre_bridge.devstack.storage.request import Request

Connection = psycopg.AsyncConnection[dict[str, Any]]

_SETTINGS: Final = "select count(set_config(key, value, true)) from json_each_text(%s)"
_CONNECTIONS: Final = 20
_CONNECT_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a transaction runs; `token` is the JWT as it came."""

    role: str
    claims: dict[str, Any]
    token: str = ""

    @property
    def subject(self) -> str | None:
        """The owner of what the caller makes."""
        subject = self.claims.get("sub")
        return subject if isinstance(subject, str) and subject else None


SERVICE: Final = Caller("service_role", {"role": "service_role"})
"""For whom the transactions run that no policy judges."""


class Database:
    """At most 20 connections, opened when they are needed: a database that is back serves at once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: deque[Connection] = deque()
        self._room = asyncio.Semaphore(_CONNECTIONS)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        request: Request,
        caller: Caller,
        operation: str,
        *,
        keep: bool = True,
        taken: str = "KeyAlreadyExists",
    ) -> AsyncIterator[Connection]:
        """A transaction with the caller's role and claims; it is rolled back without `keep`, or if the block raises.

        An error of PostgreSQL becomes a StorageError; `taken` is the code that a duplicate gets.
        """
        try:
            async with (
                self._room,
                self._connection() as connection,
                connection.transaction(force_rollback=not keep),
            ):
                await connection.execute(_SETTINGS, [_settings(request, caller, operation)])
                yield connection
        except psycopg.errors.ConnectionTimeout:
            raise database_timeout() from None
        except psycopg.Error as error:
            raise from_database(error, taken=taken) from None

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = None
        while self._idle and connection is None:
            connection = self._idle.pop()
            if connection.closed or _has_news(connection):
                await connection.close()
                connection = None
        if connection is None:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=_CONNECT_SECONDS, row_factory=dict_row,
                application_name="storage",
            )  # fmt: skip
        try:
            yield connection
        finally:
            if connection.closed or connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            else:
                self._idle.append(connection)


def _has_news(connection: Connection) -> bool:
    """Whether the server spoke, or hung up, while the connection was idle."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settings(request: Request, caller: Caller, operation: str) -> str:
    return orjson.dumps(
        {
            "search_path": "storage,public,extensions",
            "statement_timeout": "30s",
            "request.jwt": caller.token,
            "request.jwt.claims": orjson.dumps(caller.claims).decode(),
            "request.jwt.claim.role": caller.role,
            "request.jwt.claim.sub": caller.subject or "",
            "request.headers": orjson.dumps(request.headers).decode(),
            "request.method": request.method,
            "request.path": request.target,
            "storage.operation": operation,
            "storage.allow_delete_query": "true",
            # Last: what may be set is the login role's right, not the caller's.
            "role": caller.role,
        }
    ).decode()
