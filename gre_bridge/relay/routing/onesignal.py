"""Turns the deliveries of a claimed lane into OneSignal pushes: pure functions.

No clock, no I/O, no state: a delivery's age comes from the database. The recipients and the text of a push are decided
here; how it is sent is the business of `gre_bridge.sinks.onesignal`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gre_bridge.db.types import Delivery, Json, Lane
from gre_bridge.errors import PermanentError
from gre_bridge.relay.routing.events import (
    PLAYER_MESSAGE,
    STAFF_MESSAGE,
    fill_template,
    incomplete_event,
    unknown_event,
)
from gre_bridge.sinks.base import Push, SinkRecord, receipt

MAX_RECIPIENTS = 20_000
"""External ids in one push (OneSignal's documentation)."""

_WITHOUT_TEXT = re.compile("(?:📷|📎) (?:[2-5] )?(?:Photo|File|photo|file)s?")
"""The text that the database gives to a message that has files only (`gre.files_text`)."""
_LIQUID = re.compile(r"\{(?=[{%])")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRoutes:
    """Recipients and text of pushes.

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
            fill_template(template, player_id=1)
        fill_template(self.staff_external_id, staff_id="s1")
        fill_template(self.texts, count=2)


def route_onesignal(lane: Lane, routes: PushRoutes, staff: Sequence[tuple[str, bool]]) -> list[SinkRecord]:
    """One push per record; `staff` are the active staff as (staff_id, is online).

    When the head of the lane is late, or replayed, the lane's messages to the same audience merge into
    one push, even if messages to the other audience are between them: else a conversation during an outage
    would cause a push for each line. Sink records are in the order of their last deliveries, so pushes of a session
    still arrive in order. Session and read events, a message that is gone, one the player has read, and an auto-reply
    without `push` need no push.
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
        _push_record(lane.key, need, group, expired, routes, on_duty)
        for (need, expired, _), group in sorted(groups.items(), key=lambda item: item[1][-1].ord)
    ]


def _need(delivery: Delivery) -> str:
    """Return a delivery's audience: "staff", "player", "push" (a queued one), "" (nobody), "unknown" or "fault"."""
    if delivery.fault:
        return "fault"
    match delivery.event:
        case "message":
            if (message := delivery.message) is None:
                return ""
            if message.get("sender") == "player":
                return "staff"
            if message.get("auto") and delivery.data.get("push") is not True:
                return ""  # an auto-reply, whose rule asks for no push
            return "" if message.get("status") == "read" else "player"
        case "push":
            return "push" if delivery.push else ""
        case "session" | "transfer" | "read" | "note":
            return ""
        case _:
            return "unknown"


def _push_record(
    lane_key: str, need: str, group: list[Delivery], expired: bool, routes: PushRoutes, on_duty: list[str]
) -> SinkRecord:
    payloads: tuple[Push, ...] = ()
    receipts: tuple[Json, ...] = ()
    error = None
    try:
        if need == "unknown":
            error = unknown_event(group[-1])
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
        error = incomplete_event(group[-1], exc)
    return SinkRecord(
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
    player_id = message["player_id"]
    if need == "staff":
        recipients, kind = on_duty, PLAYER_MESSAGE
        fallback = message.get("player_name") or routes.player_title.format(player_id=player_id)
    else:
        recipients, kind = [routes.player_external_id.format(player_id=player_id)], STAFF_MESSAGE
        fallback = routes.staff_title
    title = message["sender_name"] or fallback
    words = [routes.texts.format(count=len(group))] if len(group) > 1 else []
    if routes.preview > 0:
        words.append(_preview(message, routes.preview))
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


def _preview(message: Json, most: int) -> str:
    """Return the beginning of a message's text, after what was sent with it."""
    text: str = message["message"]
    shown = text[:most] + ("…" if len(text) > most else "")
    if not (files := message.get("attachments")):
        return shown
    kind = "photo" if all(file["kind"] == "image" for file in files) else "file"
    sent = f"sent a {kind}" if len(files) == 1 else f"sent {len(files)} {kind}s"
    return sent if _WITHOUT_TEXT.fullmatch(text) else f"{sent}: {shown}"


def _queued(delivery: Delivery, routes: PushRoutes, on_duty: list[str]) -> Push:
    """Return the push of a queued row. An empty list of recipients means nobody, a missing list the staff on duty."""
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
    escape it. An invisible character separates the two characters that would open a tag, so it reads the same wherever it is shown.
    """
    return _LIQUID.sub("{\u2060", text) if "{" in text else text


def _distinct(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]
