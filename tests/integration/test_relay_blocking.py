"""A call that hangs, a resting lane, a lock or a large table delays nothing else in the relay."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from tests.conftest import Database
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

Conn = Any


def claim(conn: Conn, sink: str, lanes: int = 100) -> dict[str, Any]:
    token = str(uuid.uuid4())
    row = conn.execute("select gre_relay_claim_v1(%s, %s, %s) as c", [sink, token, lanes]).fetchone()
    return {"token": token, **row["c"]}


def settle(conn: Conn, sink: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    row = conn.execute("select gre_relay_settle_v1(%s, %s) as s", [sink, json.dumps(results)]).fetchone()
    answer: dict[str, Any] = row["s"]
    return answer


def done(claimed: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "lane": lane["lane_key"],
            "token": claimed["token"],
            "done": [d["id"] for d in lane["deliveries"]],
            **more,
        }
        for lane in claimed["lanes"]
    ]


def queue_push(conn: Conn, count: int = 1) -> None:
    conn.execute(
        "insert into push_notifications (audience, recipients, title, status)"
        " select 'staff', array['s1'], 'title', 'queued' from generate_series(1, %s)",
        [count],
    )


def test_sigterm_ends_the_worker_while_a_settle_hangs(stack: StackProcess) -> None:
    with stack.worker(GRE_DRAIN_SECONDS="1", GRE_REQUEST_TIMEOUT="120") as worker:
        stack.fault("rest", {"mode": "hang", "path": "/rest/v1/rpc/gre_relay_", "match": "p_results"})
        stack.insert(player_id=1, sender="player", message="sent, not settled")
        wait_until(lambda: stack.received("pusher"), what="the event")
        assert worker.stop(50) == 0


def test_retry_after_is_respected_although_requests_in_flight_succeed(stack: StackProcess) -> None:
    stack.fault(
        "onesignal", [{"mode": "status", "status": 429, "retry_after": 20, "times": 1}, {"delay": 0.3}]
    )
    for n in range(100):
        stack.insert(player_id=n + 1, sender="player", message="m")
    worker = stack.worker("relay").start(ready=False)  # it may get the refusal before it is ready
    try:
        refused = wait_until(
            lambda: next((i["at"] for i in stack.received("onesignal") if i["status"] == 429), None)
        )
        wait_until(lambda: time.time() > refused + 7)
    finally:
        worker.kill()
    # Requests in flight, and send tasks without a failure, may continue; no new work may begin.
    assert not [i for i in stack.received("onesignal") if i["at"] > refused + 5]


def test_lanes_without_deliveries_do_not_delay_others_after_an_outage(stack: StackProcess) -> None:
    stack.fault("pusher", {"mode": "refuse"})
    with stack.worker("relay") as worker:
        with stack.db() as conn:
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) select g, 'player', 'm' from generate_series(1, 300) g"
            )
            # The outage is long enough that the breaker stays open while the deliveries are deleted, without a probe.
            wait_until(
                lambda: worker.metric("gre_sink_requests_total", sink="pusher", result="transient") > 25
            )
            wait_until(lambda: worker.metric("gre_breaker_state", sink="pusher") == 2, every=0.01)
            conn.execute("delete from gre_relay_deliveries where sink = 'pusher'")
            stack.fault("pusher", None)
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) values (999, 'player', 'new')"
            )
        wait_until(
            lambda: any(
                i["status"] == 200 and i["data"].get("message") == "new" for i in stack.received("pusher")
            ),
        )


def test_rule_3_settle_does_not_wait_for_a_queued_push_that_a_portal_holds(db: Database) -> None:
    with db.connect() as conn, db.connect(autocommit=False) as portal:
        queue_push(conn)
        claimed = claim(conn, "onesignal")
        push = claimed["lanes"][0]["lane_key"].removeprefix("push:")
        portal.execute("select * from push_notifications for update")
        conn.execute("set statement_timeout = '30s'")
        settle(conn, "onesignal", done(claimed, receipts=[{"push_id": push, "status": "sent"}]))


def test_a_locked_push_does_not_delay_the_other_sink(db: Database) -> None:
    with db.connect() as conn, db.connect(autocommit=False) as portal:
        conn.execute("insert into gre_chat_messages (player_id, sender, message) values (9, 'player', 'm')")
        claimed = {sink: claim(conn, sink) for sink in ("pusher", "onesignal")}
        row = {
            "delivery_id": claimed["onesignal"]["lanes"][0]["deliveries"][0]["id"],
            "audience": "staff",
            "title": "t",
        }
        parts = [
            {"p_sink": "pusher", "p_results": done(claimed["pusher"])},
            {
                "p_sink": "onesignal",
                "p_results": done(claimed["onesignal"], receipts=[{**row, "status": "sent"}]),
            },
        ]
        conn.execute(
            "insert into push_notifications (delivery_id, audience, title, status) values (%s, 'staff', 't', 'failed')",
            [row["delivery_id"]],
        )
        portal.execute("select * from push_notifications for update")
        conn.execute("set statement_timeout = '30s'")
        busy = [settle(conn, part["p_sink"], part["p_results"])["busy"] for part in parts]
        assert busy == [[], [claimed["onesignal"]["lanes"][0]["lane_key"]]]
        portal.rollback()
        assert settle(conn, "onesignal", parts[1]["p_results"])["busy"] == []
        found = conn.execute("select status from push_notifications").fetchall()
        assert [push["status"] for push in found] == ["sent"]


def test_rule_3_settle_does_not_wait_for_a_message_that_is_being_deleted(db: Database) -> None:
    with db.connect() as conn, db.connect(autocommit=False) as portal:
        conn.execute("insert into gre_chat_messages (player_id, sender, message) values (9, 'player', 'm')")
        claimed = claim(conn, "onesignal")
        lane = claimed["lanes"][0]
        portal.execute("delete from gre_chat_messages where player_id = 9")
        conn.execute("set statement_timeout = '30s'")
        failed = {"ids": [lane["deliveries"][0]["id"]], "state": "retry", "error": "x", "spend": True}
        settle(
            conn, "onesignal",
            [{"lane": lane["lane_key"], "token": claimed["token"], "failed": failed, "retry_in": 0}],
        )  # fmt: skip


def test_old_pushes_do_not_slow_claim_and_settle(db: Database) -> None:
    with db.connect() as conn, db.connect("supabase_admin") as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into push_notifications (delivery_id, audience, title, status, data)"
            " select gen_random_uuid(), 'staff', 't', 'sent', '{}' from generate_series(1, 50000)"
        )
        admin.execute("vacuum analyze push_notifications")

        def read() -> int:
            conn.execute("select pg_stat_force_next_flush()")
            conn.execute("select pg_stat_clear_snapshot()")
            row = conn.execute(
                "select seq_tup_read as n from pg_stat_user_tables where relname = 'push_notifications'"
            ).fetchone()
            assert row is not None
            return int(row["n"])

        before = read()
        queue_push(conn, 3)
        conn.execute("insert into gre_chat_messages (player_id, sender, message) values (9, 'player', 'm')")
        for sink in ("pusher", "onesignal"):
            claimed = claim(conn, sink)
            results = done(claimed)
            for result in results:
                if result["lane"].startswith("push:"):
                    result["receipts"] = [{"push_id": result["lane"].removeprefix("push:"), "status": "sent"}]
            settle(conn, sink, results)
        assert read() == before


def test_a_profile_name_is_cleaned_and_does_not_cause_a_refusal(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_players (player_id, display_name) values (1, %s), (2, %s), (3, '')",
            ["x" * 100, "a\u202eb\nc"],
        )
        names = [
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'hi') returning sender_name",
                [player],
            ).fetchone()["sender_name"]  # type: ignore[index]
            for player in (1, 2, 3)
        ]
    assert names == ["x" * 80, "abc", "Player 3"]
