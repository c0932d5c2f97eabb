"""Starts the relay and the API as two processes and restarts a process that ends.

It has no event loop and no threads: it waits for signals, for the end of its children and for their reports over a
pipe. All modules are imported and all ports are bound before it forks, so a start costs one import, a port in use is one
line, and connections wait while a child restarts.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from gre_bridge.daemon import signals
from gre_bridge.daemon.reports import PipeReports
from gre_bridge.logging import LOGS
from gre_bridge.systemd import Notifier

log = structlog.get_logger()

SILENCE = 30.0
"""Seconds without a report after which the event loop of a child counts as blocked."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0
"""Seconds before a child is restarted: the first value, doubled for each end up to the last."""
STABLE = 60.0
"""Seconds after which a running child resets the pause."""
CONFIGURATION = 2
"""Exit status of a child with a configuration error."""
_INTERVAL = 1.0
"""Seconds that an iteration waits at most."""
_PAUSED = 5.0
"""Delay of an iteration, in seconds, from which this process itself counts as paused meanwhile."""
_PR_SET_PDEATHSIG = 1


class Closable(Protocol):
    """Holds sockets."""

    def close(self) -> None:
        """Close them in this process."""


@dataclass(slots=True)
class Child:
    """One process. `main` runs in it and returns its exit status."""

    name: str
    main: Callable[[PipeReports], int]
    pid: int = 0
    pipe: int = -1
    unread: bytes = b""
    started_at: float = 0.0
    heard_at: float = 0.0
    ready: bool = False
    status: str = "starting"
    stalled: str = ""
    stalled_since: float = 0.0
    killed: bool = False
    ends: int = 0
    start_at: float = 0.0
    """Time of the next start, while it does not run."""


@dataclass(slots=True)
class Supervisor:
    """Runs its children until a termination signal."""

    children: Sequence[Child]
    stop_within: float
    """Seconds that a graceful stop may take before a child is killed."""
    listeners: Closable | None = None
    """Closed when the stop begins, so that only the children hold the ports."""
    notifier: Notifier = field(default_factory=Notifier.from_environment)
    silence: float = SILENCE
    clock: Callable[[], float] = time.monotonic
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _signals: list[int] = field(default_factory=list)
    _wakeup: tuple[int, int] = (-1, -1)
    _stopping_since: float | None = None
    _error: str = ""
    _failed: bool = False
    _fed_at: float = 0.0
    _notified: str = ""

    def run(self) -> int:
        """Return the exit status: 0 after a graceful stop, 2 for a configuration error, else 1."""
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, None)
        self._handle_signals()
        while self._stopping_since is None or any(child.pid for child in self.children):
            now = self.clock()
            self._start_due_children(now)
            self._notify_manager(now)
            self._wait(now)
            if self.clock() - now > _INTERVAL + _PAUSED:
                self._reset_silence(self.clock())
            self._handle_pending_signals()
            self._reap()
            self._kill_stalled(self.clock())
        if self._error:
            LOGS.write(f"gre-bridge: {self._error}\n")  # never blocks
            return CONFIGURATION
        return 1 if self._failed else 0

    # Signals

    def _handle_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            if number is signal.SIGCHLD or not signals.is_ignored(number):
                signal.signal(number, lambda number, _: self._signals.append(number))

    def _handle_pending_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                continue
            if self._stopping_since is None:
                self._begin_stop()
            elif number != signal.SIGHUP:  # a closing terminal sends it twice
                log.warning("stopping_at_once", message="a second signal arrived")
                self._kill_all()

    def _begin_stop(self) -> None:
        self._stopping_since = self.clock()
        self.notifier.stopping("finishing what is in flight")
        if self.listeners is not None:
            self.listeners.close()
        for child in self.children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)

    def _kill_all(self) -> None:
        for child in self.children:
            if child.pid:
                child.killed = True
                os.kill(child.pid, signal.SIGKILL)

    # Children

    def _start_due_children(self, now: float) -> None:
        for child in self.children:
            if not child.pid and self._stopping_since is None and now >= child.start_at:
                self._start(child, now)

    def _start(self, child: Child, now: float) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._run_child(child, parent, reading, writing)
        os.close(writing)
        os.set_blocking(reading, False)
        self._selector.register(reading, selectors.EVENT_READ, child)
        child.pid, child.pipe, child.unread = pid, reading, b""
        child.started_at = child.heard_at = now
        child.ready, child.stalled, child.killed, child.status = False, "", False, "starting"

    def _run_child(self, child: Child, parent: int, reading: int, writing: int) -> None:
        """Run in the forked process; do not return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # Only the supervisor stops a child: a terminal sends its signals to all processes.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until it installs its handler
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if signal.SIGTERM in self._signals:  # it arrived before the handler
                os._exit(0)
            end_with(parent)
            os.close(reading)
            self._selector.close()
            for other in (*self._wakeup, *(c.pipe for c in self.children if c.pid)):
                os.close(other)
            status = child.main(PipeReports(writing))
        finally:
            os._exit(status)

    def _wait(self, now: float) -> None:
        due = [c.start_at for c in self.children if not c.pid and self._stopping_since is None]
        timeout = max(0.0, min([_INTERVAL, *(at - now for at in due)]))
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup[0], 4096)
            else:
                self._read(key.data)

    def _read(self, child: Child) -> None:
        try:
            data = os.read(child.pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1
            return
        child.heard_at = self.clock()
        *lines, child.unread = (child.unread + data).split(b"\n")
        for line in lines:
            report = json.loads(line)
            child.ready |= bool(report.get("ready"))
            child.status = str(report.get("status") or child.status)
            if "stalled" in report:
                child.stalled_since = child.stalled_since if child.stalled else child.heard_at
                child.stalled = str(report["stalled"])
            self._error = self._error or str(report.get("error", ""))

    def _reap(self) -> None:
        """Collect ended processes; as process 1 also orphans of other processes."""
        while True:
            try:
                pid, waited = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.pid == pid:
                    self._on_end(child, os.waitstatus_to_exitcode(waited))

    def _on_end(self, child: Child, status: int) -> None:
        now = self.clock()
        while child.pipe >= 0:  # read the remaining reports
            before = child.pipe, child.unread
            self._read(child)
            if (child.pipe, child.unread) == before:
                self._selector.unregister(child.pipe)
                os.close(child.pipe)
                child.pipe = -1
        child.pid = 0
        if status == CONFIGURATION:
            if self._stopping_since is None:
                self._begin_stop()
            self._failed = True
        elif self._stopping_since is not None:
            self._failed |= status != 0 and not child.killed
        else:
            child.ends = 1 if now - child.started_at > STABLE else child.ends + 1
            pause = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(child.ends - 1, 20))
            child.start_at = now + pause
            child.status = f"ended ({_describe(status)}), starts again in {pause:g} s"
            log.error("process_ended", process=child.name, status=_describe(status), restart_in=pause)

    def _kill_stalled(self, now: float) -> None:
        """Kill a child that is stalled, silent, or too slow to stop."""
        for child in self.children:
            if not child.pid or child.killed:
                continue
            if self._stopping_since is not None:
                reason = "the stop takes too long" if now - self._stopping_since > self.stop_within else ""
                self._failed |= bool(reason)
            elif now - child.heard_at > self.silence:
                reason = f"its event loop has been blocked for {now - child.heard_at:.0f} s"
            else:
                # After a pause of the machine the first report may precede the first iteration of the loops.
                reason = child.stalled if now - child.stalled_since > self.silence / 10 else ""
            if reason:
                log.error("process_killed", process=child.name, reason=reason)
                child.killed = True
                os.kill(child.pid, signal.SIGKILL)

    def _reset_silence(self, now: float) -> None:
        """Restart the limits: this process was paused itself and read no report meanwhile."""
        for child in self.children:
            child.heard_at = child.stalled_since = now

    # systemd

    def _notify_manager(self, now: float) -> None:
        if self._stopping_since is not None:
            return
        status = "; ".join(f"{child.name}: {child.status}" for child in self.children)
        if status != self._notified:
            if all(child.ready for child in self.children):
                self.notifier.ready(status)
            else:
                self.notifier.status(status)
            self._notified = status
        limit = self.notifier.watchdog
        # Only the service manager can act on a killed process that does not end.
        stuck = any(c.pid and c.killed and now - c.heard_at > self.silence + _PAUSED for c in self.children)
        if limit is not None and not stuck and now - self._fed_at >= limit / 3:
            self._fed_at = now
            self.notifier.alive()


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (on Linux; elsewhere its next report fails)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
