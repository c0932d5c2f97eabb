"""Who was let into Pusher's private channels by this instance, and ending the connections of whoever lost that right.

Pusher looks at a signature once: a subscription stays until its connection ends. Connections that have signed in as a
user (`pusher.signin()`) can be ended by that user's id. It must not judge who has which right.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Iterable
from typing import Any

import pusher  # type: ignore[import-untyped]
import structlog
from pusher.http import Request  # type: ignore[import-untyped]

from gre_bridge.config.settings import Settings
from gre_bridge.db.http import Answer, Pool, Transport
from gre_bridge.db.types import Json
from gre_bridge.db.users import Identity
from gre_bridge.errors import BridgeError, TransientError

log = structlog.get_logger("gre.pusher")

REMEMBERED = 2_000
"""People whose rights are watched, the latest."""
WAITING = 1_000
"""People whose connections wait to be ended."""
AGAIN = 10.0
"""Seconds after which connections are ended once more: a signature may have been given just before the right was lost."""
RETRY, RETRY_MAX = 1.0, 30.0
_PLAIN = re.compile(r"[A-Za-z0-9_\-=@,.]{1,150}")
"""What Pusher takes in a user's id, but for the separator."""


def user_id(who: Identity) -> str:
    """The id under which a person signs in: a player's and a staff member's are never the same.

    It names the user whom a row maps to this person, so that the end of one does not end another who is that person now.
    """
    if who.player_id is not None:
        person = f"player_{who.player_id}"
    elif _PLAIN.fullmatch(who.staff_id or ""):
        person = f"staff_{who.staff_id}"
    else:
        person = f"staff;{hashlib.blake2b((who.staff_id or '').encode(), digest_size=16).hexdigest()}"
    return f"{person};{who.user_id}" if who.user_id else person


class PusherUsers:
    """People at Pusher. `run` ends connections until cancelled."""

    def __init__(self, client: Any, transport: Transport) -> None:
        """Use `of`."""
        self._client = client
        self._transport = transport
        self._people: dict[Identity, None] = {}
        self._ending: dict[str, int] = {}
        """Users whose connections are to be ended, and how many times yet."""
        self._changed = asyncio.Event()

    @classmethod
    def of(cls, settings: Settings) -> PusherUsers | None:
        """With the credentials of the settings; None without any. Raises ConfigurationError as the sink does."""
        if not (settings.pusher_app_id and settings.pusher_key and settings.pusher_secret):
            return None
        transport = Pool(service="Pusher", connections=2, timeout=settings.send_timeout)
        client = pusher.Pusher(
            app_id=settings.pusher_app_id,
            key=settings.pusher_key,
            secret=settings.pusher_secret.get_secret_value(),
            cluster=settings.pusher_cluster,
            host=settings.pusher_host,
            port=settings.pusher_port,
            ssl=settings.pusher_ssl,
            backend=_NoBackend,
        )
        return cls(client, transport)

    def remember(self, who: Identity) -> None:
        """Watch this person, who was let in."""
        self._people.pop(who, None)
        self._people[who] = None
        if len(self._people) > REMEMBERED:
            del self._people[next(iter(self._people))]

    def people(self) -> Iterable[Identity]:
        """See Elsewhere."""
        return tuple(self._people)

    def end(self, who: Identity) -> None:
        """See Elsewhere."""
        for known in [one for one in self._people if one.claim == who.claim]:
            del self._people[known]
        if len(self._ending) < WAITING:
            self._ending[user_id(who)] = 2
            self._changed.set()

    async def run(self) -> None:
        """End the connections of whoever lost its right, again and again while Pusher is away, until cancelled."""
        failures = 0
        try:
            while True:
                if not self._ending:
                    self._changed.clear()
                    await self._changed.wait()
                user, times = next(iter(self._ending.items()))
                try:
                    await self._terminate(user)
                    failures = 0
                except Exception as error:  # noqa: BLE001 - whatever it was, it must not end the daemon
                    failures += 1
                    if failures == 1:
                        problem = str(error) if isinstance(error, BridgeError) else type(error).__name__
                        log.warning("connections at Pusher could not be ended", problem=problem)
                    await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))
                    continue
                if self._ending.get(user) == times:
                    del self._ending[user]
                    if times > 1:
                        asyncio.get_running_loop().call_later(AGAIN, self._once_more, user)
        finally:
            await self._transport.aclose()

    def _once_more(self, user: str) -> None:
        self._ending.setdefault(user, 1)
        self._changed.set()

    async def _terminate(self, user: str) -> None:
        # (The package's own method, 3.3.4, leaves the app out of the path.)
        client = self._client._pusher_client  # noqa: SLF001
        path = f"/apps/{client.app_id}/users/{user}/terminate_connections"
        request = Request(client, "POST", path, {})
        answer: Answer = await self._transport.request(
            request.method, request.url, request.headers, request.body
        )
        if not 200 <= answer.status < 300:
            raise TransientError(
                f"Pusher answered HTTP {answer.status} when a user's connections were to end", code="status"
            )


class _NoBackend:
    """The package makes one for each client; requests go over our transport."""

    def __init__(self, _client: object, **_: object) -> None:
        pass

    def send_request(self, _: Json) -> Awaitable[Answer]:
        raise NotImplementedError
