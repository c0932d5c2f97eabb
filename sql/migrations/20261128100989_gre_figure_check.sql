-- A check of figures: computes them again from messages and events.
-- Depends on gre_tables, gre_identity, gre_story and gre_figure_tables; its calls on gre_reports.
set local lock_timeout = '300ms';

-- Return the figures of these sessions as they should be, computed from messages and events: not turn by turn as the
-- triggers do, but by numbers of staff's messages. "what" is cycle, question N, or QUARTER SENDER STAFF for a volume.
create function gre.expected_figures(p_sessions uuid[])
returns table (session_id uuid, cycle integer, what text, value jsonb)
language sql stable set search_path = '' set enable_seqscan = off set jit = off as $$
  with events as (
    select e.*, lead(e.rev) over w as next_rev, lead(e.at) over w as next_at, lead(e.kind) over w as next_kind,
      lead(e.staff_id) over w as next_staff,
      count(*) filter (where e.kind in ('assigned', 'transferred', 'released')) over w as assignment
    from public.gre_chat_events e
    where e.session_id = any (p_sessions)
      and e.kind in ('opened', 'reopened', 'closed', 'assigned', 'transferred', 'released')
    window w as (partition by e.session_id order by e.rev)
  ), states as ( -- the person to whom the session is assigned after each event
    select e.*, first_value(case when e.kind <> 'released' then e.staff_id end)
      over (partition by e.session_id, e.assignment order by e.rev) as holder
    from events e
  ), ends as (
    select s.*, 1 + count(*) filter (where s.kind = 'reopened') over w as cycle
    from states s where s.kind in ('opened', 'reopened', 'closed')
    window w as (partition by s.session_id order by s.rev)
  ), cycles as (
    select o.session_id, o.cycle::integer, o.at as opened_at,
      case when o.data @> '{"adopted": true}' then 0 else o.after_seq end as after_seq,
      -- An update that reopens and assigns: two events.
      case when o.next_rev = o.rev + 1 and o.next_at = o.at
          and o.next_kind in ('assigned', 'transferred', 'released')
        then case when o.next_kind <> 'released' then o.next_staff end else o.holder end as opened_staff,
      case when o.data ->> 'status' = 'closed' then o.at else c.at end as closed_at,
      case when o.data ->> 'status' = 'closed' then o.data ->> 'closed_by' else c.data ->> 'by' end as closed_by,
      case when o.data ->> 'status' = 'closed' then o.holder else c.holder end as closed_staff,
      case when o.data ->> 'status' = 'closed' then 0 else c.after_seq end as last_seq,
      o.at >= (select s.whole_from from gre.settings s) as whole
    from ends o
    left join ends c on c.session_id = o.session_id and c.cycle = o.cycle and c.kind = 'closed'
    where o.kind <> 'closed'
  ), written as (
    select m.session_id, m.seq, m.sender, m.sender_id, m.created_at, c.cycle, c.whole,
      m.created_at < (select s.whole_from from gre.settings s) or m.seq <= coalesce((
        select e.after_seq from events e
        where e.session_id = m.session_id and e.data @> '{"adopted": true}'), 0) as older,
      count(*) filter (where m.sender = 'staff') over (
        partition by m.session_id, c.cycle order by m.seq) as answers
    from public.gre_chat_messages m
    left join cycles c on c.session_id = m.session_id and m.seq > c.after_seq
      and (c.last_seq is null or m.seq <= c.last_seq)
    where m.session_id = any (p_sessions)
  ), asked as ( -- of the player's messages after the same number of answers, the first asks
    select distinct on (w.session_id, w.cycle, w.answers) w.*
    from written w where w.sender = 'player' and w.cycle is not null
    order by w.session_id, w.cycle, w.answers, w.seq
  ), questions as (
    select q.session_id, q.cycle, q.seq, q.created_at as asked_at, q.whole and q.answers = 0 as first,
      row_number() over (partition by q.session_id, q.cycle order by q.seq) as n,
      a.seq as answered_seq, a.created_at as answered_at, nullif(a.sender_id, '') as staff_id, c.closed_at
    from asked q
    join cycles c on c.session_id = q.session_id and c.cycle = q.cycle
    left join written a on a.session_id = q.session_id and a.cycle = q.cycle and a.sender = 'staff'
      and a.answers = q.answers + 1
    where not q.older
  )
  select c.session_id, c.cycle, 'cycle', jsonb_build_object('opened_at', c.opened_at, 'opened_staff_id', c.opened_staff,
    'asked_at', f.asked_at, 'staff_at', f.staff_at, 'closed_at', c.closed_at, 'closed_by', c.closed_by,
    'closed_staff_id', c.closed_staff, 'close_seconds', case when c.closed_by <> 'idle' and f.asked_at is not null
      then greatest(floor(extract(epoch from c.closed_at - f.asked_at)), 0) end,
    'missed', case when c.closed_at is not null then coalesce(q.open and q.answered = 0, false) end,
    'dropped', case when c.closed_at is not null then coalesce(q.open and q.answered > 0, false) end)
  from cycles c
  left join (
    select w.session_id, w.cycle,
      (array_agg(w.created_at order by w.seq) filter (where w.sender = 'player'))[1] as asked_at,
      (array_agg(w.created_at order by w.seq) filter (where w.sender = 'staff'))[1] as staff_at
    from written w group by 1, 2) f on f.session_id = c.session_id and f.cycle = c.cycle
  left join (
    select q.session_id, q.cycle, bool_or(q.answered_seq is null) as open, count(q.answered_seq) as answered
    from questions q group by 1, 2) q on q.session_id = c.session_id and q.cycle = c.cycle
  where c.whole
  union all
  select q.session_id, q.cycle, 'question ' || q.n, jsonb_build_object('first', q.first, 'asked_seq', q.seq,
    'asked_at', q.asked_at,
    'ended', case when q.answered_seq is not null then 'answered' when q.closed_at is not null then 'closed' end,
    'ended_at', coalesce(q.answered_at, q.closed_at), 'answered_seq', q.answered_seq, 'answered_at', q.answered_at,
    'staff_id', q.staff_id,
    'wait_seconds', case when q.answered_seq is not null
      then greatest(floor(extract(epoch from q.answered_at - q.asked_at)), 0) end)
  from questions q
  union all
  select w.session_id, null, concat_ws(' ', to_timestamp(floor(extract(epoch from w.created_at) / 900) * 900)
      at time zone 'UTC', w.sender, case w.sender when 'staff' then nullif(w.sender_id, '') end), to_jsonb(count(*))
  from written w where not w.older
  group by w.session_id, 3
$$;

-- Return the figures of these sessions as they are, in the form of gre.expected_figures.
create function gre.found_figures(p_sessions uuid[])
returns table (session_id uuid, cycle integer, what text, value jsonb)
language sql stable set search_path = '' set enable_seqscan = off set jit = off as $$
  select c.session_id, c.cycle, 'cycle', jsonb_build_object('opened_at', c.opened_at, 'opened_staff_id',
    c.opened_staff_id, 'asked_at', c.asked_at, 'staff_at', c.staff_at, 'closed_at', c.closed_at,
    'closed_by', c.closed_by, 'closed_staff_id', c.closed_staff_id, 'close_seconds', c.close_seconds,
    'missed', c.missed, 'dropped', c.dropped)
  from public.gre_chat_cycles c where c.session_id = any (p_sessions)
  union all
  select r.session_id, r.cycle, 'question ' || r.n, jsonb_build_object('first', r.first, 'asked_seq', r.asked_seq,
    'asked_at', r.asked_at, 'ended', r.ended, 'ended_at', r.ended_at, 'answered_seq', r.answered_seq,
    'answered_at', r.answered_at, 'staff_id', r.staff_id, 'wait_seconds', r.wait_seconds)
  from public.gre_chat_responses r where r.session_id = any (p_sessions)
  union all
  select a.session_id, null, concat_ws(' ', a.quarter at time zone 'UTC', a.sender, nullif(a.staff_id, '')),
    to_jsonb(a.messages)
  from public.gre_chat_activity a where a.session_id = any (p_sessions)
$$;

create function public.gre_report_check(
  p_from timestamptz, p_to timestamptz, p_cursor text default null, p_limit integer default 200
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 200), 1), 1000);
  -- After the sessions come packed hours, of 31 days a page: 'packed_' and the cursor of their begin.
  v_packed constant boolean := p_cursor is not null and starts_with(p_cursor, 'packed_');
  v_after record;
  v_sessions uuid[];
  v_complete uuid[];
  v_end timestamptz := greatest(p_from, '1970-01-01Z'); -- as gre.check_report
  v_begin timestamptz;
  v_next text;
begin
  perform gre.require_admin();
  v_after := gre.parse_cursor(case when v_packed then substr(p_cursor, 8) else p_cursor end);
  select array_agg(x.id order by x.n) filter (where x.n <= v_limit),
    max(gre.format_cursor(x.updated_at, x.id)) filter (where x.n = v_limit and x.more)
  into v_sessions, v_next
  from (
    select s.id, s.updated_at, row_number() over w as n, count(*) over () > v_limit as more
    from (
      select q.id, q.updated_at from public.gre_chat_sessions q
      where not v_packed and q.updated_at >= p_from and q.updated_at < p_to
        and (p_cursor is null or q.updated_at >= v_after.at and (q.updated_at, q.id) > (v_after.at, v_after.id))
      order by q.updated_at, q.id limit v_limit + 1) s
    window w as (order by s.updated_at, s.id)) x;
  v_complete := array(
    select s.id from public.gre_chat_sessions s
    where s.id = any (v_sessions)
      and s.last_seq = (select count(*) from public.gre_chat_messages m where m.session_id = s.id)
      and exists (select from public.gre_chat_events e where e.session_id = s.id and e.kind = 'opened'));
  if v_packed then
    v_end := least(v_after.at + interval '31 days', p_to);
  end if;
  if v_next is null and (select k.until from gre.report_packed k) > '-infinity' then
    v_begin := gre.report_begin(v_end);
    if v_begin < p_to then
      v_next := 'packed_' || gre.format_cursor(
        greatest(date_bin('1 hour', v_begin, timestamptz 'epoch'), v_end), '00000000-0000-0000-0000-000000000000');
    end if;
  end if;
  return jsonb_build_object('checked', cardinality(v_complete),
    'incomplete', coalesce(cardinality(v_sessions), 0) - cardinality(v_complete),
    'differences', (
      select coalesce(jsonb_agg(jsonb_build_object('session_id', x.session_id, 'cycle', x.cycle, 'what', x.what,
          'expected', x.expected, 'found', x.found) order by x.session_id, x.cycle, x.what), '[]')
      from (
        select coalesce(e.session_id, f.session_id) as session_id, coalesce(e.cycle, f.cycle) as cycle,
          coalesce(e.what, f.what) as what, e.value as expected, f.value as found
        from gre.expected_figures(v_complete) e
        full join gre.found_figures(v_complete) f on f.session_id = e.session_id and f.what = e.what
          and coalesce(f.cycle, 0) = coalesce(e.cycle, 0)
        where e.value is distinct from f.value
        union all
        select * from (
          select null::uuid, null::integer, concat_ws(' ', 'packed', d.fact, d.hour at time zone 'UTC'),
            to_jsonb(d.found), to_jsonb(d.packed)
          from gre.report_differences(v_after.at, v_end) d where v_packed limit v_limit) d) x),
    'next', v_next);
end $$;
comment on function public.gre_report_check is
  'Computes the figures of the sessions that changed in a range again, from messages and events, and returns what '
  'differs: {"checked": number of sessions, "incomplete": number of sessions that are not compared, since messages or '
  'events are missing, "differences": [{"session_id", "cycle", "what", "expected", "found"}], "next": cursor | null}. '
  'At most p_limit sessions (at most 1,000), the oldest change first; then the hours of the range of which what is '
  'packed (gre_report_pack_v1) differs from the figures: session_id null, "what" "packed FACT HOUR", and the numbers '
  'of gre.report_differences. Messages that were written without triggers are in no figure. For admins.';

revoke execute on function gre.expected_figures, gre.found_figures from public;
revoke execute on function public.gre_report_check from public, anon, authenticated, service_role;
grant execute on function public.gre_report_check to authenticated, service_role;
