"""How an answer of an outside service becomes an error: shared by the sinks.

Nothing here repeats an answer's text, which may hold chat text or keys.
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
"""Seconds; a service that asks for more is asked again after this time all the same."""
MAX_SUSPECTS = 100
REFUSED = frozenset({400, 413})
AGAIN = frozenset({408, 425, 429})

_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")


def failure(service: str, answer: Answer, *, credentials: str, address: str) -> BridgeError:
    """The error that an answer other than success stands for.

    `credentials` and `address` name the variables to look at. Only 400 and 413 blame the request. What
    no retry can mend and no event can cause (401, 403, a redirect, 404 …) is a configuration error:
    the work waits for a person instead of dying.
    """
    status = answer.status
    code = str(status)
    if status in REFUSED:
        words = (
            f" with a page that is not {service}'s (a proxy's?): check {address}" if is_page(answer) else ""
        )
        return PermanentError(f"{service} refused it: HTTP {status}{words}", code=code)
    if status in AGAIN or status >= 500:
        return TransientError(
            f"{service} answered HTTP {status}", code=code, retry_after=retry_after(answer.headers)
        )
    hint = credentials if status in (401, 403) else address
    return ConfigurationError(f"{service} answered HTTP {status}: check {hint}", code=code)


class EventRefused(PermanentError):  # noqa: N818 - an answer
    """A refusal in the service's own words about this very event."""


class Suspects:
    """The lanes whose events were refused since the service last took something.

    One refusal in the service's own words about that event is believed. A second lane's, or other words, may be said to
    everything that is sent: then only a control tells.
    """

    def __init__(self) -> None:
        """Nobody is suspected."""
        self._lanes = set[str]()

    def believes(self, lane: str, error: PermanentError) -> bool:
        """Whether this refusal is the event's fault, as far as can be told without asking the service."""
        if len(self._lanes) < MAX_SUSPECTS:
            self._lanes.add(lane)
        return isinstance(error, EventRefused) and self._lanes == {lane}

    def clear(self) -> None:
        """The service took something."""
        self._lanes.clear()


def refuses_all(service: str, error: BridgeError) -> BridgeError:
    """The error for a service that refused an event, and then one that nobody can find fault with: an outage.

    `error` is what it said to the second. A wrong key or host, a proxy or a firewall may say 400 or 413 to everything.
    """
    if not isinstance(error, PermanentError):
        return error
    return TransientError(f"{service} refuses whatever it is sent: {error}", code=error.code)


def is_page(answer: Answer) -> bool:
    """Whether the body is a page for people: a proxy's or a web server's words, not those of a service's API."""
    return "html" in answer.headers.get("content-type", "") or answer.body.lstrip()[:1] == b"<"


def unreadable(service: str, answer: Answer) -> TransientError:
    """The error for a success whose body is not the service's own (a proxy's page, half an answer)."""
    return TransientError(
        f"{service} answered HTTP {answer.status} with an unreadable body", code="unreadable"
    )


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, None if it is anything else."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that `Retry-After` asks for (a number or an HTTP date), at most MAX_RETRY_AFTER; None without.

    A date is measured against the answer's own `Date`, so that a wrong clock here does no harm, else
    against `now` (Unix seconds, default: the clock).
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
