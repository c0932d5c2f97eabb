"""A line of connections that wait for their turn: so many at a time, and visitors alternate.

A storm, in which all pages come back at once, is let in as fast as it can be served, instead of being refused and coming back
again. A visitor with many connections delays the others by one turn, not by all of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turn:
    """One of the turns that a line gives. `end` may be called repeatedly."""

    def __init__(self, line: Line) -> None:
        """The line has counted it."""
        self._line: Line | None = line

    def end(self) -> None:
        """Give the turn to the next in line."""
        if self._line is not None:
            line, self._line = self._line, None
            line.advance()


class Line:
    """`most` turns at a time."""

    def __init__(self, most: int) -> None:
        """Nobody waits."""
        self._free = most
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Who waits, by visitor; the visitor whose turn is next first."""

    async def take(self, visitor: str, within: float) -> Turn:
        """Wait for a turn. Raises TimeoutError after `within` seconds, or when its place is given to another visitor."""
        if self._free > 0:
            self._free -= 1
            return Turn(self)
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(visitor, deque()).append(future)
        try:
            async with asyncio.timeout(within):
                await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.advance()  # its turn had just come
            raise
        return Turn(self)

    def make_room(self, visitor: str) -> bool:
        """End the wait of the last one of the visitor with the most, if these are more than this visitor's; False if not."""
        busiest = max(self._waiting, key=lambda name: len(self._waiting[name]), default=visitor)
        while len(queue := self._waiting.get(busiest, deque())) > len(self._waiting.get(visitor, ())):
            future = queue.pop()
            if not queue:
                del self._waiting[busiest]
            if not future.done():
                future.set_exception(TimeoutError())
                return True
        return False

    def advance(self) -> None:
        """Pass a turn on, or keep it for who comes next."""
        while self._waiting:
            visitor = next(iter(self._waiting))
            queue = self._waiting.pop(visitor)
            future = queue.popleft()
            if queue:
                self._waiting[visitor] = queue
            if not future.done():
                future.set_result(None)
                return
        self._free += 1
