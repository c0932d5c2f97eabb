"""Typing indicators: sent on change, repeated every few seconds while they last, otherwise dropped.

An indicator is a hint. The cost of one person is bounded over all of its connections, and broadcasts to other instances
are bounded for all people together, because Realtime counts them against the project's limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from gre_bridge.api.pacing import TokenBucket
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import Realtime, Subscriber
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.callers import Identity
from gre_bridge.db.types import Json

REPEAT_AFTER = 3.0
"""Seconds after which an unchanged indicator is sent again."""
PERSON_PER_SECOND, PERSON_BURST = 2.0, 4.0
BROADCASTS_PER_SECOND, BROADCASTS_BURST = 3.0, 6.0
BROADCAST_TIMEOUT = 1.0
MAX_SESSIONS = 50
"""Sessions remembered per person."""
MAX_PERSONS = 10_000
"""People remembered, the latest."""


class Peers(Protocol):
    """The other instances of the API."""

    @property
    def alone(self) -> bool:
        """True if there is none."""


class TypingObserver(Protocol):
    """Is told of each indicator that is published here."""

    def typed(self, body: Json) -> None:
        """Take the body of a `typing` frame."""


@dataclass(slots=True)
class _Person:
    budget: TokenBucket
    sent: dict[tuple[str, bool], tuple[bool, float]] = field(default_factory=dict)
    """The last indicator of each session, of a message and of a note, and its time."""


class TypingSignals:
    """Indicators from the connections of this instance and from the other instances."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        realtime: Realtime,
        peers: Peers,
        viewers: TypingObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`realtime` carries indicators to the `peers`, if there are any; `viewers` is told of all."""
        self._registry = registry
        self._realtime = realtime
        self._peers = peers
        self._viewers = viewers
        self._clock = clock
        self._persons: dict[Hashable, _Person] = {}
        self._broadcasts = TokenBucket(BROADCASTS_PER_SECOND, BROADCASTS_BURST, clock())

    def accept(self, identity: Identity, session_id: str, *, typing: bool, note: bool = False) -> bool:
        """Return True, and count it as sent, if this indicator is new and within the person's budget."""
        now = self._clock()
        key = (identity.player_id, identity.staff_id)
        person = self._persons.pop(key, None)
        if person is None:
            person = _Person(TokenBucket(PERSON_PER_SECOND, PERSON_BURST, now))
        self._persons[key] = person
        if len(self._persons) > MAX_PERSONS:
            del self._persons[next(iter(self._persons))]
        subject = (session_id, note)
        before, at = person.sent.get(subject, (None, 0.0))
        if typing == before and (not typing or now - at < REPEAT_AFTER):
            return False
        if not person.budget.take(now):
            return False
        person.sent.pop(subject, None)
        person.sent[subject] = (typing, now)
        if len(person.sent) > MAX_SESSIONS:
            del person.sent[next(iter(person.sent))]
        return True

    async def publish(
        self, origin: Subscriber, *, session_id: str, player_id: int, typing: bool, note: bool = False
    ) -> None:
        """Send an accepted indicator to everyone in the session but `origin`, here and on the other instances.

        That of a `note` goes to staff only.
        """
        by = "player" if origin.identity.player_id is not None else "staff"
        body: Json = {"sessionId": session_id, "playerId": player_id, "by": by, "typing": typing}
        if by == "staff":
            body["staffId"] = origin.identity.staff_id
        if note:
            body["for"] = "note"
        self._publish_here(body, origin)
        if self._peers.alone or not self._broadcasts.take(self._clock()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BROADCAST_TIMEOUT):
                # An instance that does not know notes ignores an event that it does not know.
                await self._realtime.broadcast("typing_note" if note else "typing", body)

    def receive(self, event: str, payload: object, player_of: Callable[[str], int | None]) -> None:
        """Publish an indicator that another instance broadcast. The payload is untrusted: only known fields are passed on.

        `player_of` returns the player of a session, None if it is not known here.
        """
        match payload:
            case {
                "sessionId": str(session_id),
                "playerId": int(player_id),
                "by": "player" | "staff" as by,
                "typing": bool(typing),
                **rest,
            }:
                if (
                    event in ("typing", "typing_note")
                    and player_of(session_id) in (None, player_id)
                    and len(session_id) == 36
                ):
                    body: Json = {"sessionId": session_id, "playerId": player_id, "by": by, "typing": typing}
                    staff_id = rest.get("staffId")
                    if by == "staff" and isinstance(staff_id, str) and len(staff_id) <= 128:
                        body["staffId"] = staff_id
                    if event == "typing_note":
                        body["for"] = "note"
                    self._publish_here(body, None)

    def _publish_here(self, body: Json, origin: Subscriber | None) -> None:
        self._viewers.typed(body)
        for_staff = frame("typing", **body)
        # Players are not told which staff member is typing.
        for_players = frame("typing", **{name: value for name, value in body.items() if name != "staffId"})
        of_note = "for" in body
        for subscriber in (
            self._registry.staff() if of_note else self._registry.subscribers_of(body["playerId"])
        ):
            if subscriber is not origin:
                subscriber.send_hint(for_staff if subscriber.identity.player_id is None else for_players)
