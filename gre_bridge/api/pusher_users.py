"""Ends the Pusher connections of people who lost the right to the channels that this instance signed for them.

Pusher checks a signature once: a subscription lasts until its connection ends. Connections that have signed in as a user
(`pusher.signin()`) can be terminated by that user's id. This module must not decide who has which right.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import pusher  # type: ignore[import-untyped]
import structlog
from pusher.http import Request  # type: ignore[import-untyped]

from gre_bridge.config.settings import Settings
from gre_bridge.db.callers import Identity
from gre_bridge.db.http import Answer, Pool, Transport
from gre_bridge.errors import BridgeError, TransientError

log = structlog.get_logger("gre.pusher")

MAX_IDENTITIES = 2_000
"""People whose rights are watched, the latest."""
MAX_PENDING = 1_000
"""People whose connections are about to be terminated."""
REPEAT_AFTER = 10.0
"""Seconds after which connections are terminated again: a signature may have been given just before the right was lost."""
RETRY, RETRY_MAX = 1.0, 30.0
_PLAIN = re.compile(r"[A-Za-z0-9_\-=@,.]{1,150}")
"""The characters that Pusher accepts in a user's id, except the separator `;`."""


def user_id(identity: Identity) -> str:
    """Return the id under which a person signs in. Ids of players and of staff never collide.

    The id includes the user that a row maps to this person, so that terminating one user's connections leaves another
    user alone who is that person now.
    """
    if identity.player_id is not None:
        person = f"player_{identity.player_id}"
    elif _PLAIN.fullmatch(identity.staff_id or ""):
        person = f"staff_{identity.staff_id}"
    else:
        person = f"staff;{hashlib.blake2b((identity.staff_id or '').encode(), digest_size=16).hexdigest()}"
    return f"{person};{identity.user_id}" if identity.user_id else person


class PusherUsers:
    """People who may be connected to Pusher (the hub's ExternalConnections). `run` until cancelled."""

    def __init__(self, client: Any, transport: Transport) -> None:
        """`client` signs the requests, `transport` sends them; see `from_settings`."""
        self._client = client
        self._transport = transport
        self._identities: dict[Identity, None] = {}
        self._pending: dict[str, int] = {}
        """Users whose connections are to be terminated, and how many times."""
        self._changed = asyncio.Event()

    @classmethod
    def from_settings(cls, settings: Settings) -> PusherUsers | None:
        """Use the credentials of the settings; None without them. Raises ConfigurationError as the sink does."""
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
            backend=lambda _, **__: None,  # requests go over `transport`
        )
        return cls(client, transport)

    def remember(self, identity: Identity) -> None:
        """Watch this person, for whom a subscription was signed."""
        self._identities.pop(identity, None)
        self._identities[identity] = None
        if len(self._identities) > MAX_IDENTITIES:
            del self._identities[next(iter(self._identities))]

    def identities(self) -> Iterable[Identity]:
        """See ExternalConnections."""
        return tuple(self._identities)

    def disconnect(self, identity: Identity) -> None:
        """See ExternalConnections."""
        for item in [item for item in self._identities if item.claim == identity.claim]:
            del self._identities[item]
        if len(self._pending) < MAX_PENDING:
            self._pending[user_id(identity)] = 2
            self._changed.set()

    async def run(self) -> None:
        """Terminate connections until cancelled; retried while Pusher is unavailable."""
        failures = 0
        try:
            while True:
                if not self._pending:
                    self._changed.clear()
                    await self._changed.wait()
                user, times = next(iter(self._pending.items()))
                try:
                    await self._terminate(user)
                    failures = 0
                except Exception as error:  # noqa: BLE001 - no error may end the daemon
                    failures += 1
                    if failures == 1:
                        text = str(error) if isinstance(error, BridgeError) else type(error).__name__
                        log.warning("pusher_terminate_failed", error=text)
                    await asyncio.sleep(min(RETRY * 2 ** (failures - 1), RETRY_MAX))
                    continue
                if self._pending.get(user) == times:
                    del self._pending[user]
                    if times > 1:
                        asyncio.get_running_loop().call_later(REPEAT_AFTER, self._repeat, user)
        finally:
            await self._transport.aclose()

    def _repeat(self, user: str) -> None:
        self._pending.setdefault(user, 1)
        self._changed.set()

    async def _terminate(self, user: str) -> None:
        # terminate_user_connections of the pusher package (3.3.4) leaves the app out of the path.
        client = self._client._pusher_client  # noqa: SLF001
        path = f"/apps/{client.app_id}/users/{user}/terminate_connections"
        request = Request(client, "POST", path, {})
        answer: Answer = await self._transport.request(
            request.method, request.url, request.headers, request.body
        )
        if not 200 <= answer.status < 300:
            raise TransientError(
                f"Pusher answered HTTP {answer.status} to the termination of a user's connections",
                code="status",
            )
