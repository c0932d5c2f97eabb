-- Reports: what they count (facts), over which times (buckets), and the sessions behind each number.
-- Depends on gre_foundation, gre_identity, gre_story, gre_assignment, gre_figure_tables and gre_figures
-- (gre.settings.whole_from).
--
-- A year has more than a million facts. So workers pack those of finished hours (gre_report_pack_v1): one row for each
-- kind, hour and person, with its values as arrays (gre.report_hours); of these the hours of a month
-- (gre.report_months); and the figures of each 24 hours (gre.report_days). A report reads what is packed where that
-- covers its times, and the facts themselves for the rest. Its answer is the same if nothing is packed.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- By time; where gre_export reads pages, in its whole order.
create index gre_chat_cycles_opened on public.gre_chat_cycles (opened_at, session_id, cycle);
create index gre_chat_cycles_closed on public.gre_chat_cycles (closed_at) where closed_at is not null;
create index gre_chat_responses_asked on public.gre_chat_responses (asked_at, session_id, cycle, n);
create index gre_chat_responses_answered on public.gre_chat_responses (answered_at) where answered_at is not null;
create index gre_chat_activity_quarter on public.gre_chat_activity (quarter);
create index gre_chat_assignments_ended on public.gre_chat_assignments (ended_at) where ended_at is not null;
create index gre_chat_ratings_rated on public.gre_chat_ratings (rated_at, session_id, cycle);
create index gre_chat_events_transferred on public.gre_chat_events (at) where kind = 'transferred';

create table gre.report_hours (
  fact text not null,
  hour timestamptz not null,
  staff_id text not null,
  until timestamptz not null,
  n integer not null,
  c1 integer not null,
  c2 integer not null,
  c3 integer not null,
  c4 integer not null,
  seconds integer[],
  open_seconds integer[],
  players bigint[],
  primary key (fact, hour, staff_id, until)
);
-- For packing. Only this column: PostgreSQL 18 would read a longer index for reports, once for each value of until.
create index report_hours_until on gre.report_hours (until);
comment on table gre.report_hours is
  'Packed facts: a row for each kind of fact, finished hour and person. Written by gre_report_pack_v1 only.';
comment on column gre.report_hours.fact is 'The kind of fact, see gre.report_facts.';
comment on column gre.report_hours.hour is 'Begin of the hour to which the facts belong.';
comment on column gre.report_hours.staff_id is 'To whom they belong; empty: nobody.';
comment on column gre.report_hours.until is
  'They were complete before this time. A reply that comes later than the hour of its question is in a row of its own.';
comment on column gre.report_hours.n is 'Number of facts.';
comment on column gre.report_hours.c1 is 'Sum of the facts'' c1.';
comment on column gre.report_hours.c2 is 'Sum of the facts'' c2.';
comment on column gre.report_hours.c3 is 'Sum of the facts'' c3.';
comment on column gre.report_hours.c4 is 'Sum of the facts'' c4.';
comment on column gre.report_hours.seconds is 'The facts'' seconds, of those that have some.';
comment on column gre.report_hours.open_seconds is 'The same in opening hours; null if they are equal.';
comment on column gre.report_hours.players is 'Of fact players: the numbers of the different players.';

create table gre.report_months (
  fact text not null,
  month timestamptz not null,
  staff_id text not null,
  until timestamptz not null,
  n integer not null,
  c1 integer not null,
  c2 integer not null,
  c3 integer not null,
  c4 integer not null,
  seconds integer[],
  counts integer[],
  open_seconds integer[],
  open_counts integer[],
  players bigint[],
  primary key (fact, month, staff_id, until)
);
comment on table gre.report_months is
  'Packed hours of finished months (of UTC): seconds by value. For reports by staff, and for the total of a report.';
comment on column gre.report_months.fact is 'As gre.report_hours.fact.';
comment on column gre.report_months.month is 'Begin of the month.';
comment on column gre.report_months.staff_id is 'As gre.report_hours.staff_id.';
comment on column gre.report_months.until is 'As gre.report_hours.until.';
comment on column gre.report_months.n is 'Number of facts.';
comment on column gre.report_months.c1 is 'Sum of the facts'' c1.';
comment on column gre.report_months.c2 is 'Sum of the facts'' c2.';
comment on column gre.report_months.c3 is 'Sum of the facts'' c3.';
comment on column gre.report_months.c4 is 'Sum of the facts'' c4.';
comment on column gre.report_months.seconds is 'The different values of the facts'' seconds.';
comment on column gre.report_months.counts is 'How often each of them occurs.';
comment on column gre.report_months.open_seconds is 'The different values in opening hours.';
comment on column gre.report_months.open_counts is 'How often each of them occurs.';
comment on column gre.report_months.players is 'Of fact players: the numbers of the different players.';

create table gre.report_days (
  start timestamptz not null,
  fact text not null,
  n integer not null,
  c1 integer not null,
  c2 integer not null,
  c3 integer not null,
  c4 integer not null,
  seconds bigint[],
  open_seconds bigint[],
  durations integer[],
  counts integer[],
  open_durations integer[],
  open_counts integer[],
  primary key (start, fact)
);
comment on table gre.report_days is
  'Figures of 24 hours, from each hour on: what a report says of a day, in any time zone that is whole hours from UTC. '
  'No row if there is nothing.';
comment on column gre.report_days.start is 'Begin of the 24 hours.';
comment on column gre.report_days.fact is 'As gre.report_hours.fact.';
comment on column gre.report_days.n is 'Number of facts; of players, of different ones.';
comment on column gre.report_days.c1 is 'Sum of the facts'' c1.';
comment on column gre.report_days.c2 is 'Sum of the facts'' c2.';
comment on column gre.report_days.c3 is 'Sum of the facts'' c3.';
comment on column gre.report_days.c4 is 'Sum of the facts'' c4.';
comment on column gre.report_days.seconds is
  'Of the facts that have seconds: their number, sum, median, 90th percentile and maximum.';
comment on column gre.report_days.open_seconds is 'The same in opening hours.';
comment on column gre.report_days.durations is
  'Of a day of UTC: the different values of the facts'' seconds, for the total of a report.';
comment on column gre.report_days.counts is 'How often each of them occurs.';
comment on column gre.report_days.open_durations is 'The different values in opening hours; null if they are equal.';
comment on column gre.report_days.open_counts is 'How often each of them occurs.';

create table gre.report_packed (
  single boolean primary key default true check (single),
  until timestamptz not null default '-infinity',
  next_until timestamptz,
  next_xid xid8
);
insert into gre.report_packed default values;
comment on table gre.report_packed is 'How far facts are packed. One row.';
comment on column gre.report_packed.single is 'Limits the table to one row.';
comment on column gre.report_packed.until is 'Facts that were complete before this time are packed.';
comment on column gre.report_packed.next_until is
  'The next such time, when every transaction up to next_xid has ended.';
comment on column gre.report_packed.next_xid is 'The transaction that noted next_until.';

alter table gre.report_hours enable row level security;
alter table gre.report_months enable row level security;
alter table gre.report_days enable row level security;
alter table gre.report_packed enable row level security;
revoke all on gre.report_hours, gre.report_months, gre.report_days, gre.report_packed
  from public, anon, authenticated, service_role;

-- Facts ---------------------------------------------------------------------------------------------------

-- Return the query of a kind of fact: session_id, cycle, n (with session_id and at unique), at (to which time it
-- belongs), done_at (when it was complete), staff_id (to whom it belongs), seconds, open_seconds, c1 to c4, player_key.
-- p_basis: the time to which replies belong. The texts are constant.
create function gre.report_facts(p_fact text, p_basis text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_at constant text := case coalesce(p_basis, case p_fact when 'first' then 'asked' else 'answered' end)
    when 'asked' then 'r.asked_at' when 'answered' then 'r.answered_at' else 'k.closed_at' end;
begin
  return case p_fact
    when 'opened' then
      'select c.session_id, c.cycle, c.cycle as n, c.opened_at as at, c.opened_at as done_at,
         c.opened_staff_id as staff_id, null::integer as seconds, null::integer as open_seconds, 0 as c1, 0 as c2,
         0 as c3, 0 as c4, c.player_key
       from public.gre_chat_cycles c'
    when 'closed' then -- c1 closed_idle, c2 missed, c3 dropped, c4 rating asked
      'select c.session_id, c.cycle, c.cycle as n, c.closed_at as at, c.closed_at as done_at,
         c.closed_staff_id as staff_id, c.close_seconds as seconds, c.close_open_seconds as open_seconds,
         case c.closed_by when ''idle'' then 1 else 0 end as c1, coalesce(c.missed, false)::integer as c2,
         coalesce(c.dropped, false)::integer as c3, coalesce(c.rating_asked, false)::integer as c4, c.player_key
       from public.gre_chat_cycles c where c.closed_at is not null'
    when 'transferred' then
      'select e.session_id, null::integer as cycle, e.rev::integer as n, e.at, e.at as done_at,
         e.by_staff_id as staff_id, null::integer as seconds, null::integer as open_seconds, 0 as c1, 0 as c2, 0 as c3,
         0 as c4, null::bigint as player_key
       from public.gre_chat_events e where e.kind = ''transferred'''
    when 'messages' then -- c1 of the player, c2 of staff, c3 automatic
      'select a.session_id, null::integer as cycle, 0 as n, a.quarter as at, a.quarter as done_at,
         case a.sender when ''staff'' then nullif(a.staff_id, '''') end as staff_id, null::integer as seconds,
         null::integer as open_seconds, case a.sender when ''player'' then a.messages else 0 end as c1,
         case a.sender when ''staff'' then a.messages else 0 end as c2,
         case a.sender when ''system'' then a.messages else 0 end as c3, 0 as c4, a.player_key
       from public.gre_chat_activity a'
    when 'players' then
      'select a.session_id, null::integer as cycle, 0 as n, a.quarter as at, a.quarter as done_at,
         null::text as staff_id, null::integer as seconds, null::integer as open_seconds, 0 as c1, 0 as c2, 0 as c3,
         0 as c4, a.player_key
       from public.gre_chat_activity a where a.sender = ''player'''
    when 'handled' then
      'select a.session_id, null::integer as cycle, a.n, a.ended_at as at, a.ended_at as done_at, a.staff_id,
         least(greatest(floor(extract(epoch from a.ended_at) - extract(epoch from a.started_at)), 0),
               2147483647)::integer as seconds, a.open_seconds,
         0 as c1, 0 as c2, 0 as c3, 0 as c4, null::bigint as player_key
       from public.gre_chat_assignments a where a.ended_at is not null'
    when 'rated' then -- c1 score, c2 good
      'select r.session_id, r.cycle, r.cycle as n, r.rated_at as at, r.rated_at as done_at, r.staff_id,
         null::integer as seconds, null::integer as open_seconds, r.score::integer as c1, (r.score >= 4)::integer as c2,
         0 as c3, 0 as c4, null::bigint as player_key
       from public.gre_chat_ratings r'
    else -- first, reply: c1 with a goal, c2 met
      'select r.session_id, r.cycle, r.n, ' || v_at || ' as at, r.answered_at as done_at,
         nullif(r.staff_id, '''') as staff_id,
         r.wait_seconds as seconds, r.open_seconds, (r.due_at is not null)::integer as c1,
         coalesce(r.answered_at <= r.due_at, false)::integer as c2, 0 as c3, 0 as c4, null::bigint as player_key
       from public.gre_chat_responses r'
      || case when v_at = 'k.closed_at' then '
       join public.gre_chat_cycles k on k.session_id = r.session_id and k.cycle = r.cycle and k.closed_at is not null'
         else '' end || '
       where r.answered_at is not null' || case p_fact when 'first' then ' and r.first' else '' end
  end;
end $$;

-- Buckets -------------------------------------------------------------------------------------------------

-- Return the buckets of a range: where each begins, and its part of the range. An hour also begins where the clocks
-- change in the middle of one. A midnight that occurs twice counts as the second one, as in gre_hours.
create function gre.report_buckets(p_from timestamptz, p_to timestamptz, p_timezone text, p_by text)
returns table (start timestamptz, lo timestamptz, hi timestamptz)
language plpgsql stable set search_path = '' as $$
declare
  v_step constant interval := ('1 ' || p_by)::interval;
  v_first constant timestamp := date_trunc(p_by, p_from at time zone p_timezone);
  v_starts timestamptz[];
begin
  if p_by = 'hour' then
    v_starts := array(
      select q.at
      from generate_series(date_bin('15 minutes', p_from, timestamptz 'epoch') - interval '2 hours', p_to,
                           interval '15 minutes') q (at)
      where date_trunc('hour', q.at, p_timezone)
        <> date_trunc('hour', q.at - interval '15 minutes', p_timezone)
        and q.at < p_to);
  else
    v_starts := array(
      select d.day at time zone p_timezone
      from generate_series(v_first - v_step, p_to at time zone p_timezone + interval '1 day', v_step) d (day));
  end if;
  return query
    select x.at, greatest(x.at, p_from), least(x.next_at, p_to)
    from (select s.at, lead(s.at, 1, 'infinity') over (order by s.at) as next_at
          from (select distinct u.at from unnest(v_starts) u (at)) s) x
    where x.at < p_to and x.next_at > p_from
    order by x.at;
end $$;

-- Check the arguments of a report.
create function gre.check_report(
  p_from timestamptz, p_to timestamptz, p_timezone text, p_by text, p_basis text
) returns void
language plpgsql stable set search_path = '' as $$
begin
  if p_from is null or p_to is null or p_from < '1970-01-01Z' or p_to > '10000-01-01Z' or p_from >= p_to then
    perform gre.raise_http(400, 'range_invalid', 'from must be before to, both between the years 1970 and 9999');
  elsif p_by is null or p_by not in ('none', 'hour', 'day', 'week', 'month', 'staff') then
    perform gre.raise_http(400, 'by_invalid', 'by must be none, hour, day, week, month or staff');
  elsif p_basis not in ('asked', 'answered', 'closed') then
    perform gre.raise_http(400, 'basis_invalid', 'basis must be asked, answered or closed');
  elsif char_length(p_timezone) > 64
    -- The list of all names reads the file of each time zone, for 8 ms. Those of opening hours are names of it.
    or p_timezone is distinct from 'UTC' and not exists (select from public.gre_hours h where h.timezone = p_timezone)
      and not exists (select from pg_catalog.pg_timezone_names z where z.name = p_timezone) then
    perform gre.raise_http(400, 'timezone_unknown',
      'timezone must be the name of an IANA time zone, such as Europe/Malta');
  elsif p_to > p_from + interval '5 years'
    or p_by = 'hour' and p_to > p_from + interval '2499 hours'
    or p_by = 'day' and p_to > p_from + interval '2498 days' then
    perform gre.raise_http(400, 'report_too_large', 'a report covers at most 5 years and 2500 rows');
  end if;
end $$;

-- Queries -------------------------------------------------------------------------------------------------

-- Return the query of the facts of a time: what is packed where that covers it, else the facts. b is the time, cut in
-- parts: facts from lo to a, packed hours from a to e, facts from e to hi; with p_months also ma and me: packed months
-- from ma to me, within the packed hours; with counts also da and de: packed days of UTC from da to ma and from me to
-- de. $1 and $17 to $19: at, staff_id, seconds and open_seconds of first replies to questions of packed hours that are
-- not packed yet. $2: in opening hours.
-- p_columns: sums (staff_id, n and c1 to c4, to be summed), seconds (v; with p_months also n, how often, and staff_id),
-- counts (seconds with p_months, staff_id not to be used) or players (v).
create function gre.report_pieces(p_fact text, p_basis text, p_columns text, p_months boolean) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_facts constant text := 'select ' || case p_columns
      when 'sums' then 'f.staff_id, 1 as n, f.c1, f.c2, f.c3, f.c4'
      when 'players' then 'f.player_key as v'
      else case when p_months then 'f.staff_id, 1 as n, ' else '' end
        || 'case when $2 then f.open_seconds else f.seconds end as v' end
    || ' from (' || gre.report_facts(p_fact, p_basis) || ') f where ';
  v_staff constant text := 'nullif(k.staff_id, '''') as staff_id, ';
  v_hours constant text := 'select ' || case p_columns
      when 'sums' then v_staff || 'k.n, k.c1, k.c2, k.c3, k.c4'
      when 'players' then 'unnest(k.players) as v'
      else case when p_months then v_staff || '1 as n, ' else '' end
        || 'unnest(case when $2 then coalesce(k.open_seconds, k.seconds) else k.seconds end) as v' end
    || format(' from gre.report_hours k where k.fact = %L and ', p_fact);
  v_months constant text := 'select ' || case p_columns
      when 'sums' then v_staff || 'k.n, k.c1, k.c2, k.c3, k.c4'
      when 'players' then 'unnest(k.players) as v'
      else v_staff || 'unnest(case when $2 then k.open_counts else k.counts end) as n,'
        ' unnest(case when $2 then k.open_seconds else k.seconds end) as v' end
    || format(' from gre.report_months k where k.fact = %L and k.month >= b.ma and k.month < b.me', p_fact);
  v_days constant text := format('select null::text as staff_id,'
      ' unnest(case when $2 then coalesce(k.open_counts, k.counts) else k.counts end) as n,'
      ' unnest(case when $2 then coalesce(k.open_durations, k.durations) else k.durations end) as v'
      ' from generate_series(b.da, b.de - interval ''1 day'', interval ''1 day'') d (start)'
      ' join gre.report_days k on k.start = d.start and k.fact = %L where d.start < b.ma or d.start >= b.me', p_fact);
  v_late constant text := 'select ' || case when p_months then 'f.staff_id, 1 as n, ' else '' end
    || 'case when $2 then f.open_seconds else f.seconds end as v from unnest($1::timestamptz[], $17::text[],'
      ' $18::integer[], $19::integer[]) f (at, staff_id, seconds, open_seconds)';
begin
  if p_basis is not null and p_fact in ('first', 'reply')
    and p_basis <> (case p_fact when 'first' then 'asked' else 'answered' end) then
    return v_facts || 'f.at >= b.lo and f.at < b.hi';
  end if;
  return case when p_columns = 'counts' then v_hours || 'k.hour >= b.a and k.hour < b.da union all ' || v_days
      || ' union all ' || v_months || ' union all ' || v_hours || 'k.hour >= b.de and k.hour < b.e'
    when p_months then v_hours || 'k.hour >= b.a and k.hour < b.ma union all ' || v_months || ' union all '
      || v_hours || 'k.hour >= b.me and k.hour < b.e' else v_hours || 'k.hour >= b.a and k.hour < b.e' end
    || ' union all ' || v_facts || 'b.lo < b.a and f.at >= b.lo and f.at < b.a'
    || ' union all ' || v_facts || 'b.e < b.hi and f.at >= b.e and f.at < b.hi'
    || case when p_fact = 'first' and p_columns in ('seconds', 'counts') then
         ' union all ' || v_late || ' where f.at >= b.a and f.at < b.e' else '' end;
end $$;

-- Return the row of a report from its cells: for each key of gre_report's statement, {"n", "s": sum, "p50", "p90",
-- "mx", "c1" ... "c4"}.
create function gre.report_row(p jsonb) returns jsonb
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  return jsonb_build_object(
    'sessions_opened', coalesce(p #> '{opened,n}', '0'), 'sessions_closed', coalesce(p #> '{closed,n}', '0'),
    'closed_idle', coalesce(p #> '{closed,c1}', '0'), 'missed', coalesce(p #> '{closed,c2}', '0'),
    'dropped', coalesce(p #> '{closed,c3}', '0'), 'transfers', coalesce(p #> '{transferred,n}', '0'),
    'messages', jsonb_build_object('player', coalesce(p #> '{messages,c1}', '0'),
      'staff', coalesce(p #> '{messages,c2}', '0'), 'auto', coalesce(p #> '{messages,c3}', '0')),
    'players', coalesce(p #> '{players,n}', '0'),
    'first_reply', gre.report_durations(p -> 'first_seconds'), 'reply', gre.report_durations(p -> 'reply_seconds'),
    'time_to_close', gre.report_durations(p -> 'closed_seconds'),
    'handle', gre.report_durations(p -> 'handled_seconds'),
    'rating', jsonb_build_object('asked', coalesce(p #> '{closed,c4}', '0'),
      'answered', coalesce(p #> '{rated,n}', '0'),
      'mean', round((p #>> '{rated,c1}')::numeric / nullif((p #>> '{rated,n}')::numeric, 0), 3),
      'good_share', round((p #>> '{rated,c2}')::numeric / nullif((p #>> '{rated,n}')::numeric, 0), 3)),
    'within_goal', jsonb_build_object('n', coalesce(p #> '{reply,c1}', '0'), 'met', coalesce(p #> '{reply,c2}', '0')));
end $$;

create function gre.report_durations(p jsonb) returns jsonb
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_n constant bigint := coalesce((p ->> 'n')::bigint, 0);
begin
  return jsonb_build_object('n', v_n, 'mean', round((p ->> 's')::numeric / nullif(v_n, 0), 3),
    'median', p -> 'p50', 'p90', p -> 'p90', 'max', p -> 'mx');
end $$;

-- Return the statement of a report. Its answer is one object with the rows by key: * is all, a number the bucket, + and
-- an id a staff member, - nobody. $3 to $8, $20 and $21: the whole range, as b of gre.report_pieces; $9 to $13: number,
-- lo, a, e and hi of buckets; $14 and $15: number and begin of buckets that gre.report_days has; $16: rows are staff.
-- First replies have no sums.
-- Durations of a bucket are sorted; those of the whole range, and of staff, are counted by value.
create function gre.report_statement(p_by text, p_basis text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_timed constant boolean := p_by not in ('none', 'staff');
  v_buckets constant text := 'unnest($9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],'
    ' $13::timestamptz[]) b (i, lo, a, e, hi)';
  v_days constant text := 'unnest($14::bigint[], $15::timestamptz[]) b (i, start)'
    ' join gre.report_days d on d.start = b.start';
  v_range constant text := '(select $3::timestamptz as lo, $4::timestamptz as a, $5::timestamptz as ma,'
    ' $6::timestamptz as me, $7::timestamptz as e, $8::timestamptz as hi, $20::timestamptz as da,'
    ' $21::timestamptz as de) b';
  v_key constant text := case p_by when 'staff' then 'coalesce(''+'' || x.staff_id, ''-'')' else '''*''::text' end;
  v_sums constant text := 'coalesce(sum(x.n), 0)::bigint as n, 0::bigint as s, 0 as p50, 0 as p90, 0 as mx,'
    ' coalesce(sum(x.c1), 0)::bigint as c1, coalesce(sum(x.c2), 0)::bigint as c2, coalesce(sum(x.c3), 0)::bigint as c3,'
    ' coalesce(sum(x.c4), 0)::bigint as c4';
  v_zeros constant text := '0::bigint as c1, 0::bigint as c2, 0::bigint as c3, 0::bigint as c4';
  v_nulls constant text := 'null::integer[] as vs, null::integer[] as ns';
  -- With another basis the durations of replies are read from facts.
  v_based constant text := case when p_basis is null then 'true' when p_basis = 'asked' then 'd.fact <> ''reply'''
    when p_basis = 'answered' then 'd.fact <> ''first''' else 'd.fact not in (''first'', ''reply'')' end;
  v_parts text[] := '{}';
  v_fact text;
  v_from text;
begin
  foreach v_fact in array array['reply', 'first', 'handled', 'closed'] loop
    v_parts := v_parts || format('select %L::text as fact, %s as key, 0::bigint as n, 0::bigint as s, 0 as p50,
        0 as p90, 0 as mx, %s, array_agg(h.v order by h.v) as vs, array_agg(h.n order by h.v) as ns
      from (
        select %s as staff_id, x.v, sum(x.n)::integer as n from %s cross join lateral (%s) x
        where x.v is not null group by 1, 2) h
      group by h.staff_id',
      v_fact || '_seconds', replace(v_key, 'x.', 'h.'), v_zeros,
      case p_by when 'staff' then 'x.staff_id collate "C"' else 'null::text' end, v_range,
      gre.report_pieces(v_fact, p_basis, case p_by when 'staff' then 'seconds' else 'counts' end, true));
  end loop;
  foreach v_fact in array array['messages', 'reply', 'closed', 'opened', 'transferred', 'rated'] loop
    exit when v_timed;
    v_parts := v_parts || format('select %L::text as fact, %s as key, %s, %s
      from %s cross join lateral (%s) x group by 2',
      v_fact, v_key, v_sums, v_nulls, v_range, gre.report_pieces(v_fact, p_basis, 'sums', true));
  end loop;
  v_parts := v_parts || format('select ''players''::text as fact, ''*''::text as key, d.n, 0::bigint as s, 0 as p50,
      0 as p90, 0 as mx, %s, %s
    from %s cross join lateral (select count(distinct x.v) as n from (%s) x) d',
    v_zeros, v_nulls, v_range, gre.report_pieces('players', p_basis, 'players', true));
  if v_timed then
    v_parts := v_parts || format('select d.fact, b.i::text as key, d.n::bigint, 0::bigint as s, 0 as p50, 0 as p90,
        0 as mx, d.c1::bigint, d.c2::bigint, d.c3::bigint, d.c4::bigint, %s from %s where %s',
      v_nulls, v_days, v_based);
    v_parts := v_parts || format('select d.fact || ''_seconds'', b.i::text as key, x.v[1] as n, x.v[2] as s,
        x.v[3]::integer as p50, x.v[4]::integer as p90, x.v[5]::integer as mx, %s, %s
      from %s cross join lateral (select case when $2 then d.open_seconds else d.seconds end as v) x
      where x.v is not null and %s', v_zeros, v_nulls, v_days, v_based);
    foreach v_fact in array array['reply', 'first', 'handled', 'closed'] loop
      v_from := v_buckets;
      if p_basis is not null and gre.report_pieces(v_fact, p_basis, 'seconds', false) not like '%report_hours%' then
        v_from := '(select * from ' || v_buckets || ' union all'
          ' select c.i, c.start, c.start, c.start, c.start + interval ''24 hours'''
          ' from unnest($14::bigint[], $15::timestamptz[]) c (i, start)) b';
      end if;
      v_parts := v_parts || format('select %L::text as fact, b.i::text as key, d.n, d.s, d.p[1] as p50, d.p[2] as p90,
          d.mx, %s, %s
        from %s cross join lateral (
          select count(x.v) as n, sum(x.v) as s, max(x.v) as mx,
            percentile_disc(array[0.5, 0.9]) within group (order by x.v) as p from (%s) x) d',
        v_fact || '_seconds', v_zeros, v_nulls, v_from, gre.report_pieces(v_fact, p_basis, 'seconds', false));
      continue when v_fact not in ('reply');
      v_parts := v_parts || format('select %L::text as fact, b.i::text as key, d.*, %s
        from %s cross join lateral (select %s from (%s) x) d',
        v_fact, v_nulls, v_from, v_sums, gre.report_pieces(v_fact, p_basis, 'sums', false));
    end loop;
    foreach v_fact in array array['messages', 'closed', 'opened', 'transferred', 'rated'] loop
      v_parts := v_parts || format('select %L::text as fact, b.i::text as key, d.*, %s
        from %s cross join lateral (select %s from (%s) x) d',
        v_fact, v_nulls, v_buckets, v_sums, gre.report_pieces(v_fact, p_basis, 'sums', false));
    end loop;
    v_parts := v_parts || format('select ''players''::text as fact, b.i::text as key, d.n, 0::bigint as s, 0 as p50,
        0 as p90, 0 as mx, %s, %s
      from %s cross join lateral (select count(distinct x.v) as n from (%s) x) d',
      v_zeros, v_nulls, v_buckets, gre.report_pieces('players', p_basis, 'players', false));
  end if;
  return 'with found as materialized (select u.* from (' || array_to_string(v_parts, ' union all ') || $sql$) u),
  counted as (
    select f.fact, f.key, f.vs, f.ns from found f where f.vs is not null
    union all
    select x.fact, '*', array_agg(x.v order by x.v), array_agg(x.n order by x.v)
    from (select f.fact, h.v, sum(h.n)::integer as n from found f cross join lateral unnest(f.vs, f.ns) h (v, n)
          where f.key <> '*' group by 1, 2) x
    group by x.fact
  ), cells as (
    select f.fact, f.key, f.n, f.s, f.p50, f.p90, f.mx, f.c1, f.c2, f.c3, f.c4 from found f where f.vs is null
    union all
    select c.fact, c.key, t.n, d.s, d.p50, d.p90, d.mx, 0, 0, 0, 0
    from counted c
    cross join lateral (select sum(u.n) as n from unnest(c.ns) u (n)) t
    cross join lateral (
      select sum(h.n * h.v::bigint)::bigint as s, min(h.v) filter (where h.upto * 2 >= t.n) as p50,
        min(h.v) filter (where h.upto * 10 >= t.n * 9) as p90, max(h.v) as mx
      from (select u.v, u.n, sum(u.n) over (rows unbounded preceding) as upto
            from unnest(c.vs, c.ns) u (v, n)) h) d
    union all
    select f.fact, '*', sum(f.n)::bigint, 0, 0, 0, 0, sum(f.c1)::bigint, sum(f.c2)::bigint, sum(f.c3)::bigint,
      sum(f.c4)::bigint
    from found f
    where f.vs is null and f.key <> '*' and f.fact not like '%\_seconds' and f.fact <> 'players' group by f.fact
    union all
    select f.fact, '-', f.n, 0, 0, 0, 0, 0, 0, 0, 0 from found f
    where $16 and f.fact = 'players' and f.n > 0
  )
  select jsonb_object_agg(r.key, r.row) from (
    select c.key, gre.report_row(jsonb_object_agg(c.fact, to_jsonb(c))) as row from cells c group by c.key) r$sql$;
end $$;

-- Return the parts of a time for gre.report_pieces. p_packed: facts that were complete before are packed.
create function gre.report_cut(
  p_lo timestamptz, p_hi timestamptz, p_packed timestamptz,
  out a timestamptz, out da timestamptz, out ma timestamptz, out me timestamptz, out de timestamptz,
  out e timestamptz
)
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  a := date_bin('1 hour', p_lo - interval '1 microsecond', timestamptz 'epoch') + interval '1 hour';
  e := least(date_bin('1 hour', p_hi, timestamptz 'epoch'), p_packed);
  if a >= e then
    a := p_hi;
    e := p_hi;
  end if;
  da := date_trunc('day', a - interval '1 microsecond', 'UTC') + interval '1 day';
  de := date_trunc('day', e, 'UTC');
  if da >= de then
    da := e;
    de := e;
  end if;
  ma := date_trunc('month', a - interval '1 microsecond', 'UTC') + interval '1 month';
  me := date_trunc('month', e, 'UTC');
  if ma >= me then
    ma := de;
    me := de;
  end if;
end $$;

create function public.gre_report(
  p_from timestamptz, p_to timestamptz, p_timezone text default 'UTC', p_by text default 'day',
  p_basis text default null, p_in_hours boolean default false
) returns jsonb
language plpgsql stable security definer
set search_path = '' set timezone = 'UTC' set enable_seqscan = off set enable_bitmapscan = off set jit = off
set plan_cache_mode = force_custom_plan set work_mem = '32MB'
set max_parallel_workers_per_gather = 0 as $$ -- starting processes takes longer
declare
  v_timed constant boolean := p_by not in ('none', 'staff');
  v_packed timestamptz;
  v_late record;
  v_range record;
  b record;
  d record;
  v_rows jsonb;
begin
  perform gre.require_staff();
  perform gre.check_report(p_from, p_to, p_timezone, p_by, p_basis);
  select k.until into v_packed from gre.report_packed k;
  if current_setting('gre.report_facts', true) = 'on' then
    v_packed := '-infinity'; -- an operator compares: nothing packed is read
  end if;
  v_range := gre.report_cut(p_from, p_to, v_packed);
  select array_agg(x.start) as starts, array_agg(x.lo) as lo, array_agg(x.hi) as hi into b
  from gre.report_buckets(p_from, p_to, p_timezone, case when v_timed then p_by else 'month' end) x;
  if cardinality(b.lo) > 2500 then
    perform gre.raise_http(400, 'report_too_large', 'a report covers at most 5 years and 2500 rows');
  end if;
  -- Packed hours and days lack the replies that have come since. Read once: each bucket would read all replies since.
  select array_agg(r.asked_at) as at, array_agg(nullif(r.staff_id, '')) as staff_ids,
    array_agg(r.wait_seconds) as seconds, array_agg(r.open_seconds) as open_seconds
  into v_late
  from public.gre_chat_responses r
  where isfinite(v_packed) and r.answered_at >= v_packed and r.first
    and r.asked_at >= p_from and r.asked_at < least(p_to, v_packed);
  select array_agg(x.i) filter (where x.ready) as ready, array_agg(x.lo) filter (where x.ready) as ready_at,
    array_agg(x.i) filter (where not x.ready) as i, array_agg(x.lo) filter (where not x.ready) as lo,
    array_agg((x.c).a) filter (where not x.ready) as a, array_agg((x.c).e) filter (where not x.ready) as e,
    array_agg(x.hi) filter (where not x.ready) as hi
  into d
  from (
    select u.i, u.lo, u.hi, gre.report_cut(u.lo, u.hi, v_packed) as c,
      u.hi - u.lo = interval '24 hours' and u.hi <= v_packed
        and u.lo = date_bin('1 hour', u.lo, timestamptz 'epoch')
        and not exists (select from unnest(v_late.at) l (at) where l.at >= u.lo and l.at < u.hi) as ready
    from unnest(b.lo, b.hi) with ordinality u (lo, hi, i)) x;
  execute gre.report_statement(p_by, p_basis) into v_rows
  using v_late.at, coalesce(p_in_hours, false), p_from, v_range.a, v_range.ma, v_range.me, v_range.e, p_to, d.i, d.lo,
    d.a, d.e, d.hi, d.ready, d.ready_at, p_by = 'staff', v_late.staff_ids, v_late.seconds, v_late.open_seconds,
    v_range.da, v_range.de;
  return jsonb_build_object('timezone', p_timezone, 'from', gre.iso(p_from), 'to', gre.iso(p_to), 'by', p_by,
    'basis', p_basis, 'in_hours', coalesce(p_in_hours, false),
    'whole_from', (select gre.iso(s.whole_from) from gre.settings s),
    'rows', coalesce(case
      when v_timed then (
        select jsonb_agg(jsonb_build_object('key', gre.iso(x.start), 'start', gre.iso(x.lo), 'end', gre.iso(x.hi))
                         || coalesce(v_rows -> x.i::text, gre.report_row('{}')) order by x.i)
        from unnest(b.starts, b.lo, b.hi) with ordinality x (start, lo, hi, i))
      when p_by = 'staff' then (
        select coalesce(jsonb_agg(jsonb_build_object('key', substr(x.key, 2)) || x.value order by x.key collate "C")
            filter (where x.key like '+%'), '[]')
          || coalesce(jsonb_agg(jsonb_build_object('key', null) || x.value) filter (where x.key = '-'), '[]')
        from jsonb_each(v_rows) x)
    end, '[]'),
    'total', coalesce(v_rows -> '*', gre.report_row('{}')));
end $$;
comment on function public.gre_report is
  'Returns figures of [p_from, p_to): {"timezone", "from", "to", "by", "basis", "in_hours", "whole_from", "rows": '
  '[row], "total": row}. p_by: none (no rows), hour, day, week, month (of p_timezone) or staff. p_basis: the time to '
  'which reply times belong: asked, answered, closed; null: each its own. p_in_hours: durations in opening hours. Row: '
  '{"key": start of the bucket or staff id (null: nobody), "start", "end", "sessions_opened", "sessions_closed", '
  '"closed_idle", "missed", "dropped", "transfers", "messages": {"player", "staff", "auto"}, "players", "first_reply", '
  '"reply", "time_to_close", "handle": {"n", "mean", "median", "p90", "max"} in seconds, "rating": {"asked", '
  '"answered", "mean", "good_share"}, "within_goal": {"n", "met"}}. The first and the last bucket are cut. Messages '
  'belong to the start of their quarter of an hour. At most 5 years and 2,500 rows (400 report_too_large). Staff only.';

-- Lists ---------------------------------------------------------------------------------------------------

create function public.gre_report_sessions(
  p_from timestamptz, p_to timestamptz, p_timezone text default 'UTC', p_by text default 'day',
  p_basis text default null, p_in_hours boolean default false, p_metric text default 'sessions_opened',
  p_key text default null, p_cursor text default null, p_limit integer default 50
) returns jsonb
language plpgsql stable security definer
set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 50), 1), 200);
  v_seconds constant text := case when p_in_hours then 'f.open_seconds' else 'f.seconds' end;
  v_fact text;
  v_value text; -- of each item; items without one are not in the figure
  v_count text; -- the item's share of the figure
  v_lo timestamptz := p_from;
  v_hi timestamptz := p_to;
  v_place record;
  v_sql text;
  v_found jsonb;
begin
  perform gre.require_staff();
  perform gre.check_report(p_from, p_to, p_timezone, p_by, p_basis);
  select m.fact, m.value, m.count into v_fact, v_value, v_count
  from (values
    ('sessions_opened', 'opened', null, '1'), ('sessions_closed', 'closed', null, '1'),
    ('closed_idle', 'closed', null, 'f.c1'), ('missed', 'closed', null, 'f.c2'), ('dropped', 'closed', null, 'f.c3'),
    ('rating_asked', 'closed', null, 'f.c4'), ('transfers', 'transferred', null, '1'),
    ('messages_player', 'messages', null, 'f.c1'), ('messages_staff', 'messages', null, 'f.c2'),
    ('messages_auto', 'messages', null, 'f.c3'), ('players', 'players', null, '1'),
    ('first_reply', 'first', v_seconds, '1'), ('reply', 'reply', v_seconds, '1'),
    ('time_to_close', 'closed', v_seconds, '1'), ('handle', 'handled', v_seconds, '1'),
    ('rating', 'rated', 'f.c1', '1'), ('within_goal', 'reply', 'f.c2', 'f.c1')) m (metric, fact, value, count)
  where m.metric = p_metric;
  if not found then
    perform gre.raise_http(400, 'metric_unknown', 'there is no such figure');
  elsif p_cursor !~ '^-?[0-9]{1,17}_[0-9a-f-]{36}_[0-9]{1,9}$' then
    perform gre.raise_http(400, 'cursor_invalid', 'cursor is not one that this list gave');
  end if;
  v_place := gre.parse_cursor(regexp_replace(p_cursor, '_[0-9]+$', ''));
  if p_by not in ('none', 'staff') then
    select b.lo, b.hi into v_lo, v_hi from gre.report_buckets(p_from, p_to, p_timezone, p_by) b
    where gre.iso(b.start) = p_key;
    if not found then
      perform gre.raise_http(400, 'key_unknown', 'the report has no row with this key');
    end if;
  end if;
  v_sql := format('select f.session_id, f.cycle, f.n, f.at, f.staff_id, %s as value, %s as count, f.player_key
      from (%s) f where f.at >= $1 and f.at < $2 and %2$s > 0', coalesce(v_value, 'null::integer'), v_count,
      gre.report_facts(v_fact, p_basis))
    || case when v_value is not null then format(' and %s is not null', v_value) else '' end
    || case when p_by <> 'staff' then '' when p_key is null then ' and f.staff_id is null'
       else ' and f.staff_id = $3' end;
  if v_fact = 'messages' then
    -- One item for each session and quarter.
    v_sql := 'select f.session_id, f.cycle, 0 as n, f.at,
        case when min(f.staff_id) = max(f.staff_id) then min(f.staff_id) end as staff_id, f.value,
        sum(f.count) as count
      from (' || v_sql || ' and ($4 is null or f.at >= $4)) f
      group by f.session_id, f.cycle, f.at, f.value';
  elsif v_fact = 'players' then
    v_sql := 'select distinct on (f.player_key) f.* from (' || v_sql || ') f order by f.player_key, f.at, f.session_id';
  elsif p_cursor is not null then
    v_sql := v_sql || ' and f.at >= $4';
  end if;
  execute 'select jsonb_build_object(
      ''items'', coalesce(jsonb_agg(jsonb_build_object(''session_id'', x.session_id, ''cycle'', x.cycle,
        ''at'', gre.iso(x.at), ''value'', x.value, ''count'', x.count, ''staff_id'', x.staff_id)
        order by x.at, x.session_id, x.n) filter (where x.place <= $7), ''[]''),
      ''next'', max(gre.format_cursor(x.at, x.session_id) || ''_'' || x.n) filter (where x.place = $7 and x.more))
    from (
      select y.*, row_number() over w as place, lead(y.n) over w is not null as more
      from (
        select z.* from (' || v_sql || ') z
        where $4 is null or (z.at, z.session_id, z.n) > ($4, $5, $6)
        order by z.at, z.session_id, z.n limit $7 + 1) y
      window w as (order by y.at, y.session_id, y.n)) x'
    into v_found using v_lo, v_hi, p_key, v_place.at, v_place.id,
      split_part(p_cursor, '_', 3)::integer, v_limit;
  return v_found;
end $$;
comment on function public.gre_report_sessions is
  'Lists what is behind a cell of gre_report (the same p_from to p_in_hours), in the order of time: {"items": '
  '[{"session_id", "cycle", "at", "value", "count", "staff_id"}], "next": cursor | null}. p_metric: sessions_opened, '
  'sessions_closed, closed_idle, missed, dropped, transfers, messages_player, messages_staff, messages_auto, players, '
  'first_reply, reply, time_to_close, handle, rating_asked, rating, within_goal. p_key: "key" of the row; null for the '
  'row of nobody, and with p_by none. "value": seconds, the score, or 1 within the goal and 0 not. The cell is the '
  'number of items; of messages the sum of "count". For players, one item for each, with the session of their first '
  'message. A session that was deleted since has another id. Staff only.';

-- Now -----------------------------------------------------------------------------------------------------

create function public.gre_report_live() returns jsonb
language plpgsql stable security definer
set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_longest timestamptz;
begin
  perform gre.require_staff();
  select s.waiting_since into v_longest from public.gre_chat_sessions s
  where s.status <> 'closed' and s.waiting_since is not null order by s.waiting_since, s.id limit 1;
  return jsonb_build_object('at', gre.iso(v_now),
    'staff', (
      select coalesce(jsonb_agg(jsonb_build_object('staff_id', t.value -> 'staff_id',
          'display_name', t.value -> 'display_name', 'status', t.value -> 'status',
          'open_sessions', t.value -> 'open_sessions',
          'max_sessions', coalesce((t.value ->> 'max_sessions')::integer, c.max_sessions)) order by t.place), '[]')
      from jsonb_array_elements(gre.staff_json()) with ordinality t (value, place)
      cross join public.gre_chat_settings c),
    'open', (select count(*) from public.gre_chat_sessions s where s.status <> 'closed'),
    'waiting', (
      select count(*) from public.gre_chat_sessions s where s.status <> 'closed' and s.waiting_since is not null),
    'unassigned', (
      select count(*) from public.gre_chat_sessions s where s.status <> 'closed' and s.assigned_staff_id is null),
    'longest_wait', greatest(floor(extract(epoch from v_now - v_longest)), case when v_longest is not null then 0 end));
end $$;
comment on function public.gre_report_live is
  'Returns the desk as it is now: {"at", "staff": [{"staff_id", "display_name", "status", "open_sessions", '
  '"max_sessions"}] (active staff, by name; "max_sessions": null without a limit), "open", "waiting", "unassigned": '
  'numbers of open sessions, "longest_wait": seconds since the longest waiting player asked, or null}. Staff only.';

-- Packing -------------------------------------------------------------------------------------------------

-- Pack the facts that were complete in [p_from, p_until): hours, then the months and the 24 hours that they change.
create function gre.report_pack_range(p_from timestamptz, p_until timestamptz) returns void
language plpgsql volatile set search_path = '' set timezone = 'UTC'
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
  v_facts constant text[] := array['opened', 'closed', 'transferred', 'messages', 'players', 'first', 'reply',
                                   'handled', 'rated'];
  v_fact text;
  v_starts timestamptz[];
begin
  foreach v_fact in array v_facts loop
    execute format('insert into gre.report_hours (fact, hour, staff_id, until, n, c1, c2, c3, c4, seconds, open_seconds,
        players)
      select %L, date_bin(''1 hour'', f.at, timestamptz ''epoch''), coalesce(f.staff_id, ''''), $2, count(*), sum(f.c1),
        sum(f.c2), sum(f.c3), sum(f.c4), array_agg(f.seconds order by f.seconds) filter (where f.seconds is not null),
        case when bool_or(f.open_seconds is distinct from f.seconds) then
          array_agg(f.open_seconds order by f.open_seconds) filter (where f.open_seconds is not null) end, %s
      from (%s) f where f.done_at >= $1 and f.done_at < $2 group by 2, 3 order by 2, 3',
      v_fact, case v_fact when 'players' then 'array_agg(distinct f.player_key)' else 'null' end,
      gre.report_facts(v_fact, null)) using p_from, p_until;
  end loop;

  with hours as (
    select h.*, date_trunc('month', h.hour, 'UTC') as month from gre.report_hours h where h.until = p_until
    union all -- of months that end now, what was packed before
    select h.*, date_trunc('month', h.hour, 'UTC')
    from unnest(v_facts) f (fact)
    join gre.report_hours h on h.fact = f.fact and h.until < p_until
      and h.hour >= date_trunc('month', p_from, 'UTC') and h.hour < date_trunc('month', p_until, 'UTC')
  ), done as materialized (
    select * from hours h where h.month < date_trunc('month', p_until, 'UTC')
  ), seconds as (
    select x.fact, x.month, x.staff_id, array_agg(x.v order by x.v) as vs, array_agg(x.n order by x.v) as ns
    from (select d.fact, d.month, d.staff_id, u.v, count(*)::integer as n
          from done d cross join lateral unnest(d.seconds) u (v) group by 1, 2, 3, 4) x
    group by 1, 2, 3
  ), open_seconds as (
    select x.fact, x.month, x.staff_id, array_agg(x.v order by x.v) as vs, array_agg(x.n order by x.v) as ns
    from (select d.fact, d.month, d.staff_id, u.v, count(*)::integer as n
          from done d cross join lateral unnest(coalesce(d.open_seconds, d.seconds)) u (v) group by 1, 2, 3, 4) x
    group by 1, 2, 3
  )
  insert into gre.report_months (fact, month, staff_id, until, n, c1, c2, c3, c4, seconds, counts, open_seconds,
    open_counts, players)
  select m.fact, m.month, m.staff_id, p_until, m.n, m.c1, m.c2, m.c3, m.c4, s.vs, s.ns, o.vs, o.ns,
    case m.fact when 'players' then array(
      select distinct u.player from done d cross join lateral unnest(d.players) u (player)
      where d.fact = m.fact and d.month = m.month and d.staff_id = m.staff_id) end
  from (select d.fact, d.month, d.staff_id, sum(d.n) as n, sum(d.c1) as c1, sum(d.c2) as c2, sum(d.c3) as c3,
          sum(d.c4) as c4
        from done d group by 1, 2, 3) m
  left join seconds s on s.fact = m.fact and s.month = m.month and s.staff_id = m.staff_id
  left join open_seconds o on o.fact = m.fact and o.month = m.month and o.staff_id = m.staff_id;

  v_starts := array(
    select distinct h.hour - k.n * interval '1 hour'
    from (select h.hour from gre.report_hours h where h.until = p_until
          union
          select h.hour from unnest(v_facts) f (fact) join gre.report_hours h on h.fact = f.fact
            and h.hour >= p_from - interval '24 hours' and h.hour < p_until) h
    cross join generate_series(0, 23) k (n)
    where h.hour - k.n * interval '1 hour' <= p_until - interval '24 hours'
    order by 1);
  delete from gre.report_days d where d.start = any (v_starts);
  insert into gre.report_days (start, fact, n, c1, c2, c3, c4, seconds, open_seconds, durations, counts,
    open_durations, open_counts)
  select w.start, f.fact, case f.fact when 'players' then p.n else s.n end, s.c1, s.c2, s.c3, s.c4, t.v,
    coalesce(o.v, t.v), td.vs, td.ns, od.vs, od.ns
  from unnest(v_starts) w (start)
  cross join unnest(v_facts) f (fact)
  cross join lateral (
    select sum(h.n) as n, sum(h.c1) as c1, sum(h.c2) as c2, sum(h.c3) as c3, sum(h.c4) as c4,
      count(h.seconds) > 0 as timed, count(h.open_seconds) > 0 as open
    from gre.report_hours h
    where h.fact = f.fact and h.hour >= w.start and h.hour < w.start + interval '24 hours') s
  left join lateral (
    select count(distinct u.player) as n
    from gre.report_hours h cross join lateral unnest(h.players) u (player)
    where f.fact = 'players' and h.fact = f.fact
      and h.hour >= w.start and h.hour < w.start + interval '24 hours') p on true
  left join lateral (
    select array[count(*), sum(x.v)] || percentile_disc(array[0.5, 0.9]) within group (order by x.v)::bigint[]
      || max(x.v)::bigint as v
    from (select unnest(h.seconds) as v from gre.report_hours h
          where h.fact = f.fact and h.hour >= w.start and h.hour < w.start + interval '24 hours') x) t on s.timed
  left join lateral (
    select array[count(*), sum(x.v)] || percentile_disc(array[0.5, 0.9]) within group (order by x.v)::bigint[]
      || max(x.v)::bigint as v
    from (select unnest(coalesce(h.open_seconds, h.seconds)) as v from gre.report_hours h
          where h.fact = f.fact and h.hour >= w.start and h.hour < w.start + interval '24 hours') x) o on s.open
  cross join lateral (
    select array_agg(y.v order by y.v) as vs, array_agg(y.n order by y.v) as ns
    from (select x.v, count(*)::integer as n
          from gre.report_hours h cross join lateral unnest(h.seconds) x (v)
          where s.timed and w.start = date_trunc('day', w.start)
            and h.fact = f.fact and h.hour >= w.start and h.hour < w.start + interval '24 hours' group by 1) y) td
  cross join lateral (
    select array_agg(y.v order by y.v) as vs, array_agg(y.n order by y.v) as ns
    from (select x.v, count(*)::integer as n
          from gre.report_hours h cross join lateral unnest(coalesce(h.open_seconds, h.seconds)) x (v)
          where s.open and w.start = date_trunc('day', w.start)
            and h.fact = f.fact and h.hour >= w.start and h.hour < w.start + interval '24 hours' group by 1) y) od
  where s.n > 0;
end $$;

-- Return the first time from p_from on that a fact or a packed hour has.
create function gre.report_begin(p_from timestamptz) returns timestamptz
language sql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
  select least(
    (select min(c.opened_at) from public.gre_chat_cycles c where c.opened_at >= p_from),
    (select min(c.closed_at) from public.gre_chat_cycles c where c.closed_at >= p_from),
    (select min(e.at) from public.gre_chat_events e where e.kind = 'transferred' and e.at >= p_from),
    (select min(a.quarter) from public.gre_chat_activity a where a.quarter >= p_from),
    (select min(r.asked_at) from public.gre_chat_responses r where r.asked_at >= p_from),
    (select min(r.answered_at) from public.gre_chat_responses r where r.answered_at >= p_from),
    (select min(a.ended_at) from public.gre_chat_assignments a where a.ended_at >= p_from),
    (select min(r.rated_at) from public.gre_chat_ratings r where r.rated_at >= p_from),
    (select min(h.hour)
     from unnest(array['opened', 'closed', 'transferred', 'messages', 'first', 'reply', 'handled', 'rated']) f (fact)
     cross join lateral (
       select k.hour from gre.report_hours k where k.fact = f.fact and k.hour >= p_from order by k.hour limit 1) h))
$$;

create function public.gre_report_pack_v1(p_days integer default 1) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_hour constant timestamptz := date_bin('1 hour', clock_timestamp() - interval '1 hour', timestamptz 'epoch');
  v_days constant integer := least(greatest(coalesce(p_days, 1), 1), 366);
  v_packed gre.report_packed;
  v_from timestamptz;
  v_until timestamptz;
begin
  perform gre.require_worker();
  select * into v_packed from gre.report_packed for update skip locked;
  if not found then
    return jsonb_build_object('packed', false, 'more', false);
  end if;
  v_from := v_packed.until;
  if v_packed.next_until > v_from
    and v_packed.next_xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) then
    -- Every transaction that was under way when next_until was noted has ended, and later ones write later times.
    if v_from = '-infinity' then
      -- Triggers write no time before the installation; what was written past them is packed if it is not ancient.
      v_from := date_bin('1 hour', greatest(least(gre.report_begin('-infinity'), v_packed.next_until),
        v_packed.next_until - interval '5 years'), timestamptz 'epoch');
    end if;
    v_until := least(v_packed.next_until, v_from + v_days * interval '1 day');
    if v_until > v_from then
      perform gre.report_pack_range(v_from, v_until);
    end if;
    update gre.report_packed set until = v_until;
  end if;
  if v_packed.next_until is null
    or v_hour > v_packed.next_until and coalesce(v_until, v_packed.until) >= v_packed.next_until
    -- A restored database begins again with small numbers.
    or v_packed.next_xid >= pg_catalog.pg_current_xact_id() then
    update gre.report_packed set next_until = v_hour, next_xid = pg_catalog.pg_current_xact_id();
  end if;
  return jsonb_build_object('packed', v_until is not null,
    'more', coalesce(v_until < v_packed.next_until, false));
end $$;
comment on function public.gre_report_pack_v1 is
  'Packs facts of finished hours for reports, at most p_days of them: {"packed", "more": call again at once}. An hour '
  'is packed an hour after its end, when the transactions of that time have ended. The call does not wait for that of '
  'another worker. For workers.';

-- Forget what is packed: gre_report_pack_v1 packs again from the beginning. For a database in which figures were
-- changed by hand.
create function gre.report_unpack() returns void
language plpgsql volatile set search_path = '' as $$
begin
  perform from gre.report_packed for update;
  delete from gre.report_hours;
  delete from gre.report_months;
  delete from gre.report_days;
  update gre.report_packed set until = '-infinity', next_until = null, next_xid = null;
end $$;

-- Return the hours that begin in a range and in which what is packed differs from the facts: fact, hour, and their
-- numbers (of facts, sums of c1 to c4, sum of seconds). Facts that were written into hours that had been packed (by
-- hand, by a clock that stepped back) are in no report, until gre.report_unpack().
create function gre.report_differences(p_from timestamptz default '-infinity', p_to timestamptz default 'infinity')
returns table (fact text, hour timestamptz, packed bigint[], found bigint[])
language plpgsql stable set search_path = '' set jit = off as $$
declare
  v_until constant timestamptz := (select k.until from gre.report_packed k);
  v_fact text;
begin
  foreach v_fact in array array['opened', 'closed', 'transferred', 'messages', 'first', 'reply', 'handled',
                                'rated'] loop
    return query execute format('select %1$L::text, hour, p.sums, f.sums
      from (
        select h.hour, array[sum(h.n), sum(h.c1), sum(h.c2), sum(h.c3), sum(h.c4),
          coalesce(sum((select sum(u.v) from unnest(h.seconds) u (v))), 0)]::bigint[] as sums
        from gre.report_hours h where h.fact = %1$L and h.hour >= $2 and h.hour < $3 group by h.hour) p
      full join (
        select date_bin(''1 hour'', x.at, timestamptz ''epoch'') as hour,
          array[count(*), sum(x.c1), sum(x.c2), sum(x.c3), sum(x.c4), coalesce(sum(x.seconds), 0)]::bigint[] as sums
        from (%2$s) x where x.done_at < $1 and x.at >= $2 and x.at < $3 + interval ''1 hour'' group by 1) f using (hour)
      where p.sums is distinct from f.sums and hour >= $2 and hour < $3 order by 2',
      v_fact, gre.report_facts(v_fact, null)) using v_until, p_from, p_to;
  end loop;
end $$;

revoke execute on function gre.report_differences, gre.report_facts, gre.report_buckets, gre.check_report,
  gre.report_pieces, gre.report_row, gre.report_durations, gre.report_statement, gre.report_cut,
  gre.report_pack_range, gre.report_begin, gre.report_unpack from public;
revoke execute on function public.gre_report, public.gre_report_sessions, public.gre_report_live,
  public.gre_report_pack_v1 from public, anon, authenticated, service_role;
grant execute on function public.gre_report, public.gre_report_sessions, public.gre_report_live
  to authenticated, service_role;
grant execute on function public.gre_report_pack_v1 to service_role;
