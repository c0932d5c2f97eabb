"""The requests that the sinks received, read as they arrive: first arrivals, their order, and repeats.

Order and repeats are judged while reading, so that a run of hours needs no more than one line for each message.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.support.stack import StackProcess

SINKS = ("pusher", "onesignal")
_PAGE = 5000


@dataclass
class Arrivals:
    """The messages that one sink received. Times are Unix seconds, by the stack."""

    first: dict[str, float] = field(default_factory=dict)
    newest: dict[str, tuple[int, float]] = field(default_factory=lambda: defaultdict(lambda: (0, 0.0)))
    """By session: the highest seq that arrived, and when."""
    out_of_order: list[str] = field(default_factory=list)
    repeats: list[tuple[str, float, float]] = field(default_factory=list)
    """Message, its first arrival, this arrival."""

    def take(self, message: str, session: str, seq: int, at: float) -> None:
        if message in self.first:
            self.repeats.append((message, self.first[message], at))
            return
        self.first[message] = at
        if seq < self.newest[session][0]:
            self.out_of_order.append(message)
        else:
            self.newest[session] = (seq, at)


class Watch:
    """Reads /__stack/received incrementally."""

    def __init__(self, stack: StackProcess) -> None:
        self._stack = stack
        self._since = dict.fromkeys(SINKS, 0)
        self.seen = {sink: Arrivals() for sink in SINKS}
        self.refused = dict.fromkeys(SINKS, 0)
        """Items in requests that were not answered with 200."""
        self.read()
        for sink in SINKS:
            self.seen[sink] = Arrivals()

    def begin_again(self) -> None:
        """Read from the beginning: the stack was started again, and its record is empty."""
        self._since = dict.fromkeys(SINKS, 0)

    def read(self) -> None:
        """Read the requests since the last call."""
        for sink in SINKS:
            while True:
                params: dict[str, str | int] = {"sink": sink, "since": self._since[sink], "limit": _PAGE}
                answer = self._stack.http.get("/__stack/received", params=params)
                items = answer.raise_for_status().json()["items"]
                for item in items:
                    self._since[sink] = item["n"]
                    self._take(sink, item)
                if len(items) < _PAGE:
                    break

    def _take(self, sink: str, item: dict[str, Any]) -> None:
        if item["status"] != 200:
            self.refused[sink] += 1
        elif sink == "pusher":
            # Each message goes to one of these two; the player's own channel gets a copy of the second kind.
            if item["channel"] in ("staff-portal", "private-staff-portal") and item["name"].startswith(
                "new-"
            ):
                data = item["data"]
                self.seen[sink].take(data["id"], data["session_id"], data["seq"], item["at"])
        elif item["id"] and not item["replayed"]:
            # A replay is known to OneSignal by its idempotency key: no phone rings twice.
            data = item["body"]["data"]
            if data["type"] != "check":  # the sink's control, which is no message
                self.seen[sink].take(data["message_id"], data["session_id"], data["seq"], item["at"])

    def arrival(self, sink: str, message: str, session: str, seq: int) -> float | None:
        """The time of the first arrival; a push of a late session stands for its earlier messages."""
        seen = self.seen[sink]
        at = seen.first.get(message)
        if at is None and sink == "onesignal" and seen.newest[session][0] > seq:
            return seen.newest[session][1]
        return at
