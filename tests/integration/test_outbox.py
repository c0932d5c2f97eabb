"""The rules of the outbox that concern the database only; test_outbox_contract.py has those of claim and settle."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.conftest import PLAYER, SERVICE, STAFF, Database
from tests.support.waiting import quickest

Conn = psycopg.Connection[dict[str, Any]]


def send(
    conn: Conn, player: int = 29, text: str = "hello", sender: str = "player", **columns: Any
) -> dict[str, Any]:
    """Insert a message as a portal does."""
    row = {"player_id": player, "sender": sender, "message": text, **columns}
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    found = conn.execute(
        f"insert into gre_chat_messages ({names}) values ({values}) returning *", row
    ).fetchone()
    assert found is not None
    return found


def claim(
    conn: Conn,
    sink: str = "pusher",
    token: str | None = None,
    lanes: int = 100,
    per_lane: int = 100,
    lease: float = 30,
    owner: str | None = None,
    held: Sequence[str] = (),
) -> dict[str, Any]:
    """Claim as the worker does; return the answer with the token."""
    token = token or str(uuid.uuid4())
    row = conn.execute(
        "select gre_relay_claim_v1(%s, %s, %s, %s, %s::numeric, %s, %s::uuid[]) as c",
        [sink, token, lanes, per_lane, lease, owner, list(held)],
    ).fetchone()
    assert row is not None
    for lane in row["c"]["lanes"]:
        for d in lane["deliveries"]:  # jsonb is returned as text
            d["data"] = json.loads(d["data"]) if d["data"] else None
    return {"token": token, **row["c"]}


def settle(conn: Conn, *results: dict[str, Any], sink: str = "pusher") -> dict[str, Any]:
    """Settle as the worker does."""
    row = conn.execute("select gre_relay_settle_v1(%s, %s) as s", [sink, Jsonb(list(results))]).fetchone()
    assert row is not None
    return dict(row["s"])


def all_done(got: dict[str, Any]) -> list[dict[str, Any]]:
    """Return results with all claimed deliveries done."""
    return [
        {"lane": lane["lane_key"], "token": got["token"], "done": [d["id"] for d in lane["deliveries"]]}
        for lane in got["lanes"]
    ]


def messages(got: dict[str, Any]) -> list[str]:
    """Return the texts of a claim, in order."""
    return [
        d["message"]["message"]
        for lane in got["lanes"]
        for d in lane["deliveries"]
        if d["event"] == "message"
    ]


def one(conn: Conn, query: str, *args: Any) -> Any:
    """Return the first column of the only row."""
    row = conn.execute(query, list(args)).fetchone()
    assert row is not None
    return next(iter(row.values()))


@pytest.fixture
def conn(db: Database) -> Any:
    """A connection of the migrating role, used for the worker here."""
    with db.connect() as connection:
        yield connection


def test_capture_is_in_the_messages_own_transaction(db: Database, conn: Conn) -> None:
    with db.connect(autocommit=False) as portal:
        send(portal)
        assert one(conn, "select count(*) from gre_relay_deliveries") == 0
        portal.rollback()
        assert one(conn, "select count(*) from gre_relay_deliveries") == 0
        send(portal)
        portal.commit()
    rows = conn.execute("select sink, event from gre_relay_deliveries order by sink, ord").fetchall()
    assert [(r["sink"], r["event"]) for r in rows] == [
        ("onesignal", "message"), ("pusher", "session"), ("pusher", "message"),
    ]  # fmt: skip


EXCHANGE = "select gre_relay_exchange_v1('pusher', %s, %s, 100, 1)"


def test_an_exchange_whose_settle_fails_claims_nothing(conn: Conn) -> None:
    send(conn)
    wrong = {"lane": "x", "token": "no uuid", "done": ["no uuid"]}
    for results, why in (([wrong], "invalid input syntax"), ({}, "must be an array")):
        with pytest.raises(psycopg.Error, match=why):
            conn.execute(EXCHANGE, [Jsonb(results), str(uuid.uuid4())])
    assert one(conn, "select count(*) from gre_relay_lanes where lease_token is not null") == 0
    assert one(conn, EXCHANGE, Jsonb([]), str(uuid.uuid4()))["settled"]["busy"] == []


def test_a_sink_that_is_disabled_gets_no_deliveries(conn: Conn) -> None:
    conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
    send(conn)
    assert one(conn, "select count(*) from gre_relay_deliveries where sink = 'onesignal'") == 0
    assert one(conn, "select count(*) from gre_relay_deliveries where sink = 'pusher'") == 2


def test_rule_1_a_claim_returns_no_delivery_that_was_just_settled(db: Database) -> None:
    """Six claimers over few lanes: without two statements some deliveries are claimed twice."""
    with db.connect() as setup:
        setup.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
        for _ in range(40):
            setup.execute(
                "insert into gre_chat_messages (player_id, sender, message) "
                "select 1 + g % 8, 'player', 'm' || g from generate_series(1, 50) g"
            )
    seen: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        with db.connect() as mine:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                got = claim(mine, lanes=3, per_lane=7)
                ids = [d["id"] for lane in got["lanes"] for d in lane["deliveries"]]
                if not ids and got["next_in"] is None:
                    return
                with lock:
                    seen.extend(ids)
                results = all_done(got)
                while results:
                    busy = settle(mine, *results)["busy"]
                    results = [r for r in results if r["lane"] in busy]

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(320)
    assert len(seen) == 2008
    assert len(set(seen)) == 2008


def test_rule_3_settle_does_not_wait_for_a_portals_open_transaction(db: Database, conn: Conn) -> None:
    send(conn, 1)
    send(conn, 2)
    got = claim(conn)
    conn.execute("set statement_timeout = '30s'")
    with db.connect(autocommit=False) as portal:
        send(portal, 1, "still typing")
        answer = settle(conn, *all_done(got))
        lane = next(r["lane_key"] for r in got["lanes"] if r["deliveries"][-1]["message"]["player_id"] == 1)
        assert answer["busy"] == [lane]
        # Sent deliveries are recorded at once; only the lane is freed later.
        assert (
            one(conn, "select count(*) from gre_relay_deliveries where sink = 'pusher' and state = 'pending'")
            == 0
        )
        portal.commit()
    assert settle(conn, *all_done(got))["busy"] == []
    assert messages(claim(conn)) == ["still typing"]


def test_the_workers_next_claim_takes_a_lane_whose_settle_a_crash_reverted(conn: Conn) -> None:
    send(conn, 1)
    owner = str(uuid.uuid4())
    got = claim(conn, owner=owner)
    with conn.transaction(force_rollback=True):  # the state after the crash
        settle(conn, *all_done(got))
    assert claim(conn)["lanes"] == []
    again = claim(conn, owner=owner)
    assert (messages(again), again["recovered_lanes"]) == (messages(got), 1)
    assert settle(conn, *all_done(again))["lost"] == []


def test_rule_4_a_claim_is_one_value_that_no_row_limit_can_cut(conn: Conn) -> None:
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) select g, 'player', 'm' from generate_series(1, 1200) g"
    )
    got = claim(conn, lanes=1200, per_lane=1)
    assert len(got["lanes"]) == 1200


def test_rule_6_a_repeated_id_counts_no_seq_and_opens_no_session(conn: Conn) -> None:
    first = send(conn, 29, "one")
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(conn, 29, "one", id=first["id"])
    conn.execute(
        "insert into gre_chat_messages (id, player_id, sender, message) values (%s, 29, 'player', 'one') on conflict do nothing",
        [first["id"]],
    )
    conn.execute(
        "insert into gre_chat_messages (id, player_id, sender, message) values (%s, 77, 'player', 'one') on conflict (id) do nothing",
        [first["id"]],
    )
    assert send(conn, 29, "two")["seq"] == 2
    assert one(conn, "select count(*) from gre_chat_sessions") == 1
    assert one(conn, "select count(*) from gre_relay_deliveries where event = 'message'") == 4


def test_rule_6_a_repeated_id_after_its_session_was_closed_opens_none(conn: Conn) -> None:
    first = send(conn, 29, "one")
    conn.execute("update gre_chat_sessions set status = 'closed'")
    conn.execute(
        "insert into gre_chat_messages (id, player_id, sender, message) values (%s, 29, 'player', 'one') on conflict do nothing",
        [first["id"]],
    )
    assert one(conn, "select count(*) from gre_chat_sessions") == 1


def test_rule_7_a_wakeup_that_waits_for_a_lock_does_not_delay_the_insert(db: Database, conn: Conn) -> None:
    with db.connect("supabase_admin", autocommit=False) as blocker:
        blocker.execute("lock table realtime.messages in access exclusive mode")
        conn.execute("set statement_timeout = '20s'")
        sent: list[Any] = []
        assert quickest(lambda: sent.append(send(conn, 29, "rings in vain")), 1.0) < 1.0
        blocker.rollback()
    assert one(conn, "select count(*) from gre_chat_messages") == len(sent)


def test_rule_7_no_wakeup_is_sent_where_realtime_send_does_not_exist(db: Database, conn: Conn) -> None:
    with db.connect("supabase_admin") as admin:
        admin.execute("drop function realtime.send(jsonb, text, text, boolean)")
    send(conn, 29, "no bell")
    assert messages(claim(conn)) == ["no bell"]


def test_rule_7_a_wakeup_that_raises_does_not_fail_the_insert(db: Database, conn: Conn) -> None:
    with db.connect("supabase_admin") as admin:
        admin.execute("alter table realtime.messages rename to messages_gone")
    send(conn, 29, "broken bell")
    assert messages(claim(conn)) == ["broken bell"]


def test_rule_7_a_players_message_sends_a_wakeup_with_ids_only(db: Database) -> None:
    with db.as_caller(PLAYER) as player:
        row = send(player, 29, "secret words")
    with db.connect("supabase_admin") as admin:
        rings = admin.execute("select topic, event, private, payload from realtime.messages").fetchall()
    assert len(rings) == 1
    assert (rings[0]["topic"], rings[0]["event"], rings[0]["private"]) == ("gre:relay", "wakeup", True)
    assert rings[0]["payload"]["sessions"] == [str(row["session_id"])]
    assert "secret" not in str(rings[0]["payload"])


def test_rule_7_one_wakeup_for_each_statement_and_no_ids_above_fifty_sessions(
    db: Database, conn: Conn
) -> None:
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) select g, 'player', 'm' from generate_series(1, 51) g"
    )
    with db.connect("supabase_admin") as admin:
        rings = admin.execute("select payload from realtime.messages").fetchall()
    assert len(rings) == 1
    assert "sessions" not in rings[0]["payload"]


def test_rule_8_a_players_first_message_can_be_returned(db: Database) -> None:
    with db.as_caller(PLAYER) as player:
        row = send(player, 29, "first ever")
    assert row["seq"] == 1
    assert row["session_id"] is not None


def test_rule_9_a_locked_session_ends_with_a_lock_timeout_not_a_statement_timeout(
    db: Database, conn: Conn
) -> None:
    send(conn, 29)
    with db.connect(autocommit=False) as blocker:
        blocker.execute("select * from gre_chat_sessions for update")
        conn.execute("set statement_timeout = '8s'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            send(conn, 29, "blocked")
        assert time.monotonic() - began > 1.5


@pytest.mark.parametrize(
    ("column", "value"),
    [("message", "rewritten"), ("seq", 99), ("player_id", 30), ("sender", "staff"), ("created_at", "2001-01-01"),
     ("id", "6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1"), ("session_id", "9a1f6c34-8f55-4e0e-8d0b-7e2f4c1d9b02")],
)  # fmt: skip
def test_rule_12_a_sent_message_cannot_be_changed(conn: Conn, column: str, value: Any) -> None:
    row = send(conn, 29, "original")
    conn.execute(f"update gre_chat_messages set {column} = %s", [value])
    assert conn.execute("select * from gre_chat_messages").fetchone() == row


def test_rule_12_a_status_never_goes_back(conn: Conn) -> None:
    send(conn)
    conn.execute("update gre_chat_messages set status = 'read'")
    conn.execute("update gre_chat_messages set status = 'sent'")
    assert one(conn, "select status from gre_chat_messages") == "read"


def test_rule_14_leasing_and_freeing_are_heap_only_updates(conn: Conn) -> None:
    indexes = conn.execute("select indexdef from pg_indexes where tablename = 'gre_relay_lanes'").fetchall()
    assert not any("lease" in r["indexdef"] for r in indexes)
    options = one(conn, "select reloptions from pg_class where relname = 'gre_relay_lanes'")
    assert {"fillfactor=70", "autovacuum_vacuum_scale_factor=0.05"} <= set(options)


def test_seq_is_the_order_of_commit_for_concurrent_writers(db: Database, conn: Conn) -> None:
    """Fifty first messages of one player at once: one session, seq 1 to 50, deliveries in the same order."""

    def write(n: int) -> None:
        with db.connect() as mine:
            send(mine, 29, f"m{n}")

    threads = [threading.Thread(target=write, args=[n]) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert one(conn, "select count(*) from gre_chat_sessions") == 1
    assert [r["seq"] for r in conn.execute("select seq from gre_chat_messages order by seq")] == list(
        range(1, 51)
    )
    order = conn.execute(
        "select m.seq from gre_relay_deliveries d join gre_chat_messages m on m.id = d.message_id where sink = 'pusher' order by ord"
    ).fetchall()
    assert [r["seq"] for r in order] == list(range(1, 51))


def test_a_savepoint_that_rolls_back_leaves_no_gap(db: Database, conn: Conn) -> None:
    with db.connect(autocommit=False) as portal:
        send(portal, 29, "kept")
        with pytest.raises(RuntimeError), portal.transaction():
            send(portal, 29, "undone")
            raise RuntimeError
        send(portal, 29, "kept too")
        portal.commit()
    rows = conn.execute("select seq, message from gre_chat_messages order by seq").fetchall()
    assert [(r["seq"], r["message"]) for r in rows] == [(1, "kept"), (2, "kept too")]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"message": ""}, "message is empty"),
        ({"message": " \t\n  "}, "message is empty"),
        ({"message": "x" * 4001}, "longer than 4000"),
        ({"sender": "bot"}, "sender must be"),
        ({"player_id": 0}, "player_id must be"),
        ({"player_id": -5}, "player_id must be"),
        ({"metadata": Jsonb({"k": "v" * 5000})}, "metadata is larger"),
    ],
)
def test_bad_input_is_refused_in_one_clear_line_and_nothing_is_written(
    conn: Conn, columns: dict[str, Any], words: str
) -> None:
    row = {"player_id": 29, "sender": "player", "message": "fine", **columns}
    with pytest.raises(psycopg.Error, match=words) as refused:
        send(conn, row.pop("player_id"), row.pop("message"), row.pop("sender"), **row)
    assert refused.value.diag.message_primary is not None
    assert "\n" not in refused.value.diag.message_primary
    for table in ("gre_chat_messages", "gre_chat_sessions", "gre_relay_deliveries", "gre_relay_lanes"):
        assert one(conn, f"select count(*) from {table}") == 0


def test_the_session_of_another_player_is_refused_like_one_that_does_not_exist(conn: Conn) -> None:
    theirs = send(conn, 1)
    with pytest.raises(psycopg.Error) as refused:
        send(conn, 2, session_id=theirs["session_id"])
    with pytest.raises(psycopg.Error) as unknown:
        send(conn, 2, session_id=str(uuid.uuid4()))
    assert str(refused.value.diag.message_primary) == str(unknown.value.diag.message_primary)
    assert one(conn, "select count(*) from gre_chat_messages") == 1
    assert one(conn, "select count(*) from gre_chat_sessions") == 1


def test_the_servers_columns_are_overwritten(db: Database) -> None:
    with db.as_caller(PLAYER) as player:
        row = send(player, 29, status="read", seq=500, created_at="2001-01-01", sender_id="s1")
    assert (row["status"], row["seq"], row["sender_id"]) == ("sent", 1, "29")
    assert row["created_at"].year > 2020


def test_names_lose_control_and_bidi_characters(conn: Conn) -> None:
    row = send(conn, 29, sender_name="As\u202eha\n\x07" + "x" * 200)
    assert row["sender_name"] == ("Asha" + "x" * 200)[:80]


def test_a_players_message_to_its_closed_session_goes_to_the_open_one(conn: Conn) -> None:
    old = send(conn, 29)
    conn.execute("update gre_chat_sessions set status = 'closed'")
    new = send(conn, 29, session_id=old["session_id"])
    assert new["session_id"] != old["session_id"]
    with pytest.raises(psycopg.Error, match="session is closed"):
        send(conn, 29, "too late", "staff", session_id=old["session_id"])


def test_staff_write_under_their_own_name(db: Database, conn: Conn) -> None:
    conn.execute("insert into gre_staff (staff_id, display_name) values ('s1', 'Ravi')")
    with db.as_caller(STAFF) as staff:
        row = send(staff, 29, "Welcome", "gre", sender_id="s9", sender_name="The owner")
    assert (row["sender"], row["sender_id"], row["sender_name"]) == ("staff", "s1", "Ravi")


def test_no_caller_writes_as_another_person(db: Database, conn: Conn) -> None:
    for claims, columns in (
        (PLAYER, {"player": 30}),
        (PLAYER, {"player": 29, "sender": "staff"}),
        (PLAYER, {"player": 29, "sender": "system"}),
        (STAFF, {"player": 29, "sender": "player"}),
        (STAFF, {"player": 29, "sender": "system"}),
        ({"role": "authenticated"}, {"player": 29}),
        ({"role": "anon"}, {"player": 29}),
        ({"role": "authenticated", "user_metadata": {"gre_role": "player", "player_id": 29}}, {"player": 29}),
    ):
        with db.as_caller(claims) as caller, pytest.raises(psycopg.errors.InsufficientPrivilege):
            send(caller, text="forged", **columns)
    assert one(conn, "select count(*) from gre_chat_messages") == 0


def test_players_read_their_own_rows_and_staff_read_all(db: Database, conn: Conn) -> None:
    send(conn, 29)
    send(conn, 30)
    with db.as_caller(PLAYER) as player:
        assert [r["player_id"] for r in player.execute("select player_id from gre_chat_messages")] == [29]
        assert [r["player_id"] for r in player.execute("select player_id from gre_chat_sessions")] == [29]
    with db.as_caller(STAFF) as staff:
        assert len(staff.execute("select * from gre_chat_messages").fetchall()) == 2
    conn.execute("insert into gre_staff (staff_id, active) values ('s1', false)")
    with db.as_caller(STAFF) as former:
        assert former.execute("select * from gre_chat_messages").fetchall() == []


def test_only_the_worker_has_access_to_the_outbox(db: Database) -> None:
    calls = [
        "select gre_relay_claim_v1('pusher', gen_random_uuid())", "select gre_relay_settle_v1('pusher', '[]')",
        "select gre_relay_exchange_v1('pusher', '[]', gen_random_uuid())", "select gre_relay_extend_v1('pusher', gen_random_uuid(), '{}')", "select gre_relay_release_v1('pusher', gen_random_uuid())",
        "select gre_relay_stats_v1()", "select * from gre_relay_lanes", "select * from gre_relay_deliveries",
        "select gre.notify_workers(null)", "select gre.enqueue_event('{pusher}', 'x', 'session', '{}')",
    ]  # fmt: skip
    for claims in (PLAYER, STAFF, {"role": "anon"}):
        with db.as_caller(claims) as caller:
            for call in calls:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    caller.execute(call)
    with db.as_caller(SERVICE) as worker:
        for call in calls[:6]:
            worker.execute(call)


def test_a_disabled_players_messages_are_refused(conn: Conn) -> None:
    conn.execute("insert into gre_chat_players (player_id, chat_enabled) values (29, false)")
    with pytest.raises(psycopg.Error, match="chat is disabled"):
        send(conn, 29)
    assert send(conn, 29, "from staff", "staff")["seq"] == 1


def test_assigning_and_closing_a_session_enqueues_events_without_text(conn: Conn) -> None:
    send(conn, 29, "hidden words")
    settle(conn, *all_done(claim(conn)))
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
    conn.execute("update gre_chat_sessions set status = 'closed'")
    conn.execute("update gre_chat_sessions set player_name = 'no event for this'")
    got = claim(conn)
    assert [d["event"] for d in got["lanes"][0]["deliveries"]] == ["session", "session"]
    assert "hidden" not in str(conn.execute("select data from gre_relay_deliveries").fetchall())
    assert got["lanes"][0]["deliveries"][0]["session"]["status"] == "closed"


def test_a_queued_push_is_claimed_for_onesignal_and_its_row_settled(conn: Conn) -> None:
    conn.execute(
        "insert into push_notifications (audience, recipients, title, body) values ('player', '{player_29}', 'Hi', 'Table is ready')"
    )
    got = claim(conn, "onesignal")
    push = got["lanes"][0]["deliveries"][0]["push"]
    assert (push["recipients"], push["title"]) == (["player_29"], "Hi")
    result = all_done(got)[0] | {
        "receipts": [{"push_id": push["id"], "status": "sent", "provider_id": "abc", "error": None}]
    }
    settle(conn, result, sink="onesignal")
    row = conn.execute("select status, provider_id, sent_at from push_notifications").fetchone()
    assert row is not None
    assert (row["status"], row["provider_id"]) == ("sent", "abc")
    assert row["sent_at"] is not None


def test_a_receipt_is_written_once_however_often_it_is_settled(conn: Conn) -> None:
    row = send(conn, 29)
    got = claim(conn, "onesignal")
    delivery = got["lanes"][0]["deliveries"][0]["id"]
    receipt = {"delivery_id": delivery, "message_id": str(row["id"]), "audience": "staff", "recipients": ["s1"], "title": "Asha",
               "body": "New message", "data": {}, "status": "sent", "provider_id": "p1", "error": None}  # fmt: skip
    result = all_done(got)[0] | {"receipts": [receipt]}
    settle(conn, result, sink="onesignal")
    settle(conn, result | {"receipts": [receipt | {"status": "failed"}]}, sink="onesignal")
    rows = conn.execute("select status, recipients from push_notifications").fetchall()
    assert rows == [{"status": "sent", "recipients": ["s1"]}]


def test_only_the_worker_receives_and_sends_wakeups(db: Database) -> None:
    with db.connect("supabase_admin") as admin:
        admin.execute(
            "create policy too_open on realtime.messages for all to anon, authenticated using (true) with check (true)"
        )
        admin.execute("grant all on realtime.messages to anon, authenticated")
        admin.execute(
            "select realtime.send('{}', 'wakeup', 'gre:relay', true), realtime.send('{}', 'x', 'other', true)"
        )
    with db.as_caller(PLAYER) as player:
        assert {r["topic"] for r in player.execute("select topic from realtime.messages")} == {"other"}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            player.execute(
                "insert into realtime.messages (topic, extension, event, payload, private) values ('gre:relay', 'broadcast', 'wakeup', '{}', true)"
            )
