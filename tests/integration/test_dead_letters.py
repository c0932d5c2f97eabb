"""Dead letters and expiry: retry, drop and expire, also while a worker holds leases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_outbox import Conn, all_done, claim, messages, one, send, settle
from tests.support.access import SERVICE, RefusalError, Rest


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    """The connection of the portals and the worker."""
    with db.connect() as connection:
        yield connection


@pytest.fixture
def ops(db: Database) -> Iterator[Rest]:
    """The connection of the operator, with the service key."""
    with Rest(db, SERVICE) as rest:
        yield rest


def kill(conn: Conn, count: int = 1, sink: str = "pusher", error: str = "413: too large") -> list[str]:
    """Settle the first `count` deliveries of each due lane as dead; return their ids."""
    got = claim(conn, sink)
    died = []
    results = []
    for lane in got["lanes"]:
        ids = [d["id"] for d in lane["deliveries"]][:count]
        died += ids
        failed = {"ids": ids, "state": "dead", "error": error, "spend": True}
        results.append({"lane": lane["lane_key"], "token": got["token"], "failed": failed})
    assert settle(conn, *results, sink=sink)["busy"] == []
    return died


def drain(conn: Conn, sink: str = "pusher") -> list[str]:
    """Claim and settle all due lanes; return the texts."""
    sent: list[str] = []
    while (got := claim(conn, sink))["lanes"]:
        sent += messages(got)
        assert settle(conn, *all_done(got), sink=sink)["busy"] == []
    return sent


def resting(conn: Conn) -> bool:
    """Return True if no lane is scheduled."""
    return bool(one(conn, "select count(*) = 0 from gre_relay_lanes where ready_at is not null"))


def letters(ops: Rest, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ops.call("gre_relay_dead", **filters)
    return found


# Dead letters -------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_newest_first_without_text(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "zebra")
    first = kill(conn, 2)
    send(conn, 2, "zebra")
    second = kill(conn, 2, error="400: bad channel")
    found = letters(ops)
    assert {f["id"] for f in found[:2]} == set(second)
    assert {f["id"] for f in found[2:]} == set(first)
    assert "zebra" not in str(found)
    top = found[0]
    assert (top["sink"], top["attempts"], top["error"]) == ("pusher", 1, "400: bad channel")
    assert set(top) == {"id", "sink", "lane", "event", "message_id", "attempts", "error", "created_at", "died_at"}  # fmt: skip
    assert top["died_at"].endswith("Z")
    assert {f["event"] for f in found} == {"session", "message"}


def test_filters_of_dead_letters_are_combined(conn: Conn, ops: Rest) -> None:
    session = send(conn, 1)["session_id"]
    send(conn, 2)
    kill(conn, 9, error="413: Too Large")
    kill(conn, 9, "onesignal", error="400: no app")
    conn.execute("update gre_relay_deliveries set settled_at = settled_at - interval '1 hour' where sink = 'onesignal'")  # fmt: skip
    every = letters(ops)
    assert len(every) == 6
    assert len(letters(ops, sink="onesignal")) == 2
    assert {f["lane"] for f in letters(ops, session=session)} == {str(session)}
    assert {f["sink"] for f in letters(ops, older_than="30 minutes")} == {"onesignal"}
    assert {f["sink"] for f in letters(ops, error="too large")} == {"pusher"}
    assert letters(ops, error="%") == []
    ids = [uuid.UUID(every[0]["id"])]
    assert [f["id"] for f in letters(ops, ids=ids)] == [every[0]["id"]]
    assert letters(ops, ids=ids, sink="nobody") == []
    assert len(letters(ops, limit=2)) == 2
    assert len(letters(ops, limit=-5)) == 1


def test_a_retried_dead_letter_has_no_attempts_and_its_lane_is_scheduled(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "first")
    (session, message) = kill(conn, 2)
    assert claim(conn, "pusher")["lanes"] == []
    rung = one(conn, "select count(*) from realtime.messages where topic = 'gre:relay'")
    assert ops.call("gre_relay_retry", ids=[uuid.UUID(message)]) == 1
    assert one(conn, "select count(*) from realtime.messages where topic = 'gre:relay'") == rung + 1
    got = claim(conn, "pusher")
    assert [(d["id"], d["attempts"]) for lane in got["lanes"] for d in lane["deliveries"]] == [(message, 0)]
    settle(conn, *all_done(got))
    assert [f["id"] for f in letters(ops)] == [session]
    assert ops.call("gre_relay_retry", ids=[uuid.UUID(message)]) == 0
    assert one(conn, "select state from gre_relay_deliveries where id = %s", message) == "done"


def test_a_dead_letter_whose_lane_was_pruned_gets_a_new_one(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "first")
    died = kill(conn, 2)
    conn.execute("delete from gre_relay_lanes")
    assert ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died))) == 2
    assert drain(conn) == ["first"]


def test_a_dropped_dead_letter_is_expired(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "first")
    died = kill(conn, 2)
    assert ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died)), drop=True) == 2
    assert letters(ops) == []
    rows = conn.execute("select state, attempts, settled_at is not null as settled from gre_relay_deliveries where sink = 'pusher'").fetchall()  # fmt: skip
    assert rows == [{"state": "expired", "attempts": 1, "settled": True}] * 2
    assert drain(conn) == []
    assert one(conn, "select count(*) from gre_chat_messages") == 1


def test_only_dead_letters_are_retried_or_dropped(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "waits")
    ids = [r["id"] for r in conn.execute("select id from gre_relay_deliveries").fetchall()]
    for drop in (False, True):
        assert ops.call("gre_relay_retry", ids=[*ids, uuid.uuid4()], drop=drop) == 0
    assert ops.call("gre_relay_retry", ids=None) == 0
    assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 3


def test_a_retry_in_a_leased_lane_is_in_the_next_claim(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "dies")
    died = kill(conn, 2)
    send(conn, 1, "in hand")
    got = claim(conn, "pusher")
    assert messages(got) == ["in hand"]
    assert ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died))) == 2
    assert claim(conn, "pusher")["lanes"] == []
    assert settle(conn, *all_done(got))["waiting"] == 1
    assert drain(conn) == ["dies"]
    drain(conn, "onesignal")
    assert resting(conn)


def test_a_retry_is_refused_soon_while_a_portals_transaction_holds_the_lane(
    db: Database, conn: Conn, ops: Rest
) -> None:
    send(conn, 1, "dies")
    died = kill(conn, 2)
    with db.connect(autocommit=False) as portal:
        send(portal, 1, "open transaction")
        with pytest.raises(RefusalError, match="55P03"):
            ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died)))
        portal.commit()
    assert ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died))) == 2
    assert sorted(drain(conn)) == ["dies", "open transaction"]


# Expire -------------------------------------------------------------------------------------------------------


def age(conn: Conn, seconds: float, where: str = "true") -> None:
    """Make deliveries older."""
    conn.execute(
        f"update gre_relay_deliveries set created_at = created_at - %s * interval '1 second' where {where}",  # type: ignore[arg-type]
        [seconds],
    )


def test_expire_settles_older_deliveries_and_empty_lanes_rest(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "old")
    send(conn, 2, "old too")
    age(conn, 7200)
    send(conn, 1, "new")
    before = one(conn, "select now() - interval '1 hour'")
    assert ops.call("gre_relay_expire", before=before, dry_run=True) == 6
    assert one(conn, "select count(*) from gre_relay_deliveries where state = 'pending'") == 8
    assert ops.call("gre_relay_expire", before=before, sink="pusher", limit=3) == 3
    assert ops.call("gre_relay_expire", before=before, sink="pusher") == 1
    assert ops.call("gre_relay_expire", before=before, sink="pusher") == 0
    assert ops.call("gre_relay_expire", before=before, dry_run=True) == 2
    assert one(conn, "select count(*) from gre_relay_deliveries where state = 'expired' and settled_at is not null and last_error = 'expired by an operator'") == 4  # fmt: skip
    got = claim(conn, "pusher")
    assert (messages(got), got["emptied_lanes"]) == (["new"], 1)
    settle(conn, *all_done(got))
    assert claim(conn, "pusher")["next_in"] is None
    assert drain(conn, "onesignal") == ["old", "new", "old too"]
    assert resting(conn)


def test_expire_leaves_dead_letters_and_leased_deliveries(db: Database, conn: Conn, ops: Rest) -> None:
    for player, text in ((1, "dies"), (2, "in hand"), (3, "being written"), (4, "waits")):
        send(conn, player, text)
    conn.execute("update gre_relay_lanes set ready_at = null where lane_key <> (select id::text from gre_chat_sessions where player_id = 1)")  # fmt: skip
    died = kill(conn, 2)
    conn.execute("update gre_relay_lanes set ready_at = now() where lane_key = (select id::text from gre_chat_sessions where player_id = 2)")  # fmt: skip
    got = claim(conn, "pusher")
    assert messages(got) == ["in hand"]
    conn.execute("update gre_relay_lanes set ready_at = now() where ready_at is null")
    age(conn, 7200)
    with db.connect(autocommit=False) as portal:
        send(portal, 3, "another")
        assert ops.call("gre_relay_expire", before="2999-01-01", sink="pusher") == 2
        portal.commit()
    assert {f["id"] for f in letters(ops)} == set(died)
    assert settle(conn, *all_done(got)) == {"busy": [], "lost": [], "waiting": 0}
    assert drain(conn) == ["being written", "another"]


def test_expire_ignores_a_lease_that_is_over_or_longer_than_the_longest(conn: Conn, ops: Rest) -> None:
    send(conn, 1)
    send(conn, 2)
    got = claim(conn, "pusher")
    conn.execute("update gre_relay_lanes set lease_until = now() - interval '1 s' where lane_key = %s", [got["lanes"][0]["lane_key"]])  # fmt: skip
    conn.execute("update gre_relay_lanes set lease_until = now() + interval '1 day' where lane_key = %s", [got["lanes"][1]["lane_key"]])  # fmt: skip
    assert ops.call("gre_relay_expire", before="2999-01-01", sink="pusher") == 4
    # A late settle of the worker that held them changes nothing.
    settle(conn, *all_done(got))
    assert one(conn, "select count(*) from gre_relay_deliveries where state = 'expired'") == 4


def test_the_row_of_an_expired_queued_push_has_the_status_expired(conn: Conn, ops: Rest) -> None:
    conn.execute("insert into push_notifications (audience, title, status) values ('staff', 'a', 'queued')")
    assert ops.call("gre_relay_expire", before="2999-01-01") == 1
    assert conn.execute("select status, error from push_notifications").fetchall() == [{"status": "expired", "error": "expired by an operator"}]  # fmt: skip


def test_expire_needs_a_time(ops: Rest) -> None:
    with pytest.raises(RefusalError) as refusal:
        ops.call("gre_relay_expire", before=None)
    assert (refusal.value.status, refusal.value.code) == (400, "time_missing")


# Wake-ups ------------------------------------------------------------------------------------------------------


def test_notify_sends_a_wakeup_and_does_nothing_else(conn: Conn, ops: Rest) -> None:
    assert ops.call("gre_relay_notify_v1") is True
    rows = conn.execute("select topic, event, payload - 'id' as payload, private from realtime.messages").fetchall()  # fmt: skip
    assert rows == [{"topic": "gre:relay", "event": "wakeup", "payload": {}, "private": True}]


def test_notify_reports_that_the_database_cannot_broadcast(db: Database, ops: Rest) -> None:
    with db.connect("supabase_admin") as admin:
        admin.execute("drop function realtime.send(jsonb, text, text, boolean)")
    assert ops.call("gre_relay_notify_v1") is False


# Heartbeats ----------------------------------------------------------------------------------------------------


def test_a_report_registers_a_worker_and_old_registrations_are_deleted(conn: Conn, ops: Rest) -> None:
    mine, other = uuid.uuid4(), uuid.uuid4()
    answer = ops.call("gre_relay_report_v1", worker=mine, host="h" * 300, version="1", info={"a": 1})
    assert answer == {
        "schema": one(conn, "select gre_schema_version()"),
        "sinks": [{"sink": "onesignal", "enabled": True}, {"sink": "pusher", "enabled": True}],
    }
    ops.call("gre_relay_report_v1", worker=other, host="o", version="1")
    conn.execute("update gre_relay_workers set seen_at = now() - interval '61 minutes', started_at = now() - interval '2 days'")  # fmt: skip
    ops.call("gre_relay_report_v1", worker=mine, host="h" * 300, version="2", info={"a": 2})
    (row,) = ops.call("gre_relay_status")["workers"]
    assert (row["id"], row["host"], row["version"], row["info"]) == (str(mine), "h" * 200, "2", {"a": 2})
    assert row["seen"] < 60
    assert one(conn, "select now() - started_at > interval '1 day' from gre_relay_workers")
    ops.call("gre_relay_leave_v1", worker=mine)
    ops.call("gre_relay_leave_v1", worker=mine)
    assert ops.call("gre_relay_status")["workers"] == []


def test_simultaneous_reports_of_many_workers_do_not_wait_for_each_other(db: Database, ops: Rest) -> None:
    old = uuid.uuid4()
    ops.call("gre_relay_report_v1", worker=old, host="o", version="1")
    with db.connect() as conn:
        conn.execute("update gre_relay_workers set seen_at = now() - interval '2 hours'")
    with db.connect(autocommit=False) as slow, db.connect(autocommit=False) as quick:
        quick.execute("set lock_timeout = '1s'")
        slow.execute("select gre_relay_report_v1(%s, 'a', '1')", [uuid.uuid4()])
        quick.execute("select gre_relay_report_v1(%s, 'b', '1')", [uuid.uuid4()])
        quick.commit()
        slow.commit()
    assert len(ops.call("gre_relay_status")["workers"]) == 2


# Status --------------------------------------------------------------------------------------------------------


def test_status_has_the_backlog_the_rates_and_the_blocked_lanes_with_their_errors(
    conn: Conn, ops: Rest
) -> None:
    for player in (1, 2, 3):
        send(conn, player)
    got = claim(conn, "pusher")
    done, *failed = all_done(got)
    ids = failed[0].pop("done")
    failed[0] |= {
        "failed": {"ids": ids[:1], "state": "retry", "error": "400: no", "spend": True},
        "retry_in": 60,
    }
    settle(conn, done, failed[0])
    status = ops.call("gre_relay_status")
    sinks = {row["sink"]: row for row in status["sinks"]}
    assert (sinks["pusher"]["pending"], sinks["pusher"]["rate"]) == (4, 0.2)
    assert (sinks["onesignal"]["pending"], sinks["onesignal"]["rate"]) == (3, 0)
    (blocked,) = status["blocked"]
    assert (blocked["sink"], blocked["lane_key"], blocked["attempts"], blocked["error"]) == ("pusher", failed[0]["lane"], 1, "400: no")  # fmt: skip
    assert 0 < blocked["retry_in"] <= 60
    assert ops.call("gre_relay_status", blocked=0)["blocked"] == []
    assert status["now"].startswith("20")
