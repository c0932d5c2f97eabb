"""The staff's desk beside a fault: automatic assignment and auto-replies are on, and judged after it (`--desk`)."""

from __future__ import annotations

from tests.support.desk import WRONG_ASSIGNMENTS, WRONG_LOADS, configure, set_presence
from tests.support.stack import StackProcess

STAFF = ("s1", "s2", "s3")
GREETING, STILL_WAITING = "greeting", "still waiting"
"""The names of the rules: on a session's first message, and a second after a question without an answer."""

_WAITING_FOR_THE_DESK = """
    select (select count(*) from gre_chat_sessions
            where status <> 'closed' and waiting_since is not null and assigned_staff_id is null)
         + (select count(*) from gre_timers) as n"""
_CHECKS = {
    "loads differ from the sessions": WRONG_LOADS,
    "assignments differ from the sessions": WRONG_ASSIGNMENTS,
    "auto-replies are entered and not stored, or stored and not entered": """
        select from gre_auto_sent a
        full join (select id, session_id from gre_chat_messages where origin = 'auto') m
          on m.id = a.message_id and m.session_id = a.session_id
        where (a.message_id is null) <> (m.id is null)""",
    "sessions without a greeting directly after their first message, or with two": f"""
        select s.id
        from gre_chat_sessions s
        join gre_chat_messages f on f.session_id = s.id and f.seq = 1
        left join gre_auto_sent a on a.session_id = s.id
          and a.rule_id in (select id from gre_auto_replies where name = '{GREETING}')
        left join gre_chat_messages m on m.id = a.message_id
        group by s.id, f.sender
        having count(m.id) <> case when f.sender = 'player' then 1 else 0 end or max(m.seq) <> 2""",
    "messages hold a placeholder": "select from gre_chat_messages where message like '%{{%'",
}


def switch_on(stack: StackProcess) -> None:
    """Set assignment and rules, and have three staff members be online."""
    with stack.db() as conn:
        for name in STAFF:
            conn.execute(
                "insert into gre_staff (staff_id, display_name) values (%s, upper(%s)) on conflict do nothing",
                [name, name],
            )
            set_presence(conn, name, "online")
        configure(conn, "least_busy")
        conn.execute(
            "insert into gre_auto_replies (name, occasion, wait, once, texts) values"
            " (%s, 'opened', null, 'cycle', '{\"en\": \"Welcome, {{player_name|there}}.\"}'),"
            " (%s, 'waiting', '1 second', 'question', '{\"en\": \"Somebody will be with you soon.\"}')",
            [GREETING, STILL_WAITING],
        )


def is_idle(stack: StackProcess) -> bool:
    """Return True if no session waits for assignment and no timer is left."""
    with stack.db() as conn:
        row = conn.execute(_WAITING_FOR_THE_DESK).fetchone()
    return row is not None and row["n"] == 0


def find_problems(stack: StackProcess) -> list[str]:
    """Compare loads, assignments and auto-replies with sessions and messages."""
    problems = []
    with stack.db() as conn:
        for problem, query in _CHECKS.items():
            if wrong := len(conn.execute(query.encode()).fetchall()):
                problems.append(f"{wrong} {problem}")
        sent = conn.execute(
            "select r.name, count(a.message_id) as n from gre_auto_replies r"
            " left join gre_auto_sent a on a.rule_id = r.id group by r.name"
        ).fetchall()
    return problems + [f"no message of the rule {row['name']!r}" for row in sent if row["n"] == 0]
