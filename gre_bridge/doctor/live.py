"""`doctor --live`: sends one message through the whole system, times each step, and removes every trace of it.

The message is sent by a player that does not exist, and its text says that it is a test; staff see it. A player that
has a profile or a conversation is refused, because the clean-up erases the player.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from datetime import datetime
from functools import partial

from gre_bridge.db.inspection import InspectionDatabase, ProbeMessage, erase_statement
from gre_bridge.db.names import STAFF
from gre_bridge.db.postgrest import PostgrestError
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.realtime import RealtimeProbe, WakeupResult
from gre_bridge.doctor.probes.supabase import is_relaying
from gre_bridge.doctor.report import Finding, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError

LIVE, CLEANUP = "live", "live: clean-up"
PLAYER = 9_007_199_254_740_991
"""The largest integer that JavaScript represents exactly: no portal assigns it to a player."""
SENDER = "gre-bridge doctor"
TEXT = "gre-bridge doctor --live: a test message, to be ignored"
SINK_TIMEOUT, SINK_TIMEOUT_WITHOUT_WORKER = 30.0, 5.0
"""Seconds to wait for the sinks."""
WAKEUP_TIMEOUT = 5.0
"""Seconds to wait for each wake-up."""
POLL_INTERVAL = 0.05
"""Seconds between two looks at the deliveries."""


class LiveTest:
    """One run with one player."""

    def __init__(
        self, *, database: InspectionDatabase, realtime: RealtimeProbe | None, status: Json, player: int
    ) -> None:
        """`status` is the answer of `InspectionDatabase.status`."""
        self._database = database
        self._realtime = realtime
        self._player = player
        self._has_worker = any(is_relaying(row) for row in status["workers"])
        self._enabled = [row["sink"] for row in status["sinks"] if row["enabled"]]
        self._message = ProbeMessage(id=str(uuid.uuid4()), player_id=player, text=TEXT, sender_name=SENDER)
        self._listener = str(uuid.uuid4())

    async def run(self) -> list[Finding]:
        """Send the message, wait for each step, and clean up, also when cancelled."""
        try:
            if await self._database.is_player_known(self._player, sender_name=SENDER):
                found = f"player {self._player} exists: the clean-up would erase that player"
                return [failed(LIVE, found, "give --player an unused number, or leave it out")]
        except (PostgrestError, BridgeError) as error:
            return [_not_sent(error)]
        findings: list[Finding] = []
        try:
            findings += await self._send_and_wait()
        finally:
            findings += await self._clean_up()
        return findings

    async def _send_and_wait(self) -> list[Finding]:
        try:
            await self._register()
            sent_at = time.monotonic()
            session = await self._database.send(self._message)
            took = time.monotonic() - sent_at
        except (PostgrestError, BridgeError) as error:
            return [_not_sent(error)]
        finally:
            await self._unregister()
        committed = ok("live: commit", f"committed and answered in {ms(took)}", seconds=took)
        return [committed, *await self._wakeups(sent_at, session), *await self._sinks()]

    async def _register(self) -> None:
        """Register as a listener that does not poll, so that the trigger sends a wake-up beside a busy worker."""
        with contextlib.suppress(PostgrestError):  # an older schema sends a wake-up for each message
            await self._database.register_listener(self._listener)

    async def _unregister(self) -> None:
        """Remove the registration: the wake-up left with the message's own transaction."""
        with contextlib.suppress(PostgrestError, BridgeError):
            await self._database.remove_listener(self._listener)

    async def _wakeups(self, sent_at: float, session: str) -> list[Finding]:
        """Wait for the wake-ups of both channels. `sent_at` is in monotonic seconds."""
        if self._realtime is None:
            return []
        findings = []
        expected: dict[str, object] = {"broadcast": [session], "postgres_changes": self._message.id}
        for channel, ids in expected.items():
            name = f"live: {channel}"
            if channel not in self._realtime.ready_channels:
                findings.append(skipped(name, "its channel was not joined"))
                continue
            received = await self._realtime.wait_for(partial(_names, channel, ids), WAKEUP_TIMEOUT)
            if received is None:
                fix = "see the checks of Realtime above; until then polls find the work, up to a second late"
                findings.append(failed(name, f"not received within {WAKEUP_TIMEOUT:g} s", fix))
            else:
                took = received.at - sent_at
                findings.append(ok(name, f"received {ms(took)} after the insert was sent", seconds=took))
        return findings

    async def _sinks(self) -> list[Finding]:
        """Wait until no delivery of the message is pending."""
        timeout = SINK_TIMEOUT if self._has_worker else SINK_TIMEOUT_WITHOUT_WORKER
        deadline = time.monotonic() + timeout
        rows: list[Json] = []
        while True:
            problem = ""
            try:
                rows = await self._database.deliveries(self._message.id)
            except BridgeError as error:
                problem = str(error)
            if time.monotonic() > deadline or (rows and all(row["state"] != "pending" for row in rows)):
                break
            await asyncio.sleep(POLL_INTERVAL)
        if problem:
            return [failed(LIVE, f"the deliveries could not be read: {problem}", "try again")]
        rows.sort(key=lambda row: str(row["sink"]))
        return [self._judge(row, timeout) for row in rows] + await self._recipients() + [
            skipped(f"live: {name}", "not enabled in the database")
            for name in ("onesignal", "pusher")
            if name not in self._enabled
        ]  # fmt: skip

    async def _recipients(self) -> list[Finding]:
        """Warn if a push had no recipient."""
        try:
            states = await self._database.push_states(self._message.id)
        except BridgeError:
            return []  # the delivery's own state is known
        if "no_recipients" not in states:
            return []
        fix = f"add active staff to {STAFF}, and log their devices in to OneSignal with that external id"
        return [warn("live: onesignal", "accepted, but there was no recipient", fix)]

    def _judge(self, row: Json, timeout: float) -> Finding:
        """Judge one delivery. `timeout` is how long it was waited for, in seconds."""
        name = f"live: {row['sink']}"
        if row["state"] == "done":
            settled, created = (datetime.fromisoformat(row[key]) for key in ("settled_at", "created_at"))
            took = (settled - created).total_seconds()
            return ok(name, f"accepted, and recorded {ms(took)} after the commit", seconds=took)
        if row["state"] != "pending":
            reason = row["last_error"] or "no reason was recorded"
            return failed(name, f"{row['state']}: {reason}", "see the check of this service above")
        if not self._has_worker:
            return failed(
                name, f"still pending after {timeout:g} s: no worker runs", "start one: gre-bridge run"
            )
        reason = row["last_error"] or "no worker has tried"
        fix = "gre-bridge status; see the check of this service above"
        return failed(name, f"still pending after {timeout:g} s: {reason}", fix)

    async def _clean_up(self) -> list[Finding]:
        try:
            erased = await self._database.erase_player(self._player)
        except (PostgrestError, BridgeError) as error:
            reason = error.code if isinstance(error, PostgrestError) else str(error)
            fix = f"as service_role: {erase_statement(self._player)}"
            return [failed(CLEANUP, f"the message could not be removed: {reason}", fix)]
        counts = f"{erased['messages']} message, {erased['sessions']} session, {erased['pushes']} push"
        return [ok(CLEANUP, f"removed {counts}")]


def _names(channel: str, ids: object, wakeup: WakeupResult) -> bool:
    """Return True if the wake-up came over `channel` and names `ids`."""
    return wakeup.channel == channel and bool(wakeup.ids == ids)


def _not_sent(error: PostgrestError | BridgeError) -> Finding:
    if isinstance(error, PostgrestError) and error.code == "42501":
        return failed(
            LIVE,
            "SUPABASE_SERVICE_KEY may not send a message: role gre_worker may not",
            "run doctor --live with the service_role key",
        )
    reason = str(error)
    if isinstance(error, PostgrestError):  # only messages of our own functions (codes P…) are shown
        reason = f"{error.code} {error.message if error.code.startswith('P') else ''}"
    return failed(
        LIVE, f"the message could not be sent: {reason}", "gre-bridge migrate --status; see the checks above"
    )
