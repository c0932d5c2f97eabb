"""The wire of Realtime: Phoenix frames in protocol versions 1.0.0 and 2.0.0, and its checks of tokens.

Pure functions; the texts and shapes are those measured on Realtime 2.122.0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One message either way."""

    topic: str
    event: str
    payload: Json
    ref: str | None = None
    join_ref: str | None = None

    def encode(self, vsn: str) -> str:
        """The frame as the client's protocol version says it."""
        if vsn == "1.0.0":
            v1 = {"ref": self.ref, "event": self.event, "payload": self.payload, "topic": self.topic}
            return orjson.dumps(v1).decode()
        return orjson.dumps([self.join_ref, self.ref, self.topic, self.event, self.payload]).decode()


def decode(vsn: str, data: str | bytes) -> Frame | None:
    """Read a client's frame; None for what Realtime ignores without a word."""
    try:
        if isinstance(data, bytes):
            return _decode_push(data) if vsn == "2.0.0" else None
        message = orjson.loads(data)
        if vsn == "2.0.0":
            join_ref, ref, topic, event, payload = message
        else:
            topic, event, payload, ref = (message[key] for key in ("topic", "event", "payload", "ref"))
            join_ref = message.get("join_ref")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if not isinstance(topic, str) or not isinstance(event, str) or not isinstance(payload, dict):
        return None
    return Frame(topic, event, payload, ref, join_ref)


def _decode_push(data: bytes) -> Frame | None:
    """A broadcast as supabase-js sends it: kind 3, five lengths, the encoding, five strings, the payload.

    A payload that is not JSON (encoding 0) is not part of the stack.
    """
    if data[0] != 3 or data[6] != 1:
        return None
    at, texts = 7, []
    for size in data[1:6]:
        texts.append(data[at : at + size].decode())
        at += size
    join_ref, ref, topic, event, _metadata = texts
    payload = {"type": "broadcast", "event": event, "payload": orjson.loads(data[at:])}
    return Frame(topic, "broadcast", payload, ref or None, join_ref or None)


class TokenError(Exception):
    """A token that Realtime refuses: `code` prefixes `text` in a join's reply only."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


MALFORMED = ("MalformedJWT", "The token provided is not a valid JWT")


def verify(token: object, secret: str) -> Json:
    """The claims of a token.

    Raises:
        TokenError: malformed, badly signed, expired, or without `role` or `exp`.
    """
    if not isinstance(token, str):
        raise TokenError(*MALFORMED)
    try:
        claims: Json = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidSignatureError as error:
        raise TokenError("JwtSignatureError", "Failed to validate JWT signature") from error
    except jwt.InvalidTokenError as error:
        raise TokenError(*MALFORMED) from error
    if not isinstance(claims.get("role"), str) or not isinstance(claims.get("exp"), (int, float)):
        raise TokenError("InvalidJWTToken", "Fields `role` and `exp` are required in JWT")
    late = int(time.time()) - int(claims["exp"])
    if late >= 0:
        raise TokenError("InvalidJWTToken", f"Token has expired {late} seconds ago")
    return claims


def refusal(token: str, secret: str) -> str:
    """Why a handshake with this token is refused, in the words of its HTTP answer; empty if it is not."""
    try:
        verify(token, secret)
    except TokenError as error:
        return "Token has expired" if error.text.startswith("Token has expired") else error.text
    return ""
