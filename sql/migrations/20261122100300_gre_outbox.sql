-- The outbox: what has to reach which sink, written in the transaction of the row that it announces, and the
-- functions by which workers take it out again.
--
-- A delivery is one event for one sink. A lane is the queue of one session (or of one queued push) for one
-- sink; it is leased as a whole, so order within it needs no more than one worker at a time.
set local lock_timeout = '300ms';
select gre.lock_tables();

create table public.gre_relay_sinks (
  name text primary key,
  enabled boolean not null default true
);
comment on table public.gre_relay_sinks is 'For which sinks the triggers write deliveries.';
insert into public.gre_relay_sinks (name) values ('pusher'), ('onesignal');

create table public.gre_relay_lanes (
  sink text not null references public.gre_relay_sinks (name),
  lane_key text not null,
  ready_at timestamptz,
  lease_until timestamptz,
  lease_token uuid,
  primary key (sink, lane_key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
comment on column public.gre_relay_lanes.ready_at is 'When its next work is due; null while nothing is pending.';
create index gre_relay_lanes_ready on public.gre_relay_lanes (sink, ready_at) where ready_at is not null;
-- No index on lease_token: leasing and freeing stay heap-only updates.

create sequence gre.delivery_ord;
create table public.gre_relay_deliveries (
  id uuid primary key default gen_random_uuid(),
  sink text not null,
  lane_key text not null,
  ord bigint not null,
  event text not null,
  message_id uuid references public.gre_chat_messages (id) on delete cascade,
  data jsonb,
  state text not null default 'pending' constraint gre_relay_deliveries_state_known
    check (state in ('pending', 'done', 'dead', 'expired')),
  attempts integer not null default 0,
  last_error text,
  created_at timestamptz not null default clock_timestamp(),
  settled_at timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05);
create index gre_relay_deliveries_pending on public.gre_relay_deliveries (sink, lane_key, ord) where state = 'pending';
create index gre_relay_deliveries_message on public.gre_relay_deliveries (message_id);
create index gre_relay_deliveries_dead on public.gre_relay_deliveries (sink, settled_at) where state = 'dead';

alter table public.gre_relay_sinks enable row level security;
alter table public.gre_relay_lanes enable row level security;
alter table public.gre_relay_deliveries enable row level security;
revoke all on public.gre_relay_sinks, public.gre_relay_lanes, public.gre_relay_deliveries
  from public, anon, authenticated, service_role;
revoke all on sequence gre.delivery_ord from public, anon, authenticated, service_role;
grant select on public.gre_relay_sinks, public.gre_relay_lanes, public.gre_relay_deliveries to service_role;

-- Who may ask ---------------------------------------------------------------------------------------------

-- Refuses whoever is not a worker, before anything else is done: a grant of execute, which a project can give away with one
-- "grant … on all functions", is not enough. A worker's token has the role service_role, or gre_worker for all but the
-- operator's work; a direct connection is one of the owner of these functions.
create function gre.require_worker(p_operator boolean default false) returns void
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims text := nullif(current_setting('request.jwt.claims', true), '');
  v_role text := v_claims::json ->> 'role';
begin
  if v_claims is null then
    if session_user <> 'authenticator' and pg_has_role(session_user, current_user, 'member') then
      return;
    end if;
  elsif v_role = 'service_role' or v_role = 'gre_worker' and not p_operator then
    return;
  end if;
  if coalesce(v_role, 'anon') = 'anon' then
    perform gre.refuse(401, 'service_only', 'only the service key may do this');
  end if;
  perform gre.refuse(403, 'service_only', 'only the service key may do this');
end $$;

-- Capture ------------------------------------------------------------------------------------------------

-- Who waits to be woken: the processes that relay or serve sockets. One that is woken often looks by itself for a while and
-- says so here, in its own row; while all do, nothing is sent to them. So the number of broadcasts has a bound, whatever the
-- rate of messages: Realtime counts each one against the project's limit and drops what is above it without a word.
-- Unlogged: after a crash of the database nobody is known, and each message wakes.
create unlogged table gre.listeners (
  id uuid primary key,
  kind text not null constraint listeners_kind_known check (kind in ('relay', 'hub', 'idle')),
  awake_until timestamptz not null default '-infinity',
  expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0);
comment on table gre.listeners is 'Processes that hear wake-ups; idle ones (no sockets) need none.';
comment on column gre.listeners.awake_until is 'Until then it looks for work by itself and needs no wake-up.';
comment on column gre.listeners.expires_at is 'It is not heard of any more: from then on it does not count.';
alter table gre.listeners enable row level security;
revoke all on gre.listeners from public, anon, authenticated, service_role;

-- Sends a wake-up to the workers, whether or not they need one. Only a hint, so it must never fail an insert nor make it
-- wait: realtime.send catches errors but not waits, hence a lock_timeout of its own.
create function gre.send_wakeup(p_sessions uuid[]) returns void
language plpgsql security definer set search_path = '' set lock_timeout = '50ms' as $$
begin
  if to_regprocedure('realtime.send(jsonb,text,text,boolean)') is null then
    return;
  end if;
  perform realtime.send(
    case when cardinality(p_sessions) between 1 and 50
      then jsonb_build_object('sessions', to_jsonb(p_sessions)) else '{}'::jsonb end,
    'ring', 'gre:relay', true);
exception when others then
  null;
end $$;

-- Wakes the workers unless all that are known are awake. It reads what the last commit says and waits for nobody; a worker
-- goes on looking for a while after its time, for whoever reads this before and commits after it.
create function gre.ring(p_sessions uuid[]) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if (select coalesce(bool_or(l.awake_until <= clock_timestamp()), true)
      from gre.listeners l where l.expires_at > clock_timestamp() and l.kind <> 'idle') then
    perform gre.send_wakeup(p_sessions);
  end if;
end $$;

-- Adds events that are no messages (status, read, push) to the outbox. The caller holds the row that they are
-- about, so the lane's order is that row's order.
create function gre.announce(p_sinks text[], p_lane text, p_event text, p_data jsonb) returns void
language plpgsql security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select s.name, p_lane, v_now from public.gre_relay_sinks s
    where s.enabled and s.name = any (p_sinks) order by s.name
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, data, created_at)
    select s.name, p_lane, nextval('gre.delivery_ord'), p_event, p_data, v_now
    from public.gre_relay_sinks s where s.enabled and s.name = any (p_sinks);
end $$;

-- What these sessions' messages of this transaction have not been announced with: in the order of seq, and the session itself before
-- its first one. For statements within statements: a trigger of the project may send a message, or close the session, while the
-- statement that called it is not at its end. Then the first of them to get here announces all that came before it.
create function gre.enqueue_messages(p_sessions uuid[], p_ids uuid[] default '{}') returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_found uuid[];
  v_opened uuid;
begin
  select array_agg(m.id order by m.session_id, m.seq) into v_found
  from public.gre_chat_sessions s
  join public.gre_chat_messages m on m.player_id = s.player_id and m.session_id = s.id
    and (m.created_at >= transaction_timestamp() or m.id = any (p_ids)) -- (older ones are history, or reconcile's)
  where s.id = any (p_sessions) and not exists (select from public.gre_relay_deliveries d where d.message_id = m.id);
  if v_found is null then
    return;
  end if;
  for v_opened in
    select distinct s.id from public.gre_chat_sessions s
    join public.gre_chat_messages m on m.session_id = s.id and m.id = any (v_found)
    where s.created_at >= transaction_timestamp() and not exists (
      select from public.gre_relay_lanes l where l.sink = 'pusher' and l.lane_key = s.id::text)
    order by s.id
  loop
    perform gre.announce(array['pusher'], v_opened::text, 'session', jsonb_build_object('session_id', v_opened));
  end loop;
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select s.name, m.session_id::text, min(m.created_at)
    from public.gre_chat_messages m cross join public.gre_relay_sinks s
    where m.id = any (v_found) and s.enabled
    group by m.session_id, s.name
    order by 2, 1
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, created_at)
    select o.name, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, o.created_at
    from (
      select s.name, m.session_id::text as lane_key, m.id, m.created_at
      from public.gre_chat_messages m cross join public.gre_relay_sinks s
      where m.id = any (v_found) and s.enabled
      order by m.session_id, m.seq, s.name
    ) o;
end $$;

create function gre.messages_to_outbox() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_sessions constant uuid[] := array(select distinct session_id from inserted);
begin
  -- A statement trigger fires for a skipped row (on conflict do nothing) too.
  if v_sessions = '{}' then
    return null;
  end if;
  if pg_trigger_depth() > 1 then
    perform set_config('gre.nested', 'on', true); -- for the rest of the transaction
  end if;
  if current_setting('gre.nested', true) = 'on' then
    perform gre.enqueue_messages(v_sessions, array(select id from inserted));
    perform gre.ring(v_sessions);
    return null;
  end if;
  -- Lanes first, in session order: this also locks those that it leaves as they are.
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select s.name, i.lane_key, i.first_at
    from (select session_id::text as lane_key, min(created_at) as first_at from inserted group by session_id) i
    cross join public.gre_relay_sinks s
    where s.enabled
    order by i.lane_key, s.name
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  -- Under the lanes' locks, so a later ord in a lane is a later commit.
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, created_at)
    select o.name, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, o.created_at
    from (
      select s.name, i.session_id::text as lane_key, i.id, i.created_at
      from inserted i cross join public.gre_relay_sinks s
      where s.enabled
      order by i.session_id, i.seq, s.name
    ) o;
  perform gre.ring(v_sessions);
  return null;
end $$;

create trigger gre_messages_to_outbox after insert on public.gre_chat_messages
  referencing new table as inserted
  for each statement execute function gre.messages_to_outbox();

-- Within a trigger: what was sent into this session so far is counted and announced before anything else is said of it.
create function gre.settle_session(p_session uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform set_config('gre.nested', 'on', true);
  perform gre.enqueue_messages(array[p_session]);
end $$;

create function gre.session_to_outbox() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and pg_trigger_depth() > 1 then
    perform gre.settle_session(new.id); -- a trigger's, on a message that this session's event must not overtake
  elsif tg_op = 'INSERT' and current_setting('gre.nested', true) = 'on' and exists (
    select from public.gre_relay_lanes where sink = 'pusher' and lane_key = new.id::text) then
    return null; -- announced before the message that another trigger has sent into it
  end if;
  perform gre.announce(array['pusher'], new.id::text, 'session', jsonb_build_object('session_id', new.id));
  -- Opened by a message: that statement rings.
  if tg_op = 'UPDATE' or pg_trigger_depth() = 1 then
    perform gre.ring(array[new.id]);
  end if;
  return null;
end $$;

create trigger gre_session_opened after insert on public.gre_chat_sessions
  for each row execute function gre.session_to_outbox();
create trigger gre_session_updated after update on public.gre_chat_sessions
  for each row when (old.status is distinct from new.status or old.assigned_staff_id is distinct from new.assigned_staff_id)
  execute function gre.session_to_outbox();

-- A back end or an admin queues a push of its own.
create function gre.push_to_outbox() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform gre.announce(array['onesignal'], 'push:' || new.id, 'push', jsonb_build_object('push_id', new.id));
  perform gre.ring(null);
  return null;
end $$;

create trigger gre_push_queued after insert on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.push_to_outbox();

create index push_notifications_id_text on public.push_notifications ((id::text));

-- A process listens: it counts for the next 15 s (8 while it is awake, when it speaks twice a second), and with p_awake (seconds) it needs no wake-up meanwhile. Without p_awake nothing
-- is written. One that is idle hears wake-ups and counts, and needs none. Answers {"listeners", "hubs": how many are known, "broadcasts": whether this project's database can send any},
-- and for a hub {"snapshot", "sessions"}: which sessions have changed since the p_snapshot of an earlier answer, exactly;
-- null for too many. (volatile: the snapshot and what it shows are one statement's.)
create function public.gre_relay_listen(
  p_listener uuid, p_kind text, p_awake numeric default null, p_snapshot text default null
) returns json
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_snapshot text;
  v_sessions uuid[];
begin
  perform gre.require_worker();
  if p_awake is not null then
    perform set_config('synchronous_commit', 'off', true);
    insert into gre.listeners as l (id, kind, awake_until, expires_at)
    values (p_listener, p_kind, v_now + least(greatest(p_awake, 0), 10) * interval '1 second', v_now + case when p_awake > 0 then interval '8 seconds' else interval '15 seconds' end)
    on conflict (id) do update set kind = excluded.kind, expires_at = excluded.expires_at,
      awake_until = greatest(excluded.awake_until, least(l.awake_until, v_now + interval '10 seconds'));
    delete from gre.listeners l where l.id in (
      select o.id from gre.listeners o where o.expires_at < v_now - interval '1 minute' for update skip locked);
  end if;
  if p_kind = 'hub' then
    select pg_current_snapshot()::text, array(
      select s.id from public.gre_chat_sessions s
      where s.changed_xid >= pg_snapshot_xmin(p_snapshot::pg_snapshot)
        and not pg_visible_in_snapshot(s.changed_xid, p_snapshot::pg_snapshot)
        -- Not those of another cluster, from which rows were restored: they are ahead of this one's for a long time.
        and s.changed_xid < pg_snapshot_xmax(pg_current_snapshot())
      limit 501)
      into v_snapshot, v_sessions;
  end if;
  return (select json_build_object('listeners', count(*), 'hubs', count(*) filter (where l.kind = 'hub'),
    'broadcasts', to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null,
    'snapshot', v_snapshot, 'sessions', case when cardinality(v_sessions) <= 500 then v_sessions end)
    from gre.listeners l where l.expires_at > v_now);
end $$;

-- A process listens no more.
create function public.gre_relay_unlisten(p_listener uuid) returns void
language sql volatile security definer set search_path = '' as $$
  select gre.require_worker();
  delete from gre.listeners where id = p_listener
$$;

-- Taking out ---------------------------------------------------------------------------------------------

-- S of the API: a session as readers see it. p_cut bounds the last message's text, in characters.
create function gre.session_json(p_session public.gre_chat_sessions, p_cut integer default null) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', p_session.id, 'player_id', p_session.player_id, 'player_name', p_session.player_name,
    'status', case when p_session.status = 'closed' then 'closed' else 'active' end,
    'assigned_staff_id', p_session.assigned_staff_id, 'last_seq', p_session.last_seq, 'rev', p_session.rev,
    'unread_by_staff', p_session.unread_by_staff, 'unread_by_player', p_session.unread_by_player,
    'last_message', (select left(m.message, p_cut) from public.gre_chat_messages m
                     where m.session_id = p_session.id and m.seq = p_session.last_seq),
    'last_message_at', gre.iso(p_session.last_message_at), 'created_at', gre.iso(p_session.created_at),
    'closed_at', gre.iso(p_session.closed_at))
$$;

-- Longest lease and backoff that a worker may ask for. A time further ahead than these is the trace of a
-- database clock that stepped back, and counts as past.
create function gre.longest_lease() returns interval
language sql immutable parallel safe set search_path = '' as $$ select interval '5 minutes' $$;
create function gre.longest_backoff() returns interval
language sql immutable parallel safe set search_path = '' as $$ select interval '10 minutes' $$;

-- Leases up to p_lanes due lanes of a sink, oldest first, and returns for each its first p_per_lane pending
-- deliveries in order: {"lanes": [{"lane_key", "deliveries": […]}], "next_in": seconds | null, "staff": […]}.
-- Two statements on purpose: in one, the lock would see the newest lane but the deliveries would be read from
-- the older snapshot, and what another worker had just settled would be sent again.
create function public.gre_relay_claim(
  p_sink text, p_token uuid, p_lanes integer default 100, p_per_lane integer default 10, p_lease_seconds numeric default 30
) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lease timestamptz := v_now + least(greatest(p_lease_seconds, 0.1) * interval '1 second', gre.longest_lease());
  v_keys text[];
  v_more text[];
  v_lanes jsonb;
  v_full boolean;
  v_resting integer := 0;
  v_next timestamptz;
begin
  if p_lanes < 1 or p_per_lane < 1 then
    perform gre.refuse(400, 'claim_invalid', 'p_lanes and p_per_lane must be at least 1');
  end if;

  with due as (
    select l.sink, l.lane_key from public.gre_relay_lanes l
    where l.sink = p_sink and l.ready_at <= v_now
      and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.longest_lease())
    order by l.ready_at
    limit p_lanes
    for no key update skip locked
  ), leased as (
    update public.gre_relay_lanes l set lease_until = v_lease, lease_token = p_token
    from due where l.sink = due.sink and l.lane_key = due.lane_key
    returning l.lane_key, l.ready_at
  )
  select array_agg(lane_key order by ready_at) into v_keys from leased;

  v_full := coalesce(cardinality(v_keys), 0) >= p_lanes;
  if not v_full then
    with due as (
      select l.sink, l.lane_key from public.gre_relay_lanes l
      where l.sink = p_sink and l.ready_at > v_now + gre.longest_backoff()
        and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.longest_lease())
      order by l.ready_at
      limit p_lanes - coalesce(cardinality(v_keys), 0)
      for no key update skip locked
    ), leased as (
      update public.gre_relay_lanes l set lease_until = v_lease, lease_token = p_token, ready_at = v_now
      from due where l.sink = due.sink and l.lane_key = due.lane_key
      returning l.lane_key
    )
    select array_agg(lane_key) into v_more from leased;
    v_keys := v_keys || v_more;
  end if;

  if v_keys is not null then
    select jsonb_agg(jsonb_build_object('lane_key', k.lane_key, 'deliveries', p.deliveries) order by k.n)
      into v_lanes
    from unnest(v_keys) with ordinality k (lane_key, n)
    cross join lateral (
      select jsonb_agg(jsonb_build_object(
          'id', d.id, 'ord', d.ord, 'event', d.event, 'attempts', d.attempts, 'data', d.data,
          'age', round(extract(epoch from v_now - d.created_at)::numeric, 4),
          'message', case when m.id is not null then jsonb_build_object(
            'id', m.id, 'session_id', m.session_id, 'seq', m.seq, 'player_id', m.player_id, 'player_name', m.player_name,
            'message', m.message, 'sender', m.sender, 'sender_name', m.sender_name, 'status', m.status,
            'timestamp', gre.iso(m.created_at)) end,
          'session', case when d.event = 'session' then (
            select gre.session_json(s, 200) from public.gre_chat_sessions s where s.id = (d.data ->> 'session_id')::uuid) end,
          'push', case when d.event = 'push' then (
            select jsonb_build_object('id', n.id, 'audience', n.audience, 'recipients', n.recipients, 'title', n.title,
              'body', n.body, 'data', n.data, 'message_id', n.message_id)
            from public.push_notifications n where n.id::text = d.data ->> 'push_id') end
        ) order by d.ord) as deliveries
      from (
        select * from public.gre_relay_deliveries q
        where q.sink = p_sink and q.lane_key = k.lane_key and q.state = 'pending'
        order by q.ord limit p_per_lane
      ) d
      left join public.gre_chat_messages m on m.id = d.message_id
    ) p
    where p.deliveries is not null;

    -- Nothing pending (its messages were deleted, say): the lane goes to rest, or it would be claimed for ever.
    update public.gre_relay_lanes l set ready_at = null, lease_until = null, lease_token = null
    where l.sink = p_sink and l.lane_key = any (v_keys) and l.lease_token = p_token
      and not exists (select from public.gre_relay_deliveries d
                      where d.sink = p_sink and d.lane_key = l.lane_key and d.state = 'pending');
    get diagnostics v_resting = row_count;
  end if;

  if v_full then
    v_next := v_now;
  else
    -- The next due lane that is not ours: one not yet ready, one leased by another, or one just being written.
    select min(t) into v_next from (
      (select l.ready_at as t from public.gre_relay_lanes l
        where l.sink = p_sink and l.ready_at > v_now and l.ready_at <= v_now + gre.longest_backoff()
        order by l.ready_at limit 1)
      union all
      (select min(case when l.lease_until <= v_now + gre.longest_lease() then greatest(l.lease_until, v_now) else v_now end)
        from public.gre_relay_lanes l
        where l.sink = p_sink and l.ready_at <= v_now and l.lease_token is distinct from p_token)
    ) n;
  end if;

  return jsonb_build_object(
    'lanes', coalesce(v_lanes, '[]'),
    'rested', v_resting,
    'next_in', case when v_next is not null then round(greatest(extract(epoch from v_next - v_now), 0)::numeric, 4) end,
    'staff', case when p_sink = 'onesignal' and v_lanes is not null then (
      select coalesce(jsonb_agg(jsonb_build_object('staff_id', s.staff_id, 'online', coalesce(o.status = 'online', false))), '[]')
      from public.gre_staff s left join public.gre_online_status o on o.staff_id = s.staff_id
      where s.active) end);
end $$;

-- Writes what became of claimed deliveries and frees exactly the lanes that are named, each with its own token:
-- p_results = [{"lane", "token", "done": [ids], "expired": [ids], "failed": {"ids", "state": "retry"|"dead",
-- "error", "spend"}, "retry_in": seconds, "receipts": [rows of push_notifications], "keep": true to record what
-- went out so far and keep the lane}].
-- Never waits for a lane: one that is locked (a portal is writing to it) comes back in "busy", to be repeated.
-- "done" always counts, since it went out; the rest only while the token is still the lane's. A repeated settle
-- changes nothing. Returns {"busy": [lanes], "lost": [lanes whose token is no longer theirs], "waiting": lanes
-- freed with more to do}.
create function public.gre_relay_settle(p_sink text, p_results jsonb) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_locked text[];
  v_mine bigint[];
  v_free bigint[];
  v_busy text[];
  v_lost text[];
  v_waiting integer;
  v_held text[];
  v_pushes text[];
begin
  if jsonb_typeof(p_results) is distinct from 'array' then
    perform gre.refuse(400, 'settle_invalid', 'p_results must be an array');
  end if;

  select coalesce(array_agg(l.lane_key), '{}') into v_locked from (
    select lane_key from public.gre_relay_lanes
    where sink = p_sink and lane_key in (select r ->> 'lane' from jsonb_array_elements(p_results) r)
    for no key update skip locked
  ) l;

  -- Locked in one order and never waited for: two settles of the same deliveries (a zombie's and its heir's) pass.
  with wanted as (
    select x.id::uuid as id, 'done' as state
      from jsonb_array_elements(p_results) r, jsonb_array_elements_text(r -> 'done') x (id)
    union all
    select x.id::uuid, 'expired'
      from jsonb_array_elements(p_results) r, jsonb_array_elements_text(r -> 'expired') x (id)
  ), free as (
    select d.id, w.state from wanted w
    join public.gre_relay_deliveries d on d.id = w.id
    where d.sink = p_sink and d.state = 'pending'
    order by d.id
    for no key update of d skip locked
  )
  update public.gre_relay_deliveries d set state = f.state, settled_at = v_now
  from free f where d.id = f.id;

  -- Queued pushes whose rows a portal holds: their lanes are busy.
  select coalesce(array_agg(x ->> 'push_id'), '{}') into v_pushes
  from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x where x ? 'push_id';
  select coalesce(array_agg(f.id), '{}') into v_held from (
    select n.id::text as id from public.push_notifications n where n.id::text = any (v_pushes) for no key update skip locked) f;
  select coalesce(array_agg(n.id::text), '{}') into v_held
  from public.push_notifications n where n.id::text = any (v_pushes) and n.id::text <> all (v_held);

  -- Results (by their place in p_results) whose token is still their lane's; and of these the ones to free:
  -- the lane is locked, not to be kept, and nothing of theirs was skipped above.
  select coalesce(array_agg(n), '{}'),
    coalesce(array_agg(n) filter (where l.lane_key = any (v_locked) and not exists (
      select from jsonb_array_elements_text(coalesce(r -> 'done', '[]') || coalesce(r -> 'expired', '[]')) x (id)
      join public.gre_relay_deliveries d on d.id = x.id::uuid where d.state = 'pending')
      and not exists (select from jsonb_array_elements(r -> 'receipts') x where x ->> 'push_id' = any (v_held))), '{}')
    into v_mine, v_free
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  join public.gre_relay_lanes l
    on l.sink = p_sink and l.lane_key = r ->> 'lane' and l.lease_token = (r ->> 'token')::uuid
  where not coalesce((r ->> 'keep')::boolean, false);

  update public.gre_relay_deliveries d set
    attempts = d.attempts + coalesce((r -> 'failed' ->> 'spend')::boolean, false)::integer,
    last_error = left(r -> 'failed' ->> 'error', 500),
    state = case when r -> 'failed' ->> 'state' = 'dead' then 'dead' else d.state end,
    settled_at = case when r -> 'failed' ->> 'state' = 'dead' then v_now end
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  where n = any (v_free) and jsonb_typeof(r -> 'failed') = 'object'
    and d.id in (select f.id from public.gre_relay_deliveries f
      where f.id in (select x.id::uuid from jsonb_array_elements_text(r -> 'failed' -> 'ids') x (id)) for no key update skip locked)
    and d.sink = p_sink and d.lane_key = r ->> 'lane' and d.state = 'pending';

  with freed as (
    update public.gre_relay_lanes l set lease_until = null, lease_token = null,
      ready_at = (
        select case when r ? 'retry_in'
          then greatest(d.created_at, v_now + least((r ->> 'retry_in')::numeric * interval '1 second', gre.longest_backoff()))
          else d.created_at end
        from public.gre_relay_deliveries d
        where d.sink = p_sink and d.lane_key = l.lane_key and d.state = 'pending'
        order by d.ord limit 1)
    from jsonb_array_elements(p_results) with ordinality t (r, n)
    where n = any (v_free) and l.sink = p_sink and l.lane_key = r ->> 'lane'
    returning l.ready_at
  )
  select count(*) filter (where ready_at is not null) into v_waiting from freed;

  perform gre.write_receipts(p_results, v_held);

  select coalesce(array_agg(r ->> 'lane') filter (where not n = any (v_free) and (n = any (v_mine) or not r ->> 'lane' = any (v_locked))), '{}'),
    coalesce(array_agg(r ->> 'lane') filter (where not n = any (v_mine) and r ->> 'lane' = any (v_locked)), '{}')
    into v_busy, v_lost
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  where not coalesce((r ->> 'keep')::boolean, false)
    and exists (select from public.gre_relay_lanes k where k.sink = p_sink and k.lane_key = r ->> 'lane');

  return jsonb_build_object('busy', to_jsonb(v_busy), 'lost', to_jsonb(v_lost), 'waiting', v_waiting);
end $$;

-- One row of push_notifications for each push; a repeat finds its own row by the delivery's id.
create function gre.write_receipts(p_results jsonb, p_held text[]) returns void
language plpgsql security definer set search_path = '' as $$
declare
  v jsonb;
begin
  insert into public.push_notifications as n
    (delivery_id, message_id, audience, recipients, title, body, data, status, provider_id, error, sent_at)
  select (x ->> 'delivery_id')::uuid, (select m.id from public.gre_chat_messages m where m.id = (x ->> 'message_id')::uuid),
    x ->> 'audience',
    case when jsonb_typeof(x -> 'recipients') = 'array' then array(select jsonb_array_elements_text(x -> 'recipients')) end,
    x ->> 'title', x ->> 'body', coalesce(x -> 'data', '{}'), x ->> 'status', x ->> 'provider_id', x ->> 'error',
    case when x ->> 'status' = 'sent' then clock_timestamp() end
  from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
  where x ->> 'push_id' is null
  order by x ->> 'delivery_id'
  on conflict (delivery_id) do update set status = excluded.status, provider_id = excluded.provider_id,
    error = excluded.error, recipients = excluded.recipients, sent_at = excluded.sent_at
    where n.status is distinct from 'sent';

  for v in select x from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
    where x ? 'push_id' and x ->> 'push_id' <> all (p_held)
  loop
    update public.push_notifications n set status = v ->> 'status', provider_id = v ->> 'provider_id', error = v ->> 'error',
      sent_at = case when v ->> 'status' = 'sent' then clock_timestamp() end
    where n.id::text = v ->> 'push_id' and n.status is distinct from 'sent';
  end loop;
end $$;

-- Prolongs the lease of lanes still in hand. {"extended": [lanes], "busy": [lanes]}; what is in neither is lost.
create function public.gre_relay_extend(p_sink text, p_token uuid, p_lanes text[], p_lease_seconds numeric default 30)
returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp() + least(greatest(p_lease_seconds, 0.1) * interval '1 second', gre.longest_lease());
  v_extended text[];
  v_busy text[];
begin
  perform gre.require_worker();
  with mine as (
    select sink, lane_key from public.gre_relay_lanes
    where sink = p_sink and lane_key = any (p_lanes) and lease_token = p_token
    for no key update skip locked
  ), done as (
    update public.gre_relay_lanes l set lease_until = v_until
    from mine where l.sink = mine.sink and l.lane_key = mine.lane_key
    returning l.lane_key
  )
  select coalesce(array_agg(lane_key), '{}') into v_extended from done;
  select coalesce(array_agg(lane_key), '{}') into v_busy from public.gre_relay_lanes
  where sink = p_sink and lane_key = any (p_lanes) and lease_token = p_token and not lane_key = any (v_extended);
  return jsonb_build_object('extended', to_jsonb(v_extended), 'busy', to_jsonb(v_busy));
end $$;

-- Gives lanes back unsent; p_lanes null means all of the token (after a claim whose answer was lost).
-- {"released": number, "busy": number}.
create function public.gre_relay_release(p_sink text, p_token uuid, p_lanes text[] default null) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_released integer;
  v_busy integer;
begin
  perform gre.require_worker();
  with mine as (
    select sink, lane_key from public.gre_relay_lanes
    where sink = p_sink and ready_at is not null and lease_token = p_token
      and (p_lanes is null or lane_key = any (p_lanes))
    for no key update skip locked
  )
  update public.gre_relay_lanes l set lease_until = null, lease_token = null
  from mine where l.sink = mine.sink and l.lane_key = mine.lane_key;
  get diagnostics v_released = row_count;
  select count(*) into v_busy from public.gre_relay_lanes
  where sink = p_sink and ready_at is not null and lease_token = p_token
    and (p_lanes is null or lane_key = any (p_lanes));
  return jsonb_build_object('released', v_released, 'busy', v_busy);
end $$;

-- What waits, for metrics and status: one object for each sink.
create function gre.relay_stats() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'sink', s.name, 'enabled', s.enabled,
    'pending', p.pending, 'oldest_age', round(extract(epoch from clock_timestamp() - p.oldest)::numeric, 3),
    'dead', (select count(*) from public.gre_relay_deliveries d where d.sink = s.name and d.state = 'dead'),
    'lanes_waiting', l.waiting, 'lanes_leased', l.leased, 'lanes_blocked', l.blocked) order by s.name), '[]')
  from public.gre_relay_sinks s
  cross join lateral (
    select count(*) as pending, min(d.created_at) as oldest from public.gre_relay_deliveries d
    where d.sink = s.name and d.state = 'pending') p
  cross join lateral (
    select count(*) as waiting,
      count(*) filter (where k.lease_until > clock_timestamp()) as leased,
      count(*) filter (where k.ready_at > clock_timestamp()) as blocked
    from public.gre_relay_lanes k where k.sink = s.name and k.ready_at is not null) l
$$;

create function public.gre_relay_stats() returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker();
  select gre.relay_stats()
$$;

create function public.gre_schema_version() returns integer
language sql immutable parallel safe set search_path = '' as $$ select 1 $$;
comment on function public.gre_schema_version() is 'Version of the contract between the database and the worker.';

revoke execute on all functions in schema gre from public;
grant execute on function gre.who(), gre.is_staff(), gre.is_admin(), gre.my_player_id(), gre.my_staff_id()
  to anon, authenticated, service_role;
grant execute on function gre.clean_name(text), gre.refuse(integer, text, text) to authenticated, service_role;
revoke execute on function
  public.gre_relay_claim(text, uuid, integer, integer, numeric), public.gre_relay_settle(text, jsonb),
  public.gre_relay_extend(text, uuid, text[], numeric), public.gre_relay_release(text, uuid, text[]),
  public.gre_relay_stats(), public.gre_schema_version(),
  public.gre_relay_listen(uuid, text, numeric, text), public.gre_relay_unlisten(uuid)
  from public, anon, authenticated, service_role;
grant execute on function
  public.gre_relay_claim(text, uuid, integer, integer, numeric), public.gre_relay_settle(text, jsonb),
  public.gre_relay_extend(text, uuid, text[], numeric), public.gre_relay_release(text, uuid, text[]),
  public.gre_relay_stats(), public.gre_schema_version(),
  public.gre_relay_listen(uuid, text, numeric, text), public.gre_relay_unlisten(uuid)
  to service_role;
