"""Who of the staff is there, and who may no longer listen: the heartbeat of the people with sockets here.

The table `gre_online_status` is the truth; here is what was last read of it. It must not know what is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from enum import IntFlag
from typing import Protocol

from gre_bridge.api.ws.frames import frame
from gre_bridge.db.answers import Message, OnlineStaff
from gre_bridge.db.users import Identity, UserDatabase
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

BEAT = 15.0
"""Seconds between heartbeats of the staff who have sockets here."""
ABSENT = 45.0
"""Seconds after which staff without a heartbeat are offline."""
CROWD = 0.25
CROWD_MAX = 3.0
"""Seconds in which rings count as one: they come in crowds. The more the longer a beat takes."""


class News(IntFlag):
    """What happened in a session, apart from messages."""

    OPENED = 1
    """It was met for the first time: told before its messages."""
    UPDATED = 2
    READ_BY_STAFF = 4
    READ_BY_PLAYER = 8


READ_BY = {"staff": News.READ_BY_STAFF, "player": News.READ_BY_PLAYER}


class Listener(Protocol):
    """A socket as the hub sees it. No method may block or raise."""

    identity: Identity

    @property
    def busy(self) -> bool:
        """Whether it takes frames, and has many to write."""

    def message(self, message: Message, text: str) -> None:
        """Take a chat message (M) and its frame."""

    def news(self, session: str, seq: int, what: News, text: str) -> None:
        """Take a frame of what happened in a session, which was told up to `seq`."""

    def staff_status(self, staff_id: str, text: str) -> None:
        """Take the presence of one of the staff."""

    def hint(self, text: str) -> None:
        """Take a frame that may be lost."""

    def forget(self, passed: Mapping[str, int], *, since: float) -> None:
        """Drop positions that the hub has passed: its own are `passed`; of others it tells what is newer than `since`."""

    def end(self, code: int, reason: str, error: str) -> None:
        """Close with this close code after an error frame."""


class Elsewhere(Protocol):
    """Where people hear who have no socket here (Pusher), and can be made to hear no more."""

    def people(self) -> Iterable[Identity]:
        """Who may hear there."""

    def end(self, who: Identity) -> None:
        """Let this person hear no more there, as soon as possible."""


class PresenceTracker:
    """Beats for whoever is here and tells who comes and goes. `run` until cancelled."""

    def __init__(
        self,
        *,
        portal: UserDatabase,
        metrics: Metrics,
        here: Callable[[], list[Listener]],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`here` lists the sockets of this instance."""
        self._portal = portal
        self._metrics = metrics
        self._here = here
        self._elsewhere = elsewhere
        self._rung = asyncio.Event()
        self._met = asyncio.Event()
        self.online: dict[str, OnlineStaff] = {}
        """Staff who are online or away, by id: {"staff_id", "display_name", "status"}."""

    def ring(self) -> None:
        """Somebody may have come, gone, or lost the right to listen."""
        self._rung.set()

    def forget(self) -> None:
        """What is known is old: `met` waits for the next beat."""
        self._met.clear()
        self._rung.set()

    async def met(self) -> None:
        """Wait until it is known who is there; as long as the database is away."""
        await self._met.wait()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT if self.online or self._here() or self._elsewhere else None):
                    await self._rung.wait()
            # (Without sockets too: whom a killed instance left online becomes offline.)
            if not (self._rung.is_set() or self.online or self._here() or any(self._away())):
                continue
            self._rung.clear()
            began = time.monotonic()
            try:
                await self.beat()
                self._met.set()
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                kind = error.kind if isinstance(error, BridgeError) else "unreadable"
                self._metrics.database_errors.labels(kind).inc()
                if not self._met.is_set():
                    self._rung.set()
            # With thousands of people here a beat is work: it takes a sixth of the time at most.
            await asyncio.sleep(min(max(CROWD, 5 * (time.monotonic() - began)), CROWD_MAX))

    def _away(self) -> Iterable[Identity]:
        return self._elsewhere.people() if self._elsewhere else ()

    async def beat(self) -> None:
        """Beat for the staff who are here, tell who came or went, and end whoever may no longer listen."""
        identities, away = [one.identity for one in self._here()], list(self._away())
        found = await self._portal.presence(
            online=sorted({who.staff_id for who in identities if who.staff_id}),
            here=[*identities, *away],
            expires_in=ABSENT,
        )
        online = {row["staff_id"]: row for row in found["online"]}
        for staff_id in {*online, *self.online}:
            row: OnlineStaff = online.get(staff_id) or {**self.online[staff_id], "status": "offline"}
            if row != self.online.get(staff_id):
                self._tell(row)
        self.online = online
        disabled = set(found["disabled"])
        lost = {
            tuple(claim[name] for name in ("sub", "role", "player_id", "staff_id"))
            for claim in found["revoked"]
        }
        for one in self._here():
            if tuple(one.identity.claim.values()) in lost:
                one.end(4403, "no longer active", "no_identity")
            elif one.identity.player_id in disabled:
                one.end(4403, "chat is disabled", "chat_disabled")
        if self._elsewhere is None:
            return
        for who in {*identities, *away}:
            if tuple(who.claim.values()) in lost or who.player_id in disabled:
                self._elsewhere.end(who)

    def status_set(self, row: OnlineStaff) -> None:
        """One staff member's presence has just been set here."""
        if row["status"] == "offline":
            changed = self.online.pop(row["staff_id"], None) is not None
        else:
            changed = self.online.get(row["staff_id"]) != row
            self.online[row["staff_id"]] = row
        if changed:
            self._tell(row)

    def _tell(self, row: OnlineStaff) -> None:
        text = frame(
            "staff_status", staffId=row["staff_id"], displayName=row["display_name"], status=row["status"]
        )
        for one in self._here():
            one.staff_status(row["staff_id"], text)

    def status_of(self, staff_id: str | None) -> str:
        """What is known of this staff member: online, away or offline."""
        row = self.online.get(staff_id or "")
        return row["status"] if row else "offline"

    def is_there(self, staff_id: str | None) -> bool:
        """Return True if this staff member is online or away."""
        return staff_id in self.online

    @property
    def staff_online(self) -> int:
        """How many staff are online."""
        return sum(row["status"] == "online" for row in self.online.values())
