-- Functions for the staff's console: the queue, players, operations, dead letters.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_outbox and gre_operations.
set local lock_timeout = '300ms';

-- Security definer: with row-level security, the search by name could not use an index.
create function public.gre_session_queue(
  p_status text default null, p_assigned text default null, p_player text default null, p_limit integer default 50,
  p_cursor text default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_actor gre.actor := gre.require_staff();
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_name text := lower(nullif(btrim(p_player), ''));
  v_player bigint := case when v_name ~ '^[0-9]{1,18}$' then v_name::bigint end;
  v_staff text := case p_assigned when 'me' then v_actor.staff_id when 'none' then null else p_assigned end;
  v_unassigned boolean := p_assigned = 'none';
  v_group integer := -1; -- group in which the page before ended: 0 waiting, 1 answered, 2 closed
  v_after record;
  v_first_goal boolean := exists (select from public.gre_chat_settings where first_reply_goal is not null);
  v_result jsonb;
begin
  if p_status not in ('active', 'closed') then
    perform gre.raise_http(400, 'status_unknown', 'status must be active or closed');
  elsif p_cursor is not null then
    if p_cursor !~ '^[012]_' then
      perform gre.raise_http(400, 'cursor_invalid', 'cursor is not one that this list gave');
    end if;
    v_group := left(p_cursor, 1);
  end if;
  v_after := gre.parse_cursor(substr(p_cursor, 3));
  -- Three groups, each read in the order of an index. The planner knows the arguments, and skips a group that cannot
  -- match.
  with page as (
    (select s, 0 as group_no, s.waiting_since as at from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and (p_status is null or p_status = 'active')
      and (p_assigned is null
        or case when v_unassigned then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and v_group <= 0 and (v_group < 0 or (s.waiting_since, s.id) > (v_after.at, v_after.id))
    order by s.waiting_since, s.id limit v_limit + 1)
    union all
    (select s, 1, case when s.last_message_at is null then s.created_at else s.last_message_at end
    from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is null and (p_status is null or p_status = 'active')
      and (p_assigned is null
        or case when v_unassigned then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and v_group <= 1
      and (v_group < 1 or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id)
                          < (v_after.at, v_after.id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
    limit v_limit + 1)
    union all
    (select s, 2, case when s.last_message_at is null then s.created_at else s.last_message_at end
    from public.gre_chat_sessions s
    where s.status = 'closed' and (p_status is null or p_status = 'closed')
      and (p_assigned is null
        or case when v_unassigned then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and (v_group < 2 or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id)
                          < (v_after.at, v_after.id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
    limit v_limit + 1)
  ), numbered as (
    select s, group_no, at, row_number() over (
      order by group_no, case group_no when 0 then at end, case group_no when 0 then (s).id end, at desc, (s).id desc)
      as n
    from page
  ), listed as materialized (
    select * from numbered where n <= v_limit + 1
  ), converted as (
    select n, group_no, at, (s).id as id,
      x.json || jsonb_build_object('waiting_since', gre.iso((s).waiting_since))
        || case when v_first_goal and group_no < 2 and (
          -- From the end: of a session that waits, only the messages since staff's last one are read.
          select m.seq from public.gre_chat_messages m
          where m.session_id = (s).id and m.sender = 'staff' order by m.seq desc limit 1
        ) > case when (s).cycle = 1 then 0 else coalesce((
          select e.after_seq from public.gre_chat_events e
          where e.session_id = (s).id and e.kind = 'reopened' order by e.rev desc limit 1), 0) end
        then jsonb_build_object('replied', true) else '{}' end as json
    from listed
    join gre.sessions_json(array(select s from listed order by n)) with ordinality x (json, n) using (n)
  ), sized as ( -- 1 MB at most
    select *, n <= v_limit and (n = 1 or sum(octet_length(json::text)) over (order by n) <= 1048576) as fits
    from converted
  )
  select jsonb_build_object(
    'sessions', coalesce(jsonb_agg(json order by n) filter (where fits), '[]'),
    'next', case when count(*) > count(*) filter (where fits) then (
      select x.group_no || '_' || gre.format_cursor(x.at, x.id)
      from sized x where x.fits order by x.n desc limit 1) end)
  into v_result from sized;
  return v_result;
end $$;
comment on function public.gre_session_queue is
  'Lists sessions in the order of work: {"sessions": [S with "waiting_since"], "next": cursor | null}. First open '
  'sessions that wait for an answer, longest waiting first; then answered open sessions, latest first; then closed '
  'sessions, latest first. p_status: active | closed; p_assigned: me | none | a staff id; p_player: a player''s id, or '
  'the start of its name. A session that changes between two pages can be listed twice or not at all. "replied": true '
  'is added where staff have written since an open session was opened or reopened, while first_reply_goal is set.';

create function public.gre_get_player(p_player_id bigint) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  perform gre.require_staff();
  perform gre.check_player_id(p_player_id);
  return gre.player_json(p_player_id);
end $$;
comment on function public.gre_get_player is
  'Returns a player: {"player_id", "display_name", "enabled", "block"?: {"until", "reason", "by", "at"}}. '
  'Players without a profile are enabled. "block" is there while a block lasts (gre_block_player).';

create function public.gre_operations() returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_minute timestamptz := date_trunc('minute', v_now);
  v_first timestamptz := v_minute - interval '59 minutes';
  v_sinks jsonb;
begin
  perform gre.require_staff();
  v_sinks := gre.relay_stats();
  return jsonb_build_object(
    'backlog', (select coalesce(sum((x ->> 'pending')::bigint), 0) from jsonb_array_elements(v_sinks) x),
    'oldest_age_seconds', (select max((x ->> 'oldest_age')::numeric) from jsonb_array_elements(v_sinks) x),
    'dead', (select coalesce(sum((x ->> 'dead')::bigint), 0) from jsonb_array_elements(v_sinks) x),
    'sinks', (
      select coalesce(jsonb_agg(jsonb_build_object('name', x -> 'sink', 'enabled', x -> 'enabled',
        'pending', x -> 'pending', 'dead', x -> 'dead',
        'blocked', x -> 'lanes_blocked', 'oldest_age_seconds', x -> 'oldest_age', 'breaker', w.state -> 'breaker',
        'last_error', w.state -> 'error') order by x ->> 'sink'), '[]')
      from jsonb_array_elements(v_sinks) x
      left join lateral (
        select b.info -> 'sinks' -> (x ->> 'sink') as state from public.gre_relay_workers b
        where b.seen_at > v_now - interval '1 minute' and b.info -> 'sinks' -> (x ->> 'sink') is not null
        order by array_position(array['open', 'half_open', 'closed'],
                                b.info -> 'sinks' -> (x ->> 'sink') ->> 'breaker'), b.seen_at desc
        limit 1) w on true),
    'workers', (
      select coalesce(jsonb_agg(jsonb_build_object('host', w.host, 'version', w.version,
        'seen_seconds', round(greatest(extract(epoch from v_now - w.seen_at), 0)::numeric, 1))
        order by w.started_at), '[]')
      from public.gre_relay_workers w where w.info ->> 'process' is distinct from 'api'),
    'per_minute', (
      select jsonb_agg(jsonb_build_object('minute', gre.iso(m.at), 'count', coalesce(c.n, 0)) order by m.at)
      from generate_series(v_first, v_minute, interval '1 minute') m (at)
      left join (
        select date_trunc('minute', d.settled_at) as at, count(*) as n from public.gre_relay_deliveries d
        -- The first condition makes the partial index usable.
        where d.state in ('done', 'expired') and d.state = 'done' and d.settled_at >= v_first
        group by 1) c on c.at = m.at));
end $$;
comment on function public.gre_operations is
  'Returns the state of the relay: {"backlog", "oldest_age_seconds", "dead", "sinks": [{"name", "enabled", "pending", '
  '"dead", "blocked", "oldest_age_seconds", "breaker", "last_error"}], "workers": [{"host", "version", '
  '"seen_seconds"}], "per_minute": [{"minute", "count"}] (deliveries done in each of the last 60 minutes)}. '
  '"workers" are relay processes. "breaker" is the worst state that a worker reported within the last minute.';

create function public.gre_dead_letters(
  p_sink text default null, p_limit integer default 50, p_cursor text default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_after record;
  v_result jsonb;
begin
  perform gre.require_admin();
  v_after := gre.parse_cursor(p_cursor);
  with numbered as (
    select d.*, row_number() over (order by d.settled_at desc, d.id desc) as n
    from public.gre_relay_sinks k
    cross join lateral (
      select * from public.gre_relay_deliveries q
      where q.sink = k.name and q.state = 'dead'
        and (p_cursor is null
          or q.settled_at <= v_after.at and (q.settled_at, q.id) < (v_after.at, v_after.id))
      order by q.settled_at desc, q.id desc limit v_limit + 1) d
    where p_sink is null or k.name = p_sink
  )
  select jsonb_build_object(
    'dead', coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'sink', d.sink, 'event', d.event,
      'session_id', case when d.event <> 'push' then d.lane_key end, 'message_id', d.message_id, 'attempts', d.attempts,
      'error', d.last_error, 'created_at', gre.iso(d.created_at)) order by d.n) filter (where d.n <= v_limit), '[]'),
    'next', case when count(*) > v_limit then (
      select gre.format_cursor(x.settled_at, x.id) from numbered x where x.n = v_limit) end)
  into v_result from numbered d;
  return v_result;
end $$;
comment on function public.gre_dead_letters is
  'Lists dead letters, newest first: {"dead": [{"id", "sink", "event", "session_id", "message_id", "attempts", '
  '"error", "created_at"}], "next": cursor | null}, without the text of messages. For admins.';

create function public.gre_retry_dead(p_ids uuid[]) returns integer
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_admin();
  if p_ids is null or cardinality(p_ids) > 100 then
    perform gre.raise_http(400, 'ids_invalid', 'ids must be at most 100 ids of dead letters');
  end if;
  return gre.retry_dead(p_ids, false);
end $$;
comment on function public.gre_retry_dead is
  'Retries at most 100 dead letters. Returns their number. Deliveries that are not dead are not changed. For admins.';

revoke execute on function public.gre_session_queue, public.gre_get_player, public.gre_operations,
  public.gre_dead_letters, public.gre_retry_dead
  from public, anon, authenticated, service_role;
grant execute on function public.gre_session_queue, public.gre_get_player, public.gre_operations,
  public.gre_dead_letters, public.gre_retry_dead to authenticated, service_role;
