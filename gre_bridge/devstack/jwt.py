"""Checks HS256 tokens the way PostgREST 14.5 does, for every service of the embedded stack.

This module only says who a token speaks for. It must not know about roles, HTTP or channels: callers turn
the typed errors into their own protocol's answer. Tokens never reach a log or an error text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import jwt

# PostgREST 14.5 lets clocks differ by 30 s: expired 10 s ago passed, 31 s failed.
SKEW_SECONDS: Final = 30

_NO_KEY: Final = "No suitable key or wrong key type"
_KEY_NOT_FOUND: Final = "No suitable key was found to decode the JWT"


class JwtError(Exception):
    """A token that is refused; `code`, `message` and `details` are PostgREST's own words."""

    code = "PGRST301"

    def __init__(self, message: str, *, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class JwtInvalidError(JwtError):
    """Not a token, not signed with our secret, or not HS256."""


class JwtTimeError(JwtError):
    """Well signed, but expired, not yet valid, or issued in the future."""

    code = "PGRST303"


def verify(token: str, secret: str, *, now: float | None = None) -> Mapping[str, Any]:
    """Return the claims of an HS256 token; `now` is in Unix seconds and defaults to the wall clock.

    A token without `exp` is accepted for ever and `aud` is not looked at (measured on PostgREST 14.5).
    Raises `JwtInvalidError` or `JwtTimeError`.
    """
    claims = _decode(token, secret)
    seconds = int(time.time() if now is None else now)
    expires, starts, issued = (claims.get(name) for name in ("exp", "nbf", "iat"))
    if expires is not None and int(expires) < seconds - SKEW_SECONDS:
        raise JwtTimeError("JWT expired")
    if starts is not None and int(starts) > seconds + SKEW_SECONDS:
        raise JwtTimeError("JWT not yet valid")
    if issued is not None and int(issued) > seconds + SKEW_SECONDS:
        raise JwtTimeError("JWT issued at future")
    return claims


@lru_cache(maxsize=512)
def _decode(token: str, secret: str) -> Mapping[str, Any]:
    """Check the signature once per token: only the clock can change the verdict later."""
    if not token:
        raise JwtInvalidError("Empty JWT is sent in Authorization header")
    parts = token.count(".") + 1
    if parts != 3:
        raise JwtInvalidError(f"Expected 3 parts in JWT; got {parts}")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise JwtInvalidError("JWT cryptographic operation failed") from None
    if str(header.get("alg")).lower() == "none":
        raise JwtInvalidError(
            "Wrong or unsupported encoding algorithm",
            details="JWT is unsecured but expected 'alg' was not 'none'",
        )
    if header.get("alg") != "HS256" or "kid" in header:
        raise JwtInvalidError(_NO_KEY, details=_KEY_NOT_FOUND)
    try:
        claims = json.loads(jwt.PyJWS().decode(token, secret, algorithms=["HS256"]))
    except jwt.InvalidSignatureError:
        raise JwtInvalidError(_NO_KEY, details="None of the keys was able to decode the JWT") from None
    except (jwt.InvalidTokenError, ValueError):
        raise JwtInvalidError("JWT cryptographic operation failed") from None
    if not isinstance(claims, dict):
        raise JwtInvalidError("JWT cryptographic operation failed")
    if any(not isinstance(claims.get(name, 0), int | float) for name in ("exp", "nbf", "iat")):
        raise JwtInvalidError(_NO_KEY, details=_KEY_NOT_FOUND)
    return claims
