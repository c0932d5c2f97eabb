"""The kind of a Supabase key and the claims of a JWT. Signatures are not verified."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """`kind` is secret, publishable (sb_… keys), jwt or unknown; `claims` are those of a JWT, unverified."""

    kind: str
    claims: dict[str, Any]

    @property
    def role(self) -> str:
        """The role: service_role, anon, gre_worker, …, or an empty string."""
        return {"secret": "service_role", "publishable": "anon"}.get(self.kind) or str(
            self.claims.get("role", "")
        )


def read_key(value: str) -> Key:
    """Return the kind and claims of a key."""
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


def opens_storage(key: str) -> bool:
    """Return whether Supabase Storage takes a key of a worker: it does not know the role gre_worker."""
    return read_key(key).role != "gre_worker"


def gateway_key(key: str, anon_key: str | None) -> str:
    """Return the header `apikey` for a call that carries `key` as its bearer token.

    Supabase's gateway accepts only the project's own keys. Another token (one of role gre_worker, or a user's) is sent
    together with the anon key.
    """
    parsed = read_key(key)
    is_project_key = parsed.kind != "jwt" or parsed.role in ("service_role", "anon")
    return key if is_project_key or anon_key is None else anon_key
