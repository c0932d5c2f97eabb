"""A year of figures, made by SQL in sets: for tests of plans and for the benchmark."""

from __future__ import annotations

from tests.conftest import Database
from tests.support.access import Conn, Rest
from tests.support.counters import count_now
from tests.support.waiting import wait_until

# A cycle in each of equal parts of the year that ends on 2026-10-01, between 8 and 20 o'clock; five questions or four in each, 9 minutes
# apart; one in fifty is not answered. 12 people. A reply takes 200 s on average, 500 s at most.
_FILL = """
set session_replication_role = replica;
set synchronous_commit = off;
set work_mem = '256MB';
select setseed(0.15);
insert into gre_chat_cycles (session_id, cycle, player_key, opened_at, opened_staff_id, asked_at, staff_at, closed_at, closed_by, closed_staff_id,
    close_seconds, close_open_seconds, missed, dropped, rating_asked)
  select md5('s' || g)::uuid, 1, 1 + (power(random(), 2) * %(cycles)s / 4)::int, t, case when g %% 9 = 0 then 's' || g %% 12 end,
    t, t + interval '1 minute', t + s * interval '1 second', case when g %% 10 = 0 then 'idle' else 'staff' end, 's' || g %% 12,
    case when g %% 10 <> 0 then s end, case when g %% 10 <> 0 then s * 9 / 10 end, g %% 50 = 0, g %% 50 = 1, g %% 3 = 0
  from (select g, (600 + random() * 3600)::int as s, timestamptz '2025-10-01Z'
          + (floor(g * 365.0 / %(cycles)s) + 8 / 24.0 + random() / 2) * interval '1 day' as t
        from generate_series(0, %(cycles)s - 1) g) x;
insert into gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, due_at, ended, ended_at, answered_seq, answered_at, staff_id,
    wait_seconds, open_seconds)
  select c.session_id, 1, n, n = 1, 2 * n - 1, a, a + interval '10 minutes', case when x.missed then 'closed' else 'answered' end,
    a + w * interval '1 second', case when not x.missed then 2 * n end, case when not x.missed then a + w * interval '1 second' end,
    case when not x.missed then c.closed_staff_id end, case when not x.missed then floor(w) end, case when not x.missed then floor(w * 0.9) end
  from gre_chat_cycles c cross join generate_series(1, 5) n
  cross join lateral (select c.opened_at + n * interval '9 minutes' as a, 1 + 500 * power(random(), 1.5) as w, n = 5 and random() < 0.1 as missed) x
  where n < 5 or get_byte(uuid_send(c.session_id), 0) < 154;
insert into gre_chat_activity (session_id, quarter, sender, staff_id, player_key, messages)
  select c.session_id, date_bin('15 minutes', c.opened_at + n * interval '10 minutes', '2000-01-01Z'),
    (array['player', 'staff', 'player', 'staff', 'system'])[n], case when n in (2, 4) then c.closed_staff_id else '' end, c.player_key,
    2 + get_byte(uuid_send(c.session_id), n) %% 3
  from gre_chat_cycles c cross join generate_series(1, 5) n
  on conflict do nothing;
insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at, ended_at, end_how, open_seconds)
  select c.session_id, n, 's' || (get_byte(uuid_send(c.session_id), 1) + n) %% 12, 'taken', 1, c.opened_at, c.closed_at, 'closed',
    extract(epoch from c.closed_at - c.opened_at) * 0.9
  from gre_chat_cycles c cross join generate_series(1, 2) n where n = 1 or get_byte(uuid_send(c.session_id), 0) < 40;
insert into gre_chat_ratings (session_id, cycle, score, staff_id, rated_at)
  select session_id, 1, 1 + get_byte(uuid_send(session_id), 2) %% 5, closed_staff_id, closed_at + interval '1 minute'
  from gre_chat_cycles where rating_asked;
insert into gre_chat_events (session_id, rev, at, after_seq, kind, staff_id, by_staff_id)
  select c.session_id, n, case n when 1 then c.opened_at when 2 then c.opened_at + interval '10 minutes' else c.closed_at end, 1,
    (array['opened', 'transferred', 'closed'])[n], case when n = 2 then 's2' end, case when n = 2 then 's1' end
  from gre_chat_cycles c cross join generate_series(1, 3) n where n <> 2 or get_byte(uuid_send(c.session_id), 0) < 30;
set session_replication_role = origin;
"""


def fill(admin: Conn, cycles: int) -> None:
    """Write a year of so many cycles, as a superuser and past the triggers."""
    admin.execute((_FILL % {"cycles": cycles}).encode(), prepare=False)


def pack(db: Database, worker: Rest) -> None:
    """Pack all of it, and vacuum what was written."""
    with db.connect("supabase_admin") as admin:
        # What was under way at the first call must have ended, in other databases, too.
        wait_until(lambda: worker.call("gre_report_pack_v1", days=31)["packed"], every=0.01)
        while worker.call("gre_report_pack_v1", days=31)["more"]:
            pass
        count_now(worker.conn)
        for table in ("report_hours", "report_months", "report_days"):
            admin.execute(f"vacuum analyze gre.{table}".encode())
