"""The frames that one connection receives: live from the hub while it keeps up, else from the database by position.

A connection that cannot be sent to at once (it enters, its client reads slowly, its token has expired) queues no frames: it
keeps the seq up to which each session was sent, and reads the rest page by page as the client takes it. This module must
not decide what a person may receive, nor know the client's requests.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from gre_bridge.api.ws.backlog import Behind, LatestFrames
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import NO_CHANGE, READ_BY, MessageSource, SessionChange
from gre_bridge.api.ws.own import OwnItems, remember
from gre_bridge.api.ws.transport import ClientTransport, CloseConnection
from gre_bridge.db.answers import CatchUp, Message, Note, SessionNews
from gre_bridge.db.callers import Identity
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

SESSIONS_PER_READ = 50
MAX_BEHIND = 10_000
"""Sessions in which a connection may be behind (some 2 MB). With more it is closed, and comes back by `since`."""
MAX_STAFF = 1_000
"""Staff members whose status may wait."""
MAX_FILES = 1_000
"""Changed files that may wait (some 500 KB). With more the connection is closed, and comes back by `since`."""
FIRST_MESSAGES = 2_000
"""Messages replayed to a client that has seen nothing at all."""
RETRY, RETRY_MAX = 0.25, 2.0
"""Seconds between tries while the database is unavailable."""


class SocketSubscriber:
    """The hub's subscriber of one connection. Muted until `enter`, and while its token has expired."""

    def __init__(
        self,
        *,
        transport: ClientTransport,
        source: MessageSource,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        """`transport` carries the frames; `clock` is the hub's."""
        self._clock = clock
        self._transport = transport
        self._source = source
        self._metrics = metrics
        self._sent = {name: metrics.socket_messages.labels(name) for name in ("out", "replayed")}
        self.identity = Identity("none")
        self.current: str | None = None
        """The session of the latest message."""
        self.own = OwnItems()
        """The client's own messages and notes."""
        self._muted = True
        self._ahead: dict[str, tuple[int, float]] = {}
        """Seqs that this connection has read ahead of the hub, and when: the hub's messages up to there are dropped."""
        self._notes_ahead: dict[str, int] = {}
        """Notes that this connection has read ahead of the hub, by session."""
        self._behind: dict[str, Behind] = {}
        self._staff = LatestFrames(MAX_STAFF)
        self._files = LatestFrames(MAX_FILES)
        self._changed = asyncio.Event()

    @property
    def muted(self) -> bool:
        """True while nothing may be sent."""
        return self._muted

    def mute(self) -> None:
        """Send nothing from now on."""
        self._muted = True

    def unmute(self) -> None:
        """Send again, beginning with what was missed."""
        self._muted = False
        self._changed.set()

    # The Subscriber protocol

    @property
    def busy(self) -> bool:
        """True if the connection will soon be behind: a short pause may save a read."""
        return not self._muted and self._transport.busy

    def send_message(self, message: Message, text: str) -> None:
        """See Subscriber."""
        session_id, seq = message["session_id"], message["seq"]
        if seq <= self._seq_ahead(session_id):
            return
        own = message["id"] == self.own.sending
        if own:
            self.own.received = message
        behind = self._behind.get(session_id)
        if behind is not None:
            behind.last = max(behind.last, seq)
            return
        if own or self._muted or self._transport.full:
            # Messages after the client's own wait for its acknowledgement: if the connection ended in between, the
            # client would ask for them again.
            self._fall_behind(session_id, seq - 1, last=seq, held=own)
            return
        self._ahead.pop(session_id, None)
        self._put(message, text, "out")

    def send_change(self, session_id: str, seq: int, change: SessionChange, text: str) -> None:
        """See Subscriber."""
        if self._muted or session_id in self._behind or self._transport.full:
            self._fall_behind(session_id, seq, change)
        else:
            self._transport.put(text)

    def send_note(self, seq: int, note: Note, text: str) -> None:
        """See Subscriber."""
        session_id = note["session_id"]
        if note["n"] <= self._notes_ahead.get(session_id, 0):
            return
        if self._muted or session_id in self._behind or self._transport.full:
            self._fall_behind(session_id, seq, SessionChange.NOTED)
            if (behind := self._behind.get(session_id)) is not None and behind.note is None:
                behind.note = note["n"] - 1
        else:
            self._notes_ahead.pop(session_id, None)
            self._put_note(note, text)

    def send_staff_status(self, staff_id: str, text: str) -> None:
        """See Subscriber."""
        if self._muted or self._transport.full:
            if self._staff.put(staff_id, text):
                self._changed.set()
        else:
            self._transport.put(text)

    def send_attachment(self, session_id: str, attachment_id: str, text: str) -> None:
        """See Subscriber."""
        # In a session that is behind, a message that is read later may have an older state of the file.
        waits = self._muted or session_id in self._behind or self._transport.full
        if waits or attachment_id in self._files:
            self._keep_file(session_id, attachment_id, text)
        else:
            self._transport.put(text)

    def _keep_file(self, session_id: str, attachment_id: str, text: str) -> None:
        if self._files.put(attachment_id, text, session_id):
            self._changed.set()
        else:
            self.close(1013, "too slow")

    def send_hint(self, text: str) -> None:
        """See Subscriber."""
        if not self._muted and not self._transport.busy:
            self._transport.put(text)

    def drop_positions(self, sent: Mapping[str, int], *, settled_at: float) -> None:
        """See Subscriber."""
        self._ahead = {
            session_id: (seq, read_at)
            for session_id, (seq, read_at) in self._ahead.items()
            if (sent[session_id] < seq if session_id in sent else settled_at <= read_at)
        }

    def close(self, code: int, reason: str, error: str = "") -> None:
        """See Subscriber."""
        self._transport.end(CloseConnection(code, reason, error))

    def _seq_ahead(self, session_id: str) -> int:
        return self._ahead.get(session_id, (0, 0.0))[0]

    def _fall_behind(
        self,
        session_id: str,
        seq: int,
        change: SessionChange = NO_CHANGE,
        *,
        last: int = 0,
        held: bool = False,
    ) -> None:
        behind = self._behind.get(session_id)
        if behind is None:
            if len(self._behind) >= MAX_BEHIND:
                self.close(1013, "too slow")
                return
            behind = self._behind[session_id] = Behind(max(seq, self._seq_ahead(session_id)), held=held)
            self._changed.set()
        behind.changes |= change
        behind.last = max(behind.last, last)

    # The client's own messages

    def acknowledge(self, message: Message) -> None:
        """Note that the client gets its message by acknowledgement now, so that the hub's copy is dropped."""
        session_id = message["session_id"]
        self.current = session_id
        behind = self._behind.get(session_id)
        if behind is not None and behind.held and behind.last <= message["seq"] and not behind.changes:
            del self._behind[session_id]  # nothing came after it
        elif self.own.received is None or behind is not None:
            self.own.expect(message["id"])

    def release(self) -> None:
        """Send what came after the message that was being stored, whether it was stored or not."""
        self.own.sending = None
        for behind in self._behind.values():
            behind.held = False
        self._changed.set()

    def _put(self, message: Message, text: str, direction: str) -> None:
        self.current = message["session_id"]
        if self.own.drops_message(message):
            return
        self._sent[direction].inc()
        self._transport.put(text)

    def _put_note(self, note: Note, text: str) -> None:
        if not self.own.drops_note(note):
            self._transport.put(text)

    # Catching up

    def enter(self, found: CatchUp, since: Mapping[str, int] | None) -> None:
        """Start at the positions that `gre_catch_up` found; the hub's news so far are included there, or come after."""
        left = FIRST_MESSAGES
        for session in found["sessions"]:
            session_id, last = session["id"], session["last_seq"]
            seq = found["positions"].get(session_id, last)
            if since == {}:
                seq = max(seq, last - left)
                left -= last - seq
            behind = self._behind.pop(session_id, None) or Behind(seq)
            if seq < max(last, behind.last) or behind.changes:
                self._behind[session_id] = Behind(seq, last, behind.last, behind.changes, behind.note)
            else:
                self._ahead[session_id] = last, self._clock()
        for changed in found.get("attachments", ()):
            session_id, attachment = changed["session_id"], changed["attachment"]
            if attachment["id"] not in self._files:  # the hub's may be newer, or is followed by a newer one
                text = frame("attachment_updated", sessionId=session_id, attachment=attachment)
                self._keep_file(session_id, attachment["id"], text)
        active = (item["id"] for item in found["sessions"] if item["status"] == "active")
        self.current = next(active, None)

    async def catch_up(self) -> None:
        """Send what is behind, as fast as the client reads, until cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            if self._muted or not self._sendable():
                await self._changed.wait()
                continue
            await self._transport.wait_drained()
            if self._muted:
                continue
            self._staff.send(self._transport)
            self._files.send(self._transport, self._behind)
            try:
                await self._read()
                failures = 0
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                failures += 1
                kind = error.kind if isinstance(error, BridgeError) else "unreadable"
                self._metrics.database_errors.labels(kind).inc()
                await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))

    def _sendable(self) -> bool:
        """Return True if something waits that is not held."""
        unheld = any(not item.held for item in self._behind.values())
        return unheld or bool(self._staff) or self._files.sendable(self._behind)

    async def _read(self) -> None:
        not_held = (key for key, behind in self._behind.items() if not behind.held)
        requested = list(itertools.islice(not_held, SESSIONS_PER_READ))
        if not requested:
            return
        changes: dict[str, SessionChange] = {}
        for key in requested:
            # News that the hub sends from now on may be newer than this read.
            behind = self._behind[key]
            changes[key], behind.changes, behind.last = behind.changes, NO_CHANGE, 0
        try:
            found = await self._source.missed(
                {key: (self._behind[key].seq, self._behind[key].note) for key in requested},
                self.identity.player_id,
            )
            entries = {entry["session"]["id"]: entry for entry in found["sessions"]}
            skipped = set(found["skipped"])
        except BaseException:
            for key, taken in changes.items():
                self._behind[key].changes |= taken
            raise
        for key in requested:
            behind = self._behind.pop(key)
            if self._muted or key in skipped:
                behind.changes |= changes[key]
                self._behind[key] = behind
            elif key in entries and self._send(entries[key], behind, changes[key]):
                self._behind[key] = behind  # at the end: other sessions come first

    def _send(self, entry: SessionNews, behind: Behind, changes: SessionChange) -> bool:
        """Send one session's page. Returns True if there is more to read."""
        session = entry["session"]
        if changes & SessionChange.OPENED:
            self._transport.put(frame("session_updated", session=session))
        for message in entry["messages"]:
            if message["id"] == self.own.sending:
                self.own.received, behind.held = message, True
                behind.last = max(behind.last, session["last_seq"])
                behind.changes |= changes & ~SessionChange.OPENED
                self._ahead[session["id"]] = behind.seq, self._clock()
                return True
            if message["seq"] > behind.seq:
                behind.seq = message["seq"]
                replay = behind.seq <= behind.replay
                text = frame("chat_message", message=message, replay=replay)
                self._put(message, text, "replayed" if replay else "out")
        self._send_notes(entry, behind)
        if not entry["more"]:
            behind.seq = max(behind.seq, session["last_seq"])
        self._ahead[session["id"]] = behind.seq, self._clock()
        if entry["more"]:
            behind.changes |= changes & ~SessionChange.OPENED
            return True
        for side, (seq, at) in entry["reads"].items():
            if changes & READ_BY[side]:
                body = {"sessionId": session["id"], "by": side, "upToSeq": seq, "timestamp": at}
                self._transport.put(frame("messages_read", **body))
        if changes & SessionChange.UPDATED:
            self._transport.put(frame("session_updated", session=session))
        return behind.last > behind.seq or bool(behind.changes)

    def _send_notes(self, entry: SessionNews, behind: Behind) -> None:
        for note in entry.get("notes", ()):
            if behind.note is not None and note["n"] > behind.note:
                behind.note = note["n"]
                remember(self._notes_ahead, note["session_id"], note["n"])
                self._put_note(note, frame("session_note", note=note))
        if not entry["more"] and not behind.changes & SessionChange.NOTED:
            behind.note = None
