"""A direct connection to PostgreSQL for the operator's commands: opened, and its errors in words.

No message quotes the address of the database, nor a part of it: an address whose password holds an unencoded `@`
is taken apart at the wrong place, and what is then called host or user is the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import psycopg
from psycopg import errors as pg

from gre_bridge.config.sources import db_url_problem
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError

CANNOT_ADOPT = "GRE01"
"""SQLSTATE by which the migrations refuse a project; its DETAIL has one line for each reason."""

_PREFIX = re.compile(
    r"^(connection failed: |connection to server (at|on socket) .* failed: |- host: .*?: connection .*? failed: )+"
)
_NOISE = re.compile(r"^(Is the server running|Multiple connection attempts failed|Are you sure)")
_QUOTED = re.compile(r""""[^"\n]*"|'[^'\n]*'""")
_HARMLESS = {"postgresql", "postgres", "localhost", "127.0.0.1", "sslmode", "require", "disable", "prefer"}
_WRONG = re.compile(
    r"authentication failed|does not exist|no pg_hba|resolve|password|not known|tenant|SSL|certificate",
    re.IGNORECASE,
)


@contextmanager
def connected(db_url: str, *, application: str, seconds: int = 10) -> Iterator[psycopg.Connection]:
    """A connection in autocommit mode, also through a transaction pooler.

    Raises ConfigurationError for a wrong address or credentials, TransientError when a later attempt may succeed.
    What the block raises of psycopg becomes one of ours, by `explained`.
    """
    if problem := db_url_problem(db_url):
        raise ConfigurationError(f"SUPABASE_DB_URL: {problem}")
    try:
        connection = psycopg.connect(
            db_url,
            autocommit=True,
            connect_timeout=seconds,
            prepare_threshold=None,
            application_name=application,
        )
    except psycopg.ProgrammingError:
        raise ConfigurationError("SUPABASE_DB_URL is not a PostgreSQL address") from None
    except psycopg.OperationalError as error:
        text = str(error).strip()
        if text.startswith(
            ("invalid", "missing")
        ):  # libpq quotes the part of an address that it does not understand
            raise ConfigurationError("SUPABASE_DB_URL is not a PostgreSQL address") from None
        reason = cause(text, db_url)
        kind = ConfigurationError if _WRONG.search(reason) else TransientError
        raise kind(f"cannot connect to the database: {reason}") from None
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise explained("the database", error) from None


def cause(text: str, db_url: str) -> str:
    """Why a connection failed: the server's own answer if there is one, else libpq's first reason, without the address."""
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)] or ["no reason was given"]
    line = next((line for line in lines if "FATAL:" in line), lines[0])
    line = _QUOTED.sub("…", line).replace("FATAL:", "").strip()
    parts = {unquote(part) for part in re.split(r"[:@/?#&=]+", db_url)} - _HARMLESS
    for part in sorted(parts, key=len, reverse=True):
        if len(part) > 2 and not part.isdigit():
            line = line.replace(part, "…")
    return re.sub(r"\s+", " ", line)


def explained(what: str, error: psycopg.Error) -> BridgeError:
    """The same error as one of ours; `what` is the beginning of its line."""
    text, code = error.diag.message_primary or type(error).__name__, error.sqlstate or ""
    if code == CANNOT_ADOPT:
        return ConfigurationError(text, code=code)
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigurationError(f"{what}: the role of SUPABASE_DB_URL may not do this: {text}", code=code)
    # Of class 55 (an object in the wrong state) only a lock is over after a while.
    if isinstance(error, psycopg.OperationalError) and (not code.startswith("55") or code == "55P03"):
        return TransientError(f"{what}: {text}", code=code)
    return PermanentError(f"{what}: {text}", code=code)
