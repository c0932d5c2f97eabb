"""The rights of every caller on every table and function of the catalogue, found by calls.

Cells: `y` done, `0` nothing was there for this caller, `x` refused by grant or policy (42501), else the code of
the refusal; `own/other` where the two differ. Own is the caller's own row (for callers that are no player,
player 29's; that are no staff, s1's); other is another's. A table or function without a row here fails the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import ROOT, own_database
from tests.support.access_matrix import CALLERS, CALLS, World, document, find

DOC = ROOT / "docs" / "access.md"
REPORT: list[str] = []
"""What the test report prints at its end (conftest.py beside this file)."""

# callers: no token | player 29 | player 30 | staff | admin | service key | … acting as player:29 | staff:s1 | nobody | worker
TABLES = """
gre_chat_sessions    select     x  y/0  y/0  y    y    y  y  y  y  x
gre_chat_sessions    insert     x  y/x  y/x  y    y    y  y  y  y  x
gre_chat_sessions    update     x  0    0    y    y    y  y  y  y  x
gre_chat_sessions    delete     x  x    x    x    x    y  y  y  y  x
gre_chat_messages    select     x  y/0  y/0  y    y    y  y  y  y  x
gre_chat_messages    insert:player  x  y/x  y/x  x    x    y  y  y  y  x
gre_chat_messages    insert:staff   x  x    x    y    y    y  y  y  y  x
gre_chat_messages    insert:system  x  x    x    x    x    y  y  y  y  x
gre_chat_messages    update     x  x    x    x    x    y  y  y  y  x
gre_chat_messages    delete     x  x    x    x    x    y  y  y  y  x
gre_chat_events      select     x  0    0    y    y    y  y  y  y  x
gre_chat_events      insert     x  x    x    x    x    x  x  x  x  x
gre_chat_events      update     x  x    x    x    x    x  x  x  x  x
gre_chat_events      delete     x  x    x    x    x    x  x  x  x  x
gre_online_status    select     x  y    y    y    y    y  y  y  y  x
gre_online_status    insert     x  x    x    y/x  y/x  y  y  y  y  x
gre_online_status    update     x  0    0    y/0  y/0  y  y  y  y  x
gre_online_status    delete     x  x    x    x    x    y  y  y  y  x
push_notifications   select     x  0    0    y    y    y  y  y  y  x
push_notifications   insert     x  x    x    x    y    y  y  y  y  x
push_notifications   update     x  x    x    x    x    y  y  y  y  x
push_notifications   delete     x  x    x    x    x    y  y  y  y  x
gre_chat_players     select     x  y/0  y/0  y    y    y  y  y  y  x
gre_chat_players     insert     x  x    x    x    x    y  y  y  y  x
gre_chat_players     update     x  x    x    x    x    y  y  y  y  x
gre_chat_players     delete     x  x    x    x    x    y  y  y  y  x
gre_staff            select     x  0    0    y    y    y  y  y  y  x
gre_staff            insert     x  x    x    x    x    y  y  y  y  x
gre_staff            update     x  x    x    x    x    y  y  y  y  x
gre_staff            delete     x  x    x    x    x    y  y  y  y  x
gre_hours            select     x  x    x    x    x    x  x  x  x  x
gre_hours            insert     x  x    x    x    x    x  x  x  x  x
gre_hours            update     x  x    x    x    x    x  x  x  x  x
gre_hours            delete     x  x    x    x    x    x  x  x  x  x
gre_hours_week       select     x  x    x    x    x    x  x  x  x  x
gre_hours_week       insert     x  x    x    x    x    x  x  x  x  x
gre_hours_week       update     x  x    x    x    x    x  x  x  x  x
gre_hours_week       delete     x  x    x    x    x    x  x  x  x  x
gre_hours_dates      select     x  x    x    x    x    x  x  x  x  x
gre_hours_dates      insert     x  x    x    x    x    x  x  x  x  x
gre_hours_dates      update     x  x    x    x    x    x  x  x  x  x
gre_hours_dates      delete     x  x    x    x    x    x  x  x  x  x
gre_chat_settings    select     x  x    x    x    x    x  x  x  x  x
gre_chat_settings    insert     x  x    x    x    x    x  x  x  x  x
gre_chat_settings    update     x  x    x    x    x    x  x  x  x  x
gre_chat_settings    delete     x  x    x    x    x    x  x  x  x  x
gre_chat_notes       select     x  x    x    x    x    x  x  x  x  x
gre_chat_notes       insert     x  x    x    x    x    x  x  x  x  x
gre_chat_notes       update     x  x    x    x    x    x  x  x  x  x
gre_chat_notes       delete     x  x    x    x    x    x  x  x  x  x
gre_chat_blocks      select     x  0    0    y    y    y  y  y  y  x
gre_chat_blocks      insert     x  x    x    x    x    x  x  x  x  x
gre_chat_blocks      update     x  x    x    x    x    x  x  x  x  x
gre_chat_blocks      delete     x  x    x    x    x    x  x  x  x  x
gre_chat_assignments select     x  x    x    x    x    x  x  x  x  x
gre_chat_assignments insert     x  x    x    x    x    x  x  x  x  x
gre_chat_assignments update     x  x    x    x    x    x  x  x  x  x
gre_chat_assignments delete     x  x    x    x    x    x  x  x  x  x
gre_chat_cycles      select     x  x    x    x    x    x  x  x  x  x
gre_chat_cycles      insert     x  x    x    x    x    x  x  x  x  x
gre_chat_cycles      update     x  x    x    x    x    x  x  x  x  x
gre_chat_cycles      delete     x  x    x    x    x    x  x  x  x  x
gre_chat_responses   select     x  x    x    x    x    x  x  x  x  x
gre_chat_responses   insert     x  x    x    x    x    x  x  x  x  x
gre_chat_responses   update     x  x    x    x    x    x  x  x  x  x
gre_chat_responses   delete     x  x    x    x    x    x  x  x  x  x
gre_chat_activity    select     x  x    x    x    x    x  x  x  x  x
gre_chat_activity    insert     x  x    x    x    x    x  x  x  x  x
gre_chat_activity    update     x  x    x    x    x    x  x  x  x  x
gre_chat_activity    delete     x  x    x    x    x    x  x  x  x  x
gre_chat_ratings     select     x  x    x    x    x    x  x  x  x  x
gre_chat_ratings     insert     x  x    x    x    x    x  x  x  x  x
gre_chat_ratings     update     x  x    x    x    x    x  x  x  x  x
gre_chat_ratings     delete     x  x    x    x    x    x  x  x  x  x
gre_staff_load       select     x  x    x    x    x    x  x  x  x  x
gre_staff_load       insert     x  x    x    x    x    x  x  x  x  x
gre_staff_load       update     x  x    x    x    x    x  x  x  x  x
gre_staff_load       delete     x  x    x    x    x    x  x  x  x  x
gre_templates        select     x  x    x    x    x    x  x  x  x  x
gre_templates        insert     x  x    x    x    x    x  x  x  x  x
gre_templates        update     x  x    x    x    x    x  x  x  x  x
gre_templates        delete     x  x    x    x    x    x  x  x  x  x
gre_auto_replies     select     x  x    x    x    x    x  x  x  x  x
gre_auto_replies     insert     x  x    x    x    x    x  x  x  x  x
gre_auto_replies     update     x  x    x    x    x    x  x  x  x  x
gre_auto_replies     delete     x  x    x    x    x    x  x  x  x  x
gre_auto_sent        select     x  x    x    x    x    x  x  x  x  x
gre_auto_sent        insert     x  x    x    x    x    x  x  x  x  x
gre_auto_sent        update     x  x    x    x    x    x  x  x  x  x
gre_auto_sent        delete     x  x    x    x    x    x  x  x  x  x
gre_timers           select     x  x    x    x    x    x  x  x  x  x
gre_timers           insert     x  x    x    x    x    x  x  x  x  x
gre_timers           update     x  x    x    x    x    x  x  x  x  x
gre_timers           delete     x  x    x    x    x    x  x  x  x  x
gre_chat_attachments select     x  y/0  y/0  y    y    y  y  y  y  x
gre_chat_attachments insert     x  x    x    x    x    x  x  x  x  x
gre_chat_attachments update     x  x    x    x    x    x  x  x  x  x
gre_chat_attachments delete     x  x    x    x    x    x  x  x  x  x
gre_storage_deletions select    x  x    x    x    x    y  y  y  y  x
gre_storage_deletions insert    x  x    x    x    x    x  x  x  x  x
gre_storage_deletions update    x  x    x    x    x    x  x  x  x  x
gre_storage_deletions delete    x  x    x    x    x    x  x  x  x  x
gre_relay_sinks      select     x  x    x    x    x    y  y  y  y  x
gre_relay_sinks      insert     x  x    x    x    x    x  x  x  x  x
gre_relay_sinks      update     x  x    x    x    x    x  x  x  x  x
gre_relay_sinks      delete     x  x    x    x    x    x  x  x  x  x
gre_relay_lanes      select     x  x    x    x    x    y  y  y  y  x
gre_relay_lanes      insert     x  x    x    x    x    x  x  x  x  x
gre_relay_lanes      update     x  x    x    x    x    x  x  x  x  x
gre_relay_lanes      delete     x  x    x    x    x    x  x  x  x  x
gre_relay_deliveries select     x  x    x    x    x    y  y  y  y  x
gre_relay_deliveries insert     x  x    x    x    x    x  x  x  x  x
gre_relay_deliveries update     x  x    x    x    x    x  x  x  x  x
gre_relay_deliveries delete     x  x    x    x    x    x  x  x  x  x
gre_relay_workers    select     x  x    x    x    x    y  y  y  y  x
gre_relay_workers    insert     x  x    x    x    x    x  x  x  x  x
gre_relay_workers    update     x  x    x    x    x    x  x  x  x  x
gre_relay_workers    delete     x  x    x    x    x    x  x  x  x  x
"""

FUNCTIONS = """
gre_whoami                       none player player staff admin service player staff none x
gre_send_message                 x y/player_mismatch y/player_mismatch y y sender_unknown y/player_mismatch y act_as_required x
gre_send_message to a session    x y/session_mismatch y/session_mismatch y y sender_unknown y/session_mismatch y act_as_required x
gre_send_message as player       x y/player_mismatch y/player_mismatch sender_forged sender_forged y y/player_mismatch sender_forged act_as_required x
gre_send_message as staff        x sender_forged sender_forged y y y sender_forged y act_as_required x
gre_send_message as system       x sender_forged sender_forged sender_forged sender_forged y sender_forged sender_forged act_as_required x
gre_send_messages                x y/player_mismatch y/player_mismatch y y sender_unknown y/player_mismatch y act_as_required x
gre_send_messages as player      x y/player_mismatch y/player_mismatch sender_forged sender_forged y y/player_mismatch sender_forged act_as_required x
gre_send_messages as staff       x sender_forged sender_forged y y y sender_forged y act_as_required x
gre_staff_reply                  x staff_only staff_only y y y staff_only y act_as_required x
gre_chat_history of a player     x y/player_mismatch y/player_mismatch y y y y/player_mismatch y act_as_required x
gre_chat_history of a session    x y/session_unknown y/session_unknown y y y y/session_unknown y act_as_required x
gre_list_sessions                x y/0 y/0 y y y y/0 y act_as_required x
gre_catch_up                     x y/0 y/0 y y y y/0 y act_as_required x
gre_enter                        x y/0 y/0 y y 0 y/0 y 0 x
gre_mark_read                    x y/session_unknown y/session_unknown y y act_as_required y/session_unknown y act_as_required x
gre_set_session_status           x staff_only staff_only y y y staff_only y act_as_required x
gre_close_session                x staff_only staff_only y y y staff_only y act_as_required x
gre_enable_player                x staff_only staff_only y y y staff_only y act_as_required x
gre_enable_all_players           x staff_only staff_only y y y staff_only y act_as_required x
gre_set_online_status            x staff_only staff_only y y act_as_required staff_only y act_as_required x
gre_erase_player                 x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_link_user                    x x x x x y service_only service_only act_as_required x
gre_session_queue                x staff_only staff_only y y y staff_only y act_as_required x
gre_session_events               x staff_only staff_only y y y staff_only y act_as_required x
gre_list_staff                   x staff_only staff_only y y y staff_only y act_as_required x
gre_set_staff                    x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_get_player                   x staff_only staff_only y y y staff_only y act_as_required x
gre_operations                   x staff_only staff_only y y y staff_only y act_as_required x
gre_dead_letters                 x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_report                       x staff_only staff_only y y y staff_only y act_as_required x
gre_report_sessions              x staff_only staff_only y y y staff_only y act_as_required x
gre_report_live                  x staff_only staff_only y y y staff_only y act_as_required x
gre_export                       x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_retry_dead                   x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_take_session                 x staff_only staff_only y y act_as_required staff_only y act_as_required x
gre_release_session              x staff_only staff_only y y y staff_only y act_as_required x
gre_transfer_session             x staff_only staff_only y y y staff_only y act_as_required x
gre_rate_session                 x session_open/session_unknown session_open/session_unknown player_only player_only act_as_required session_open/session_unknown player_only act_as_required x
gre_report_check                 x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_add_note                     x staff_only staff_only y y act_as_required staff_only y act_as_required x
gre_list_notes                   x staff_only staff_only y y y staff_only y act_as_required x
gre_search_messages              x staff_only staff_only y y y staff_only y act_as_required x
gre_block_player                 x staff_only staff_only y y y staff_only y act_as_required x
gre_unblock_player               x staff_only staff_only y y y staff_only y act_as_required x
gre_get_settings                 x staff_only staff_only y y y staff_only y act_as_required x
gre_set_settings                 x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_list_hours                   x staff_only staff_only y y y staff_only y act_as_required x
gre_get_desk                     x y y y y y y y act_as_required x
gre_get_hours                    x staff_only staff_only y y y staff_only y act_as_required x
gre_set_hours                    x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_delete_hours                 x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_list_templates               x staff_only staff_only y y y staff_only y act_as_required x
gre_get_template                 x staff_only staff_only y y y staff_only y act_as_required x
gre_save_template                x staff_only staff_only y y y staff_only y act_as_required x
gre_save_template of everybody   x staff_only staff_only admin_only y y staff_only admin_only act_as_required x
gre_delete_template              x staff_only staff_only admin_only y y staff_only admin_only act_as_required x
gre_render_template              x staff_only staff_only y y y staff_only y act_as_required x
gre_list_auto_replies            x staff_only staff_only y y y staff_only y act_as_required x
gre_get_auto_reply               x staff_only staff_only y y y staff_only y act_as_required x
gre_save_auto_reply              x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_delete_auto_reply            x admin_only admin_only admin_only y y admin_only admin_only act_as_required x
gre_attachment_begin             x y/player_mismatch y/player_mismatch y y act_as_required y/player_mismatch y act_as_required x
gre_attachment_get               x y/attachment_not_found y/attachment_not_found attachment_not_found attachment_not_found y y/attachment_not_found attachment_not_found act_as_required x
gre_attachment_get a sent one    x y/attachment_not_found y/attachment_not_found y y y y/attachment_not_found y act_as_required x
gre_attachment_drop              x y/attachment_not_found y/attachment_not_found attachment_not_found attachment_not_found y y/attachment_not_found attachment_not_found act_as_required x
gre_attachment_drop a sent one   x attachment_used/attachment_not_found attachment_used/attachment_not_found attachment_used attachment_used attachment_used attachment_used/attachment_not_found attachment_used act_as_required x
gre_attachment_names             x y/0 y/0 y y y y/0 y act_as_required x
gre_storage_adopt                x x x x x x x x x x
gre_media_again                  x x x x x y service_only service_only act_as_required x
gre_media_claim_v1                  x x x x x y y y y y
gre_media_extend_v1                 x x x x x y y y y y
gre_media_settle_v1                 x x x x x y y y y y
gre_media_sweep_v1                  x x x x x y y y y y
gre_storage_deletions_claim_v1      x x x x x y y y y y
gre_storage_deletions_settle_v1     x x x x x y y y y y
gre_storage_state_v1                x x x x x y y y y y
gre_tick_v1                      x x x x x y y y y y
gre_assign_waiting_v1            x x x x x y y y y y
gre_report_pack_v1               x x x x x y y y y y
gre_desk_stats_v1                x x x x x y y y y y
gre_hub_changes_v1                  x x x x x y y y y y
gre_hub_presence_v1                 x x x x x y y y y y
gre_relay_claim_v1                  x x x x x y y y y y
gre_relay_settle_v1                 x x x x x y y y y y
gre_relay_exchange_v1                   x x x x x y y y y y
gre_relay_extend_v1                 x x x x x y y y y y
gre_relay_release_v1                x x x x x y y y y y
gre_relay_stats_v1                  x x x x x y y y y y
gre_relay_report_v1                   x x x x x y y y y y
gre_relay_leave_v1                  x x x x x y y y y y
gre_relay_listen_v1                 x x x x x y y y y y
gre_relay_unlisten_v1               x x x x x y y y y y
gre_relay_status                 x x x x x y y y y y
gre_relay_notify_v1                   x x x x x y y y y y
gre_relay_dead                   x x x x x y y y y x
gre_relay_retry                  x x x x x y y y y x
gre_relay_replay                 x x x x x y y y y x
gre_relay_reconcile              x x x x x y y y y x
gre_relay_expire                 x x x x x y y y y x
gre_relay_prune                  x x x x x y y y y x
gre_schema_version               x x x x x y y y y y
"""


@pytest.fixture(scope="module")
def world(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    with own_database(pg, migrated_template, "access") as database:
        found = World(database)
        yield found
        found.conn.close()


def expected(text: str) -> dict[str, list[str]]:
    """Rows of a table above: the text before the last cells is the row's name."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {" ".join(words[: -len(CALLERS)]): words[-len(CALLERS) :] for words in lines}


@pytest.fixture(scope="module")
def matrix(world: World) -> dict[str, list[str]]:
    found = find(world, list(expected(TABLES)))
    REPORT[:] = document(found).splitlines()[8:]
    return found


def catalogue(world: World, query: str) -> list[dict[str, Any]]:
    """Rows of a catalogue query."""
    with world.db.connect() as conn:
        return conn.execute(query.encode()).fetchall()


def test_every_table_and_function_of_the_catalogue_has_a_row(world: World) -> None:
    tables = catalogue(world, "select relname as x, relrowsecurity as rls from pg_class where relkind in ('r', 'p', 'v', 'm', 'f')"
                       " and relnamespace = 'public'::regnamespace")  # fmt: skip
    assert {t["x"] for t in tables} == {line.split()[0] for line in expected(TABLES)}
    assert all(t["rls"] for t in tables)
    verbs = {"select", "insert", "update", "delete"}
    for t in tables:
        assert {
            line.split()[1].partition(":")[0] for line in expected(TABLES) if line.split()[0] == t["x"]
        } == verbs
    functions = [
        f["x"]
        for f in catalogue(
            world, "select proname as x from pg_proc where pronamespace = 'public'::regnamespace"
        )
    ]
    assert sorted(functions) == sorted({label.split()[0] for label in CALLS})
    assert set(expected(FUNCTIONS)) == set(CALLS)


@pytest.mark.parametrize("row", [*expected(TABLES), *expected(FUNCTIONS)])
def test_access(matrix: dict[str, list[str]], row: str) -> None:
    wanted = {**expected(TABLES), **expected(FUNCTIONS)}[row]
    assert dict(zip(CALLERS, matrix[row], strict=True)) == dict(zip(CALLERS, wanted, strict=True))


def test_the_page_is_current(matrix: dict[str, list[str]]) -> None:
    text = document(matrix)
    if os.environ.get("GRE_WRITE_ACCESS"):
        DOC.write_text(text)
    assert DOC.read_text() == text
