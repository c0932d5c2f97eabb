"""The one way to PostgREST: a function is called, its JSON comes back, an error is what the server said.

Everything that concerns the database goes through here: the worker's calls with the service key, the API's
with its caller's token, so that row-level security judges them. Nothing here knows the functions, and a
call is never repeated: a client's time-out does not cancel the statement (measured on PostgREST 14.5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson
from yarl import URL

from gre_bridge import __version__
from gre_bridge.config.keys import gateway_key
from gre_bridge.db.http import Pool
from gre_bridge.db.types import Json
from gre_bridge.errors import ConfigurationError, TransientError

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that are read; a claim of 1,000 messages of 4,000 characters can be 16 MB."""

_PROXY_STATUS = re.compile(r"error=([\w-]+)")
HEADERS = {
    "Accept": "application/json",
    "Accept-Profile": "public",
    "Content-Profile": "public",
    "Content-Type": "application/json",
    "User-Agent": f"gre-bridge/{__version__}",
    "X-Client-Info": f"gre-bridge/{__version__}",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: its token, and for whom it says it acts (its word, judged by the database)."""

    token: str
    act_as: str | None = None


class PostgrestError(Exception):
    """An answer other than success.

    `code`, `message`, `hint` and `details` are PostgREST's; a gateway's page has the code that PostgREST
    left in `Proxy-Status`, else its status. They may quote an argument: callers decide what to show.
    """

    def __init__(
        self, *, status: int, code: str, message: str, hint: str | None = None, details: str | None = None
    ) -> None:
        """`status` is the HTTP status."""
        super().__init__(f"HTTP {status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details


class PostgrestClient:
    """A project's PostgREST. Opened with `open`, closed with `aclose`."""

    def __init__(self, *, url: str, key: str, apikey: str | None, pool: Pool) -> None:
        """Use `open`."""
        self._base = f"{url.rstrip('/')}/rest/v1/rpc/"
        self._urls: dict[str, URL] = {}
        self._gateway = apikey or key
        self.pool = pool
        # A secret key that is no JWT goes in both, as supabase-py sends it: the gateway makes a token of it.
        self._service = {**HEADERS, "apikey": gateway_key(key, apikey), "Authorization": f"Bearer {key}"}

    @classmethod
    async def open(
        cls, *, url: str, key: str, apikey: str | None = None, timeout: float = 10.0, connections: int = 16
    ) -> Self:
        """The project at `url` with its service key; connections are made when needed.

        `apikey` is the publishable (anon) key, which a call with a user's token shows the gateway. `timeout`: seconds for
        a call as a whole. Raises ConfigurationError for what is no address or no key.
        """
        if not _is_url(url):
            raise ConfigurationError("SUPABASE_URL is no http(s) URL")
        for name, value in (("SUPABASE_SERVICE_KEY", key), ("SUPABASE_ANON_KEY", apikey)):
            if value is not None and not _fits_header(value):
                raise ConfigurationError(f"{name} is empty, or has characters that no key has")
        pool = Pool(service="PostgREST", connections=connections, timeout=timeout, limit=MAX_ANSWER)
        return cls(url=url, key=key, apikey=apikey, pool=pool)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.pool.aclose()

    async def rpc(
        self, function: str, arguments: Json, *, caller: Caller | None = None, timeout: float | None = None
    ) -> Any:
        """Call a function as the service, or as `caller`; its result, None when it has none.

        `timeout` in seconds. Raises PostgrestError for an answer other than success and TransientError (code
        `timeout`, `connection` or `unreadable`) when there was none: it may have happened all the same.
        """
        headers = self._service if caller is None else {**HEADERS, **caller_headers(caller, self._gateway)}
        content = encode_arguments(arguments)
        if (url := self._urls.get(function)) is None:
            url = self._urls[function] = URL(self._base + function)
        try:
            answer = await self.pool.request("POST", url, headers, content, timeout=timeout)
        except TransientError as error:
            raise no_answer(function, error) from None
        if not 200 <= answer.status < 300:
            raise read_error(answer.status, answer.headers, answer.body)
        if not answer.body:
            return None
        try:
            return orjson.loads(answer.body)
        except ValueError:
            raise unreadable(function) from None


def caller_headers(caller: Caller, anon_key: str) -> dict[str, str]:
    """Return the headers that identify `caller`: two for Supabase's gateway and PostgREST, one for our functions.

    The last is sent without a name as well: `nobody` keeps a service key from acting as the worker. Raises
    PostgrestError for values that no header can hold.
    """
    if not _fits_header(caller.token):
        raise PostgrestError(
            status=401, code="PGRST301", message="the token has characters that no token has"
        )
    act_as = caller.act_as or "nobody"
    if not act_as.isprintable():
        raise PostgrestError(status=400, code="22023", message="act_as has characters that no name has")
    return {
        "apikey": caller.token if caller.token.startswith("sb_") else anon_key,
        "Authorization": f"Bearer {caller.token}",
        "X-GRE-Act-As": act_as,
    }


def encode_arguments(arguments: Json) -> bytes:
    """Encode as JSON. Raises PostgrestError (PGRST102, as PostgREST would) for values that JSON does not have."""
    try:
        return orjson.dumps(arguments)
    except TypeError:
        raise PostgrestError(status=400, code="PGRST102", message="arguments that are no JSON") from None


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> PostgrestError:
    """Read the error of an answer other than success; `headers` finds names in lower case."""
    try:
        found = orjson.loads(body)
    except ValueError:
        found = None
    said: Json = found if isinstance(found, dict) else {}
    code = said.get("code")
    if code is None:
        left = _PROXY_STATUS.search(headers.get("proxy-status", ""))
        code = left[1] if left else status
    return PostgrestError(
        status=status,
        code=str(code),
        message=str(said.get("message") or ""),
        hint=_text(said.get("hint")),
        details=_text(said.get("details")),
    )


def no_answer(function: str, error: TransientError) -> TransientError:
    """Restate a failure of the transport as one of `function`, with code `timeout`, `connection` or `unreadable`."""
    if error.code == "timeout":
        return TransientError(f"{function}: no answer in time", code="timeout")
    if error.code == "oversize":
        return TransientError(f"{function}: the answer is too long to be the database's", code="unreadable")
    if error.code == "unreadable":
        return unreadable(function)
    return TransientError(f"{function}: {str(error).removeprefix('PostgREST: ')}", code="connection")


def unreadable(function: str) -> TransientError:
    """Return the error for an answer that PostgreSQL cannot have given, such as a proxy's page with status 200."""
    return TransientError(f"{function}: the answer is not the database's", code="unreadable")


def _is_url(value: str) -> bool:
    try:
        url = URL(value)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _fits_header(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
