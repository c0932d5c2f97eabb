"""Insert many sessions and messages with the triggers disabled."""

from __future__ import annotations

from tests.browser.world import World

SESSIONS, MESSAGES = 5000, 10_000
_TABLES = ("gre_chat_sessions", "gre_chat_messages")
_FILL = f"""
insert into gre_chat_sessions (id, player_id, player_name, status, last_seq, rev, unread_by_staff, waiting_since, last_message_at, created_at, updated_at)
  select md5('s' || n)::uuid, n, 'Player number ' || n, 'active', last, last, case when n % 3 > 0 then 1 else 0 end,
    case when n % 3 > 0 then at end, at, at, at
  from generate_series(1, {SESSIONS}) n,
    lateral (select case when n = 1 then {MESSAGES} else 2 end as last, now() - interval '1 day' - n * interval '10 seconds' as at) x;
insert into gre_chat_messages (session_id, seq, player_id, player_name, sender, sender_name, message, status, created_at, "timestamp")
  select md5('s' || n)::uuid, seq, n, 'Player number ' || n, who, case who when 'staff' then 'Sam' else 'Player number ' || n end,
    'Message ' || seq || repeat(' with some more words in it', (seq * 7 % 5)::int), 'sent', at, at
  from generate_series(1, {SESSIONS}) n,
    lateral generate_series(1, case when n = 1 then {MESSAGES} else 2 end) seq,
    lateral (select case when seq % 2 = 1 then 'player' else 'staff' end as who,
                    now() - interval '1 day' - n * interval '10 seconds' - ({MESSAGES} - seq) * interval '20 seconds' as at) x;
"""


def insert_bulk_data(world: World) -> None:
    """Insert 5,000 open sessions; that of player 1 has 10,000 messages."""
    with world.db() as conn, conn.transaction():
        for table in _TABLES:
            conn.execute(f"alter table {table} disable trigger user".encode())
        conn.execute(_FILL.encode())
        for table in _TABLES:
            conn.execute(f"alter table {table} enable trigger user".encode())
    with world.db() as conn:
        conn.execute("analyze gre_chat_sessions, gre_chat_messages")
