"""A month of figures, inserted as rows, for tests and pictures: three people, quiet Sundays, longer waits in the evening."""

from __future__ import annotations

from tests.browser.world import World

_FILL = """
create temp table made as
  select md5('figure' || d || ' ' || n)::uuid as id, 900000 + d * 100 + n as player_key,
    at, case when n %% 13 = 0 then null else (array['s1', 's2', 'a1'])[1 + (n + d) %% 3] end as staff,
    20 + ((n * 37 + d * 11) %% 90) + 3 * (n * n * 7 %% 11) * (d * 3 %% 5 + 2) as wait, n, d
  from generate_series(0, 30) d,
    lateral generate_series(1, case when extract(isodow from now() - d * interval '1 day') = 7 then 4 else 14 + (d * 7) %% 9 end) n,
    lateral (select date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - d * interval '1 day'
                    + interval '8 hours' + (n * 37 %% 720) * interval '1 minute' as at) x
  where at + interval '3 hours' < now();
insert into gre_chat_cycles (session_id, cycle, player_key, opened_at, asked_at, staff_at, closed_at, closed_by, closed_staff_id, close_seconds,
                             close_open_seconds, missed, dropped, rating_asked)
  select id, 1, player_key, at, at, case when staff is not null then at + wait * interval '1 second' end, at + wait * interval '20 seconds',
    case when n %% 11 = 0 then 'idle' else 'staff' end, staff, case when n %% 11 > 0 then wait * 20 end, case when n %% 11 > 0 then wait * 15 end,
    staff is null, staff is not null and n %% 10 = 0, staff is not null from made;
insert into gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, due_at, ended, ended_at, answered_seq, answered_at, staff_id,
                                wait_seconds, open_seconds)
  select id, 1, m, m = 1, m * 2 - 1, asked, asked + interval '2 minutes', 'answered', answered, m * 2, answered, staff, took, took / 2
  from made, lateral generate_series(1, 3) m, lateral (select case m when 1 then wait else wait * (m + 1) / 2 + n end as took) t,
    lateral (select at + (m - 1) * wait * interval '5 seconds' as asked) a, lateral (select asked + took * interval '1 second' as answered) b
  where staff is not null;
insert into gre_chat_activity (session_id, quarter, sender, staff_id, player_key, messages)
  select id, date_bin('15 minutes', at, 'epoch'), sender, case sender when 'staff' then staff else '' end, player_key, count
  from made, (values ('player', 5), ('staff', 4), ('system', 1)) v (sender, count) where sender <> 'staff' or staff is not null;
insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at, ended_at, end_how, open_seconds)
  select id, 1, staff, 'auto', 0, at, at + wait * interval '20 seconds', 'closed', wait * 15 from made where staff is not null;
insert into gre_chat_ratings (session_id, cycle, score, staff_id, rated_at)
  select id, 1, 5 - (n * n + d) %% 7 %% 4, staff, at + wait * interval '21 seconds' from made where staff is not null and n %% 2 = 0;
update gre.settings set whole_from = now() - interval '40 days';
select gre.report_unpack();
"""


def insert_month(world: World) -> None:
    """Insert the figures of the last 31 days, of sessions that no longer exist."""
    with world.db() as conn, conn.transaction():
        for statement in _FILL.split(";\n"):
            if statement.strip():
                conn.execute(statement.encode(), ())
        conn.execute("drop table made")
