"""Turns each delivery of a claimed lane into Pusher events: pure functions.

No clock, no I/O, no state: a delivery's age comes from the database. The channels, the event's name and its data are
decided here; how an event is sent is the business of `gre_bridge.sinks.pusher`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import orjson

from gre_bridge.db.types import Delivery, Json, Lane
from gre_bridge.errors import ConfigurationError, PermanentError
from gre_bridge.relay.routing.events import (
    MESSAGES_READ,
    PLAYER_MESSAGE,
    SESSION_NOTE,
    SESSION_TRANSFERRED,
    SESSION_UPDATED,
    STAFF_MESSAGE,
    fill_template,
    incomplete_event,
    unknown_event,
)
from gre_bridge.sinks.base import PusherEvent, SinkRecord

PUSHER_LIMIT = 10_240
"""Bytes of one event's data (Pusher's documentation)."""

_STAFF = "private-staff-portal"
_PRIVATE = (_STAFF, "private-player-{player_id}")
_CHANNEL = re.compile(r"(?!private-encrypted-)[-a-zA-Z0-9_=@,.;]{1,164}")
_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class PusherRoutes:
    """Which channels each event goes to; `{player_id}` is filled in. `late_after` is in seconds."""

    player_channels: tuple[str, ...] = ("staff-portal",)
    staff_channels: tuple[str, ...] = _PRIVATE
    session_channels: tuple[str, ...] = _PRIVATE
    read_channels: tuple[str, ...] = _PRIVATE
    desk_channels: tuple[str, ...] = (_STAFF,)
    """For events that only staff may receive."""
    late_after: float = 30.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a name that Pusher would refuse, could only send in clear text, or that is not private."""
        shared = self.player_channels + self.staff_channels + self.session_channels + self.read_channels
        of_players = [name for name in shared if "{player_id}" in name]
        for name in self.desk_channels:
            if not name.startswith(("private-", "presence-")) or "{" in name:
                raise ConfigurationError(f"{name!r} is not a private channel of staff alone")
            if any(_filled(template, name) for template in of_players):
                raise ConfigurationError(
                    f"{name!r} is a player's channel, and would carry what only staff may receive"
                )
        for name in shared + self.desk_channels:
            if not _CHANNEL.fullmatch(fill_template(name, player_id=2**63)):
                raise ConfigurationError(f"{name!r} cannot be used as a Pusher channel")


def _filled(template: str, name: str) -> bool:
    """Return True if `name` is the template's channel of some player."""
    return re.fullmatch(re.escape(template).replace(re.escape("{player_id}"), "[0-9]+"), name) is not None


def route_pusher(lane: Lane, routes: PusherRoutes) -> list[SinkRecord]:
    """One record per delivery, one event per channel.

    What is gone meanwhile (an erased message) leaves nothing to announce: an empty record, which counts
    as done. What cannot be announced (an event this version does not know) is a record with an error.
    """
    records: list[SinkRecord] = []
    for delivery in lane.deliveries:
        payloads: tuple[PusherEvent, ...] = ()
        error = PermanentError(delivery.fault) if delivery.fault else None
        try:
            payloads = () if error else _pusher_events(delivery, routes)
        except PermanentError as exc:
            error = exc
        except KeyError as exc:
            error = incomplete_event(delivery, exc)
        records.append(
            SinkRecord(lane.key, (delivery.id,), payloads, attempts=delivery.attempts, error=error)
        )
    return records


def _pusher_events(delivery: Delivery, routes: PusherRoutes) -> tuple[PusherEvent, ...]:
    source: Json | None
    match delivery.event:
        case "message":
            if (source := delivery.message) is None:
                return ()
            if source["sender"] == "player":
                name, channels = PLAYER_MESSAGE, routes.player_channels
            else:
                name, channels = STAFF_MESSAGE, routes.staff_channels
            data = _message_data(source, delivery, routes.late_after)
        case "session":
            if (source := delivery.session) is None:
                return ()
            name, channels = SESSION_UPDATED, routes.session_channels
            session = dict(source)
            data = _fitted({"session": session}, session, "last_message")
        case "transfer" | "note":
            return _desk_events(delivery, routes.desk_channels)
        case "read":
            source = delivery.data
            name, channels = MESSAGES_READ, routes.read_channels
            data = _encode({key: source[key] for key in ("session_id", "by", "up_to_seq", "timestamp")})
        case "push":
            return ()
        case _:
            raise unknown_event(delivery)
    player_id = source["player_id"]
    return tuple(PusherEvent(channel.format(player_id=player_id), name, data) for channel in channels)


def _desk_events(delivery: Delivery, channels: tuple[str, ...]) -> tuple[PusherEvent, ...]:
    """The events that only staff may receive."""
    if delivery.event == "transfer":
        name = SESSION_TRANSFERRED
        data = _encode({key: delivery.data[key] for key in ("session_id", "from", "to", "by")})
    elif delivery.note is None:
        return ()
    else:
        name, note = SESSION_NOTE, dict(delivery.note)
        data = _fitted({"note": note}, note, "text", truncated={"truncated": True})
    return tuple(PusherEvent(channel, name, data) for channel in channels)


def _message_data(source: Json, delivery: Delivery, late_after: float) -> str:
    payload: Json = {
        "id": source["id"],
        "message": source["message"],
        "sender": source["sender"],
        "sender_name": source["sender_name"],
        "player_id": source["player_id"],
        "timestamp": source["timestamp"],
        "status": "sent",
        "session_id": source["session_id"],
        "seq": source["seq"],
    }
    if source.get("auto"):
        payload["auto"] = True
    if files := source.get("attachments"):
        # Neither names nor addresses: the channel may be public.
        payload["attachments"] = [{"id": file["id"], "kind": file["kind"]} for file in files]
    if delivery.age > late_after:
        payload["late"] = True
    if delivery.data.get("replayed") is True:
        payload["replayed"] = True
    return _fitted(payload, payload, "message", truncated={"truncated": True})


def _fitted(payload: Json, holder: Json, key: str, *, truncated: Json | None = None) -> str:
    """`payload` as ASCII JSON, with `holder[key]` cut to the longest text that fits and then `truncated`."""
    data = _encode(payload)
    if len(data) <= PUSHER_LIMIT:
        return data
    text: str = holder.get(key) or ""
    holder[key] = ""
    payload.update(truncated or {})
    room = PUSHER_LIMIT - len(_encode(payload))
    if room < 0:
        raise PermanentError(f"larger than Pusher's {PUSHER_LIMIT} bytes even without its text")
    # Between characters of the text, never inside the escapes (up to 12 bytes) they are written as.
    fits = bisect_right(range(1, len(text) + 1), room, key=lambda length: len(_encode(text[:length])) - 2)
    holder[key] = text[:fits]
    return _encode(payload)


def _encode(value: Any) -> str:
    """Compact ASCII JSON; the package that sends it to Pusher measures text that is not ASCII wrongly."""
    try:
        data = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _encode_ascii(value)
    # orjson knows only UTF-8, but takes a tenth of the time for the many messages that are ASCII anyway.
    return data.decode() if data.isascii() else _encode_ascii(value)
