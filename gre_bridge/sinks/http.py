"""One pooled HTTP transport, and how an answer becomes an error: shared by the sinks.

The transport is a seam of one method, so that another client library can take httpx's place. It must
not know what is sent, and nothing here repeats a request's or an answer's text: both may hold chat
text or keys. (httpx logs the URLs of requests at INFO, and Pusher's carry a signature: whoever sets up
logging keeps that logger at WARNING.)
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import httpx

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError

MAX_ANSWER = 256 * 1024
"""Bytes of an answer that are read; the services answer with less than 1 KB, or with the refused aliases."""
MAX_RETRY_AFTER = 300.0
"""Seconds; a service that asks for more is asked again after this time all the same."""
REFUSED = frozenset({400, 413})
AGAIN = frozenset({408, 425, 429})

_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `headers` finds names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends one request over a shared pool of connections."""

    async def request(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """Raises TransientError (no connection, time-out, broken answer) or ConfigurationError (no URL)."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class HttpxTransport:
    """A keep-alive pool of httpx; certificates are checked against certifi's roots or SSL_CERT_FILE."""

    def __init__(self, *, service: str, connections: int, timeout: float = 10.0) -> None:
        """`timeout`: seconds for a request as a whole, however slowly its bytes drip."""
        self._service = service
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            timeout=timeout,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0
            ),
            follow_redirects=False,
        )

    async def request(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """See Transport."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, url, headers=headers, content=content) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise TransientError(f"{self._service}: the answer is too long to be its own")
                return Answer(response.status_code, response.headers, bytes(body))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise ConfigurationError(f"{self._service}: the address is no http(s) URL") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TransientError(f"{self._service}: time-out", code="timeout") from exc
        except httpx.ConnectError as exc:
            # Quoted, because it comes from the socket or from TLS; others can quote headers.
            raise TransientError(
                f"{self._service}: cannot connect: {str(exc)[:120]}", code="connect"
            ) from exc
        except httpx.HTTPError as exc:
            # Without its cause: a LocalProtocolError quotes the header it dislikes, key and all.
            raise TransientError(f"{self._service}: {type(exc).__name__}", code="transport") from None

    async def aclose(self) -> None:
        """Close the pool."""
        await self._client.aclose()


def failure(service: str, answer: Answer, *, credentials: str, address: str) -> BridgeError:
    """The error that an answer other than success stands for.

    `credentials` and `address` name the variables to look at. Only 400 and 413 blame the request. What
    no retry can mend and no event can cause (401, 403, a redirect, 404 …) is a configuration error:
    the work waits for a person instead of dying.
    """
    status = answer.status
    code = str(status)
    if status in REFUSED:
        return PermanentError(f"{service} refused it: HTTP {status}", code=code)
    if status in AGAIN or status >= 500:
        return TransientError(
            f"{service} answered HTTP {status}", code=code, retry_after=retry_after(answer.headers)
        )
    hint = credentials if status in (401, 403) else address
    return ConfigurationError(f"{service} answered HTTP {status}: check {hint}", code=code)


def unreadable(service: str, answer: Answer) -> TransientError:
    """The error for a success whose body is not the service's own (a proxy's page, half an answer)."""
    return TransientError(
        f"{service} answered HTTP {answer.status} with an unreadable body", code="unreadable"
    )


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, None if it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
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
