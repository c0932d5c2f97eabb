"""When to try again: retry of a rejected event and the breaker of a sink, as pure values.

No clock, no socket and no randomness of their own: time comes in as an argument, randomness as a
function, so every rule can be tested in microseconds.
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
    """What becomes of an event that the service refused: exponential backoff with full jitter and a cap.

    `base` and `cap` are in seconds.
    """

    max_attempts: int = 5
    base: float = 0.5
    cap: float = 60.0
    jitter: Jitter = random.random

    def gives_up(self, attempts: int) -> bool:
        """Whether an event that has now been refused `attempts` times is dead."""
        return attempts >= self.max_attempts

    def delay(self, attempts: int) -> float:
        """Seconds until the next try after `attempts` refusals (1 or more)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempts - 1, 30))
        return ceiling * self.jitter()


@dataclass(slots=True)
class Pace:
    """At most `rate` requests a second, evenly spaced, so that no window of a second holds more; 0 sets no limit."""

    rate: float = 0.0
    _free: float = field(default=-math.inf)

    def take(self, now: float) -> float:
        """Take the next place; returns the seconds to wait for it."""
        if not self.rate:
            return 0.0
        at = max(now, self._free)
        self._free = at + 1.0 / self.rate
        return at - now


class BreakerState(StrEnum):
    """CLOSED lets work through; OPEN holds it in the database; HALF_OPEN lets one probe through."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(slots=True)
class Breaker:
    """The breaker of one sink in one worker.

    Opens after `threshold` failures in a row, at once when the credentials are refused or the service
    says when to come back (Retry-After). While open the waiting time grows with the length of the
    outage (`share` of it, between `base` and `cap` seconds, jittered downwards by up to a half), so
    that a blip costs a fraction of itself and an hour's outage is not hammered. Then one probe goes.
    """

    threshold: int = 3
    base: float = 0.1
    share: float = 0.1
    cap: float = 15.0
    retry_after_cap: float = 300.0
    idle: float = 30.0
    """Seconds that a half-open breaker waits for work that others may have in hand."""
    jitter: Jitter = random.random
    failures: int = 0
    reason: str = ""
    since: float | None = None
    """When the first failure of this outage was seen (the caller's clock), None while all is well."""
    _until: float | None = field(default=None)
    _probing: bool = field(default=False)

    def state(self, now: float) -> BreakerState:
        """Where the breaker stands at `now`."""
        if self._until is None:
            return BreakerState.CLOSED
        if self._probing or now >= self._until:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def wait(self, now: float) -> float:
        """Seconds until work may go (0 when it may now); while a probe is under way, `cap`."""
        if self._until is None:
            return 0.0
        if self._probing:
            return self.cap
        return max(0.0, self._until - now)

    def begin_probe(self) -> None:
        """A half-open breaker's one probe is on its way."""
        self._probing = True

    def cancel_probe(self) -> bool:
        """A probe ended; True when it found nothing to send, so that the next work is the probe."""
        undecided, self._probing = self._probing, False
        return undecided

    def nothing_due(self, now: float, *, waiting: bool) -> bool:
        """A half-open breaker found no work to probe with; `waiting`: some is due later, or is in another worker's hands.

        Returns whether that closed it: another worker may have drained everything since, and then no probe would ever go.
        That the service failed is remembered: the next failure opens the breaker at once.
        """
        if self._until is None or self.state(now) is not BreakerState.HALF_OPEN or self._probing:
            return False
        if waiting and now < self._until + self.idle:
            return False
        self._until, self.since, self.reason = None, None, ""
        self.failures = self.threshold - 1
        return True

    def success(self, now: float) -> bool:
        """The service took something. Returns whether that closed the breaker.

        While it is open that was a request from before, and changes nothing: a Retry-After is kept.
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
        """The service as a whole failed. Returns whether that opened the breaker (from closed)."""
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
        """Seconds to hold work back after a failure at `now`; also a single lane's pause while closed."""
        outage = now - self.since if self.since is not None else 0.0
        ceiling = min(self.cap, max(self.base, self.share * outage))
        return ceiling * (1.0 - 0.5 * self.jitter())
