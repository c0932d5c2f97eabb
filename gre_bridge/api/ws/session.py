"""One client on `/ws`, from its acceptance to its close. Close codes are those of docs/websocket.md.

Requests go to the database with the client's own token. News come from the hub, and what was missed before from the
database by `since`. A session keeps nothing that a reconnection would lose.
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
from gre_bridge.api.server.websocket_protocol import OFFER
from gre_bridge.api.ws.credentials import Credentials
from gre_bridge.api.ws.frames import (
    AddNote,
    Authenticate,
    ClientFrame,
    MarkRead,
    RateSession,
    SendMessage,
    SetStatus,
    Typing,
    Viewing,
    frame,
)
from gre_bridge.api.ws.handshake import authenticated_frame, claimed_player
from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.own import MAX_REMEMBERED, remember
from gre_bridge.api.ws.presence import HEARTBEAT_EXPIRY
from gre_bridge.api.ws.subscriber import SocketSubscriber
from gre_bridge.api.ws.transport import ClientTransport, CloseConnection
from gre_bridge.db.answers import Session, StoredMessage
from gre_bridge.db.callers import Identity
from gre_bridge.db.types import Json
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import BridgeError, Refused, TransientError
from gre_bridge.metrics import Metrics

log = structlog.get_logger("gre.socket")

AUTHENTICATE_TIMEOUT = 10.0
SEND_TIMEOUT = 10.0
"""Seconds for which a message is retried while the database is unavailable."""
SEND_RETRY, SEND_RETRY_MAX = 0.1, 2.0


class Endpoint(Protocol):
    """Counts connections and frames of all sessions (WebSocketEndpoint)."""

    def admits(self, identity: Identity) -> bool:
        """Return True if this person may have one more connection."""

    def entering(self, session: ClientSession) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait until the token that this connection has sent may be checked. Raises TimeoutError."""

    def remove_pending(self, session: ClientSession) -> None:
        """Note that this connection has authenticated."""

    def spend(self, identity: Identity) -> float:
        """Count one frame of this person; return the seconds to wait if it exceeds the budget, else 0."""


class ClientSession:
    """An accepted connection."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        endpoint: Endpoint,
        hub: Hub,
        users: UserDatabase,
        authenticator: Authenticator,
        metrics: Metrics,
    ) -> None:
        """Nothing is read before `run`."""
        self._endpoint = endpoint
        self._hub = hub
        self._users = users
        self._metrics = metrics
        offer = websocket.scope.get("extensions", {}).get(OFFER, {}).get("offer")
        self._transport = ClientTransport(websocket, offer=offer)
        self._subscriber = SocketSubscriber(
            transport=self._transport, source=hub.catch_up_reads, metrics=metrics, clock=hub.clock
        )
        self._credentials = Credentials(
            websocket, users=users, authenticator=authenticator, subscriber=self._subscriber,
            transport=self._transport,
        )  # fmt: skip
        self._entered = asyncio.Event()
        self._players: dict[str, int] = {}
        """The players of sessions, the latest used last."""

    @property
    def identity(self) -> Identity:
        """The person; role `none` before the client has authenticated."""
        return self._subscriber.identity

    async def run(self) -> None:
        """Serve until the connection ends, for whatever reason."""
        transport = self._transport
        duties = (
            transport.run_writer(), transport.run_reader(), self._run_requests(), self._run_credentials(),
            self._subscriber.catch_up(),
        )  # fmt: skip
        tasks = [asyncio.create_task(duty) for duty in duties]
        try:
            done, _ = await asyncio.wait([*tasks, transport.ended], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                _end_by(transport, task.exception())
        except asyncio.CancelledError:
            transport.end(CloseConnection(1012, "restart"))
            raise
        finally:
            self._hub.remove(self._subscriber)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await transport.close()
            code = str(transport.closing.code) if transport.closing else "client"
            self._metrics.socket_closes.labels(code).inc()

    def drop(self) -> None:
        """See Connection: this one has not authenticated, and too many wait."""
        self._transport.end(
            CloseConnection(4429, "too many connections wait for authentication", "too_many_connections")
        )

    async def _run_credentials(self) -> None:
        await self._entered.wait()
        await self._credentials.run()

    async def _run_requests(self) -> None:
        """Authenticate, catch up, then serve the client's requests one after the other."""
        transport = self._transport
        try:
            async with asyncio.timeout(AUTHENTICATE_TIMEOUT):
                while not isinstance(request := await transport.inbox.get(), Authenticate):
                    transport.send_error("not_authenticated", "authenticate first", request.client_id)
        except TimeoutError:
            raise CloseConnection(4408, "no authentication in time", "not_authenticated") from None
        try:
            async with self._endpoint.entering(self), asyncio.timeout(AUTHENTICATE_TIMEOUT):
                await self._enter(request)
        except (TimeoutError, BridgeError):
            raise CloseConnection(1013, "try again in a moment", "unavailable") from None
        self._entered.set()
        while True:
            request = await transport.inbox.get()
            try:
                await self._serve(request)
            except (Refused, TransientError) as error:
                refusal = error if isinstance(error, Refused) else as_refusal(error)
                transport.send_error(
                    refusal.code, str(refusal), request.client_id, refusal.retry_after, refusal.details
                )

    async def _enter(self, request: Authenticate) -> None:
        """Subscribe first, then read what was missed: news that commit in between are not sent twice."""
        subscriber, hub, caller = self._subscriber, self._hub, self._credentials.present(request)
        # One call verifies the token and reads, if the token says for which player to subscribe before.
        claimed = claimed_player(caller) if hub.ready else None
        with hub.expecting(subscriber, claimed):
            found = await self._credentials.authenticate(request, catch_up=claimed is not None)
            if not self._endpoint.admits(self.identity):
                raise CloseConnection(4429, "too many connections of this person", "too_many_connections")
            self._endpoint.remove_pending(self)
            hub.add(subscriber)
        if found is None or self.identity.player_id != claimed:
            await hub.wait_ready()
            found = await self._users.catch_up(caller, request.since)
        if self.identity.is_staff and hub.presence.status_of(self.identity.staff_id) == "offline":
            with contextlib.suppress(BridgeError):
                await self._set_presence("online")
        sessions = found["sessions"]
        self._players = {session["id"]: session["player_id"] for session in sessions[:MAX_REMEMBERED]}
        subscriber.enter(found, request.since)
        self._confirm(sessions)

    def _confirm(self, sessions: list[Session]) -> None:
        """Send `authenticated`, and news from then on."""
        online = self._hub.presence.online_count
        self._transport.put(frame("authenticated", **authenticated_frame(self.identity, sessions, online)))
        self._subscriber.unmute()

    # Requests

    async def _serve(self, request: ClientFrame) -> None:
        if self._subscriber.muted and not isinstance(request, Authenticate):
            raise Refused(401, "token_expired", "the token has expired, authenticate again")
        if isinstance(request, Typing | Viewing):  # have budgets of their own, and are dropped beyond them
            await self._serve_hint(request)
            return
        if (wait := self._endpoint.spend(self.identity)) > 0:
            raise Refused(
                429, "too_fast", "too many frames on all connections of this person", retry_after=wait
            )
        match request:
            case SendMessage():
                await self._send(request)
            case AddNote():
                await self._add_note(request)
            case RateSession():
                await self._rate(request)
            case MarkRead():
                await self._users.mark_read(
                    self._credentials.caller, session_id=request.session_id, up_to_seq=request.up_to_seq
                )
            case SetStatus():
                await self._set_status(request.status)
            case Authenticate():
                await self._credentials.renew(request)
                self._confirm([])

    async def _serve_hint(self, request: Typing | Viewing) -> None:
        of_staff = isinstance(request, Viewing) or request.purpose == "note"
        if of_staff and not self.identity.is_staff:
            raise Refused(403, "staff_only", "only staff may do this")
        if isinstance(request, Typing):
            await self._type(request)
        else:
            self._hub.viewers.view(self._subscriber, request.session_id, viewing=request.viewing)

    async def _set_status(self, status: str) -> None:
        # Only changes are written: each write wakes the other instances.
        identity = self.identity
        if not identity.is_staff or self._hub.presence.status_of(identity.staff_id) != status:
            await self._set_presence(status)

    async def _set_presence(self, status: str) -> None:
        row = await self._users.set_online_status(
            self._credentials.caller, status, expires_in=HEARTBEAT_EXPIRY
        )
        self._hub.presence.update(row)

    async def _send(self, request: SendMessage) -> None:
        message_id = request.id or str(uuid.uuid4())
        # The subscriber must know the id before the message is stored: the wake-up may be faster than the answer.
        subscriber, own = self._subscriber, self._subscriber.own
        own.sending, own.received = message_id, None
        try:
            try:
                answer = await self._store(request, message_id)
            except TransientError:
                if own.received is None:
                    raise
                # The answer was lost, the message was not.
                answer = {"message": own.received, "duplicate": False}
            message = answer["message"]
            session_id = message["session_id"]
            self._metrics.socket_messages.labels("in").inc()
            remember(self._players, session_id, message["player_id"])
            subscriber.acknowledge(message)
            files: Json = {"attachments": message["attachments"]} if "attachments" in message else {}
            self._transport.put(
                frame(
                    "message_ack", clientId=request.client_id, id=message["id"], sessionId=session_id,
                    seq=message["seq"], timestamp=message["timestamp"],
                    duplicate=answer["duplicate"] and request.id is not None, **files,
                )
            )  # fmt: skip
        finally:
            subscriber.release()

    async def _add_note(self, request: AddNote) -> None:
        note_id = request.id or str(uuid.uuid4())
        own = self._subscriber.own
        own.adding, own.added = note_id, None
        try:
            answer = await self._users.add_note(
                self._credentials.caller, session_id=request.session_id, text=request.text, note_id=note_id
            )
            note = answer["note"]
            if own.added is None:
                own.expect(note_id)
        except TransientError:
            if own.added is None:
                raise  # if it was stored nevertheless, the client gets it from the hub
            note = own.added  # the answer was lost, the note was not
        except Refused:
            if own.added is not None:  # a note of this id by an earlier request
                self._transport.put(frame("session_note", note=own.added))
            raise
        finally:
            own.adding = None
        extra: Json = {} if request.client_id is None else {"clientId": request.client_id}
        self._transport.put(frame("session_note", note=note, **extra))

    async def _rate(self, request: RateSession) -> None:
        answer = await self._users.rate_session(
            self._credentials.caller, request.session_id, score=request.score, comment=request.comment
        )
        extra: Json = {} if request.client_id is None else {"clientId": request.client_id}
        self._transport.put(frame("session_rated", session=answer["session"], **extra))

    async def _store(self, request: SendMessage, message_id: str) -> StoredMessage:
        """Store a message; retried for SEND_TIMEOUT seconds, which its id makes safe."""
        deadline, pause = time.monotonic() + SEND_TIMEOUT, SEND_RETRY
        while True:
            try:
                return await self._users.send(
                    self._credentials.caller, message=request.message, player_id=request.player_id,
                    message_id=message_id, session_id=request.session_id, after_seq=request.after_seq,
                    template_id=request.template_id, attachment_ids=request.attachment_ids,
                )  # fmt: skip
            except TransientError:
                if time.monotonic() + pause > deadline or self._subscriber.own.received is not None:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, SEND_RETRY_MAX)

    async def _type(self, request: Typing) -> None:
        session_id = request.session_id
        if session_id is None and self.identity.player_id is not None:
            session_id = self._subscriber.current
        if session_id is None:
            raise Refused(400, "session_missing", "a session is required")
        note = request.purpose == "note"
        if not self._hub.typing.accept(self.identity, session_id, typing=request.typing, note=note):
            return
        player_id = self._players.get(session_id) or self._hub.player_of(session_id)
        if player_id is None:
            page = await self._users.history(self._credentials.caller, session_id=session_id, limit=1)
            if page["session"] is None:
                raise Refused(404, "session_unknown", "there is no such session")
            player_id = page["session"]["player_id"]
        if self.identity.player_id not in (None, player_id):
            raise Refused(404, "session_unknown", "there is no such session")
        remember(self._players, session_id, player_id)
        await self._hub.typing.publish(
            self._subscriber, session_id=session_id, player_id=player_id, typing=request.typing, note=note
        )


def _end_by(transport: ClientTransport, error: BaseException | None) -> None:
    """Close for the reason that ended one of the tasks; a client that disconnected needs no close."""
    if isinstance(error, CloseConnection):
        transport.end(error)
    elif error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError | OSError):
        log.error("session_failed", error=type(error).__name__)
        transport.end(CloseConnection(1011, "internal error"))
