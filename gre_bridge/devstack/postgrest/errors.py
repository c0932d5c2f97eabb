"""What a failure looks like over HTTP: PostgREST 14.5's statuses, codes and four-key bodies.

Every row of the tables below was recorded from a real PostgREST 14.5. This module only translates; it
must not decide what is retried and must not touch the database.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import psycopg


class ServerError(Exception):
    """An answer that is not the result: its body is always code, details, hint, message."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.hint = hint
        self.headers = headers

    def body(self) -> bytes:
        """The four keys in alphabetical order, compact, as on the wire."""
        return orjson.dumps(
            {"code": self.code, "details": self.details, "hint": self.hint, "message": self.message}
        )


def left_out(what: str) -> ServerError:
    """Something that PostgREST does and this stack leaves out on purpose: always 501."""
    return ServerError(
        501, "PGRST127", "Feature not implemented", details=f"The embedded stack leaves out {what}"
    )


def bad_request(code: str, message: str, *, details: str | None = None) -> ServerError:
    """A 400 that is decided before the database is asked."""
    return ServerError(400, code, message, details=details)


def bad_range(details: str) -> ServerError:
    """A limit, offset or Range header that cannot be met: 416."""
    return ServerError(416, "PGRST103", "Requested range not satisfiable", details=details)


RETRY: Final = (("retry-after", "0"),)

# The first prefix that fits decides, so longer ones stand before their class; the rest is 400.
_STATUS: Final[tuple[tuple[str, int], ...]] = (
    ("08", 503), ("09", 500), ("0L", 403), ("0P", 403),
    ("21000", 500), ("23503", 409), ("23505", 409), ("25006", 405), ("25", 500), ("28", 403), ("2D", 500),
    ("38", 500), ("39", 500), ("3B", 500), ("40", 500), ("42883", 404), ("42P01", 404), ("42P17", 500),
    ("53400", 500), ("53", 503), ("54", 500), ("55", 500), ("57P01", 503), ("57", 500), ("58", 500),
    ("F0", 500), ("HV", 500), ("P0001", 400), ("P0", 500), ("XX", 500),
)  # fmt: skip


def status_of(sqlstate: str, message: str, *, anonymous: bool) -> int:
    """HTTP status of an SQLSTATE; 42501 is 401 to an anonymous caller, who could still log in."""
    if sqlstate == "42501":
        return 401 if anonymous else 403
    if sqlstate == "22023" and message.startswith("role ") and message.endswith("does not exist"):
        return 401
    if sqlstate == "21000" and message.endswith("requires a WHERE clause"):
        return 400
    if sqlstate.startswith("PT"):
        number = int(sqlstate[2:]) if sqlstate[2:].isdigit() else 500
        # An ASGI server cannot send a status outside 100..599; PostgREST would.
        return number if 100 <= number <= 599 else 500
    return next((status for prefix, status in _STATUS if sqlstate.startswith(prefix)), 400)


def from_database(error: psycopg.Error, *, anonymous: bool) -> ServerError:
    """Translate an error that PostgreSQL answered with (it has an SQLSTATE)."""
    diag = error.diag
    sqlstate, message = error.sqlstate or "", diag.message_primary or ""
    if sqlstate == "PGRST":
        return _custom(message, diag.message_detail)
    status = status_of(sqlstate, message, anonymous=anonymous)
    return ServerError(
        status,
        sqlstate,
        message,
        details=diag.message_detail,
        hint=diag.message_hint,
        headers=standard_headers(status),
    )


def standard_headers(status: int) -> tuple[tuple[str, str], ...]:
    """Headers that go with a status, whatever the code: a retry hint with 503, a challenge with 401."""
    if status == 503:
        return RETRY
    if status == 401:
        return (("www-authenticate", "Bearer"),)
    return ()


def _custom(message: str, detail: str | None) -> ServerError:
    """`RAISE SQLSTATE 'PGRST'`: the function chooses status, headers and body itself."""
    body, answer = _json(message), _json(detail)
    hint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'."
    if not isinstance(body, dict) or not {"code", "message"} <= body.keys():
        problem = f"Invalid JSON value for MESSAGE: '{message}'"
        hint = (
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' "
            "and optional keys: 'details', 'hint'."
        )
    elif detail is None:
        problem = "DETAIL is missing in the RAISE statement"
    elif not isinstance(answer, dict) or not {"status", "headers"} <= answer.keys():
        problem = f"Invalid JSON value for DETAIL: '{detail}'"
    else:
        return ServerError(
            int(answer["status"]),
            str(body["code"]),
            str(body["message"]),
            details=body.get("details"),
            hint=body.get("hint"),
            headers=tuple((name.lower(), str(value)) for name, value in answer["headers"].items()),
        )
    return ServerError(
        500,
        "PGRST121",
        "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
        details=problem,
        hint=hint,
    )


def _json(text: str | None) -> Any:
    try:
        return orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return None
