"""The trials of the access matrix: every operation and call, tried in one database as each caller.

What is right is not said here (integration/test_access_matrix.py says it). Cells: `y` done, `0` nothing was
there for this caller, `x` refused by grant or policy (42501), else the code of the refusal.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from tests.conftest import Database
from tests.support.access import (
    ADMIN,
    NOBODY,
    SERVICE,
    WORKER,
    Caller,
    Conn,
    RefusalError,
    as_jsonb,
    player,
    request,
    staff,
)
from tests.support.canary import note

CALLERS: dict[str, Caller] = {
    "no token": NOBODY,
    "player 29": player(29),
    "player 30": player(30),
    "staff": staff(),
    "admin": ADMIN,
    "service": SERVICE,
    "service as player:29": SERVICE.acting_as("player:29"),
    "service as staff:s1": SERVICE.acting_as("staff:s1"),
    "service as nobody": SERVICE.acting_as("nobody"),
    "worker": WORKER,
}


TEMPLATE = "00000000-0000-4000-8000-0000000000e1"
RULE = "00000000-0000-4000-8000-0000000000e2"


def file_id(player: int, *, sent: bool = False) -> str:
    """The id of a player's file."""
    return f"00000000-0000-4000-8000-0000000{'f' if sent else 'e'}{player:04d}"


@dataclass(frozen=True)
class Subject:
    """The owner of a row."""

    player: int
    session: str
    staff: str
    sink: str


class World:
    """A database with two players' conversations and three staff, and a connection as PostgREST has it."""

    def __init__(self, db: Database) -> None:
        with db.connect() as setup:
            setup.execute("insert into gre_staff (staff_id, display_name, role) values ('s1', 'Sam', 'staff'),"
                          " ('s2', 'Sue', 'staff'), ('a1', 'Ann', 'admin')")  # fmt: skip
            setup.execute(
                "insert into gre_chat_players (player_id, display_name) values (29, 'A'), (30, 'B')"
            )
            setup.execute("insert into gre_chat_blocks (player_id, reason) values (29, 'r'), (30, 'r')")
            setup.execute("insert into gre_online_status (staff_id) select staff_id from gre_staff")
            setup.execute(
                "insert into gre_relay_workers (id, host, version) select gen_random_uuid(), staff_id, '1' from gre_staff"
            )
            setup.execute(
                "insert into gre_hours (name, timezone) values ('pusher', 'UTC'), ('onesignal', 'UTC')"
            )
            setup.execute("update gre_chat_settings set assignment = 'round_robin'")
            setup.execute(
                "insert into gre_templates (id, shortcut, title, texts) values (%s, 'hi', 'hi', '{\"en\": \"hello\"}')",
                [TEMPLATE],
            )
            setup.execute(
                "insert into gre_auto_replies (id, name, occasion, texts, active) values (%s, 'a', 'opened', '{\"en\": \"hello\"}', false)",
                [RULE],
            )
            sessions = {}
            for number in (29, 30):
                for sender in ("player", "staff"):
                    row = setup.execute(
                        "insert into gre_chat_messages (player_id, sender, message) values (%s, %s, 'hello') returning session_id::text",
                        [number, sender],
                    ).fetchone()
                assert row is not None
                sessions[number] = row["session_id"]
                setup.execute(
                    "insert into gre_chat_attachments (id, player_id, session_id, message_id, place, by, name, kind, type, bytes,"
                    " announced_bytes, object_type, state) values (%s, %s, null, null, null, 'player', 'x', 'image', 'image/png', 1, 1,"
                    " 'image/png', 'ready'), (%s, %s, %s, gen_random_uuid(), 0, 'player', 'x', 'image', 'image/png', 1, 1, 'image/png', 'ready')",
                    [file_id(number), number, file_id(number, sent=True), number, sessions[number]],
                )
                setup.execute(
                    "insert into gre_storage_deletions (name, attachment_id) values (%s, gen_random_uuid())",
                    [f"{number}/x"],
                )
                setup.execute(
                    "insert into push_notifications (audience, title, data, status) values ('staff', 'hello', %s, 'sent')",
                    [Jsonb({"player_id": number})],
                )
        self.db = db
        self.conn = db.connect("authenticator")
        self.a = Subject(29, sessions[29], "s1", "pusher")
        self.b = Subject(30, sessions[30], "s2", "onesignal")

    def subjects(self, caller: str) -> tuple[Subject, Subject]:
        """Own and other for a caller."""
        if caller == "player 30":
            return self.b, self.a
        if caller == "admin":
            return Subject(29, self.a.session, "a1", "pusher"), self.b
        return self.a, self.b

    def cell(self, caller: str, trial: Any) -> str:
        """Own/other as `trial(conn, subject)` finds them; each in a transaction that is rolled back."""
        found = []
        for subject in self.subjects(caller):
            try:
                with request(self.conn, CALLERS[caller], keep=False) as conn:
                    found.append(trial(conn, subject))
            except RefusalError as refusal:
                found.append("x" if refusal.sqlstate == "42501" else refusal.code)
        return found[0] if found[0] == found[1] else "/".join(found)


WHERE = {
    "gre_chat_sessions": "id = %(session)s",
    "gre_chat_messages": "player_id = %(player)s",
    "gre_chat_events": "session_id = %(session)s",
    "gre_online_status": "staff_id = %(staff)s",
    "push_notifications": "data ->> 'player_id' = %(player)s::text",
    "gre_chat_players": "player_id = %(player)s",
    "gre_staff": "staff_id = %(staff)s",
    "gre_hours": "name = %(sink)s",
    "gre_hours_week": "hours = %(sink)s",
    "gre_hours_dates": "hours = %(sink)s",
    "gre_chat_settings": "single",
    "gre_chat_notes": "session_id = %(session)s",
    "gre_chat_blocks": "player_id = %(player)s",
    "gre_chat_assignments": "session_id = %(session)s",
    "gre_chat_cycles": "session_id = %(session)s",
    "gre_chat_responses": "session_id = %(session)s",
    "gre_chat_activity": "session_id = %(session)s",
    "gre_chat_ratings": "session_id = %(session)s",
    "gre_staff_load": "staff_id = %(staff)s",
    "gre_templates": "shortcut = 'hi'",
    "gre_auto_replies": "name = 'a'",
    "gre_auto_sent": "session_id = %(session)s",
    "gre_timers": "session_id = %(session)s",
    "gre_chat_attachments": "player_id = %(player)s and message_id is not null",
    "gre_storage_deletions": "name = %(player)s || '/x'",
    "gre_relay_sinks": "name = %(sink)s",
    "gre_relay_lanes": "lane_key = %(session)s::text",
    "gre_relay_deliveries": "lane_key = %(session)s::text",
    "gre_relay_workers": "host = %(staff)s",
}
UPDATE = {
    "gre_chat_sessions": "status = 'closed'",
    "gre_chat_messages": "status = 'read'",
    "gre_chat_events": "kind = 'closed'",
    "gre_online_status": "status = 'away'",
    "push_notifications": "title = 'changed'",
    "gre_chat_players": "chat_enabled = false",
    "gre_staff": "role = 'admin'",
    "gre_hours": "timezone = 'UTC'",
    "gre_hours_week": "weekday = 1",
    "gre_hours_dates": "label = 'changed'",
    "gre_chat_settings": "assignment = 'round_robin'",
    "gre_chat_notes": "text = 'changed'",
    "gre_chat_blocks": "reason = 'changed'",
    "gre_chat_assignments": "how = 'taken'",
    "gre_chat_cycles": "missed = true",
    "gre_chat_responses": "first = true",
    "gre_chat_activity": "messages = 1",
    "gre_chat_ratings": "score = 5",
    "gre_staff_load": "open_sessions = 0",
    "gre_templates": "title = 'changed'",
    "gre_auto_replies": "active = true",
    "gre_auto_sent": "skipped = 'late'",
    "gre_timers": "due_at = now()",
    "gre_chat_attachments": "state = 'ready'",
    "gre_storage_deletions": "due_at = now()",
    "gre_relay_sinks": "enabled = false",
    "gre_relay_lanes": "ready_at = null",
    "gre_relay_deliveries": "state = 'dead'",
    "gre_relay_workers": "info = '{}'",
}
INSERT = {
    "gre_chat_sessions": "(player_id) values (%(player)s)",
    "gre_chat_messages": "(player_id, sender, message) values (%(player)s, %(variant)s, 'forged?')",
    "gre_chat_events": "(session_id, rev, at, after_seq, kind) values (%(session)s, 99, now(), 0, 'closed')",
    "gre_online_status": "(staff_id, status) values (%(staff)s, 'online')",
    "push_notifications": "(audience, recipients, title, data) values ('player', '{player_29}', 'hello', jsonb_build_object('player_id', %(player)s))",
    "gre_chat_players": "(player_id) values (%(player)s)",
    "gre_staff": "(staff_id, role) values (%(staff)s, 'admin')",
    "gre_hours": "(name, timezone) values (%(sink)s || '2', 'UTC')",
    "gre_hours_week": "(hours, valid_from, weekday) values (%(sink)s, current_date + 2, 1)",
    "gre_hours_dates": "(hours, day) values (%(sink)s, current_date + 2)",
    "gre_chat_settings": "default values",
    "gre_chat_blocks": "(player_id, reason) values (%(player)s, 'forged?')",
    "gre_chat_notes": "(session_id, n, after_seq, staff_id, staff_name, text) values (%(session)s, 1, 0, %(staff)s, 'x', 'forged?')",
    "gre_chat_assignments": "(session_id, n, staff_id, how, after_seq, started_at) values (%(session)s, 9, %(staff)s, 'taken', 0, now())",
    "gre_chat_cycles": "(session_id, cycle, player_key, opened_at) values (%(session)s, 9, 1, now())",
    "gre_chat_responses": "(session_id, cycle, n, first, asked_seq, asked_at) values (%(session)s, 9, 1, true, 1, now())",
    "gre_chat_activity": "(session_id, quarter, sender, player_key, messages) values (%(session)s, now(), 'player', 1, 1)",
    "gre_chat_ratings": "(session_id, cycle, score, rated_at) values (%(session)s, 9, 1, now())",
    "gre_staff_load": "(staff_id) values (%(staff)s || '2')",
    "gre_templates": "(shortcut, title, texts) values ('x', 'x', '{}')",
    "gre_auto_replies": "(name, occasion, texts) values ('x', 'opened', '{}')",
    "gre_auto_sent": "(session_id, rule_id, key) values (%(session)s, gen_random_uuid(), 'x')",
    "gre_timers": "(session_id, kind, due_at, seq) values (%(session)s, 'idle_close', now(), 1)",
    "gre_chat_attachments": "(id, player_id, by, name, kind, type, bytes, announced_bytes, object_type) values (gen_random_uuid(), %(player)s, 'player', 'x', 'file', 'x', 1, 1, 'x')",
    "gre_storage_deletions": "(name, attachment_id) values (%(player)s || '/y', gen_random_uuid())",
    "gre_relay_sinks": "(name) values (%(sink)s || '2')",
    "gre_relay_lanes": "(sink, lane_key) values (%(sink)s, %(session)s)",
    "gre_relay_deliveries": "(sink, lane_key, ord, event) values (%(sink)s, %(session)s, 1, 'session')",
    "gre_relay_workers": "(id, host, version) values (gen_random_uuid(), %(staff)s, '1')",
}
# What has to make room first for an insert to be possible (done with the service key in the same transaction).
ROOM = {
    "gre_chat_sessions": "update gre_chat_sessions set status = 'closed'",
    "gre_online_status": "delete from gre_online_status",
    "gre_chat_players": "delete from gre_chat_players",
    "gre_staff": "delete from gre_staff",
}


def table_trial(table: str, operation: str) -> Any:
    """Do one operation on a table; y if it affected a row."""
    verb, _, variant = operation.partition(":")
    statement = {
        "select": f"select 1 from {table} where {WHERE[table]}",
        "insert": f"insert into {table} {INSERT[table]}",
        "update": f"update {table} set {UPDATE[table]} where {WHERE[table]}",
        "delete": f"delete from {table} where {WHERE[table]}",
    }[verb]

    def trial(conn: Conn, subject: Subject) -> str:
        if verb == "insert" and table in ROOM:
            conn.execute("select set_config('gre_test.role', current_user, true)")
            conn.execute("reset role")
            conn.execute("set local role service_role")
            conn.execute(ROOM[table].encode())
            conn.execute("reset role")
            conn.execute("select set_config('role', current_setting('gre_test.role'), true)")
        done = conn.execute(statement.encode(), {**vars(subject), "variant": variant})
        return "y" if done.rowcount else "0"

    return trial


def has(session: Subject, sessions: list[dict[str, Any]]) -> bool:
    """Return True if S or M of this subject is in a list."""
    return any(session.session in (s.get("id"), s.get("session_id")) for s in sessions)


# label: (arguments for a subject, what counts as done). The label begins with the function's name.
CALLS: dict[str, tuple[Any, Any]] = {
    "gre_whoami": (lambda _: {}, lambda r, _: r["role"]),
    "gre_send_message": (lambda s: {"message": "x", "player_id": s.player}, lambda r, s: r["message"]["player_id"] == s.player),
    "gre_send_message to a session": (lambda s: {"message": "x", "session_id": s.session}, lambda r, s: r["message"]["player_id"] == s.player),
    "gre_send_message as player": (lambda s: {"message": "x", "player_id": s.player, "sender": "player"}, lambda r, _: r["message"]["sender"] == "player"),
    "gre_send_message as staff": (lambda s: {"message": "x", "player_id": s.player, "sender": "staff"}, lambda r, _: r["message"]["sender"] == "staff"),
    "gre_send_message as system": (lambda s: {"message": "x", "player_id": s.player, "sender": "system"}, lambda r, _: r["message"]["sender"] == "system"),
    "gre_send_messages": (lambda s: {"messages": [{"message": "x", "player_id": s.player}]}, lambda r, _: len(r) == 1),
    "gre_send_messages as player": (lambda s: {"messages": [{"message": "x", "player_id": s.player, "sender": "player"}]}, lambda r, _: len(r) == 1),
    "gre_send_messages as staff": (lambda s: {"messages": [{"message": "x", "session_id": s.session, "sender": "staff"}]}, lambda r, _: len(r) == 1),
    "gre_staff_reply": (lambda s: {"message": "x", "session_id": s.session}, lambda r, _: r["message"]["sender"] == "staff"),
    "gre_chat_history of a player": (lambda s: {"player_id": s.player}, lambda r, s: has(s, r["messages"])),
    "gre_chat_history of a session": (lambda s: {"session_id": s.session, "sessions": True}, lambda r, s: has(s, r["messages"])),
    "gre_list_sessions": (lambda _: {}, lambda r, s: has(s, r["sessions"])),
    "gre_catch_up": (lambda s: {"since": {s.session: 0}}, lambda r, s: has(s, r["missed"]) and has(s, r["sessions"])),
    "gre_enter": (lambda s: {"since": {s.session: 0}}, lambda r, s: r["missed"] is not None and has(s, r["missed"]["sessions"])),
    "gre_mark_read": (lambda s: {"session_id": s.session, "up_to_seq": 2}, lambda r, _: r["changed"]),
    "gre_set_session_status": (lambda s: {"session_id": s.session, "status": "closed"}, lambda r, s: has(s, [r["session"]])),
    "gre_close_session": (lambda s: {"player_id": s.player}, lambda r, s: has(s, [r["session"]])),
    "gre_enable_player": (lambda s: {"player_id": s.player, "enabled": False}, lambda r, _: r["enabled"] is False),
    "gre_enable_all_players": (lambda _: {}, lambda r, _: r == 0),
    "gre_set_online_status": (lambda _: {"status": "online"}, lambda r, _: r["status"] == "online"),
    "gre_erase_player": (lambda s: {"player_id": s.player}, lambda r, _: r["messages"] == 2),
    "gre_link_user": (lambda s: {"user_id": str(uuid.uuid4()), "player_id": s.player}, lambda r, _: not r),
    "gre_session_queue": (lambda _: {}, lambda r, s: has(s, r["sessions"])),
    "gre_session_events": (lambda s: {"session_id": s.session}, lambda r, _: [e["kind"] for e in r["events"]] == ["opened"]),
    "gre_list_staff": (lambda _: {}, lambda r, s: s.staff in [one["staff_id"] for one in r]),
    "gre_set_staff": (lambda s: {"staff_id": s.staff, "settings": {"max_sessions": 3}}, lambda r, s: (r["staff_id"], r["max_sessions"]) == (s.staff, 3)),
    "gre_get_player": (lambda s: {"player_id": s.player}, lambda r, s: r["display_name"] == {29: "A", 30: "B"}[s.player]),
    "gre_operations": (lambda _: {}, lambda r, _: len(r["sinks"]) == 2),
    "gre_dead_letters": (lambda _: {}, lambda r, _: r["dead"] == []),
    "gre_report": (lambda _: {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}, lambda r, _: len(r["rows"]) == 1),
    "gre_report_sessions": (lambda _: {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "by": "none"}, lambda r, _: r["items"] == []),
    "gre_report_live": (lambda _: {}, lambda r, s: s.staff in [one["staff_id"] for one in r["staff"]]),
    "gre_export": (lambda _: {"what": "messages"}, lambda r, s: has(s, r["rows"])),
    "gre_retry_dead": (lambda _: {"ids": [uuid.uuid4()]}, lambda r, _: r == 0),
    "gre_take_session": (lambda s: {"session_id": s.session}, lambda r, s: has(s, [r["session"]])),
    "gre_release_session": (lambda s: {"session_id": s.session}, lambda r, s: has(s, [r["session"]])),
    "gre_transfer_session": (lambda s: {"session_id": s.session, "to_staff": "s2"}, lambda r, _: r["session"]["assigned_staff_id"] == "s2"),
    "gre_rate_session": (lambda s: {"session_id": s.session, "score": 5}, lambda r, s: has(s, [r["session"]])),
    "gre_report_check": (lambda _: {"from": "2001-01-01", "to": "2001-01-02"}, lambda r, _: r["checked"] == 0),
    "gre_add_note": (lambda s: {"session_id": s.session, "text": note()}, lambda r, s: has(s, [r["note"]])),
    "gre_list_notes": (lambda s: {"session_id": s.session}, lambda r, _: r["notes"] == []),
    "gre_search_messages": (lambda s: {"query": "hello", "player": s.player}, lambda r, s: has(s, r["messages"])),
    "gre_block_player": (lambda s: {"player_id": s.player, "reason": "r"}, lambda r, _: r["block"]["reason"] == "r"),
    "gre_unblock_player": (lambda s: {"player_id": s.player}, lambda r, _: r["enabled"]),
    "gre_get_settings": (lambda _: {}, lambda r, _: r["assignment"] == "round_robin"),
    "gre_set_settings": (lambda _: {"settings": {"assignment": "off"}}, lambda r, _: r["assignment"] == "off"),
    "gre_list_hours": (lambda _: {}, lambda r, _: len(r) == 2),
    "gre_get_desk": (lambda _: {}, lambda r, _: r["open"] in (True, False)),
    "gre_get_hours": (lambda s: {"name": s.sink}, lambda r, s: r["name"] == s.sink),
    "gre_set_hours": (lambda s: {"name": s.sink, "timezone": "UTC"}, lambda r, s: r["name"] == s.sink),
    "gre_delete_hours": (lambda s: {"name": s.sink}, lambda r, s: r["name"] == s.sink),
    "gre_list_templates": (lambda _: {}, lambda r, _: [one["id"] for one in r] == [TEMPLATE]),
    "gre_get_template": (lambda _: {"id": TEMPLATE}, lambda r, _: r["shortcut"] == "hi"),
    "gre_save_template": (lambda _: {"template": {"shortcut": "x", "title": "x", "texts": {"en": "x"}}}, lambda r, _: r["title"] == "x"),
    "gre_save_template of everybody": (lambda _: {"template": {"title": "x"}, "id": TEMPLATE}, lambda r, _: r["title"] == "x"),
    "gre_delete_template": (lambda _: {"id": TEMPLATE}, lambda r, _: r["id"] == TEMPLATE),
    "gre_render_template": (lambda s: {"template_id": TEMPLATE, "session_id": s.session}, lambda r, _: r == {"text": "hello", "missing": []}),
    "gre_list_auto_replies": (lambda _: {}, lambda r, _: len(r["auto_replies"]) == 1),
    "gre_get_auto_reply": (lambda _: {"id": RULE}, lambda r, _: r["name"] == "a"),
    "gre_save_auto_reply": (lambda _: {"auto_reply": {"name": "x"}, "id": RULE}, lambda r, _: r["name"] == "x"),
    "gre_delete_auto_reply": (lambda _: {"id": RULE}, lambda r, _: r["id"] == RULE),
    "gre_attachment_begin": (lambda s: {"id": uuid.uuid4(), "player_id": s.player, "name": "x", "bytes": 1}, lambda r, s: r["object"].startswith(f"{s.player}/")),
    "gre_attachment_get": (lambda s: {"id": file_id(s.player)}, lambda r, s: r["player_id"] == s.player),
    "gre_attachment_get a sent one": (lambda s: {"id": file_id(s.player, sent=True)}, lambda r, s: r["player_id"] == s.player),
    "gre_attachment_drop": (lambda s: {"id": file_id(s.player)}, lambda r, s: r["id"] == file_id(s.player)),
    "gre_attachment_drop a sent one": (lambda s: {"id": file_id(s.player, sent=True)}, lambda r, s: r["id"] == file_id(s.player)),
    "gre_attachment_names": (lambda s: {"ids": [uuid.UUID(file_id(s.player, sent=True))], "variant": "view"}, lambda r, _: bool(r)),
    "gre_storage_adopt": (lambda _: {}, lambda r, _: r is True),
    "gre_media_again": (lambda _: {"code": "not_scanned"}, lambda r, _: r["files"] == 0),
    "gre_media_claim_v1": (lambda _: {"worker": uuid.uuid4()}, lambda r, _: r["files"] == []),
    "gre_media_extend_v1": (lambda _: {"worker": uuid.uuid4(), "ids": [uuid.uuid4()]}, lambda r, _: r["held"] == []),
    "gre_media_settle_v1": (lambda _: {"worker": uuid.uuid4(), "results": Jsonb([])}, lambda r, _: r["settled"] == 0),
    "gre_media_sweep_v1": (lambda _: {}, lambda r, _: r["attachments"] == 0),
    "gre_storage_deletions_claim_v1": (lambda _: {"worker": uuid.uuid4()}, lambda r, _: len(r["names"]) == 2),
    "gre_storage_deletions_settle_v1": (lambda _: {"worker": uuid.uuid4(), "results": Jsonb([])}, lambda r, _: r["done"] == 0),
    "gre_storage_state_v1": (lambda _: {}, lambda r, _: r["on"]),
    "gre_tick_v1": (lambda _: {}, lambda r, _: r["handled"] == 0),
    "gre_assign_waiting_v1": (lambda _: {}, lambda r, _: r["enabled"]),
    "gre_report_pack_v1": (lambda _: {}, lambda r, _: r["packed"] is False),
    "gre_desk_stats_v1": (lambda _: {}, lambda r, _: r["assignment"] == "round_robin"),
    "gre_hub_changes_v1": (lambda s: {"sessions": [uuid.UUID(s.session)]}, lambda r, s: has(s, [x["session"] for x in r["sessions"]])),
    "gre_hub_presence_v1": (lambda s: {"staff": [s.staff], "players": [s.player], "expires_in": 10}, lambda r, _: "online" in r),
    "gre_relay_claim_v1": (lambda s: {"sink": s.sink, "token": str(uuid.uuid4())}, lambda r, _: len(r["lanes"]) == 2),
    "gre_relay_settle_v1": (lambda s: {"sink": s.sink, "results": Jsonb([])}, lambda r, _: r["busy"] == []),
    "gre_relay_exchange_v1": (lambda s: {"sink": s.sink, "results": Jsonb([]), "token": str(uuid.uuid4())}, lambda r, _: r["settled"]["busy"] == []),
    "gre_relay_extend_v1": (lambda s: {"sink": s.sink, "token": str(uuid.uuid4()), "lanes": [s.session]}, lambda r, _: r["extended"] == []),
    "gre_relay_release_v1": (lambda s: {"sink": s.sink, "owner": str(uuid.uuid4())}, lambda r, _: r["released"] == 0),
    "gre_relay_stats_v1": (lambda _: {}, lambda r, _: len(r) == 2),
    "gre_relay_report_v1": (lambda _: {"worker": str(uuid.uuid4()), "host": "h", "version": "1"}, lambda r, _: r["schema"] > 0),
    "gre_relay_listen_v1": (lambda _: {"listener": uuid.uuid4(), "kind": "relay", "polls_for": Decimal(1)}, lambda r, _: r["listeners"] > 0),
    "gre_relay_unlisten_v1": (lambda _: {"listener": uuid.uuid4()}, lambda r, _: not r),
    "gre_relay_leave_v1": (lambda _: {"worker": str(uuid.uuid4())}, lambda r, _: not r),
    "gre_relay_status": (lambda _: {}, lambda r, _: len(r["sinks"]) == 2),
    "gre_relay_notify_v1": (lambda _: {}, lambda r, _: r is True),
    "gre_relay_dead": (lambda s: {"session": s.session}, lambda r, _: r == []),
    "gre_relay_retry": (lambda _: {"ids": [uuid.uuid4()]}, lambda r, _: r == 0),
    "gre_relay_replay": (lambda s: {"session": s.session}, lambda r, _: "next" in r),
    "gre_relay_reconcile": (lambda _: {}, lambda r, _: "missing" in r),
    "gre_relay_expire": (lambda _: {"before": "2001-01-01"}, lambda r, _: r == 0),
    "gre_relay_prune": (lambda _: {"keep": "7 days"}, lambda r, _: r["messages"] == 0),
    "gre_schema_version": (lambda _: {}, lambda r, _: r > 0),
}  # fmt: skip


def function_trial(label: str) -> Any:
    """Call a function; y if it had its effect."""
    arguments, done = CALLS[label]

    def trial(conn: Conn, subject: Subject) -> str:
        given = {name: as_jsonb(value) for name, value in arguments(subject).items()}
        named = ", ".join(f"p_{name} => %({name})s" for name in given)
        row = conn.execute(
            f"select public.{label.split(maxsplit=1)[0]}({named}) as r".encode(), given
        ).fetchone()
        found = done(row["r"], subject) if row else False
        return found if isinstance(found, str) else "y" if found else "0"

    return trial


def find(world: World, operations: list[str]) -> dict[str, list[str]]:
    """The result of every caller, for each `table operation` and each call."""
    found = {}
    for line in operations:
        table, operation = line.split()
        found[line] = [world.cell(caller, table_trial(table, operation)) for caller in CALLERS]
    for label in CALLS:
        found[label] = [world.cell(caller, function_trial(label)) for caller in CALLERS]
    return found


def document(found: dict[str, list[str]]) -> str:
    """docs/access.md."""
    words = {"y": "yes", "0": "nothing", "x": "no"}

    def table(rows: dict[str, list[str]]) -> str:
        cells = [["", *CALLERS], ["---"] * (1 + len(CALLERS))]
        cells += [
            [f"`{name}`", *("/".join(words.get(c, c) for c in cell.split("/")) for cell in row)]
            for name, row in rows.items()
        ]
        widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
        return "\n".join(
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells
        )

    tables = {name: row for name, row in found.items() if name not in CALLS}
    functions = {name: row for name, row in found.items() if name in CALLS}
    return f"""# Who may do what

Found out by doing it, over the role `authenticator` as PostgREST does: `GRE_WRITE_ACCESS=1 make test ARGS=tests/integration/test_access_matrix.py`
writes this page, and the tests fail while it is out of date.

*yes*: done. *no*: refused by grant or policy (401 without a token, else 403). *nothing*: not there for this caller. A word: the code of the refusal.
*own/other* where they differ: the caller's own row, and another's.

## Tables

{table(tables)}

The service key bypasses row-level security on tables, whatever `X-GRE-Act-As` says: the header narrows what the functions do. The daemon calls functions only.
*worker* is a token with the role `gre_worker`; of the tables it sees nothing but `id`, `session_id` and `seq` of the messages, for Realtime's row changes.

## Functions

{table(functions)}
"""
