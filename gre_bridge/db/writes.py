"""Sends a call that writes for a caller of the API, through Supabase's Python client. `db.users` has the calls.

One client serves all callers, so it holds no caller's token: each request has headers of its own. No call is sent
twice, no redirect is followed, no cookie is kept. Connections, the time limit, proxies and certificates are those of
`db.http.Pool`. Importing `supabase` takes 0.3 s and 12 MB, so only the API's process imports this module.
"""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import orjson
from supabase import AsyncClient, AsyncClientOptions

from gre_bridge import __version__
from gre_bridge.db.http import Transport
from gre_bridge.db.postgrest import HEADERS, Caller, caller_headers, encode_arguments, no_answer, read_error
from gre_bridge.db.types import Json
from gre_bridge.errors import TransientError

_SET_BY_POOL = frozenset({"accept-encoding", "connection", "content-length", "host"})
_UNDONE_BY_POOL = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests over a pool, which the pool's owner closes. Raises the pool's errors, none of httpx's."""

    def __init__(self, pool: Transport) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send once; the answer is whole, and decompressed."""
        headers = {name: value for name, value in request.headers.items() if name not in _SET_BY_POOL}
        answer = await self._pool.request(request.method, str(request.url), headers, await request.aread())
        kept = [
            # aiohttp reads bytes that are not UTF-8 as surrogates.
            (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
            for name, value in answer.headers.items()
            if name.lower() not in _UNDONE_BY_POOL
        ]
        return httpx.Response(answer.status, headers=kept, content=answer.body)


class Writes:
    """Functions that write, called over `/rest/v1/rpc` with the caller's own token."""

    def __init__(self, *, url: str, anon_key: str, transport: httpx.AsyncBaseTransport) -> None:
        """`url`: the project's."""
        self._anon_key = anon_key
        http = httpx.AsyncClient(
            transport=transport,
            headers=HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            event_hooks={"response": [_check]},
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the pool bounds the call as a whole
            trust_env=False,
        )
        options = AsyncClientOptions(
            headers={"X-Client-Info": f"gre-bridge/{__version__}"},
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,
            httpx_client=http,
        )
        self._client = AsyncClient(url.rstrip("/"), anon_key, options)

    async def rpc(self, function: str, arguments: Json, *, caller: Caller) -> Any:
        """Call a function once as `caller`; its result.

        Raises PostgrestError for an answer other than success and TransientError (code `timeout`, `connection` or
        `unreadable`) when there was none: it may have happened all the same.
        """
        headers = caller_headers(caller, self._anon_key)
        encode_arguments(arguments)  # the client's own encoder takes more, and raises errors of other types
        call = self._client.rpc(function, arguments)
        # As bytes: httpx encodes text as ASCII, and names are UTF-8.
        call.request.headers.update({name.encode(): value.encode() for name, value in headers.items()})
        try:
            answer = await call.execute()
        except TransientError as error:
            raise no_answer(function, error) from None
        return answer.data


async def _check(response: httpx.Response) -> None:
    """Raise for an answer without a result; the client's own APIError has no HTTP status, and it takes any text."""
    body = await response.aread()
    if not response.is_success:
        raise read_error(response.status_code, response.headers, body)
    try:
        orjson.loads(body)
    except ValueError:
        raise TransientError("the answer is no JSON", code="unreadable") from None
