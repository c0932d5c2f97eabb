"""A parsed query string as values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """A column, with arrows into its JSON: `path` holds pairs of `->` or `->>` and a key."""

    name: str
    path: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One item of select=."""

    column: Column
    alias: str | None
    cast: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """`column=not.op(any).value`; the value of `in` is already the text of an array."""

    column: Column
    negated: bool
    operator: str
    quantifier: str
    value: str


@dataclass(frozen=True, slots=True)
class Group:
    """`and=(..)`, `or=(..)` and their negations."""

    negated: bool
    operator: str
    members: tuple[Filter | Group, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One term of order=; `direction` and `nulls` are SQL words or empty."""

    column: Column
    direction: str
    nulls: str


@dataclass(slots=True)
class Node:
    """The part of a query that concerns one table: the root, or a table embedded in another."""

    name: str = ""
    alias: str = ""
    hint: str | None = None
    inner: bool = False
    items: list[Item] = field(default_factory=list)
    embeds: list[Node] = field(default_factory=list)
    where: list[Filter | Group] = field(default_factory=list)
    order: list[Order] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0


@dataclass(slots=True)
class Query:
    """A whole query string; `arguments` are those of a function called by GET."""

    root: Node
    columns: list[str] | None = None
    on_conflict: list[str] | None = None
    arguments: list[tuple[str, str]] = field(default_factory=list)
