"""Replay, reconcile and prune: which messages are enqueued again, which are found missing, and which are deleted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MIGRATIONS, Database
from tests.integration.test_dead_letters import drain, kill, resting
from tests.integration.test_outbox import Conn, all_done, claim, messages, one, send, settle
from tests.support.access import ADMIN, SERVICE, RefusalError, Rest
from tests.support.ageing import elapse

SINKS = ("onesignal", "pusher")


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    """The connection of the portals and the worker."""
    with db.connect() as connection:
        yield connection


@pytest.fixture
def root(db: Database) -> Iterator[Conn]:
    """The connection of a superuser on which triggers do not fire, as in a restore."""
    with db.connect("supabase_admin") as connection:
        connection.execute("set session_replication_role = replica")
        yield connection


@pytest.fixture
def ops(db: Database) -> Iterator[Rest]:
    """The connection of the operator, with the service key."""
    with Rest(db, SERVICE) as rest:
        yield rest


def pages(ops: Rest, function: str, **arguments: Any) -> list[dict[str, Any]]:
    """Return all pages of a function."""
    found = [ops.call(function, **arguments)]
    while found[-1]["next"]:
        assert len(found) < 100
        found.append(ops.call(function, **arguments, after=found[-1]["next"]))
    return found


def deliveries(conn: Conn, columns: str = "sink, state, data") -> list[dict[str, Any]]:
    """Messages' deliveries, in order."""
    query = f"select {columns} from gre_relay_deliveries where event = 'message' order by ord"
    return conn.execute(query.encode()).fetchall()


def everything(conn: Conn) -> list[Any]:
    """Return all rows that a dry run must not change."""
    return [
        conn.execute(f"select * from {table} order by 1, 2".encode()).fetchall()
        for table in ("gre_relay_deliveries", "gre_relay_lanes", "gre_relay_sinks", "realtime.messages")
    ]


def sent(conn: Conn, sink: str) -> list[tuple[str, bool]]:
    """Claim and settle all due lanes; return (text, replayed) in order."""
    found = []
    while (got := claim(conn, sink))["lanes"]:
        for lane in got["lanes"]:
            found += [(d["message"]["message"], bool((d["data"] or {}).get("replayed")))
                      for d in lane["deliveries"] if d["event"] == "message"]  # fmt: skip
        settle(conn, *all_done(got), sink=sink)
    return found


# Replay -------------------------------------------------------------------------------------------------------


def test_replay_enqueues_every_message_exactly_once_and_marks_it_as_replayed(conn: Conn, ops: Rest) -> None:
    texts = {player: [f"{player}-{n}" for n in range(4)] for player in (1, 2, 3)}
    for n in range(4):
        for player in texts:
            send(conn, player, texts[player][n])
    for sink in SINKS:
        drain(conn, sink)
    found = pages(ops, "gre_relay_replay", since="2001-01-01", limit=5)
    assert [page["messages"] for page in found] == [5, 5, 2]
    for sink in SINKS:
        arrived = sent(conn, sink)
        assert {replayed for _, replayed in arrived} == {True}
        for player, wanted in texts.items():
            assert [text for text, _ in arrived if text.startswith(f"{player}-")] == wanted
    assert resting(conn)


def test_a_page_that_ends_exactly_with_the_last_message_is_followed_by_an_empty_one(
    conn: Conn, ops: Rest
) -> None:
    for n in range(4):
        send(conn, 1, str(n))
    drain(conn)
    found = pages(ops, "gre_relay_replay", since="2001-01-01", sink="pusher", limit=2)
    assert [page["messages"] for page in found] == [2, 2, 0]
    assert [text for text, _ in sent(conn, "pusher")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("style", ["ISO, MDY", "SQL, DMY", "German, DMY"])
def test_the_cursor_does_not_depend_on_the_format_of_times(
    db: Database, conn: Conn, zone: str, style: str
) -> None:
    conn.execute("insert into gre_chat_messages (player_id, sender, message) select 1, 'player', 'm' || g from generate_series(1, 7) g")  # fmt: skip
    drain(conn)
    with Rest(db, SERVICE) as ops:
        ops.conn.execute("select set_config('timezone', %s, false), set_config('datestyle', %s, false)", [zone, style])  # fmt: skip
        found = pages(ops, "gre_relay_replay", since="2001-01-01", sink="pusher", limit=2)
        assert sum(page["messages"] for page in found) == 7
        checked = pages(ops, "gre_relay_reconcile", limit=2)
    assert sum(page["checked"] for page in checked) == 7


def test_replay_is_bounded_by_times_session_and_sink(conn: Conn, ops: Rest) -> None:
    session = send(conn, 1, "a")["session_id"]
    send(conn, 2, "b")
    middle = one(conn, "select clock_timestamp()")
    send(conn, 1, "c")
    for sink in SINKS:
        drain(conn, sink)
    for arguments, wanted in (
        ({"since": middle}, ["c"]),
        ({"since": "2001-01-01", "until": middle}, ["a", "b"]),
        ({"session": session}, ["a", "c"]),
        ({"session": session, "until": middle}, ["a"]),
        ({"since": "2999-01-01"}, []),
        ({"session": uuid.uuid4()}, []),
    ):
        (page,) = pages(ops, "gre_relay_replay", **arguments, sink="onesignal")
        assert page == {"messages": len(wanted), "next": None}
        assert sorted(text for text, _ in sent(conn, "onesignal")) == wanted
        assert sent(conn, "pusher") == []


def test_replay_keeps_the_order_of_first_arrivals_and_repeats_no_pending_message(
    conn: Conn, ops: Rest
) -> None:
    send(conn, 1, "1")
    send(conn, 1, "2")
    drain(conn)
    send(conn, 1, "3")
    first, last = ops.call("gre_relay_replay", since="2001-01-01", sink="pusher", limit=2), None
    send(conn, 1, "4")
    last = ops.call("gre_relay_replay", since="2001-01-01", sink="pusher", limit=2, after=first["next"])
    assert (first["messages"], last["messages"]) == (2, 0)
    arrived = sent(conn, "pusher")
    assert arrived == [("3", False), ("1", True), ("2", True), ("4", False)]
    # A second call before anything was sent adds nothing.
    for _ in range(2):
        ops.call("gre_relay_replay", since="2001-01-01", sink="pusher")
    assert sent(conn, "pusher") == [(str(n), True) for n in (1, 2, 3, 4)]


def test_replay_during_a_claim_in_flight_keeps_the_order_of_its_new_messages(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "1")
    drain(conn)
    send(conn, 1, "2")
    got = claim(conn)
    ops.call("gre_relay_replay", since="2001-01-01", sink="pusher")
    assert claim(conn)["lanes"] == []
    assert settle(conn, *all_done(got))["waiting"] == 1
    assert sent(conn, "pusher") == [("1", True)]


def test_a_dry_replay_changes_nothing(conn: Conn, ops: Rest) -> None:
    for n in range(5):
        send(conn, 1, str(n))
    drain(conn)
    before = everything(conn)
    found = pages(ops, "gre_relay_replay", since="2001-01-01", dry_run=True, limit=2)
    assert sum(page["messages"] for page in found) == 5
    assert everything(conn) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [({}, "replay_unbounded"), ({"sink": "pusher"}, "replay_unbounded"), ({"until": "2999-01-01"}, "replay_unbounded"),
     ({"since": "2001-01-01", "sink": "carrier-pigeon"}, "sink_unknown")],
)  # fmt: skip
def test_replay_refuses_a_call_without_bounds_and_an_unknown_sink(
    ops: Rest, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(RefusalError) as refusal:
        ops.call("gre_relay_replay", **arguments)
    assert (refusal.value.status, refusal.value.code) == (400, code)


def test_a_disabled_sink_gets_no_replay(conn: Conn, ops: Rest) -> None:
    send(conn, 1, "1")
    drain(conn)
    conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
    with pytest.raises(RefusalError, match="sink_unknown"):
        ops.call("gre_relay_replay", since="2001-01-01", sink="onesignal")
    ops.call("gre_relay_replay", since="2001-01-01")
    assert [row["sink"] for row in deliveries(conn) if row["data"]] == ["pusher"]


def test_a_message_that_was_deleted_meanwhile_is_not_replayed(db: Database, conn: Conn, ops: Rest) -> None:
    message = send(conn, 1, "going")
    send(conn, 1, "stays")
    drain(conn)
    with db.connect(autocommit=False) as portal:
        portal.execute("delete from gre_chat_messages where id = %s", [message["id"]])
        ops.call("gre_relay_replay", since="2001-01-01", sink="pusher")
        portal.commit()
    assert sent(conn, "pusher") == [("stays", True)]


# Reconcile ----------------------------------------------------------------------------------------------------


def opened(conn: Conn, days: float = 1) -> None:
    """Set the start of the outbox some days back."""
    conn.execute("update gre_relay_sinks set reconcile_from = now() - %s * interval '1 day'", [days])


def insert_without_triggers(root: Conn, session: Any, seq: int, text: str, ago: str = "1 hour") -> str:
    """Insert a row without its triggers."""
    return str(one(
        root,
        "insert into gre_chat_messages (session_id, seq, player_id, sender, sender_name, message, created_at)"
        " values (%s, %s, 1, 'player', 'P', %s, now() - %s::interval) returning id",
        session, seq, text, ago,
    ))  # fmt: skip


def test_reconcile_enqueues_rows_inserted_without_triggers_once(conn: Conn, root: Conn, ops: Rest) -> None:
    opened(conn)
    session = send(conn, 1, "announced")["session_id"]
    for sink in SINKS:
        drain(conn, sink)
    conn.execute("update gre_chat_sessions set last_seq = 3")
    second, third = (
        insert_without_triggers(root, session, 2, "second"),
        insert_without_triggers(root, session, 3, "third", "50 minutes"),
    )
    # One sink has a delivery of the third.
    root.execute("insert into gre_relay_deliveries (sink, lane_key, ord, event, message_id, state, settled_at) values"
                 " ('onesignal', %s, nextval('gre.delivery_ord'), 'message', %s, 'done', now())", [str(session), third])  # fmt: skip
    before = everything(conn)
    dry = pages(ops, "gre_relay_reconcile", dry_run=True)
    assert dry == [{"checked": 3, "missing": {"onesignal": 1, "pusher": 2}, "lanes": 0, "next": None}]
    assert everything(conn) == before
    assert pages(ops, "gre_relay_reconcile") == dry
    assert deliveries(conn, "message_id::text as id, data, created_at < now() - interval '45 minutes' as late")[-3:] == [
        {"id": second, "data": None, "late": True}, {"id": second, "data": None, "late": True}, {"id": third, "data": None, "late": True},
    ]  # fmt: skip
    assert [sent(conn, sink) for sink in SINKS] == [
        [("second", False)], [("second", False), ("third", False)],
    ]  # fmt: skip
    again = pages(ops, "gre_relay_reconcile")
    assert again == [{"checked": 3, "missing": {}, "lanes": 0, "next": None}]
    assert resting(conn)


def test_reconcile_pages_through_many(conn: Conn, root: Conn, ops: Rest) -> None:
    opened(conn)
    session = send(conn, 1, "x")["session_id"]
    for seq in range(2, 13):
        insert_without_triggers(root, session, seq, f"m{seq:02}", f"{60 - seq} minutes")
    found = pages(ops, "gre_relay_reconcile", limit=4)
    assert [page["checked"] for page in found] == [4, 4, 4, 0]
    assert [page["missing"] for page in found] == [*({"onesignal": n, "pusher": n} for n in (4, 4, 3)), {}]
    assert [text for text, _ in sent(conn, "pusher")] == ["x", *(f"m{seq:02}" for seq in range(2, 13))]


@pytest.mark.parametrize("state", ["pending", "done", "replayed and pending", "replayed and done"])
def test_the_first_run_finds_everything_however_recent_and_in_any_state_of_the_outbox(
    conn: Conn, root: Conn, ops: Rest, state: str
) -> None:
    """An earlier version left out messages of the last minute: a run right after a restore found nothing."""
    opened(conn)
    conn.execute("insert into gre_chat_messages (player_id, sender, message) select 1 + n % 40, 'player', 'm' || n"
                 " from generate_series(1, 2000) n")  # fmt: skip
    for replayed in (False, True) if "replayed" in state else (False,):
        if replayed:
            pages(ops, "gre_relay_replay", since="2001-01-01")
        if "done" in state or (replayed is False and "replayed" in state):
            for sink in SINKS:
                drain(conn, sink)
    root.execute(
        "insert into gre_chat_messages (session_id, seq, player_id, sender, sender_name, message, created_at)"
        " select s.id, s.last_seq + n, s.player_id, 'player', 'P', 'around ' || n, now() from generate_series(1, 15) n, gre_chat_sessions s"
    )
    root.execute("delete from gre_relay_deliveries where sink = 'pusher' and message_id in"
                 " (select id from gre_chat_messages where message like 'm%' order by created_at, id limit 100)")  # fmt: skip
    found = pages(ops, "gre_relay_reconcile")
    missing = {sink: sum(page["missing"].get(sink, 0) for page in found) for sink in SINKS}
    assert missing == {"pusher": 700, "onesignal": 600}
    again = pages(ops, "gre_relay_reconcile")
    assert [page["missing"] for page in again] == [{}] * len(again)


def test_reconcile_ignores_messages_from_before_the_outbox(conn: Conn, root: Conn, ops: Rest) -> None:
    session = send(conn, 1, "x")["session_id"]
    insert_without_triggers(root, session, 2, "from before the outbox")
    assert pages(ops, "gre_relay_reconcile") == [{"checked": 1, "missing": {}, "lanes": 0, "next": None}]


def test_reconcile_ignores_earlier_messages_with_times_in_the_future(
    db: Database, supabase_db: Database
) -> None:
    """A portal that writes local time stores messages some hours in the future."""
    with supabase_db.connect() as conn:
        conn.execute("create table gre_chat_messages (id uuid primary key, session_id uuid, player_id bigint, message text,"
                     " sender text, created_at timestamp)")  # fmt: skip
        conn.execute("insert into gre_chat_messages values (gen_random_uuid(), null, 29, 'history', 'player', now() at time zone 'UTC' + interval '8 hours')")  # fmt: skip
        for path in MIGRATIONS:
            with conn.transaction():
                conn.execute(path.read_bytes(), prepare=False)
        ahead = one(
            conn,
            "select bool_and(s.reconcile_from > m.created_at) from gre_relay_sinks s, gre_chat_messages m",
        )
        assert ahead is True
        # Eight hours later.
        conn.execute("alter table gre_chat_messages disable trigger user")
        conn.execute("update gre_chat_messages set created_at = created_at - interval '9 hours'")
        conn.execute("update gre_relay_sinks set reconcile_from = reconcile_from - interval '9 hours'")
        assert one(conn, "select gre_relay_reconcile()")["missing"] == {}
    with db.connect() as conn:
        assert one(conn, "select bool_and(reconcile_from <= now()) from gre_relay_sinks")


def test_messages_from_the_time_when_a_sink_was_disabled_are_not_enqueued_for_it(
    conn: Conn, root: Conn, ops: Rest
) -> None:
    opened(conn)
    conn.execute("update gre_relay_sinks set enabled = false where name = 'onesignal'")
    session = send(conn, 1, "while off")["session_id"]
    root.execute("update gre_chat_messages set created_at = created_at - interval '10 minutes'")
    insert_without_triggers(root, session, 2, "smuggled while off")
    conn.execute("update gre_relay_sinks set enabled = true")
    assert pages(ops, "gre_relay_reconcile")[0]["missing"] == {"pusher": 1}


def test_reconcile_schedules_lanes_with_pending_deliveries(conn: Conn, root: Conn, ops: Rest) -> None:
    for player in (1, 2, 3):
        send(conn, player, str(player))
    drain(conn, "onesignal")
    conn.execute("update gre_relay_lanes set ready_at = null where sink = 'pusher'")
    conn.execute("delete from gre_relay_lanes where sink = 'pusher' and lane_key = (select id::text from gre_chat_sessions where player_id = 2)")  # fmt: skip
    before = everything(conn)
    assert ops.call("gre_relay_reconcile", dry_run=True)["lanes"] == 3
    assert everything(conn) == before
    assert claim(conn)["lanes"] == []
    assert ops.call("gre_relay_reconcile")["lanes"] == 3
    assert sorted(drain(conn)) == ["1", "2", "3"]
    assert ops.call("gre_relay_reconcile")["lanes"] == 0


def test_reconcile_enqueues_nothing_that_was_pruned(conn: Conn, root: Conn, ops: Rest) -> None:
    opened(conn, 30)
    send(conn, 1, "long ago")
    for sink in SINKS:
        drain(conn, sink)
    elapse(root, 8 * 86_400)
    root.execute("update gre_relay_deliveries set created_at = now() - interval '8 days', settled_at = now() - interval '8 days'")  # fmt: skip
    assert ops.call("gre_relay_prune", keep="7 days")["deliveries"] == 3
    assert pages(ops, "gre_relay_reconcile") == [{"checked": 0, "missing": {}, "lanes": 0, "next": None}]


# Prune --------------------------------------------------------------------------------------------------------


def long_ago(root: Conn, days: float = 8) -> None:
    """Make all rows this many days older."""
    elapse(root, days * 86_400)
    by = f"interval '{days} days'"
    for table, columns in {
        "gre_relay_deliveries": ("created_at", "settled_at"), "gre_chat_sessions": ("updated_at",),
        "push_notifications": ("created_at",), "gre_relay_sinks": ("reconcile_from",),
    }.items():  # fmt: skip
        root.execute(f"update {table} set {', '.join(f'{c} = {c} - {by}' for c in columns)}".encode())


def prune(ops: Rest, **arguments: Any) -> dict[str, int]:
    """Prune until nothing is left to delete; return the totals."""
    total: dict[str, int] = {}
    while any((page := ops.call("gre_relay_prune", **arguments)).values()):
        for name, count in page.items():
            total[name] = total.get(name, 0) + count
    return {name: count for name, count in total.items() if count}


def test_prune_deletes_old_settled_deliveries_and_nothing_else(conn: Conn, root: Conn, ops: Rest) -> None:
    send(conn, 1, "died")
    died = kill(conn, 2)
    drain(conn, "onesignal")
    send(conn, 2, "waits")
    send(conn, 3, "expired")
    send(conn, 4, "in hand")
    conn.execute("update gre_relay_lanes set ready_at = null where lane_key in (select id::text from gre_chat_sessions where player_id in (2, 3))")  # fmt: skip
    conn.execute("update gre_relay_deliveries set state = 'expired', settled_at = now() where lane_key = (select id::text from gre_chat_sessions where player_id = 3)")  # fmt: skip
    got = claim(conn)
    long_ago(root)
    send(conn, 5, "young")
    conn.execute("update gre_relay_deliveries set state = 'done', settled_at = now() where lane_key = (select id::text from gre_chat_sessions where player_id = 5)")  # fmt: skip
    assert prune(ops, keep="30 days") == {}
    assert prune(ops, keep="7 days", limit=2) == {"deliveries": 4, "lanes": 4}
    left = conn.execute("select state, count(*) as n from gre_relay_deliveries group by 1").fetchall()
    assert {r["state"]: r["n"] for r in left} == {"dead": 2, "pending": 6, "done": 3}
    assert {str(r["id"]) for r in conn.execute("select id from gre_relay_deliveries where state = 'dead'")} == set(died)  # fmt: skip
    assert settle(conn, *all_done(got))["lost"] == []
    assert one(conn, "select count(*) from gre_chat_messages") == 5
    # A resting lane with a pending delivery, which reconcile repairs, is kept.
    assert one(conn, "select count(*) from gre_relay_lanes where lane_key = (select id::text from gre_chat_sessions where player_id = 2)") == 2  # fmt: skip


def test_prune_keeps_at_least_one_hour(conn: Conn, root: Conn, ops: Rest) -> None:
    send(conn, 1)
    drain(conn)
    assert prune(ops, keep="0 seconds") == {}
    long_ago(root, 1 / 20)
    assert prune(ops, keep="-10 days")["deliveries"] == 2
    with pytest.raises(RefusalError, match="keep_missing"):
        ops.call("gre_relay_prune", keep=None)


def test_a_repeated_id_whose_deliveries_were_pruned_is_not_enqueued_again(
    db: Database, conn: Conn, root: Conn, ops: Rest
) -> None:
    name = uuid.uuid4()
    with Rest(db, SERVICE.acting_as("player:1")) as portal:
        portal.call("gre_send_message", message="once", id=name)
        for sink in SINKS:
            drain(conn, sink)
        long_ago(root)
        assert prune(ops, keep="7 days") == {"deliveries": 3, "lanes": 2}
        assert portal.call("gre_send_message", message="once", id=name)["duplicate"] is True
    conn.execute("insert into gre_chat_messages (id, player_id, sender, message) values (%s, 1, 'player', 'once') on conflict do nothing", [name])  # fmt: skip
    assert one(conn, "select count(*) from gre_relay_deliveries") == 0
    assert pages(ops, "gre_relay_reconcile")[0]["missing"] == {}
    # The next message creates the lane of its session again.
    send(conn, 1, "next")
    assert drain(conn) == ["next"]


def test_a_settle_of_pruned_deliveries_changes_nothing(conn: Conn, root: Conn, ops: Rest) -> None:
    session = send(conn, 1, "first")["session_id"]
    late = claim(conn, lease=0.1)
    conn.execute("update gre_relay_lanes set lease_until = now() - interval '1 second'")
    drain(conn)
    long_ago(root)
    prune(ops, keep="7 days")
    assert settle(conn, *all_done(late)) == {"busy": [], "lost": [], "waiting": 0}
    send(conn, 1, "second")
    assert settle(conn, *all_done(late))["lost"] == [str(session)]
    assert drain(conn) == ["second"]


def test_prune_deletes_the_pushes_of_the_bridge_and_none_of_portals(
    conn: Conn, root: Conn, ops: Rest
) -> None:
    conn.execute("insert into push_notifications (delivery_id, audience, title, status) values"
                 " (gen_random_uuid(), 'staff', 'ours', 'sent'), (null, 'staff', 'theirs', 'sent'), (null, 'staff', 'queued', 'queued')")  # fmt: skip
    long_ago(root)
    conn.execute("insert into push_notifications (delivery_id, audience, title, status) values (gen_random_uuid(), 'staff', 'young', 'sent')")  # fmt: skip
    assert prune(ops, keep="7 days") == {"pushes": 1}
    assert {r["title"] for r in conn.execute("select title from push_notifications")} == {"theirs", "queued", "young"}  # fmt: skip


def test_retention_deletes_old_closed_sessions_only(db: Database, conn: Conn, root: Conn, ops: Rest) -> None:
    def closed(player: int, text: str) -> None:
        send(conn, player, text)
        conn.execute("update gre_chat_sessions set status = 'closed' where player_id = %s", [player])

    closed(1, "old and closed")
    send(conn, 2, "old and open")
    for sink in SINKS:
        drain(conn, sink)
    closed(3, "closed, and it waits")
    conn.execute("insert into push_notifications (delivery_id, message_id, audience, title, status) select gen_random_uuid(), id, 'staff', message, 'sent' from gre_chat_messages")  # fmt: skip
    conn.execute("insert into gre_chat_sessions (player_id, status) values (5, 'closed')")
    conn.execute("update gre_relay_deliveries set state = 'done', settled_at = now() where lane_key = (select id::text from gre_chat_sessions where player_id = 5)")  # fmt: skip
    long_ago(root, 40)
    closed(1, "young and closed")
    found = prune(ops, keep="60 days", retention="30 days")
    assert found == {"sessions": 2, "messages": 1, "pushes": 1, "lanes": 2}
    assert {r["message"] for r in conn.execute("select message from gre_chat_messages")} == {
        "old and open", "closed, and it waits", "young and closed",
    }  # fmt: skip
    assert prune(ops, keep="60 days", retention="-1 days") == {}
    assert one(conn, "select count(*) from gre_chat_messages") == 3
    # After the pending delivery was sent, its session is deleted too.
    drain(conn)
    assert "closed, and it waits" in drain(conn, "onesignal")
    assert prune(ops, keep="60 days", retention="30 days")["messages"] == 1
    assert one(conn, "select count(*) from gre_chat_sessions where player_id = 2") == 1


def test_without_retention_no_session_is_deleted(conn: Conn, root: Conn, ops: Rest) -> None:
    send(conn, 1)
    conn.execute("update gre_chat_sessions set status = 'closed'")
    for sink in SINKS:
        drain(conn, sink)
    long_ago(root, 4000)
    assert set(prune(ops, keep="7 days")) == {"deliveries", "lanes"}
    assert one(conn, "select count(*) from gre_chat_messages") == 1


# Erasure -------------------------------------------------------------------------------------


def test_an_erased_player_is_not_replayed_retried_reconciled_or_kept(
    db: Database, conn: Conn, root: Conn, ops: Rest
) -> None:
    opened(conn)
    send(conn, 1, "zebra")
    died = kill(conn, 2)
    send(conn, 2, "stays")
    drain(conn)
    elapse(root, 600)
    ops.call("gre_relay_replay", since="2001-01-01", sink="pusher")
    with Rest(db, ADMIN) as admin:
        admin.call("gre_erase_player", player_id=1)
    assert ops.call("gre_relay_retry", ids=list(map(uuid.UUID, died))) == 0
    assert ops.call("gre_relay_dead") == []
    ops.call("gre_relay_replay", since="2001-01-01")
    assert pages(ops, "gre_relay_reconcile")[0]["missing"] == {}
    assert {text for text, _ in sent(conn, "pusher")} == {"stays"}
    assert "zebra" not in messages(claim(conn, "onesignal"))
