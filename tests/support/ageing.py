"""Sessions and timers as if all of it had happened earlier, and their figures with them."""

from __future__ import annotations

from tests.support.access import Conn

TIMES = {
    "gre_chat_sessions": ("last_message_at", "waiting_since", "created_at", "closed_at"),
    "gre_timers": ("due_at",),
    "gre_chat_messages": ("created_at",),
    "gre_chat_events": ("at",),
    "gre_chat_cycles": ("opened_at", "asked_at", "staff_at", "closed_at"),
    "gre_chat_responses": ("asked_at", "due_at", "ended_at", "answered_at"),
}
_VOLUMES = """
select session_id, sender, staff_id, sum(messages) as n from gre_chat_activity
where session_id in (select session_id from gre_chat_messages) group by 1, 2, 3 order by 1, 2, 3"""


def elapse(conn: Conn, seconds: float) -> None:
    """Let time pass: move sessions, their messages, events, timers and figures back by so many seconds, past the triggers."""
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        for table, columns in TIMES.items():
            changes = ", ".join(f"{column} = {column} - %(ago)s * interval '1 second'" for column in columns)
            conn.execute(f"update {table} set {changes}".encode(), {"ago": seconds})
        conn.execute("update gre.settings set whole_from = whole_from - %s * interval '1 second'", [seconds])
        # Quarters of an hour do not move as a whole: they are counted anew, and only their sums stay.
        before = conn.execute(_VOLUMES).fetchall()
        keys = conn.execute(
            "delete from gre_chat_activity a using gre_chat_sessions s where s.id = a.session_id"
            " returning a.session_id, a.player_key"
        ).fetchall()
        conn.cursor().executemany(
            "insert into gre_chat_activity (session_id, quarter, sender, staff_id, player_key, messages)"
            " select session_id, date_bin('15 minutes', created_at, 'epoch'), sender,"
            " case sender when 'staff' then coalesce(sender_id, '') else '' end, %s, count(*)"
            " from gre_chat_messages where session_id = %s group by 1, 2, 3, 4",
            {(row["player_key"], row["session_id"]) for row in keys},
        )
        conn.execute("set local session_replication_role = origin")
        assert conn.execute(_VOLUMES).fetchall() == before


_AGED = """
with ago as (select interval '1 hour' as i), sessions as (
  update gre_chat_sessions set created_at = created_at - i, updated_at = updated_at - i, staff_read_at = staff_read_at - i
  from ago where id = %(session)s
), messages as (
  update gre_chat_messages set created_at = created_at - i from ago where session_id = %(session)s
), events as (
  update gre_chat_events set at = at - i from ago where session_id = %(session)s
), cycles as (
  update gre_chat_cycles set opened_at = opened_at - i, asked_at = asked_at - i, staff_at = staff_at - i, closed_at = closed_at - i
  from ago where session_id = %(session)s
), responses as (
  update gre_chat_responses set asked_at = asked_at - i, due_at = due_at - i, ended_at = ended_at - i, answered_at = answered_at - i
  from ago where session_id = %(session)s
), activity as (
  update gre_chat_activity set quarter = quarter - i from ago where session_id = %(session)s
)
update gre.settings set whole_from = whole_from - i from ago"""


def age(conn: Conn, session: str) -> None:
    """Let one session have happened an hour earlier, with its messages, events and figures, past the triggers."""
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(_AGED, {"session": session})
