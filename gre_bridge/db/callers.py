"""How a call for a caller of the API reaches the database, and what an error of it means to the caller.

The calls themselves are in `db.users`. An answer without the keys of its shape is a transient error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import orjson

from gre_bridge.db.answers import ActorClaim
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError, unreadable
from gre_bridge.db.relay import CallObserver, classify_error, clocks_differ
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, Refused, TransientError

_BAD_VALUE = ("22", "23", "54")  # classes of SQLSTATE: data exception, integrity constraint, beyond a limit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a caller is, by `gre_whoami`.

    `role`: player, staff, admin, service or none; `expires_at`: unix seconds, None for a token that never
    expires. `chat_enabled` is false for a player whose chat staff have turned off. `user_id` is that of a user whom
    a row of the database maps to this person; None where the token itself says who it is. `rating_enabled` is true for a
    player who can rate closed sessions.
    """

    role: str
    player_id: int | None = None
    staff_id: str | None = None
    display_name: str | None = None
    chat_enabled: bool = True
    expires_at: float | None = None
    user_id: str | None = None
    rating_enabled: bool = False

    @property
    def claim(self) -> ActorClaim:
        """What `gre_hub_presence_v1` asks, to tell whether it still holds."""
        return {
            "sub": self.user_id, "role": self.role, "player_id": self.player_id, "staff_id": self.staff_id,
        }  # fmt: skip

    @property
    def is_staff(self) -> bool:
        """Staff or admin."""
        return self.role in ("staff", "admin")


def refusal(error: PostgrestError, what: str) -> BridgeError:
    """Classify an error for a caller: the caller's own mistake (`Refused`), or one of the bridge or the database."""
    code = error.code
    if code.startswith("PT") and len(code) == 5 and code[2:].isdigit():
        wait = (error.details or "").partition("retry_after=")[2]
        return Refused(
            int(code[2:]),
            error.hint or "refused",
            error.message,
            retry_after=float(wait) if wait.isdigit() else None,
            details=_details(error.details),
        )
    if error.message == "JWT expired":
        return Refused(401, "token_expired", "the token has expired")
    if clocks_differ(error):
        return TransientError(f"{what}: the token is not valid yet", code=code)
    if code in ("PGRST300", "PGRST301", "PGRST302", "PGRST303") or (error.status == 401 and code != "42501"):
        return Refused(401, "token_invalid", "the token is not valid")
    if code == "42501":
        if error.status == 401:
            return Refused(401, "not_authenticated", "a user's token is required")
        return Refused(403, "forbidden", "this is not allowed")
    if code == "23505":
        return Refused(409, "conflict", "this exists already")
    if code[:2] in _BAD_VALUE and len(code) == 5:
        return Refused(400, "value_invalid", "a value is not valid")
    found = classify_error(error, what)
    return found if isinstance(found, TransientError) else TransientError(str(found), code=found.code)


def _details(text: str | None) -> Json | None:
    """Return the JSON object that a function gave as the detail of its refusal; None for any other detail."""
    if not text or not text.startswith("{"):
        return None
    try:
        found = orjson.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Functions(Protocol):
    """Calls functions of the database for callers."""

    async def rpc(self, function: str, arguments: Json, *, caller: Caller) -> Any:
        """Return the function's result. Raises PostgrestError or TransientError, as `PostgrestClient.rpc` does."""
        ...


class WriteObserver(CallObserver, Protocol):
    """Observes the calls, and the writes that others should hear of."""

    def session_written(self, session: str) -> None:
        """A caller has changed the session with this id."""


class CallerDatabase:
    """Typed calls for callers. Every method may raise Refused or TransientError."""

    def __init__(self, rest: PostgrestClient, writes: Functions, observer: WriteObserver) -> None:
        """Read through `rest`, which `aclose` closes; write through `writes`."""
        self._rest = rest
        self._writes = writes
        self._observer = observer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def _read(self, shape: type[T], function: str, arguments: Json, caller: Caller | None) -> T:
        return _object(shape, function, await self._call(self._rest.rpc, function, arguments, caller))

    async def _read_list(
        self, shape: type[T], function: str, arguments: Json, caller: Caller | None
    ) -> list[T]:
        answer = await self._call(self._rest.rpc, function, arguments, caller)
        if not isinstance(answer, list):
            raise unreadable(function)
        return [_object(shape, function, item) for item in answer]

    async def _write(self, shape: type[T], function: str, arguments: Json, caller: Caller) -> T:
        return _object(shape, function, await self._call(self._writes.rpc, function, arguments, caller))

    async def _count(self, function: str, arguments: Json, caller: Caller) -> int:
        answer = await self._call(self._writes.rpc, function, arguments, caller)
        if type(answer) is not int:  # a bool is no count
            raise unreadable(function)
        return answer

    async def _call(
        self, rpc: Callable[..., Awaitable[Any]], function: str, arguments: Json, caller: Caller | None
    ) -> Any:
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            with self._observer.database_called(function):
                return await rpc(function, given, caller=caller)
        except PostgrestError as error:
            raise refusal(error, function) from None


def _object(shape: type[T], function: str, answer: Any) -> T:
    """Return the answer as an object of this `shape`. Raise TransientError for any other answer."""
    if not isinstance(answer, dict) or not getattr(shape, "__required_keys__", frozenset()) <= answer.keys():
        raise unreadable(function)
    return cast("T", answer)
