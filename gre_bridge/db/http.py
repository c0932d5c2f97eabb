"""The one HTTP client: a pooled aiohttp session, with a time limit for every wait and every failure classified.

PostgREST's transport and the sinks share it. It must not know what is sent, and nothing here repeats a
request's or an answer's text: both may hold chat text or keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import ssl
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import certifi
from yarl import URL

from gre_bridge.config.proxies import proxy_for
from gre_bridge.errors import ConfigurationError, TransientError

CONNECT = 5.0
"""Seconds that opening one connection may take, within the time of the request."""
KEEP_ALIVE = 50.0
"""Seconds an idle connection is kept: load balancers commonly hang up after 60."""
LARGE = 2**19
"""Bytes above which a body is sent in pieces."""

_Distrusted = aiohttp.ClientConnectorCertificateError


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `headers` finds names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends one request over a shared pool of connections."""

    async def request(
        self,
        method: str,
        url: str | URL,
        headers: Mapping[str, str],
        content: bytes,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Send once and read the whole answer.

        `timeout` (seconds, for the request as a whole) takes the pool's place. Raises TransientError (code
        `timeout`, `connect`, `transport` or `oversize`) or ConfigurationError (no URL).
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class Pool:
    """A keep-alive pool of aiohttp. Redirects are answers, and nothing is ever sent twice.

    Certificates are checked against certifi's roots, SSL_CERT_FILE or SSL_CERT_DIR. A proxy is taken from
    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    """

    def __init__(self, *, service: str, connections: int, timeout: float = 10.0, limit: int = 2**18) -> None:
        """`timeout`: seconds for a request as a whole, however slowly its bytes drip; `limit`: bytes of an answer."""
        self._service = service
        self._connections = connections
        self._timeout = timeout
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}

    async def request(
        self,
        method: str,
        url: str | URL,
        headers: Mapping[str, str],
        content: bytes,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """See Transport."""
        with self._classified():
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                return await self._once(method, url, headers, content)

    async def stream(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        take: Callable[[bytes], Awaitable[None]],
        *,
        chunk: int,
        stall: float,
        timeout: float,
    ) -> Answer | None:
        """Send once; give the body of an answer with status 200 to `take` in pieces of about `chunk` bytes, and return None.

        Another answer is returned. `stall` seconds bound each wait, for the answer and for more of it, `timeout` the whole.
        Raises as `request`, and what `take` raises.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        with self._classified():
            async with asyncio.timeout(stall) as wait, self._sent(method, url, headers, b"") as response:
                if response.status != 200:
                    return await self._read(response)
                piece = bytearray()
                while part := await response.content.readany():
                    wait.reschedule(min(loop.time() + stall, end))
                    piece += part
                    if len(piece) >= chunk:
                        await take(bytes(piece))
                        piece.clear()
                if piece:
                    await take(bytes(piece))
                return None

    @contextlib.contextmanager
    def _classified(self) -> Generator[None]:
        """Raise the failures of a request as errors of ours."""
        try:
            yield
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as exc:
            raise ConfigurationError(f"{self._service}: the address is no http(s) URL") from exc
        except TimeoutError as exc:
            raise TransientError(f"{self._service}: time-out", code="timeout") from exc
        except aiohttp.ClientConnectorError as exc:
            # Quoted, because it comes from the socket or from TLS; others can quote headers.
            reason = exc.certificate_error if isinstance(exc, _Distrusted) else exc.os_error
            where = f"cannot connect to {exc.host}:{exc.port}"
            raise TransientError(f"{self._service}: {where}: {str(reason)[:120]}", code="connect") from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            # Without its cause: it may quote the header that it dislikes, key and all.
            raise TransientError(f"{self._service}: {type(exc).__name__}", code="transport") from None

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _once(self, method: str, url: str | URL, headers: Mapping[str, str], content: bytes) -> Answer:
        async with self._sent(method, url, headers, content) as response:
            return await self._read(response)

    def _sent(
        self, method: str, url: str | URL, headers: Mapping[str, str], content: bytes
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        target = url if isinstance(url, URL) else _parsed(url)
        return self._opened().request(
            method,
            target,
            headers=headers,
            # In one piece a large body would block the loop.
            data=io.BytesIO(content) if len(content) > LARGE else content or None,
            allow_redirects=False,
            ssl=_tls() if target.scheme == "https" else True,
            proxy=self._proxy(target),
        )

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        body = bytearray()
        while chunk := await response.content.readany():
            body += chunk
            if len(body) > self._limit:
                raise TransientError(
                    f"{self._service}: the answer is too long to be its own", code="oversize"
                )
        return Answer(response.status, response.headers, bytes(body))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                # The whole is bounded in `request`, at less cost.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(self._timeout, CONNECT)),
            )
        return self._session

    def _proxy(self, url: URL) -> str | None:
        # One lookup for each origin: aiohttp's trust_env reads the environment and ~/.netrc for each request.
        origin = (url.scheme, url.authority)
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(str(url))
        return self._proxies[origin]


def _parsed(url: str) -> URL:
    try:
        return URL(url, encoded=True)
    except ValueError:
        raise aiohttp.InvalidURL("") from None


@functools.cache
def _tls() -> ssl.SSLContext:
    """Loaded once: it takes some 50 ms."""
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=certifi.where())
