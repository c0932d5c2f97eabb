"""A player's client of the WebSocket API, without a page."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from tests.browser.world import World


class PlayerSocket:
    """The authenticated WebSocket of a player; a context manager."""

    def __init__(self, world: World, player: int) -> None:
        self.received: list[dict[str, Any]] = []
        """All frames so far."""
        self._socket = connect(f"{world.console.replace('http', 'ws', 1)}/ws", proxy=None, open_timeout=60)
        self.send(type="authenticate", token=world.token(f"player:{player}"))
        self.receive("authenticated")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, **frame: Any) -> None:
        self._socket.send(json.dumps(frame))

    def receive(self, kind: str, within: float = 60.0) -> dict[str, Any]:
        """Return the next frame of this type, within so many seconds."""
        deadline = time.monotonic() + within
        while True:
            frame: dict[str, Any] = json.loads(self._socket.recv(timeout=deadline - time.monotonic()))
            self.received.append(frame)
            if frame["type"] == kind:
                return frame
