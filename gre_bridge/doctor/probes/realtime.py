"""Probes Realtime as the daemon uses it: joins both channels, and receives a wake-up that the database sends.

The probe is the daemon's own connection, so both succeed and fail alike. `postgres_changes` reports inserts, so only
`doctor --live` can check it, with the same probe.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gre_bridge.config.settings import Settings
from gre_bridge.db.inspection import GRANT_NOTIFY, PUBLISH_MESSAGES, InspectionDatabase
from gre_bridge.db.names import MESSAGES
from gre_bridge.db.postgrest import PostgrestError
from gre_bridge.doctor.probes.database import NO_PARTITION
from gre_bridge.doctor.report import Finding, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError
from gre_bridge.realtime.connection import Connection
from gre_bridge.realtime.state import Timing
from gre_bridge.realtime.subscription import quiet_client_logs

JOIN, BROADCAST, CHANGES = "Realtime", "wake-up: broadcast", "wake-up: postgres_changes"
TIMEOUT = 5.0
"""Seconds in which a wake-up must arrive. The slowest of 60 took 11 ms (measured on Realtime 2.122.0)."""
_PRIVATE = (
    "allow the key's role to join the private topic gre:relay, and private channels in Realtime;"
    " until then row changes wake the workers, half a second late"
)
_STATE = (
    "check Realtime's state and logs in the dashboard; until then polls find the work, up to a second late"
)
_PUBLISH = f"as the publication's owner: {PUBLISH_MESSAGES}"


@dataclass(frozen=True, slots=True)
class WakeupResult:
    """A wake-up that arrived: its channel, its time (monotonic seconds), and the ids that it named."""

    channel: str
    at: float
    ids: Any


class RealtimeProbe(Connection):
    """A connection that records the wake-ups it receives."""

    def __init__(self, settings: Settings, *, rows_private: bool) -> None:
        """Not yet connected: see `open`."""
        super().__init__(
            url=settings.supabase_url,
            key=settings.service_key,
            apikey=settings.anon_key,
            topic="gre:relay",
            row_changes=True,
            rows_private=rows_private,
            schema="public",
            table=MESSAGES,
            timing=Timing(),
            clock=time.monotonic,
            listener=self,
        )
        self._woken = asyncio.Event()
        self._received: list[WakeupResult] = []

    async def wait_for(
        self, matches: Callable[[WakeupResult], bool], timeout: float = TIMEOUT
    ) -> WakeupResult | None:
        """Return the first wake-up that `matches`, received already or within `timeout` seconds, else None."""
        deadline = time.monotonic() + timeout
        while True:
            self._woken.clear()
            if found := next(filter(matches, self._received), None):
                return found
            if (left := deadline - time.monotonic()) <= 0 or self.close_reason is not None:
                return None
            try:
                async with asyncio.timeout(left):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def on_channel_ready(self) -> None:
        """See ConnectionListener."""

    def on_wakeup(self, sessions: object) -> None:
        """See ConnectionListener."""
        self._record("broadcast", sessions)

    def on_insert(self, record: Mapping[str, Any]) -> None:
        """See ConnectionListener."""
        self._record("postgres_changes", record.get("id"))

    def on_event(self, event: str, payload: object) -> None:
        """See ConnectionListener."""

    def on_status_change(self) -> None:
        """See ConnectionListener."""

    def _record(self, channel: str, ids: object) -> None:
        self._received.append(WakeupResult(channel, time.monotonic(), ids))
        self._woken.set()


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[tuple[RealtimeProbe, list[Finding]]]:
    """Join both channels. Yields the probe, and the finding about the joins."""
    quiet_client_logs()
    started = time.monotonic()
    probe = RealtimeProbe(settings, rows_private=True)
    try:
        await probe.open()
        if probe.rows_refused:
            # As the daemon does: a public channel receives postgres_changes where private ones are not set up.
            await probe.close()
            probe = RealtimeProbe(settings, rows_private=False)
            await probe.open()
        yield probe, [judge_joins(probe, time.monotonic() - started)]
    finally:
        await probe.close()


def judge_joins(connection: Connection, took: float) -> Finding:
    """Judge the joins of both channels. `took` is in seconds."""
    missing = {"broadcast", "postgres_changes"} - connection.ready_channels
    if not missing:
        return ok(JOIN, f"both channels joined in {ms(took)}", seconds=took)
    _, detail = connection.status()
    if len(missing) == 2:
        return failed(JOIN, detail or "neither channel could be joined", suggest_fix(detail))
    if "broadcast" in missing:
        return failed(JOIN, detail, suggest_fix(detail, joined=True))
    return warn(JOIN, detail, _PUBLISH)


_FIXES = (
    (r"MissingPartition", NO_PARTITION),
    (r"PrivateOnly", f"{_STATE}: this project's Realtime takes private channels only"),
    (
        r"disabled for this tenant|suspended",
        f"{_STATE}: Supabase has turned Realtime off for this project (quota, or a paused project)",
    ),
    (
        r"HTTP 429|[Tt]oo many|RateLimit",
        f"{_STATE}: the project is over a limit of Realtime (connected clients, joins or events a second)",
    ),
    (r"HTTP 401|HTTP 403", "check SUPABASE_SERVICE_KEY: Realtime refused it"),
    (r"HTTP 404", "check SUPABASE_URL: no project's Realtime answers there"),
    (r"HTTP 5\d\d", f"{_STATE}: Realtime itself is down or restarting"),
    (r"^connect", "check SUPABASE_URL, and that proxies on the way let WebSockets through"),
)


def suggest_fix(detail: str, *, joined: bool = False) -> str:
    """Return the fix for a failed join by the server's error. `joined`: the other channel was joined."""
    if found := next((fix for pattern, fix in _FIXES if re.search(pattern, detail)), None):
        return found
    return _PRIVATE if joined else _STATE


async def check_broadcast(probe: RealtimeProbe, database: InspectionDatabase) -> Finding:
    """Let the database send a wake-up, and wait until it arrives."""
    if "broadcast" not in probe.ready_channels:
        return skipped(BROADCAST, "its channel was not joined")
    started = time.monotonic()
    try:
        supported = await database.notify_workers()
    except PostgrestError as error:
        if error.code == "PGRST202":
            return skipped(BROADCAST, "this schema has no function for it: gre-bridge migrate")
        fix = GRANT_NOTIFY if error.code == "42501" else "try again; then gre-bridge migrate --status"
        return failed(BROADCAST, f"the database could not send a wake-up: {error.code}", fix)
    except BridgeError as error:
        return failed(BROADCAST, f"the database could not send a wake-up: {error}", "try again")
    if not supported:
        return warn(
            BROADCAST,
            "this project's Realtime has no realtime.send(): only row changes wake the workers, half a second late",
            "upgrade the project (Supabase: Settings > Infrastructure)",
        )
    received = await probe.wait_for(lambda item: item.channel == "broadcast" and item.at >= started)
    if received is None:
        return failed(
            BROADCAST,
            f"the database sent a wake-up, and it did not arrive within {TIMEOUT:g} s",
            "see check `realtime.send` (give SUPABASE_DB_URL), and Realtime's logs in the dashboard",
        )
    took = received.at - started
    return ok(BROADCAST, f"sent by the database and received after {ms(took)}", seconds=took)
