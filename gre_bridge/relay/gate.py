"""Lets as many requests of a sink through as its window allows, in the order in which they came."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from gre_bridge.relay.policy import Window


class Gate:
    """A semaphore whose size is that of a window."""

    def __init__(self, window: Window) -> None:
        """Whoever changes the window needs to tell nobody: each request that ends lets through what fits then."""
        self._window = window
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """True while no further request fits."""
        return self._in_flight >= self._window.size

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and free it at the end."""
        if self.full or self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # its slot is counted by `_let_through`
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._in_flight -= 1
                    self._let_through()
                elif turn in self._waiting:  # (else `_let_through` has passed over it already)
                    self._waiting.remove(turn)
                raise
        else:
            self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._let_through()

    def _let_through(self) -> None:
        while self._waiting and not self.full:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
