"""INSERT, UPDATE and DELETE over PostgREST: from the request to the statement, from its row to the answer."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from gre_bridge.devstack.postgrest.catalog import Catalog, Table
from gre_bridge.devstack.postgrest.database import Row
from gre_bridge.devstack.postgrest.errors import ServerError, bad_request, left_out
from gre_bridge.devstack.postgrest.query_tree import Filter, Query
from gre_bridge.devstack.postgrest.request import Answer, Request, content_range
from gre_bridge.devstack.postgrest.sql import Statement


class Write:
    """One POST, PATCH or DELETE on a table."""

    def __init__(self, request: Request, catalog: Catalog, table: Table, query: Query) -> None:
        """Raises what can be refused at once: a method, PUT, a limit."""
        self._request = request
        self._catalog = catalog
        self._table = table
        self._query = query
        self._returns = request.prefer.get("return", "minimal")
        if request.method == "PUT":
            raise _put(table, query)
        if request.method not in ("POST", "PATCH", "DELETE"):
            raise ServerError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
        if request.method != "POST" and (query.root.limit is not None or query.root.offset):
            raise left_out("limit and offset of an update or delete")

    def statement(self) -> Statement:
        """The SQL; raises PGRST102 for the body and PGRST204 for a column that is not known."""
        table, root, request = self._table, self._query.root, self._request
        statement = Statement(self._catalog, shape=self._shape)
        if request.method == "DELETE":
            statement.delete(table, root)
            return statement
        body, names, array = request.payload(columns=self._query.columns)
        for name in names:
            if name not in table.columns:
                text = f"Could not find the '{name}' column of '{table.name}' in the schema cache"
                raise bad_request("PGRST204", text)
        if request.method == "PATCH":
            statement.update(table, root, body, names, array=array)
            return statement
        resolution = request.prefer.get("resolution")
        statement.insert(
            table, root, body, names, array=array,
            merge=None if resolution is None else resolution == "merge-duplicates",
            conflict=self._query.on_conflict or table.primary_key,
            defaults=request.prefer.get("missing") == "default",
        )  # fmt: skip
        return statement

    @property
    def verdict(self) -> Callable[[Row], None] | None:
        """What must hold of the row before the transaction may commit, if anything."""
        most = self._request.most_affected if self._request.method != "POST" else None
        single = self._shape == "object"
        if most is None:
            return exactly_one if single else None

        def verdict(row: Row) -> None:
            if row[1] > most:
                text = "Query result exceeds max-affected preference constraint"
                raise bad_request("PGRST124", text, details=f"The query affects {row[1]} rows")
            if single:
                exactly_one(row)

        return verdict

    def answer(self, row: Row) -> Answer:
        """The answer to a write that is committed."""
        request, applied = self._request, ["return", "count"]
        low, high = (0, row[1] - 1) if request.method == "PATCH" else (1, 0)
        status = 200 if self._returns == "representation" else 204
        if request.method == "POST":
            merged = request.prefer.get("resolution") == "merge-duplicates" and not row[5]
            status = 200 if merged and (self._table.primary_key or self._query.on_conflict) else 201
            applied.append("resolution")
        if request.method != "DELETE":
            applied.append("missing")
        counted = row[1] if "count" in request.prefer else None
        answer = Answer(status, content_range(low, high, counted) + request.applied(*applied))
        if self._shape == "location":
            keys = orjson.loads(row[2]) or {}
            where = "&".join(f"{k}={'is.null' if v is None else f'eq.{v}'}" for k, v in keys.items())
            answer.headers.append(("location", f"/{self._table.name}?{where}"))
        else:
            answer.body = row[2]
        return answer

    @property
    def _shape(self) -> str:
        if self._returns == "representation":
            return self._request.shape
        keyed = self._returns == "headers-only" and self._request.method == "POST" and self._table.primary_key
        return "location" if keyed else "none"


def exactly_one(row: Row) -> None:
    """Raise PGRST116 unless there is one row, as `Accept: application/vnd.pgrst.object+json` demands."""
    if row[1] != 1:
        raise ServerError(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            details=f"The result contains {row[1]} rows",
        )


def _put(table: Table, query: Query) -> ServerError:
    """PUT is refused either way: supabase-py and supabase-js never send it."""
    filters = [part for part in query.root.where if isinstance(part, Filter) and not part.negated]
    keys = sorted(part.column.name for part in filters if part.operator == "eq")
    if keys == sorted(table.primary_key) and len(keys) == len(query.root.where):
        return left_out("PUT")
    text = "Filters must include all and only primary key columns with 'eq' operators"
    return ServerError(405, "PGRST105", text)
