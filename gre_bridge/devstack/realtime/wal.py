"""Reads committed row changes from the WAL by polling a temporary logical slot, as Realtime does.

Knows pgoutput and time, nothing of channels: what to do with a batch is the caller's (`deliver`). It must
never remember a position: a lost slot is replaced by a new one at "now", and what came in between is gone.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg

log = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Row = dict[str, object]
"""Column name to the value as the type's text, JSON columns as an `orjson.Fragment`, NULL as None."""

SNAPSHOT_EVERY = 0.25
"""Seconds after which the running transactions are logged: a poll reads the WAL from such a record on, and the server
writes one every 15 s. On two cores shared with everything else, a third of all CPU went into reading it again, and at
200 messages a second a fifth still did with one every second."""
_JSON_TYPES = (114, 3802)
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CLIENT_OPTIONS = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c statement_timeout=30s -c plan_cache_mode=force_generic_plan"


@dataclass(frozen=True, slots=True)
class Relation:
    """A published table; `columns` are (name, type oid, part of the replica identity)."""

    oid: int
    schema: str
    table: str
    columns: tuple[tuple[str, int, bool], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One row of one committed transaction; `new` lacks columns whose TOASTed value did not change."""

    relation: Relation
    type: str
    new: Row | None
    old: Row | None
    committed: str
    size: int


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> int:
        (value,) = struct.unpack_from("!" + layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return int(value)

    def text(self) -> str:
        end = self.data.index(0, self.at)
        value, self.at = self.data[self.at : end].decode(), end + 1
        return value

    def row(self, relation: Relation, *, keys_only: bool = False) -> Row:
        values: Row = {}
        self.take("h")
        for name, type_oid, is_key in relation.columns:
            kind, raw = self.take("B"), b""
            if kind == 0x74:  # t: a value as text
                size = self.take("i")
                raw, self.at = self.data[self.at : self.at + size], self.at + size
            if kind == 0x75 or (keys_only and not is_key):  # u: unchanged TOAST
                continue
            if kind == 0x6E:  # n: NULL
                values[name] = None
            else:
                values[name] = orjson.Fragment(raw) if type_oid in _JSON_TYPES else raw.decode()
        return values


def decode(messages: Iterable[bytes]) -> list[Change]:
    """Decode pgoutput (protocol 1) messages of whole transactions; TRUNCATE is not announced (measured)."""
    relations: dict[int, Relation] = {}
    changes: list[Change] = []
    committed = ""
    for data in messages:
        reader = _Reader(data)
        kind = chr(reader.take("B"))
        if kind == "B":
            reader.take("q")
            at = _POSTGRES_EPOCH + timedelta(microseconds=reader.take("q"))
            committed = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        elif kind == "R":
            oid = reader.take("i")
            schema, table = reader.text() or "pg_catalog", reader.text()
            reader.take("B")
            columns = []
            for _ in range(reader.take("h")):
                is_key, name, type_oid = reader.take("B") == 1, reader.text(), reader.take("I")
                reader.take("i")
                columns.append((name, type_oid, is_key))
            relations[oid] = Relation(oid, schema, table, tuple(columns))
        elif kind in "IUD":
            relation = relations[reader.take("i")]
            new: Row | None = None
            old: Row | None = None
            part = chr(reader.take("B"))
            if part in "KO":
                old = reader.row(relation, keys_only=part == "K")
                part = chr(reader.take("B")) if kind == "U" else ""
            if part == "N":
                new = reader.row(relation)
            if kind == "U" and new is not None:
                if old is None:
                    old = {name: new.get(name) for name, _, is_key in relation.columns if is_key}
                new = {**old, **new}
            type_ = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}[kind]
            changes.append(Change(relation, type_, new, old, committed, len(data)))
    return changes


class WalPoller:
    """Polls while it is wanted, and for `linger` seconds longer; survives every failure of PostgreSQL."""

    def __init__(
        self,
        *,
        dsn: str,
        publication: str,
        deliver: Callable[[Connection, list[Change]], Awaitable[int]],
        publication_changed: Callable[[], None],
        idle_poll: float,
        publication_check: float,
        max_backoff: float,
        linger: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deliver` returns how many changes it sent; times are in seconds."""
        self._dsn = dsn
        self._publication = publication
        self._deliver = deliver
        self._publication_changed = publication_changed
        self._idle_poll = idle_poll
        self._publication_check = publication_check
        self._max_backoff = max_backoff
        self._linger = linger
        self._clock = clock
        self._wanted = asyncio.Event()
        self._unwanted_since: float | None = None
        self._tables: object = None
        self._backoff = 0.0
        self.ready = False
        """Whether a slot exists, so that what is committed from now on will be seen."""

    def want(self, wanted: bool) -> None:
        """Say whether anyone is subscribed."""
        if wanted:
            self._unwanted_since = None
            self._wanted.set()
        elif self._unwanted_since is None:
            self._unwanted_since = self._clock()

    async def run(self) -> None:
        """Poll for ever; ends only by cancellation."""
        while True:
            await self._wanted.wait()
            try:
                # Reading the WAL empties a backend's caches, so what is asked about the rows goes to another.
                async with await self._connect() as conn, await self._connect() as judging:
                    await self._poll_until_unwanted(conn, judging)
            except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
                log.warning("realtime: polling the WAL failed (%s)", type(error).__name__)
                self._backoff = min(self._max_backoff, max(0.25, self._backoff * 2))
            finally:
                self.ready = False
            await asyncio.sleep(self._backoff)

    async def _connect(self) -> Connection:
        async with asyncio.timeout(10):
            return await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, options=_CLIENT_OPTIONS, application_name="realtime_rls"
            )

    async def _poll_until_unwanted(self, conn: Connection, judging: Connection) -> None:
        slot = f"supabase_realtime_{uuid.uuid4().hex[:12]}"
        await conn.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (slot,))
        self.ready = True
        self._backoff = 0.0
        checked = noted = -self._publication_check
        while True:
            if self._unwanted_since is not None and self._clock() - self._unwanted_since >= self._linger:
                self._wanted.clear()
                self._tables = None
                return
            if self._clock() - checked >= self._publication_check:
                checked = self._clock()
                await self._check_publication(judging)
            async with asyncio.timeout(30):
                cursor = await conn.execute(
                    "select data from pg_logical_slot_get_binary_changes(%s, null, 100,"
                    " 'proto_version', '1', 'publication_names', %s)",
                    (slot, self._publication),
                    binary=True,
                )
                changes = decode(row[0] for row in await cursor.fetchall())
            if changes and self._clock() - noted >= SNAPSHOT_EVERY and conn.info.server_version >= 160000:
                noted = self._clock()
                await conn.execute("select pg_log_standby_snapshot()")
            sent = 0
            if changes:
                sent = await self._deliver(judging, changes)
            # The real one's poll interval is a fifth of its idle interval (idle multiplier 5, with some overhead).
            await asyncio.sleep(0 if sent else self._idle_poll * 0.3 if changes else self._idle_poll)

    async def _check_publication(self, conn: Connection) -> None:
        cursor = await conn.execute(
            "select schemaname, tablename, format('%%I.%%I', schemaname, tablename)::regclass::oid"
            " from pg_publication_tables where pubname = %s order by 1, 2",
            (self._publication,),
        )
        tables = await cursor.fetchall()
        changed = self._tables is not None and self._tables != tables
        self._tables = tables
        if changed:
            self._publication_changed()
