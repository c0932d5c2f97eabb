"""Writes log lines without ever blocking the caller: a line that cannot be written is dropped and counted.

The reader of stderr may have exited, its disk may be full, or its pipe full and unread. Before `start` a line is written
at once if that does not block; after it, a thread writes the lines of a bounded queue, so a slow disk does not delay the
caller. A process that forks starts the thread only in its children.
"""

from __future__ import annotations

import os
import queue
import select
import threading

QUEUED_LINES = 10_000
"""Capacity of the queue; further lines are dropped."""
FLUSH_WITHIN = 1.0
"""Seconds for which `stop` waits for queued lines."""
_ATOMIC = 4096
"""Bytes that a writable pipe accepts without blocking (PIPE_BUF)."""


class LogWriter:
    """A text stream over a file descriptor, with the methods that a logger needs."""

    def __init__(self, descriptor: int = 2, *, queued_lines: int = QUEUED_LINES) -> None:
        """`descriptor` is not closed."""
        self._descriptor = descriptor
        self._queued_lines = queued_lines
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._cut = False
        self.dropped = 0
        """Number of lines that could not be written."""

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
        """Do nothing: lines are not buffered."""

    def isatty(self) -> bool:
        """Return True if the descriptor is a terminal."""
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

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._count(self._write_all(data))

    def _write_all(self, data: bytes) -> bool:
        """Write, and block as long as that takes."""
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
        """Write as much as is possible without blocking."""
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
        """Start a new line after one that was written in part."""
        if not self._cut:
            return data
        self._cut = False
        return b"\n" + data
