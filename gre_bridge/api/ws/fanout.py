"""Sends what a read brought to the subscribers, each message once and in seq order.

It keeps the position of each session, never text. It must not read from the database, nor wait long for a subscriber.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from gre_bridge.api.pacing import Pacer
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import READ_BY, SessionChange
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.answers import Known, Session, SessionNews

log = structlog.get_logger("gre.hub")

POSITION_AGE = 600.0
"""Seconds after which the position of a quiet session is dropped (much longer than the hub's SLACK)."""
PRUNE_INTERVAL = 60.0
"""Seconds between two checks for positions that subscribers no longer need."""
PARTS: tuple[Literal["events_more", "files_more"], ...] = ("events_more", "files_more")
"""Present in news of which only a part was read: the rev where it ends."""


@dataclass(slots=True)
class _Position:
    """The part of a session that was sent."""

    player_id: int
    seq: int = 0
    rev: int = 0
    note: int | None = None
    """`n` of the last note; None if not known, because only players were connected."""
    state: tuple[str, str | None, int, int | None] | None = None
    """The session's status, the staff member it is assigned to, its cycle and rating: a session may be closed and reopened between two looks."""
    reads: dict[str, int] = field(default_factory=dict)
    """The seq that each side has read up to."""
    touched_at: float = 0.0
    epoch: str | None = None
    """While the first look at the session is not complete: the time from which events and files are new."""


class FanOut:
    """Positions of sessions, and the frames that follow from a read."""

    def __init__(self, registry: ConnectionRegistry, clock: Callable[[], float]) -> None:
        """`clock` returns seconds."""
        self._registry = registry
        self._clock = clock
        self._positions: dict[str, _Position] = {}
        self._pruned_at = clock()
        self.since: str | None = None
        """Database time of the last complete poll, less the hub's SLACK. Older messages were sent, or belong to a session
        with a position: a session without one is read from this time on."""
        self.resets = 0
        """Times that the positions were dropped: what was asked for by earlier ones is for subscribers who have left."""

    def reset(self) -> None:
        """Drop all positions: they are outdated when there was no subscriber for a while."""
        self.resets += 1
        self._positions.clear()
        self.since = None

    def player_of(self, session_id: str) -> int | None:
        """Return the player of a session, None if the session has no position."""
        position = self._positions.get(session_id)
        return position.player_id if position else None

    def sent(self, session_id: str, seq: int) -> bool:
        """Return True if this message was sent."""
        position = self._positions.get(session_id)
        return position is not None and position.seq >= seq

    def touched_within(self, seconds: float) -> set[str]:
        """List the sessions that changed within the last `seconds`."""
        now = self._clock()
        return {key for key, position in self._positions.items() if now - position.touched_at < seconds}

    def positions(self, session_ids: Iterable[str]) -> dict[str, Known]:
        """Return what was sent of those of the sessions that have a position."""
        found = ((key, self._positions.get(key)) for key in session_ids)
        return {
            key: (position.seq, position.rev, position.note, position.epoch)
            for key, position in found
            if position
        }

    def record(self, entries: Iterable[SessionNews]) -> None:
        """Take over the positions of these sessions without sending anything."""
        for entry in entries:
            session = entry["session"]
            self._positions[session["id"]] = _Position(
                session["player_id"], session["last_seq"], session["rev"], entry.get("last_note"), _state(session),
                {side: seq for side, (seq, _) in entry["reads"].items()}, self._clock(),
            )  # fmt: skip

    async def publish(self, entries: Iterable[SessionNews]) -> list[str]:
        """Send the news of these sessions, until a `reset`. Returns the times at which the messages sent were created."""
        created, pacer, resets = list[str](), Pacer(), self.resets
        for entry in entries:
            if self.resets != resets:
                break
            try:
                created += await self._publish(entry, pacer)
            except (KeyError, TypeError, ValueError) as error:
                self._skip(entry, error)
        return created

    def prune(self, settled_at: float) -> None:
        """Drop positions of quiet sessions here, and positions of subscribers that are behind the hub's.

        Of a session without a position, messages from before `settled_at` (by the clock) are not sent any more. Later
        ones would be sent again, for example after the machine has slept.
        """
        now = self._clock()
        quiet_since = min(now - POSITION_AGE, settled_at)
        for key in [key for key, item in self._positions.items() if item.touched_at < quiet_since]:
            del self._positions[key]
        if now - self._pruned_at > PRUNE_INTERVAL:
            self._pruned_at = now
            sent = {key: position.seq for key, position in self._positions.items()}
            for subscriber in self._registry.subscribers():
                subscriber.drop_positions(sent, settled_at=settled_at)

    def _skip(self, entry: SessionNews, error: Exception) -> None:
        """Pass over news that cannot be read, so that other sessions are served."""
        session = entry["session"]
        position = self._positions.setdefault(session["id"], _Position(session["player_id"]))
        position.seq, position.rev, entry["more"] = session["last_seq"], session["rev"], False
        log.error("session_changes_skipped", session=session["id"], error=type(error).__name__)

    async def _publish(self, entry: SessionNews, pacer: Pacer) -> list[str]:
        """Send one session's news: opened, messages, notes, read marks, events, files, updated. Returns the messages' times of creation."""
        session, messages = entry["session"], entry["messages"]
        session_id, player_id = session["id"], session["player_id"]
        first = session_id not in self._positions
        position = self._positions.setdefault(session_id, _Position(player_id))
        position.touched_at = self._clock()
        state = _state(session)
        updated = frame("session_updated", session=session) if state != position.state else None
        if first:
            position.epoch, position.state = self.since, state
            # What is older belongs to nobody here, also if the rest of this look comes with another read.
            position.seq = messages[0]["seq"] - 1 if messages else session["last_seq"]
            self._send_change(player_id, session_id, position.seq, SessionChange.OPENED, updated)
        created: list[str] = []
        for message in messages:
            if message["seq"] > position.seq:
                position.seq = message["seq"]
                created.append(message["created_at"])
                text = frame("chat_message", message=message, replay=False)
                for subscriber in self._registry.subscribers_of(player_id):
                    subscriber.send_message(message, text)
                # Subscribers that enter meanwhile have read this message, or will.
                await pacer.after(len(text), lambda: self._registry.subscribers_of(player_id))
        self._publish_notes(entry, position)
        if entry["more"]:
            return created  # `rev` stays behind, so that the rest is read
        looking = first or position.epoch is not None
        position.seq, position.rev, position.state = session["last_seq"], session["rev"], state
        for side, (up_to, read_at) in entry["reads"].items():
            old = looking and (read_at or "") <= (position.epoch or read_at or "")
            if up_to > position.reads.get(side, 0) and not old:
                text = frame("messages_read", sessionId=session_id, by=side, upToSeq=up_to, timestamp=read_at)
                self._send_change(player_id, session_id, position.seq, READ_BY[side], text)
            position.reads[side] = up_to
        position.epoch = None
        ends = [entry[part] for part in PARTS if part in entry]
        if ends:  # what comes after the part that ends first is read next
            position.rev, entry["more"] = min(ends), True
        self._send_events(entry, position.seq, position.rev)
        self._send_attachments(entry, player_id, position.rev)
        if not first:
            self._send_change(player_id, session_id, position.seq, SessionChange.UPDATED, updated)
        return created

    def _send_events(self, entry: SessionNews, seq: int, rev: int) -> None:
        """Send the session's new events up to `rev` to staff. A subscriber that is behind gets `session_updated` instead."""
        session_id = entry["session"]["id"]
        for event in (event for event in entry.get("events", ()) if event["rev"] <= rev):
            text = frame("session_event", sessionId=session_id, event=event)
            for subscriber in self._registry.staff():
                subscriber.send_change(session_id, seq, SessionChange.UPDATED, text)

    def _send_attachments(self, entry: SessionNews, player_id: int, rev: int) -> None:
        """Send the session's files that have changed up to `rev` since their messages were sent."""
        session_id = entry["session"]["id"]
        for changed in (file for file in entry.get("attachments", ()) if file["rev"] <= rev):
            attachment = {key: value for key, value in changed.items() if key not in ("message_id", "rev")}
            text = frame("attachment_updated", sessionId=session_id, attachment=attachment)
            for subscriber in self._registry.subscribers_of(player_id):
                subscriber.send_attachment(session_id, changed["id"], text)

    def _publish_notes(self, entry: SessionNews, position: _Position) -> None:
        for note in entry.get("notes", ()):
            if note["n"] > (position.note or 0):
                text = frame("session_note", note=note)
                for subscriber in self._registry.staff():
                    subscriber.send_note(position.seq, note, text)
                position.note = note["n"]
        if not entry["more"]:
            position.note = entry.get("last_note", position.note)

    def _send_change(
        self, player_id: int, session_id: str, seq: int, change: SessionChange, text: str | None
    ) -> None:
        if text is not None:
            for subscriber in self._registry.subscribers_of(player_id):
                subscriber.send_change(session_id, seq, change, text)


def _state(session: Session) -> tuple[str, str | None, int, int | None]:
    return session["status"], session["assigned_staff_id"], session.get("cycle", 1), session.get("rating")
