"""Who types: told on change, repeated now and then, and otherwise swallowed, however often a page says it.

Typing is a hint. What a person may cause with it is bounded over all of its sockets, and what this instance sends to the
others over Realtime is bounded for all people together: Realtime counts it against the project's limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from gre_bridge.api.pacing import Bucket
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.presence import Listener
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.types import Json
from gre_bridge.db.users import Identity

REPEAT = 3.0
"""Seconds after which the same state of a session is told again."""
PERSON_PER_SECOND, PERSON_BURST = 2.0, 4.0
BROADCASTS_PER_SECOND, BROADCASTS_BURST = 3.0, 6.0
SESSIONS = 50
"""Sessions remembered of one person."""
PEOPLE = 10_000
"""People remembered, the latest."""


@dataclass(slots=True)
class _Person:
    budget: Bucket
    told: dict[str, tuple[bool, float]] = field(default_factory=dict)
    """The state that was told last of each session, and when."""


class TypingSignals:
    """What the sockets of this instance and the other instances tell of who types."""

    def __init__(
        self,
        *,
        audience: ConnectionRegistry,
        broadcast: Callable[[str, Json], Awaitable[None]],
        alone: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`broadcast` sends an event to the other instances and may lose it; `alone`: there are none."""
        self._audience = audience
        self._broadcast = broadcast
        self._alone = alone
        self._clock = clock
        self._people: dict[Hashable, _Person] = {}
        self._shared = Bucket(BROADCASTS_PER_SECOND, BROADCASTS_BURST, BROADCASTS_BURST, clock())

    def worth_telling(self, who: Identity, session_id: str, *, typing: bool) -> bool:
        """Whether this is news, and within what the person may cause. It counts as told then."""
        now = self._clock()
        key = (who.player_id, who.staff_id)
        person = self._people.pop(key, None)
        if person is None:
            person = _Person(Bucket(PERSON_PER_SECOND, PERSON_BURST, PERSON_BURST, now))
        self._people[key] = person
        if len(self._people) > PEOPLE:
            del self._people[next(iter(self._people))]
        before, at = person.told.get(session_id, (None, 0.0))
        if typing == before and (not typing or now - at < REPEAT):
            return False
        if not person.budget.take(now):
            return False
        person.told.pop(session_id, None)
        person.told[session_id] = (typing, now)
        if len(person.told) > SESSIONS:
            del person.told[next(iter(person.told))]
        return True

    async def tell(self, origin: Listener, *, session_id: str, player_id: int, typing: bool) -> None:
        """Tell everyone concerned but `origin`, here and on the other instances."""
        by = "player" if origin.identity.player_id is not None else "staff"
        body: Json = {"sessionId": session_id, "playerId": player_id, "by": by, "typing": typing}
        if by == "staff":
            body["staffId"] = origin.identity.staff_id
        self._tell_here(body, origin)
        if self._alone() or not self._shared.take(self._clock()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._broadcast("typing", body)

    def heard(self, event: str, body: object, player_of: Callable[[str], int | None]) -> None:
        """An event that another instance broadcast. It may be anything, so nothing but its known parts pass."""
        match body:
            case {
                "sessionId": str(session),
                "playerId": int(player),
                "by": "player" | "staff" as by,
                "typing": bool(typing),
                **more,
            }:
                if event == "typing" and player_of(session) in (None, player) and len(session) == 36:
                    told: Json = {"sessionId": session, "playerId": player, "by": by, "typing": typing}
                    staff_id = more.get("staffId")
                    if by == "staff" and isinstance(staff_id, str) and len(staff_id) <= 128:
                        told["staffId"] = staff_id
                    self._tell_here(told, None)

    def _tell_here(self, body: Json, origin: Listener | None) -> None:
        for_staff = frame("typing", **body)
        # Which of the staff it is concerns colleagues only.
        for_players = frame("typing", **{name: value for name, value in body.items() if name != "staffId"})
        for listener in self._audience.hearing(body["playerId"]):
            if listener is not origin:
                listener.hint(for_staff if listener.identity.player_id is None else for_players)
