-- Operations: registration of workers, status, dead letters, replay, reconcile, expire, prune.
-- Depends on gre_foundation, gre_identity (gre.require_worker), gre_tables and gre_outbox.
set local lock_timeout = '300ms';

-- Workers -------------------------------------------------------------------------------------------------

create table public.gre_relay_workers (
  id uuid primary key,
  host text not null,
  version text not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  info jsonb not null default '{}'
);
comment on table public.gre_relay_workers is 'Worker processes that reported within the last hour.';
comment on column public.gre_relay_workers.id is 'Id of the process.';
comment on column public.gre_relay_workers.host is 'Host of the process.';
comment on column public.gre_relay_workers.version is 'Release of gre-bridge.';
comment on column public.gre_relay_workers.started_at is 'Time of the first report.';
comment on column public.gre_relay_workers.seen_at is 'Time of the last report.';
comment on column public.gre_relay_workers.info is 'State of the Realtime subscription, the sinks and their breakers.';
alter table public.gre_relay_workers enable row level security;
revoke all on public.gre_relay_workers from public, anon, authenticated, service_role;
grant select on public.gre_relay_workers to service_role;

create function public.gre_relay_report_v1(
  p_worker uuid, p_host text, p_version text, p_info jsonb default '{}'
) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker();
  if octet_length(p_info::text) > 65536 then
    perform gre.raise_http(400, 'info_too_large', 'p_info is larger than 64 KB');
  end if;
  insert into public.gre_relay_workers as w (id, host, version, info)
  values (p_worker, left(p_host, 200), left(p_version, 50), p_info)
  on conflict (id) do update set host = excluded.host, version = excluded.version, seen_at = clock_timestamp(),
    info = excluded.info;
  delete from public.gre_relay_workers w where w.id in (
    select o.id from public.gre_relay_workers o
    where o.seen_at < clock_timestamp() - interval '1 hour' for update skip locked);
  update gre.settings set player_external_id = left(p_info ->> 'player_external_id', 200)
  where p_info ->> 'player_external_id' <> player_external_id;
  return jsonb_build_object('schema', public.gre_schema_version(),
    'sinks', (select jsonb_agg(jsonb_build_object('sink', s.name, 'enabled', s.enabled) order by s.name)
              from public.gre_relay_sinks s));
end $$;
comment on function public.gre_relay_report_v1 is
  'Registers a worker, or refreshes its row. Returns {"schema": version, "sinks": [{"sink", "enabled"}]}.';

create function public.gre_relay_leave_v1(p_worker uuid) returns void
language sql volatile security definer set search_path = '' as $$
  select gre.require_worker();
  delete from public.gre_relay_workers where id = p_worker
$$;
comment on function public.gre_relay_leave_v1 is 'Unregisters a worker.';

create function public.gre_relay_notify_v1() returns boolean
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker();
  perform gre.broadcast_wakeup(null);
  return to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null;
end $$;
comment on function public.gre_relay_notify_v1 is
  'Broadcasts a wake-up: a probe for doctor and for workers that receive none. Returns false if the database has no '
  'function realtime.send.';

create function public.gre_relay_status(p_blocked integer default 10) returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker();
  select jsonb_build_object('now', clock_timestamp(),
    'sinks', (select coalesce(jsonb_agg(x || jsonb_build_object('rate', (
        -- statement_timestamp() is stable: a condition with a volatile function cannot use the index
        select round(count(*) / 10.0, 1) from public.gre_relay_deliveries d
        where d.sink = x ->> 'sink' and d.state in ('done', 'expired')
          and d.settled_at > statement_timestamp() - interval '10 seconds'))), '[]')
      from jsonb_array_elements(gre.relay_stats()) x),
    'blocked', (select coalesce(jsonb_agg(to_jsonb(b) order by b.since), '[]') from (
      select l.sink, l.lane_key, round(extract(epoch from l.ready_at - clock_timestamp())::numeric, 1) as retry_in,
        d.attempts, d.last_error as error, d.event, gre.iso(d.created_at) as since
      from public.gre_relay_lanes l
      join lateral (select * from public.gre_relay_deliveries q
                    where q.sink = l.sink and q.lane_key = l.lane_key and q.state = 'pending'
                    order by q.ord limit 1) d on true
      where l.ready_at > clock_timestamp() order by l.ready_at limit p_blocked) b),
    'workers', (select coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'host', w.host, 'version', w.version,
                  'started_at', gre.iso(w.started_at),
                  'seen', round(extract(epoch from clock_timestamp() - w.seen_at)::numeric, 1),
                  'info', w.info) order by w.started_at), '[]')
                from public.gre_relay_workers w))
$$;
comment on function public.gre_relay_status is
  'State of the outbox for `gre-bridge status`: {"now", "sinks": as gre_relay_stats_v1, with "rate" (settled '
  'deliveries per second, over ten seconds), "blocked": [at most p_blocked lanes that wait for a retry, with the '
  'error], "workers"}.';

-- Dead letters --------------------------------------------------------------------------------------------
-- The functions below lock lanes before deliveries, in the common lock order, and wait for a lock for 300 ms at most,
-- so that a portal's transaction with another order is not aborted by a deadlock. A call that cannot get its locks
-- fails as a whole with 55P03, and the caller repeats it.

create function public.gre_relay_dead(
  p_sink text default null, p_session uuid default null, p_older_than interval default null, p_error text default null,
  p_ids uuid[] default null, p_limit integer default 100, p_before timestamptz default null
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker(p_operator => true);
  select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'sink', d.sink, 'lane', d.lane_key, 'event', d.event,
    'message_id', d.message_id,
    'attempts', d.attempts, 'error', d.last_error, 'created_at', gre.iso(d.created_at),
    'died_at', gre.iso(d.settled_at))
    order by d.settled_at desc, d.id), '[]')
  from (
    select * from public.gre_relay_deliveries q
    where q.state = 'dead' and (p_sink is null or q.sink = p_sink)
      and (p_session is null or q.lane_key = p_session::text)
      and (p_older_than is null or q.settled_at < clock_timestamp() - p_older_than)
      and (p_before is null or q.settled_at < p_before)
      and (p_error is null or position(lower(p_error) in lower(q.last_error)) > 0)
      and (p_ids is null or q.id = any (p_ids))
    order by q.settled_at desc, q.id limit least(greatest(p_limit, 1), 1000)) d
$$;
comment on function public.gre_relay_dead is
  'Returns dead letters, newest first: [{"id", "sink", "lane", "event", "message_id", "attempts", "error", '
  '"created_at", "died_at"}], without the text of messages. p_before: only deliveries that died before this time, for '
  'stable paging.';

-- Schedule the lanes that have pending deliveries and are not scheduled. The caller has locked or inserted the
-- deliveries.
create function gre.schedule_lanes(p_keys text[]) returns void
language sql volatile set search_path = '' as $$
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select d.sink, d.lane_key, min(d.created_at) from public.gre_relay_deliveries d
    where d.state = 'pending' and d.lane_key = any (p_keys) and d.sink in (select name from public.gre_relay_sinks)
    group by d.sink, d.lane_key order by d.lane_key, d.sink
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null
$$;

-- Make dead deliveries pending again with zero attempts, or expire them (p_drop). Return the number of deliveries.
create function gre.retry_dead(p_ids uuid[], p_drop boolean) returns integer
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_lanes text[];
  v_count integer;
begin
  perform 1 from (
    select l.sink, l.lane_key from public.gre_relay_lanes l
    where (l.sink, l.lane_key) in (
      select d.sink, d.lane_key from public.gre_relay_deliveries d where d.id = any (p_ids) and d.state = 'dead')
    order by l.lane_key, l.sink for no key update) x;
  with changed as (
    update public.gre_relay_deliveries d set
      state = case when p_drop then 'expired' else 'pending' end,
      attempts = case when p_drop then d.attempts else 0 end,
      settled_at = case when p_drop then clock_timestamp() end
    where d.id = any (p_ids) and d.state = 'dead' returning d.lane_key
  )
  select count(*), array_agg(distinct lane_key) into v_count, v_lanes from changed;
  if v_count > 0 and not p_drop then
    perform gre.schedule_lanes(v_lanes);
    perform gre.notify_workers(null);
  end if;
  return v_count;
end $$;

create function public.gre_relay_retry(p_ids uuid[], p_drop boolean default false) returns integer
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform gre.require_worker(p_operator => true);
  return gre.retry_dead(p_ids, p_drop);
end $$;
comment on function public.gre_relay_retry is
  'Retries dead letters, or expires them (p_drop). Returns the number of deliveries.';

-- Replay and reconcile ------------------------------------------------------------------------------------

-- Enqueue existing messages: p_ids[n] for sink p_sinks[n], in the order of session and seq. With p_data (a replay) the
-- deliveries have the current time; without, the time of the message, so that they count as late.
create function gre.reenqueue_messages(p_ids uuid[], p_sinks text[], p_data jsonb) returns void
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
  -- Skip messages that another transaction is deleting.
  with locked as materialized (
    select m.id, m.session_id, m.seq, m.created_at from public.gre_chat_messages m
    where m.id = any (p_ids) for key share skip locked
  )
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, data, created_at)
    select o.sink, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, p_data,
      case when p_data is null then o.created_at else v_now end
    from (select p.sink, m.session_id::text as lane_key, m.id, m.created_at
          from unnest(p_ids, p_sinks) p (id, sink) join locked m on m.id = p.id
          order by m.session_id, m.seq, p.sink) o;
  perform gre.notify_workers(null);
end $$;

create function public.gre_relay_replay(
  p_since timestamptz default null, p_session uuid default null, p_sink text default null,
  p_until timestamptz default null,
  p_after text default null, p_dry_run boolean default false, p_limit integer default 500
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off
set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 1000);
  v_after record;
  v_page uuid[];
  v_ids uuid[];
  v_sinks text[];
begin
  perform gre.require_worker(p_operator => true);
  v_after := gre.parse_cursor(p_after);
  if p_since is null and p_session is null then
    perform gre.raise_http(400, 'replay_unbounded', 'a time or a session is required');
  elsif p_sink is not null and not exists (select from public.gre_relay_sinks where name = p_sink and enabled) then
    perform gre.raise_http(400, 'sink_unknown', 'there is no such enabled sink');
  end if;
  select coalesce(array_agg(m.id order by m.created_at, m.id), '{}') into v_page from (
    select q.id, q.created_at from public.gre_chat_messages q
    where (p_session is null or q.session_id = p_session) and (p_since is null or q.created_at >= p_since)
      and (p_until is null or q.created_at < p_until)
      and (p_after is null or (q.created_at, q.id) > (v_after.at, v_after.id))
    order by q.created_at, q.id limit v_limit) m;
  select coalesce(array_agg(i), '{}'), coalesce(array_agg(s.name), '{}') into v_ids, v_sinks
  from unnest(v_page) i cross join public.gre_relay_sinks s
  where s.enabled and (p_sink is null or s.name = p_sink) and not exists (
    select from public.gre_relay_deliveries d
    where d.message_id = i and d.sink || '' = s.name and d.state || '' = 'pending');
  if not p_dry_run then
    perform gre.reenqueue_messages(v_ids, v_sinks, '{"replayed": true}');
  end if;
  return jsonb_build_object('messages', (select count(distinct i) from unnest(v_ids) i), 'next', (
    select gre.format_cursor(m.created_at, m.id) from public.gre_chat_messages m
    where m.id = v_page[cardinality(v_page)] and cardinality(v_page) >= v_limit));
end $$;
comment on function public.gre_relay_replay is
  'Enqueues existing messages again, oldest first, one page per call: {"messages": number, "next": cursor | null}. '
  'Their events have "replayed". Messages with a pending delivery are skipped. p_after: "next" of the page before.';

create function public.gre_relay_reconcile(
  p_after text default null, p_dry_run boolean default false, p_limit integer default 1000
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off
set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 1000);
  v_from timestamptz;
  v_after record;
  v_page uuid[];
  v_first timestamptz;
  v_last timestamptz;
  v_ids uuid[];
  v_sinks text[];
  v_lanes text[] := '{}';
  v_scheduled integer := 0;
begin
  perform gre.require_worker(p_operator => true);
  v_after := gre.parse_cursor(p_after);
  -- The lock keeps a concurrent prune from deleting deliveries before they are compared below.
  select min(s.reconcile_from) into v_from
  from (select reconcile_from from public.gre_relay_sinks where enabled order by name for share) s;
  if p_after is null then
    select coalesce(array_agg(distinct d.lane_key), '{}'), count(distinct (d.sink, d.lane_key))
      into v_lanes, v_scheduled
    from public.gre_relay_deliveries d
    left join public.gre_relay_lanes l on l.sink = d.sink and l.lane_key = d.lane_key
    where d.state = 'pending' and l.ready_at is null;
    if not p_dry_run and v_scheduled > 0 then
      perform gre.schedule_lanes(v_lanes);
    end if;
  end if;
  select coalesce(array_agg(m.id order by m.created_at, m.id), '{}'), min(m.created_at), max(m.created_at)
  into v_page, v_first, v_last from (
    select q.id, q.created_at from public.gre_chat_messages q
    where q.created_at >= v_from and isfinite(q.created_at)
      and (p_after is null or (q.created_at, q.id) > (v_after.at, v_after.id))
    order by q.created_at, q.id limit v_limit) m;
  select coalesce(array_agg(m.id), '{}'), coalesce(array_agg(s.name), '{}') into v_ids, v_sinks
  from public.gre_chat_messages m cross join public.gre_relay_sinks s
  where m.id = any (v_page) and m.created_at between v_first and v_last
    and s.enabled and m.created_at >= s.reconcile_from
    and not exists (select from public.gre_relay_deliveries d where d.message_id = m.id and d.sink || '' = s.name);
  if not p_dry_run then
    perform gre.reenqueue_messages(v_ids, v_sinks, null);
  end if;
  return jsonb_build_object('checked', cardinality(v_page), 'lanes', v_scheduled,
    'missing', (select coalesce(jsonb_object_agg(x.sink, x.n), '{}')
                from (select t as sink, count(*) as n from unnest(v_sinks) t group by t) x),
    'next', (select gre.format_cursor(m.created_at, m.id) from public.gre_chat_messages m
             where m.id = v_page[cardinality(v_page)] and cardinality(v_page) >= v_limit));
end $$;
comment on function public.gre_relay_reconcile is
  'Compares messages with deliveries, and enqueues messages without a delivery (inserted by a restore, or while a '
  'trigger was disabled), one page per call: {"checked", "missing": {sink: number}, "lanes": number of lanes with '
  'pending deliveries that were not scheduled, "next"}. Starts at reconcile_from of the sinks.';

-- Expire and prune ----------------------------------------------------------------------------------------

create function public.gre_relay_expire(
  p_before timestamptz, p_sink text default null, p_dry_run boolean default false, p_limit integer default 1000
)
returns integer
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_count integer;
begin
  perform gre.require_worker(p_operator => true);
  if p_before is null then
    perform gre.raise_http(400, 'time_missing', 'a time is required');
  elsif p_dry_run then
    return (select count(*) from public.gre_relay_deliveries d
            where d.state = 'pending' and d.created_at < p_before and (p_sink is null or d.sink = p_sink));
  end if;
  -- Skip lanes that a worker has locked or leased. A claim unschedules the lanes that are emptied here.
  with old as (
    select d.id from public.gre_relay_deliveries d
    join public.gre_relay_lanes l on l.sink = d.sink and l.lane_key = d.lane_key
    where d.state = 'pending' and d.created_at < p_before and (p_sink is null or d.sink = p_sink)
      and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.max_lease())
    order by l.lane_key, l.sink, d.ord limit least(greatest(p_limit, 1), 1000)
    for no key update of l skip locked
  ), expired as (
    update public.gre_relay_deliveries d set
      state = 'expired', settled_at = v_now, last_error = 'expired by an operator'
    from old where d.id = old.id and d.state || '' = 'pending'
    returning d.event, d.data ->> 'push_id' as push_id
  ), pushes as (
    update public.push_notifications n set status = 'expired', error = 'expired by an operator'
    from expired e where e.event = 'push' and n.id::text = e.push_id and n.status = 'queued'
  )
  select count(*) into v_count from expired;
  return v_count;
end $$;
comment on function public.gre_relay_expire is
  'Expires pending deliveries that are older than p_before, one page per call. Returns the number of deliveries.';

create function public.gre_relay_prune(
  p_keep interval, p_retention interval default null, p_limit integer default 5000
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '300ms' as $$
declare
  v_limit integer := least(greatest(p_limit, 1), 10000);
  v_before timestamptz := clock_timestamp() - greatest(p_keep, interval '1 hour');
  v_retention_limit timestamptz := clock_timestamp() - greatest(p_retention, interval '1 day');
  v_deliveries integer;
  v_lanes integer := 0;
  v_pushes integer;
  v_message_pushes integer := 0;
  v_sessions uuid[] := '{}';
  v_messages integer := 0;
  v_attachments integer := 0;
begin
  perform gre.require_worker(p_operator => true);
  if p_keep is null then
    perform gre.raise_http(400, 'keep_missing', 'p_keep is required');
  end if;
  -- First move reconcile_from, so that reconcile does not enqueue messages whose deliveries are pruned. The lock also
  -- serializes prunes.
  perform 1 from (select from public.gre_relay_sinks order by name for no key update) x;
  update public.gre_relay_sinks set reconcile_from = v_before where reconcile_from < v_before;
  delete from public.gre_relay_deliveries where ctid = any (array(
    select q.ctid from public.gre_relay_deliveries q
    where q.state in ('done', 'expired') and q.settled_at < v_before and q.created_at < v_before
    order by q.settled_at limit v_limit for update skip locked));
  get diagnostics v_deliveries = row_count;
  delete from public.push_notifications where ctid = any (array(
    select q.ctid from public.push_notifications q
    where q.delivery_id is not null and q.status <> 'queued' and q.created_at < v_before
    order by q.created_at limit v_limit for update skip locked));
  get diagnostics v_pushes = row_count;
  if p_retention is not null then
    select coalesce(array_agg(s.id), '{}') into v_sessions from (
      select q.id from public.gre_chat_sessions q
      where q.status = 'closed'
        and (case when q.last_message_at is null then q.created_at else q.last_message_at end) < v_retention_limit
        and not exists (select from public.gre_relay_sinks k join public.gre_relay_deliveries d
                        on d.sink = k.name and d.lane_key = q.id::text and d.state = 'pending')
      order by (case when q.last_message_at is null then q.created_at else q.last_message_at end), q.id
      limit least(v_limit, 100) for update skip locked) s;
    delete from public.push_notifications n
    where n.message_id in (select m.id from public.gre_chat_messages m where m.session_id = any (v_sessions));
    get diagnostics v_message_pushes = row_count;
    select count(*) into v_attachments from public.gre_chat_attachments a where a.session_id = any (v_sessions);
    delete from public.gre_chat_messages where session_id = any (v_sessions); -- and their files, by a trigger
    get diagnostics v_messages = row_count;
    delete from public.gre_chat_sessions where id = any (v_sessions);
  end if;
  -- Last, since it blocks transactions that add to these lanes. They lock the lane first, and insert a deleted one. And
  -- only in the last page: it reads all lanes without work.
  if v_deliveries < v_limit and cardinality(v_sessions) < least(v_limit, 100) then
    delete from public.gre_relay_lanes where ctid = any (array(
      select k.ctid from public.gre_relay_lanes k
      where k.ready_at is null
        and not exists (select from public.gre_relay_deliveries d
                        where d.sink = k.sink and d.lane_key = k.lane_key and d.state = 'pending')
        and not exists (select from public.gre_chat_sessions s
                        where s.id::text = k.lane_key and s.updated_at > v_before)
      limit v_limit for update skip locked));
    get diagnostics v_lanes = row_count;
  end if;
  return jsonb_build_object('deliveries', v_deliveries, 'lanes', v_lanes, 'pushes', v_pushes + v_message_pushes,
    'messages', v_messages, 'sessions', cardinality(v_sessions), 'attachments', v_attachments);
end $$;
comment on function public.gre_relay_prune is
  'Deletes old rows, one page per call: {"deliveries", "lanes", "pushes", "messages", "sessions", "attachments"}. '
  'Deletes deliveries settled longer ago than p_keep (at least an hour; dead ones are kept), and their lanes and '
  'pushes. With p_retention (at least a day), also deletes closed sessions whose last message is older and that have '
  'no pending deliveries. Their events and figures are kept for reports, without any tie to them (gre_chat_events, '
  'gre_chat_cycles); workers delete the objects of their files (gre_storage_deletions).';

revoke execute on all functions in schema gre from public;
revoke execute on function public.gre_relay_report_v1, public.gre_relay_leave_v1, public.gre_relay_notify_v1,
  public.gre_relay_status, public.gre_relay_dead, public.gre_relay_retry, public.gre_relay_replay,
  public.gre_relay_reconcile, public.gre_relay_expire, public.gre_relay_prune
  from public, anon, authenticated, service_role;
grant execute on function public.gre_relay_report_v1, public.gre_relay_leave_v1, public.gre_relay_notify_v1,
  public.gre_relay_status, public.gre_relay_dead, public.gre_relay_retry, public.gre_relay_replay,
  public.gre_relay_reconcile, public.gre_relay_expire, public.gre_relay_prune to service_role;
