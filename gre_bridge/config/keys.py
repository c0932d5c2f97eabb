"""What a Supabase key says of itself: its kind and, of a JWT, its claims. No signature is checked here."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """`kind` is secret, publishable (sb_… keys), jwt or unknown; `claims` are a JWT's, unverified."""

    kind: str
    claims: dict[str, Any]

    @property
    def role(self) -> str:
        """For whom it speaks: service_role, anon, gre_worker, … or an empty string when it does not say."""
        return {"secret": "service_role", "publishable": "anon"}.get(self.kind) or str(
            self.claims.get("role", "")
        )


def read_key(value: str) -> Key:
    """Read a key without verifying it."""
    for prefix, kind in (("sb_secret_", "secret"), ("sb_publishable_", "publishable")):
        if value.startswith(prefix):
            return Key(kind, {})
    parts = value.split(".")
    if len(parts) == 3:
        try:
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except ValueError:
            claims = None
        if isinstance(claims, dict):
            return Key("jwt", claims)
    return Key("unknown", {})


def gateway_key(key: str, anon_key: str | None) -> str:
    """What to show the gateway as `apikey` in a call that carries `key` as its token.

    Supabase's gateway lets in the project's own keys only, so a token that somebody else signed (one of role
    gre_worker) goes behind the anon key, as any user's token does.
    """
    known = read_key(key)
    own = known.kind != "jwt" or known.role in ("service_role", "anon")
    return key if own or anon_key is None else anon_key
