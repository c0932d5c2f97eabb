"""One client on `/ws`: who it is, what it may hear, what it asks. Close codes are those of docs/websocket.md.

Everything that a client sends goes to the database with the client's own token. What it hears comes from the
hub; what it missed before, from the database by `since`. It keeps nothing that a reconnection would lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from gre_bridge.api.auth import Authenticator
from gre_bridge.api.outages import as_refusal
from gre_bridge.api.ws.frames import (
    Authenticate,
    ClientFrame,
    MarkRead,
    SendMessage,
    SetStatus,
    Typing,
    frame,
)
from gre_bridge.api.ws.handshake import by_service_key, identify, welcome
from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.presence import ABSENT
from gre_bridge.api.ws.subscriber import Subscriber
from gre_bridge.api.ws.transport import ClientTransport, CloseConnection
from gre_bridge.db.answers import StoredMessage
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.users import Identity, UserDatabase
from gre_bridge.errors import BridgeError, Refused, TransientError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.socket")

AUTHENTICATE_WITHIN = 10.0
ASK_AGAIN = 300.0
"""Seconds after which a socket by the service key asks whether that still speaks for its person."""
REAUTHENTICATE_WITHIN = 10.0
"""Seconds after a token's end in which another one is taken."""
SESSIONS = 500
"""Sessions of which a socket remembers the player."""
TRY_FOR = 10.0
"""Seconds for which a message is tried again while the database is away."""


class Counts(Protocol):
    """Who counts the sockets (the door)."""

    def admit(self, identity: Identity) -> bool:
        """Whether this person may have one more socket."""

    def entered(self, websocket: WebSocket) -> None:
        """It has authenticated."""

    def spend(self, identity: Identity) -> float:
        """Count a frame of this person; seconds to wait when it is one too many, else 0."""


class ClientSession:
    """A connection from its acceptance to its close."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        door: Counts,
        hub: Hub,
        portal: UserDatabase,
        access: Authenticator,
        metrics: Metrics,
    ) -> None:
        """The connection was accepted."""
        self._ws = websocket
        self._door = door
        self._hub = hub
        self._portal = portal
        self._access = access
        self._metrics = metrics
        self._line = ClientTransport(websocket)
        self._hears = Subscriber(line=self._line, source=hub.reads, metrics=metrics, clock=hub.clock)
        self._caller: Caller | None = None
        self.inside = False  # it has authenticated
        self._ready = asyncio.Event()
        self._renewed = asyncio.Event()
        self._players: dict[str, int] = {}

    @property
    def identity(self) -> Identity:
        """Who it is; role `none` before it has authenticated."""
        return self._hears.identity

    # Its life

    async def run(self) -> None:
        """Serve until it ends, for whatever reason."""
        line = self._line
        duties = (
            line.write(), line.read(), line.ended(), self._act(), self._expire(), self._hears.catch_up(),
        )  # fmt: skip
        tasks = [asyncio.create_task(duty) for duty in duties]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _end_by(line, task.exception())
        except asyncio.CancelledError:
            line.end(CloseConnection(1012, "restart"))
            raise
        finally:
            self._hub.remove(self._hears)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await line.close()
            code = str(line.closing.code) if line.closing else "client"
            self._metrics.socket_closes.labels(code).inc()

    def give_way(self) -> None:
        """Close for one that came later: it has not authenticated, and too many wait."""
        self._line.end(
            CloseConnection(4429, "too many connections wait for authentication", "too_many_connections")
        )

    async def _act(self) -> None:
        """Authenticate, catch up, then do what the client asks, one thing after the other."""
        line = self._line
        try:
            async with asyncio.timeout(AUTHENTICATE_WITHIN):
                while not isinstance(asked := await line.inbox.get(), Authenticate):
                    line.complain("not_authenticated", "authenticate first", asked.client_id)
        except TimeoutError:
            raise CloseConnection(4408, "no authentication in time", "not_authenticated") from None
        try:
            async with asyncio.timeout(AUTHENTICATE_WITHIN):
                await self._enter(asked)
        except (TimeoutError, BridgeError):
            raise CloseConnection(1013, "try again in a moment", "unavailable") from None
        self._ready.set()
        while True:
            asked = await line.inbox.get()
            try:
                await self._do(asked)
            except Refused as error:
                line.complain(error.code, str(error), asked.client_id, error.retry_after)
            except TransientError as error:
                told = as_refusal(error)
                line.complain(told.code, str(told), asked.client_id, told.retry_after)

    async def _do(self, asked: ClientFrame) -> None:
        if self._hears.muted and not isinstance(asked, Authenticate):
            raise Refused(401, "token_expired", "the token has expired, authenticate again")
        if isinstance(asked, Typing):  # has a budget of its own, and is swallowed beyond it
            await self._type(asked)
            return
        if (wait := self._door.spend(self.identity)) > 0:
            raise Refused(
                429, "too_fast", "too many frames on all connections of this person", retry_after=wait
            )
        match asked:
            case SendMessage():
                await self._send(asked)
            case MarkRead():
                await self._mark_read(asked)
            case SetStatus():
                await self._set_status(asked)
            case Authenticate():
                await self._renew(asked)

    async def _mark_read(self, asked: MarkRead) -> None:
        await self._portal.mark_read(self._as(), session_id=asked.session_id, up_to_seq=asked.up_to_seq)

    async def _set_status(self, asked: SetStatus) -> None:
        """Set it on change only: each time rings a bell."""
        people = self._hub.people
        if self.identity.is_staff and people.status_of(self.identity.staff_id) == asked.status:
            return
        people.status_set(await self._portal.set_online_status(self._as(), asked.status, expires_in=ABSENT))

    def _as(self) -> Caller:
        assert self._caller is not None
        return self._caller

    # Who it is

    async def _enter(self, asked: Authenticate) -> None:
        """Listen first, then ask what was missed: what commits in between is not told twice."""
        hears = self._hears
        self._caller, hears.identity = await identify(self._ws, asked, self._portal, self._access)
        if not self._door.admit(self.identity):
            raise CloseConnection(4429, "too many connections of this person", "too_many_connections")
        self.inside = True
        self._door.entered(self._ws)
        self._hub.add(self._hears)
        await self._hub.looking()
        found = await self._portal.catch_up(self._caller, asked.since)
        if self.identity.is_staff and not self._hub.people.is_there(self.identity.staff_id):
            with contextlib.suppress(BridgeError):
                row = await self._portal.set_online_status(self._caller, "online", expires_in=ABSENT)
                self._hub.people.status_set(row)
        sessions = found["sessions"]
        for session in sessions[:SESSIONS]:
            self._players[session["id"]] = session["player_id"]
        hears.enter(found, asked.since)
        self._line.put(
            frame("authenticated", **welcome(hears.identity, sessions, self._hub.people.staff_online))
        )
        hears.unmute()

    async def _renew(self, asked: Authenticate) -> None:
        """Take a new token of the same person."""
        old = self.identity
        caller, found = await identify(self._ws, asked, self._portal, self._access)
        if (found.role, found.player_id, found.staff_id) != (old.role, old.player_id, old.staff_id):
            raise CloseConnection(4401, "the new token is another person's", "identity_mismatch")
        self._caller, self._hears.identity = caller, found
        self._renewed.set()
        self._line.put(frame("authenticated", **welcome(found, [], self._hub.people.staff_online)))
        self._hears.unmute()

    async def _expire(self) -> None:
        """When the token ends, tell nothing more until there is a new one, and close if none comes."""
        await self._ready.wait()
        if by_service_key(self._as()):
            await self._ask_again()
        while True:
            ends = self.identity.expires_at
            if await self._renewal(None if ends is None else max(0.0, ends - time.time())):
                continue
            self._line.complain("token_expired", "the token has expired, authenticate again")
            self._hears.mute()
            if not await self._renewal(REAUTHENTICATE_WITHIN):
                raise CloseConnection(4401, "the token has expired", "token_expired")

    async def _ask_again(self) -> None:
        """Ask now and then whether the key still speaks for this person: it has no end of its own, but it can be withdrawn."""
        while not await self._renewal(ASK_AGAIN):
            with contextlib.suppress(TransientError):
                try:
                    found = await self._portal.whoami(self._as())
                except Refused as error:
                    if error.status == 401:
                        raise CloseConnection(4401, str(error), error.code) from None
                    continue
                if found.claim != self.identity.claim:
                    raise CloseConnection(4403, "no longer active", "no_identity")

    async def _renewal(self, within: float | None) -> bool:
        """Wait for a new token, at most `within` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._renewed.wait(), within)
        renewed = self._renewed.is_set()
        self._renewed.clear()
        return renewed

    # What it asks

    async def _send(self, asked: SendMessage) -> None:
        message_id = asked.id or str(uuid.uuid4())
        # Known before it is sent: the wake-up may be faster than the answer.
        hears = self._hears
        hears.sending, hears.heard = message_id, None
        try:
            try:
                answer = await self._persist(asked, message_id)
            except TransientError:
                if hears.heard is None:
                    raise
                answer = {
                    "message": hears.heard,
                    "duplicate": False,
                }  # the answer was lost, the message was not
            message = answer["message"]
            session = message["session_id"]
            self._metrics.socket_messages.labels("in").inc()
            self._remember(session, message["player_id"])
            hears.acknowledge(message)
            self._line.put(
                frame(
                    "message_ack", clientId=asked.client_id, id=message["id"], sessionId=session,
                    seq=message["seq"], timestamp=message["timestamp"],
                    duplicate=answer["duplicate"] and asked.id is not None,
                )
            )  # fmt: skip
        finally:
            hears.sent()

    async def _persist(self, asked: SendMessage, message_id: str) -> StoredMessage:
        """Store it, again and again for a while if need be: its id makes that safe."""
        deadline, pause = time.monotonic() + TRY_FOR, 0.1
        while True:
            try:
                return await self._portal.send(
                    self._as(), message=asked.message, player_id=asked.player_id, message_id=message_id,
                    session_id=asked.session_id,
                )  # fmt: skip
            except TransientError:
                if time.monotonic() + pause > deadline or self._hears.heard is not None:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    async def _type(self, asked: Typing) -> None:
        session = asked.session_id
        if session is None and self.identity.player_id is not None:
            session = self._hears.current
        if session is None:
            raise Refused(400, "session_missing", "a session is required")
        if not self._hub.signals.worth_telling(self.identity, session, typing=asked.typing):
            return
        player = self._players.get(session) or self._hub.player_of(session)
        if player is None:
            page = await self._portal.history(self._as(), session_id=session, limit=1)
            if page["session"] is None:
                raise Refused(404, "session_unknown", "there is no such session")
            player = page["session"]["player_id"]
        if self.identity.player_id not in (None, player):
            raise Refused(404, "session_unknown", "there is no such session")
        self._remember(session, player)
        await self._hub.signals.tell(self._hears, session_id=session, player_id=player, typing=asked.typing)

    def _remember(self, session: str, player: int) -> None:
        self._players.pop(session, None)
        self._players[session] = player
        if len(self._players) > SESSIONS:
            del self._players[next(iter(self._players))]


def _end_by(line: ClientTransport, error: BaseException | None) -> None:
    """Close as a duty's end says; the client's own going needs no close."""
    if isinstance(error, CloseConnection):
        line.end(error)
    elif error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError | OSError):
        log.error("a socket failed", error=type(error).__name__)
        line.end(CloseConnection(1011, "internal error"))
