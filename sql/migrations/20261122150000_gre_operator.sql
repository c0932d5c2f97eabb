-- For those who run it: dead letters, replay, reconciliation, expiry, pruning, workers' heartbeats, and a role
-- for the worker that can do the worker's work and nothing else.
set local lock_timeout = '300ms';
select gre.lock_tables();

-- For replay and reconcile, which go through messages of all sessions by time.
create index gre_chat_messages_created on public.gre_chat_messages (created_at, id);

-- From when on a sink must have had every message: what is older was there before the outbox, came while the sink was
-- off, or its deliveries have been pruned.
alter table public.gre_relay_sinks add column announced_from timestamptz not null default now();
comment on column public.gre_relay_sinks.announced_from is 'Reconcile looks at messages from here on.';
-- (History that a portal wrote in its own time zone can be dated ahead. It is history all the same.)
update public.gre_relay_sinks set announced_from = greatest(now(), (
  select max(m.created_at) + interval '1 microsecond' from public.gre_chat_messages m
  where m.created_at >= now() and not exists (select from public.gre_relay_deliveries d where d.message_id = m.id)));

create function gre.sink_enabled() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.announced_from := clock_timestamp();
  return new;
end $$;
create trigger gre_sink_enabled before update on public.gre_relay_sinks
  for each row when (new.enabled and not old.enabled) execute function gre.sink_enabled();

create table public.gre_relay_workers (
  id uuid primary key,
  host text not null,
  version text not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  info jsonb not null default '{}'
);
comment on table public.gre_relay_workers is 'Daemons that have been heard of in the last hour: what each says of its feed and its sinks.';
alter table public.gre_relay_workers enable row level security;
revoke all on public.gre_relay_workers from public, anon, authenticated, service_role;
grant select on public.gre_relay_workers to service_role;

-- A daemon says that it is there: {"schema": version, "sinks": [{"sink", "enabled"}]}.
create function public.gre_relay_beat(p_worker uuid, p_host text, p_version text, p_info jsonb default '{}') returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker();
  if octet_length(p_info::text) > 65536 then
    perform gre.refuse(400, 'info_too_large', 'p_info is larger than 64 KB');
  end if;
  insert into public.gre_relay_workers as w (id, host, version, info)
  values (p_worker, left(p_host, 200), left(p_version, 50), p_info)
  on conflict (id) do update set host = excluded.host, version = excluded.version, seen_at = clock_timestamp(), info = excluded.info;
  delete from public.gre_relay_workers w where w.id in (
    select o.id from public.gre_relay_workers o where o.seen_at < clock_timestamp() - interval '1 hour' for update skip locked);
  update gre.settings set player_external_id = left(p_info ->> 'player_external_id', 200)
  where p_info ->> 'player_external_id' <> player_external_id;
  return jsonb_build_object('schema', public.gre_schema_version(),
    'sinks', (select jsonb_agg(jsonb_build_object('sink', s.name, 'enabled', s.enabled) order by s.name) from public.gre_relay_sinks s));
end $$;

-- A daemon has stopped.
create function public.gre_relay_leave(p_worker uuid) returns void
language sql volatile security definer set search_path = '' as $$
  select gre.require_worker();
  delete from public.gre_relay_workers where id = p_worker
$$;

-- What waits and why, for `status`: {"now", "sinks": rows of gre_relay_stats with "rate" (settled a second, over the
-- last ten), "blocked": [lanes that wait for a retry, with the error], "workers": […]}.
create function public.gre_relay_status(p_blocked integer default 10) returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker();
  select jsonb_build_object('now', clock_timestamp(),
    'sinks', (select coalesce(jsonb_agg(x || jsonb_build_object('rate', (
        select round(count(*) / 10.0, 1) from public.gre_relay_deliveries d -- (not clock_timestamp(): that keeps it off the index)
        where d.sink = x ->> 'sink' and d.state in ('done', 'expired') and d.settled_at > statement_timestamp() - interval '10 seconds'))), '[]')
      from jsonb_array_elements(gre.relay_stats()) x),
    'blocked', (select coalesce(jsonb_agg(to_jsonb(b) order by b.since), '[]') from (
      select l.sink, l.lane_key, round(extract(epoch from l.ready_at - clock_timestamp())::numeric, 1) as retry_in,
        d.attempts, d.last_error as error, d.event, gre.iso(d.created_at) as since
      from public.gre_relay_lanes l
      join lateral (select * from public.gre_relay_deliveries q where q.sink = l.sink and q.lane_key = l.lane_key and q.state = 'pending'
                    order by q.ord limit 1) d on true
      where l.ready_at > clock_timestamp() order by l.ready_at limit p_blocked) b),
    'workers', (select coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'host', w.host, 'version', w.version, 'started_at', gre.iso(w.started_at),
                  'seen', round(extract(epoch from clock_timestamp() - w.seen_at)::numeric, 1), 'info', w.info) order by w.started_at), '[]')
                from public.gre_relay_workers w))
$$;

-- Sends a wake-up and does nothing else: so `doctor` and a worker that misses wake-ups hear whether they arrive. False where this project's Realtime has no bell.
create function public.gre_relay_ring() returns boolean
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker();
  perform gre.send_wakeup(null);
  return to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null;
end $$;

-- Dead letters, newest first: [{"id", "sink", "lane", "event", "message_id", "attempts", "error", "created_at", "died_at"}, …]. Never text.
-- p_before keeps to those that died before it: whoever retries page by page does not meet what died again meanwhile.
create function public.gre_relay_dead(
  p_sink text default null, p_session uuid default null, p_older_than interval default null, p_error text default null,
  p_ids uuid[] default null, p_limit integer default 100, p_before timestamptz default null
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker(p_operator => true);
  select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'sink', d.sink, 'lane', d.lane_key, 'event', d.event, 'message_id', d.message_id,
    'attempts', d.attempts, 'error', d.last_error, 'created_at', gre.iso(d.created_at), 'died_at', gre.iso(d.settled_at))
    order by d.settled_at desc, d.id), '[]')
  from (
    select * from public.gre_relay_deliveries q
    where q.state = 'dead' and (p_sink is null or q.sink = p_sink) and (p_session is null or q.lane_key = p_session::text)
      and (p_older_than is null or q.settled_at < clock_timestamp() - p_older_than)
      and (p_before is null or q.settled_at < p_before)
      and (p_error is null or position(lower(p_error) in lower(q.last_error)) > 0)
      and (p_ids is null or q.id = any (p_ids))
    order by q.settled_at desc, q.id limit least(greatest(p_limit, 1), 1000)) d
$$;

-- Makes lanes due that have pending work but do not say so, and those that have got some. The caller holds or adds the rows.
create function gre.wake_lanes(p_keys text[]) returns void
language sql volatile set search_path = '' as $$
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select d.sink, d.lane_key, min(d.created_at) from public.gre_relay_deliveries d
    where d.state = 'pending' and d.lane_key = any (p_keys) and d.sink in (select name from public.gre_relay_sinks)
    group by d.sink, d.lane_key order by d.lane_key, d.sink
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null
$$;

-- The functions below take lanes before deliveries, in the order that everyone takes them, and wait for no lock longer than
-- 300 ms: a portal's transaction that takes them in another order is then not the one to be killed as a deadlock's
-- victim. What could not be had in time fails as a whole with 55P03, and the caller asks again.

-- Dead letters get their attempts back and are sent again ("retry") or given up for good ("drop"). Returns how many.
create function gre.retry_dead(p_ids uuid[], p_drop boolean) returns integer
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_lanes text[];
  v_count integer;
begin
  perform 1 from (
    select l.sink, l.lane_key from public.gre_relay_lanes l
    where (l.sink, l.lane_key) in (select d.sink, d.lane_key from public.gre_relay_deliveries d where d.id = any (p_ids) and d.state = 'dead')
    order by l.lane_key, l.sink for no key update) x;
  with changed as (
    update public.gre_relay_deliveries d set
      state = case when p_drop then 'expired' else 'pending' end, attempts = case when p_drop then d.attempts else 0 end,
      settled_at = case when p_drop then clock_timestamp() end
    where d.id = any (p_ids) and d.state = 'dead' returning d.lane_key
  )
  select count(*), array_agg(distinct lane_key) into v_count, v_lanes from changed;
  if v_count > 0 and not p_drop then
    perform gre.wake_lanes(v_lanes);
    perform gre.ring(null);
  end if;
  return v_count;
end $$;

create function public.gre_relay_retry(p_ids uuid[], p_drop boolean default false) returns integer
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker(p_operator => true);
  return gre.retry_dead(p_ids, p_drop);
end $$;

-- A place in the order of (created_at, id), as text and back.
create function gre.cursor_text(p_at timestamptz, p_id uuid) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '_' || p_id
$$;

-- New deliveries for messages that are there already: of p_ids[n] for the sink p_sinks[n], in order of session and seq. With
-- p_data (a replay) they count as new, without as what they are: late.
create function gre.announce_again(p_ids uuid[], p_sinks text[], p_data jsonb) returns void
language plpgsql volatile set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  if cardinality(p_ids) = 0 then
    return;
  end if;
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select distinct p.sink, m.session_id::text, v_now
    from unnest(p_ids, p_sinks) p (id, sink) join public.gre_chat_messages m on m.id = p.id
    order by 2, 1
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  -- What is being deleted meanwhile is nothing to announce.
  with here as materialized (
    select m.id, m.session_id, m.seq, m.created_at from public.gre_chat_messages m where m.id = any (p_ids) for key share skip locked
  )
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, data, created_at)
    select o.sink, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, p_data, case when p_data is null then o.created_at else v_now end
    from (select p.sink, h.session_id::text as lane_key, h.id, h.created_at
          from unnest(p_ids, p_sinks) p (id, sink) join here h on h.id = p.id
          order by h.session_id, h.seq, p.sink) o;
  perform gre.ring(null);
end $$;

-- Announces again what went already, oldest first, one page a call: {"messages": how many, "next": cursor | null}. Each says
-- "replayed". What still waits goes once, by itself. p_after is "next" of the page before; p_dry_run only counts.
create function public.gre_relay_replay(
  p_since timestamptz default null, p_session uuid default null, p_sink text default null, p_until timestamptz default null,
  p_after text default null, p_dry_run boolean default false, p_limit integer default 500
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 1000);
  v_at timestamptz := split_part(p_after, '_', 1);
  v_id uuid := split_part(p_after, '_', 2);
  v_page uuid[];
  v_ids uuid[];
  v_sinks text[];
begin
  perform gre.require_worker(p_operator => true);
  if p_since is null and p_session is null then
    perform gre.refuse(400, 'replay_unbounded', 'a time or a session is required');
  elsif p_sink is not null and not exists (select from public.gre_relay_sinks where name = p_sink and enabled) then
    perform gre.refuse(400, 'sink_unknown', 'there is no such enabled sink');
  end if;
  select coalesce(array_agg(m.id order by m.created_at, m.id), '{}') into v_page from (
    select q.id, q.created_at from public.gre_chat_messages q
    where (p_session is null or q.session_id = p_session) and (p_since is null or q.created_at >= p_since)
      and (p_until is null or q.created_at < p_until) and (v_id is null or (q.created_at, q.id) > (v_at, v_id))
    order by q.created_at, q.id limit v_limit) m;
  select coalesce(array_agg(i), '{}'), coalesce(array_agg(s.name), '{}') into v_ids, v_sinks
  from unnest(v_page) i cross join public.gre_relay_sinks s
  where s.enabled and (p_sink is null or s.name = p_sink) and not exists (
    select from public.gre_relay_deliveries d where d.message_id = i and d.sink || '' = s.name and d.state || '' = 'pending');
  if not p_dry_run then
    perform gre.announce_again(v_ids, v_sinks, '{"replayed": true}');
  end if;
  return jsonb_build_object('messages', (select count(distinct i) from unnest(v_ids) i), 'next', (
    select gre.cursor_text(m.created_at, m.id) from public.gre_chat_messages m
    where m.id = v_page[cardinality(v_page)] and cardinality(v_page) >= v_limit));
end $$;

-- Compares messages with deliveries and repairs what came in around the triggers (a restore, a disabled trigger), one page a
-- call: {"checked", "missing": {sink: n}, "lanes": how many had work but did not say so, "next"}. From the sinks'
-- announced_from on, however young: a message and its deliveries are one transaction's, so one is never seen without the other.
create function public.gre_relay_reconcile(p_after text default null, p_dry_run boolean default false, p_limit integer default 1000) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 1000);
  v_from timestamptz;
  v_at timestamptz := split_part(p_after, '_', 1);
  v_id uuid := split_part(p_after, '_', 2);
  v_page uuid[];
  v_ids uuid[];
  v_sinks text[];
  v_lanes text[] := '{}';
  v_woken integer := 0;
begin
  perform gre.require_worker(p_operator => true);
  -- Held, so that no prune beside it takes deliveries away that are looked for below.
  select min(s.announced_from) into v_from from (select announced_from from public.gre_relay_sinks where enabled order by name for share) s;
  if p_after is null then
    select coalesce(array_agg(distinct d.lane_key), '{}'), count(distinct (d.sink, d.lane_key)) into v_lanes, v_woken
    from public.gre_relay_deliveries d
    left join public.gre_relay_lanes l on l.sink = d.sink and l.lane_key = d.lane_key
    where d.state = 'pending' and l.ready_at is null;
    if not p_dry_run and v_woken > 0 then
      perform gre.wake_lanes(v_lanes);
    end if;
  end if;
  select coalesce(array_agg(m.id order by m.created_at, m.id), '{}') into v_page from (
    select q.id, q.created_at from public.gre_chat_messages q
    where q.created_at >= v_from and isfinite(q.created_at) and (v_id is null or (q.created_at, q.id) > (v_at, v_id))
    order by q.created_at, q.id limit v_limit) m;
  select coalesce(array_agg(m.id), '{}'), coalesce(array_agg(s.name), '{}') into v_ids, v_sinks
  from public.gre_chat_messages m cross join public.gre_relay_sinks s
  where m.id = any (v_page) and s.enabled and m.created_at >= s.announced_from
    and not exists (select from public.gre_relay_deliveries d where d.message_id = m.id and d.sink || '' = s.name);
  if not p_dry_run then
    perform gre.announce_again(v_ids, v_sinks, null);
  end if;
  return jsonb_build_object('checked', cardinality(v_page), 'lanes', v_woken,
    'missing', (select coalesce(jsonb_object_agg(x.sink, x.n), '{}') from (select t as sink, count(*) as n from unnest(v_sinks) t group by t) x),
    'next', (select gre.cursor_text(m.created_at, m.id) from public.gre_chat_messages m
             where m.id = v_page[cardinality(v_page)] and cardinality(v_page) >= v_limit));
end $$;

-- Gives up what waits and is older than p_before: one page a call; returns how many.
create function public.gre_relay_expire(p_before timestamptz, p_sink text default null, p_dry_run boolean default false, p_limit integer default 1000)
returns integer
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_count integer;
begin
  perform gre.require_worker(p_operator => true);
  if p_before is null then
    perform gre.refuse(400, 'time_missing', 'a time is required');
  elsif p_dry_run then
    return (select count(*) from public.gre_relay_deliveries d
            where d.state = 'pending' and d.created_at < p_before and (p_sink is null or d.sink = p_sink));
  end if;
  -- What a worker has in hand is left to it: its lane is locked or leased. Emptied lanes the next claim puts to rest.
  with old as (
    select d.id from public.gre_relay_deliveries d
    join public.gre_relay_lanes l on l.sink = d.sink and l.lane_key = d.lane_key
    where d.state = 'pending' and d.created_at < p_before and (p_sink is null or d.sink = p_sink)
      and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.longest_lease())
    order by l.lane_key, l.sink, d.ord limit least(greatest(p_limit, 1), 1000)
    for no key update of l skip locked
  ), gone as (
    update public.gre_relay_deliveries d set state = 'expired', settled_at = v_now, last_error = 'expired by an operator'
    from old where d.id = old.id and d.state || '' = 'pending'
    returning d.event, d.data ->> 'push_id' as push
  ), pushes as (
    update public.push_notifications n set status = 'expired', error = 'expired by an operator'
    from gone where gone.event = 'push' and n.id::text = gone.push and n.status = 'queued'
  )
  select count(*) into v_count from gone;
  return v_count;
end $$;

-- Deletes what is done with, one page a call: {"deliveries", "lanes", "pushes", "messages", "sessions"}. Deliveries that were settled
-- before p_keep ago (an hour at least; dead ones stay until they are dropped), and lanes and pushes of ours of that age. With
-- p_retention (a day at least) also closed sessions whose last message is older, with their messages and pushes, unless
-- something of theirs still waits.
create function public.gre_relay_prune(p_keep interval, p_retention interval default null, p_limit integer default 5000) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 10000);
  v_before timestamptz := clock_timestamp() - greatest(p_keep, interval '1 hour');
  v_old timestamptz := clock_timestamp() - greatest(p_retention, interval '1 day');
  v_deliveries integer;
  v_lanes integer;
  v_pushes integer;
  v_more integer := 0;
  v_sessions uuid[] := '{}';
  v_messages integer := 0;
begin
  perform gre.require_worker(p_operator => true);
  if p_keep is null then
    perform gre.refuse(400, 'keep_missing', 'for how long to keep is required');
  end if;
  -- First: a message whose delivery is gone must not look like one that never had any. (Also: one prune at a time.)
  perform 1 from (select from public.gre_relay_sinks order by name for no key update) x;
  update public.gre_relay_sinks set announced_from = v_before where announced_from < v_before;
  delete from public.gre_relay_deliveries where ctid = any (array(
    select q.ctid from public.gre_relay_deliveries q
    where q.state in ('done', 'expired') and q.settled_at < v_before and q.created_at < v_before
    order by q.settled_at limit v_limit for update skip locked));
  get diagnostics v_deliveries = row_count;
  delete from public.push_notifications where ctid = any (array(
    select q.ctid from public.push_notifications q
    where q.delivery_id is not null and q.status <> 'queued' and q.created_at < v_before limit v_limit for update skip locked));
  get diagnostics v_pushes = row_count;
  if p_retention is not null then
    select coalesce(array_agg(s.id), '{}') into v_sessions from (
      select q.id from public.gre_chat_sessions q
      where q.status = 'closed' and (case when q.last_message_at is null then q.created_at else q.last_message_at end) < v_old
        and not exists (select from public.gre_relay_sinks k join public.gre_relay_deliveries d
                        on d.sink = k.name and d.lane_key = q.id::text and d.state = 'pending')
      order by (case when q.last_message_at is null then q.created_at else q.last_message_at end), q.id
      limit least(v_limit, 100) for update skip locked) s;
    delete from public.push_notifications n
    where n.message_id in (select m.id from public.gre_chat_messages m where m.session_id = any (v_sessions));
    get diagnostics v_more = row_count;
    delete from public.gre_chat_messages where session_id = any (v_sessions);
    get diagnostics v_messages = row_count;
    delete from public.gre_chat_sessions where id = any (v_sessions);
  end if;
  -- Whoever adds to a lane locks it first and says so in ready_at; one that is gone it makes anew. (Last, since it waits meanwhile.)
  delete from public.gre_relay_lanes where ctid = any (array(
    select k.ctid from public.gre_relay_lanes k
    where k.ready_at is null
      and not exists (select from public.gre_relay_deliveries d where d.sink = k.sink and d.lane_key = k.lane_key and d.state = 'pending')
      and not exists (select from public.gre_chat_sessions s where s.id::text = k.lane_key and s.updated_at > v_before)
    limit v_limit for update skip locked));
  get diagnostics v_lanes = row_count;
  return jsonb_build_object('deliveries', v_deliveries, 'lanes', v_lanes, 'pushes', v_pushes + v_more, 'messages', v_messages,
    'sessions', cardinality(v_sessions));
end $$;
-- For prune, and for the rate in status.
create index gre_relay_deliveries_settled on public.gre_relay_deliveries (settled_at) where state in ('done', 'expired');

create or replace function public.gre_schema_version() returns integer
-- (Stable: an immutable one is folded into plans, which a connection keeps for those who may not call it.)
language sql stable parallel safe set search_path = '' as $$ select 2 $$;

-- The worker's own role: a token with "role": "gre_worker" (signed like any other of the project) does for SUPABASE_SERVICE_KEY
-- what a daemon needs, and nothing else.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'gre_worker') then
    create role gre_worker nologin noinherit;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    grant gre_worker to authenticator;
  end if;
exception when insufficient_privilege then
  raise notice 'gre-bridge: could not create role gre_worker (%); the service key does the same', sqlerrm;
end $$;

do $$
declare
  v record;
  v_roles text := 'service_role' || case when exists (select from pg_catalog.pg_roles where rolname = 'gre_worker') then ', gre_worker' else '' end;
begin
  for v in select p.oid::regprocedure as f, p.proname from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and (p.proname like 'gre\_relay\_%' or p.proname like 'gre\_hub\_%' or p.proname = 'gre_schema_version')
  loop
    execute format('revoke execute on function %s from public, anon, authenticated', v.f);
    execute format('grant execute on function %s to %s', v.f,
      case when v.proname in ('gre_relay_dead', 'gre_relay_retry', 'gre_relay_replay', 'gre_relay_reconcile', 'gre_relay_expire', 'gre_relay_prune')
        then 'service_role' else v_roles end);
  end loop;
  if v_roles like '%gre_worker' then
    grant usage on schema public to gre_worker;
    -- For the second bell: Realtime shows a subscriber the rows that its role may see, here by their keys alone.
    grant select (id, session_id, seq) on public.gre_chat_messages to gre_worker;
    create policy gre_messages_worker_hears on public.gre_chat_messages for select to gre_worker using (true);
    if to_regclass('realtime.messages') is not null then
      begin
        grant usage on schema realtime to gre_worker;
        grant select, insert on realtime.messages to gre_worker;
        create policy gre_relay_for_workers on realtime.messages for all to gre_worker
          using (realtime.topic() in ('gre:relay', 'gre:relay:rows')) with check (realtime.topic() = 'gre:relay');
      exception when insufficient_privilege or undefined_function or undefined_column then
        raise notice 'gre-bridge: could not open the bell to role gre_worker (%)', sqlerrm;
      end;
    end if;
  end if;
end $$;
revoke execute on all functions in schema gre from public;

notify pgrst, 'reload schema';
