"""Routing: channels and recipients, formats and sizes of events and pushes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gre_bridge.db.types import Delivery, Lane
from gre_bridge.errors import ConfigurationError, PermanentError
from gre_bridge.relay.routing.onesignal import MAX_RECIPIENTS, PushRoutes, route_onesignal
from gre_bridge.relay.routing.pusher import PUSHER_LIMIT, PusherRoutes, route_pusher
from gre_bridge.sinks.base import Push, PusherEvent, SinkRecord

SESSION = "8d3c7f0e-94ad-4c5e-9d58-1f6b7a3f5c11"
STAFF = (("s1", False), ("s2", True), ("s3", True))


def message(seq: int = 12, sender: str = "player", **changes: Any) -> dict[str, Any]:
    return {
        "id": f"m{seq}",
        "session_id": SESSION,
        "seq": seq,
        "player_id": 29,
        "player_name": "Ana",
        "message": "Hello",
        "sender": sender,
        "sender_name": "Ana" if sender == "player" else "Marek",
        "status": "sent",
        "timestamp": "2025-08-05T17:08:14.171Z",
        **changes,
    }


def delivery(n: int = 1, event: Any = "message", age: float = 0.01, **parts: Any) -> Delivery:
    return Delivery(id=f"d{n}", ord=n, event=event, attempts=0, age=age, **parts)


def said(n: int, sender: str = "player", age: float = 0.01, **changes: Any) -> Delivery:
    return delivery(n, age=age, message=message(n, sender, **changes))


def lane(*deliveries: Delivery) -> Lane:
    return Lane(SESSION, deliveries)


def events(record: SinkRecord) -> list[PusherEvent]:
    assert record.error is None
    return [payload for payload in record.payloads if isinstance(payload, PusherEvent)]


def pushed(record: SinkRecord) -> Push:
    (push,) = record.payloads
    assert isinstance(push, Push)
    return push


def event_data(one: Delivery, routes: PusherRoutes | None = None) -> dict[str, Any]:
    """Return the data of a delivery's events, which are equal."""
    (record,) = route_pusher(lane(one), routes or PusherRoutes())
    (data,) = {event.data for event in events(record)}
    assert data.isascii()
    assert len(data) <= PUSHER_LIMIT
    said: dict[str, Any] = json.loads(data)
    return said


# Pusher


def test_a_players_message_has_the_portals_format() -> None:
    (record,) = route_pusher(lane(said(12)), PusherRoutes())
    assert (record.lane_key, record.deliveries) == (SESSION, ("d12",))
    (event,) = events(record)
    assert (event.channel, event.name) == ("staff-portal", "new-player-message")
    assert json.loads(event.data) == {
        "id": "m12",
        "message": "Hello",
        "sender": "player",
        "sender_name": "Ana",
        "player_id": 29,
        "timestamp": "2025-08-05T17:08:14.171Z",
        "status": "sent",
        "session_id": SESSION,
        "seq": 12,
    }


@pytest.mark.parametrize("sender", ["staff", "system"])
def test_messages_of_staff_and_system_are_sent_to_private_channels_only(sender: str) -> None:
    (record,) = route_pusher(lane(said(1, sender)), PusherRoutes())
    assert [(e.channel, e.name) for e in events(record)] == [
        ("private-staff-portal", "new-staff-message"),
        ("private-player-29", "new-staff-message"),
    ]


def test_the_status_is_always_sent_and_no_other_column_of_the_row() -> None:
    data = event_data(said(1, status="read", metadata={"hush": 1}))
    assert data["status"] == "sent"
    assert "hush" not in json.dumps(data)


def test_a_session_is_sent_unchanged() -> None:
    session = {"id": SESSION, "player_id": 29, "status": "active", "last_message": None, "rev": 3}
    (record,) = route_pusher(lane(delivery(event="session", session=session)), PusherRoutes())
    assert [e.channel for e in events(record)] == ["private-staff-portal", "private-player-29"]
    assert {e.name for e in events(record)} == {"session-updated"}
    assert json.loads(events(record)[0].data) == {"session": session}


def test_a_sessions_last_message_is_cut_to_fit() -> None:
    session = {"id": SESSION, "player_id": 29, "last_message": "😀" * 4000}
    data = event_data(delivery(event="session", session=session))
    assert data.keys() == {"session"}
    assert 800 < len(data["session"]["last_message"]) < 4000
    assert session["last_message"] == "😀" * 4000, "the claim is not changed"


def test_read_events_carry_four_keys() -> None:
    kept = {
        "session_id": SESSION, "player_id": 29, "by": "staff", "up_to_seq": 7,
        "timestamp": "2025-08-05T17:08:14.171Z",
    }  # fmt: skip
    (record,) = route_pusher(lane(delivery(event="read", data=kept)), PusherRoutes())
    assert [(e.channel, e.name) for e in events(record)] == [
        ("private-staff-portal", "messages-read"),
        ("private-player-29", "messages-read"),
    ]
    del kept["player_id"]
    assert json.loads(events(record)[0].data) == kept


def test_a_transfer_goes_to_channels_of_staff_alone_and_to_no_phone() -> None:
    kept = {"session_id": SESSION, "from": "s1", "to": "s2", "by": "s1"}
    one = lane(delivery(event="transfer", data=kept))
    (record,) = route_pusher(one, PusherRoutes(desk_channels=("private-desk", "presence-staff")))
    assert [(e.channel, e.name) for e in events(record)] == [
        ("private-desk", "session-transferred"),
        ("presence-staff", "session-transferred"),
    ]
    assert json.loads(events(record)[0].data) == kept
    (push,) = route_onesignal(one, PushRoutes(), STAFF)
    assert (push.payloads, push.error) == ((), None)


@pytest.mark.parametrize("channel", ["staff-portal", "private-player-{player_id}", "private-player-29", ""])
def test_a_channel_that_others_than_staff_may_hear_is_refused_at_start(channel: str) -> None:
    with pytest.raises(ConfigurationError):
        PusherRoutes(desk_channels=("private-staff-portal", channel))


def test_channels_are_configurable_and_may_be_several() -> None:
    routes = PusherRoutes(player_channels=("staff-portal", "private-staff-portal", "p-{player_id}"))
    (record,) = route_pusher(lane(said(1)), routes)
    assert [e.channel for e in events(record)] == ["staff-portal", "private-staff-portal", "p-29"]


@pytest.mark.parametrize(
    "channel", ["", "a b", "#server", "x" * 201, "p-{playerId}", "p-{}", "p-{", "private-encrypted-x", "a\n"]
)
def test_channels_that_pusher_refuses_are_refused_at_start(channel: str) -> None:
    with pytest.raises(ConfigurationError):
        PusherRoutes(staff_channels=("private-staff-portal", channel))


def test_late_and_replayed_are_sent_only_if_true() -> None:
    assert "late" not in event_data(said(1, age=30.0))
    assert event_data(said(1, age=30.1))["late"] is True
    replay = delivery(message=message(), data={"replayed": True})
    assert event_data(replay)["replayed"] is True
    assert (
        event_data(delivery(message=message(), data={"replayed": False}))
        .keys()
        .isdisjoint({"replayed", "late", "truncated"})
    )


@settings(max_examples=80, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=4000))
@example(text="x" * 4000)
@example(text="😀" * 4000)
@example(text="é" * 4000)
@example(text="\x01" * 4000)
@example(text='"\\' * 2000)
@example(text="a" + "😀" * 830)
@example(text="ab" + "é" * 1700 + "😀" * 100)
def test_a_long_text_is_cut_to_the_longest_prefix_that_fits(text: str) -> None:
    full = event_data(said(1, message="")) | {"message": text}
    size = len(json.dumps(full, separators=(",", ":")))
    data = event_data(said(1, message=text))
    if size <= PUSHER_LIMIT:
        assert data == full
        return
    kept = data["message"]
    assert data == full | {"message": kept, "truncated": True}
    assert text.startswith(kept)
    longer = data | {"message": text[: len(kept) + 1]}
    assert len(json.dumps(longer, separators=(",", ":"))) > PUSHER_LIMIT


def test_a_text_that_just_fits_is_whole_and_one_more_letter_is_cut() -> None:
    room = PUSHER_LIMIT - len(json.dumps(event_data(said(1, message="")), separators=(",", ":")))
    assert event_data(said(1, message="x" * room))["message"] == "x" * room
    cut = event_data(said(1, message="x" * (room + 1)))
    assert cut["truncated"] is True
    assert len(cut["message"]) == room - len(',"truncated":true')


def test_an_event_that_no_cut_makes_fit_is_an_error() -> None:
    (record,) = route_pusher(lane(said(1, sender_name="😀" * 1000)), PusherRoutes())
    assert isinstance(record.error, PermanentError)
    assert "😀" not in str(record.error)


def test_the_order_is_kept_and_a_bad_delivery_affects_no_other() -> None:
    gone, foreign = delivery(2), delivery(3, event="typing", data={"message": "hush"})
    broken = delivery(4, event="read", data={"player_id": 29})
    records = route_pusher(lane(said(1), gone, foreign, broken, said(5)), PusherRoutes())
    assert [p.deliveries for p in records] == [("d1",), ("d2",), ("d3",), ("d4",), ("d5",)]
    assert [len(p.payloads) for p in records] == [1, 0, 0, 0, 1]
    assert [p.error is not None for p in records] == [False, False, True, True, False]
    assert str(records[2].error) == "unknown event 'typing'"
    assert "hush" not in str(records[2].error)


def noted(text: str = "Has asked twice. kakapo") -> Delivery:
    note = {
        "id": "n1",
        "session_id": SESSION,
        "n": 1,
        "after_seq": 3,
        "staff_id": "s1",
        "staff_name": "Marek",
        "text": text,
    }
    return delivery(1, "note", note=note, data={"note_id": "n1"})


def test_a_note_goes_to_the_channels_of_staff_alone() -> None:
    (record,) = route_pusher(lane(noted()), PusherRoutes(desk_channels=("private-desk", "presence-desk")))
    assert [(e.channel, e.name) for e in events(record)] == [
        ("private-desk", "session-note"),
        ("presence-desk", "session-note"),
    ]
    assert event_data(noted()) == {"note": noted().note}
    long = event_data(noted("ü" * 4000))
    assert long["truncated"] is True and long["note"]["text"] == "ü" * len(long["note"]["text"])
    (record,) = route_pusher(lane(delivery(1, "note", data={"note_id": "n1"})), PusherRoutes())
    assert (record.payloads, record.error) == ((), None), "erased meanwhile"
    (push,) = route_onesignal(lane(noted()), PushRoutes(), STAFF)
    assert (push.payloads, push.receipts, push.error) == ((), (), None)


@pytest.mark.parametrize(
    "name", ["staff-portal", "private-player-{player_id}", "private-player-29", "presence-{player_id}"]
)
def test_a_channel_that_others_may_hear_is_refused_for_what_only_staff_may_receive(name: str) -> None:
    with pytest.raises(ConfigurationError, match="staff"):
        PusherRoutes(desk_channels=("private-staff-portal", name))


# OneSignal


def test_a_players_message_is_pushed_to_the_staff_that_are_online() -> None:
    (record,) = route_onesignal(lane(said(12)), PushRoutes(), STAFF)
    push = pushed(record)
    assert push.body == {
        "target_channel": "push",
        "include_aliases": {"external_id": ["s2", "s3"]},
        "headings": {"en": "Ana"},
        "contents": {"en": "New message"},
        "data": {
            "message_id": "m12", "session_id": SESSION, "player_id": 29, "seq": 12, "type": "new-player-message",
        },
        "collapse_id": f"gre-{SESSION}",
        "ttl": 86400,
        "idempotency_key": "d12",
    }  # fmt: skip
    assert isinstance(push.body["ttl"], int)
    assert len(push.body["collapse_id"]) <= 64
    assert push.row == {
        "delivery_id": "d12",
        "message_id": "m12",
        "audience": "staff",
        "recipients": ["s2", "s3"],
        "title": "Ana",
        "body": "New message",
        "data": push.body["data"],
    }


def test_all_active_staff_get_a_push_if_none_is_online() -> None:
    routes = PushRoutes(staff_external_id="staff-{staff_id}")
    (record,) = route_onesignal(lane(said(1)), routes, (("s1", False), ("s2", False)))
    assert pushed(record).row["recipients"] == ["staff-s1", "staff-s2"]


def test_without_staff_nothing_is_sent_and_a_row_records_it() -> None:
    (record,) = route_onesignal(lane(said(1)), PushRoutes(), ())
    assert record.payloads == ()
    assert record.error is None
    (row,) = record.receipts
    assert (row["delivery_id"], row["status"], row["recipients"]) == ("d1", "no_recipients", [])


@pytest.mark.parametrize("sender", ["staff", "system"])
def test_a_staff_message_is_pushed_to_its_player(sender: str) -> None:
    (record,) = route_onesignal(lane(said(1, sender)), PushRoutes(player_external_id="p{player_id}"), STAFF)
    push = pushed(record)
    assert push.body["include_aliases"] == {"external_id": ["p29"]}
    assert push.body["headings"] == {"en": "Marek"}
    assert push.body["data"]["type"] == "new-staff-message"
    assert push.row["audience"] == "player"


def test_an_auto_reply_says_so_and_is_pushed_only_if_its_rule_says_so() -> None:
    quiet = delivery(1, message=message(1, "system", auto=True))
    pushing = delivery(2, message=message(2, "system", auto=True), data={"push": True})
    replayed = delivery(3, message=message(3, "system", auto=True), data={"replayed": True})
    assert event_data(quiet)["auto"] is True
    assert "auto" not in event_data(said(4, auto=False))
    records = route_onesignal(lane(quiet, pushing, replayed), PushRoutes(), STAFF)
    assert [(record.deliveries, len(record.payloads), record.error) for record in records] == [
        (("d1",), 0, None), (("d2",), 1, None), (("d3",), 0, None),
    ]  # fmt: skip


def test_a_player_that_is_reading_gets_no_push() -> None:
    (record,) = route_onesignal(lane(said(1, "staff", status="read")), PushRoutes(), STAFF)
    assert (record.payloads, record.receipts, record.error) == ((), (), None)
    assert pushed(route_onesignal(lane(said(1, "staff", status="delivered")), PushRoutes(), STAFF)[0])
    assert pushed(route_onesignal(lane(said(1, "player", status="read")), PushRoutes(), STAFF)[0])


def test_the_shown_text_follows_the_setting() -> None:
    secret = said(1, message="the PIN is 1234")
    (record,) = route_onesignal(lane(secret), PushRoutes(), STAFF)
    assert "PIN" not in json.dumps([pushed(record).body, pushed(record).row])
    (record,) = route_onesignal(lane(secret), PushRoutes(preview=7), STAFF)
    assert pushed(record).body["contents"] == {"en": "the PIN…"}
    assert "1234" not in json.dumps([pushed(record).body, pushed(record).row])
    (record,) = route_onesignal(lane(secret), PushRoutes(preview=15), STAFF)
    assert pushed(record).body["contents"] == {"en": "the PIN is 1234"}


def test_a_sender_without_a_name_gets_a_default_title() -> None:
    def title(one: Delivery) -> str:
        heading: str = pushed(route_onesignal(lane(one), PushRoutes(), STAFF)[0]).body["headings"]["en"]
        return heading

    assert title(said(1, sender_name=None)) == "Ana"
    assert title(said(1, sender_name=None, player_name=None)) == "Player 29"
    assert title(said(1, "system", sender_name="")) == "Guest relations"


def test_fresh_messages_are_pushed_one_by_one() -> None:
    records = route_onesignal(lane(said(1), said(2), said(3)), PushRoutes(), STAFF)
    assert [pushed(p).body["idempotency_key"] for p in records] == ["d1", "d2", "d3"]


def test_a_late_lane_is_merged_into_one_push_with_the_newest_text() -> None:
    late = lane(said(1, age=40), said(2, age=35), said(3, age=1, sender_name="Anna"))
    (record,) = route_onesignal(late, PushRoutes(), STAFF)
    assert record.deliveries == ("d1", "d2", "d3")
    push = pushed(record)
    assert push.body["headings"] == {"en": "Anna"}
    assert push.body["contents"] == {"en": "3 new messages"}
    assert push.body["idempotency_key"] == "d3"
    assert (push.row["delivery_id"], push.row["message_id"]) == ("d3", "m3")
    (record,) = route_onesignal(late, PushRoutes(preview=3), STAFF)
    assert pushed(record).body["contents"] == {"en": "3 new messages: Hel…"}


def test_a_late_conversation_is_one_push_for_each_side_in_order() -> None:
    late = lane(
        said(1, age=50),
        said(2, "staff", age=49, status="read"),
        said(3, age=48),
        said(4, "staff", age=47),
        delivery(5, event="read", age=46, data={"by": "staff"}),
        said(6, age=45),
    )
    records = route_onesignal(late, PushRoutes(), STAFF)
    assert [p.deliveries for p in records] == [("d2",), ("d4",), ("d5",), ("d1", "d3", "d6")]
    assert [p.payloads == () for p in records] == [True, False, True, False]
    assert [pushed(p).row["audience"] for p in (records[1], records[3])] == ["player", "staff"]


def test_a_replay_is_merged_too() -> None:
    replay = [delivery(n, message=message(n), data={"replayed": True}) for n in range(1, 200)]
    (record,) = route_onesignal(lane(*replay), PushRoutes(), STAFF)
    assert len(record.deliveries) == 199


def test_too_old_messages_expire_with_a_row_and_the_rest_is_sent() -> None:
    old = lane(said(1, age=900), said(2, age=700), said(3, age=500))
    expired, fresh = route_onesignal(old, PushRoutes(max_age=600), STAFF)
    assert (expired.expired, expired.deliveries, expired.payloads) == (True, ("d1", "d2"), ())
    (row,) = expired.receipts
    assert (row["delivery_id"], row["status"]) == ("d2", "expired")
    assert (fresh.expired, fresh.deliveries) == (False, ("d3",))


def test_an_expired_message_that_was_read_is_done() -> None:
    (record,) = route_onesignal(lane(said(1, "staff", age=9999, status="read")), PushRoutes(), STAFF)
    assert (record.expired, record.receipts) == (False, ())


def queued(age: float = 0.1, **row: Any) -> Lane:
    push = {
        "id": 7, "audience": "player", "recipients": None, "title": "Hi", "body": "Your table is free",
        "data": {"table": 4}, "message_id": None, **row,
    }  # fmt: skip
    return Lane("push:7", (delivery(event="push", age=age, push=push),))


def test_a_queued_push_is_sent_to_its_recipients() -> None:
    (record,) = route_onesignal(queued(recipients=["player_1", "player_2", "player_1"]), PushRoutes(), STAFF)
    push = pushed(record)
    assert push.body == {
        "target_channel": "push",
        "include_aliases": {"external_id": ["player_1", "player_2"]},
        "headings": {"en": "Hi"},
        "contents": {"en": "Your table is free"},
        "data": {"table": 4},
        "ttl": 86400,
        "idempotency_key": "d1",
    }
    assert push.row == {"push_id": 7}


def test_a_queued_push_without_recipients_is_sent_to_its_audience() -> None:
    (record,) = route_onesignal(queued(audience="staff"), PushRoutes(), STAFF)
    assert pushed(record).body["include_aliases"] == {"external_id": ["s2", "s3"]}


@pytest.mark.parametrize(
    "row", [{"audience": "player"}, {"audience": "staff", "recipients": []}, {"audience": None}]
)
def test_a_queued_push_without_any_recipient_is_recorded(row: dict[str, Any]) -> None:
    (record,) = route_onesignal(queued(**row), PushRoutes(), STAFF)
    assert record.payloads == ()
    assert record.receipts == ({"push_id": 7, "status": "no_recipients", "provider_id": None, "error": None},)


def test_a_queued_push_may_lack_title_text_and_data() -> None:
    (record,) = route_onesignal(
        queued(recipients=["a"], title=None, body=None, data=None), PushRoutes(), STAFF
    )
    body = pushed(record).body
    assert body["contents"] == {"en": "New message"}
    assert body.keys().isdisjoint({"headings", "data"})


def test_a_queued_push_that_is_too_old_or_has_too_many_recipients_is_recorded() -> None:
    (old,) = route_onesignal(queued(age=601, audience="staff"), PushRoutes(max_age=600), STAFF)
    assert old.expired
    assert old.receipts[0]["status"] == "expired"
    crowd = [f"p{n}" for n in range(MAX_RECIPIENTS + 1)]
    (wide,) = route_onesignal(queued(recipients=crowd), PushRoutes(), STAFF)
    assert isinstance(wide.error, PermanentError)
    assert wide.receipts[0]["status"] == "failed"
    (full,) = route_onesignal(queued(recipients=crowd[1:]), PushRoutes(), STAFF)
    assert len(pushed(full).body["include_aliases"]["external_id"]) == MAX_RECIPIENTS


def test_events_without_a_push_are_done_and_unknown_events_are_errors() -> None:
    records = route_onesignal(
        lane(
            delivery(1, event="session", session={"player_id": 29}),
            delivery(2, event="read", data={"player_id": 29}),
            delivery(3),
            delivery(4, event="push"),
            delivery(5, event="typing", message=message()),
            delivery(6, message={"sender": "player"}),
        ),
        PushRoutes(),
        STAFF,
    )
    assert [p.payloads for p in records] == [()] * 6
    assert [p.receipts for p in records] == [()] * 6
    assert [p.error is not None for p in records] == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    "wrong", [{"player_external_id": "p_{id}"}, {"staff_external_id": "{}"}, {"texts": "{n} new"}]
)
def test_templates_with_unknown_placeholders_are_refused_at_start(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        PushRoutes(**wrong)  # type: ignore[arg-type]


# Both


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["player", "staff", "gone", "session", "read", "typing"]),
            st.sampled_from(["sent", "read"]),
            st.floats(0, 1000),
        ),
        max_size=20,
    )
)
def test_every_delivery_is_in_exactly_one_record(rows: list[tuple[str, str, float]]) -> None:
    deliveries = []
    for n, (kind, status, age) in enumerate(sorted(rows, key=lambda row: -row[2])):
        if kind in ("player", "staff"):
            deliveries.append(said(n, kind, age, status=status))
        else:
            deliveries.append(delivery(n, event="message" if kind == "gone" else kind, age=age))
    ids = [d.id for d in deliveries]
    routed = route_pusher(lane(*deliveries), PusherRoutes())
    assert [d for record in routed for d in record.deliveries] == ids
    pushes = route_onesignal(lane(*deliveries), PushRoutes(max_age=600), STAFF)
    assert sorted(d for record in pushes for d in record.deliveries) == sorted(ids)
    ends = [ids.index(record.deliveries[-1]) for record in pushes]
    assert ends == sorted(ends)
    for record in pushes:
        assert not (record.payloads and (record.expired or record.error))
        assert len(record.deliveries) == 1 or record.payloads or record.receipts


LIQUID = [
    "{{ subscription.email }}",
    "{% for i in (1..9999) %}x{% endfor %}",
    "{{{{ }}",
    "a {%raw%} b",
    "{{- x -}}{%- y -%}",
    "{% raw %}{{ x }}{% endraw %}",
]


@pytest.mark.parametrize("text", LIQUID)
def test_names_and_texts_are_no_templates_at_onesignal(text: str) -> None:
    """OneSignal renders headings and contents as Liquid: the phone must show what was typed."""
    one = said(1, sender_name=text, message=text)
    row = queued(title=text, body=text, audience="staff")
    late = lane(said(1, age=99, message="x"), said(2, age=99, message=text, sender_name=text))
    for asked in (lane(one), row, late):
        (record,) = route_onesignal(asked, PushRoutes(preview=200), STAFF)
        push = pushed(record)
        for shown in (push.body["headings"]["en"], push.body["contents"]["en"]):
            assert "{{" not in shown and "{%" not in shown
            assert shown.replace("\u2060", "").endswith(text), "it is displayed unchanged"
    (record,) = route_onesignal(lane(one), PushRoutes(preview=200), STAFF)
    assert pushed(record).row["title"] == text, "the receipt has the typed text"


@pytest.mark.parametrize("text", ["{ x }", "100 % {}", "}} %}", "{ {", "plain"])
def test_a_text_without_a_tag_is_not_changed(text: str) -> None:
    (record,) = route_onesignal(lane(said(1, sender_name=text)), PushRoutes(), STAFF)
    assert pushed(record).body["headings"]["en"] == text


# Files

PHOTO = {"id": "f1", "kind": "image", "name": "passport.jpg", "url": "https://p.supabase.co/x?token=secret"}
FILE = {"id": "f2", "kind": "file", "name": "account.pdf"}


def test_an_event_has_ids_and_kinds_of_files_only() -> None:
    data = event_data(said(1, attachments=[PHOTO, FILE]))
    assert data["attachments"] == [{"id": "f1", "kind": "image"}, {"id": "f2", "kind": "file"}]
    assert "passport" not in json.dumps(data) and "token=" not in json.dumps(data)
    assert "attachments" not in event_data(said(1))
    long = event_data(said(1, message="é" * 4000, attachments=[PHOTO] * 5))
    assert long["truncated"] and len(long["attachments"]) == 5


@pytest.mark.parametrize(
    ("text", "files", "shown"),
    [
        ("📷 Photo", [PHOTO], "sent a photo"),
        ("📎 File", [FILE], "sent a file"),
        ("📷 2 photos", [PHOTO, PHOTO], "sent 2 photos"),
        ("📎 2 files", [PHOTO, FILE], "sent 2 files"),
        ("Look", [PHOTO], "sent a photo: Look"),
        ("📷 Photo of table 4", [PHOTO], "sent a photo: 📷 Photo o…"),
        ("📷 Photo", [], "📷 Photo"),
    ],
)
def test_a_push_tells_of_files_only_where_it_shows_text(
    text: str, files: list[dict[str, str]], shown: str
) -> None:
    one = said(1, message=text, **({"attachments": files} if files else {}))
    (record,) = route_onesignal(lane(one), PushRoutes(), STAFF)
    assert pushed(record).body["contents"] == {"en": "New message"}
    assert "f1" not in json.dumps([pushed(record).body, pushed(record).row])
    (record,) = route_onesignal(lane(one), PushRoutes(preview=9), STAFF)
    assert pushed(record).body["contents"] == {"en": shown}
    assert "passport" not in json.dumps([pushed(record).body, pushed(record).row])
