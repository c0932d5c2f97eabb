"""Authentication: the caller of a request, and its calls to the database with throttling and retries.

The database verifies each token, each time. This module keeps digests of the tokens that the database accepted lately, and
of the subjects in them, so that one visitor with invalid tokens does not lock out valid ones from the same address: the
guests of a venue share one address, and so do all users whose calls a portal's server passes on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, TypeVar

import orjson
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.db.answers import CatchUp
from gre_bridge.db.callers import Identity
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused, TransientError

T = TypeVar("T")

REMEMBER_SECONDS = 86_400.0
"""How long an accepted token and its subject are remembered."""
MAX_REMEMBERED = 20_000
ROLE_MAX_AGE = 5.0
"""Seconds for which a caller's role is cached. It only keeps players off the staff's paths; the database decides the rest."""
RETRY_WITHIN = 3.0
"""Seconds after the first attempt in which another one may begin."""
RETRY_PAUSES = (0.2, 0.8)
"""Seconds before the second and the third attempt."""

_ACT_AS = re.compile(r"player:[1-9][0-9]{0,17}|staff:[^\s].{0,127}")


class Authenticator:
    """Calls the database on behalf of tokens, and throttles addresses that send invalid ones."""

    def __init__(
        self,
        users: UserDatabase | None,
        throttle: AuthThrottle,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`users` is None when the API is off; `clock` returns seconds."""
        self._users = users
        self._throttle = throttle
        self._clock = clock
        self._accepted: dict[bytes, float] = {}
        """Digests of accepted tokens and the time until which they are remembered; the latest last."""
        self._subjects: dict[bytes, float] = {}
        """The same of subjects: their next tokens are new, and most likely valid."""
        self._players: dict[bytes, tuple[float, bool]] = {}
        """Digests of callers, the time until which the entry is valid, and True for players."""

    @property
    def enabled(self) -> bool:
        """True if there is an API."""
        return self._users is not None

    @property
    def users(self) -> UserDatabase:
        """The database's functions for callers. Raises Refused (503) when the API is off."""
        if self._users is None:
            raise Refused(503, "api_off", "the API is off: SUPABASE_ANON_KEY is not set", retry_after=60)
        return self._users

    def retry_after(self, address: str | None) -> float:
        """Return the seconds until this address may use unknown tokens again; 0 if it may now."""
        return self._throttle.retry_after_address(address)

    def record_failure(self, address: str | None, token: str) -> None:
        """Count a failure that the database does not report as one: a valid token that belongs to nobody here."""
        subject = _subject(token)
        self._accepted.pop(_digest(token), None)
        self._subjects.pop(_digest(subject), None)
        self._throttle.record_failure(address, subject)

    async def call(
        self, address: str | None, token: str, operation: Callable[[], Awaitable[T]], *, repeat: bool = True
    ) -> T:
        """Call the database on behalf of a token.

        An operation may be repeated after a lost answer unless `repeat` is False. Raises Refused (429 while too many
        invalid tokens come from the address) and TransientError.
        """
        digest, now = _digest(token), self._clock()
        if self._accepted.get(digest, 0.0) <= now:
            subject = _subject(token)
            known = bool(subject) and self._subjects.get(_digest(subject), 0.0) > now
            if (wait := self._throttle.retry_after(address, subject, known=known)) > 0:
                text = "too many failed authentications from this address"
                raise Refused(429, "too_many_failures", text, retry_after=wait)
        try:
            answer = await self._attempt(operation, repeat=repeat)
        except Refused as error:
            if error.status == 401:
                self._accepted.pop(digest, None)
                self._throttle.record_failure(address, _subject(token))
            else:
                self._accept(token, digest)
            raise
        self._accept(token, digest)
        return answer

    async def whoami(self, address: str | None, caller: Caller) -> Identity:
        """Return the caller's identity. Raises as `call`."""
        users = self.users
        return await self.call(address, caller.token, lambda: users.whoami(caller))

    async def enter(
        self, address: str | None, caller: Caller, since: Mapping[str, int] | None
    ) -> tuple[Identity, CatchUp | None]:
        """Return the caller's identity and what it has missed. Raises as `call`."""
        users = self.users
        return await self.call(address, caller.token, lambda: users.enter(caller, since))

    async def is_player(self, call: AuthenticatedCall) -> bool:
        """Return True if the caller was a player within the last ROLE_MAX_AGE seconds. Raises as `call`."""
        cached = self._players.get(call.key)
        if cached is None or cached[0] <= self._clock():
            identity = await call(lambda users, caller: users.whoami(caller))
            cached = (self._clock() + ROLE_MAX_AGE, identity.role == "player")
            _put(self._players, call.key, cached)
        return cached[1]

    async def _attempt(self, operation: Callable[[], Awaitable[T]], *, repeat: bool) -> T:
        until = self._clock() + RETRY_WITHIN
        for pause in RETRY_PAUSES if repeat else ():
            try:
                return await operation()
            except TransientError:
                if self._clock() + pause > until:
                    raise
            await asyncio.sleep(pause)
        return await operation()

    def _accept(self, token: str, digest: bytes) -> None:
        until = self._clock() + REMEMBER_SECONDS
        if subject := "" if digest in self._accepted else _subject(token):
            _put(self._subjects, _digest(subject), until)
        _put(self._accepted, digest, until)


def _put(table: dict[bytes, T], key: bytes, value: T) -> None:
    """Set a key as the latest, and drop the oldest beyond MAX_REMEMBERED."""
    table.pop(key, None)
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=16).digest()


def _subject(token: str) -> str:
    """Return the subject that a JWT claims, unverified; "" if it claims none."""
    parts = token.split(".", 3)
    if len(parts) != 3 or len(parts[1]) > 16_384:
        return ""
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return ""
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject[:128] if isinstance(subject, str) else ""


class AuthenticatedCall:
    """The caller of one request. Call it with an operation on the database."""

    def __init__(
        self, authenticator: Authenticator, users: UserDatabase, caller: Caller, address: str | None
    ) -> None:
        """`address` is the client's, as far as its proxies are trusted."""
        self._authenticator = authenticator
        self._users = users
        self._caller = caller
        self._address = address

    @property
    def key(self) -> bytes:
        """A digest of the caller."""
        return _digest(f"{self._caller.token}\0{self._caller.act_as or ''}")

    async def __call__(
        self, operation: Callable[[UserDatabase, Caller], Awaitable[T]], *, repeat: bool = True
    ) -> T:
        """Run the operation, see `Authenticator.call`."""
        users, caller = self._users, self._caller
        return await self._authenticator.call(
            self._address, caller.token, lambda: operation(users, caller), repeat=repeat
        )


def caller_of(request: HTTPConnection) -> Caller | None:
    """Return the token of a request and the person it acts for, None without a token. Raises Refused (400)."""
    if any(len(request.headers.getlist(name)) > 1 for name in ("authorization", "x-gre-act-as")):
        # One of the two might come from a page, through the portal's server.
        raise Refused(400, "header_repeated", "Authorization and X-GRE-Act-As may come once each")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        return None
    act_as = request.headers.get("x-gre-act-as", "").strip()
    if not act_as:
        return Caller(token)
    try:
        act_as = act_as.encode("latin-1").decode()
    except UnicodeDecodeError:
        act_as = ""
    if not (_ACT_AS.fullmatch(act_as) and act_as.isprintable()):
        raise Refused(400, "act_as_invalid", "X-GRE-Act-As must be player:<id> or staff:<id>")
    return Caller(token, act_as)


def call_of(request: Request) -> AuthenticatedCall | None:
    """Return the call of a request, None without a token. Raises Refused (503 when the API is off, 400)."""
    authenticator: Authenticator = request.app.state.authenticator
    users, caller = authenticator.users, caller_of(request)
    address = request.client.host if request.client else None
    return AuthenticatedCall(authenticator, users, caller, address) if caller else None


async def _call(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="X-GRE-Act-As",
            description="For whom the service key speaks: `player:29` or `staff:s1`. Of no meaning with a user's token.",
            examples=["player:29"],
            json_schema_extra={"pattern": "^(player:[1-9][0-9]{0,17}|staff:[0-9A-Za-z_-]{1,128})$"},
        ),
    ] = None,
) -> AuthenticatedCall:
    call = call_of(request)
    if call is None:
        raise Refused(401, "not_authenticated", "a token is required: Authorization: Bearer")
    return call


bearer = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    scheme_name="token",
    description="A user's token, or the service key with `X-GRE-Act-As`. Checked by Supabase.",
)


async def _staff_path(request: Request, call: Annotated[AuthenticatedCall, Depends(_call)]) -> None:
    """Refuse players on the staff's paths, even if the database would answer with the player's own rows."""
    if request.url.path.startswith("/api/gre-admin/"):
        authenticator: Authenticator = request.app.state.authenticator
        if await authenticator.is_player(call):
            raise Refused(403, "staff_only", "only staff may do this")


AUTHENTICATED = [Security(bearer)]
"""Dependencies of a router whose paths need a token."""
STAFF_PATHS = [*AUTHENTICATED, Depends(_staff_path)]
"""Dependencies of a router whose paths below /api/gre-admin/ are the staff's."""
Authenticated = Annotated[AuthenticatedCall, Depends(_call)]
"""The type of an endpoint's authenticated call."""
