"""Joins calls: what is asked for in the same turn of the event loop goes to the database as one.

Two sinks that one bell woke claim together, and what one of them has sent is settled on the way. It must not
know what the calls mean, beyond which of them goes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gre_bridge.db.types import Json
from gre_bridge.errors import TransientError


@dataclass(eq=False, slots=True)
class Part:
    """A call that may go with others; those of lower `place` go first. `answer` is what it came to.

    `beside` are the arguments of the other calls that were made as one with it (not the calls: two that know each
    other would keep their answers until the collector of cycles comes by).
    """

    function: str
    arguments: Json
    place: int
    beside: Sequence[Json] = ()
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Joint:
    """Gathers calls until the loop has turned, then makes them."""

    def __init__(
        self,
        *,
        alone: Callable[[Part, Exception | None], Awaitable[Any]],
        together: Callable[[Sequence[Part]], Awaitable[Sequence[Any]]],
    ) -> None:
        """`together` makes several calls as one, all or none, and has their answers in order; `alone` makes one.

        What is not transient with several may be wrong with one of them: then each is made alone, and told of it.
        """
        self._alone = alone
        self._together = together
        self._waiting: list[Part] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def call(self, part: Part) -> Any:
        """Make this call, together with what else is asked for now. Raises what became of it."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._go)
        self._waiting.append(part)
        return await part.answer

    async def aclose(self) -> None:
        """End what is under way."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _go(self) -> None:
        parts, self._waiting = [part for part in self._waiting if not part.answer.done()], []
        if parts:
            task = asyncio.create_task(self._make(sorted(parts, key=lambda part: part.place)))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _make(self, parts: list[Part]) -> None:
        refused: Exception | None = None
        if len(parts) > 1:
            try:
                await self._make_together(parts)
            except Exception as error:  # noqa: BLE001 - each raises its own, alone
                refused = error
            else:
                return
        await asyncio.gather(*(self._make_alone(part, refused) for part in parts if not part.answer.done()))

    async def _make_together(self, parts: list[Part]) -> None:
        answers: Sequence[Any]
        try:
            answers = await self._together(parts)
        except TransientError as error:
            answers = [error] * len(parts)
        for part, answer in zip(parts, answers, strict=True):
            part.beside = [other.arguments for other in parts if other is not part]
            _answer(part, answer)

    async def _make_alone(self, part: Part, refused: Exception | None) -> None:
        try:
            _answer(part, await self._alone(part, refused))
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            _answer(part, error)


def _answer(part: Part, answer: Any) -> None:
    if part.answer.done():  # whoever asked has gone
        return
    if isinstance(answer, Exception):
        part.answer.set_exception(answer)
    else:
        part.answer.set_result(answer)
