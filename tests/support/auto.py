"""Auto-replies in tests: rules, what was sent, and the invariant that holds after each test."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tests.support.access import WORKER, Conn, request


def rule(conn: Conn, occasion: str, text: str = "", **columns: Any) -> UUID:
    """Add a rule whose name and text are `text`, or the occasion; return its id."""
    text = text or occasion
    values = {"name": text[:120], "occasion": occasion, "texts": Jsonb({"en": text}), **columns}
    if occasion == "waiting":
        values.setdefault("wait", "5 minutes")
    names = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    row = conn.execute(
        f"insert into gre_auto_replies ({names}) values ({marks}) returning id".encode(), values
    ).fetchone()
    assert row is not None
    found: UUID = row["id"]
    return found


def say(conn: Conn, player_id: int = 29, sender: str = "player", message: str = "x", **columns: Any) -> None:
    """Insert one message as a back end does."""
    values = {"player_id": player_id, "sender": sender, "message": message, **columns}
    names, marks = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    conn.execute(f"insert into gre_chat_messages ({names}) values ({marks})".encode(), values)


def conversation(conn: Conn, player_id: int = 29) -> list[str]:
    """Return all messages of a player: P for a player's, S for staff's, the text of an auto-reply, B for a back end's."""
    rows = conn.execute(
        "select m.sender, m.origin, m.message from gre_chat_messages m join gre_chat_sessions s on s.id = m.session_id"
        " where m.player_id = %s order by s.created_at, m.seq",
        [player_id],
    )
    letters = {"player": "P", "staff": "S", "system": "B"}
    return [row["message"] if row["origin"] == "auto" else letters[row["sender"]] for row in rows]


def tick(worker: Conn, **arguments: Any) -> dict[str, Any]:
    """Call gre_tick_v1 once, as a worker."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    with request(worker, WORKER) as conn:
        row = conn.execute(f"select gre_tick_v1({named}) as found".encode(), arguments).fetchone()
    assert row is not None
    found: dict[str, Any] = row["found"]
    return found


DEVIATIONS = """
    select s.id, 'message without its entry' as problem
    from gre_chat_messages s where s.origin = 'auto'
      and not exists (select from gre_auto_sent a where a.message_id = s.id and a.session_id = s.session_id and a.skipped is null)
    union all
    select a.session_id, 'entry without its message' from gre_auto_sent a
    where (a.message_id is null) = (a.skipped is null)
      or a.message_id is not null and not exists (select from gre_chat_messages m where m.id = a.message_id and m.origin = 'auto')
    union all
    select m.id, 'auto-reply that is not of the system, or has a placeholder' from gre_chat_messages m
    where m.origin = 'auto' and (m.sender <> 'system' or m.message like '%{{%' or m.sender_id is not null)
    union all
    select m.id, 'a seq is missing' from (
      select m.id, m.seq, row_number() over (partition by m.session_id order by m.seq) as n from gre_chat_messages m) m
    where m.seq <> m.n
    union all
    select m.id, 'delivery missing or repeated' from gre_chat_messages m
    where (select count(*) from gre_relay_deliveries d where d.message_id = m.id) <> 2
    union all
    select s.id, 'counters' from gre_chat_sessions s
    where s.last_seq <> (select count(*) from gre_chat_messages m where m.session_id = s.id)
      or s.unread_by_player <> (select count(*) from gre_chat_messages m
        where m.session_id = s.id and m.sender <> 'player' and m.seq > s.player_read_seq)
    union all
    select d.message_id, 'deliveries out of order' from (
      select d.message_id, m.seq, lag(m.seq) over (partition by d.sink, d.lane_key order by d.ord) as before
      from gre_relay_deliveries d join gre_chat_messages m on m.id = d.message_id) d
    where d.before > d.seq"""


def check(conn: Conn) -> None:
    """Hold auto-replies against their entries, seqs, counters and deliveries."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        assert conn.execute(DEVIATIONS).fetchall() == []
