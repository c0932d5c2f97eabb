r"""One SQL statement for one request: identifiers are quoted, every value is a parameter.

Pure: it takes what was asked and what the schema cache knows, and holds text and parameters. Each
statement answers one row: total count, rows on this page, body, response.headers, response.status,
rows inserted. PostgreSQL writes the JSON, so numbers keep their scale and `, \n ` parts the rows; values
have no type of their own, so PostgreSQL's complaints about them are word for word PostgREST's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gre_bridge.devstack.postgrest.catalog import Catalog, Routine, Table
from gre_bridge.devstack.postgrest.errors import left_out
from gre_bridge.devstack.postgrest.query import IS, OPERATORS
from gre_bridge.devstack.postgrest.query_tree import Column, Filter, Group, Item, Node

_GUCS: Final = "nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), '')"
_INSERTED: Final = "nullif(current_setting('pgrst.inserted', true), '')::int"
# Counting up for each row and down for each conflict tells an insert (201) from an update (200).
_COUNTER: Final = f"set_config('pgrst.inserted', (coalesce({_INSERTED}, 0) %s 1)::text, true) <> '%s'"
_CSV: Final = (
    "(SELECT coalesce(string_agg(k, ','), '') FROM (SELECT json_object_keys(row_to_json(h)) AS k"
    " FROM (SELECT * FROM pgrst_source LIMIT 1) h) s) || E'\\n' ||"
    " coalesce(string_agg(substring(_postgrest_t::text, 2, length(_postgrest_t::text) - 2), E'\\n'), '')"
)
_BODIES: Final = {
    "array": "coalesce(json_agg(_postgrest_t), '[]')::text",
    "object": "coalesce(json_agg(_postgrest_t)->0, 'null')::text",
    "location": "coalesce(json_agg(_postgrest_t)->0, 'null')::text",
    "scalars": "coalesce(json_agg(_postgrest_t.pgrst_scalar), '[]')::text",
    "csv": _CSV,
    "none": "''",
}


def ident(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace("\0", "").replace('"', '""') + '"'


def relation(table: Table) -> str:
    """A table's quoted name with its schema."""
    return f"{ident(table.schema)}.{ident(table.name)}"


class Statement:
    """One statement being built: `text` with `$n`, its `params`, and what EXPLAIN is asked, if anything.

    `shape` is what the body becomes: array, object, csv, location (the key of one new row) or none.
    """

    def __init__(self, catalog: Catalog, *, shape: str, max_rows: int | None = None) -> None:
        self.text = ""
        self.params: list[str] = []
        self.explain: Statement | None = None
        self._catalog = catalog
        self._shape = shape
        self._max_rows = max_rows
        self._aliases = 0

    def read(self, table: Table, node: Node, *, count: str | None) -> None:
        """SELECT from a table or view, with what is embedded in it."""
        source, total = (
            f"WITH pgrst_source AS ({self._select(table, node, ident(table.name))})",
            "null::bigint",
        )
        if count:
            # `estimated` counts exactly up to the row cap; beyond it the planner's guess is good enough.
            capped = count == "estimated" and self._max_rows is not None
            if count == "exact" or capped:
                cap = f" LIMIT {(self._max_rows or 0) + 1}" if capped else ""
                total = f"(SELECT count(*) FROM ({self._matching(table, node)}{cap}) pgrst_source_count)"
            if count != "exact":
                self.explain = Statement(self._catalog, shape="none")
                self.explain.plan(table, node)
        self._finish(source, total=total)

    def plan(self, table: Table, node: Node) -> None:
        """EXPLAIN what a count would count."""
        self.text = f"EXPLAIN (FORMAT JSON) {self._matching(table, node)}"

    def insert(
        self, table: Table, node: Node, body: str, columns: Sequence[str], *,
        array: bool, merge: bool | None, conflict: Sequence[str], defaults: bool,
    ) -> None:  # fmt: skip
        """INSERT of a JSON object or array; `merge` is None without ON CONFLICT, else whether to update."""
        names = ", ".join(ident(name) for name in columns)
        if columns:
            types = {name: table.columns[name] for name in columns}
            source = self._record(body, types, array=array, defaults=table.defaults if defaults else None)
            text = f"INSERT INTO {relation(table)}({names}) SELECT {names} FROM {source}"
        else:
            rows = f"json_array_elements({self._value(body)}::json)" if array else "generate_series(1, 1)"
            text = f"INSERT INTO {relation(table)} SELECT FROM {rows}"
        if merge is not None and conflict:
            updates = ", ".join(f"{ident(name)} = EXCLUDED.{ident(name)}" for name in columns)
            if merge:
                text += f" WHERE {_COUNTER % ('+', 0)}"
            text += f" ON CONFLICT({', '.join(ident(name) for name in conflict)}) "
            text += (
                f"DO UPDATE SET {updates} WHERE {_COUNTER % ('-', -1)}" if merge and updates else "DO NOTHING"
            )
        self._write(f"{text} RETURNING {self._returning(table, node)}")

    def update(self, table: Table, node: Node, body: str, columns: Sequence[str], *, array: bool) -> None:
        """UPDATE with one JSON object; without columns it selects nothing, as an update of no row would."""
        if not columns:
            self._write(f"SELECT {self._returning(table, node)} FROM {relation(table)} WHERE false")
            return
        source = self._record(body, {name: table.columns[name] for name in columns}, array=array)
        sets = ", ".join(f"{ident(name)} = pgrst_body.{ident(name)}" for name in columns)
        text = f"UPDATE {relation(table)} SET {sets} FROM (SELECT * FROM {source} LIMIT 1) pgrst_body"
        where = self._where(table, node, ident(table.name))
        self._write(f"{text}{where} RETURNING {self._returning(table, node)}")

    def delete(self, table: Table, node: Node) -> None:
        """DELETE of what the filters match."""
        where = self._where(table, node, ident(table.name))
        self._write(f"DELETE FROM {relation(table)}{where} RETURNING {self._returning(table, node)}")

    def call(
        self, routine: Routine, node: Node, body: str | Mapping[str, str], names: Sequence[str], *,
        array: bool, count: bool,
    ) -> None:  # fmt: skip
        """SELECT from a function; `body` is the JSON of a POST, or the arguments of a GET by name."""
        given = [argument for argument in routine.arguments if argument.name in names]
        source = passed = ""
        if routine.unnamed_json and not given:
            passed = f"{self._value(body if isinstance(body, str) else 'null')}::{routine.arguments[0].type}"
        elif isinstance(body, Mapping):
            values = ((a, f"{self._value(body[a.name])}::{a.type}") for a in given)
            passed = ", ".join(f"{'VARIADIC ' * a.variadic}{ident(a.name)} := {value}" for a, value in values)
        elif given:
            source = self._record(body, {a.name: a.type for a in given}, array=array)
            source = f" FROM (SELECT * FROM {source} LIMIT 1) pgrst_body" if array else f" FROM {source}"
            passed = ", ".join(
                f"{'VARIADIC ' * a.variadic}{ident(a.name)} := pgrst_body.{ident(a.name)}" for a in given
            )
        function = f"{ident(routine.schema)}.{ident(routine.name)}({passed})"
        if routine.returns_rows:
            self._call_rows(
                routine, node, f"{source}, {function}" if source else f" FROM {function}", count=count
            )
            return
        scalars = f"SELECT {function} AS pgrst_scalar{source}"
        if routine.returns_set:
            self._shape = "scalars"
            total = "(SELECT count(*) FROM pgrst_source)" if count else "null::bigint"
            limit = self._limit(Node())
            self._finish(f"WITH pgrst_source AS ({scalars})", total=total, rows=f"pgrst_source{limit}")
            return
        result = (
            "pgrst_scalar::text" if routine.returns_void else "coalesce(to_json(pgrst_scalar)::text, 'null')"
        )
        total = "1::bigint" if count else "null::bigint"
        self.text = f"SELECT {total}, 1::bigint, {result}, {_GUCS}, null::int FROM ({scalars}) pgrst_call"

    def _call_rows(self, routine: Routine, node: Node, call: str, *, count: bool) -> None:
        if node.embeds:
            raise left_out("embedding in the result of a function")
        name = ident(routine.name)
        found = f"FROM pgrst_source AS {name}{self._where(None, node, name)}"
        items, order = self._items(None, node, name), self._order(None, node, name)
        if self._shape == "array" and not routine.returns_set:
            self._shape = "object"
        self._finish(
            f"WITH pgrst_source AS (SELECT pgrst_call.*{call} pgrst_call)",
            total=f"(SELECT count(*) {found})" if count else "null::bigint",
            rows=f"(SELECT {items} {found}{order}{self._limit(node)}) pgrst_page",
        )

    def _finish(self, source: str, *, total: str = "null::bigint", rows: str = "pgrst_source") -> None:
        self.text = (
            f"{source} SELECT {total}, count(_postgrest_t), {_BODIES[self._shape]}, {_GUCS}, {_INSERTED} "
            f"FROM (SELECT * FROM {rows}) _postgrest_t"
        )

    def _write(self, text: str) -> None:
        self._finish(f"WITH pgrst_source AS ({text})")

    def _returning(self, table: Table, node: Node) -> str:
        if node.embeds:
            raise left_out("embedding in the result of a write")
        if self._shape == "none":
            return "1"
        if self._shape == "location":
            return ", ".join(f"{ident(table.name)}.{ident(name)}" for name in table.primary_key) or "1"
        return self._items(table, node, ident(table.name))

    def _value(self, value: str) -> str:
        self.params.append(value)
        return f"${len(self.params)}"

    def _record(
        self, body: str, types: Mapping[str, str], *, array: bool, defaults: Mapping[str, str] | None = None
    ) -> str:
        """The body as rows called pgrst_body; `defaults` fills in the keys that a row leaves out."""
        columns = ", ".join(f"{ident(name)} {kind}" for name, kind in types.items())
        value = self._value(body)
        if defaults is None:
            return f"json_to_record{'set' * array}({value}::json) AS pgrst_body({columns})"
        filled = ", ".join(
            f"{self._value(name)}::text, {defaults[name]}" for name in types if name in defaults
        )
        rows = f"{value}::jsonb" if array else f"jsonb_build_array({value}::jsonb)"
        return (
            f"jsonb_to_recordset((SELECT jsonb_agg(jsonb_build_object({filled}) || pgrst_row)"
            f" FROM jsonb_array_elements({rows}) pgrst_row)) AS pgrst_body({columns})"
        )

    def _select(self, table: Table, node: Node, name: str, join: str = "") -> str:
        items, joins = [self._items(table, node, name)] if node.items else [], ""
        for embed in node.embeds:
            item, joined = self._embed(table, embed, name)
            items.append(item)
            joins += joined
        source = relation(table) if name == ident(table.name) else f"{relation(table)} AS {name}"
        where, order = self._where(table, node, name, join), self._order(table, node, name)
        return f"SELECT {', '.join(items)} FROM {source}{joins}{where}{order}{self._limit(node)}"

    def _matching(self, table: Table, node: Node) -> str:
        """What a count counts: the root's rows, less those that an inner embedding drops."""
        name = ident(table.name)
        joins = "".join(self._embed(table, embed, name)[1] for embed in node.embeds if embed.inner)
        return f"SELECT 1 FROM {relation(table)}{joins}{self._where(table, node, name)}"

    def _embed(self, table: Table, embed: Node, name: str) -> tuple[str, str]:
        """The item and the lateral join of an embedded table: an object on the way to one row, else an array."""
        key, holds = self._catalog.relationship(table, embed.name, embed.hint)
        other = self._catalog.table(*(key.target if holds else key.table))
        mine, theirs = (key.columns, key.target_columns) if holds else (key.target_columns, key.columns)
        self._aliases += 1
        inner, rows = ident(f"{other.name}_{self._aliases}"), ident(f"pgrst_embed_{self._aliases}")
        on = " AND ".join(
            f"{inner}.{ident(b)} = {name}.{ident(a)}" for a, b in zip(mine, theirs, strict=True)
        )
        asked, kind = self._select(other, embed, inner, on), "INNER" if embed.inner else "LEFT"
        if holds or key.to_one:
            item = f"row_to_json({rows}.*)::jsonb AS {ident(embed.alias)}"
            return item, f" {kind} JOIN LATERAL ({asked}) AS {rows} ON TRUE"
        asked = f"SELECT json_agg(pgrst_row)::jsonb AS pgrst_rows FROM ({asked}) AS pgrst_row"
        item = f"coalesce({rows}.pgrst_rows, '[]') AS {ident(embed.alias)}"
        found = f"{rows}.pgrst_rows IS NOT NULL" if embed.inner else "TRUE"
        return item, f" {kind} JOIN LATERAL ({asked}) AS {rows} ON {found}"

    def _column(self, table: Table | None, column: Column, name: str) -> str:
        if column.name == "*":
            return f"{name}.*"
        text = f"{name}.{ident(column.name)}"
        kind = table.columns.get(column.name, "json") if table else "json"
        if column.path and kind not in ("json", "jsonb"):
            text = f"to_jsonb({text})"
        for arrow, key in column.path:
            text += f"{arrow}{self._value(key)}::{'int' if _is_index(key) else 'text'}"
        return text

    def _items(self, table: Table | None, node: Node, name: str) -> str:
        return ", ".join(self._item(table, item, name) for item in node.items)

    def _item(self, table: Table | None, item: Item, name: str) -> str:
        text, alias = self._column(table, item.column, name), item.alias
        if alias is None and (item.column.path or item.cast):
            keys = [key for _, key in item.column.path if not _is_index(key)]
            alias = keys[-1] if keys else item.column.name
        text = f"CAST({text} AS {item.cast})" if item.cast else text
        return f"{text} AS {ident(alias)}" if alias else text

    def _where(self, table: Table | None, node: Node, name: str, join: str = "") -> str:
        if any(isinstance(f, Filter) and f.column.name in {e.alias for e in node.embeds} for f in node.where):
            raise left_out("filtering by whether an embedded table has rows")
        conditions = [join] if join else []
        conditions += [self._condition(table, part, name) for part in node.where]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def _condition(self, table: Table | None, part: Filter | Group, name: str) -> str:
        negation = "NOT " if part.negated else ""
        if isinstance(part, Group):
            members = [self._condition(table, member, name) for member in part.members]
            return f"{negation}({f' {part.operator} '.join(members)})"
        left = f"{negation}{self._column(table, part.column, name)}"
        if part.operator == "is":
            return f"{left} IS {IS[part.value.lower()]}"
        if part.operator == "in":
            return f"{left} = ANY({self._value(part.value)})"
        value = part.value.replace("*", "%") if part.operator in ("like", "ilike") else part.value
        right = self._value(value)
        return (
            f"{left} {OPERATORS[part.operator]} {f'{part.quantifier}({right})' if part.quantifier else right}"
        )

    def _order(self, table: Table | None, node: Node, name: str) -> str:
        terms = [
            f"{self._column(table, o.column, name)} {o.direction} {o.nulls}".rstrip() for o in node.order
        ]
        return f" ORDER BY {', '.join(terms)}" if terms else ""

    def _limit(self, node: Node) -> str:
        limits = [limit for limit in (node.limit, self._max_rows) if limit is not None]
        if not limits and not node.offset:
            return ""
        limit = f"{self._value(str(min(limits)))}::bigint" if limits else "ALL"
        return f" LIMIT {limit} OFFSET {self._value(str(node.offset))}::bigint"


def _is_index(key: str) -> bool:
    return key.lstrip("-").isdigit()
