"""Presence of staff: heartbeats for the connected, and the end of connections whose person lost its rights.

The table `gre_online_status` is authoritative; this module keeps a copy of the last read. It must not see messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import ExternalConnections
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.answers import OnlineStaff
from gre_bridge.db.callers import Identity
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError
from gre_bridge.metrics import Metrics

HEARTBEAT_INTERVAL = 15.0
"""Seconds between heartbeats of the staff who are connected here."""
HEARTBEAT_EXPIRY = 45.0
"""Seconds after which staff without a heartbeat are offline."""
DEBOUNCE, MAX_DEBOUNCE = 0.25, 3.0
"""Seconds in which notifications count as one; more while a refresh takes long."""


class PresenceTracker:
    """Sends heartbeats and publishes changes of presence. `run` until cancelled."""

    def __init__(
        self,
        *,
        users: UserDatabase,
        metrics: Metrics,
        registry: ConnectionRegistry,
        external: ExternalConnections | None = None,
    ) -> None:
        """`registry` has the connections of this instance, `external` is Pusher if it is configured."""
        self._users = users
        self._metrics = metrics
        self._registry = registry
        self._external = external
        self._notified = asyncio.Event()
        self._ready = asyncio.Event()
        self._online: dict[str, OnlineStaff] = {}
        """Staff who are online or away, by id: {"staff_id", "display_name", "status"}."""
        self._set_here: set[str] = set()
        """Ids of staff who have set their presence here since the last read began, which may have missed it."""
        self._resets = 0
        """Times that the copy was marked as outdated: a read that began before ends no wait."""

    def notify(self) -> None:
        """Refresh soon: presence or rights may have changed."""
        self._notified.set()

    def reset(self) -> None:
        """Mark the copy as outdated: `wait_ready` waits for a refresh that begins after this."""
        self._resets += 1
        self._ready.clear()
        self._notified.set()

    @property
    def ready(self) -> bool:
        """True if presence was read."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Wait until presence was read, however long the database is unavailable."""
        await self._ready.wait()

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            tracked = self._online or self._registry or self._external
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_INTERVAL if tracked else None):
                    await self._notified.wait()
            # Refresh on a notification without connections too: staff of a killed instance become offline then.
            if not (
                self._notified.is_set() or self._online or self._registry or any(self._external_identities())
            ):
                continue
            self._notified.clear()
            started, resets = time.monotonic(), self._resets
            try:
                await self.refresh()
                if resets == self._resets:
                    self._ready.set()
            except (BridgeError, KeyError, TypeError, ValueError) as error:
                kind = error.kind if isinstance(error, BridgeError) else "unreadable"
                self._metrics.database_errors.labels(kind).inc()
                if not self._ready.is_set():
                    self._notified.set()
            # A refresh for thousands of people is expensive: use at most a sixth of the time for it.
            await asyncio.sleep(min(max(DEBOUNCE, 5 * (time.monotonic() - started)), MAX_DEBOUNCE))

    def _external_identities(self) -> Iterable[Identity]:
        return self._external.identities() if self._external else ()

    async def refresh(self) -> None:
        """Send heartbeats, publish changes of presence, and close the connections of people who lost their rights."""
        subscribers, external = self._registry.subscribers(), list(self._external_identities())
        identities = [item.identity for item in subscribers]
        self._set_here.clear()
        found = await self._users.presence(
            online=sorted({item.staff_id for item in identities if item.staff_id}),
            here=[*identities, *external],
            expires_in=HEARTBEAT_EXPIRY,
        )
        await self._take({row["staff_id"]: row for row in found["online"]})
        disabled = set(found["disabled"])
        revoked = {
            tuple(claim[name] for name in ("sub", "role", "player_id", "staff_id"))
            for claim in found["revoked"]
        }
        for item in self._registry.subscribers():
            if tuple(item.identity.claim.values()) in revoked:
                item.close(4403, "no longer active", "no_identity")
            elif item.identity.player_id in disabled:
                item.close(4403, "chat is disabled", "chat_disabled")
        if self._external is None:
            return
        for identity in {*identities, *external}:
            if tuple(identity.claim.values()) in revoked or identity.player_id in disabled:
                self._external.disconnect(identity)

    async def _take(self, online: dict[str, OnlineStaff]) -> None:
        """Publish what has changed. Other tasks run in between: each row goes to all connections."""
        for staff_id in self._set_here:
            online.pop(staff_id, None)
            if staff_id in self._online:
                online[staff_id] = self._online[staff_id]
            self._notified.set()  # read again which of both is newer
        before, self._online = self._online, dict(online)  # `update` changes it meanwhile
        for staff_id in {*online, *before}:
            row: OnlineStaff = online.get(staff_id) or {**before[staff_id], "status": "offline"}
            if row != before.get(staff_id) and row["status"] == self.status_of(staff_id):  # not changed since
                self._publish(row)
                await asyncio.sleep(0)

    def update(self, row: OnlineStaff) -> None:
        """Take over and publish the presence that a staff member has just set here."""
        self._set_here.add(row["staff_id"])
        if row["status"] == "offline":
            changed = self._online.pop(row["staff_id"], None) is not None
        else:
            changed = self._online.get(row["staff_id"]) != row
            self._online[row["staff_id"]] = row
        if changed:
            self._publish(row)

    def _publish(self, row: OnlineStaff) -> None:
        text = frame(
            "staff_status", staffId=row["staff_id"], displayName=row["display_name"], status=row["status"]
        )
        for item in self._registry.subscribers():
            item.send_staff_status(row["staff_id"], text)

    def status_of(self, staff_id: str | None) -> str:
        """Return the last known status of a staff member: online, away or offline."""
        row = self._online.get(staff_id or "")
        return row["status"] if row else "offline"

    @property
    def online_count(self) -> int:
        """The number of staff who are online."""
        return sum(row["status"] == "online" for row in self._online.values())
