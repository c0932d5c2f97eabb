"""The schema cache: what PostgREST remembers about tables, keys, functions and roles between reloads.

Read once from PostgreSQL's catalogs and never changed: a reload makes a new one, and what changed in the
database meanwhile is unknown until then, as with the real one. Finding a thing, or saying in PostgREST's
words that it is not there, happens here; no SQL for a request is built here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.rows import namedtuple_row

from gre_bridge.devstack.postgrest.errors import ServerError, left_out
from gre_bridge.devstack.postgrest.hints import closest


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of an exposed schema; `columns` maps a name to its SQL type, `defaults` to its default."""

    schema: str
    name: str
    columns: Mapping[str, str]
    defaults: Mapping[str, str]
    primary_key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """One foreign key; `to_one` says that its own columns are unique, so that the way back is to one row too."""

    name: str
    table: tuple[str, str]
    columns: tuple[str, ...]
    target: tuple[str, str]
    target_columns: tuple[str, ...]
    to_one: bool


@dataclass(frozen=True, slots=True)
class Argument:
    """An input argument; the name is empty for a single unnamed one."""

    name: str
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True, slots=True)
class Routine:
    """A function of an exposed schema; `settings` are its own SETs that PostgREST applies to the transaction."""

    schema: str
    name: str
    arguments: tuple[Argument, ...]
    returns_set: bool
    returns_rows: bool
    returns_void: bool
    volatile: bool
    settings: tuple[tuple[str, str], ...]
    statements: dict[Any, str] = field(default_factory=dict, compare=False)

    @property
    def unnamed_json(self) -> bool:
        """Whether the whole body is its single argument."""
        return len(self.arguments) == 1 and not self.arguments[0].name and self.arguments[0].type in _JSON

    def accepts(self, names: Collection[str]) -> bool:
        """Whether it can be called with exactly these argument names."""
        known = {argument.name for argument in self.arguments}
        required = {argument.name for argument in self.arguments if argument.required}
        return required <= set(names) <= known and "" not in known


_JSON: Final = ("json", "jsonb")


@dataclass(frozen=True, slots=True)
class Catalog:
    """One loaded schema cache."""

    tables: Mapping[tuple[str, str], Table]
    routines: Mapping[tuple[str, str], Sequence[Routine]]
    foreign_keys: Sequence[ForeignKey]
    role_settings: Mapping[str, tuple[tuple[str, str], ...]]

    def table(self, schema: str, name: str) -> Table:
        """Find a table; raises PGRST205 with a hint."""
        found = self.tables.get((schema, name))
        if found is None:
            near = closest(name, (table for owner, table in self.tables if owner == schema))
            raise ServerError(
                404,
                "PGRST205",
                f"Could not find the table '{schema}.{name}' in the schema cache",
                hint=f"Perhaps you meant the table '{schema}.{near}'" if near else None,
            )
        return found

    def routine(self, schema: str, name: str, names: Collection[str], *, body: bool) -> Routine:
        """Find a function by the exact set of argument names; raises PGRST202 or PGRST203."""
        overloads = self.routines.get((schema, name), ())
        found = [routine for routine in overloads if routine.accepts(names)]
        if not found and body:
            found = [routine for routine in overloads if routine.unnamed_json]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(
                f"{schema}.{name}({', '.join(f'{a.name} => {a.type}' for a in routine.arguments)})"
                for routine in found
            )
            raise ServerError(
                300,
                "PGRST203",
                f"Could not choose the best candidate function between: {choices}",
                hint="Try renaming the parameters or the function itself in the database "
                "so function overloading can be resolved",
            )
        raise self._no_routine(schema, name, sorted(names), overloads, body=body)

    def _no_routine(
        self, schema: str, name: str, names: list[str], overloads: Sequence[Routine], *, body: bool
    ) -> ServerError:
        if overloads:
            lists = [", ".join(sorted(a.name for a in routine.arguments)) for routine in overloads]
            near = closest(f"({', '.join(names)})", [f"({items})" for items in lists])
            near = name + near if near else None
        else:
            near = closest(name, (routine for owner, routine in self.routines if owner == schema))
        word = "parameters" if len(names) > 1 else "parameter"
        searched = f" with {word} {', '.join(names)}" if names else " without parameters"
        other = " or with a single unnamed json/jsonb parameter" if body else ""
        called = f"({', '.join(names)})" if names else " without parameters"
        return ServerError(
            404,
            "PGRST202",
            f"Could not find the function {schema}.{name}{called} in the schema cache",
            details=f"Searched for the function {schema}.{name}{searched}{other}, "
            "but no matches were found in the schema cache.",
            hint=f"Perhaps you meant to call the function {schema}.{near}" if near else None,
        )

    def relationship(self, origin: Table, target: str, hint: str | None) -> tuple[ForeignKey, bool]:
        """Find the foreign key to embed by, and whether `origin` is the side that holds it.

        Raises PGRST200 when there is none, 501 when several fit or a junction table would be needed.
        """
        here, there = (origin.schema, origin.name), (origin.schema, target)
        found = [
            (key, holds)
            for key in self.foreign_keys
            for holds in (True, False)
            if (key.table, key.target) == ((here, there) if holds else (there, here))
            and (hint is None or hint == key.name or (hint,) in (key.columns, key.target_columns))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise left_out(f"choosing between {len(found)} relationships of '{origin.name}' and '{target}'")
        junctions = {key.table for key in self.foreign_keys if key.target == here} & {
            key.table for key in self.foreign_keys if key.target == there
        }
        if junctions and hint is None:
            raise left_out(f"the many-to-many embedding of '{target}' in '{origin.name}'")
        hinted = f" using the hint '{hint}'" if hint else ""
        raise ServerError(
            400,
            "PGRST200",
            f"Could not find a relationship between '{origin.name}' and '{target}' in the schema cache",
            details=f"Searched for a foreign key relationship between '{origin.name}' and '{target}'{hinted} "
            f"in the schema '{origin.schema}', but no matches were found.",
        )


_TABLES: Final = """
select n.nspname as schema, c.relname as name,
       coalesce(array_agg(a.attname::text order by a.attnum) filter (where a.attnum is not null), '{}') as columns,
       coalesce(array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum)
                filter (where a.attnum is not null), '{}') as types,
       coalesce(array_agg(case
           when a.attidentity <> '' then format('nextval(%%L)', pg_get_serial_sequence(c.oid::regclass::text, a.attname))
           when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end order by a.attnum)
                filter (where a.attnum is not null), '{}') as defaults,
       coalesce((select array_agg(k.attname::text order by array_position(p.conkey, k.attnum))
                   from pg_constraint p
                   join pg_attribute k on k.attrelid = p.conrelid and k.attnum = any(p.conkey)
                  where p.conrelid = c.oid and p.contype = 'p'), '{}') as primary_key
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where n.nspname = any(%s) and c.relkind in ('r', 'v', 'm', 'f', 'p') and not c.relispartition
 group by n.nspname, c.relname, c.oid
 order by n.nspname, c.relname
"""

_KEYS: Final = """
select c.conname as name,
       array[tn.nspname::text, t.relname::text] as table, array[fn.nspname::text, f.relname::text] as target,
       (select array_agg(a.attname::text order by array_position(c.conkey, a.attnum))
          from pg_attribute a where a.attrelid = c.conrelid and a.attnum = any(c.conkey)) as columns,
       (select array_agg(a.attname::text order by array_position(c.confkey, a.attnum))
          from pg_attribute a where a.attrelid = c.confrelid and a.attnum = any(c.confkey)) as target_columns,
       exists (select from pg_constraint u where u.conrelid = c.conrelid and u.contype in ('p', 'u')
                  and u.conkey @> c.conkey and u.conkey <@ c.conkey) as to_one
  from pg_constraint c
  join pg_class t on t.oid = c.conrelid join pg_namespace tn on tn.oid = t.relnamespace
  join pg_class f on f.oid = c.confrelid join pg_namespace fn on fn.oid = f.relnamespace
 where c.contype = 'f' and c.conparentid = 0 and tn.nspname = any(%s) and fn.nspname = any(%s)
 order by c.conname
"""

# A function with unnamed arguments cannot be called by name, unless its one argument is the whole body.
_ROUTINES: Final = """
select n.nspname as schema, p.proname as name,
       coalesce(p.proargnames::text[], '{}') as names, coalesce(p.proargmodes::text[], '{}') as modes,
       array(select format_type(x.oid, null)
               from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as x(oid, place)
              order by x.place) as types,
       p.pronargs as inputs, p.pronargdefaults as optional, p.proretset as returns_set,
       t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false) as returns_rows,
       p.prorettype = 'void'::regtype as returns_void, p.provolatile = 'v' as volatile,
       coalesce(p.proconfig, '{}') as settings
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
  join pg_type t on t.oid = p.prorettype
 where n.nspname = any(%s) and p.prokind = 'f'
 order by n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)
"""

# Only what the login role may set for itself: another setting would fail every request of that role.
_ROLES: Final = """
select r.rolname as role, split_part(s.setting, '=', 1) as name, substr(s.setting, strpos(s.setting, '=') + 1) as value
  from pg_db_role_setting d
  join pg_roles r on r.oid = d.setrole
 cross join unnest(d.setconfig) as s(setting)
  join pg_settings g on g.name = split_part(s.setting, '=', 1)
 where d.setdatabase = 0 and g.context = 'user'
 order by r.rolname
"""


async def load(conn: psycopg.AsyncConnection[Any], schemas: Sequence[str]) -> Catalog:
    """Read the catalogs of the exposed schemas; raises `psycopg.Error`."""
    cursor: Any = conn.cursor(row_factory=namedtuple_row)
    exposed = list(schemas)
    tables = {}
    for row in await (await cursor.execute(_TABLES, (exposed,))).fetchall():
        defaults = {
            name: text for name, text in zip(row.columns, row.defaults, strict=True) if text is not None
        }
        columns = dict(zip(row.columns, row.types, strict=True))
        tables[row.schema, row.name] = Table(row.schema, row.name, columns, defaults, tuple(row.primary_key))
    keys = [
        ForeignKey(
            r.name, tuple(r.table), tuple(r.columns), tuple(r.target), tuple(r.target_columns), r.to_one
        )
        for r in await (await cursor.execute(_KEYS, (exposed, exposed))).fetchall()
    ]
    routines: dict[tuple[str, str], list[Routine]] = {}
    for row in await (await cursor.execute(_ROUTINES, (exposed,))).fetchall():
        routine = _routine(row)
        if routine is not None:
            routines.setdefault((row.schema, row.name), []).append(routine)
    roles: dict[str, tuple[tuple[str, str], ...]] = {}
    for row in await (await cursor.execute(_ROLES)).fetchall():
        roles[row.role] = (*roles.get(row.role, ()), (row.name, row.value))
    return Catalog(tables, routines, keys, roles)


def _routine(row: Any) -> Routine | None:
    names = list(row.names) or [""] * len(row.types)
    modes = list(row.modes) or ["i"] * len(row.types)
    inputs = [item for item in zip(names, modes, row.types, strict=True) if item[1] in "ibv"]
    arguments = tuple(
        Argument(name, kind, required=place < row.inputs - row.optional and mode != "v", variadic=mode == "v")
        for place, (name, mode, kind) in enumerate(inputs)
    )
    if any(not argument.name for argument in arguments) and not (
        len(arguments) == 1 and arguments[0].type in _JSON
    ):
        return None
    settings = tuple(
        tuple(text.split("=", 1)) for text in row.settings if text.startswith("statement_timeout=")
    )
    return Routine(
        row.schema,
        row.name,
        arguments,
        row.returns_set,
        row.returns_rows,
        row.returns_void,
        row.volatile,
        settings,
    )
