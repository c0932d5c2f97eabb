"""Reads the messages and errors of Realtime. All of them are untrusted, and no text of theirs may carry a key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import InvalidStatus

from gre_bridge.db.types import NewRow

MAX_SESSIONS = 50
"""The most session ids that a wake-up may name; the trigger names no more."""


def parse_session_ids(ids: object) -> frozenset[str] | None:
    """Return the session ids that a wake-up names, or None ("any session") for anything but a short list of UUIDs."""
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_SESSIONS:
        return None
    try:
        return frozenset(str(uuid.UUID(item)) for item in ids)
    except (TypeError, ValueError, AttributeError):
        return None


def parse_new_row(record: Mapping[str, Any]) -> NewRow | None:
    """Return the row that an INSERT describes, or None if a field is missing."""
    match record:
        case {"id": str(message), "session_id": str(session), "seq": int(seq)}:
            return NewRow(message, session, seq)
    return None


def parse_server_error(error: Exception | None) -> dict[str, Any]:
    """Return the server's reply, which the client wraps as JSON in an exception; {} if there is none."""
    try:
        reply = json.loads(str(error))
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}


def describe_connect_error(error: Exception) -> str:
    """Describe a failed connection. The exception's own text is left out: it may hold the address with the key."""
    if not isinstance(error, InvalidStatus):
        return type(error).__name__
    try:
        reason = json.loads(error.response.body or b"")["error"]
    except (ValueError, KeyError, TypeError):
        reason = error.response.reason_phrase
    return f"HTTP {error.response.status_code} {reason}"
