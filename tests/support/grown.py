"""A desk with years of chat behind it, made by SQL in sets and past the triggers: for the benchmark and for tests of plans.

Two databases can be compared: both have the same sessions of today and a short one of each day before, and only one has
a history. Everything is as the triggers would have left it: counters, seqs, read marks, events, assignments, figures,
and the outbox as prune leaves it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg

from tests.integration.filling import without_indexes
from tests.support.access import Conn

PER_SESSION = 50
"""Messages of a closed session."""
DEEP = 5_000
"""Messages of the one long session."""
STAFF = 12
KEEP = "7 days"
"""How long settled deliveries are kept, as prune is called."""
PARTS = 3
"""Connections that write messages at the same time."""
DAYS = 364
"""Days of the last year that have a session of ten messages, whatever the history: reports of a year have rows of the same kinds."""
PLAYERS = {"deep": 400_000, "aged": 500_000, "daily": 600_000, "history": 1_000_000}
"""Players' ids begin after these; those of open sessions with 1."""


@dataclass(frozen=True)
class Size:
    """Sessions: closed in the last year, open now, and closed more than two years ago (to prune and erase)."""

    history: int
    open: int = 500
    aged: int = 400

    @property
    def messages(self) -> int:
        """Messages in the history."""
        return self.history * PER_SESSION


TABLES = (
    "gre_chat_sessions", "gre_chat_messages", "gre_chat_events", "gre_chat_cycles", "gre_chat_responses", "gre_chat_activity",
    "gre_chat_assignments", "gre_chat_ratings", "gre_relay_lanes", "gre_relay_deliveries", "push_notifications", "gre.report_players",
)  # fmt: skip
# Of five messages the player writes the first, second and fourth, a minute apart. A third of the closed sessions is rated.
_SESSIONS = """
create table gre.filling as
  select md5(kind || g)::uuid as id, kind, g::bigint as g, 's' || 1 + g % {staff} as staff, n, player, opened_at,
    opened_at + n * interval '1 minute' as closed_at, kind <> 'open' and g % 3 = 0 as rated
  from (
    select 'history' as kind, g, {per} as n, {history_players} + g * 7919::bigint % greatest({history} / 4, 1) as player,
      now() - interval '1 day' - g * interval '364 days' / {history} as opened_at
    from generate_series(1, {history}) g
    union all select 'aged', g, {per}, {aged_players} + g, now() - interval '800 days' + g * interval '1 hour' from generate_series(1, {aged}) g
    union all select 'daily', g, 10, {daily_players} + g, now() - interval '2 hours' - g * interval '1 day' from generate_series(1, {days}) g
    union all select 'deep', 1, {deep}, {deep_players} + 1, now() - interval '500 days'
    union all select 'open', g, 19 + g % 2, g, now() - interval '1 hour' - g * interval '1 second' from generate_series(1, {open}) g) x
  order by opened_at;
insert into gre_staff (staff_id, display_name) select 's' || g, 'Staff ' || g from generate_series(1, {staff}) g;
insert into gre_staff (staff_id, role) values ('a1', 'admin');
insert into gre_online_status (staff_id, status, last_seen_at, expires_at)
  select staff_id, 'online', now(), now() + interval '1 day' from gre_staff;
insert into gre_staff_load (staff_id, open_sessions) select staff, count(*) from gre.filling where kind = 'open' group by 1
  on conflict (staff_id) do update set open_sessions = excluded.open_sessions;
insert into gre.report_players (player_id) select distinct player from gre.filling;
insert into gre_chat_sessions (id, player_id, player_name, status, assigned_staff_id, last_seq, rev, last_message_at, unread_by_staff,
    unread_by_player, staff_read_seq, staff_read_at, player_read_seq, player_read_at, waiting_since, created_at, updated_at, closed_at,
    closed_by, rating, changed_xid)
  select id, player, 'Player ' || player, case when kind = 'open' then 'active' else 'closed' end, staff, n,
    case when kind = 'open' then n + 4 else n + 5 + rated::int end, last_at, case when kind = 'open' then 3 else 0 end,
    case when kind = 'open' then n - 18 else 0 end, case when kind = 'open' then 15 else n end, last_at,
    case when kind = 'open' then 15 else n end, last_at, case when n = 19 then last_at end, opened_at,
    case when kind = 'open' then last_at when rated then closed_at + interval '1 minute' else closed_at end,
    case when kind <> 'open' then closed_at end, case when kind <> 'open' then 'staff' end,
    case when rated then 1 + g % 5 end, (3 + g % 500)::text::xid8
  from (select *, opened_at + (n - 1) * interval '1 minute' as last_at from gre.filling) f;
"""
_MESSAGES = """
insert into gre_chat_messages (session_id, seq, player_id, player_name, sender, sender_id, sender_name, message, status, created_at, "timestamp")
  select f.id, seq, f.player, case x.sender when 'player' then 'Player ' || f.player end, x.sender,
    case x.sender when 'player' then f.player::text else f.staff end,
    case x.sender when 'player' then 'Player ' || f.player else 'Staff ' || substr(f.staff, 2) end,
    'about ' || substr(md5(((f.g * 53 + seq) * 7919 % 5000)::text), 1, 9) || ' and '
      || substr(md5(((f.g * 53 + seq) * 104729 % 5000)::text), 1, 9) || ', please'
      || case when (f.g + seq) % 10 = 0 then ' frequent' else '' end
      || case when f.kind = 'open' and f.g <= 20 and seq = 1 then ' rarely' else '' end,
    case when f.kind = 'open' and seq > 15 then 'sent' else 'read' end, x.at, x.at
  from gre.filling f cross join lateral generate_series(1, f.n) seq
  cross join lateral (select case when seq % 5 in (1, 2, 4) then 'player' else 'staff' end as sender,
    f.opened_at + (seq - 1) * interval '1 minute' as at) x
  where f.g % {parts} = {part};
"""
_FIGURES = """
insert into gre_chat_events (session_id, rev, at, after_seq, kind, staff_id, by_staff_id, data)
  select id, 1, opened_at, 0, 'opened', null, null, '{{}}'::jsonb from gre.filling
  union all select id, 4, opened_at + interval '90 seconds', 2, 'assigned', staff, staff, '{{}}' from gre.filling
  union all select id, n + 5, closed_at, n, 'closed', null, staff, '{{"by": "staff"}}' from gre.filling where kind <> 'open'
  union all select id, n + 6, closed_at + interval '1 minute', n, 'rated', null, null, jsonb_build_object('score', 1 + g % 5)
  from gre.filling where rated;
insert into gre_chat_assignments (session_id, n, staff_id, how, by_staff_id, after_seq, started_at, ended_at, end_how, open_seconds)
  select id, 1, staff, 'taken', staff, 2, opened_at + interval '90 seconds', case when kind <> 'open' then closed_at end,
    case when kind <> 'open' then 'closed' end, case when kind <> 'open' then n * 60 - 90 end
  from gre.filling;
insert into gre_chat_cycles (session_id, cycle, player_key, opened_at, asked_at, staff_at, closed_at, closed_by, closed_staff_id,
    close_seconds, close_open_seconds, missed, dropped, rating_asked)
  select f.id, 1, p.player_key, opened_at, opened_at, opened_at + interval '2 minutes', case when x.closed then closed_at end,
    case when x.closed then 'staff' end, case when x.closed then staff end, case when x.closed then n * 60 end,
    case when x.closed then n * 60 end, case when x.closed then false end, case when x.closed then false end, case when x.closed then true end
  from gre.filling f join gre.report_players p on p.player_id = f.player cross join lateral (select f.kind <> 'open' as closed) x;
insert into gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, ended, ended_at, answered_seq, answered_at, staff_id,
    wait_seconds, open_seconds)
  select f.id, 1, q, q = 1, a, f.opened_at + (a - 1) * interval '1 minute', case when x.told then 'answered' end,
    case when x.told then x.at end, case when x.told then a + w end, case when x.told then x.at end, case when x.told then f.staff end,
    case when x.told then w * 60 end, case when x.told then w * 60 end
  from gre.filling f cross join lateral generate_series(1, (f.n + 1) / 5 * 2) q
  cross join lateral (select case q % 2 when 1 then q / 2 * 5 + 1 else (q / 2 - 1) * 5 + 4 end as a, 1 + q % 2 as w) y
  cross join lateral (select a + w <= f.n as told, f.opened_at + (a + w - 1) * interval '1 minute' as at) x;
insert into gre_chat_activity (session_id, quarter, sender, staff_id, player_key, messages)
  select f.id, x.quarter, x.sender, case x.sender when 'staff' then f.staff else '' end, p.player_key, x.messages
  from gre.filling f join gre.report_players p on p.player_id = f.player
  cross join lateral (
    select date_bin('15 minutes', f.opened_at + (seq - 1) * interval '1 minute', timestamptz 'epoch') as quarter,
      case when seq % 5 in (1, 2, 4) then 'player' else 'staff' end as sender, count(*) as messages
    from generate_series(1, f.n) seq group by 1, 2) x;
insert into gre_chat_ratings (session_id, cycle, score, staff_id, rated_at)
  select id, 1, 1 + g % 5, staff, closed_at + interval '1 minute' from gre.filling where rated;
"""
# What prune has left of the history, today's, and what the next prunes delete (that of aged sessions).
_OUTBOX = """
insert into gre_relay_lanes (sink, lane_key)
  select s.name, f.id::text from gre.filling f cross join gre_relay_sinks s
  where f.closed_at > now() - interval '{keep}' or f.kind = 'aged';
insert into gre_relay_deliveries (sink, lane_key, ord, event, message_id, state, created_at, settled_at)
  select s.name, f.id::text, nextval('gre.delivery_ord'), 'message', m.id, 'done', x.at, x.at + interval '1 second'
  from gre.filling f join gre_chat_messages m on m.session_id = f.id cross join gre_relay_sinks s
  cross join lateral (select case f.kind when 'aged' then now() - interval '{keep}' - interval '1 day' else m.created_at end as at) x
  where f.closed_at > now() - interval '{keep}' or f.kind = 'aged';
insert into gre_relay_deliveries (sink, lane_key, ord, event, data, state, created_at, settled_at)
  select 'pusher', e.session_id::text, nextval('gre.delivery_ord'), 'session', jsonb_build_object('session_id', e.session_id), 'done',
    e.at, e.at + interval '1 second'
  from gre_chat_events e where e.at > now() - interval '{keep}';
insert into push_notifications (delivery_id, message_id, audience, recipients, title, body, data, status, created_at, sent_at)
  select d.id, m.id, case m.sender when 'player' then 'staff' else 'player' end,
    case m.sender when 'player' then array(select 's' || g from generate_series(1, {staff}) g) else array['player_' || m.player_id] end,
    'A message', 'a message', jsonb_build_object('session_id', m.session_id, 'player_id', m.player_id, 'seq', m.seq, 'message_id', m.id,
      'type', case m.sender when 'player' then 'new-player-message' else 'new-staff-message' end), 'sent', d.created_at, d.settled_at
  from gre_relay_deliveries d join gre_chat_messages m on m.id = d.message_id
  where d.sink = 'onesignal' and d.created_at > now() - interval '{keep}' and d.ord % 5 = 0;
insert into push_notifications (audience, recipients, title, data, status, created_at, sent_at)
  select 'player', array['player_' || player], 'Your table is ready', '{{"screen": "tables"}}', 'sent', closed_at, closed_at
  from gre.filling where kind <> 'history' or g % 5 = 0;
update gre_relay_sinks set reconcile_from = now() - interval '{keep}';
update gre.settings set whole_from = now() - interval '3 years';
"""


def fill(admin: Conn, size: Size) -> None:
    """Write it all as a superuser into a migrated database without rows, then vacuum and analyze."""
    values = {
        "history": size.history, "open": size.open, "aged": size.aged, "per": PER_SESSION, "deep": DEEP, "staff": STAFF, "keep": KEEP,
        "parts": PARTS, "days": DAYS, **{f"{kind}_players": first for kind, first in PLAYERS.items()},
    }  # fmt: skip

    def write(script: str, part: int = 0) -> None:
        with psycopg.connect(admin.info.dsn, password=admin.info.password, autocommit=True) as conn:
            for setting in (
                "session_replication_role = replica",
                "synchronous_commit = off",
                "work_mem = '64MB'",
            ):
                conn.execute(f"set {setting}".encode())
            conn.execute(script.format(**values, part=part).encode(), prepare=False)

    with without_indexes(admin, *TABLES), ThreadPoolExecutor(PARTS + 1) as threads:
        write(_SESSIONS)
        jobs = [threads.submit(write, _MESSAGES, part) for part in range(PARTS)]
        for job in (*jobs, threads.submit(write, _FIGURES)):
            job.result()
    # The rows of the outbox are joined to messages, and few.
    write(_OUTBOX)
    admin.execute("drop table gre.filling")
    admin.execute("vacuum analyze", prepare=False)
