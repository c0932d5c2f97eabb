"""The only ways in which tests wait: for a condition, with a bound, or for an amount of time that has a reason.

`time.sleep` and `asyncio.sleep` are banned in tests/ outside this module (ruff's TID251, in pyproject.toml). The
coroutines use the clock of the event loop, so they also work where that clock is virtual.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


def wait_until(
    condition: Callable[[], Any],
    within: float = 60.0,
    every: float = 0.05,
    what: str = "",
    wait: Callable[[float], None] = time.sleep,
) -> Any:
    """Return the first true result of `condition`; raise AssertionError after `within` seconds.

    `wait` is called between two looks, with `every` seconds.
    """
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}")
        wait(every)
    return found


async def until(
    condition: Callable[[], Any], within: float = 60.0, every: float = 0.005, what: str = ""
) -> Any:
    """Return the first true result of `condition`, a function or a coroutine function.

    Raise AssertionError after `within` seconds. With `every` 0 it looks in each iteration of the event loop.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if loop.time() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}")
        await asyncio.sleep(every)


def quickest(action: Callable[[], Any], enough: float, tries: int = 10) -> float:
    """Run `action` until it takes less than `enough` seconds, `tries` times at most; return the shortest time.

    For what is slow each time or never: a try that other processes of the machine delay says nothing.
    """
    found = float("inf")
    for _ in range(tries):
        began = time.monotonic()
        action()
        found = min(found, time.monotonic() - began)
        if found < enough:
            break
    return found


def let_pass(seconds: float, why: str) -> None:
    """Block for some seconds, because the passage of time is part of the test; `why` documents the reason."""
    assert why
    time.sleep(max(0.0, seconds))


async def pause(seconds: float, why: str) -> None:
    """Do the same as `let_pass` without blocking the event loop."""
    assert why
    await asyncio.sleep(max(0.0, seconds))


async def next_turn(turns: int = 1) -> None:
    """Let the event loop run its other tasks once, or `turns` times."""
    for _ in range(turns):
        await asyncio.sleep(0)
