"""Parses the query string of a request: select, filters, order and limits.

This module contains no SQL and uses no table or database. A syntax error is PGRST100; valid syntax that the stack does
not support is 501.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from gre_bridge.devstack.postgrest.errors import ServerError, bad_range, bad_request, left_out
from gre_bridge.devstack.postgrest.query_tree import Column, Filter, Group, Item, Node, Order, Query

OPERATORS: Final = {
    "eq": "=", "gte": ">=", "gt": ">", "lte": "<=", "lt": "<", "neq": "<>", "like": "LIKE", "ilike": "ILIKE",
    "match": "~", "imatch": "~*", "cs": "@>", "cd": "<@", "ov": "&&", "sl": "<<", "sr": ">>", "nxr": "&<",
    "nxl": "&>", "adj": "-|-", "isdistinct": "IS DISTINCT FROM",
}  # fmt: skip
_TEXT_SEARCH: Final = frozenset({"fts", "plfts", "phfts", "wfts"})
IS: Final = {"null": "NULL", "not_null": "NOT NULL", "true": "TRUE", "false": "FALSE", "unknown": "UNKNOWN"}
_QUANTIFIED: Final = frozenset({"eq", "gte", "gt", "lte", "lt", "like", "ilike", "match", "imatch"})

_NAME: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([\w$]+(?:[ \w$]|-(?!>))*|\*))\s*')
_ARROW: Final = re.compile(r"(->>?)\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\"(),.:>-][^(),.:>-]*|-\d+))")
_CAST: Final = re.compile(r"::([A-Za-z_][\w ]*(?:\[\])?)")
_COUNT: Final = re.compile(r"\s*count\(\)")
_TERM: Final = re.compile(r"(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?")
_OPERATION: Final = re.compile(r"(not\.)?([a-z]+)(?:\(([^()]*)\))?\.", re.DOTALL)
_ELEMENT: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,)]*))\s*', re.DOTALL)
_LOGIC_VALUE: Final = re.compile(
    r'"((?:[^"\\]|\\.)*)"(?=[,)])|(\{(?:"(?:[^"\\]|\\.)*"|[^{}"])*\}|[^,)]*)', re.DOTALL
)


class _Scanner:
    """A place in one parameter's text, with the words for what is wrong there."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.at, self.what = text, 0, what

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def skip(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.skip(literal):
            raise self.error(f'"{literal}"')

    def error(self, expecting: str) -> ServerError:
        rest = self.text[self.at : self.at + 1]
        seen = f'"{rest}"' if rest else "end of input"
        return bad_request(
            "PGRST100",
            f'"failed to parse {self.what} ({self.text})" (line 1, column {self.at + 1})',
            details=f"unexpected {seen} expecting {expecting}",
        )

    def name(self) -> str:
        found = self.take(_NAME)
        if not found:
            raise self.error("field name (* or [a..z0..9_$])")
        quoted = found.group(1)
        return _unescape(quoted) if quoted is not None else found.group(2).strip()

    def column(self, name: str | None = None) -> Column:
        name = self.name() if name is None else name
        path = []
        while arrow := self.take(_ARROW):
            quoted = arrow.group(2)
            path.append((arrow.group(1), _unescape(quoted) if quoted is not None else arrow.group(3).strip()))
        return Column(name, tuple(path))

    def end(self) -> None:
        if self.at != len(self.text):
            raise self.error("end of input")


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def parse(query_string: str, *, call: bool = False) -> Query:
    """Parse a query string; with `call`, what has no operator is an argument of the function.

    Raises PGRST100, PGRST103 (a negative limit), or 501.
    """
    if not query_string:
        return Query(Node(items=[Item(Column("*"), None, None)]))
    query = Query(Node())
    pairs = parse_qsl(query_string, keep_blank_values=True)
    select = next((value for key, value in pairs if key == "select"), "") or "*"
    scanner = _Scanner(select, "select parameter")
    _select(scanner, query.root)
    scanner.end()
    for key, value in pairs:
        if key == "select":
            continue
        if key in ("columns", "on_conflict"):
            setattr(query, key, _names(value, f"{key} parameter") if value else None)
            continue
        path, _, last = key.rpartition(".")
        if last in ("order", "limit", "offset", "or", "and") and value:
            if last in ("or", "and") and (path == "not" or path.endswith(".not")):
                path, last = path[:-3].rstrip("."), f"not.{last}"
            _modify(_find(query.root, path), last, value)
        elif call and "." not in key and not _is_operation(value):
            query.arguments.append((key, value))
        else:
            scanner = _Scanner(key, "tree path")
            names = [scanner.name()]
            while scanner.skip("."):
                names.append(scanner.name())
            column = scanner.column(names.pop())
            scanner.end()
            scanner = _Scanner(value, "filter")
            _find(query.root, ".".join(names)).where.append(_operation(scanner, column, nested=False))
    return query


def _find(root: Node, path: str) -> Node:
    node = root
    for name in path.split(".") if path else ():
        found = next((embed for embed in node.embeds if name in (embed.alias, embed.name)), None)
        if found is None:
            raise ServerError(
                400,
                "PGRST108",
                f"'{name}' is not an embedded resource in this request",
                hint=f"Verify that '{name}' is included in the 'select' query parameter.",
            )
        node = found
    return node


def _modify(node: Node, what: str, value: str) -> None:
    if what in ("limit", "offset"):
        if not re.fullmatch(r"-?\d+", value):
            return
        if int(value) < 0:
            raise bad_range("Limit should be greater than or equal to zero.")
        setattr(node, what, int(value))
    elif what == "order":
        scanner = _Scanner(value, "order")
        while True:
            column = scanner.column()
            if scanner.skip("("):
                raise left_out("ordering by an embedded table's column")
            term = scanner.take(_TERM)
            direction, nulls = term.groups("") if term else ("", "")
            node.order.append(Order(column, direction.upper(), nulls.upper().replace("NULLS", "NULLS ")))
            if not scanner.skip(","):
                break
        scanner.end()
    else:
        scanner = _Scanner(what + value, "logic tree")
        node.where.append(_logic(scanner))
        scanner.end()


def _select(scanner: _Scanner, node: Node) -> None:
    while True:
        if scanner.skip("..."):
            raise left_out("spread embedding")
        if scanner.take(_COUNT):
            raise ServerError(400, "PGRST123", "Use of aggregate functions is not allowed")
        alias = None
        name = scanner.name()
        if scanner.text[scanner.at : scanner.at + 2] != "::" and scanner.skip(":"):
            alias, name = name, scanner.name()
        if scanner.text[scanner.at : scanner.at + 1] in ("!", "("):
            node.embeds.append(_embed(scanner, name, alias))
        else:
            column = scanner.column(name)
            cast = scanner.take(_CAST)
            if scanner.skip("."):
                raise ServerError(400, "PGRST123", "Use of aggregate functions is not allowed")
            node.items.append(Item(column, alias, cast.group(1).strip() if cast else None))
        if not scanner.skip(","):
            return


def _embed(scanner: _Scanner, name: str, alias: str | None) -> Node:
    embed = Node(name=name, alias=alias or name)
    while scanner.skip("!"):
        word = scanner.name()
        if word == "inner":
            embed.inner = True
        elif word != "left":
            embed.hint = word
    scanner.expect("(")
    if scanner.skip(")"):
        raise left_out("embedding without columns")
    _select(scanner, embed)
    scanner.expect(")")
    return embed


def _names(text: str, what: str) -> list[str]:
    scanner = _Scanner(text, what)
    names = [scanner.name()]
    while scanner.skip(","):
        names.append(scanner.name())
    scanner.end()
    return names


def _logic(scanner: _Scanner) -> Filter | Group:
    start = scanner.at
    negated = scanner.skip("not.")
    for word in ("and", "or"):
        if scanner.skip(f"{word}("):
            members = [_logic(scanner)]
            while scanner.skip(","):
                members.append(_logic(scanner))
            scanner.expect(")")
            return Group(negated, word.upper(), tuple(members))
    scanner.at = start
    column = scanner.column()
    scanner.expect(".")
    return _operation(scanner, column, nested=True)


def _is_operation(value: str) -> bool:
    found = _OPERATION.match(value)
    return found is not None and _known(found.group(2))


def _known(operator: str) -> bool:
    return operator in OPERATORS or operator in _TEXT_SEARCH or operator in ("is", "in")


def _operation(scanner: _Scanner, column: Column, *, nested: bool) -> Filter:
    found = _OPERATION.match(scanner.text, scanner.at)
    if found is None or not _known(found.group(2)):
        raise scanner.error('"not" or operator (eq, gt, ...)')
    scanner.at = found.end()
    negated, operator, extra = bool(found.group(1)), found.group(2), found.group(3) or ""
    if operator == "in":
        return Filter(column, negated, operator, "", _list(scanner))
    if operator in _TEXT_SEARCH:
        raise left_out("full-text search")
    value = _logic_value(scanner) if nested else scanner.text[scanner.at :]
    if extra and (operator not in _QUANTIFIED or extra not in ("any", "all")):
        raise scanner.error("operator (eq, gt, ...)")
    if operator == "is" and value.lower() not in IS:
        raise scanner.error("isVal: (null, not_null, true, false, unknown)")
    return Filter(column, negated, operator, extra.upper(), value)


def _list(scanner: _Scanner) -> str:
    scanner.expect("(")
    values: list[str] = []
    while element := scanner.take(_ELEMENT):
        text = element.group(1)
        values.append(_unescape(text) if text is not None else element.group(2))
        if not scanner.skip(","):
            break
    scanner.expect(")")
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{}" if values == [""] else "{" + ",".join(quoted) + "}"


def _logic_value(scanner: _Scanner) -> str:
    found = scanner.take(_LOGIC_VALUE)
    if not found:
        raise scanner.error("value")
    return _unescape(found.group(1)) if found.group(1) is not None else found.group(2)
