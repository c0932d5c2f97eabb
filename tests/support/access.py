"""Callers as PostgREST creates them, to test the rights of tokens and keys.

All statements run through the role `authenticator`, as on a real project; this module contains no expected result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString, Self

import psycopg
from psycopg.types.json import Jsonb

from tests.conftest import Database

Conn = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True)
class Caller:
    """A verified token: its claims, and the headers that come with the request."""

    claims: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def acting_as(self, who: str) -> Caller:
        """The same with X-GRE-Act-As."""
        return Caller(self.claims, {**self.headers, "x-gre-act-as": who})


def user(role: str | None = None, **app: Any) -> Caller:
    """A user's token whose app_metadata say `role`."""
    claims = {"role": "authenticated", "app_metadata": {**({"gre_role": role} if role else {}), **app}}
    return Caller(claims)


def player(player_id: int) -> Caller:
    """A player's token."""
    return user("player", player_id=player_id)


def staff(staff_id: str = "s1", role: str = "staff") -> Caller:
    """A staff member's token."""
    return user(role, staff_id=staff_id)


NOBODY = Caller({"role": "anon"})
SERVICE = Caller({"role": "service_role"})
ADMIN = staff("a1", "admin")
WORKER = Caller({"role": "gre_worker"})


class RefusalError(Exception):
    """The error that PostgREST would answer: `PTnnn` becomes an HTTP status and the code in HINT."""

    def __init__(self, error: psycopg.Error) -> None:
        self.sqlstate = error.sqlstate or ""
        self.code = (error.diag.message_hint or "") if self.sqlstate.startswith("PT") else self.sqlstate
        self.status = int(self.sqlstate[2:]) if self.sqlstate.startswith("PT") else 0
        self.message = error.diag.message_primary or ""
        self.detail = error.diag.message_detail or ""
        super().__init__(f"{self.sqlstate} {self.code}: {self.message}")


@contextmanager
def request(conn: Conn, caller: Caller, *, keep: bool = True) -> Iterator[Conn]:
    """One request's transaction on a connection of `authenticator`; without `keep` it is rolled back."""
    try:
        with conn.transaction(force_rollback=not keep):
            conn.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
                " set_config('request.headers', %s, true)",
                [caller.claims["role"], json.dumps(caller.claims), json.dumps(caller.headers)],
            )
            yield conn
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        raise RefusalError(error) from None


class Rest:
    """One caller's connection to the database, as PostgREST makes it."""

    def __init__(self, db: Database, caller: Caller) -> None:
        self.conn = db.connect("authenticator")
        self.caller = caller

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()

    def sql(self, query: LiteralString, *args: Any) -> list[dict[str, Any]]:
        """Run one statement as a request of its own."""
        with request(self.conn, self.caller) as conn:
            found = conn.execute(query, args)
            return found.fetchall() if found.description else []

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function with these named arguments (without the p_); dicts and lists of dicts are jsonb."""
        given = {name: as_jsonb(value) for name, value in arguments.items()}
        named = ", ".join(f"p_{name} => %({name})s" for name in given)
        with request(self.conn, self.caller) as conn:
            row = conn.execute(f"select public.{function}({named}) as r".encode(), given).fetchone()
        assert row is not None
        return row["r"]


def as_jsonb(value: Any) -> Any:
    """Python's JSON as a jsonb argument; lists of plain values stay arrays."""
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return Jsonb(value)
    return value
