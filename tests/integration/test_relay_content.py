"""On the embedded stack: what one row holds fails that delivery, visibly, and holds up nobody."""

from __future__ import annotations

from tests.support.stack import StackProcess, wait_until

DEEP = "[" * 3000 + "]" * 3000


def test_queued_pushes_that_nobody_can_read_fail_alone_and_all_else_goes_on(stack: StackProcess) -> None:
    """A number beyond a double, 3,000 nested arrays, and 70 MB that were there before the bounds."""
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
        with stack.worker(GRE_MAX_ATTEMPTS="2"):
            for n in range(20):
                assert stack.insert(player_id=29 + n % 3, sender="player", message=f"m{n}").status_code == 201
            assert stack.insert(
                "push_notifications", audience="staff", recipients=["s1"], title="good", body="b", data={"a": 1}, status="queued"
            ).status_code == 201  # fmt: skip
            wait_until(lambda: len(told(stack)) == 20, 20, what="every message at Pusher")
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


def told(stack: StackProcess) -> set[str]:
    """The texts that Pusher took."""
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


def test_a_projects_own_greeting_is_announced_after_what_it_greets(stack: StackProcess) -> None:
    players = range(29, 49)
    with stack.db() as conn:
        conn.execute(GREETING)
        try:
            with stack.worker():
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
