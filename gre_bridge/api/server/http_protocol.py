"""uvicorn's HTTP protocol with limits that uvicorn lacks: of bytes, of time and of connections.

h11 rather than httptools, although it takes 0.4 ms of processor time for a request where that takes 0.15 (measured):
it bounds the bytes of headers and trailers, and does not read on while a pipelined request waits. What is added here:
a time for a request to arrive and for an answer to be taken, a bound on the number of headers, an end to connections
that wait too long, and the documented shape for refusals that no application sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import sys
import uuid
from http import HTTPStatus
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from gre_bridge.api.addresses import canonical
from gre_bridge.api.server.connections import ConnectionLimiter

MAX_HEAD = 32 * 1024
"""Bytes of a request line with its headers, and of trailers."""
MAX_HEADERS = 100
MAX_CHUNKS = 2000
"""Chunks of a body: each takes 20 microseconds, however short it is."""
HEAD_WITHIN = 10.0
"""Seconds from the first byte of a request, or from the connection, until its headers are there."""
BODY_WITHIN = 15.0
"""Seconds for the rest of it; the application refuses a slow body before, with an answer."""
TAKEN_WITHIN = 30.0
"""Seconds for the peer to read a piece of an answer."""
LINGER = 2.0
"""Seconds for which the bytes of a refused peer are read and dropped, so that the refusal reaches it."""
PIECE = 8 * 1024
"""Bytes that are parsed before the bounds are looked at again."""

_TEXTS = {
    400: ("malformed", "the request is malformed"),
    408: ("too_slow", "the request did not arrive in time"),
    413: ("too_large", "the body has too many chunks"),
    431: ("headers_too_large", f"the headers are longer than {MAX_HEAD} bytes, or more than {MAX_HEADERS}"),
    501: ("malformed", "the request is malformed"),
    503: ("too_many_connections", "too many connections"),
}


_CLIENTS_MISTAKES = ("Invalid UTF-8", "ASGI callable returned without completing")
"""What uvicorn logs as errors, and is the peer's: bytes that are no text, and an answer that it did not take."""


def quiet_logger() -> logging.Logger:
    """The logger for uvicorn's protocols: they write a line for each connection and each malformed request."""
    logger = logging.getLogger("gre.protocol")
    logger.setLevel(logging.ERROR)
    if not logger.filters:
        logger.addFilter(lambda record: not str(record.msg).startswith(_CLIENTS_MISTAKES))
    return logger


def error_response(status: int, code: str, text: str) -> bytes:
    """Return a whole HTTP answer in the shape of the API's errors, after which the connection ends."""
    request_id = uuid.uuid4().hex
    body = orjson.dumps({"success": False, "error": text, "code": code, "request_id": request_id})
    retry = "Retry-After: 5\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nX-Request-Id: {request_id}\r\n"
        f"X-Content-Type-Options: nosniff\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body


class _Parser(h11.Connection):
    """h11's parser, with bounds on what costs more than its bytes."""

    _chunks = 0

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return the next event. Raises RemoteProtocolError (431, 413)."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = 0
            if len(event.headers) > MAX_HEADERS:
                raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise h11.RemoteProtocolError("too many chunks", error_status_hint=413)
        return event


class HttpProtocol(H11Protocol):
    """One HTTP connection."""

    def __init__(self, *arguments: Any, limiter: ConnectionLimiter | None = None, **options: Any) -> None:
        """As uvicorn makes it; `limiter` counts it."""
        super().__init__(*arguments, **options)
        self.logger = quiet_logger()
        self.access_log = False
        self.conn = _Parser(h11.SERVER, MAX_HEAD)
        self._limiter = limiter
        self._arrival: asyncio.TimerHandle | None = None
        """Ends a request that does not arrive."""
        self._arriving = False
        self._refused = False
        self._taking: asyncio.TimerHandle | None = None
        """Ends an answer that is not taken."""

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, if the limiter admits the connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "reset": self.reset}
        if self.client is not None:
            self.client = (canonical(self.client[0]), self.client[1])
        with contextlib.suppress(OSError, AttributeError):
            # asyncio sets it for sockets whose protocol number is given, which those of a listener lack. Without it
            # the second part of an answer waits up to 40 ms for the acknowledgement of the first.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # From here on "writing is paused" means: the kernel did not take everything.
        transport.set_write_buffer_limits(high=0)
        if self._limiter is not None and self.client and not self._limiter.admit(self, self.client[0]):
            self._refuse(503)
            return
        self._expect(HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and release the connection."""
        self._expect(None)
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        if self._limiter is not None:
            self._limiter.release(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it now, without an answer."""
        self.transport.abort()

    def reset(self) -> None:
        """Close it so that the peer sees an error, also where the end of the connection is the end of the answer."""
        with contextlib.suppress(OSError, AttributeError):
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Parse piece by piece, so that every limit holds within one read."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE):
            if self._refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            self.conn.receive_data(data[start : start + PIECE])
            self.handle_events()
        if self.transport.get_protocol() is self:
            self._watch()

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == b"websocket"

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Pass the connection on to the WebSocket protocol."""
        if event.method != b"GET" or event.http_version != b"1.1":
            self._refuse(400)
            return
        self._expect(None)
        if self._limiter is not None:
            self._limiter.release(self)
        self.transport.set_write_buffer_limits()
        # The socket's state would keep this protocol and its parser, some 7 KB, as long as it is open.
        self.app_state = {name: value for name, value in self.app_state.items() if name != "reset"}
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        """Start or end the time for a request to arrive, as far as it has come."""
        if self._refused or self.transport.is_closing():
            return
        state = self.conn.their_state
        if state is h11.IDLE and self.conn.our_state is h11.IDLE:
            if not self._arriving and self.conn.trailing_data[0]:
                self._arriving = True
                self._expect(HEAD_WITHIN)
        elif state is h11.SEND_BODY:
            if self._arrival is None or self._arriving:
                self._arriving = False
                self._expect(BODY_WITHIN)
        else:
            self._arriving = False
            self._expect(None)
        if self._limiter is not None and state is not h11.IDLE and state is not h11.SEND_BODY:
            self._limiter.works(self)

    def _expect(self, seconds: float | None) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
        self._arrival = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._arrival = None
        if self.conn.our_state is h11.IDLE and self._arriving:
            self._refuse(408)
        elif self.conn.our_state is h11.IDLE:
            self.transport.close()  # nothing was asked: browsers open connections in advance
        else:
            self.transport.abort()

    # What goes out

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self._limiter is not None and self.conn.our_state is h11.IDLE:
            self._limiter.waits(self)
        self._watch()

    def pause_writing(self) -> None:
        """Start the time limit for the peer to read."""
        super().pause_writing()
        if self._limiter is not None:
            self._limiter.waits(self)
        if self._taking is None:
            self._taking = self.loop.call_later(TAKEN_WITHIN, self._not_taken)

    def resume_writing(self) -> None:
        """Note that the peer has read everything."""
        super().resume_writing()
        if self._limiter is not None and self.cycle is not None and not self.cycle.response_complete:
            self._limiter.works(self)
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _not_taken(self) -> None:
        self._taking = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - its text is fixed
        """Refuse a malformed or too large request, in the shape of the API's errors."""
        error = sys.exception()
        self._refuse(error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400)

    def _refuse(self, status: int) -> None:
        if self.transport.is_closing() or self._refused:
            return
        self._expect(None)
        begun = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if begun:
            self.transport.close()
            return
        self._refused = True
        self._unset_keepalive_if_required()
        self.transport.write(error_response(status, *_TEXTS.get(status, _TEXTS[400])))
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
        self.flow.resume_reading()
        self._arrival = self.loop.call_later(LINGER, self.transport.abort)
