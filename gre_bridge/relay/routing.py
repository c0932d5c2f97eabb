"""What each delivery turns into: pure functions from a claimed lane to parcels.

No clock, no I/O, no state: a delivery's age comes from the database. Everything that decides which
channel or phone an event goes to, and what it says there, is here; how it gets there is not.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gre_bridge.errors import ConfigurationError, PermanentError
from gre_bridge.models import Delivery, Json, Lane
from gre_bridge.sinks.base import Parcel, Push, PusherEvent, receipt

PUSHER_LIMIT = 10_240
"""Bytes of one event's data (Pusher's documentation)."""
MAX_RECIPIENTS = 20_000
"""External ids in one push (OneSignal's documentation)."""

PLAYER_MESSAGE = "new-player-message"
STAFF_MESSAGE = "new-staff-message"
SESSION_UPDATED = "session-updated"
MESSAGES_READ = "messages-read"

_PRIVATE = ("private-staff-portal", "private-player-{player_id}")
_CHANNEL = re.compile(r"(?!private-encrypted-)[-a-zA-Z0-9_=@,.;]{1,164}")
_LIQUID = re.compile(r"\{(?=[{%])")
_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class PusherRoutes:
    """Which channels each event goes to; `{player_id}` is filled in. `late_after` is in seconds."""

    player_channels: tuple[str, ...] = ("staff-portal",)
    staff_channels: tuple[str, ...] = _PRIVATE
    session_channels: tuple[str, ...] = _PRIVATE
    read_channels: tuple[str, ...] = _PRIVATE
    late_after: float = 30.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a name that Pusher would refuse, or could only send in clear text."""
        for name in self.player_channels + self.staff_channels + self.session_channels + self.read_channels:
            if not _CHANNEL.fullmatch(_filled(name, player_id=2**63)):
                raise ConfigurationError(f"{name!r} cannot be used as a Pusher channel")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRoutes:
    """Whom pushes go to and what they say.

    `preview` is how many characters of a message a push shows (0: none, `text` alone). `late_after`,
    `max_age` and `ttl` are seconds: from when on pushes of a lane merge, until when they are sent at
    all, and for how long OneSignal keeps one for a phone that is off.
    """

    player_external_id: str = "player_{player_id}"
    staff_external_id: str = "{staff_id}"
    preview: int = 0
    late_after: float = 30.0
    max_age: float = 3600.0
    ttl: float = 86_400.0
    player_title: str = "Player {player_id}"
    staff_title: str = "Guest relations"
    text: str = "New message"
    texts: str = "{count} new messages"

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a template with an unknown placeholder."""
        for template in (self.player_external_id, self.player_title):
            _filled(template, player_id=1)
        _filled(self.staff_external_id, staff_id="s1")
        _filled(self.texts, count=2)


def route_pusher(lane: Lane, routes: PusherRoutes) -> list[Parcel]:
    """One parcel per delivery, one event per channel.

    What is gone meanwhile (an erased message) leaves nothing to announce: an empty parcel, which counts
    as done. What cannot be announced (an event this version does not know) is a parcel with an error.
    """
    parcels: list[Parcel] = []
    for delivery in lane.deliveries:
        payloads: tuple[PusherEvent, ...] = ()
        error = PermanentError(delivery.fault) if delivery.fault else None
        try:
            payloads = () if error else _pusher_events(delivery, routes)
        except PermanentError as exc:
            error = exc
        except KeyError as exc:
            error = _incomplete(delivery, exc)
        parcels.append(Parcel(lane.key, (delivery.id,), payloads, attempts=delivery.attempts, error=error))
    return parcels


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
        case "read":
            source = delivery.data
            name, channels = MESSAGES_READ, routes.read_channels
            data = _encode({key: source[key] for key in ("session_id", "by", "up_to_seq", "timestamp")})
        case "push":
            return ()
        case _:
            raise _unknown(delivery)
    player_id = source["player_id"]
    return tuple(PusherEvent(channel.format(player_id=player_id), name, data) for channel in channels)


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


def route_onesignal(lane: Lane, routes: PushRoutes, staff: Sequence[tuple[str, bool]]) -> list[Parcel]:
    """One push per parcel; `staff` are the active staff as (staff_id, is online).

    When the head of the lane is late, or replayed, the lane's messages to the same audience merge into
    one push, also across messages to the other: a chat that went back and forth during an outage would
    else ring once per line. Parcels are in the order of their last deliveries, so pushes of a session
    still arrive in order. Session and read events, a message that is gone, and a message the player has
    read need no push.
    """
    chosen = [entry for entry in staff if entry[1]] or staff
    on_duty = _distinct(routes.staff_external_id.format(staff_id=staff_id) for staff_id, _ in chosen)
    head = next(iter(lane.deliveries), None)
    merging = head is not None and (head.age > routes.late_after or head.data.get("replayed") is True)
    groups: dict[tuple[str, bool, str], list[Delivery]] = {}
    for delivery in lane.deliveries:
        need = _need(delivery)
        expired = need not in ("", "unknown", "fault") and delivery.age > routes.max_age
        alone = "" if merging and need in ("staff", "player") else delivery.id
        groups.setdefault((need, expired, alone), []).append(delivery)
    return [
        _push_parcel(lane.key, need, group, expired, routes, on_duty)
        for (need, expired, _), group in sorted(groups.items(), key=lambda item: item[1][-1].ord)
    ]


def _need(delivery: Delivery) -> str:
    """Whom a delivery concerns: "staff", "player", a queued "push", nobody "", "unknown", or "fault": cannot be read."""
    if delivery.fault:
        return "fault"
    match delivery.event:
        case "message":
            if (message := delivery.message) is None:
                return ""
            if message.get("sender") == "player":
                return "staff"
            return "" if message.get("status") == "read" else "player"
        case "push":
            return "push" if delivery.push else ""
        case "session" | "read":
            return ""
        case _:
            return "unknown"


def _push_parcel(
    lane_key: str, need: str, group: list[Delivery], expired: bool, routes: PushRoutes, on_duty: list[str]
) -> Parcel:
    payloads: tuple[Push, ...] = ()
    receipts: tuple[Json, ...] = ()
    error = None
    try:
        if need == "unknown":
            error = _unknown(group[-1])
        elif need == "fault":
            error = PermanentError(group[-1].fault)
            push_row = group[-1].push
            receipts = (receipt({"push_id": push_row["id"]}, "failed", error=str(error)),) if push_row else ()
        elif need:
            queued = need == "push"
            push = _queued(group[-1], routes, on_duty) if queued else _merged(group, need, routes, on_duty)
            recipients = push.body["include_aliases"]["external_id"]
            if expired:
                receipts = (receipt(push.row, "expired"),)
            elif not recipients:
                receipts = (receipt(push.row, "no_recipients"),)
            elif len(recipients) > MAX_RECIPIENTS:
                error = PermanentError(f"more than {MAX_RECIPIENTS} recipients in one push")
                receipts = (receipt(push.row, "failed", error=str(error)),)
            else:
                payloads = (push,)
    except KeyError as exc:
        error = _incomplete(group[-1], exc)
    return Parcel(
        lane_key,
        tuple(delivery.id for delivery in group),
        payloads,
        expired=expired,
        attempts=group[0].attempts,
        receipts=receipts,
        error=error,
    )


def _merged(group: list[Delivery], need: str, routes: PushRoutes, on_duty: list[str]) -> Push:
    """The push for the messages of `group`, in the words of the newest."""
    newest = group[-1]
    message = newest.message or {}
    player_id, text = message["player_id"], message["message"]
    if need == "staff":
        recipients, kind = on_duty, PLAYER_MESSAGE
        fallback = message.get("player_name") or routes.player_title.format(player_id=player_id)
    else:
        recipients, kind = [routes.player_external_id.format(player_id=player_id)], STAFF_MESSAGE
        fallback = routes.staff_title
    title = message["sender_name"] or fallback
    words = [routes.texts.format(count=len(group))] if len(group) > 1 else []
    if routes.preview > 0:
        words.append(text[: routes.preview] + ("…" if len(text) > routes.preview else ""))
    body = ": ".join(words) or routes.text
    data: Json = {key: message[key] for key in ("session_id", "player_id", "seq")}
    data |= {"message_id": message["id"], "type": kind}
    row: Json = {
        "delivery_id": newest.id,
        "message_id": message["id"],
        "audience": need,
        "recipients": recipients,
        "title": title,
        "body": body,
        "data": data,
    }
    collapse_id = f"gre-{message['session_id']}"[:64]  # the longest that OneSignal takes
    return Push(_body(newest, routes, recipients, title, body, data) | {"collapse_id": collapse_id}, row)


def _queued(delivery: Delivery, routes: PushRoutes, on_duty: list[str]) -> Push:
    """The push that a row asks for; an empty list means nobody, only a missing one the staff on duty."""
    push = delivery.push or {}
    if push.get("recipients") is not None:
        recipients = _distinct(str(recipient) for recipient in push["recipients"])
    else:
        recipients = on_duty if push.get("audience") == "staff" else []
    title = push.get("title")
    body = _body(delivery, routes, recipients, title, push.get("body") or title, push.get("data"))
    return Push(body, {"push_id": push["id"]})


def _body(
    delivery: Delivery,
    routes: PushRoutes,
    recipients: list[str],
    title: str | None,
    text: str | None,
    data: Any,
) -> Json:
    body: Json = {
        "target_channel": "push",
        "include_aliases": {"external_id": recipients},
        "contents": {"en": _literal(text or routes.text)},
        "ttl": int(routes.ttl),
        "idempotency_key": delivery.id,
    }
    if title:
        body["headings"] = {"en": _literal(title)}
    if data:
        body["data"] = data
    return body


def _literal(text: str) -> str:
    """Text that OneSignal shows as it is.

    OneSignal renders headings and contents as Liquid (its documentation, "Using Liquid syntax") and knows no way to
    escape it. An invisible character parts what would open a tag, so it reads the same wherever it is shown.
    """
    return _LIQUID.sub("{\u2060", text) if "{" in text else text


def _distinct(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _encode(value: Any) -> str:
    """Compact ASCII JSON; the package that sends it to Pusher measures text that is not ASCII wrongly."""
    try:
        data = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _encode_ascii(value)
    # orjson knows only UTF-8, but takes a tenth of the time for the many messages that are ASCII anyway.
    return data.decode() if data.isascii() else _encode_ascii(value)


def _unknown(delivery: Delivery) -> PermanentError:
    return PermanentError(f"unknown event {delivery.event!r:.60}")


def _incomplete(delivery: Delivery, missing: KeyError) -> PermanentError:
    # A lane that cannot be read must not take the whole claim down with it.
    return PermanentError(f"the claim gave a {delivery.event} event without {missing}")


def _filled(template: str, **values: Any) -> str:
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise ConfigurationError(
            f"{template!r} may hold no placeholder but {{{next(iter(values))}}}"
        ) from exc
