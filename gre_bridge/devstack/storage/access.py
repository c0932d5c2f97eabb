"""Who asks: the caller of a request, and the tokens of signed URLs."""

from __future__ import annotations

import time
from typing import Any

from gre_bridge.devstack.storage import tokens
from gre_bridge.devstack.storage.database import Caller
from gre_bridge.devstack.storage.errors import (
    StorageError,
    access_denied,
    invalid_parameter,
    invalid_request,
    no_such_bucket,
)
from gre_bridge.devstack.storage.request import Request

_LAST = 8_640_000_000_000
"""The last second that JavaScript's dates know."""


def caller_of(request: Request, secret: str) -> Caller:
    """The caller by the header Authorization, where "Bearer" may be absent; `apikey` counts for nothing. Raises StorageError."""
    header = request.headers.get("authorization")
    if header is None:
        raise invalid_request("headers must have required property 'authorization'")
    token = header[7:] if header[:7].lower() == "bearer " else header
    try:
        claims = tokens.read(token, secret)
    except tokens.TokenError as error:
        raise access_denied(str(error)) from None
    role = claims.get("role")
    return Caller(role if isinstance(role, str) and role else "anon", claims, token)


def reader_of(request: Request, secret: str) -> Caller:
    """The same for the routes that the clients read by: whoever is not let in hears of no bucket. Raises StorageError."""
    try:
        return caller_of(request, secret)
    except StorageError:
        raise no_such_bucket() from None


def sign(secret: str, url: str, scope: str, seconds: int, **claims: Any) -> str:
    """Make the token of a signed URL for `url`, which is bucket/key; it ends after `seconds`. Raises StorageError."""
    now = int(time.time())
    if now + seconds > _LAST:
        raise invalid_parameter("expiresIn is too large")
    return tokens.make({**claims, "url": url, "scope": scope, "iat": now, "exp": now + seconds}, secret)


def signed(
    request: Request, secret: str, url: str, scope: str, *, token: str | None = None
) -> dict[str, Any]:
    """Return the claims of a signed URL's token, or of `token`. Raises StorageError."""
    token = request.query.get("token") if token is None else token
    if token is None:
        raise invalid_request("querystring must have required property 'token'")
    try:
        claims = tokens.read(token, secret)
    except tokens.TokenError as error:
        raise StorageError(400, "InvalidJWT", str(error), "InvalidJWT") from None
    # A token of before v1.60.7 has no scope and passes by its shape.
    shape = "upload" if "upsert" in claims else "download"
    if claims.get("scope", shape) != scope:
        raise _invalid_signature(f"Token is not scoped for {scope}")
    if claims.get("url") != url:
        raise _invalid_signature("Invalid signature")
    return claims


def _invalid_signature(message: str) -> StorageError:
    return StorageError(400, "InvalidSignature", message, "InvalidSignature")
