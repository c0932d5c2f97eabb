"""HS256 tokens as Storage reads and makes them: those of callers, and those inside signed URLs.

The messages are those of the library `jose`, which the real server passes on. Tokens never reach a log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any, Final

import orjson

_HEADER: Final = b'{"alg":"HS256"}'
_NOT_COMPACT: Final = "Invalid Compact JWS"
_UNSIGNED: Final = "signature verification failed"


class TokenError(Exception):
    """The token is refused; the text says why."""


def make(claims: dict[str, Any], secret: str) -> str:
    """Sign the claims."""
    text = f"{_encode(_HEADER)}.{_encode(orjson.dumps(claims))}"
    return f"{text}.{_encode(_sign(text, secret))}"


def read(token: str, secret: str) -> dict[str, Any]:
    """Return the claims. Times have no leeway: a token ends in the second that `exp` names; without `exp` it never ends.

    Raises TokenError.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError(_NOT_COMPACT)
    try:
        header = json.loads(_decode(parts[0]))
    except ValueError:
        raise TokenError(_NOT_COMPACT) from None
    if not isinstance(header, dict) or header.get("alg") != "HS256":
        raise TokenError('"alg" (Algorithm) Header Parameter value not allowed')
    try:
        signed = hmac.compare_digest(_decode(parts[2]), _sign(f"{parts[0]}.{parts[1]}", secret))
        claims = json.loads(_decode(parts[1])) if signed else None
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise TokenError(_UNSIGNED)
    now = int(time.time())
    for name, first, end in (("nbf", float("-inf"), now + 1), ("exp", now + 1, float("inf"))):
        at = claims.get(name)
        if at is not None and not (isinstance(at, int | float) and first <= at < end):
            raise TokenError(f'"{name}" claim timestamp check failed')
    return claims


def _sign(text: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), text.encode("latin-1", "replace"), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
