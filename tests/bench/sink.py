"""The sink of the bench: accepts requests for Pusher and OneSignal, records their times, and fails on request.

It is a process of its own, so that it shares no interpreter with the measured design.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import Any

import orjson
from aiohttp import web

from tests.support.waiting import pause

Item = tuple[str, str | None, str | None, int | None, float, int]
"""Event, message id, session id, seq, when it came (Unix seconds), status."""


class Sink:
    """The received requests, and the time until which every answer is 500."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.requests = {"pusher": 0, "onesignal": 0}
        self.failing_until = 0.0
        self.distance = 0.0
        """Seconds that an answer takes on its way."""
        self.capacity, self.refuses = 0.0, False
        """Requests a second that it bears (0: all); above that it refuses with 429, or else lets them wait."""
        self.free = 0.0
        """When it has time for the next request, by the monotonic clock."""
        self.in_flight = 0
        self.beside: list[int] = []
        """For each request of a relay, how many were in flight with it."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request of a relay, or of the bench itself."""
        body = await request.read()
        now = time.time()
        if request.method == "GET":
            since = int(request.query.get("since", 0))
            state = {"items": self.items[since:], "requests": self.requests, "beside": self.beside}
            return web.Response(body=orjson.dumps(state))
        if request.path == "/fault":
            self.failing_until = now + orjson.loads(body)["seconds"]
            return web.Response()
        if request.path == "/distance":
            self.distance = orjson.loads(body)["seconds"]
            return web.Response()
        if request.path == "/capacity":
            asked = orjson.loads(body)
            self.capacity, self.refuses = asked["per_second"], asked["refuses"]
            return web.Response()
        if request.method == "DELETE":
            self.__init__()  # type: ignore[misc]
            return web.Response()
        self.in_flight += 1
        self.beside.append(self.in_flight)
        try:
            status, wait = self._bear()
            if now < self.failing_until:
                status = 500
            self._take(request.path, orjson.loads(body), now, status)
            if self.distance + wait:
                await pause(self.distance + wait, "latency of the network, and work before this request")
        finally:
            self.in_flight -= 1
        if request.path.endswith("/notifications"):
            return web.Response(status=status, body=b'{"id": "n"}')
        return web.Response(status=status, body=b"{}", content_type="application/json")

    def _bear(self) -> tuple[int, float]:
        """Return the status for one more request, and the seconds that it waits."""
        if not self.capacity:
            return 200, 0.0
        now = time.monotonic()
        # A service that refuses has counted a tenth of a second's requests before it does.
        if self.refuses and self.free - now > 0.1:
            return 429, 0.0
        self.free = max(self.free, now) + 1 / self.capacity
        return 200, 0.0 if self.refuses else self.free - now

    def _take(self, path: str, content: dict[str, Any], now: float, status: int) -> None:
        if path.endswith("/notifications"):
            self.requests["onesignal"] += 1
            self._note("push", content.get("data") or {}, now, status)
            return
        self.requests["pusher"] += 1
        for event in content.get("batch", [content]):
            self._note(event["name"], orjson.loads(event["data"]), now, status)

    def _note(self, name: str, data: dict[str, Any], now: float, status: int) -> None:
        message = data.get("id") or data.get("message_id")
        self.items.append((name, message, data.get("session_id"), data.get("seq"), now, status))


async def main() -> None:
    """Serve until SIGTERM; print the port."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.ServerRunner(web.Server(Sink().handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
