-- Export: the rows from which the figures are counted, and the messages, page by page in the order of time. For admins
-- and back ends. Depends on gre_foundation, gre_tables, gre_identity, gre_story, gre_assignment and gre_figures.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Each list is read in the order of an index that begins with its time: those of figures are in gre_reports, that of
-- messages in gre_tables.
create index gre_chat_events_at on public.gre_chat_events (at, session_id, rev);
create index gre_chat_assignments_started on public.gre_chat_assignments (started_at, session_id, n);

-- Format a time with microseconds: durations are counted from the exact times.
create function gre.export_time(p_time timestamptz) returns text
language plpgsql stable parallel safe set search_path = '' as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end $$;

-- Return the statement that reads rows (at, id, a, b, item) of a list; null for an unknown name. Parameters: $1 and $2
-- the times, $3 to $6 the place after which the rows come, $7 their number.
create function gre.export_query(p_what text) returns text
language sql immutable set search_path = '' as $$
  select case p_what
  when 'sessions' then $q$
    select c.opened_at as at, c.session_id as id, c.cycle as a, 0::bigint as b, jsonb_build_object(
        'session_id', c.session_id, 'cycle', c.cycle, 'player_id', s.player_id, 'player_name', s.player_name,
        'player_key', c.player_key,
        'status', case when s.status = 'closed' then 'closed' when s.id is not null then 'active' end,
        'assigned_staff_id', s.assigned_staff_id, 'opened_at', gre.export_time(c.opened_at),
        'opened_staff_id', c.opened_staff_id, 'asked_at', gre.export_time(c.asked_at),
        'staff_at', gre.export_time(c.staff_at), 'closed_at', gre.export_time(c.closed_at), 'closed_by', c.closed_by,
        'closed_staff_id', c.closed_staff_id, 'close_seconds', c.close_seconds,
        'close_open_seconds', c.close_open_seconds, 'missed', c.missed, 'dropped', c.dropped,
        'rating_asked', c.rating_asked) as item
    from (select * from public.gre_chat_cycles c
          where c.opened_at >= $1 and c.opened_at < $2 and (c.opened_at, c.session_id, c.cycle) > ($3, $4, $5)
          order by c.opened_at, c.session_id, c.cycle limit $7) c
    left join public.gre_chat_sessions s on s.id = c.session_id $q$
  when 'messages' then $q$
    select m.created_at as at, m.id, 0::bigint as a, 0::bigint as b, jsonb_build_object(
        'id', m.id, 'session_id', m.session_id, 'seq', m.seq, 'player_id', m.player_id, 'player_name', m.player_name,
        'sender', m.sender, 'sender_id', m.sender_id, 'sender_name', m.sender_name, 'origin', m.origin,
        'status', m.status, 'message', m.message, 'attachment_ids', m.attachment_ids,
        'created_at', gre.export_time(m.created_at), 'timestamp', gre.export_time(m."timestamp")) as item
    from (select * from public.gre_chat_messages m
          where m.created_at >= $1 and m.created_at < $2 and (m.created_at, m.id) > ($3, $4)
          order by m.created_at, m.id limit $7) m $q$
  when 'responses' then $q$
    select r.asked_at as at, r.session_id as id, r.cycle as a, r.n as b, jsonb_build_object(
        'session_id', r.session_id, 'cycle', r.cycle, 'n', r.n, 'first', r.first, 'asked_seq', r.asked_seq,
        'asked_at', gre.export_time(r.asked_at), 'due_at', gre.export_time(r.due_at), 'ended', r.ended,
        'ended_at', gre.export_time(r.ended_at), 'answered_seq', r.answered_seq,
        'answered_at', gre.export_time(r.answered_at), 'staff_id', r.staff_id, 'wait_seconds', r.wait_seconds,
        'open_seconds', r.open_seconds) as item
    from (select * from public.gre_chat_responses r
          where r.asked_at >= $1 and r.asked_at < $2 and (r.asked_at, r.session_id, r.cycle, r.n) > ($3, $4, $5, $6)
          order by r.asked_at, r.session_id, r.cycle, r.n limit $7) r $q$
  when 'events' then $q$
    select e.at, e.session_id as id, e.rev as a, 0::bigint as b, jsonb_build_object(
        'session_id', e.session_id, 'rev', e.rev, 'at', gre.export_time(e.at), 'after_seq', e.after_seq, 'kind', e.kind,
        'staff_id', e.staff_id, 'by_staff_id', e.by_staff_id, 'data', e.data) as item
    from (select * from public.gre_chat_events e
          where e.at >= $1 and e.at < $2 and (e.at, e.session_id, e.rev) > ($3, $4, $5)
          order by e.at, e.session_id, e.rev limit $7) e $q$
  when 'ratings' then $q$
    select r.rated_at as at, r.session_id as id, r.cycle as a, 0::bigint as b, jsonb_build_object(
        'session_id', r.session_id, 'cycle', r.cycle, 'score', r.score, 'comment', r.comment, 'staff_id', r.staff_id,
        'rated_at', gre.export_time(r.rated_at)) as item
    from (select * from public.gre_chat_ratings r
          where r.rated_at >= $1 and r.rated_at < $2 and (r.rated_at, r.session_id, r.cycle) > ($3, $4, $5)
          order by r.rated_at, r.session_id, r.cycle limit $7) r $q$
  when 'assignments' then $q$
    select a.started_at as at, a.session_id as id, a.n as a, 0::bigint as b, jsonb_build_object(
        'session_id', a.session_id, 'n', a.n, 'staff_id', a.staff_id, 'how', a.how, 'by_staff_id', a.by_staff_id,
        'after_seq', a.after_seq, 'started_at', gre.export_time(a.started_at), 'ended_at', gre.export_time(a.ended_at),
        'end_how', a.end_how, 'open_seconds', a.open_seconds) as item
    from (select * from public.gre_chat_assignments a
          where a.started_at >= $1 and a.started_at < $2 and (a.started_at, a.session_id, a.n) > ($3, $4, $5)
          order by a.started_at, a.session_id, a.n limit $7) a $q$
  end
$$;

create function public.gre_export(
  p_what text, p_from timestamptz default null, p_to timestamptz default null, p_cursor text default null,
  p_limit integer default 1000
) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
set enable_seqscan = off set enable_bitmapscan = off as $$ -- a page is read in index order
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 1000), 1), 1000);
  v_bytes constant integer := 1000000;
  v_from constant timestamptz := coalesce(p_from, '-infinity');
  v_to constant timestamptz := coalesce(p_to, 'infinity');
  v_query text;
  v_place record;
  v_a bigint;
  v_b bigint;
  v_rows jsonb;
  v_next text;
begin
  perform gre.require_admin();
  v_query := gre.export_query(p_what);
  if v_query is null then
    perform gre.raise_http(400, 'export_unknown',
      'what must be sessions, messages, responses, events, ratings or assignments');
  elsif v_from >= v_to then
    perform gre.raise_http(400, 'range_invalid', 'from must be before to');
  elsif p_cursor !~ '^[^_]{1,20}_[^_]{36}(_[0-9]{1,17}){2}$' then
    perform gre.raise_http(400, 'cursor_invalid', 'cursor is not one that this list gave');
  end if;
  -- Without a cursor: after every row before p_from.
  v_place := gre.parse_cursor(split_part(p_cursor, '_', 1) || '_' || split_part(p_cursor, '_', 2));
  v_a := coalesce(split_part(p_cursor, '_', 3), '0');
  v_b := coalesce(split_part(p_cursor, '_', 4), '0');
  execute format($q$
    with page as materialized (select * from (%s) q),
    sized as (
      select p.*, count(*) over () as found, row_number() over w as n,
        sum(octet_length(p.item::text)) over w as size
      from page p window w as (order by p.at, p.id, p.a, p.b rows unbounded preceding)),
    kept as (select * from sized where n = 1 or size <= $8)
    select coalesce(jsonb_agg(k.item order by k.n), '[]'),
      (select case when l.n < l.found or l.found = $7 then gre.format_cursor(l.at, l.id) || '_' || l.a || '_' || l.b end
       from kept l order by l.n desc limit 1)
    from kept k $q$, v_query)
    into v_rows, v_next
    using v_from, v_to, coalesce(v_place.at, v_from - interval '1 microsecond'),
      coalesce(v_place.id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), v_a, v_b, v_limit, v_bytes;
  return jsonb_build_object('rows', v_rows, 'next', v_next);
end $$;
comment on function public.gre_export is
  'Returns a page of a list, in the order of time: {"rows": [...], "next": cursor | null}. p_what: sessions (one row '
  'of each cycle, by opened_at; what is known of the session is null after its deletion), messages (created_at), '
  'responses (questions, by asked_at), events (at), ratings (rated_at) or assignments (started_at). '
  'p_from <= time < p_to. A page has at most p_limit rows (1000) and about 1 MB. Times have microseconds. For admins '
  'and back ends.';

revoke execute on function gre.export_time, gre.export_query from public;
revoke execute on function public.gre_export from public, anon, authenticated, service_role;
grant execute on function public.gre_export to authenticated, service_role;
