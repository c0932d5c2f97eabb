"""Opens a direct connection to PostgreSQL for the operator's commands, and translates its errors.

No error quotes the address of the database or a part of it: in an address whose password contains an unencoded `@`,
libpq takes a part of the password for the host or the user.
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
    """Open a connection in autocommit mode; it also works through a transaction pooler.

    Raises ConfigurationError for a wrong address or credentials, TransientError when a later attempt may succeed.
    A psycopg.Error raised in the block becomes a BridgeError (`explain_pg`). `seconds` bounds the connection attempt.
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
        if text.startswith(("invalid", "missing")):  # libpq quotes the part that it cannot parse
            raise ConfigurationError("SUPABASE_DB_URL is not a PostgreSQL address") from None
        reason = connect_error(text, db_url)
        kind = ConfigurationError if _WRONG.search(reason) else TransientError
        raise kind(f"cannot connect to the database: {reason}") from None
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise explain_pg("the database", error) from None


def connect_error(text: str, db_url: str) -> str:
    """Return the reason of a failed connection without the address: the server's error, else libpq's first one."""
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)] or ["no reason was given"]
    line = next((line for line in lines if "FATAL:" in line), lines[0])
    line = _QUOTED.sub("…", line).replace("FATAL:", "").strip()
    parts = {unquote(part) for part in re.split(r"[:@/?#&=]+", db_url)} - _HARMLESS
    for part in sorted(parts, key=len, reverse=True):
        if len(part) > 2 and not part.isdigit():
            line = line.replace(part, "…")
    return re.sub(r"\s+", " ", line)


def explain_pg(context: str, error: psycopg.Error) -> BridgeError:
    """Translate an error of PostgreSQL. `context` begins its line."""
    text, code = error.diag.message_primary or type(error).__name__, error.sqlstate or ""
    if code == CANNOT_ADOPT:
        return ConfigurationError(text, code=code)
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigurationError(
            f"{context}: the role of SUPABASE_DB_URL may not do this: {text}", code=code
        )
    # Of class 55 (object not in prerequisite state), only 55P03 (lock not available) is transient.
    if isinstance(error, psycopg.OperationalError) and (not code.startswith("55") or code == "55P03"):
        return TransientError(f"{context}: {text}", code=code)
    return PermanentError(f"{context}: {text}", code=code)
