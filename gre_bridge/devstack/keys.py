"""The secrets of a data directory: created once, stored in it, readable by their owner only.

They look like the real services' keys, so that programs which check the looks accept them. Nothing here logs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jwt

from gre_bridge.errors import ConfigurationError

_TEN_YEARS = 10 * 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of one data directory."""

    jwt_secret: str
    anon_key: str
    service_key: str
    pusher_app_id: str
    pusher_key: str
    pusher_secret: str
    onesignal_app_id: str
    onesignal_api_key: str

    @classmethod
    def generate(cls) -> Keys:
        """New keys; the two of Supabase are JWTs signed with the secret, valid for ten years."""
        secret = secrets.token_urlsafe(40)
        now = int(time.time())
        roles = [
            jwt.encode(
                {"iss": "gre-bridge dev", "role": role, "iat": now, "exp": now + _TEN_YEARS}, secret, "HS256"
            )
            for role in ("anon", "service_role")
        ]
        return cls(
            secret,
            roles[0],
            roles[1],
            str(1_000_000 + secrets.randbelow(9_000_000)),
            secrets.token_hex(10),
            secrets.token_hex(10),
            str(uuid.uuid4()),
            f"os_v2_app_{secrets.token_hex(24)}",
        )

    @classmethod
    def of(cls, data_dir: Path) -> Keys:
        """Return the keys stored in a data directory, created on first use. Raises ConfigurationError."""
        path = data_dir / "keys.json"
        try:
            if path.exists():
                return cls(**json.loads(path.read_text()))
            data_dir.mkdir(parents=True, exist_ok=True)
            keys = cls.generate()
            write_secret(path, json.dumps(asdict(keys), indent=1))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"cannot use data directory {data_dir}: {error}") from None
        return keys

    @classmethod
    def existing(cls, data_dir: Path) -> Keys:
        """Return the keys of a stack that was started before. Raises ConfigurationError."""
        if not (data_dir / "keys.json").is_file():
            raise ConfigurationError(
                f"--data-dir: no embedded stack has run in {data_dir}: start `gre-bridge dev` first"
            )
        return cls.of(data_dir)

    def token_of(self, person: str, *, expires_in: float) -> str:
        """The token of a person written as `player:30`, `staff:s1` or `admin:a1`. Raises ConfigurationError."""
        role, _, number = person.partition(":")
        if role == "player" and re.fullmatch("[1-9][0-9]{0,15}", number):
            return self.user_token("player", player_id=int(number), expires_in=expires_in)
        if role == "staff" and number:
            return self.user_token("staff", staff_id=number, expires_in=expires_in)
        if role == "admin" and number:
            return self.user_token("admin", staff_id=number, expires_in=expires_in)
        raise ConfigurationError("a person is written as player:30, staff:s1 or admin:a1")

    def user_token(
        self,
        role: Literal["player", "staff", "admin"],
        *,
        player_id: int | None = None,
        staff_id: str | None = None,
        expires_in: float = 3600.0,
    ) -> str:
        """A signed-in user's token; the same person has the same `sub` in every token."""
        claims = {"gre_role": role}
        person: dict[str, Any] = {"player_id": player_id} if role == "player" else {"staff_id": staff_id}
        now = int(time.time())
        return jwt.encode(
            {
                "aud": "authenticated",
                "role": "authenticated",
                "sub": str(
                    uuid.uuid5(uuid.NAMESPACE_OID, f"{role}:{player_id if role == 'player' else staff_id}")
                ),
                "app_metadata": {**claims, **person},
                "iat": now,
                "exp": int(now + expires_in),
            },
            self.jwt_secret,
            "HS256",
        )


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)
