"""The signed HTTP API of Pusher Channels: events in, on to the sockets (pusher_socket.py).

Facts are those of Pusher's HTTP API reference and of the `pusher` package 3.3.4; texts of errors are as users
report them. What is left out (events to users, webhooks, `info`) is refused with 501.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from gre_bridge.devstack.faults import Receive, Received, Scope, Send, answer, read_body
from gre_bridge.devstack.pusher_socket import CHANNEL, Channels, sign

MAX_DATA = 10_240
MAX_BATCH = 10
MAX_CHANNELS = 100
MAX_NAME = 200
CLOCK_SKEW = 600
_SOCKET_ID = re.compile(r"\d+\.\d+\Z")


class RefusedError(Exception):
    """A request that Pusher would refuse: the status, and the body's text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Pusher:
    """The ASGI application for /apps/{id}/…; `channels` is the one for its sockets."""

    def __init__(self, *, app_id: str, key: str, secret: str, received: Received) -> None:
        self._app_id = app_id
        self._key = key
        self._secret = secret
        self._received = received
        self.channels = Channels(key=key, secret=secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await read_body(receive)
        try:
            result = self._http(scope, body)
        except RefusedError as refusal:
            if scope["method"] == "POST":
                self.refused(refusal.status, body)
            await answer(send, refusal.status, refusal.text + "\n")
        else:
            await answer(send, 200, result)

    def refused(self, status: int, body: bytes) -> None:
        """Record a request that was not carried out."""
        try:
            events = self._read(orjson.loads(body))
        except (RefusedError, orjson.JSONDecodeError):
            events = []
        self._received.record(status, [event for event, _ in events], len(body))

    def _http(self, scope: Scope, body: bytes) -> dict[str, Any]:
        parts = scope["path"].split("/")[2:]
        if parts[0] != self._app_id:
            raise RefusedError(404, f"Unknown app_id {parts[0]}")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self._verify(scope, query, body)
        if scope["method"] == "GET" and parts[1:] == ["channels"]:
            prefix = query.get("filter_by_prefix", "")
            if "info" in query:
                raise RefusedError(501, "info is not offered by the embedded stack")
            return {"channels": {name: {} for name in self.channels.occupied(prefix)}}
        if scope["method"] == "POST" and parts[1:2] == ["users"] and parts[3:] == ["terminate_connections"]:
            self.channels.terminate(parts[2])
            return {}
        if scope["method"] != "POST" or parts[1:] not in (["events"], ["batch_events"]):
            raise RefusedError(501, "not offered by the embedded stack")
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise RefusedError(400, "Invalid JSON in request body") from None
        events = self._read(content)
        self._received.record(200, [event for event, _ in events], len(body))
        for event, socket_id in events:
            self.channels.publish(event["channel"], event["name"], event["data"], but=socket_id)
        return {}

    def _verify(self, scope: Scope, query: dict[str, str], body: bytes) -> None:
        if query.get("auth_key") != self._key:
            # (400, not 401: pusher-http-php#118. So for a right key at another cluster.)
            raise RefusedError(400, f"Unknown auth_key {query.get('auth_key', '')}")
        try:
            then = datetime.fromtimestamp(int(query.get("auth_timestamp", "")), UTC)
        except (ValueError, OverflowError, OSError):
            raise RefusedError(401, "Invalid auth_timestamp") from None
        now = datetime.now(UTC)
        if abs((now - then).total_seconds()) > CLOCK_SKEW:
            raise RefusedError(
                401,
                f"Timestamp expired: Given timestamp ({then:%Y-%m-%dT%H:%M:%SZ}) not within {CLOCK_SKEW}s"
                f" of server time ({now:%Y-%m-%dT%H:%M:%SZ})",
            )
        if query.get("auth_version") != "1.0":
            raise RefusedError(401, "Version required: auth_version must be 1.0")
        if body and query.get("body_md5", "") != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise RefusedError(401, "Invalid body_md5")
        signed = "&".join(
            f"{name.lower()}={value}" for name, value in sorted(query.items()) if name != "auth_signature"
        )
        text = f"{scope['method']}\n{scope['path']}\n{signed}"
        if not hmac.compare_digest(sign(self._secret, text), query.get("auth_signature", "")):
            raise RefusedError(
                401,
                f"Invalid signature: you should have sent HmacSHA256Hex({orjson.dumps(text).decode()},"
                f" your_secret_key), but you sent {orjson.dumps(query.get('auth_signature', '')).decode()}",
            )

    def _read(self, content: Any) -> list[tuple[dict[str, Any], str]]:
        """The events of either body, one for each channel, with the socket that is not to hear it."""
        if not isinstance(content, dict):
            raise RefusedError(400, "The request body must be a JSON object")
        batch = content.get("batch")
        if batch is None:
            return self._read_event(content)
        if not isinstance(batch, list):
            raise RefusedError(400, "batch must be a list")
        if len(batch) > MAX_BATCH:
            raise RefusedError(400, f"Batch too large (> {MAX_BATCH})")
        return [event for one in batch for event in self._read_event(one)]

    def _read_event(self, event: Any) -> list[tuple[dict[str, Any], str]]:
        if not isinstance(event, dict):
            raise RefusedError(400, "An event must be a JSON object")
        name, data = event.get("name"), event.get("data")
        channels = event.get("channels") or [event.get("channel")]
        socket_id = event.get("socket_id") or ""
        if not isinstance(name, str) or not name or not isinstance(data, str):
            raise RefusedError(400, "Missing required parameter: name and data are strings")
        if len(name) > MAX_NAME:
            raise RefusedError(400, f"Event name too long (> {MAX_NAME})")
        if not isinstance(channels, list) or len(channels) > MAX_CHANNELS:
            raise RefusedError(400, f"Too many channels (> {MAX_CHANNELS})")
        for channel in channels:
            if not isinstance(channel, str) or not CHANNEL.match(channel):
                raise RefusedError(400, "Invalid channel name")
        if socket_id and not _SOCKET_ID.match(socket_id):
            raise RefusedError(400, "Invalid socket id")
        if "info" in event:
            raise RefusedError(501, "info is not offered by the embedded stack")
        if len(data.encode()) > MAX_DATA:
            raise RefusedError(
                413, f"The data content of this event exceeds the allowed maximum ({MAX_DATA} bytes)"
            )
        return [({"channel": channel, "name": name, "data": data}, socket_id) for channel in channels]
