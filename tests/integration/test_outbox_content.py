"""The content of one row, or a lock on it, affects its own delivery only: the rest of a claim or settle is processed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gre_bridge.db.types import Claim
from tests.conftest import STAFF, Database
from tests.integration.test_outbox import all_done, claim, one, send, settle

Conn = psycopg.Connection[dict[str, Any]]
DEEP = "[" * 3000 + "]" * 3000


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as connection:
        yield connection


def queue(conn: Conn, data: str = "{}", title: str = "t", recipients: list[str] | None = None) -> str:
    """Queue a push; return its id."""
    return str(
        one(
            conn,
            "insert into push_notifications (audience, recipients, title, body, data, status) "
            "values ('staff', %s, %s, 'b', %s::jsonb, 'queued') returning id",
            recipients or ["s1"],
            title,
            data,
        )
    )


def without_bounds(conn: Conn) -> None:
    """Remove the limits: a table from before them may have rows of any size."""
    conn.execute("alter table push_notifications disable trigger gre_3_check_size")


def faults(got: dict[str, Any]) -> dict[str, str]:
    """Return by push why it cannot be sent, empty if it can; from the answer of a claim."""
    raw = {key: value for key, value in got.items() if key != "token"}
    read = Claim.from_json(got["token"], json.loads(json.dumps(raw)))
    return {d.push["id"]: d.fault for lane in read.lanes for d in lane.deliveries if d.push is not None}


@pytest.mark.parametrize(
    ("columns", "values", "code"),
    [
        ("title", "'t'", "audience_unknown"),
        ("title, audience", "'t', 'players'", "audience_unknown"),
        ("title, audience", "'t', 'player'", "recipients_missing"),
        ("title, audience, recipients", "'t', 'player', '{}'", "recipients_missing"),
    ],
)
def test_a_push_without_recipients_is_refused_at_the_insert(
    conn: Conn, columns: str, values: str, code: str
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        conn.execute(f"insert into push_notifications ({columns}) values ({values})".encode())
    assert (refused.value.sqlstate, refused.value.diag.message_hint) == ("PT400", code)
    assert one(conn, "select count(*) from push_notifications") == 0
    # The bridge finds the staff on duty, and a row that is not queued is a record.
    conn.execute("insert into push_notifications (audience, title) values ('staff', 't')")
    conn.execute("insert into push_notifications (title, status) values ('t', 'sent')")


@pytest.mark.parametrize("data", ['{"n": 1e400}', f'{{"deep": {DEEP}}}', f'{{"n": {"9" * 400}}}'])
def test_a_push_whose_data_cannot_be_read_fails_alone(conn: Conn, data: str) -> None:
    bad, good = queue(conn, data), queue(conn, '{"a": 1}')
    found = faults(claim(conn, "onesignal"))
    assert found[good] == ""
    assert "its data cannot be sent" in found[bad]


@pytest.mark.parametrize(
    ("data", "title", "recipients"),
    [
        (json.dumps({"x": "y" * 20_000}), "t", None),
        ("[" + ",".join(["1e131071"] * 100) + "]", "t", None),
        ("{}", "t" * 5000, None),
        ("{}", "t", ["r" * 100] * 20_000),
    ],
)
def test_a_push_that_is_too_large_is_refused_where_it_is_queued(
    conn: Conn, data: str, title: str, recipients: list[str] | None
) -> None:
    with pytest.raises(psycopg.Error, match="the push cannot be queued: its") as refused:
        queue(conn, data, title, recipients)
    assert refused.value.sqlstate == "PT400"
    good = queue(conn)
    with pytest.raises(psycopg.Error, match="cannot be queued"):
        conn.execute("update push_notifications set title = repeat('t', 5000) where id::text = %s", [good])


def test_a_push_of_70_mb_from_before_the_limits_blocks_no_other(conn: Conn) -> None:
    without_bounds(conn)
    conn.execute(
        "insert into push_notifications (audience, recipients, title, body, data, status) "
        "values ('staff', '{s1}', 't', 'b', jsonb_build_object('x', repeat('0123456789', 7000000)), 'queued')"
    )
    queue(conn, "[" + ",".join(["1e131071"] * 1000) + "]")
    queue(conn, title="x" * 1_000_000)
    good = queue(conn)
    began = time.monotonic()
    found = faults(claim(conn, "onesignal"))
    assert time.monotonic() - began < 30
    assert found.pop(good) == ""
    assert sorted(found.values()) == [
        "the push cannot be sent: its data is larger than 16 KB",
        "the push cannot be sent: its data is larger than 16 KB",
        "the push cannot be sent: its title is larger than 4,000 bytes or its body than 16,000",
    ]


def test_a_claim_reads_8_mb_at_most_and_frees_the_other_lanes(conn: Conn) -> None:
    pushes = {queue(conn, recipients=["r" * 100] * 10_000) for _ in range(12)}
    first = claim(conn, "onesignal")
    assert 8 <= len(first["lanes"]) < 12
    assert first["next_in"] == 0
    assert one(conn, "select count(*) from gre_relay_lanes where lease_token is not null") == len(
        first["lanes"]
    )
    second = claim(conn, "onesignal")
    assert set(faults(first)) | set(faults(second)) == pushes
    assert not set(faults(first)) & set(faults(second))


def test_a_text_without_a_limit_from_an_old_portal_is_cut_in_the_claim(conn: Conn) -> None:
    row = send(conn)
    conn.execute("alter table gre_chat_messages disable trigger user")
    conn.execute("alter table gre_chat_messages drop constraint gre_chat_messages_text_size", prepare=False)
    conn.execute("update gre_chat_messages set message = repeat('x', 5000000) where id = %s", [row["id"]])
    got = claim(conn)
    (told,) = [d["message"] for lane in got["lanes"] for d in lane["deliveries"] if d["message"]]
    assert 10_240 < len(told["message"]) < 20_000


def push_result(conn: Conn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Claim a message for OneSignal; return its result with a receipt, and the message."""
    row = send(conn, player=int(uuid.uuid4().int % 10**9) + 1)
    got = claim(conn, "onesignal")
    result = all_done(got)[0]
    receipt = {"delivery_id": result["done"][0], "message_id": str(row["id"]), "audience": "staff", "recipients": ["s1"],
               "title": "t", "body": "b", "data": {}, "status": "sent", "provider_id": "p", "error": None}  # fmt: skip
    return result | {"receipts": [receipt]}, row


HOLDS = {
    "an earlier receipt": "select 1 from push_notifications where delivery_id = %(delivery)s for update",
    "the message": "select 1 from gre_chat_messages where id = %(message)s for update",
    "a receipt that is being written": "insert into push_notifications (delivery_id, audience, status) "
    "values (%(delivery)s, 'staff', 'failed')",
}


@pytest.mark.parametrize("held", HOLDS)
def test_a_lock_on_a_row_that_a_receipt_needs_makes_only_its_lane_busy(
    db: Database, conn: Conn, held: str
) -> None:
    """Rule 3 for receipts: all other results, and the claim of the same call, are processed at once."""
    stuck, row = push_result(conn)
    free, _ = push_result(conn)
    if held == "an earlier receipt":
        conn.execute(
            "insert into push_notifications (delivery_id, audience, status) values (%s, 'staff', 'failed')",
            [stuck["done"][0]],
        )
    with db.connect(autocommit=False) as portal:
        portal.execute(HOLDS[held], {"delivery": stuck["done"][0], "message": row["id"]})
        progress = settle(conn, stuck | {"keep": True}, sink="onesignal")
        assert progress == {"busy": [stuck["lane"]], "lost": [], "waiting": 0}
        # It waits for a lock 50 ms at most, and a row's lock would be held until the end of this block.
        answer = one(
            conn, "select gre_relay_exchange_v1('onesignal', %s, %s)", Jsonb([stuck, free]), str(uuid.uuid4())
        )
        assert answer["settled"] == {"busy": [stuck["lane"]], "lost": [], "waiting": 0}
        assert len(claim(conn, "pusher")["lanes"]) == 2
        assert one(conn, "select count(*) from push_notifications where status = 'sent'") == 1
        portal.rollback()
    assert settle(conn, stuck, sink="onesignal")["busy"] == []
    assert one(conn, "select count(*) from push_notifications where status = 'sent'") == 2


def test_a_receipt_that_the_table_cannot_take_does_not_fail_the_settle(conn: Conn) -> None:
    """The project has a check of its own on the table. The push was sent, so it must not be sent again."""
    conn.execute(
        "alter table push_notifications add constraint theirs check (title is distinct from 'no') not valid"
    )
    refused, _ = push_result(conn)
    refused["receipts"][0]["title"] = "no"
    free, _ = push_result(conn)
    assert settle(conn, refused, free, sink="onesignal") == {"busy": [], "lost": [], "waiting": 0}
    assert one(conn, "select count(*) from push_notifications") == 1


PRESENCE = {
    "expired": ("now() + interval '1 hour'", "now() - interval '1 hour'", False),
    "not expired": ("now() - interval '1 day'", "now() + interval '1 minute'", True),
    "never expires": ("now()", "'infinity'", False),
    "seen a moment ago": ("now()", "null", True),
    "seen a month ago": ("now() - interval '30 days'", "null", False),
    "seen in ten years": ("'infinity'", "null", False),
}


@pytest.mark.parametrize("case", PRESENCE)
def test_expired_presence_is_offline_for_pushes_for_the_list_and_for_the_hub(conn: Conn, case: str) -> None:
    seen, expires, online = PRESENCE[case]
    conn.execute("insert into gre_staff (staff_id) values ('s1') on conflict do nothing")
    conn.execute(
        "insert into gre_online_status (staff_id, status, last_seen_at, expires_at) "
        f"values ('s1', 'online', {seen}, {expires})"
    )
    send(conn)
    assert claim(conn, "onesignal")["staff"] == [{"staff_id": "s1", "online": online}]
    (listed,) = one(conn, "select gre_list_staff()")
    assert listed["status"] == ("online" if online else "offline")
    here = one(conn, "select gre_hub_presence_v1('{}', '{}', 45)")["online"]
    assert [row["staff_id"] for row in here] == (["s1"] if online else [])


def test_the_validity_of_a_status_is_a_setting(conn: Conn) -> None:
    conn.execute("update gre.settings set presence_lasts = '1 minute'")
    seen = "select gre.presence('online', now() - interval %s, null)"
    assert one(conn, seen.replace("%s", "'50 seconds'")) == "online"
    assert one(conn, seen.replace("%s", "'70 seconds'")) == "offline"


def test_a_repeated_status_without_a_time_is_valid_again(db: Database, conn: Conn) -> None:
    conn.execute("insert into gre_staff (staff_id) values ('s1') on conflict do nothing")
    conn.execute(
        "insert into gre_online_status (staff_id, status, last_seen_at) values ('s1', 'online', now() - interval '1 day')"
    )
    with db.as_caller(STAFF) as portal:
        portal.execute(
            "insert into gre_online_status (staff_id, display_name, status) values ('s1', 'Sam', 'online') "
            "on conflict (staff_id) do update set display_name = excluded.display_name, status = excluded.status"
        )
    send(conn)
    assert claim(conn, "onesignal")["staff"] == [{"staff_id": "s1", "online": True}]
