"""Viewers: which staff look at which session. Sent to staff only, when it changes; a viewer who is not renewed expires.

A hint, like typing: it may be lost, and it is not stored. Each instance broadcasts all of its own viewers, at most once a
second and every few seconds, so that the next broadcast repairs a lost one. The cost of one person is bounded over all of
its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from gre_bridge.api.pacing import TokenBucket
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import Realtime, Subscriber
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.api.ws.typing import BROADCAST_TIMEOUT, Peers
from gre_bridge.db.types import Json

LASTS = 15.0
"""Seconds after which a viewer expires."""
TYPING_LASTS = 6.0
"""Seconds after which typing expires."""
TICK = 1.0
"""Seconds between two checks for expired viewers, and between two broadcasts."""
REPEAT_AFTER = 5.0
"""Seconds after which unchanged viewers are broadcast again."""
PERSON_PER_SECOND, PERSON_BURST = 2.0, 8.0
MAX_SESSIONS = 20
"""Sessions that one person can view at a time; the latest count."""
MAX_PERSONS = 10_000
MAX_VIEWERS = 500
"""Viewers in a broadcast."""
MAX_INSTANCES = 100


@dataclass(slots=True)
class _Viewer:
    name: str | None
    expires_at: float
    typing_until: float = -math.inf


@dataclass(slots=True)
class _Person:
    budget: TokenBucket
    sessions: dict[str, None] = field(default_factory=dict)
    """The sessions viewed, the latest last."""


class Viewers:
    """The viewers on this instance and, as far as they are known, on the others. `run` until cancelled."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        realtime: Realtime,
        peers: Peers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`realtime` carries the viewers to the `peers`, if there are any."""
        self._registry = registry
        self._realtime = realtime
        self._peers = peers
        self._clock = clock
        self._id = str(uuid.uuid4())
        self._sessions: dict[str, dict[tuple[str, str], _Viewer]] = {}
        """The viewers of each session, by instance and staff member."""
        self._instances: dict[str, set[str]] = {}
        """The sessions viewed on each other instance."""
        self._published: dict[str, list[Json]] = {}
        self._persons: dict[str, _Person] = {}
        self._changed = asyncio.Event()
        self._broadcast_due = False
        self._broadcast_at = -math.inf

    def view(self, subscriber: Subscriber, session_id: str, *, viewing: bool) -> None:
        """Note that this staff member looks at a session, or has left it; send it the viewers of the session."""
        staff_id = subscriber.identity.staff_id
        if staff_id is None:
            return
        now = self._clock()
        person = self._persons.pop(staff_id, None) or _Person(
            TokenBucket(PERSON_PER_SECOND, PERSON_BURST, now)
        )
        self._persons[staff_id] = person
        if len(self._persons) > MAX_PERSONS:
            del self._persons[next(iter(self._persons))]
        if not person.budget.take(now):
            return
        person.sessions.pop(session_id, None)
        if viewing:
            person.sessions[session_id] = None
            viewers = self._sessions.setdefault(session_id, {})
            viewer = viewers.setdefault((self._id, staff_id), _Viewer(None, now))
            viewer.name, viewer.expires_at = subscriber.identity.display_name, now + LASTS
            if len(person.sessions) > MAX_SESSIONS:
                self._leave(next(iter(person.sessions)), staff_id)
        else:
            self._leave(session_id, staff_id)
        if not self._publish(session_id):
            subscriber.send_hint(self._frame(session_id))

    def _leave(self, session_id: str, staff_id: str) -> None:
        if person := self._persons.get(staff_id):
            person.sessions.pop(session_id, None)
        self._sessions.get(session_id, {}).pop((self._id, staff_id), None)
        self._publish(session_id)

    def typed(self, body: Json) -> None:
        """Take the body of a `typing` frame that is published here: a viewer types, or has stopped."""
        session_id, staff_id = body["sessionId"], body.get("staffId")
        until = self._clock() + TYPING_LASTS if body["typing"] else -math.inf
        for (_, viewer_id), viewer in self._sessions.get(session_id, {}).items():
            if viewer_id == staff_id:
                viewer.typing_until = until
        self._publish(session_id)

    def receive(self, payload: object) -> None:
        """Take the viewers of another instance. The payload is untrusted: only known fields are passed on."""
        match payload:
            case {"instance": str(instance), "viewers": list(viewers)} if (
                instance != self._id and len(instance) == 36 and len(viewers) <= MAX_VIEWERS
            ):
                pass
            case _:
                return
        if instance not in self._instances and len(self._instances) >= MAX_INSTANCES:
            return
        now, before = self._clock(), self._instances.pop(instance, set())
        for session_id in before:
            found = self._sessions.get(session_id, {})
            for key in [key for key in found if key[0] == instance]:
                del found[key]
        sessions = self._instances[instance] = set()
        for viewer in viewers:
            match viewer:
                case [str(session_id), str(staff_id), str() | None as name, bool(typing)] if (
                    len(session_id) == 36 and len(staff_id) <= 128 and len(name or "") <= 400
                ):
                    until = now + TYPING_LASTS if typing else -math.inf
                    entry = _Viewer(name, now + LASTS, until)
                    self._sessions.setdefault(session_id, {})[instance, staff_id] = entry
                    sessions.add(session_id)
        if not sessions:
            del self._instances[instance]
        for session_id in before | sessions:
            self._publish(session_id)

    async def run(self) -> None:
        """Drop expired viewers and broadcast this instance's, until cancelled."""
        while True:
            if not self._sessions and not self._broadcast_due:
                await self._changed.wait()
            self._changed.clear()
            self.expire()
            await self._broadcast()
            await asyncio.sleep(TICK)

    def expire(self) -> None:
        """Drop expired viewers, and publish the sessions that they viewed."""
        now = self._clock()
        for session_id, viewers in list(self._sessions.items()):
            for key in [key for key, viewer in viewers.items() if viewer.expires_at <= now]:
                del viewers[key]
                instance, staff_id = key
                if instance == self._id and (person := self._persons.get(staff_id)):
                    person.sessions.pop(session_id, None)
                elif sessions := self._instances.get(instance):
                    sessions.discard(session_id)
            self._publish(session_id)
        self._instances = {key: sessions for key, sessions in self._instances.items() if sessions}

    async def _broadcast(self) -> None:
        now = self._clock()
        own = [
            [session_id, staff_id, viewer.name, viewer.typing_until > now]
            for session_id, viewers in self._sessions.items()
            for (instance, staff_id), viewer in viewers.items()
            if instance == self._id
        ]
        due = self._broadcast_due or (own and now - self._broadcast_at >= REPEAT_AFTER)
        if not due or self._peers.alone:
            self._broadcast_due = False
            return
        self._broadcast_due, self._broadcast_at = False, now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BROADCAST_TIMEOUT):
                await self._realtime.broadcast(
                    "viewers", {"instance": self._id, "viewers": own[:MAX_VIEWERS]}
                )

    def _list(self, session_id: str) -> list[Json]:
        """Return the viewers of a session, each person once."""
        now = self._clock()
        found: dict[str, Json] = {}
        for (_, staff_id), viewer in sorted(self._sessions.get(session_id, {}).items()):
            entry = found.setdefault(
                staff_id, {"staffId": staff_id, "displayName": viewer.name, "typing": False}
            )
            entry["typing"] |= viewer.typing_until > now
        return [found[staff_id] for staff_id in sorted(found)]

    def _frame(self, session_id: str) -> str:
        return frame("session_viewers", sessionId=session_id, viewers=self._list(session_id))

    def _publish(self, session_id: str) -> bool:
        """Send the viewers of a session to all staff here, if they have changed. Returns True if they have."""
        viewers = self._list(session_id)
        if viewers == self._published.get(session_id, []):
            if not viewers:
                self._sessions.pop(session_id, None)
            return False
        if viewers:
            self._published[session_id] = viewers
        else:
            del self._published[session_id]
            self._sessions.pop(session_id, None)
        self._broadcast_due = True
        self._changed.set()
        text = self._frame(session_id)
        for subscriber in self._registry.staff():
            subscriber.send_hint(text)
        return True
