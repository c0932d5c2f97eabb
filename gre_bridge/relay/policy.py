"""Retry of a rejected event, limits of the request rate and of the requests in flight, and the breaker of a sink, as pure values.

They have no clock, no socket and no randomness: time is an argument and randomness a function.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from gre_bridge.errors import BridgeError, ConfigurationError

Jitter = Callable[[], float]
"""A number in [0, 1), as random.random."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry of an event that the service refused: exponential backoff with full jitter and a cap.

    `base` and `cap` are in seconds.
    """

    max_attempts: int = 5
    base: float = 0.5
    cap: float = 60.0
    jitter: Jitter = random.random

    def gives_up(self, attempts: int) -> bool:
        """Return True if an event that was refused `attempts` times is dead."""
        return attempts >= self.max_attempts

    def delay(self, attempts: int) -> float:
        """Seconds until the next try after `attempts` refusals (1 or more)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempts - 1, 30))
        return ceiling * self.jitter()


@dataclass(slots=True)
class Pace:
    """Limits requests to `rate` a second, evenly spaced, so that no second has more; 0 sets no limit."""

    rate: float = 0.0
    _free: float = field(default=-math.inf)

    def take(self, now: float) -> float:
        """Reserve the time of the next request; returns the seconds until then."""
        if not self.rate:
            return 0.0
        at = max(now, self._free)
        self._free = at + 1.0 / self.rate
        return at - now


@dataclass(slots=True)
class Window:
    """Limits the requests in flight to what the service bears, between 1 and `largest`.

    It begins with `start`. While all of it is in use it grows: by one with each answer until a limit has shown, from
    then on by one in the time of an answer. A failure halves it. If answers take longer than with `start` in flight, on
    average more than `tolerance` times as long plus `slack` seconds, a tenth of it is taken away, down to `start`.
    Either happens at most once in the time of an answer: requests that were made earlier say nothing about it.

    How long answers take with `start` in flight is measured again every `memory` seconds, for the time of some answers:
    what a full window measures is the queue that it makes itself.
    """

    largest: int
    start: int = 8
    tolerance: float = 2.0
    slack: float = 0.005
    memory: float = 15.0
    samples: int = 24
    """Answers of an average. A few say little where answer times vary, and the first ones that come back are the quick ones."""
    _size: float = field(init=False)
    _threshold: float = field(default=math.inf)
    _average: float = field(default=0.0)
    _count: int = field(default=0)
    """Answers in the average, `samples` at most."""
    _usual: float = field(default=math.inf)
    """The average with `start` in flight, measured at `_measured`."""
    _measured: float = field(default=math.inf)
    _resume: float = field(default=0.0)
    """The size after the measurement that is under way; 0 without one."""
    _changed: float = field(default=-math.inf)
    """Requests that were made until then say nothing about the window of now."""

    def __post_init__(self) -> None:
        """Begin with `start`, or with `largest` if that is smaller."""
        self.start = min(self.start, self.largest)
        self._size = float(self.start)

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        return int(self._size)

    def answered(self, began: float, now: float, *, full: bool) -> None:
        """Note an answer to a request made at `began`; `full`: the whole window was in use."""
        if began <= self._changed:
            return
        self._count = min(self._count + 1, self.samples)
        self._average += (now - began - self._average) / self._count
        known = self._count == self.samples
        if known and (self._resume or self._usual == math.inf):
            self._usual, self._measured = self._average, now
            if self._resume:
                self._change(self._resume, now)
                return
        if known and now - self._measured > self.memory:
            if self._size > self.start:
                resume = self._size
                self._change(self.start, now)
                self._resume = resume
                return
            self._usual, self._measured = self._average, now
        if known and self._average > self.tolerance * self._usual + self.slack:
            if self._size > self.start:
                self._change(max(float(self.start), self._size * 0.9), now)
                self._threshold = self._size
        elif full and not self._resume:
            step = 1.0 if self._size < self._threshold else 1.0 / self._size
            self._size = min(float(self.largest), self._size + step)

    def failed(self, began: float, now: float) -> None:
        """Note that the service as a whole failed on a request made at `began`."""
        if began > self._changed:
            self._change(max(1.0, (self._resume or self._size) / 2), now)
            self._threshold = self._size

    def _change(self, size: float, now: float) -> None:
        self._size, self._resume = size, 0.0
        self._changed = now
        self._average, self._count = 0.0, 0


class BreakerState(StrEnum):
    """CLOSED lets work through; OPEN holds it in the database; HALF_OPEN lets one probe through."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(slots=True)
class Breaker:
    """The breaker of one sink in one worker.

    It opens after `threshold` failures in a row, or at once when the credentials are refused or the answer has a
    Retry-After. The waiting time grows with the length of the outage: `share` of it, between `base` and `cap` seconds,
    reduced at random by up to half. Then one probe is sent.
    """

    threshold: int = 3
    base: float = 0.1
    share: float = 0.1
    cap: float = 15.0
    retry_after_cap: float = 300.0
    idle: float = 30.0
    """Seconds that a half-open breaker waits for work that other workers may be sending."""
    jitter: Jitter = random.random
    failures: int = 0
    reason: str = ""
    since: float | None = None
    """Time of the first failure of this outage by the caller's clock; None without an outage."""
    _until: float | None = field(default=None)
    _probing: bool = field(default=False)

    def state(self, now: float) -> BreakerState:
        """The state at `now`."""
        if self._until is None:
            return BreakerState.CLOSED
        if self._probing or now >= self._until:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def wait(self, now: float) -> float:
        """Seconds until a request may be made (0: now); while a probe is under way, `cap`."""
        if self._until is None:
            return 0.0
        if self._probing:
            return self.cap
        return max(0.0, self._until - now)

    def begin_probe(self) -> None:
        """Note that the one probe of the half-open breaker is being sent."""
        self._probing = True

    def cancel_probe(self) -> bool:
        """Note that the probe ended; True if it had nothing to send, so that the next request is the probe."""
        undecided, self._probing = self._probing, False
        return undecided

    def nothing_due(self, now: float, *, waiting: bool) -> bool:
        """Note that there is nothing to probe with; `waiting`: a lane is due later, or another worker has it.

        Returns True if this closed the breaker: another worker may have sent everything, and no probe would be made.
        The next failure opens it at once.
        """
        if self._until is None or self.state(now) is not BreakerState.HALF_OPEN or self._probing:
            return False
        if waiting and now < self._until + self.idle:
            return False
        self._until, self.since, self.reason = None, None, ""
        self.failures = self.threshold - 1
        return True

    def success(self, now: float) -> bool:
        """Note that the service accepted a request; returns True if this closed the breaker.

        While it is open, the request was made before it opened, and changes nothing: a Retry-After is kept.
        """
        if self.state(now) is BreakerState.OPEN:
            return False
        was_open = self._until is not None
        self.failures = 0
        self.reason = ""
        self.since = None
        self._until = None
        self._probing = False
        return was_open

    def failure(self, now: float, error: BridgeError) -> bool:
        """Note that the service as a whole failed; returns True if this opened the closed breaker."""
        was_closed = self._until is None
        self.failures += 1
        self.reason = str(error)
        if self.since is None:
            self.since = now
        at_once = isinstance(error, ConfigurationError) or error.retry_after is not None
        if was_closed and not at_once and self.failures < self.threshold:
            return False
        delay = self.delay(now)
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, self.retry_after_cap))
        self._until = max(now + delay, self._until if self._until is not None and not self._probing else 0.0)
        self._probing = False
        return was_closed

    def delay(self, now: float) -> float:
        """Seconds to wait after a failure at `now`; also the pause of a single lane while closed."""
        outage = now - self.since if self.since is not None else 0.0
        ceiling = min(self.cap, max(self.base, self.share * outage))
        return ceiling * (1.0 - 0.5 * self.jitter())
