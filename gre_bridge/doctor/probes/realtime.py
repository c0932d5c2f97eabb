"""Realtime as the feed uses it: a real join of both channels, and a real ring of the first bell.

It listens with the feed's own link, so what works here works there. The second bell needs an insert: `live`
waits for it with the same ear.
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
from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.doctor.probes.database import NO_PARTITION
from gre_bridge.doctor.report import Finding, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError
from gre_bridge.realtime.connection import Connection
from gre_bridge.realtime.state import Timing
from gre_bridge.realtime.subscription import quiet_client_logs

JOIN, BROADCAST, CHANGES = "Realtime", "bell: broadcast", "bell: postgres_changes"
WITHIN = 5.0
"""Seconds in which a bell must be heard: 11 ms was the worst of 60 (measured on Realtime 2.122.0)."""
_PRIVATE = (
    "the key's role must be allowed to join the private topic gre:relay, and Realtime must have private channels;"
    " until then row changes wake the workers, half a second late"
)
_STATE = "look at Realtime's state and logs in the dashboard; until then work is found by the poll, up to a second late"
_PUBLISH = (
    "as the publication's owner: alter publication supabase_realtime add table public.gre_chat_messages"
)


@dataclass(frozen=True, slots=True)
class WakeupResult:
    """A bell that was heard: which, when (monotonic seconds), and the ids that it named."""

    bell: str
    at: float
    ids: Any


class RealtimeProbe(Connection):
    """The feed's link, which also remembers which bell it heard when."""

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
            table="gre_chat_messages",
            timing=Timing(),
            clock=time.monotonic,
            listener=self,
        )
        self._woken = asyncio.Event()
        self.rings: list[WakeupResult] = []

    async def hear(
        self, wanted: Callable[[WakeupResult], bool], within: float = WITHIN
    ) -> WakeupResult | None:
        """The first ring that is `wanted`, heard before or within so many seconds."""
        deadline = time.monotonic() + within
        while True:
            self._woken.clear()
            if found := next(filter(wanted, self.rings), None):
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
        self._heard("broadcast", sessions)

    def on_insert(self, record: Mapping[str, Any]) -> None:
        """See ConnectionListener."""
        self._heard("postgres_changes", record.get("id"))

    def on_event(self, event: str, payload: object) -> None:
        """See ConnectionListener."""

    def on_status_change(self) -> None:
        """See ConnectionListener."""

    def _heard(self, bell: str, told: object) -> None:
        self.rings.append(WakeupResult(bell, time.monotonic(), told))
        self._woken.set()


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[tuple[RealtimeProbe, list[Finding]]]:
    """Join both channels: the ear, and what is to be said about the joins."""
    quiet_client_logs()
    began = time.monotonic()
    ear = RealtimeProbe(settings, rows_private=True)
    try:
        await ear.open()
        if ear.rows_refused:
            # As the feed does: a public join hears postgres_changes where private ones are not set up.
            await ear.close()
            ear = RealtimeProbe(settings, rows_private=False)
            await ear.open()
        yield ear, [judge_joins(ear, time.monotonic() - began)]
    finally:
        await ear.close()


def judge_joins(ear: Connection, took: float) -> Finding:
    """What the joins came to; `took` in seconds."""
    missing = {"broadcast", "postgres_changes"} - ear.ready_channels
    if not missing:
        return ok(JOIN, f"both channels joined in {ms(took)}", seconds=took)
    _, detail = ear.status()
    if len(missing) == 2:
        return failed(JOIN, detail or "neither channel could be joined", mends(detail))
    if "broadcast" in missing:
        return failed(JOIN, detail, mends(detail, joined=True))
    return warn(JOIN, detail, _PUBLISH)


_MENDS = (
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


def mends(detail: str, *, joined: bool = False) -> str:
    """What mends a failed join, by what the server said. `joined`: the other channel was joined."""
    if found := next((fix for pattern, fix in _MENDS if re.search(pattern, detail)), None):
        return found
    return _PRIVATE if joined else _STATE


async def ring(ear: RealtimeProbe, rest: PostgrestClient) -> Finding:
    """Let the database ring the first bell, and hear it."""
    if "broadcast" not in ear.ready_channels:
        return skipped(BROADCAST, "its channel was not joined")
    began = time.monotonic()
    try:
        can = await rest.rpc("gre_relay_notify_v1", {})
    except PostgrestError as error:
        if error.code == "PGRST202":
            return skipped(BROADCAST, "this schema has no gre_relay_notify_v1: gre-bridge migrate")
        fix = (
            "grant execute on function public.gre_relay_notify_v1() to service_role"
            if error.code == "42501"
            else "try again; then gre-bridge migrate --status"
        )
        return failed(BROADCAST, f"the database could not ring: {error.code}", fix)
    except BridgeError as error:
        return failed(BROADCAST, f"the database could not ring: {error}", "try again")
    if not can:
        return warn(
            BROADCAST,
            "this project's Realtime is older than realtime.send(): the second bell rings alone, half a second late",
            "upgrade the project (Supabase: Settings > Infrastructure)",
        )
    heard = await ear.hear(lambda one: one.bell == "broadcast" and one.at >= began)
    if heard is None:
        return failed(
            BROADCAST,
            f"the database rang, and nothing was heard within {WITHIN:g} s",
            "look at check `realtime.send` (give SUPABASE_DB_URL), and at Realtime's logs in the dashboard",
        )
    return ok(
        BROADCAST, f"rung by the database and heard after {ms(heard.at - began)}", seconds=heard.at - began
    )
