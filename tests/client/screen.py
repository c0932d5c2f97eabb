"""What a page shows, read from its lines, and what may never be seen on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Shown(NamedTuple):
    """A message on a page."""

    id: str
    seq: int
    session: str
    text: str


@dataclass
class Screen:
    """The messages on a page, in their order. Each state that the page shows is judged, not the last one only."""

    messages: list[Shown] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was wrong in a state, in words."""
    states: int = 0
    may_clear: bool = False
    """True until the page has taken away all messages at once, because another person has signed in."""
    _ids: set[str] = field(default_factory=set)
    _last: dict[str, int] = field(default_factory=dict)

    def apply(self, line: dict[str, Any]) -> None:
        """Apply a line of the page: `shown`, `loaded`, `error`, or another one, which changes nothing."""
        if error := line.get("error"):
            self._add(f"an error in the page: {error}")
        if line.get("loaded"):  # the page was loaded again, and shows nothing yet
            self.messages.clear()
            self._ids.clear()
            self._last.clear()
            self.may_clear = False
        if change := line.get("shown"):
            at, fresh = change["at"], [Shown(*item) for item in change["fresh"]]
            everything = not at and change["gone"] == len(self.messages)
            gone = self.messages[at : at + change["gone"]]
            self.messages[at : at + change["gone"]] = fresh
            appended = not gone and at + len(fresh) == len(self.messages)
            self._judge([] if everything and self.may_clear else gone, fresh if appended else None)
            self.may_clear &= not everything

    def texts(self) -> dict[str, list[str]]:
        """The texts of each session, in the order shown."""
        found: dict[str, list[str]] = {}
        for message in self.messages:
            found.setdefault(message.session, []).append(message.text)
        return found

    def ends_with(self, stored: dict[str, list[str]]) -> bool:
        """Return True if the page shows the end of each of these sessions, and at least one message of it."""
        shown = self.texts()
        return all(
            (texts := shown.get(session, [])) and each[-len(texts) :] == texts
            for session, each in stored.items()
        )

    def _judge(self, gone: list[Shown], appended: list[Shown] | None) -> None:
        self.states += 1
        if appended is None:
            self._last.clear()
            self._ids.clear()
            self._judge_in_order(self.messages)
        else:
            self._judge_in_order(appended)
        for message in gone:
            if message.id not in self._ids:
                self._add(f"vanished: {message.text}")

    def _judge_in_order(self, messages: list[Shown]) -> None:
        for message in messages:
            before = self._last.get(message.session)
            if message.id in self._ids:
                self._add(f"twice: {message.text}")
            elif before is not None and message.seq <= before:
                self._add(f"out of order: {message.text} ({message.seq} after {before})")
            elif before is not None and message.seq != before + 1:
                self._add(f"a hole before: {message.text} ({message.seq} after {before})")
            self._ids.add(message.id)
            self._last[message.session] = max(message.seq, before or 0)

    def _add(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)
