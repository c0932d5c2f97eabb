"""Who calls, and the way of a call to the database: token, guard, a second try where that is safe.

The database judges the token, each time. What is kept of tokens here are digests of those that it took lately and
of the subjects that they were for, so that one visitor with bad tokens does not shut out the good ones of its
address: guests of a venue share one, and a portal's own server passes all its users' calls on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import orjson
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused, TransientError

T = TypeVar("T")

REMEMBER = 86_400.0
"""Seconds for which a token that the database took is known, and whom it was for."""
TOKENS = 20_000
ROLE_AGE = 5.0
"""Seconds for which it is known that a caller is a player. (What staff may do, the database decides each time.)"""
TRY_FOR = 3.0
"""Seconds after the first try in which another one may begin."""
PAUSES = (0.2, 0.8)
"""Seconds before the second and the third try."""

_ACT_AS = re.compile(r"player:[1-9][0-9]{0,17}|staff:[^\s].{0,127}")


class Authenticator:
    """The portal behind its guard."""

    def __init__(
        self, portal: UserDatabase | None, guard: AuthThrottle, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`portal` is None when the API is off; `clock` gives seconds."""
        self._portal = portal
        self._guard = guard
        self._clock = clock
        self._taken: dict[bytes, float] = {}
        """Digests of tokens, and until when they are known; the latest last."""
        self._players: dict[bytes, tuple[float, bool]] = {}
        """Digests of callers: until when it is known whether they are players, and whether they are."""
        self._subjects: dict[bytes, float] = {}
        """The same of subjects: their next tokens are new, and most likely good."""

    @property
    def on(self) -> bool:
        """Whether there is an API."""
        return self._portal is not None

    @property
    def portal(self) -> UserDatabase:
        """The functions; Refused (503) when the API is off."""
        if self._portal is None:
            raise Refused(503, "api_off", "the API is off: SUPABASE_ANON_KEY is not set", retry_after=60)
        return self._portal

    def wait(self, address: str | None) -> float:
        """Seconds for which this address may show tokens of known people only; 0 mostly."""
        return self._guard.wait_of_all(address)

    def failed(self, address: str | None, token: str) -> None:
        """Count a failure that the database does not call one: a token that is nobody's here."""
        subject = _subject(token)
        self._taken.pop(_digest(token), None)
        self._subjects.pop(_digest(subject), None)
        self._guard.failed(address, subject)

    async def ask(
        self, address: str | None, token: str, question: Callable[[], Awaitable[T]], *, repeat: bool = True
    ) -> T:
        """Ask the database on behalf of a token.

        `repeat`: a question whose answer got lost may be asked again. Raises Refused (429 while too many bad
        tokens come from the address) and TransientError.
        """
        digest, now = _digest(token), self._clock()
        if self._taken.get(digest, 0.0) <= now:
            subject = _subject(token)
            known = bool(subject) and self._subjects.get(_digest(subject), 0.0) > now
            if (wait := self._guard.wait(address, subject, known=known)) > 0:
                text = "too many failed authentications from this address"
                raise Refused(429, "too_many_failures", text, retry_after=wait)
        try:
            answer = await self._tries(question, repeat=repeat)
        except Refused as error:
            if error.status == 401:
                self._taken.pop(digest, None)
                self._guard.failed(address, _subject(token))
            else:
                self._know(token, digest)
            raise
        self._know(token, digest)
        return answer

    async def is_player(self, call: AuthenticatedCall) -> bool:
        """Return True when the caller is a player, as the database said within the last seconds."""
        known = self._players.get(call.key)
        if known is None or known[0] <= self._clock():
            found = await call(lambda portal, caller: portal.whoami(caller))
            known = (self._clock() + ROLE_AGE, found.role == "player")
            self._players.pop(call.key, None)
            self._players[call.key] = known
            if len(self._players) > TOKENS:
                del self._players[next(iter(self._players))]
        return known[1]

    async def _tries(self, question: Callable[[], Awaitable[T]], *, repeat: bool) -> T:
        until = self._clock() + TRY_FOR
        for pause in PAUSES if repeat else ():
            try:
                return await question()
            except TransientError:
                if self._clock() + pause > until:
                    raise
            await asyncio.sleep(pause)
        return await question()

    def _know(self, token: str, digest: bytes) -> None:
        until = self._clock() + REMEMBER
        if subject := "" if digest in self._taken else _subject(token):
            _remember(self._subjects, _digest(subject), until)
        _remember(self._taken, digest, until)


def _remember(table: dict[bytes, float], key: bytes, until: float) -> None:
    table.pop(key, None)
    table[key] = until
    if len(table) > TOKENS:
        del table[next(iter(table))]


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=16).digest()


def _subject(token: str) -> str:
    """Whom a JWT says that it is for: its word, which nobody has checked. "" where it says nothing."""
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
    """One request's caller and its way to the portal's functions."""

    def __init__(
        self, access: Authenticator, portal: UserDatabase, caller: Caller, address: str | None
    ) -> None:
        """`address` is who is asking, as far as the proxies are trusted."""
        self._access = access
        self._portal = portal
        self._caller = caller
        self._address = address

    @property
    def key(self) -> bytes:
        """A digest of who is asking."""
        return _digest(f"{self._caller.token}\0{self._caller.act_as or ''}")

    async def __call__(
        self, question: Callable[[UserDatabase, Caller], Awaitable[T]], *, repeat: bool = True
    ) -> T:
        """Ask; see `Authenticator.ask`."""
        portal, caller = self._portal, self._caller
        return await self._access.ask(
            self._address, caller.token, lambda: question(portal, caller), repeat=repeat
        )


def caller_of(request: HTTPConnection) -> Caller | None:
    """The token and whom it speaks for, None without a token. Raises Refused (400) for malformed headers."""
    if any(len(request.headers.getlist(name)) > 1 for name in ("authorization", "x-gre-act-as")):
        # Whose word would it be: the portal's server's, or what a page slipped through it?
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
    """The call of a request, None without a token. Raises Refused (503 when the API is off, 400)."""
    access: Authenticator = request.app.state.access
    portal, caller = access.portal, caller_of(request)
    return (
        AuthenticatedCall(access, portal, caller, request.client.host if request.client else None)
        if caller
        else None
    )


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
    """Refuse players on the staff's paths, also where the database would show them what is theirs."""
    if request.url.path.startswith("/api/gre-admin/"):
        access: Authenticator = request.app.state.access
        if await access.is_player(call):
            raise Refused(403, "staff_only", "only staff may do this")


AUTHENTICATED = [Security(bearer)]
"""What a router's paths have in common, for the documentation."""
STAFF_PATHS = [*AUTHENTICATED, Depends(_staff_path)]
"""The same of routers whose paths below /api/gre-admin/ are the staff's."""
Authenticated = Annotated[AuthenticatedCall, Depends(_call)]
"""What an endpoint asks the database with."""
