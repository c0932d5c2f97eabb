"""What one socket hears: live from the hub while it keeps up, from the database by position while it does not.

A socket that cannot be told at once (it enters, its client reads slowly, its token has expired) keeps no frames: of
each session it keeps the seq up to which it was told, and reads the rest page by page as the client takes it. It must
not know who decides what a person may hear, nor what the client asks.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.presence import READ_BY, News
from gre_bridge.api.ws.transport import ClientTransport, CloseConnection
from gre_bridge.db.answers import CatchUp, HubChanges, Message, SessionNews
from gre_bridge.db.users import Identity
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.socket")

SESSIONS_PER_READ = 50
"""Sessions that are asked for in one read of what was missed."""
MAX_BEHIND = 10_000
"""Sessions that a socket may be behind in (some 2 MB); with more it is closed, and comes back by `since`."""
MAX_STAFF = 1_000
OWN = 500
"""Own messages that a socket remembers, so as not to hear of them twice."""
FIRST_MESSAGES = 2_000
"""Messages replayed to a client that has seen nothing at all."""
NOTHING = News(0)
RETRY, RETRY_MAX = 0.25, 2.0
"""Seconds between tries while the database is away."""


class Source(Protocol):
    """Where a socket reads what it was not told."""

    async def missed(self, positions: Mapping[str, int], player_id: int | None) -> HubChanges:
        """Read what is newer than these seqs, as `gre_hub_changes_v1` answers."""


@dataclass(slots=True)
class _Behind:
    """A session of which not everything was told."""

    seq: int
    """Told up to here."""
    replay: int = 0
    """Messages up to this one were missed before the client came."""
    last: int = 0
    """The newest message that the hub told meanwhile."""
    news: News = NOTHING
    held: bool = False
    """Nothing is told of it until the client knows of its own message, which comes next."""


class Subscriber:
    """The Listener of one socket. Muted until `enter`, and while its token has expired."""

    def __init__(
        self, *, line: ClientTransport, source: Source, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        """`line` carries the frames; `clock` is the hub's."""
        self._clock = clock
        self._entered = math.inf
        self._line = line
        self._source = source
        self._metrics = metrics
        self.identity = Identity("none")
        self.current: str | None = None
        """The session of the latest message."""
        # Its own messages come by acknowledgement: the one being sent, and that one as the hub told it.
        self.sending: str | None = None
        self.heard: Message | None = None
        self._own: dict[str, None] = {}
        self._muted = True
        # Seqs that this socket has read ahead of the hub: what the hub tells up to there is not told again.
        self._ahead: dict[str, int] = {}
        self._behind: dict[str, _Behind] = {}
        self._staff: dict[str, str] = {}
        self._changed = asyncio.Event()

    @property
    def muted(self) -> bool:
        """Whether it may hear nothing for the moment."""
        return self._muted

    def mute(self) -> None:
        """Tell nothing from now on."""
        self._muted = True

    def unmute(self) -> None:
        """Tell again, beginning with what was missed."""
        self._muted = False
        self._changed.set()

    # What the hub calls

    @property
    def busy(self) -> bool:
        """Whether it would soon be behind: a short wait may spare it a read of its own."""
        return not self._muted and self._line.busy

    def message(self, message: Message, text: str) -> None:
        """See Listener."""
        session, seq = message["session_id"], message["seq"]
        if seq <= self._ahead.get(session, 0):
            return
        own = message["id"] == self.sending
        if own:
            self.heard = message
        behind = self._behind.get(session)
        if behind is not None:
            behind.last = max(behind.last, seq)
            return
        if own or self._muted or self._line.full:
            # (What comes after its own message is not told before that is acknowledged: if the connection ended in
            # between, the client would ask for what it has got.)
            self._fall_behind(session, seq - 1, last=seq, held=own)
            return
        self._ahead.pop(session, None)
        self._put(message, text, "out")

    def news(self, session: str, seq: int, what: News, text: str) -> None:
        """See Listener."""
        if self._muted or session in self._behind or self._line.full:
            self._fall_behind(session, seq, what)
        else:
            self._line.put(text)

    def staff_status(self, staff_id: str, text: str) -> None:
        """See Listener."""
        if self._muted or self._line.full:
            if len(self._staff) < MAX_STAFF or staff_id in self._staff:
                self._staff[staff_id] = text
                self._changed.set()
        else:
            self._line.put(text)

    def hint(self, text: str) -> None:
        """See Listener."""
        if not self._muted and not self._line.busy:
            self._line.put(text)

    def end(self, code: int, reason: str, error: str = "") -> None:
        """See Listener."""
        self._line.end(CloseConnection(code, reason, error))

    def _fall_behind(
        self, session: str, seq: int, what: News = NOTHING, *, last: int = 0, held: bool = False
    ) -> None:
        behind = self._behind.get(session)
        if behind is None:
            if len(self._behind) >= MAX_BEHIND:
                self.end(1013, "too slow")
                return
            behind = self._behind[session] = _Behind(max(seq, self._ahead.get(session, 0)), held=held)
            self._changed.set()
        behind.news |= what
        behind.last = max(behind.last, last)

    # Its own messages

    def acknowledge(self, message: Message) -> None:
        """Note that the client is told of its message now, so that it is not told by the hub, too."""
        session = message["session_id"]
        self.current = session
        behind = self._behind.get(session)
        if behind is not None and behind.held and behind.last <= message["seq"] and not behind.news:
            del self._behind[session]  # nothing came after it
        elif self.heard is None or behind is not None:
            self._own[message["id"]] = None
            if len(self._own) > OWN:
                del self._own[next(iter(self._own))]

    def sent(self) -> None:
        """Go on with what came after the message that was being sent, whatever became of it."""
        self.sending = None
        for behind in self._behind.values():
            behind.held = False
        self._changed.set()

    def _put(self, message: Message, text: str, counted: str) -> None:
        self.current = message["session_id"]
        if message["id"] in self._own:
            del self._own[message["id"]]
            return
        self._metrics.socket_messages.labels(counted).inc()
        self._line.put(text)

    # Catching up

    def enter(self, found: CatchUp, since: Mapping[str, int] | None) -> None:
        """Begin at what `gre_catch_up` found; what the hub told before is part of it, or comes after it."""
        self._entered = self._clock()
        left = FIRST_MESSAGES
        for session in found["sessions"]:
            key, last = session["id"], session["last_seq"]
            seq = found["positions"].get(key, last)
            if since == {}:
                seq = max(seq, last - left)
                left -= last - seq
            told = self._behind.pop(key, None) or _Behind(seq)
            if seq < max(last, told.last) or told.news:
                self._behind[key] = _Behind(seq, last, told.last, told.news)
            else:
                self._ahead[key] = last
        sessions = found["sessions"]
        self.current = next((one["id"] for one in sessions if one["status"] == "active"), None)

    def forget(self, passed: Mapping[str, int], *, since: float) -> None:
        """See Listener."""
        settled = since > self._entered
        self._ahead = {
            session: seq
            for session, seq in self._ahead.items()
            if (passed[session] < seq if session in passed else not settled)
        }

    async def catch_up(self) -> None:
        """Tell what is behind, as fast as the client reads, until cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            if self._muted or not (self._staff or any(not one.held for one in self._behind.values())):
                await self._changed.wait()
                continue
            await self._line.drained()
            if self._muted:
                continue
            while self._staff and not self._line.busy:
                self._line.put(self._staff.pop(next(iter(self._staff))))
            try:
                await self._read()
                failures = 0
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                failures += 1
                kind = error.kind if isinstance(error, BridgeError) else "unreadable"
                self._metrics.database_errors.labels(kind).inc()
                await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))

    async def _read(self) -> None:
        ready = (key for key, behind in self._behind.items() if not behind.held)
        asked = list(itertools.islice(ready, SESSIONS_PER_READ))
        if not asked:
            return
        taken: dict[str, News] = {}
        for key in asked:
            # What the hub tells from now on may be newer than what this reads.
            behind = self._behind[key]
            taken[key], behind.news, behind.last = behind.news, NOTHING, 0
        try:
            found = await self._source.missed(
                {key: self._behind[key].seq for key in asked}, self.identity.player_id
            )
            entries = {entry["session"]["id"]: entry for entry in found["sessions"]}
            left = set(found["skipped"])
        except BaseException:
            for key, news in taken.items():
                self._behind[key].news |= news
            raise
        for key in asked:
            behind = self._behind.pop(key)
            if self._muted or key in left:
                behind.news |= taken[key]
                self._behind[key] = behind
            elif key in entries and self._tell(entries[key], behind, taken[key]):
                self._behind[key] = behind  # (after the others)

    def _tell(self, entry: SessionNews, behind: _Behind, news: News) -> bool:
        """Tell one session's page; whether there is more to read."""
        session = entry["session"]
        if news & News.OPENED:
            self._line.put(frame("session_updated", session=session))
        for message in entry["messages"]:
            if message["id"] == self.sending:
                self.heard, behind.held = message, True
                behind.last = max(behind.last, session["last_seq"])
                behind.news |= news & ~News.OPENED
                self._ahead[session["id"]] = behind.seq
                return True
            if message["seq"] > behind.seq:
                behind.seq = message["seq"]
                replay = behind.seq <= behind.replay
                text = frame("chat_message", message=message, replay=replay)
                self._put(message, text, "replayed" if replay else "out")
        if not entry["more"]:
            behind.seq = max(behind.seq, session["last_seq"])
        self._ahead[session["id"]] = behind.seq
        if entry["more"]:
            behind.news |= news & ~News.OPENED
            return True
        for side, (seq, at) in entry["reads"].items():
            if news & READ_BY[side]:
                body = {"sessionId": session["id"], "by": side, "upToSeq": seq, "timestamp": at}
                self._line.put(frame("messages_read", **body))
        if news & News.UPDATED:
            self._line.put(frame("session_updated", session=session))
        return behind.last > behind.seq or bool(behind.news)
