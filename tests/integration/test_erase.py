"""An erased player leaves no row in any table, and no lane waits for a deleted delivery."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Database
from tests.integration.test_outbox import claim, one, settle
from tests.integration.test_send import a, b, s
from tests.support.access import ADMIN, SERVICE, Caller, RefusalError, Rest
from tests.support.counters import count_now

__all__ = ["a", "b", "s"]

MARK = "zebra-crossing"


def leftovers(db: Database, *needles: str) -> list[tuple[str, str]]:
    """Tables of all schemas with a row that holds one of these texts."""
    with db.connect("supabase_admin") as conn:
        tables = conn.execute(
            "select format('%I.%I', schemaname, tablename) as t from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        return [
            (t["t"], needle)
            for t in tables
            for needle in needles
            if one(
                conn, f"select exists (select from {t['t']} x where x::text like '%%' || %s || '%%')", needle
            )
        ]


def test_an_erased_player_leaves_no_row_and_no_blocked_lane(db: Database, a: Rest, b: Rest, s: Rest) -> None:
    ids = []
    with db.connect() as setup:
        setup.execute("insert into gre_chat_players (player_id, display_name) values (29, %s)", [MARK])
        setup.execute("insert into gre_staff (staff_id) values ('s1')")
        b.call("gre_send_message", message="stays")
        for _ in range(2):
            ids.append(
                a.call("gre_send_message", message=MARK, metadata={"m": MARK})["message"]["session_id"]
            )
            s.call("gre_staff_reply", message=MARK, player_id=29)
            a.call("gre_mark_read", session_id=ids[-1], up_to_seq=2)
            s.call("gre_close_session", player_id=29)
        ids.append(a.call("gre_send_message", message=MARK)["message"]["session_id"])
        # A push in flight, one that was sent, and one that a back end queued.
        got = claim(setup, "onesignal", per_lane=1)
        lane = next(lane for lane in got["lanes"] if lane["lane_key"] == ids[0])
        receipt = {"delivery_id": lane["deliveries"][0]["id"], "message_id": lane["deliveries"][0]["message"]["id"], "audience": "staff",
                   "recipients": ["s1"], "title": MARK, "body": MARK, "data": {"session_id": ids[0]}, "status": "sent"}  # fmt: skip
        result = {
            "lane": ids[0],
            "token": got["token"],
            "done": [lane["deliveries"][0]["id"]],
            "receipts": [receipt],
        }
        settle(setup, {**result, "keep": True}, sink="onesignal")
        with Rest(db, SERVICE) as back_end:
            back_end.sql(
                "insert into push_notifications (audience, recipients, title, data) values ('player', '{player_29}', %s, '{}'), ('player', '{player_290}', 'stays', '{}')",
                MARK,
            )
            assert leftovers(db, MARK, *ids) != []
            assert back_end.call("gre_erase_player", player_id=29) == {
                "messages": 5,
                "sessions": 3,
                "pushes": 2,
                "attachments": 0,
                "objects": 0,
            }
            assert back_end.call("gre_erase_player", player_id=29) == {
                "messages": 0,
                "sessions": 0,
                "pushes": 0,
                "attachments": 0,
                "objects": 0,
            }
        settle(setup, result, sink="onesignal")  # the worker does not know of the erasure
        lanes = ("public.gre_relay_lanes", "realtime.messages")  # only ids of deleted rows
        assert [found for found in leftovers(db, MARK, 'player_29"', *ids) if found[0] not in lanes] == []
        assert [found for found in leftovers(db, MARK) if found[0] in lanes] == []

        for sink in ("pusher", "onesignal"):
            setup.execute("update gre_relay_lanes set lease_until = null")
            got = claim(setup, sink)
            found = [d for la in got["lanes"] for d in la["deliveries"]]
            assert {d["message"]["message"] for d in found if d["message"]} <= {"stays"}
            assert all(d["message"] or d["session"] or d["push"]["title"] == "stays" for d in found)
            settle(setup, *({"lane": la["lane_key"], "token": got["token"], "done": [d["id"] for d in la["deliveries"]]} for la in got["lanes"]), sink=sink)  # fmt: skip
            rest = claim(setup, sink)
            assert (rest["lanes"], rest["emptied_lanes"], rest["next_in"]) == ([], 0, None)
        # The player may write again, as a new player.
        fresh = a.call("gre_send_message", message="again")["message"]
        assert (fresh["seq"], fresh["player_name"]) == (1, "Player 29")
        claimed = claim(setup)
        assert [la["lane_key"] for la in claimed["lanes"]] == [fresh["session_id"]]


@pytest.mark.parametrize("caller", [ADMIN, SERVICE.acting_as("staff:a1")])
def test_an_admin_may_erase(db: Database, a: Rest, caller: Caller) -> None:
    with db.connect() as setup:
        setup.execute("insert into gre_staff (staff_id, role) values ('a1', 'admin')")
    a.call("gre_send_message", message=MARK)
    with Rest(db, caller) as admin:
        assert admin.call("gre_erase_player", player_id=29)["messages"] == 1
        assert admin.call("gre_erase_player", player_id=None)["messages"] == 0


def test_a_receipt_of_a_push_in_flight_is_written_while_the_delivery_exists(db: Database, a: Rest) -> None:
    a.call("gre_send_message", message="x")
    with db.connect() as worker:
        got = claim(worker, "onesignal")
        (delivery,) = got["lanes"][0]["deliveries"]
        receipts = [
            {"delivery_id": key, "audience": "staff", "title": "t", "status": "sent"}
            for key in (delivery["id"], str(uuid.uuid4()))
        ]
        row = {
            "lane": got["lanes"][0]["lane_key"],
            "token": got["token"],
            "done": [delivery["id"]],
            "receipts": receipts,
        }
        worker.execute("select gre_relay_settle_v1('onesignal', %s)", [Jsonb([row])])
        assert one(worker, "select array_agg(delivery_id::text) from push_notifications") == [delivery["id"]]


def test_a_disabled_player_stays_disabled_and_nothing_else_is_kept(db: Database, a: Rest) -> None:
    with db.connect() as conn, Rest(db, SERVICE) as service:
        a.call("gre_send_message", message=MARK)
        conn.execute(
            "insert into gre_chat_players (player_id, user_id, display_name, chat_enabled) values (29, gen_random_uuid(), %s, false)",
            [MARK],
        )
        service.call("gre_erase_player", player_id=29)
        row = conn.execute(
            "select player_id, user_id, display_name, chat_enabled from gre_chat_players"
        ).fetchone()
        assert row == {"player_id": 29, "user_id": None, "display_name": None, "chat_enabled": False}
        with pytest.raises(RefusalError, match="chat_disabled"):
            a.call("gre_send_message", message="again")
    assert leftovers(db, MARK) == []


def test_pushes_are_found_by_each_external_id_of_the_player(db: Database) -> None:
    push = "insert into push_notifications (audience, recipients, title) values ('player', %s, %s)"
    with db.connect() as conn, Rest(db, SERVICE) as service:
        service.call(
            "gre_relay_report_v1",
            worker=str(uuid.uuid4()),
            host="h",
            version="1",
            info={"player_external_id": "guest-{player_id}"},
        )
        conn.execute(push, [["guest-29"], MARK])
        conn.execute(push, [["player_29"], MARK])  # from before the template was changed
        conn.execute(push, [["guest-290"], "stays"])
        assert service.call("gre_erase_player", player_id=29)["pushes"] == 2
    assert leftovers(db, MARK) == []


LONG = "x" * 6000
MANY = [f"player_{n}" for n in range(1000, 1150)]
TIED: dict[str, tuple[str, list[Any] | None, Any]] = {
    "one of two recipients": ("player", ["player_30", "player_29"], {}),
    "a recipient in a list of lists": ("player", [["player_30"], ["player_29"]], None),
    "one of 151 recipients": ("player", [*MANY, "player_29"], {}),
    "beside a recipient longer than an entry of an index": ("player", [LONG, "player_29"], {}),
    "the player in its data": ("staff", None, {"player_id": "29"}),
    "the player's number in its data": ("staff", ["s1"], {"player_id": 29}),
    "the session in its data": ("staff", ["s1"], {"session_id": "SESSION"}),
}
UNTIED: dict[str, tuple[str, list[Any] | None, Any]] = {
    "staff whose id is the player's": ("staff", ["29", "player_29"], {"session_id": None}),
    "151 others": ("player", [*MANY, "player_290"], {}),
    "data that are long": ("staff", None, {"session_id": LONG, "player_id": LONG}),
    "data that are a list": ("staff", None, ["29"]),
    "data that are a number": ("staff", None, 29),
    "no data": ("staff", None, None),
}


def test_pushes_are_found_by_whatever_ties_them_to_the_player(db: Database, a: Rest) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    with db.connect() as conn, Rest(db, SERVICE) as service:
        for title, (audience, recipients, data) in {**TIED, **UNTIED}.items():
            conn.execute(
                "insert into push_notifications (audience, recipients, title, data) values (%s, %s, %s, %s)",
                [
                    audience,
                    recipients,
                    title,
                    None if data is None else json.dumps(data).replace("SESSION", session),
                ],
            )
        conn.execute(
            "insert into push_notifications (message_id, title, audience) select id, 'the message', 'staff' from gre_chat_messages"
        )
        assert service.call("gre_erase_player", player_id=29)["pushes"] == len(TIED) + 1
        left = conn.execute("select title from push_notifications").fetchall()
    assert {row["title"] for row in left} == set(UNTIED)


def test_an_erasure_reads_the_pushes_of_the_player_only(db: Database, a: Rest) -> None:
    a.call("gre_send_message", message="x")
    with db.connect("supabase_admin") as admin, Rest(db, SERVICE) as service:
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into push_notifications (message_id, audience, recipients, title, data, status)"
            " select gen_random_uuid(), 'player', array['player_' || 20 + g % 1000], 'x',"
            " jsonb_build_object('session_id', md5(g::text)::uuid, 'player_id', 20 + g % 1000), 'sent' from generate_series(1, 5000) g"
        )
        admin.execute("vacuum analyze push_notifications")

        def reads() -> tuple[int, int]:
            for conn in (service.conn, admin):
                count_now(conn)
            admin.execute("select pg_stat_clear_snapshot()")
            row = admin.execute(
                "select seq_tup_read as scanned, (select sum(idx_tup_read)::int from pg_stat_user_indexes i where i.relid = t.relid) as found"
                " from pg_stat_user_tables t where relname = 'push_notifications'"
            ).fetchone()
            assert row is not None
            return row["scanned"], row["found"]

        scanned, found = reads()
        assert service.call("gre_erase_player", player_id=29)["pushes"] == 5
        now_scanned, now_found = reads()
        assert (now_scanned - scanned, now_found - found < 50) == (0, True)


def test_a_role_of_the_project_may_queue_pushes(db: Database) -> None:
    """The index of an erasure is written by whoever inserts, so its function is for everybody."""
    role = f"back_end_{uuid.uuid4().hex[:8]}"
    with db.connect("supabase_admin") as admin:
        admin.execute(f"create role {role} bypassrls".encode())
        try:
            admin.execute(f"grant insert on push_notifications to {role}".encode())
            admin.execute(f"set role {role}".encode())
            admin.execute(
                "insert into push_notifications (audience, recipients, title) values ('player', '{player_29}', 'x')"
            )
            admin.execute("reset role")
            assert admin.execute("select title from push_notifications").fetchall() == [{"title": "x"}]
        finally:
            admin.execute("reset role")
            admin.execute(f"drop owned by {role}".encode())
            admin.execute(f"drop role {role}".encode())


def test_no_erased_text_is_in_the_statistics(db: Database, a: Rest) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_players (player_id, display_name) values (29, %s), (30, 'B')", [MARK]
        )
        conn.execute("insert into push_notifications (audience, recipients, title, body, data) select 'player', array[%s], %s, %s, %s"
                     " from generate_series(1, 20)", [MARK, MARK, MARK, Jsonb({"x": MARK})])  # fmt: skip
        for _ in range(20):
            a.call("gre_send_message", message=MARK, player_name=MARK, metadata={"m": MARK})
        conn.execute("update gre_chat_sessions set status = 'closed'")
        for table in ("gre_chat_messages", "gre_chat_sessions", "gre_chat_players", "push_notifications"):
            conn.execute(f"analyze {table}".encode())
    with db.connect("supabase_admin") as admin:
        assert (
            admin.execute(
                "select starelid::regclass, staattnum from pg_statistic s where s::text like '%%' || %s || '%%'",
                [MARK],
            ).fetchall()
            == []
        )
