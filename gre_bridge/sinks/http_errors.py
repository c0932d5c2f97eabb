"""Turns answers of outside services into errors; shared by the sinks.

No error repeats the text of an answer, which may contain chat text or keys.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from gre_bridge.db.http import Answer
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError

MAX_RETRY_AFTER = 300.0
"""Longest pause in seconds that a service can ask for."""
MAX_LANES = 100
REJECTED = frozenset({400, 413})
RETRYABLE = frozenset({408, 425, 429})

_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")


def failure(service: str, answer: Answer, *, credentials: str, address: str) -> BridgeError:
    """Return the error for an answer other than success.

    `credentials` and `address` name the variables to check. Only 400 and 413 blame the request. A status that no retry
    can change and no event can cause (401, 403, a redirect, 404 …) is a configuration error: the work waits for an
    operator and does not become dead.
    """
    status = answer.status
    code = str(status)
    if status in REJECTED:
        words = (
            f" with a page that is not {service}'s (a proxy's?): check {address}" if is_page(answer) else ""
        )
        return PermanentError(f"{service} refused it: HTTP {status}{words}", code=code)
    if status in RETRYABLE or status >= 500:
        return TransientError(
            f"{service} answered HTTP {status}", code=code, retry_after=retry_after(answer.headers)
        )
    hint = credentials if status in (401, 403) else address
    return ConfigurationError(f"{service} answered HTTP {status}: check {hint}", code=code)


class EventRefused(PermanentError):  # noqa: N818 - an answer
    """A refusal in the service's own words about this very event."""


class RefusalHistory:
    """The lanes with refused events since the service last accepted something.

    One refusal in the service's own words about the event is the event's fault. After a refusal of a second lane, or in
    other words, the service may refuse everything: only a control event can tell.
    """

    def __init__(self) -> None:
        """Begin without refusals."""
        self._lanes = set[str]()

    def blames_record(self, lane: str, error: PermanentError) -> bool:
        """Record a refusal. Return True if it is the record's fault, as far as can be known without a control."""
        if len(self._lanes) < MAX_LANES:
            self._lanes.add(lane)
        return isinstance(error, EventRefused) and self._lanes == {lane}

    def clear(self) -> None:
        """The service accepted something."""
        self._lanes.clear()


def refuses_all(service: str, error: BridgeError) -> BridgeError:
    """Return the error of a service that refused an event, and then a control event: an outage.

    `error` is its answer to the control. With a wrong key or host, or behind a proxy or firewall, every request may get
    400 or 413.
    """
    if not isinstance(error, PermanentError):
        return error
    return TransientError(f"{service} refuses whatever it is sent: {error}", code=error.code)


def is_page(answer: Answer) -> bool:
    """Return True if the body is HTML: the answer of a proxy or web server, not of the service's API."""
    return "html" in answer.headers.get("content-type", "") or answer.body.lstrip()[:1] == b"<"


def unreadable(service: str, answer: Answer) -> TransientError:
    """Return the error for a success with a body that is not the service's (a proxy's page, an incomplete answer)."""
    return TransientError(
        f"{service} answered HTTP {answer.status} with an unreadable body", code="unreadable"
    )


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, or None if it is anything else."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds of `Retry-After` (a number or an HTTP date), at most MAX_RETRY_AFTER; None without the header.

    A date is compared with the answer's own `Date`, so that a wrong local clock does not matter; without it, with
    `now` (Unix seconds, default: the local clock).
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER)
    until = _unix(value)
    if until is None:
        return None
    start = _unix(headers.get("date", ""))
    if start is None:
        start = time.time() if now is None else now
    return min(max(math.ceil(until - start), 0.0), MAX_RETRY_AFTER)


def _unix(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None
