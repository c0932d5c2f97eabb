"""Decides who gets which row change: bindings, their filters, and row-level security at the time of the poll.

PostgreSQL does the judging and the formatting (sql/realtime.sql); here is only who asks for what. Nothing
here sends: `route` returns frames' payloads in commit order.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from gre_bridge.devstack.realtime.wal import Change, Connection, Relation, Row

if TYPE_CHECKING:
    from gre_bridge.devstack.realtime.socket import Channel

Json = dict[str, Any]

MAX_RECORD = 1024 * 1024
"""Bytes of a change above which columns over 64 bytes are left out (measured on Realtime 2.122.0)."""

_OPERATORS = {
    "eq",
    "neq",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "like",
    "ilike",
    "is",
    "match",
    "imatch",
    "isdistinct",
}


class SubscriptionError(Exception):
    """A binding cannot be subscribed; the text is what Realtime's system message says."""


def _quote(value: object) -> str:
    return orjson.dumps(value).decode().replace('","', '", "')


def _parse_filters(text: str) -> list[Json]:
    filters = []
    for part in re.findall(r"(?:\([^)]*\)|[^,])+", text.strip()):
        column, has_value, rest = part.strip().partition("=")
        negate = rest.startswith("not.")
        operator, has_operator, value = rest.removeprefix("not.").partition(".")
        if not has_value or not has_operator or operator not in _OPERATORS:
            pieces = [operator, value] if has_operator else [rest] if has_value else [column]
            raise SubscriptionError(f"Error parsing `filter` params: {_quote(pieces)}")
        if operator == "in":
            if not (value.startswith("(") and value.endswith(")")):
                raise SubscriptionError(
                    "Error parsing `filter` params: `in` filter value must be wrapped by parentheses"
                )
            value = "{" + value[1:-1] + "}"
        filters.append({"col": column, "op": operator, "val": value, "negate": negate})
    return filters


@dataclass(frozen=True, slots=True)
class Binding:
    """What one element of a join's `postgres_changes` asks for; `filters` is JSON for sql/realtime.sql."""

    id: int
    event: str
    schema: str
    table: str
    filters: str
    select: tuple[str, ...] | None

    @staticmethod
    def id_of(params: Json) -> int:
        """The stable positive id that is echoed with the binding; the same for every client."""
        return zlib.crc32(orjson.dumps(params, option=orjson.OPT_SORT_KEYS)) % 0x7FFFFFF + 1

    @classmethod
    def parse(cls, params: Json) -> Binding:
        """Raise SubscriptionError where Realtime answers with a system error."""
        schema, table = params.get("schema"), params.get("table")
        if not isinstance(schema, str) and not isinstance(table, str):
            shown = ", ".join(f"{_quote(key)} => {_quote(value)}" for key, value in params.items())
            raise SubscriptionError(
                "No subscription params provided. Please provide at least a `schema` or `table`"
                f" to subscribe to: %{{{shown}}}"
            )
        event, select = str(params.get("event", "*")).upper(), params.get("select")
        return cls(
            id=cls.id_of(params),
            event=event if event in ("INSERT", "UPDATE", "DELETE") else "*",
            schema=schema if isinstance(schema, str) else "public",
            table=table if isinstance(table, str) else "*",
            filters=orjson.dumps(_parse_filters(str(params.get("filter") or ""))).decode(),
            select=tuple(map(str, select)) if isinstance(select, list) and select else None,
        )

    async def check(self, conn: Connection, publication: str, role: str) -> None:
        """Raise SubscriptionError if PostgreSQL finds no such published table, column, value or role."""
        filters = ", ".join(
            f"{{{_quote(f['col'])}, {_quote(f['op'])}, {_quote(f['val'])}, {str(f['negate']).lower()}}}"
            for f in orjson.loads(self.filters)
        )
        params = (
            f"[event: {self.event}, schema: {self.schema}, table: {self.table}, filters: [{filters}],"
            f" select: {_quote(self.select) if self.select else 'nil'}]"
        )
        unable = "Unable to subscribe to changes with given parameters."
        try:
            cursor = await conn.execute(
                "select realtime.stack_check(%s, %s, %s, %s::jsonb, %s)",
                (publication, self.schema, self.table, self.filters, role),
            )
            row = await cursor.fetchone()
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            condition = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
            raise SubscriptionError(
                f"{unable} An exception happened so please check your connect parameters: {params}."
                f" Exception: ERROR {error.sqlstate} ({condition}) {error.diag.message_primary}"
            ) from error
        if row is None or not row[0]:
            raise SubscriptionError(
                f"{unable} Please check Realtime is enabled for the given connect parameters: {params}"
            )

    def covers(self, relation: Relation) -> bool:
        """Whether the binding is about this table."""
        return self.schema in ("*", relation.schema) and self.table in ("*", relation.table)


@dataclass
class _Batch:
    """The changes of one table in one poll; remembers what it asked PostgreSQL."""

    conn: Connection
    relation: Relation
    changes: dict[int, Change]
    access: dict[str, tuple[bool, list[str], list[Json]] | None] = field(default_factory=dict)
    passing: dict[tuple[str, str, str], set[int]] = field(default_factory=dict)
    payloads: dict[tuple[str, object], dict[int, Json]] = field(default_factory=dict)

    async def _rows(self, function: str, rows: list[Row | None], *args: object) -> list[Any]:
        places = ", ".join(["%s"] * len(args))
        cursor = await self.conn.execute(
            f"select * from realtime.{function}(%s::oid::regclass, %s::jsonb, {places})",
            (self.relation.oid, orjson.dumps(rows).decode(), *args),
        )
        return [row[0] for row in await cursor.fetchall()]

    async def access_of(self, role: str) -> tuple[bool, list[str], list[Json]] | None:
        """(RLS is on, primary key, selectable columns) for a role, or None if table or role is gone."""
        if role not in self.access:
            try:
                cursor = await self.conn.execute(
                    "select * from realtime.stack_access(%s::oid::regclass, %s)", (self.relation.oid, role)
                )
                self.access[role] = await cursor.fetchone()
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                self.access[role] = None
        return self.access[role]

    async def passing_for(self, binding: Binding, role: str, claims: str) -> set[int]:
        """Positions of the changes that pass the filters and, but for deletes, RLS as it is now."""
        key = (binding.filters, role, claims)
        access = await self.access_of(role)
        if access is None:
            return set()
        if key not in self.passing:
            passing = self.passing[key] = set()
            rls, keys, columns = access
            judged = rls and bool(keys) and self._names(columns).issuperset(keys)
            for deleted in (False, True):
                some = {i: c for i, c in self.changes.items() if (c.type == "DELETE") is deleted}
                visible_to = role if judged and not deleted else None
                if visible_to is None and binding.filters == "[]":
                    passing.update(some)
                elif some:
                    rows = [c.old if deleted else c.new for c in some.values()]
                    try:
                        oks = await self._rows("stack_passes", rows, binding.filters, visible_to, claims)
                    except psycopg.OperationalError:
                        raise
                    except psycopg.Error:  # a policy that raises hides its rows from its own subscriber only
                        continue
                    passing.update(i for i, ok in zip(some, oks, strict=True) if ok)
        return self.passing[key]

    async def payloads_for(self, binding: Binding, role: str) -> dict[int, Json]:
        """The `data` object of each change as this role (and this binding's `select`) may read it."""
        key = (role, binding.select)
        access = await self.access_of(role)
        if access is None:
            return {}
        if key not in self.payloads:
            rls, keys, columns = access
            refused = "" if keys else "Error 400: Bad Request, no primary key"
            if not refused and not self._names(columns).issuperset(keys):
                refused = "Error 401: Unauthorized"
            if binding.select:
                columns = [c for c in columns if c["name"] in {*binding.select, *keys}]
            rows: list[Row | None] = [self._small(change, change.new) for change in self.changes.values()]
            for change in self.changes.values():
                old = self._small(change, change.old)
                # RLS cannot judge a deleted row, so no more than its key is told.
                hidden = old.keys() - keys if rls and change.type == "DELETE" else set()
                rows.append({name: value for name, value in old.items() if name not in hidden})
            texts = await self._rows("stack_render", rows, sorted(self._names(columns)))
            pairs = zip(texts[: len(self.changes)], texts[len(self.changes) :], strict=True)
            self.payloads[key] = {
                i: self._data(change, columns, *pair, "" if change.type == "DELETE" else refused)
                for (i, change), pair in zip(self.changes.items(), pairs, strict=True)
            }
        return self.payloads[key]

    @staticmethod
    def _names(columns: list[Json]) -> set[str]:
        return {column["name"] for column in columns}

    def _too_large(self, change: Change) -> bool:
        # 60 bytes: what the format in which Realtime measures spends on a column's name and type.
        return change.size + 60 * len(change.relation.columns) > MAX_RECORD

    def _small(self, change: Change, row: Row | None) -> Row:
        if row is None or not self._too_large(change):
            return row or {}
        return {k: v for k, v in row.items() if v is not None and len(orjson.dumps(v)) <= 66}

    def _data(self, change: Change, columns: list[Json], new: str, old: str, refused: str) -> Json:
        data: Json = {"table": self.relation.table, "type": change.type}
        if change.new is not None:
            data["record"] = {} if refused else orjson.Fragment(new)
        error = "Error 413: Payload Too Large" if self._too_large(change) else None
        data["columns"] = [] if refused else columns
        data["errors"] = [refused or error] if refused or error else None
        data["schema"] = self.relation.schema
        data["commit_timestamp"] = None if refused else change.committed
        if change.old is not None and not refused:
            data["old_record"] = orjson.Fragment(old)
        return data


async def route(
    conn: Connection, changes: list[Change], channels: Iterable[Channel]
) -> list[list[tuple[Channel, Json]]]:
    """For each change, in commit order, who gets which `postgres_changes` payload.

    Raises psycopg.OperationalError when PostgreSQL is lost; then the batch is lost, as Realtime loses it.
    """
    tables: dict[Relation, dict[int, Change]] = defaultdict(dict)
    for position, change in enumerate(changes):
        tables[change.relation][position] = change
    frames: list[list[tuple[Channel, Json]]] = [[] for _ in changes]
    everyone = list(channels)
    for relation, its_changes in tables.items():
        batch = _Batch(conn, relation, its_changes)
        for channel in everyone:
            ids: dict[tuple[int, object], list[int]] = defaultdict(list)
            data: dict[tuple[int, object], Json] = {}
            for binding in channel.subscriptions:
                if not binding.covers(relation):
                    continue
                passing = await batch.passing_for(binding, channel.role, channel.claims)
                payloads = await batch.payloads_for(binding, channel.role) if passing else {}
                for i in sorted(passing & payloads.keys()):
                    if (
                        binding.event in ("*", its_changes[i].type)
                        and binding.id not in ids[i, binding.select]
                    ):
                        ids[i, binding.select].append(binding.id)
                        data[i, binding.select] = payloads[i]
            for key, their_ids in ids.items():
                frames[key[0]].append((channel, {"data": data[key], "ids": their_ids}))
    return frames
