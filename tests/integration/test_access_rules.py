"""The assumptions of the access matrix: grants on columns, helpers, definer functions, roles and the private topic.

No caller can forge values of the server.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gre_bridge.db.relay import SCHEMA_VERSIONS
from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import Database, own_database
from tests.support.access import (
    ADMIN,
    NOBODY,
    SERVICE,
    Caller,
    RefusalError,
    Rest,
    player,
    request,
    staff,
    user,
)
from tests.support.stack import StackProcess

ROLES = ("anon", "authenticated", "service_role", "gre_worker")

# What each role may select, insert and update of a table's columns: `*` all of them, `-` none.
COLUMNS = """
gre_chat_sessions     authenticated  *  *  status,assigned_staff_id
gre_chat_messages     authenticated  *  *  -
gre_online_status     authenticated  *  *  *
push_notifications    authenticated  *  *  -
gre_chat_players      authenticated  *  -  -
gre_staff             authenticated  *  -  -
gre_chat_events       authenticated  *  -  -
gre_chat_blocks       authenticated  *  -  -
gre_chat_sessions     service_role   *  *  *
gre_chat_messages     service_role   *  *  *
gre_online_status     service_role   *  *  *
push_notifications    service_role   *  *  *
gre_chat_players      service_role   *  *  *
gre_staff             service_role   *  *  *
gre_chat_events       service_role   *  -  -
gre_chat_blocks       service_role   *  -  -
gre_relay_sinks       service_role   *  -  -
gre_relay_lanes       service_role   *  -  -
gre_relay_deliveries  service_role   *  -  -
gre_relay_workers     service_role   *  -  -
gre_chat_attachments  authenticated  id,player_id,session_id,message_id,place,by,staff_id,name,alt,kind,type,bytes,width,height,preview,state,refused,rev,created_at,stored_at,ready_at,changed_at  -  -
gre_chat_attachments  service_role   *  -  -
gre_storage_deletions  service_role  *  -  -
gre_chat_messages     gre_worker     id,session_id,seq  -  -
"""

# Helpers outside the exposed schemas, and which roles may execute them besides their owner.
HELPERS = {
    "anon authenticated service_role gre_worker": {"push_keys"},
    "anon authenticated service_role": {"current_actor", "is_staff", "is_admin", "my_player_id", "my_staff_id"},
    "authenticated service_role": {
        "clean_name", "name_key", "has_text", "json_fits", "raise_row_denied", "session_name", "staff_name", "check_assignee", "raise_http", "require_actor", "require_staff", "iso", "format_cursor", "parse_cursor", "check_player_id", "message_json", "session_json", "sessions_json", "event_json", "check_not_moved", "player_json", "normalize_sender", "find_duplicate",
        "presence", "count_template", "attachments_json", "missed_attachments", "may_upload_object", "may_fetch_object",
    },
    "": {
        "notify_workers", "notify_media", "broadcast_wakeup", "enqueue_event", "messages_enqueue", "sessions_enqueue", "pushes_enqueue", "write_receipts", "max_lease",
        "max_backoff", "messages_check", "messages_before_insert", "messages_assign_seq", "is_nested", "messages_after_insert", "messages_before_update", "messages_rate_limit", "check_rate_limit",
        "sessions_check", "presence_check", "pushes_check", "count_messages", "enqueue_messages", "flush_session", "safe_player_name", "sessions_before_write", "opened_data", "sessions_record_opening", "sessions_record_change", "sessions_record_deletion", "people_after_change", "rate_limit_messages",
        "rate_limit_window", "parse_player_id", "mapped_actor", "revoked_identities", "sinks_before_enable", "schedule_lanes", "reenqueue_messages", "require_admin",
        "require_worker", "relay_stats", "retry_dead", "max_text_length", "push_error", "pushes_check_size", "push_json", "insert_receipts", "presence_before_update", "lock_tables",
        "new_events", "hours_check", "hours_entries_check", "local_range", "open_ranges", "open_seconds", "open_at", "next_open", "open_until", "after_open",
        "settings_before_update", "settings_after_update", "settings_json", "hours_json", "add_note", "added_note", "announce_note", "note_json", "new_notes", "add_block_events", "set_block", "search_scan", "search_index", "staff_load_added", "change_load",
        "sessions_assignment", "sessions_truncated", "lock_session", "assign_session", "require_holder", "available_staff", "staff_json", "offline_since", "offline_staff", "release_waiting",
        "placeholder_pattern", "check_texts", "check_room", "choose_language", "session_language", "local_time", "render_text", "template_json", "find_template",
        "somebody_online", "choose_auto_reply", "question_seq", "auto_key", "send_auto_reply", "auto_reply_json",
        "whole_seconds", "desk_seconds", "question_due", "player_key", "add_cycle", "count_figures", "messages_figures",
        "sessions_open_figures", "sessions_figures", "figures_truncated", "export_time", "export_query", "expected_figures", "found_figures",
        "report_facts", "report_buckets", "check_report", "report_pieces", "report_row", "report_durations", "report_statement", "report_cut",
        "report_pack_range", "report_begin", "report_unpack", "report_differences",
        "arm_idle", "settings_arm_idle", "apply_idle_change", "check_chat_enabled", "start_auto_replies", "messages_auto_reply", "fire_timer",
        "max_file_bytes", "file_types", "upload_type", "file_name", "view_name", "storage_on", "object_name", "is_author", "may_see", "may_fetch", "delete_attachments",
        "files_text", "is_files_text", "messages_files_text", "messages_bind_files", "changed_attachments", "messages_delete_files",
        "retry_pause", "lease_end", "is_due", "due_in", "settle_file",
        "find_attachment", "object_file", "objects_check", "objects_kept", "objects_pinned", "objects_stored",
        "media_due",
    },
}  # fmt: skip

# Functions that cross row-level security: each asks who is calling, or only the service key may call it.
DEFINERS = {
    "gre": {
        "current_actor", "mapped_actor", "revoked_identities", "notify_workers", "notify_media", "broadcast_wakeup", "enqueue_event", "messages_enqueue",
        "sessions_enqueue", "pushes_enqueue", "write_receipts",
        "messages_before_insert", "messages_assign_seq", "messages_after_insert", "messages_rate_limit", "check_rate_limit", "count_messages", "enqueue_messages",
        "flush_session", "safe_player_name", "session_name", "staff_name", "check_assignee", "people_after_change", "find_duplicate",
        "sessions_record_opening", "sessions_record_change", "sessions_record_deletion",
        "require_worker", "presence", "check_not_moved", "pushes_check_size", "retry_dead", "staff_load_added", "sessions_assignment",
        "messages_figures", "sessions_open_figures", "sessions_figures", "figures_truncated",
        "count_template", "settings_arm_idle", "messages_auto_reply", "may_upload_object", "may_fetch_object", "objects_check", "objects_kept", "objects_stored",
        "messages_files_text", "messages_bind_files", "messages_delete_files",
    },
    "public": {
        "gre_whoami", "gre_mark_read", "gre_set_session_status", "gre_close_session", "gre_enable_player",
        "gre_enable_all_players", "gre_erase_player", "gre_link_user", "gre_set_online_status", "gre_hub_changes_v1", "gre_hub_presence_v1",
        "gre_relay_claim_v1", "gre_relay_settle_v1", "gre_relay_extend_v1", "gre_relay_release_v1", "gre_relay_stats_v1",
        "gre_relay_report_v1", "gre_relay_leave_v1", "gre_relay_listen_v1", "gre_relay_unlisten_v1", "gre_relay_status", "gre_relay_notify_v1",
        "gre_relay_dead", "gre_relay_retry", "gre_relay_replay", "gre_relay_reconcile", "gre_relay_expire", "gre_relay_prune", "gre_session_queue",
        "gre_operations", "gre_dead_letters", "gre_retry_dead", "gre_relay_exchange_v1",
        "gre_get_settings", "gre_set_settings", "gre_list_hours", "gre_get_hours", "gre_set_hours", "gre_delete_hours", "gre_get_desk", "gre_take_session", "gre_release_session",
        "gre_transfer_session", "gre_list_staff", "gre_set_staff", "gre_assign_waiting_v1", "gre_desk_stats_v1",
        "gre_add_note", "gre_list_notes", "gre_block_player", "gre_unblock_player", "gre_search_messages", "gre_export",
        "gre_report", "gre_report_sessions", "gre_report_live", "gre_report_pack_v1",
        "gre_list_templates", "gre_get_template", "gre_save_template", "gre_delete_template", "gre_render_template", "gre_list_auto_replies",
        "gre_get_auto_reply", "gre_save_auto_reply", "gre_delete_auto_reply", "gre_tick_v1",
        "gre_attachment_begin", "gre_attachment_get", "gre_attachment_drop", "gre_attachment_names",
        "gre_media_claim_v1", "gre_media_extend_v1", "gre_media_settle_v1", "gre_media_again", "gre_media_sweep_v1", "gre_storage_deletions_claim_v1", "gre_storage_deletions_settle_v1",
        "gre_storage_state_v1", "gre_rate_session", "gre_report_check",
    },
}  # fmt: skip


# Values that a portal may claim for columns that belong to the server, and what is stored instead.
FORGED_MESSAGE = {
    "seq": 999, "status": "read", "created_at": "2001-01-01T00:00:00Z", "sender_id": "somebody", "session_id": None, "origin": "auto",
}  # fmt: skip
FORGED_SESSION: dict[str, Any] = {
    "last_seq": 999, "rev": 999, "unread_by_staff": 999, "unread_by_player": 999, "staff_read_seq": 999, "player_read_seq": 999,
    "staff_read_at": "2001-01-01T00:00:00Z", "player_read_at": "2001-01-01T00:00:00Z", "last_message_at": "2001-01-01T00:00:00Z",
    "created_at": "2001-01-01T00:00:00Z", "updated_at": "2001-01-01T00:00:00Z", "closed_at": "2001-01-01T00:00:00Z",
    "waiting_since": "2001-01-01T00:00:00Z", "changed_xid": "7", "closed_by": "idle", "cycle": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    """One database for the tests that only read or roll back."""
    with own_database(pg, migrated_template, "access_rules") as database:
        yield database


def rows(db: Database, query: str) -> list[dict[str, Any]]:
    with db.connect() as conn:
        return conn.execute(query.encode()).fetchall()


def test_the_grants_on_columns_are_those_of_this_file(shared: Database) -> None:
    found = {}
    for row in rows(
        shared,
        f"""select c.relname, r.role, p.privilege, array_agg(a.attname order by a.attnum)
              filter (where has_column_privilege(r.role, c.oid, a.attnum, p.privilege)) as columns, count(*) as n
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            cross join unnest(array{list(ROLES)}) r (role)
            cross join unnest(array['select', 'insert', 'update']) with ordinality p (privilege, nth)
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
            group by 1, 2, 3, p.nth order by p.nth""",
    ):
        columns = row["columns"] or []
        said = "*" if len(columns) == row["n"] else ",".join(columns) or "-"
        found.setdefault((row["relname"], row["role"]), []).append(said)
    wanted = {(line.split()[0], line.split()[1]): line.split()[2:] for line in COLUMNS.strip().splitlines()}
    assert {key: cells for key, cells in found.items() if cells != ["-"] * 3} == wanted


def test_no_user_may_truncate_or_create_triggers(shared: Database) -> None:
    more = rows(
        shared,
        "select c.relname, r.role from pg_class c cross join unnest(array['anon', 'authenticated', 'gre_worker']) r (role)"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'"
        " and has_table_privilege(r.role, c.oid, 'truncate, trigger, references')",
    )
    assert more == []


def test_helpers_are_callable_by_the_roles_of_this_file_only(shared: Database) -> None:
    found: dict[str, set[str]] = {}
    for row in rows(
        shared,
        f"""select p.proname, array_to_string(array(select r from unnest(array{list(ROLES)}) r
                                                    where has_function_privilege(r, p.oid, 'execute')), ' ') as roles
            from pg_proc p where p.pronamespace = 'gre'::regnamespace""",
    ):
        found.setdefault(row["roles"], set()).add(row["proname"])
    assert found == HELPERS


def test_definer_functions_are_those_of_this_file_and_every_search_path_is_empty(shared: Database) -> None:
    functions = rows(
        shared,
        "select pronamespace::regnamespace::text as schema, proname, prosecdef, proconfig, pg_get_userbyid(proowner) as owner"
        " from pg_proc where pronamespace in ('gre'::regnamespace, 'public'::regnamespace)",
    )
    definers = {s: {f["proname"] for f in functions if f["prosecdef"] and f["schema"] == s} for s in DEFINERS}
    assert definers == DEFINERS
    assert {f["owner"] for f in functions} == {"postgres"}
    loose = {f["proname"] for f in functions if 'search_path=""' not in (f["proconfig"] or [])}
    assert loose == set()


def test_a_function_that_forbids_plans_compiles_none(shared: Database) -> None:
    """Before PostgreSQL 18 a forbidden scan that is needed counts as immensely dear, so each call would compile its plan, for a second."""
    functions = rows(
        shared,
        "select proname, proconfig from pg_proc where pronamespace in ('gre'::regnamespace, 'public'::regnamespace)",
    )
    forbidding = [f for f in functions if any(c.startswith("enable_") for c in f["proconfig"] or [])]
    assert len(forbidding) > 20
    assert [f["proname"] for f in forbidding if "jit=off" not in f["proconfig"]] == []


def test_the_api_roles_are_members_of_no_role_and_create_nothing(shared: Database) -> None:
    members = rows(
        shared,
        f"select member::regrole::text from pg_auth_members where member = any (array{list(ROLES)}::regrole[])",
    )
    assert members == []
    holders = rows(
        shared,
        "select distinct member::regrole::text as m from pg_auth_members"
        " where roleid = any (array['service_role', 'gre_worker']::regrole[])",
    )
    assert {h["m"] for h in holders} == {"authenticator", "postgres", "supabase_storage_admin"}
    create = "select has_schema_privilege(r, s, 'create') as x from unnest(array['anon', 'authenticated', 'service_role', 'gre_worker', 'authenticator']) r,"
    assert {r["x"] for r in rows(shared, create + " unnest(array['gre', 'public']) s")} == {False}
    for caller in (NOBODY, player(29), staff()):
        with Rest(shared, caller) as rest:
            for query in (
                "create table public.mine ()",
                "create function public.mine() returns int language sql as 'select 1'",
            ):
                with pytest.raises(RefusalError, match="42501"):
                    rest.sql(query)


@pytest.mark.parametrize("caller", [NOBODY, player(29), staff(), ADMIN])
def test_no_user_receives_or_sends_wakeups(shared: Database, caller: Caller) -> None:
    with shared.connect("supabase_admin") as admin:
        admin.execute("drop policy if exists open on realtime.messages")
        admin.execute(
            "create policy open on realtime.messages for all to public using (true) with check (true)"
        )
        admin.execute("select realtime.send('{}', 'wakeup', 'gre:relay', true)")
    ring = "insert into realtime.messages (topic, extension, payload, event, private) values (%s, 'broadcast', '{}', 'x', true)"
    with Rest(shared, caller) as rest:
        assert rest.sql("select from realtime.messages where topic = 'gre:relay'") == []
        with request(rest.conn, caller, keep=False) as conn:
            conn.execute("select set_config('realtime.topic', 'gre:relay', true)")
            assert conn.execute("select from realtime.messages").fetchall() == []
        with pytest.raises(RefusalError, match="42501"):
            rest.sql(ring, "gre:relay")
        with request(rest.conn, caller, keep=False) as conn:
            conn.execute("select set_config('realtime.topic', 'gre:relay', true)")
            with pytest.raises(Exception, match="row-level security"):
                conn.execute(ring, ["elsewhere"])
        rest.sql(ring, "another topic")


@pytest.mark.parametrize(
    ("caller", "sender", "sender_id"),
    [(player(29), "player", "29"), (staff(), "staff", "s1"), (ADMIN, "staff", "a1"),
     (SERVICE.acting_as("staff:s1"), "staff", "s1"), (SERVICE.acting_as("player:29"), "player", "29"),
     (SERVICE, "player", "29"), (SERVICE, "staff", "somebody"), (SERVICE, "system", "somebody")],
)  # fmt: skip
def test_values_of_the_server_cannot_be_inserted(
    db: Database, caller: Caller, sender: str, sender_id: str
) -> None:
    """The service key without an actor names the player of a staff message."""
    with db.connect() as setup:
        setup.execute("insert into gre_staff (staff_id, role) values ('s1', 'staff'), ('a1', 'admin')")
    with Rest(db, caller) as rest:
        names = ", ".join(FORGED_MESSAGE)
        values = list(FORGED_MESSAGE.values())
        for nth in (1, 2):
            (found,) = rest.sql(
                f"insert into gre_chat_messages (player_id, sender, message, {names}) values (29, %s, 'x', {', '.join(['%s'] * len(values))})"  # type: ignore[arg-type]
                " returning *, created_at > clock_timestamp() - interval '1 minute' as recent",
                sender,
                *values,
            )
            assert (found["seq"], found["status"], found["sender_id"], found["recent"]) == (
                nth,
                "sent",
                sender_id,
                True,
            )


@pytest.mark.parametrize("caller", [player(29), staff(), ADMIN, SERVICE, SERVICE.acting_as("player:29")])
def test_counters_and_read_marks_of_a_session_cannot_be_inserted(db: Database, caller: Caller) -> None:
    with Rest(db, caller) as rest:
        rest.sql(
            f"insert into gre_chat_sessions (player_id, {', '.join(FORGED_SESSION)}) values (29, {', '.join(['%s'] * len(FORGED_SESSION))})",  # type: ignore[arg-type]
            *FORGED_SESSION.values(),
        )
        (found,) = rest.sql("select * from gre_chat_sessions")
    for name in FORGED_SESSION:
        assert found[name] in (0, None) or name in (
            "rev",
            "created_at",
            "updated_at",
            "changed_xid",
            "cycle",
        ), name
    assert found["changed_xid"] != "7"
    assert (found["rev"], found["cycle"]) == (1, 1)
    assert found["created_at"] == found["updated_at"]
    assert found["created_at"].year > 2001


def test_values_of_the_server_cannot_be_updated(db: Database) -> None:
    with Rest(db, player(29)) as a:
        a.call("gre_send_message", message="hello")
    with Rest(db, SERVICE) as service:
        (before,) = service.sql("select * from gre_chat_sessions")
        for name, value in FORGED_SESSION.items():
            service.sql(f"update gre_chat_sessions set {name} = %s", value)  # type: ignore[arg-type]
        service.sql("update gre_chat_sessions set id = gen_random_uuid(), player_id = 30")
        (after,) = service.sql("select * from gre_chat_sessions")
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {"rev", "updated_at", "changed_xid"}
        assert after["changed_xid"] != "7"
        assert after["rev"] == before["rev"] + len(FORGED_SESSION) + 1

        (before,) = service.sql("select * from gre_chat_messages")
        forged = {
            **FORGED_MESSAGE,
            "id": uuid.uuid4(),
            "session_id": uuid.uuid4(),
            "player_id": 30,
            "sender": "staff",
            "message": "other",
        }
        for name, value in forged.items():
            service.sql(f"update gre_chat_messages set {name} = %s", value)  # type: ignore[arg-type]
        (after,) = service.sql("select * from gre_chat_messages")
        assert {name for name in before if before[name] != after[name]} == {"status"}
        service.sql("update gre_chat_messages set status = 'sent'")
        (after,) = service.sql("select * from gre_chat_messages")
        assert after["status"] == "read"

    with Rest(db, staff()) as s:
        for name, value in FORGED_SESSION.items():
            with pytest.raises(RefusalError, match="42501"):
                s.sql(f"update gre_chat_sessions set {name} = %s", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caller", "role"),
    [
        (NOBODY, "none"),
        (user(), "none"),
        (user("service"), "none"),
        (user("player", player_id="29"), "player"),
        (user("player", player_id="29 or 1=1"), "none"),
        (user("player", player_id=-29), "none"),
        (user("player", player_id=29.5), "none"),
        (user("player", player_id=10**18), "none"),
        (user("player", player_id=[29]), "none"),
        (user("player", staff_id="s1"), "none"),
        (user("staff", player_id=29), "none"),
        (user("staff", staff_id=""), "none"),
        (user("staff", staff_id="gone"), "none"),
        (user("admin", staff_id="gone"), "none"),
        (user("staff", staff_id="unlisted"), "none"),
        (Caller({"role": "authenticated", "user_metadata": {"gre_role": "admin", "staff_id": "a1"}}), "none"),
        (Caller({"role": "authenticated", "gre_role": "admin", "staff_id": "a1"}), "none"),
        (Caller({"role": "authenticated", "app_metadata": "admin"}), "none"),
        (
            Caller({"role": "authenticated", "app_metadata": [{"gre_role": "admin", "staff_id": "a1"}]}),
            "none",
        ),
        (Caller({"role": "authenticated", "sub": "not a uuid"}), "none"),
        (Caller({"role": "anon", "app_metadata": {"gre_role": "admin", "staff_id": "a1"}}), "none"),
        # The header counts with the service key only.
        (player(29).acting_as("player:30"), "player"),
        (player(29).acting_as("staff:s1"), "player"),
        (NOBODY.acting_as("staff:s1"), "none"),
        (staff().acting_as("staff:a1"), "staff"),
        (SERVICE, "service"),
        (SERVICE.acting_as("nobody"), "none"),
        (SERVICE.acting_as(""), "none"),
        (SERVICE.acting_as("service"), "none"),
        (SERVICE.acting_as("player:0"), "none"),
        (SERVICE.acting_as("player:-1"), "none"),
        (SERVICE.acting_as("player:29\n"), "none"),
        (SERVICE.acting_as("player:29,player:30"), "none"),
        (SERVICE.acting_as("player:9999999999999999999"), "none"),
        (SERVICE.acting_as("staff:"), "none"),
        (SERVICE.acting_as("admin:a1"), "none"),
        (SERVICE.acting_as("staff:gone"), "none"),
        (SERVICE.acting_as("staff:s1"), "staff"),
        (SERVICE.acting_as("staff:a1"), "admin"),
        (SERVICE.acting_as("staff:unlisted"), "none"),
    ],
)
def test_the_actor_comes_from_the_verified_claims_or_the_mapped_row(
    shared: Database, caller: Caller, role: str
) -> None:
    with shared.connect() as setup:
        setup.execute(
            "insert into gre_staff (staff_id, role, active) values ('s1', 'staff', true), ('a1', 'admin', true), ('gone', 'admin', false)"
            " on conflict do nothing"
        )
    with Rest(shared, caller) as rest:
        who = rest.call("gre_whoami")
        assert who["role"] == role
        if role == "player":
            assert (who["player_id"], who["staff_id"]) == (29, None)
        elif role in ("staff", "admin"):
            assert who["player_id"] is None
            assert who["staff_id"] in ("s1", "a1")


def test_a_request_without_claims_has_no_actor(shared: Database) -> None:
    """The stack and PostgREST always set claims; this is the case of a program that does not."""
    with shared.connect("authenticator") as conn, conn.transaction(force_rollback=True):
        conn.execute("set local role anon")
        row = conn.execute("select gre_whoami() as w").fetchone()
        assert row is not None
        assert row["w"]["role"] == "none"


# Columns that a portal must give on an insert, as `supabase gen types` reads it from the catalogue: columns that are not null and have
# neither a default nor an expression. docs/portals.md gives these in every insert.
REQUIRED = {
    "gre_chat_messages": {"sender", "message"},
    "gre_chat_sessions": {"player_id"},
    "gre_online_status": {"staff_id"},
    "push_notifications": set(),
}


def test_the_columns_that_an_insert_must_give_are_those_of_the_docs(shared: Database) -> None:
    found: dict[str, set[str]] = {table: set() for table in REQUIRED}
    for row in rows(
        shared,
        f"""select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
            where c.relnamespace = 'public'::regnamespace and c.relname = any (array{list(REQUIRED)}) and a.attnum > 0
              and not a.attisdropped and a.attnotnull and not a.atthasdef and a.attidentity = ''""",
    ):
        found[row["relname"]].add(row["attname"])
    assert found == REQUIRED
    with shared.connect("authenticator") as conn, request(conn, player(29), keep=False):
        (message,) = conn.execute(
            "insert into gre_chat_messages (sender, message) values ('player', 'x') returning player_id, seq, session_id::text"
        ).fetchall()
        assert (message["player_id"], message["seq"]) == (29, 1)
        assert message["session_id"] != str(uuid.UUID(int=0))


def test_a_refused_function_stays_refused_on_a_connection_that_another_role_has_used(
    shared: Database,
) -> None:
    """The planner would evaluate an immutable function for the cached plan, and no grant would be checked."""
    query = "select public.gre_schema_version() as version"
    with Rest(shared, SERVICE) as rest:
        for turn in range(12):
            with request(rest.conn, SERVICE) as conn:
                assert conn.execute(query, prepare=True).fetchone() == {"version": SCHEMA_VERSIONS[-1]}
            for caller in (NOBODY, player(29)):
                with (
                    pytest.raises(RefusalError, match="permission denied"),
                    request(rest.conn, caller) as conn,
                ):
                    conn.execute(query, prepare=True)
            assert turn < 6 or rest.conn.execute(
                "select generic_plans > 0 as cached from pg_prepared_statements where statement = %s", [query]
            ).fetchone() == {"cached": True}, "PostgreSQL has not yet cached the plan"


def test_anon_is_refused_the_schema_version_on_every_pooled_connection(stack: StackProcess) -> None:
    anon = stack.headers(stack.env["SUPABASE_ANON_KEY"])
    for _ in range(30):
        called = stack.http.post("/rest/v1/rpc/gre_schema_version", json={}, headers=stack.headers())
        refused = stack.http.post("/rest/v1/rpc/gre_schema_version", json={}, headers=anon)
        assert called.status_code == 200
        assert (refused.status_code, refused.json()["code"]) == (401, "42501")
