"""`doctor --live`: one marked message through everything, each hop timed, and every trace of it removed again.

The message is a player's that does not exist, so it reaches staff like any other: it says what it is. A player
with a conversation of its own is refused, because cleaning up means erasing the player.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from datetime import datetime
from functools import partial

import orjson

from gre_bridge.config.keys import gateway_key
from gre_bridge.config.settings import Settings
from gre_bridge.db.http import Pool
from gre_bridge.db.postgrest import Caller, PostgrestClient, PostgrestError
from gre_bridge.db.types import Json
from gre_bridge.doctor.probes.realtime import RealtimeProbe, WakeupResult
from gre_bridge.doctor.probes.supabase import WORKER_SEEN
from gre_bridge.doctor.report import Finding, failed, ms, ok, skipped, warn
from gre_bridge.errors import BridgeError, TransientError

LIVE, CLEANUP = "live", "live: clean-up"
PLAYER = 9_007_199_254_740_991
"""The largest whole number that JavaScript counts exactly: no portal gives it to a player."""
SENDER = "gre-bridge doctor"
TEXT = "gre-bridge doctor --live: a test message, to be ignored"
WITHIN, WITHIN_ALONE = 30.0, 5.0
"""Seconds for the sinks: with a worker, and where none has been heard of."""
BELL_WITHIN = 5.0
ASK_EVERY = 0.05


class Live:
    """One run with one player."""

    def __init__(
        self,
        *,
        settings: Settings,
        rest: PostgrestClient,
        ear: RealtimeProbe | None,
        status: Json,
        player: int,
    ) -> None:
        """`status` is `gre_relay_status`'s answer."""
        self._settings = settings
        self._rest = rest
        self._ear = ear
        self._player = player
        self._alone = not any(
            row["seen"] <= WORKER_SEEN and row["info"].get("process") != "api" for row in status["workers"]
        )
        self._enabled = [row["sink"] for row in status["sinks"] if row["enabled"]]
        self._message = str(uuid.uuid4())
        self._listener = str(uuid.uuid4())
        self._pool = Pool(service="PostgREST", connections=1, timeout=settings.request_timeout)
        self._back_end = Caller(settings.service_key, f"player:{player}")

    async def run(self) -> list[Finding]:
        """Send, wait, clean up."""
        try:
            return await self._run()
        finally:
            await self._pool.aclose()

    async def _run(self) -> list[Finding]:
        try:
            if refusal := await self._taken():
                return [refusal]
        except (PostgrestError, BridgeError) as error:
            return [_not_possible(error)]
        found: list[Finding] = []
        try:
            found += await self._hops()
        finally:
            # Also when interrupted: nothing of it may stay.
            found += await self._clean_up()
        return found

    async def _taken(self) -> Finding | None:
        """Whether the player is somebody: then the clean-up would erase a profile or a conversation."""
        page = await self._rest.rpc(
            "gre_chat_history", {"p_player_id": self._player, "p_limit": 500}, caller=self._back_end
        )
        strange = page["has_more"] or any(m["sender_name"] != SENDER for m in page["messages"])
        if not strange and not await self._select(
            "gre_chat_players", f"player_id=eq.{self._player}", "player_id"
        ):
            return None
        found = f"player {self._player} is somebody's number: the clean-up would erase that player"
        return failed(LIVE, found, "give --player a number that is nobody's, or leave it out")

    async def _hops(self) -> list[Finding]:
        try:
            await self._listen()
            before = time.monotonic()
            sent = await self._rest.rpc(
                "gre_send_message",
                {"p_id": self._message, "p_player_id": self._player, "p_message": TEXT, "p_player_name": SENDER, "p_sender_name": SENDER},
                caller=self._back_end,
            )  # fmt: skip
            committed = time.monotonic()
        except (PostgrestError, BridgeError) as error:
            return [_not_possible(error)]
        finally:
            await self._unlisten()
        session: str = sent["message"]["session_id"]
        found = [
            ok(
                "live: commit",
                f"committed and answered in {ms(committed - before)}",
                seconds=committed - before,
            )
        ]
        found += await self._bells(before, session)
        found += await self._sinks()
        return found

    async def _listen(self) -> None:
        """Register as a listener that is not awake: no wake-up is sent while all that are registered are awake."""
        with contextlib.suppress(PostgrestError):  # an older schema sends a wake-up for each message
            await self._rest.rpc(
                "gre_relay_listen_v1", {"p_listener": self._listener, "p_kind": "relay", "p_polls_for": 0}
            )

    async def _unlisten(self) -> None:
        """Remove the registration. The wake-up was sent in the message's own transaction; the row expires after 15 s anyway."""
        with contextlib.suppress(PostgrestError, BridgeError):
            await self._rest.rpc("gre_relay_unlisten_v1", {"p_listener": self._listener})

    async def _bells(self, before: float, session: str) -> list[Finding]:
        if self._ear is None:
            return []
        found = []
        wanted: dict[str, object] = {"broadcast": [session], "postgres_changes": self._message}
        for bell, ids in wanted.items():
            name = f"live: {bell}"
            if bell not in self._ear.ready_channels:
                found.append(skipped(name, "its channel was not joined"))
                continue
            heard = await self._ear.hear(partial(_names, bell, ids), BELL_WITHIN)
            if heard is None:
                found.append(
                    failed(
                        name,
                        f"not heard within {BELL_WITHIN:g} s",
                        "look at the checks of Realtime above; until then the poll finds work, up to a second late",
                    )
                )
            else:
                found.append(
                    ok(
                        name,
                        f"heard {ms(heard.at - before)} after the insert was sent",
                        seconds=heard.at - before,
                    )
                )
        return found

    async def _sinks(self) -> list[Finding]:
        """Wait until no delivery of the message is pending."""
        within = WITHIN_ALONE if self._alone else WITHIN
        deadline = time.monotonic() + within
        mine = f"message_id=eq.{self._message}"
        rows: list[Json] = []
        while True:
            problem = ""
            try:
                rows = await self._select(
                    "gre_relay_deliveries", mine, "sink,state,created_at,settled_at,last_error"
                )
            except BridgeError as error:
                problem = str(error)
            if time.monotonic() > deadline or (rows and all(row["state"] != "pending" for row in rows)):
                break
            await asyncio.sleep(ASK_EVERY)
        if problem:
            return [failed(LIVE, f"the outbox could not be read: {problem}", "try again")]
        rows.sort(key=lambda row: str(row["sink"]))
        return [self._accepted(row, within) for row in rows] + await self._recipients(mine) + [
            skipped(f"live: {name}", "not enabled in the database")
            for name in ("onesignal", "pusher")
            if name not in self._enabled
        ]  # fmt: skip

    async def _recipients(self, mine: str) -> list[Finding]:
        try:
            pushes = await self._select("push_notifications", mine, "status")
        except BridgeError:
            return []  # whether it was accepted is known all the same
        if all(push["status"] != "no_recipients" for push in pushes):
            return []
        return [
            warn(
                "live: onesignal",
                "accepted, but there was nobody to push to",
                "add active staff to gre_staff, and log their devices in to OneSignal with that external id",
            )
        ]

    def _accepted(self, row: Json, within: float) -> Finding:
        name = f"live: {row['sink']}"
        if row["state"] == "done":
            settled, created = (datetime.fromisoformat(row[name]) for name in ("settled_at", "created_at"))
            took = (settled - created).total_seconds()
            return ok(name, f"accepted, and recorded {ms(took)} after the commit", seconds=took)
        if row["state"] != "pending":
            return failed(
                name,
                f"{row['state']}: {row['last_error'] or 'no reason was recorded'}",
                "see the check of this service above",
            )
        if self._alone:
            return failed(
                name, f"still waiting after {within:g} s: no worker runs", "start one: gre-bridge run"
            )
        return failed(
            name,
            f"still waiting after {within:g} s: {row['last_error'] or 'no worker has tried'}",
            "gre-bridge status; see the check of this service above",
        )

    async def _select(self, table: str, where: str, columns: str) -> list[Json]:
        """Rows as the service key may read them. Raises BridgeError."""
        key = self._settings.service_key
        headers = {"apikey": gateway_key(key, self._settings.anon_key), "Authorization": f"Bearer {key}"}
        url = f"{self._settings.supabase_url}/rest/v1/{table}?{where}&select={columns}"
        answer = await self._pool.request("GET", url, headers, b"")
        try:
            rows = orjson.loads(answer.body)
        except ValueError:
            rows = None
        if answer.status != 200 or not isinstance(rows, list):
            raise TransientError(f"{table}: HTTP {answer.status}", code=str(answer.status))
        return rows

    async def _clean_up(self) -> list[Finding]:
        try:
            gone = await self._rest.rpc("gre_erase_player", {"p_player_id": self._player})
        except (PostgrestError, BridgeError) as error:
            told = error.code if isinstance(error, PostgrestError) else str(error)
            return [
                failed(
                    CLEANUP,
                    f"the message could not be removed: {told}",
                    f"select gre_erase_player({self._player}), as service_role",
                )
            ]
        return [
            ok(
                CLEANUP,
                f"removed {gone['messages']} message, {gone['sessions']} session, {gone['pushes']} push",
            )
        ]


def _names(bell: str, ids: object, ring: WakeupResult) -> bool:
    return ring.bell == bell and bool(ring.ids == ids)


def _not_possible(error: PostgrestError | BridgeError) -> Finding:
    if isinstance(error, PostgrestError) and error.code == "42501":
        return failed(
            LIVE,
            "this key may not send a message (role gre_worker may not)",
            "run doctor --live with the service_role key",
        )
    told = (
        f"{error.code} {error.message if error.code.startswith('P') else ''}"
        if isinstance(error, PostgrestError)
        else str(error)
    )
    return failed(
        LIVE, f"the message could not be sent: {told}", "gre-bridge migrate --status; see the checks above"
    )
