"""The rate limit of a player over all interfaces, and the functions on an adopted project."""

from __future__ import annotations

import re
import uuid

import pytest

from tests.conftest import MIGRATIONS, Database
from tests.integration.test_adoption import layout as layout_sql
from tests.integration.test_send import a, b, refused, sessions
from tests.support.access import SERVICE, Caller, RefusalError, Rest, player, staff

__all__ = ["a", "b"]


def fill(rest: Rest, count: int) -> None:
    for start in range(0, count, 60):
        rest.call("gre_send_messages", messages=[{"message": "x"}] * min(60, count - start))


@pytest.mark.past_triggers("two of the messages become older")
@pytest.mark.parametrize("who", [player(29), SERVICE.acting_as("player:29")])
def test_a_player_sends_120_messages_a_minute_over_all_interfaces(db: Database, b: Rest, who: Caller) -> None:
    with Rest(db, who) as rest:
        key = uuid.uuid4()
        rest.call("gre_send_message", message="first", id=key)
        fill(rest, 118)
        rest.sql("insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')")
        calls = {
            "gre_send_message": {"message": "one more"},
            "gre_send_messages": {"messages": [{"message": "one more"}]},
        }
        for function, given in calls.items():
            with pytest.raises(RefusalError) as caught:
                rest.call(function, **given)
            assert (caught.value.status, caught.value.code) == (429, "too_fast")
            (wait,) = re.findall(r"^retry_after=(\d+)$", caught.value.detail)
            assert 50 <= int(wait) <= 60
        with pytest.raises(RefusalError, match="too_fast"):
            rest.sql("insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'x')")
        # A message that is already stored is a success and does not count.
        assert rest.call("gre_send_message", message="first", id=key)["duplicate"] is True
        assert (
            rest.call("gre_send_messages", messages=[{"message": "first", "id": str(key)}])[0]["duplicate"]
            is True
        )
        b.call("gre_send_message", message="others may")
        with Rest(db, staff()) as s:
            s.call("gre_staff_reply", message="staff may", player_id=29)
        with db.connect("supabase_admin") as clock:
            clock.execute("set session_replication_role = replica")
            clock.execute(
                "update gre_chat_messages set created_at = created_at - interval '1 minute' where seq <= 2 and player_id = 29"
            )
        fill(rest, 2)
        assert refused(rest, "gre_send_message", message="x") == (429, "too_fast")
    assert sessions(db)[0]["last_seq"] == 123


def test_a_bulk_over_the_limit_writes_nothing(db: Database, a: Rest) -> None:
    assert refused(a, "gre_send_messages", messages=[{"message": "x"}] * 121) == (429, "too_fast")
    assert sessions(db) == []
    fill(a, 120)


@pytest.mark.past_triggers("its messages are of next year")
def test_rows_with_times_in_the_future_do_not_count(db: Database, a: Rest) -> None:
    """Adopted rows have the times of phones: 120 rows of next year would block their player until then."""
    fill(a, 119)
    with db.connect("supabase_admin") as clock:
        clock.execute("set session_replication_role = replica")
        clock.execute("update gre_chat_messages set created_at = created_at + interval '1 year'")
    fill(a, 120)
    assert refused(a, "gre_send_message", message="x") == (429, "too_fast")


def test_imports_with_the_service_key_are_not_limited(db: Database) -> None:
    with Rest(db, SERVICE) as service:
        many = [{"message": "x", "player_id": 29, "sender": "player"}] * 200
        assert len(service.call("gre_send_messages", messages=many)) == 200


@pytest.mark.parametrize("layout", ["documented", "lean", "older"])
def test_the_functions_work_on_an_adopted_project(supabase_db: Database, layout: str) -> None:
    with supabase_db.connect() as setup:
        for sql in (layout_sql(layout).encode(), *(path.read_bytes() for path in MIGRATIONS)):
            with setup.transaction():
                setup.execute(sql, prepare=False)
        known = setup.execute(
            "select id, player_id, last_seq from gre_chat_sessions where last_seq > 0 order by last_seq desc"
        ).fetchone()
    assert known is not None
    with (
        Rest(supabase_db, player(known["player_id"])) as p,
        Rest(supabase_db, staff("s77")) as s,
        Rest(supabase_db, SERVICE) as hub,
    ):
        page = p.call("gre_chat_history", session_id=known["id"], sessions=True)
        assert [m["seq"] for m in page["messages"]] == list(range(1, known["last_seq"] + 1))
        sent = p.call("gre_send_message", message="new", id=str(uuid.uuid4()))["message"]
        reply = s.call("gre_staff_reply", message="new too", player_id=known["player_id"])["message"]
        assert reply["seq"] == sent["seq"] + 1
        assert (
            p.call("gre_mark_read", session_id=sent["session_id"], up_to_seq=reply["seq"])["changed"] is True
        )
        assert s.call("gre_set_online_status", status="online", expires_in=60)["status"] == "online"
        assert (
            hub.call("gre_hub_presence_v1", staff=["s77"], players=[], expires_in=60)["online"][-1][
                "staff_id"
            ]
            == "s77"
        )
        news = hub.call(
            "gre_hub_changes_v1",
            positions={sent["session_id"]: [sent["seq"] - 1, 0]},
            sessions=[uuid.UUID(sent["session_id"])],
        )
        assert [m["seq"] for m in news["sessions"][0]["messages"]] == [sent["seq"], reply["seq"]]
        missed = s.call("gre_catch_up", since={sent["session_id"]: sent["seq"]})["missed"]
        assert [m["seq"] for m in missed if m["session_id"] == sent["session_id"]] == [reply["seq"]]
        assert hub.call("gre_erase_player", player_id=known["player_id"])["messages"] >= 2
