"""Writes log lines where nobody may wait for them: a line that cannot be written is dropped and counted.

The reader of stderr may be gone, its disk full, or its pipe full and unread. Before `start` a line is written at
once if that does not block; after it, by a thread of its own from a bounded queue, so that not even a slow disk
holds up the caller. A process that forks starts the thread in its children only.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from collections.abc import Callable

QUEUED_LINES = 10_000
"""Lines that wait for the thread; more are dropped."""
FLUSH_WITHIN = 1.0
"""Seconds that a stop waits for the lines that are queued."""
_ATOMIC = 4096
"""Bytes that a pipe which polls as writable takes without blocking (PIPE_BUF)."""


class LogWriter:
    """A text stream, as far as a logger needs one, over a file descriptor."""

    def __init__(self, descriptor: int = 2, *, queued_lines: int = QUEUED_LINES) -> None:
        """`descriptor` is written to, and never closed."""
        self._descriptor = descriptor
        self._queued_lines = queued_lines
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._cut = False
        self.dropped = 0
        """Lines that were dropped."""
        self.on_drop: Callable[[], None] = lambda: None
        """Called for each line that is dropped, from any thread."""

    def write(self, text: str) -> int:
        """Write or queue a line; neither blocks nor raises."""
        data = text.encode(errors="backslashreplace")
        if self._thread is None:
            self._count(self._write_what_fits(data))
        elif self._queue.qsize() < self._queued_lines:
            self._queue.put(data)
        else:
            self._count(False)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: lines are written whole."""

    def isatty(self) -> bool:
        """Whether a terminal shows what is written."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def start(self) -> None:
        """Write from a thread from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            self._thread.start()

    def stop(self, within: float = FLUSH_WITHIN) -> None:
        """Write what is queued, for `within` seconds at most, then go on without the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(within)

    def _count(self, written: bool) -> None:
        if not written:
            self.dropped += 1
            self.on_drop()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._count(self._write_all(data))

    def _write_all(self, data: bytes) -> bool:
        """Write, however long it takes."""
        data = self._after_a_cut(data)
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._cut |= len(rest) < len(data)
            return False
        return True

    def _write_what_fits(self, data: bytes) -> bool:
        """Write as far as that does not block."""
        data = self._after_a_cut(data)
        rest = data
        try:
            while rest:
                if not select.select([], [self._descriptor], [], 0)[1]:
                    break
                rest = rest[os.write(self._descriptor, rest[:_ATOMIC]) :]
        except (OSError, ValueError):
            pass
        self._cut |= 0 < len(rest) < len(data)
        return not rest

    def _after_a_cut(self, data: bytes) -> bytes:
        """Begin on a new line after one that was written in part."""
        if not self._cut:
            return data
        self._cut = False
        return b"\n" + data
