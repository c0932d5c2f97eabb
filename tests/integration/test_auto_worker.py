"""Auto-replies with real processes: over REST and sockets with lost answers, by workers that are killed with SIGKILL."""

from __future__ import annotations

import threading

from tests.support.auto import check, conversation, rule
from tests.support.stack import StackProcess, judge
from tests.support.waiting import let_pass, wait_until

PLAYERS = range(200, 260)


def test_workers_that_are_killed_fire_each_timer_once(stack: StackProcess) -> None:
    """Two relay processes, one of them killed again and again, while 60 players wait and are told, or are closed."""
    with stack.db() as conn:
        conn.execute(
            "update gre_chat_settings set idle_warn_after = '2 seconds', idle_close_after = '2 seconds'"
        )
        rule(conn, "opened", "Hello")
        rule(conn, "waiting", "Soon", wait="6 seconds")  # by then the others have their answer
        rule(conn, "idle_warning", "Still there?", once="question")
        rule(conn, "idle_close", "Bye", once="question")

    def write() -> None:
        for number in PLAYERS:
            stack.insert(player_id=number, sender="player", message="x")
            if number % 2:
                stack.insert(player_id=number, sender="staff", message="y")

    expected = {
        number: ["P", "Hello", "S", "Still there?", "Bye"] if number % 2 else ["P", "Hello", "Soon"]
        for number in PLAYERS
    }

    def told() -> dict[int, list[str]]:
        with stack.db() as conn:
            return {number: conversation(conn, number) for number in PLAYERS}

    writer = threading.Thread(target=write)
    with stack.worker(only="relay"):
        victim = stack.worker(only="relay")
        victim.start()
        writer.start()
        try:
            for n in range(4):
                wait_until(lambda n=n: sum(map(len, told().values())) > 60 * (n + 1) // 2, what="progress")  # type: ignore[misc]
                victim.kill()
                victim.start(ready=False)
            wait_until(lambda: told() == expected, 90, 0.5, what="all auto-replies")
        finally:
            writer.join(60)
            victim.kill()
        stack.drained()
        let_pass(3, "time for a second message, which must not come")
    assert told() == expected
    with stack.db() as conn:
        check(conn)
        assert conn.execute("select from gre_timers").fetchall() == []
        rows = conn.execute(
            "select player_id % 2 as odd, closed_by, count(*)::int as n from gre_chat_sessions where player_id >= 200 group by 1, 2"
        ).fetchall()
        auto = {
            str(row["id"]) for row in conn.execute("select id from gre_chat_messages where origin = 'auto'")
        }
        pushed = conn.execute(
            "select from push_notifications where message_id = any (%s::uuid[])", [list(auto)]
        ).fetchall()
    assert pushed == []
    assert sorted((row["odd"], row["closed_by"], row["n"]) for row in rows) == [
        (0, None, 30),
        (1, "idle", 30),
    ]
    verdict = judge(stack)
    assert verdict.lost["pusher"] == []
    assert set(verdict.lost["onesignal"]) <= auto, "auto-replies are not pushed"
    assert not any(verdict.out_of_order.values())


def test_an_auto_reply_is_announced_with_auto_and_pushed_only_if_its_rule_says_so(
    stack: StackProcess,
) -> None:
    with stack.db() as conn:
        rule(conn, "opened", "pushed", push=True, priority=1)
        rule(conn, "nobody_online", "silent", once="question")
    with stack.worker(only="relay"):
        stack.insert(player_id=41, sender="player", message="x")
        stack.insert(player_id=42, sender="player", message="x")
        stack.insert(player_id=42, sender="player", message="y")
        stack.drained()
    with stack.db() as conn:
        assert {*conversation(conn, 41), *conversation(conn, 42)} <= {"P", "pushed", "silent"}
        auto = {
            str(row["id"]): row["message"]
            for row in conn.execute("select id, message from gre_chat_messages where origin = 'auto'")
        }
        pushed = {
            str(row["message_id"])
            for row in conn.execute("select message_id from push_notifications where audience = 'player'")
        }
    assert pushed == {key for key, text in auto.items() if text == "pushed"}
    events = [item["data"] for item in stack.received("pusher") if item["name"] == "new-staff-message"]
    assert {event["id"] for event in events} == set(auto)
    assert all(event["auto"] is True for event in events)
    assert all(
        "auto" not in item["data"]
        for item in stack.received("pusher")
        if item["name"] == "new-player-message"
    )
