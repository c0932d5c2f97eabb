"""On the embedded stack: the content of one row fails its own delivery, visibly, and blocks no other."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

DEEP = "[" * 3000 + "]" * 3000


def test_unreadable_queued_pushes_fail_and_everything_else_is_sent(stack: StackProcess) -> None:
    """A number beyond a double, 3,000 nested arrays, and 70 MB from before the limits."""
    headers = {**stack.headers(), "Content-Type": "application/json"}
    for data in ('{"n": 1e400}', f'{{"deep": {DEEP}}}'):
        body = f'{{"audience": "staff", "recipients": ["s1"], "title": "t", "body": "b", "status": "queued", "data": {data}}}'
        assert (
            stack.http.post("/rest/v1/push_notifications", content=body, headers=headers).status_code == 201
        )
    with stack.db() as conn:
        conn.execute("alter table push_notifications disable trigger gre_3_check_size")
        conn.execute(
            "insert into push_notifications (audience, recipients, title, body, data, status) values"
            " ('staff', '{s1}', 't', 'b', jsonb_build_object('x', repeat('0123456789', 7000000)), 'queued')"
        )
        conn.execute("alter table push_notifications enable trigger gre_3_check_size")
        with stack.worker("relay", GRE_MAX_ATTEMPTS="2"):
            for n in range(20):
                assert stack.insert(player_id=29 + n % 3, sender="player", message=f"m{n}").status_code == 201
            assert stack.insert(
                "push_notifications", audience="staff", recipients=["s1"], title="good", body="b", data={"a": 1}, status="queued"
            ).status_code == 201  # fmt: skip
            wait_until(lambda: len(accepted(stack)) == 20, what="every message at Pusher")
            stack.drained()
        rows = conn.execute(
            "select n.title, n.status, n.error, d.state, d.attempts, d.last_error from gre_relay_deliveries d"
            " join push_notifications n on 'push:' || n.id = d.lane_key where d.event = 'push' order by d.ord"
        ).fetchall()
    assert [(row["title"], row["status"], row["state"]) for row in rows] == [
        *[("t", "failed", "dead")] * 3,
        ("good", "sent", "done"),
    ]
    for row, reason in zip(rows, ("beyond a double", "nested too deep", "larger than 16 KB"), strict=False):
        assert reason in row["error"]
        assert reason in row["last_error"]
    assert [i["body"]["headings"]["en"] for i in stack.received("onesignal") if "gre" not in str(i)][-1:] == [
        "good"
    ]


def accepted(stack: StackProcess) -> set[str]:
    """Return the texts that Pusher accepted."""
    return {i["data"]["message"] for i in stack.received("pusher") if i["name"] == "new-player-message"}


GREETING = """
create function public.greet() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  if new.sender = 'player' and new.seq = 1 then
    insert into public.gre_chat_messages (session_id, player_id, sender, sender_name, message)
      values (new.session_id, new.player_id, 'staff', 'Bot', 'Welcome!');
  end if;
  return null;
end $$;
create trigger greet after insert on public.gre_chat_messages for each row execute function public.greet()
"""


def test_the_greeting_of_a_projects_trigger_is_relayed_after_its_message(stack: StackProcess) -> None:
    players = range(29, 49)
    with stack.db() as conn:
        conn.execute(GREETING)
        try:
            with stack.worker("relay"):
                for player in players:
                    row = stack.insert(player_id=player, sender="player", message=f"hello from {player}")
                    assert row.status_code == 201, row.text
                stack.drained()
        finally:
            conn.execute("drop trigger greet on gre_chat_messages; drop function greet()")
        sessions = conn.execute(
            "select player_id, last_seq, unread_by_staff, unread_by_player from gre_chat_sessions"
        ).fetchall()
    heard: dict[int, list[tuple[str, int, str]]] = {}
    for item in stack.received("pusher"):
        if item["name"].startswith("new-") and item["channel"].endswith("staff-portal"):
            data = item["data"]
            heard.setdefault(data["player_id"], []).append((item["name"], data["seq"], data["message"]))
    assert heard == {
        player: [
            ("new-player-message", 1, f"hello from {player}"),
            ("new-staff-message", 2, "Welcome!"),
        ]
        for player in players
    }
    assert sorted(tuple(row.values()) for row in sessions) == [(player, 2, 1, 1) for player in players]


@pytest.mark.parametrize("by", ["staff", "service key"])
def test_an_assignee_of_12_kilobytes_is_refused_and_the_session_still_closes(
    stack: StackProcess, by: str
) -> None:
    """Such an id would not fit into the index of closed sessions, and its event would not fit Pusher."""
    key = stack.keys.user_token("staff", staff_id="s1") if by == "staff" else None
    stack.insert(player_id=29, sender="player", message="first").raise_for_status()
    with stack.worker("relay"):
        # Incompressible text: an index compresses a repeated letter to almost nothing.
        for long in (random.Random(12).randbytes(6000).hex(), "s" * 129, "ß" * 300):
            refused = patch(stack, "gre_chat_sessions", key, assigned_staff_id=long)
            assert (refused.status_code, refused.json()["hint"]) == (404, "staff_unknown")
        patch(stack, "gre_chat_sessions", key, assigned_staff_id="s1").raise_for_status()
        patch(stack, "gre_chat_sessions", key, status="closed").raise_for_status()
        stack.insert(player_id=29, sender="player", message="second").raise_for_status()
        stack.drained()
    assert accepted(stack) == {"first", "second"}
    with stack.db() as conn:
        rows = conn.execute(
            "select status, assigned_staff_id from gre_chat_sessions order by created_at"
        ).fetchall()
        assert rows[0] == {"status": "closed", "assigned_staff_id": "s1"}
        dead = conn.execute("select count(*) as n from gre_relay_deliveries where state <> 'done'").fetchone()
    assert dead == {"n": 0}


def test_a_display_name_of_3_megabytes_is_refused_or_bounded(stack: StackProcess) -> None:
    """Every socket of staff receives the name."""
    staff = stack.keys.user_token("staff", staff_id="s1")
    long = "x" * 3_000_000
    rows = {"staff": {"staff_id": "s1"}, "service key": {"staff_id": "s2"}}
    answers = {
        by: stack.insert("gre_online_status", key=staff if by == "staff" else None, **row, display_name=long)
        for by, row in rows.items()
    }
    assert (answers["staff"].status_code, answers["staff"].json()["hint"]) == (413, "row_too_large")
    stack.insert("gre_online_status", key=staff, staff_id="s1", display_name="Sam").raise_for_status()
    refused = patch(stack, "gre_online_status", staff, display_name=long)
    assert (refused.status_code, refused.json()["hint"]) == (413, "row_too_large")
    patch(stack, "gre_online_status", None, display_name=long).raise_for_status()
    with stack.db() as conn:
        names = conn.execute("select char_length(display_name) as n from gre_online_status").fetchall()
    assert answers["service key"].status_code == 201 and len(names) == 2
    assert all(row["n"] <= 80 for row in names)


def patch(stack: StackProcess, table: str, key: str | None, **columns: Any) -> httpx.Response:
    """Update every row of a table that the caller may update, over REST."""
    return stack.http.patch(
        f"/rest/v1/{table}", params={"created_at" if table == "gre_chat_sessions" else "staff_id": "not.is.null"},
        json=columns, headers=stack.headers(key),
    )  # fmt: skip
