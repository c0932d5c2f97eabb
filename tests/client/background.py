"""An event loop in a thread of its own, whose work other threads hand in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

_T = TypeVar("_T")


class Background:
    """A running event loop. Subclasses say how they begin and end; their other methods may be called from any thread."""

    _loop: asyncio.AbstractEventLoop
    _thread: threading.Thread

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, _T], within: float = 20.0) -> _T:
        """Run a coroutine on the loop; return its result, or raise its error. `within` is its bound in seconds."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    async def _begin(self) -> None:
        """Called first, on the loop."""

    async def _end(self) -> None:
        """Called last, on the loop."""
