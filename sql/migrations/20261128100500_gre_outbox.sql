-- The outbox: tables of sinks, lanes and deliveries; wake-ups; triggers that enqueue deliveries in the transaction of
-- the row; functions with which workers claim and settle them. Depends on gre_foundation, gre_tables, gre_identity and
-- gre_messages.
--
-- A delivery is one event for one sink. A lane is the queue of one session, or of one queued push, for one sink. A
-- worker leases whole lanes, so that the deliveries of a lane are sent in order whatever the number of workers.
--
-- Lock order: sessions, lanes (by lane_key, sink), deliveries (by id), pushes. Functions that lock in another order use
-- `skip locked` or a short lock_timeout.
set local lock_timeout = '300ms';
select gre.lock_tables();

create table public.gre_relay_sinks (
  name text primary key,
  enabled boolean not null default true,
  reconcile_from timestamptz not null default now()
);
comment on table public.gre_relay_sinks is 'Sinks of the outbox.';
comment on column public.gre_relay_sinks.name is 'pusher or onesignal.';
comment on column public.gre_relay_sinks.enabled is 'False: nothing is enqueued for this sink.';
comment on column public.gre_relay_sinks.reconcile_from is
  'Time from which reconcile expects a delivery for every message. Older deliveries were pruned, or never existed: '
  'the message is older than the outbox, or the sink was disabled.';

create table public.gre_relay_lanes (
  sink text not null references public.gre_relay_sinks (name),
  lane_key text not null,
  ready_at timestamptz,
  lease_until timestamptz,
  lease_token uuid,
  lease_owner uuid,
  primary key (sink, lane_key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index gre_relay_lanes_ready on public.gre_relay_lanes (sink, ready_at) where ready_at is not null;
-- No index on lease_token: lease and settle stay heap-only updates.
comment on table public.gre_relay_lanes is 'Queues: one per sink and session, or per sink and queued push.';
comment on column public.gre_relay_lanes.sink is 'The sink.';
comment on column public.gre_relay_lanes.lane_key is 'The session''s id, or push:<id>.';
comment on column public.gre_relay_lanes.ready_at is
  'Time from which the lane can be claimed; null if nothing is pending.';
comment on column public.gre_relay_lanes.lease_until is 'End of the lease, or null.';
comment on column public.gre_relay_lanes.lease_token is 'Token of the claim that leased it.';
comment on column public.gre_relay_lanes.lease_owner is 'The worker that claimed it: one for each process and sink.';

create sequence gre.delivery_ord;
create table public.gre_relay_deliveries (
  id uuid primary key default gen_random_uuid(),
  sink text not null,
  lane_key text not null,
  ord bigint not null,
  event text not null,
  message_id uuid references public.gre_chat_messages (id) on delete cascade,
  data jsonb,
  state text not null default 'pending' constraint gre_relay_deliveries_state_check
    check (state in ('pending', 'done', 'dead', 'expired')),
  attempts integer not null default 0,
  last_error text,
  created_at timestamptz not null default clock_timestamp(),
  settled_at timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05);
create index gre_relay_deliveries_pending on public.gre_relay_deliveries (sink, lane_key, ord)
  where state = 'pending';
create index gre_relay_deliveries_message on public.gre_relay_deliveries (message_id);
-- For gre_erase_player: those of messages are found by these.
create index gre_relay_deliveries_other on public.gre_relay_deliveries (lane_key) where message_id is null;
create index gre_relay_deliveries_dead on public.gre_relay_deliveries (sink, settled_at) where state = 'dead';
-- For prune, and for the rates in status and operations.
create index gre_relay_deliveries_settled on public.gre_relay_deliveries (settled_at)
  where state in ('done', 'expired');
comment on table public.gre_relay_deliveries is 'Events for sinks. Contains ids, but no text of messages.';
comment on column public.gre_relay_deliveries.id is 'The delivery''s id; OneSignal''s idempotency key.';
comment on column public.gre_relay_deliveries.sink is 'The sink.';
comment on column public.gre_relay_deliveries.lane_key is 'The lane.';
comment on column public.gre_relay_deliveries.ord is 'Order within the lane.';
comment on column public.gre_relay_deliveries.event is 'message, session, transfer, read, note or push.';
comment on column public.gre_relay_deliveries.message_id is 'The message, for event message.';
comment on column public.gre_relay_deliveries.data is 'Arguments of other events; {"replayed": true} for a replay.';
comment on column public.gre_relay_deliveries.state is 'pending, done, dead or expired.';
comment on column public.gre_relay_deliveries.attempts is 'Number of attempts that the sink rejected.';
comment on column public.gre_relay_deliveries.last_error is 'Error of the last attempt.';
comment on column public.gre_relay_deliveries.created_at is 'Time of the event.';
comment on column public.gre_relay_deliveries.settled_at is 'Time at which it left the state pending.';

alter table public.gre_relay_sinks enable row level security;
alter table public.gre_relay_lanes enable row level security;
alter table public.gre_relay_deliveries enable row level security;
revoke all on public.gre_relay_sinks, public.gre_relay_lanes, public.gre_relay_deliveries
  from public, anon, authenticated, service_role;
revoke all on sequence gre.delivery_ord from public, anon, authenticated, service_role;
grant select on public.gre_relay_sinks, public.gre_relay_lanes, public.gre_relay_deliveries to service_role;

-- Adopted messages can have times in the future (a clock in another time zone). They are not enqueued either.
insert into public.gre_relay_sinks (name, reconcile_from)
  select s, greatest(now(), (
    select max(m.created_at) + interval '1 microsecond' from public.gre_chat_messages m where m.created_at >= now()))
  from unnest(array['pusher', 'onesignal']) s;

-- When a sink is enabled again, reconcile starts now: the sink has no deliveries from the time when it was disabled.
create function gre.sinks_before_enable() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.reconcile_from := clock_timestamp();
  return new;
end $$;
create trigger gre_before_enable before update on public.gre_relay_sinks
  for each row when (new.enabled and not old.enabled) execute function gre.sinks_before_enable();

-- Wake-ups ------------------------------------------------------------------------------------------------
-- A listener that receives many wake-ups polls for a while instead, and records that in its row. While all listeners
-- poll, no wake-ups are broadcast, which bounds their number at any rate of messages. Realtime counts each broadcast
-- against the project's limit, and drops broadcasts above it without an error.

-- Unlogged: after a crash of the database the table is empty, and every message is broadcast.
create unlogged table gre.listeners (
  id uuid primary key,
  kind text not null constraint listeners_kind_check check (kind in ('relay', 'hub', 'idle')),
  polls_until timestamptz not null default '-infinity',
  expires_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0);
comment on table gre.listeners is 'Processes that receive wake-ups.';
comment on column gre.listeners.kind is 'relay, hub, or idle (an API process without sockets, which needs no wake-up).';
comment on column gre.listeners.polls_until is 'Time until which the process polls and needs no wake-up.';
comment on column gre.listeners.expires_at is 'Time from which the row is ignored.';
alter table gre.listeners enable row level security;
revoke all on gre.listeners from public, anon, authenticated, service_role;

-- Broadcast a wake-up to the workers. It must neither fail nor delay the insert that causes it, hence the exception
-- handler and lock_timeout: realtime.send catches errors, but can wait for locks. p_event: wakeup, or files for those
-- who examine files only.
create function gre.broadcast_wakeup(p_sessions uuid[], p_event text default 'wakeup') returns void
language plpgsql security definer set search_path = '' set lock_timeout = '50ms' as $$
begin
  if to_regprocedure('realtime.send(jsonb,text,text,boolean)') is null then
    return;
  end if;
  perform realtime.send(
    case when cardinality(p_sessions) between 1 and 50
      then jsonb_build_object('sessions', to_jsonb(p_sessions)) else '{}'::jsonb end,
    p_event, 'gre:relay', true);
exception when others then
  null;
end $$;

-- Broadcast a wake-up unless all listeners poll. It reads committed rows and takes no lock. A worker polls for a while
-- beyond polls_until, to cover a transaction that reads before that time and commits after it.
create function gre.notify_workers(p_sessions uuid[]) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if (select coalesce(bool_or(l.polls_until <= clock_timestamp()), true)
      from gre.listeners l where l.expires_at > clock_timestamp() and l.kind <> 'idle') then
    perform gre.broadcast_wakeup(p_sessions);
  end if;
end $$;

-- The same for a file that can be examined. Only relay processes examine files.
create function gre.notify_media() returns void
language plpgsql security definer set search_path = '' as $$
begin
  if (select coalesce(bool_or(l.polls_until <= clock_timestamp()), true)
      from gre.listeners l where l.expires_at > clock_timestamp() and l.kind = 'relay') then
    perform gre.broadcast_wakeup(null, 'files');
  end if;
end $$;

create function public.gre_relay_listen_v1(
  p_listener uuid, p_kind text, p_polls_for numeric default null, p_snapshot text default null
) returns json
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_snapshot text;
  v_sessions uuid[];
begin
  perform gre.require_worker();
  if p_polls_for is not null then
    perform set_config('synchronous_commit', 'off', true);
    insert into gre.listeners as l (id, kind, polls_until, expires_at)
    values (p_listener, p_kind, v_now + least(greatest(p_polls_for, 0), 10) * interval '1 second',
            v_now + case when p_polls_for > 0 then interval '8 seconds' else interval '15 seconds' end)
    on conflict (id) do update set kind = excluded.kind, expires_at = excluded.expires_at,
      polls_until = greatest(excluded.polls_until, least(l.polls_until, v_now + interval '10 seconds'));
    delete from gre.listeners l where l.id in (
      select o.id from gre.listeners o where o.expires_at < v_now - interval '1 minute' for update skip locked);
  end if;
  if p_kind = 'hub' then
    select pg_current_snapshot()::text, array(
      select s.id from public.gre_chat_sessions s
      where s.changed_xid >= pg_snapshot_xmin(p_snapshot::pg_snapshot)
        and not pg_visible_in_snapshot(s.changed_xid, p_snapshot::pg_snapshot)
        -- Rows restored from another cluster can have a transaction id in this cluster's future.
        and s.changed_xid < pg_snapshot_xmax(pg_current_snapshot())
      limit 501)
      into v_snapshot, v_sessions;
  end if;
  return (select json_build_object('listeners', count(*), 'hubs', count(*) filter (where l.kind = 'hub'),
    'broadcasts', to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null,
    'snapshot', v_snapshot, 'sessions', case when cardinality(v_sessions) <= 500 then v_sessions end)
    from gre.listeners l where l.expires_at > v_now);
end $$;
comment on function public.gre_relay_listen_v1 is
  'Registers a listener for 15 s (8 s if it polls). p_polls_for: seconds for which it polls and needs no wake-up; null '
  'to write nothing. Returns {"listeners", "hubs": numbers of registered listeners, "broadcasts": true if the database '
  'can send broadcasts}, for a hub also {"snapshot", "sessions": ids of the sessions changed since p_snapshot, null if '
  'more than 500}.';

create function public.gre_relay_unlisten_v1(p_listener uuid) returns void
language sql volatile security definer set search_path = '' as $$
  select gre.require_worker();
  delete from gre.listeners where id = p_listener
$$;
comment on function public.gre_relay_unlisten_v1 is 'Unregisters a listener.';

-- Broadcast a wake-up for changes of players, staff and presence.
create function gre.people_after_change() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_table_name = 'gre_online_status' then
    perform gre.notify_workers(null);
  else
    -- A change of permissions is rare and always broadcast: an API process without sockets does not poll, but has to
    -- end connections at Pusher.
    perform gre.broadcast_wakeup(null);
  end if;
  return null;
end $$;
create trigger gre_players_changed
  after insert or delete or update of player_id, user_id, chat_enabled, blocked_until on public.gre_chat_players
  for each statement execute function gre.people_after_change(); -- one wake-up for gre_enable_all_players
create trigger gre_staff_changed after insert or delete or update of staff_id, user_id, role, active on public.gre_staff
  for each statement execute function gre.people_after_change();
create trigger gre_online_changed after update on public.gre_online_status
  for each row when (old.status is distinct from new.status) execute function gre.people_after_change();
create trigger gre_online_added after insert on public.gre_online_status
  for each row execute function gre.people_after_change();

-- Enqueue -------------------------------------------------------------------------------------------------

-- Enqueue an event other than message: session, transfer, read, note or push. The caller has locked the row of the
-- event, so that the order in the lane is the order of the row's changes.
create function gre.enqueue_event(p_sinks text[], p_lane text, p_event text, p_data jsonb) returns void
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

-- Enqueue the messages of these sessions that this transaction has not enqueued yet, in the order of seq. For a session
-- that it has opened, enqueue the session event first. For nested statements, see gre.count_messages.
create function gre.enqueue_messages(p_sessions uuid[], p_ids uuid[] default '{}') returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_ids uuid[];
  v_opened uuid;
begin
  select array_agg(m.id order by m.session_id, m.seq) into v_ids
  from public.gre_chat_sessions s
  join public.gre_chat_messages m on m.player_id = s.player_id and m.session_id = s.id
    and (m.created_at >= transaction_timestamp() or m.id = any (p_ids)) -- older ones are left to reconcile
  where s.id = any (p_sessions) and not exists (select from public.gre_relay_deliveries d where d.message_id = m.id);
  if v_ids is null then
    return;
  end if;
  for v_opened in
    select distinct s.id from public.gre_chat_sessions s
    join public.gre_chat_messages m on m.session_id = s.id and m.id = any (v_ids)
    where s.created_at >= transaction_timestamp() and not exists (
      select from public.gre_relay_lanes l where l.sink = 'pusher' and l.lane_key = s.id::text)
    order by s.id
  loop
    perform gre.enqueue_event(array['pusher'], v_opened::text, 'session', jsonb_build_object('session_id', v_opened));
  end loop;
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select s.name, m.session_id::text, min(m.created_at)
    from public.gre_chat_messages m cross join public.gre_relay_sinks s
    where m.id = any (v_ids) and s.enabled
    group by m.session_id, s.name
    order by 2, 1
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, created_at)
    select o.name, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, o.created_at
    from (
      select s.name, m.session_id::text as lane_key, m.id, m.created_at
      from public.gre_chat_messages m cross join public.gre_relay_sinks s
      where m.id = any (v_ids) and s.enabled
      order by m.session_id, m.seq, s.name
    ) o;
end $$;

create function gre.messages_enqueue() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_sessions constant uuid[] := array(select distinct session_id from inserted);
begin
  -- A statement trigger also fires for a statement without rows (on conflict do nothing).
  if v_sessions = '{}' then
    return null;
  end if;
  if gre.is_nested() then
    perform set_config('gre.nested', 'on', true); -- until the end of the transaction
    perform gre.enqueue_messages(v_sessions, array(select id from inserted));
    perform gre.notify_workers(v_sessions);
    return null;
  end if;
  -- Lanes first, in session order. An upsert also locks the lanes that it does not change.
  insert into public.gre_relay_lanes as l (sink, lane_key, ready_at)
    select s.name, i.lane_key, i.first_at
    from (select session_id::text as lane_key, min(created_at) as first_at from inserted group by session_id) i
    cross join public.gre_relay_sinks s
    where s.enabled
    order by i.lane_key, s.name
    on conflict (sink, lane_key) do update set ready_at = excluded.ready_at where l.ready_at is null;
  -- Under the locks of the lanes, so that the order of ord in a lane is the order of commits.
  insert into public.gre_relay_deliveries (sink, lane_key, ord, event, message_id, created_at)
    select o.name, o.lane_key, nextval('gre.delivery_ord'), 'message', o.id, o.created_at
    from (
      select s.name, i.session_id::text as lane_key, i.id, i.created_at
      from inserted i cross join public.gre_relay_sinks s
      where s.enabled
      order by i.session_id, i.seq, s.name
    ) o;
  if pg_trigger_depth() = 1 then -- the wake-up for the player's message is enough for its auto-reply
    perform gre.notify_workers(v_sessions);
  end if;
  return null;
end $$;
create trigger gre_7_enqueue after insert on public.gre_chat_messages
  referencing new table as inserted for each statement execute function gre.messages_enqueue();

-- Within a trigger: count and enqueue the earlier messages of the session, before another event of it is enqueued.
create function gre.flush_session(p_session uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform set_config('gre.nested', 'on', true);
  perform gre.count_messages(array[p_session]);
  perform gre.enqueue_messages(array[p_session]);
end $$;

create function gre.sessions_enqueue() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and pg_trigger_depth() > 1 then
    perform gre.flush_session(new.id);
  elsif tg_op = 'INSERT' and current_setting('gre.nested', true) = 'on' and exists (
    select from public.gre_relay_lanes where sink = 'pusher' and lane_key = new.id::text) then
    return null; -- gre.enqueue_messages has enqueued it
  end if;
  perform gre.enqueue_event(array['pusher'], new.id::text, 'session', jsonb_build_object('session_id', new.id));
  if tg_op = 'UPDATE' and old.assigned_staff_id <> new.assigned_staff_id then
    perform gre.enqueue_event(array['pusher'], new.id::text, 'transfer', jsonb_build_object('session_id', new.id,
      'from', left(old.assigned_staff_id, 200), 'to', left(new.assigned_staff_id, 200),
      'by', (gre.current_actor()).staff_id));
  end if;
  -- For a session that a message opens, the trigger of the message notifies.
  if tg_op = 'UPDATE' or pg_trigger_depth() = 1 then
    perform gre.notify_workers(array[new.id]);
  end if;
  return null;
end $$;
create trigger gre_session_opened after insert on public.gre_chat_sessions
  for each row execute function gre.sessions_enqueue();
create trigger gre_session_updated after update on public.gre_chat_sessions
  for each row
  when (old.status is distinct from new.status or old.assigned_staff_id is distinct from new.assigned_staff_id)
  execute function gre.sessions_enqueue();

-- Enqueue a push that a back end or an admin has queued.
create function gre.pushes_enqueue() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform gre.enqueue_event(array['onesignal'], 'push:' || new.id, 'push', jsonb_build_object('push_id', new.id));
  perform gre.notify_workers(null);
  return null;
end $$;
create trigger gre_push_queued after insert on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.pushes_enqueue();

-- JSON ----------------------------------------------------------------------------------------------------

-- Return each of the sessions as S of the API, in their order. The last message is cut to p_max_length characters. One
-- statement for all of them: under row-level security each statement asks again who the caller is.
create function gre.sessions_json(p_sessions public.gre_chat_sessions[], p_max_length integer default null)
returns setof jsonb
language plpgsql stable set search_path = '' as $$
begin
  return query
  select jsonb_build_object(
      'id', s.id, 'player_id', s.player_id, 'player_name', left(s.player_name, 200),
      'status', case when s.status = 'closed' then 'closed' else 'active' end,
      'assigned_staff_id', left(s.assigned_staff_id, 200), 'last_seq', s.last_seq, 'rev', s.rev,
      'unread_by_staff', s.unread_by_staff, 'unread_by_player', s.unread_by_player,
      'last_message', (select left(m.message, coalesce(p_max_length, 4000)) from public.gre_chat_messages m
                       where m.session_id = s.id and m.seq = s.last_seq),
      'last_message_at', gre.iso(s.last_message_at), 'created_at', gre.iso(s.created_at),
      'closed_at', gre.iso(s.closed_at))
    -- Only where they say something: a session that staff closed has the keys that older portals know.
    || case when s.closed_by <> 'staff' then jsonb_build_object('closed_by', s.closed_by) else '{}' end
    || case when s.cycle > 1 then jsonb_build_object('cycle', s.cycle) else '{}' end
    || case when s.rating is not null then jsonb_build_object('rating', s.rating) else '{}' end
  from unnest(p_sessions) s;
end $$;

create function gre.session_json(p_session public.gre_chat_sessions, p_max_length integer default null) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (select x from gre.sessions_json(array[p_session], p_max_length) x);
end $$;

-- Return a message as M of the API.
create function gre.message_json(m public.gre_chat_messages) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_at constant text := gre.iso(m.created_at);
  v_json jsonb;
begin
  v_json := jsonb_build_object('id', m.id, 'seq', m.seq, 'session_id', m.session_id, 'player_id', m.player_id,
    'player_name', m.player_name, 'message', m.message, 'sender', m.sender, 'sender_name', m.sender_name,
    'status', m.status, 'timestamp', v_at, 'created_at', v_at);
  if m.attachment_ids <> '{}' then
    v_json := v_json || jsonb_build_object('attachments', gre.attachments_json(m.attachment_ids));
  end if;
  return case m.origin when 'auto' then v_json || '{"auto": true}' else v_json end;
end $$;

-- Return a queued push for a claim: its content, or "fault" with the reason if it cannot be sent.
create function gre.push_json(p_push text) returns json
language plpgsql stable set search_path = '' as $$
declare
  n record;
  v_fault text;
begin
  select q.id::text as id, q.audience, q.recipients, q.title, q.body, q.data into n
  from public.push_notifications q where q.id::text = p_push;
  if not found then
    return null;
  end if;
  v_fault := gre.push_error(n.title, n.body, n.recipients, n.data);
  if v_fault is not null then
    return json_build_object('id', n.id, 'fault', v_fault);
  end if;
  return json_build_object('id', n.id, 'audience', n.audience, 'recipients', n.recipients, 'title', n.title,
    'body', n.body, 'data', n.data::text);
exception when others then
  return json_build_object('id', p_push, 'fault', 'it cannot be read (' || sqlstate || ')');
end $$;

-- Claim, settle, extend, release --------------------------------------------------------------------------
-- These functions use plans that do not depend on statistics: no sequential scans, no just-in-time compilation, and
-- deliveries are looked up by id alone. After a burst and before the next analyze, the planner assumes that the outbox
-- is empty, and chose to read all pending deliveries once per lane (20,000 pending: a claim of 1,000 took 480 ms
-- instead of 30).
--
-- They commit asynchronously. A crash of the database can lose a lease or the result of a delivery, which is then sent
-- again. Portals' transactions, which write the deliveries, commit synchronously.

-- The longest lease and backoff. A later time is in the past of a clock that was set back, and is treated as due.
create function gre.max_lease() returns interval
language sql immutable parallel safe set search_path = '' as $$ select interval '5 minutes' $$;

create function gre.max_backoff() returns interval
language sql immutable parallel safe set search_path = '' as $$ select interval '10 minutes' $$;

-- Number of characters that a claim reads of a message: more than any sink accepts (Pusher: 10,240 bytes), so that a
-- longer text of a legacy portal is truncated and marked as such.
create function gre.max_text_length() returns integer
language sql immutable parallel safe set search_path = '' as $$ select 10300 $$;

create function public.gre_relay_claim_v1(
  p_sink text, p_token uuid, p_lanes integer default 100, p_per_lane integer default 10,
  p_lease_seconds numeric default 30, p_owner uuid default null, p_held uuid[] default '{}'
) returns json
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lease timestamptz := v_now + least(greatest(p_lease_seconds, 0.1) * interval '1 second', gre.max_lease());
  v_keys text[];
  v_more text[];
  v_empty text[];
  v_left text[];
  v_lanes json;
  v_full boolean;
  v_emptied integer := 0;
  v_recovered integer;
  v_next timestamptz;
begin
  perform gre.require_worker();
  if p_lanes < 1 or p_per_lane < 1 then
    perform gre.raise_http(400, 'claim_invalid', 'p_lanes and p_per_lane must be at least 1');
  end if;
  perform set_config('synchronous_commit', 'off', true);

  with due as (
    select l.sink, l.lane_key, l.lease_owner = p_owner and l.lease_until > v_now as recovered
    from public.gre_relay_lanes l
    where l.sink = p_sink and l.ready_at <= v_now
      and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.max_lease()
           or l.lease_owner = p_owner and l.lease_token <> all (p_held))
    order by l.ready_at
    limit p_lanes
    for no key update skip locked
  ), leased as (
    update public.gre_relay_lanes l set lease_until = v_lease, lease_token = p_token, lease_owner = p_owner
    from due where l.sink = due.sink and l.lane_key = due.lane_key
    returning l.lane_key, l.ready_at, due.recovered
  )
  select array_agg(lane_key order by ready_at), count(*) filter (where recovered)
    into v_keys, v_recovered from leased;

  v_full := coalesce(cardinality(v_keys), 0) >= p_lanes;
  if not v_full then
    with due as (
      select l.sink, l.lane_key from public.gre_relay_lanes l
      where l.sink = p_sink and l.ready_at > v_now + gre.max_backoff()
        and (l.lease_until is null or l.lease_until <= v_now or l.lease_until > v_now + gre.max_lease()
             or l.lease_owner = p_owner and l.lease_token <> all (p_held))
      order by l.ready_at
      limit p_lanes - coalesce(cardinality(v_keys), 0)
      for no key update skip locked
    ), leased as (
      update public.gre_relay_lanes l
      set lease_until = v_lease, lease_token = p_token, lease_owner = p_owner, ready_at = v_now
      from due where l.sink = due.sink and l.lane_key = due.lane_key
      returning l.lane_key
    )
    select array_agg(lane_key) into v_more from leased;
    v_keys := v_keys || v_more;
  end if;

  if v_keys is not null then
    -- A statement of its own, after the one that locked the lanes. In one statement the lock would see the newest lane,
    -- but the deliveries would be of the older snapshot, and what another worker had just settled would be sent again.
    -- The content of a row must not fail the answer that it is part of: text is cut, jsonb is returned as text that the
    -- worker parses per delivery, and lanes beyond 8 MB in all are given back unread.
    select json_agg(json_build_object('lane_key', f.lane_key, 'deliveries', f.deliveries) order by f.n)
        filter (where f.found > 0 and f.fits),
      array_agg(f.lane_key) filter (where f.found = 0),
      array_agg(f.lane_key) filter (where f.found > 0 and not f.fits)
      into v_lanes, v_empty, v_left
    from (
      select k.lane_key, k.n, p.found, p.deliveries, coalesce(sum(pg_column_size(p.deliveries))
        over (order by k.n rows between unbounded preceding and 1 preceding), 0) < 8 * 1024 * 1024 as fits
      from unnest(v_keys) with ordinality k (lane_key, n)
      cross join lateral (
        select count(*) as found, json_agg(json_build_object(
            'id', d.id, 'ord', d.ord, 'event', d.event, 'attempts', d.attempts, 'data', d.data::text,
            'age', round(extract(epoch from v_now - d.created_at)::numeric, 4),
            'message', case when m.id is not null then json_build_object(
              'id', m.id, 'session_id', m.session_id, 'seq', m.seq, 'player_id', m.player_id,
              'player_name', left(m.player_name, 200), 'message', left(m.message, gre.max_text_length()),
              'sender', m.sender,
              'sender_name', left(m.sender_name, 200), 'status', m.status, 'auto', m.origin = 'auto',
              'attachments', case when m.attachment_ids <> '{}' then (
                select json_agg(json_build_object('id', a.id, 'kind', a.kind) order by a.place)
                from public.gre_chat_attachments a where a.id = any (m.attachment_ids)) end,
              -- as gre.iso, without the cost of a call per row
              'timestamp', to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) end,
            'session', case when d.event = 'session'
                and d.data ->> 'session_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (
              select gre.session_json(s, 200)
              from public.gre_chat_sessions s where s.id = (d.data ->> 'session_id')::uuid) end,
            'note', case when d.event = 'note'
                and d.data ->> 'note_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (
              select gre.note_json(x) from public.gre_chat_notes x where x.id = (d.data ->> 'note_id')::uuid) end,
            'push', case when d.event = 'push' then gre.push_json(d.data ->> 'push_id') end
          ) order by d.ord) as deliveries
        from (
          select * from public.gre_relay_deliveries q
          where q.sink = p_sink and q.lane_key = k.lane_key and q.state = 'pending'
          order by q.ord limit p_per_lane
        ) d
        left join public.gre_chat_messages m on m.id = d.message_id
      ) p
    ) f;

    if v_left is not null then
      update public.gre_relay_lanes l set lease_until = null, lease_token = null, lease_owner = null
      where l.sink = p_sink and l.lane_key = any (v_left) and l.lease_token = p_token;
      v_full := true;
    end if;
    -- Unschedule lanes without a pending delivery (its message was deleted), or they would be claimed again and again.
    -- A transaction that adds to a lane locks it first, and we hold these locks.
    if v_empty is not null then
      update public.gre_relay_lanes l
      set ready_at = null, lease_until = null, lease_token = null, lease_owner = null
      where l.sink = p_sink and l.lane_key = any (v_empty) and l.lease_token = p_token;
      get diagnostics v_emptied = row_count;
    end if;
  end if;

  if v_full then
    v_next := v_now;
  else
    -- The next lane of others: not ready yet, leased by another worker, or being written.
    select min(t) into v_next from (
      (select l.ready_at as t from public.gre_relay_lanes l
        where l.sink = p_sink and l.ready_at > v_now and l.ready_at <= v_now + gre.max_backoff()
        order by l.ready_at limit 1)
      union all
      (select min(case
          when l.lease_owner = p_owner and l.lease_token <> all (p_held) then v_now
          when l.lease_until <= v_now + gre.max_lease() then greatest(l.lease_until, v_now)
          else v_now end)
        from public.gre_relay_lanes l
        where l.sink = p_sink and l.ready_at <= v_now and l.lease_token is distinct from p_token)
    ) n;
  end if;

  return json_build_object(
    'lanes', coalesce(v_lanes, '[]'),
    'emptied_lanes', v_emptied,
    'recovered_lanes', v_recovered,
    'next_in', case when v_next is not null then round(greatest(extract(epoch from v_next - v_now), 0)::numeric, 4) end,
    'staff', case when p_sink = 'onesignal' and v_lanes is not null then (
      select coalesce(json_agg(json_build_object('staff_id', s.staff_id, 'online',
        gre.presence(o.status, o.last_seen_at, o.expires_at) = 'online')), '[]')
      from public.gre_staff s left join public.gre_online_status o on o.staff_id = s.staff_id
      where s.active) end);
end $$;
comment on function public.gre_relay_claim_v1 is
  'Leases up to p_lanes due lanes of a sink, oldest first, and returns the first p_per_lane pending deliveries of '
  'each in order: {"lanes": [{"lane_key", "deliveries"}], "emptied_lanes": lanes found empty, "recovered_lanes", '
  '"next_in": seconds | null, "staff"}. p_held: tokens whose lanes p_owner has in hand. Its other leases do not count: '
  'the answer to their claim was lost, or a crash took back their settle. Such lanes are counted as recovered.';

-- Insert the receipts of pushes, one row per delivery. A repeated call updates the row.
create function gre.insert_receipts(p_receipts jsonb) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  insert into public.push_notifications as n
    (delivery_id, message_id, audience, recipients, title, body, data, status, provider_id, error, sent_at)
  select (x ->> 'delivery_id')::uuid,
    (select m.id from public.gre_chat_messages m where m.id = (x ->> 'message_id')::uuid),
    x ->> 'audience',
    case when jsonb_typeof(x -> 'recipients') = 'array'
      then array(select jsonb_array_elements_text(x -> 'recipients')) end,
    x ->> 'title', x ->> 'body', coalesce(x -> 'data', '{}'), x ->> 'status', x ->> 'provider_id', x ->> 'error',
    case when x ->> 'status' = 'sent' then clock_timestamp() end
  from jsonb_array_elements(p_receipts) x
  order by x ->> 'delivery_id'
  on conflict (delivery_id) do update set status = excluded.status, provider_id = excluded.provider_id,
    error = excluded.error, recipients = excluded.recipients, sent_at = excluded.sent_at
    where n.status is distinct from 'sent';
end $$;

-- Write the receipts of a settle without waiting for locks. Return the ids (push_id or delivery_id) of receipts whose
-- rows are locked by another transaction; settle reports their lanes as busy. Skip a receipt that cannot be written at
-- all, with a warning: the push was sent, and must not be sent again.
create function gre.write_receipts(p_results jsonb) returns text[]
language plpgsql security definer set lock_timeout = '50ms'
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v jsonb;
  v_receipts jsonb;
  v_blocked text[] := '{}';
  v_ids uuid[];
  v_messages uuid[];
  v_locked uuid[];
  v_pushes text[];
  v_locked_pushes text[];
begin
  select jsonb_agg(x), array_agg(distinct (x ->> 'delivery_id')::uuid), array_agg(distinct (x ->> 'message_id')::uuid)
    into v_receipts, v_ids, v_messages
  from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x where x ->> 'push_id' is null;

  if v_receipts is not null then
    -- Without a delivery, no receipt is written: the player was erased while the push was sent.
    v_ids := array(select d.id from public.gre_relay_deliveries d where d.id = any (v_ids));
    v_locked := array(select d.id from public.gre_relay_deliveries d
                      where d.id = any (v_ids) for key share skip locked);
    v_blocked := array(select i::text from unnest(v_ids) i where i <> all (v_locked));
    v_locked := array(select n.delivery_id from public.push_notifications n where n.delivery_id = any (v_ids)
                      order by n.delivery_id for no key update skip locked);
    v_blocked := v_blocked || array(select n.delivery_id::text from public.push_notifications n
                                    where n.delivery_id = any (v_ids) and n.delivery_id <> all (v_locked));
    v_locked := array(select m.id from public.gre_chat_messages m
                      where m.id = any (v_messages) for key share skip locked);
    v_messages := array(select m.id from public.gre_chat_messages m
                        where m.id = any (v_messages) and m.id <> all (v_locked));
    v_blocked := v_blocked || array(select x ->> 'delivery_id' from jsonb_array_elements(v_receipts) x
                                    where (x ->> 'message_id')::uuid = any (v_messages));
    v_receipts := coalesce((select jsonb_agg(x) from jsonb_array_elements(v_receipts) x
                            where (x ->> 'delivery_id')::uuid = any (v_ids)
                              and x ->> 'delivery_id' <> all (v_blocked)), '[]');
    begin
      perform gre.insert_receipts(v_receipts);
    exception when others then
      for v in select x from jsonb_array_elements(v_receipts) x loop
        begin
          perform gre.insert_receipts(jsonb_build_array(v));
        exception
          when lock_not_available or deadlock_detected then
            v_blocked := v_blocked || (v ->> 'delivery_id');
          when others then
            raise warning 'gre-bridge: the receipt of delivery % cannot be written (%)', v ->> 'delivery_id', sqlstate;
        end;
      end loop;
    end;
  end if;

  v_pushes := array(select x ->> 'push_id'
                    from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
                    where x ? 'push_id');
  if v_pushes <> '{}' then
    v_locked_pushes := array(select n.id::text from public.push_notifications n
                             where n.id::text = any (v_pushes) for no key update skip locked);
    v_blocked := v_blocked || array(select n.id::text from public.push_notifications n
                                    where n.id::text = any (v_pushes) and n.id::text <> all (v_locked_pushes));
    for v in select x from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
      where x ->> 'push_id' = any (v_locked_pushes)
    loop
      update public.push_notifications n set
        status = v ->> 'status', provider_id = v ->> 'provider_id', error = v ->> 'error',
        sent_at = case when v ->> 'status' = 'sent' then clock_timestamp() end
      where n.id::text = v ->> 'push_id' and n.status is distinct from 'sent';
    end loop;
  end if;
  return v_blocked;
end $$;

create function public.gre_relay_settle_v1(p_sink text, p_results jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_names text[];
  v_locked text[];
  v_done uuid[];
  v_expired uuid[];
  v_failed uuid[];
  v_skipped text[] := '{}';
  v_incomplete text[] := '{}';
  v_valid bigint[];
  v_freeable bigint[];
  v_busy text[];
  v_lost text[];
  v_waiting integer;
  v_blocked_receipts text[] := '{}';
  v_written integer;
begin
  perform gre.require_worker();
  if jsonb_typeof(p_results) is distinct from 'array' then
    perform gre.raise_http(400, 'settle_invalid', 'p_results must be an array');
  end if;
  perform set_config('synchronous_commit', 'off', true);

  v_names := array(select r ->> 'lane' from jsonb_array_elements(p_results) r);
  select coalesce(array_agg(l.lane_key), '{}') into v_locked from (
    select lane_key from public.gre_relay_lanes
    where sink = p_sink and lane_key = any (v_names)
    for no key update skip locked
  ) l;

  select coalesce(array_agg(x.id::uuid), '{}') into v_done
  from jsonb_array_elements(p_results) r, jsonb_array_elements_text(r -> 'done') x (id);
  select coalesce(array_agg(x.id::uuid), '{}') into v_expired
  from jsonb_array_elements(p_results) r, jsonb_array_elements_text(r -> 'expired') x (id) where r ? 'expired';

  -- Locked in one order and without waiting, so that two settles of the same deliveries cannot deadlock. The
  -- expressions `d.state || ''` keep the planner from using the index of all pending deliveries instead of the primary
  -- key.
  with unlocked as materialized (
    select d.id from public.gre_relay_deliveries d
    where d.id = any (v_done || v_expired) and d.sink || '' = p_sink and d.state || '' = 'pending'
    order by d.id
    for no key update of d skip locked
  )
  update public.gre_relay_deliveries d
  set state = case when d.id = any (v_expired) then 'expired' else 'done' end, settled_at = v_now
  from unlocked u where d.id = u.id;

  get diagnostics v_written = row_count;
  if v_written < cardinality(v_done) + cardinality(v_expired) then
    -- Deliveries that are still pending were locked by another transaction. The others were settled earlier.
    select coalesce(array_agg(d.id::text), '{}') into v_skipped
    from public.gre_relay_deliveries d where d.id = any (v_done || v_expired) and d.state || '' = 'pending';
  end if;

  if jsonb_path_exists(p_results, '$[*].receipts') then
    v_blocked_receipts := gre.write_receipts(p_results);
  end if;

  -- Lanes with a delivery or a receipt that was skipped above. They are not freed, whichever of their results named it:
  -- the next claim would send the delivery again.
  if v_skipped <> '{}' or v_blocked_receipts <> '{}' then
    select coalesce(array_agg(r ->> 'lane'), '{}') into v_incomplete
    from jsonb_array_elements(p_results) r
    where coalesce(r -> 'done' ?| v_skipped, false) or coalesce(r -> 'expired' ?| v_skipped, false)
      or exists (select from jsonb_array_elements(r -> 'receipts') x
                 where coalesce(x ->> 'push_id', x ->> 'delivery_id') = any (v_blocked_receipts));
  end if;

  -- Results by their index in p_results. v_valid: have the token of their lane. v_freeable: of these, the lane is
  -- locked here and complete, and the result does not keep it.
  with lanes as materialized (
    select lane_key, lease_token from public.gre_relay_lanes where sink = p_sink and lane_key = any (v_names)
  )
  select coalesce(array_agg(n), '{}'),
    coalesce(array_agg(n) filter (where l.lane_key = any (v_locked) and l.lane_key <> all (v_incomplete)
      and not coalesce((r ->> 'keep')::boolean, false)), '{}')
    into v_valid, v_freeable
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  join lanes l on l.lane_key = r ->> 'lane' and l.lease_token = (r ->> 'token')::uuid;

  select coalesce(array_agg(x.id::uuid), '{}') into v_failed
  from jsonb_array_elements(p_results) with ordinality t (r, n),
    jsonb_array_elements_text(r -> 'failed' -> 'ids') x (id)
  where n = any (v_freeable) and r ? 'failed';
  if v_failed <> '{}' then
    select coalesce(array_agg(f.id), '{}') into v_failed from (
      select d.id from public.gre_relay_deliveries d
      where d.id = any (v_failed) and d.state || '' = 'pending' order by d.id for no key update skip locked) f;
    update public.gre_relay_deliveries d set
      attempts = d.attempts + coalesce((f.r -> 'failed' ->> 'spend')::boolean, false)::integer,
      last_error = left(f.r -> 'failed' ->> 'error', 500),
      state = case when f.r -> 'failed' ->> 'state' = 'dead' then 'dead' else d.state end,
      settled_at = case when f.r -> 'failed' ->> 'state' = 'dead' then v_now end
    from (
      select r, x.id::uuid as id
      from jsonb_array_elements(p_results) with ordinality t (r, n),
        jsonb_array_elements_text(r -> 'failed' -> 'ids') x (id)
      where n = any (v_freeable)
    ) f
    where d.id = f.id and d.id = any (v_failed) and d.sink || '' = p_sink and d.lane_key || '' = f.r ->> 'lane';
  end if;

  with freed as (
    update public.gre_relay_lanes l set lease_until = null, lease_token = null, lease_owner = null,
      ready_at = (
        select case when r ? 'retry_in'
          then greatest(d.created_at,
                        v_now + least((r ->> 'retry_in')::numeric * interval '1 second', gre.max_backoff()))
          else d.created_at end
        from public.gre_relay_deliveries d
        where d.sink = p_sink and d.lane_key = l.lane_key and d.state = 'pending'
        order by d.ord limit 1)
    from jsonb_array_elements(p_results) with ordinality t (r, n)
    where n = any (v_freeable) and l.sink = p_sink and l.lane_key = r ->> 'lane' and l.lane_key = any (v_names)
    returning l.ready_at
  )
  select count(*) filter (where ready_at is not null) into v_waiting from freed;

  if cardinality(v_freeable) = jsonb_array_length(p_results) then
    return jsonb_build_object('busy', '[]'::jsonb, 'lost', '[]'::jsonb, 'waiting', v_waiting);
  end if;
  select coalesce(array_agg(r ->> 'lane') filter (
      where not n = any (v_freeable) and (n = any (v_valid) or not r ->> 'lane' = any (v_locked))), '{}'),
    coalesce(array_agg(r ->> 'lane') filter (where not n = any (v_valid) and r ->> 'lane' = any (v_locked)), '{}')
    into v_busy, v_lost
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  where not n = any (v_freeable)
    and (not coalesce((r ->> 'keep')::boolean, false) or r ->> 'lane' = any (v_incomplete))
    and exists (select from public.gre_relay_lanes k where k.sink = p_sink and k.lane_key = r ->> 'lane');

  return jsonb_build_object('busy', to_jsonb(v_busy), 'lost', to_jsonb(v_lost), 'waiting', v_waiting);
end $$;
comment on function public.gre_relay_settle_v1 is
  'Records results of claimed deliveries and frees exactly the named lanes, each with its own token. p_results: '
  '[{"lane", "token", "done": [ids], "expired": [ids], "failed": {"ids", "state": "retry" | "dead", "error", '
  '"spend"}, "retry_in": seconds, "receipts": [pushes], "keep": true to record and keep the lane}]. Never waits for '
  'a lock: a lane that is locked, or has a locked delivery or receipt, is returned in "busy", and its results are '
  'to be repeated. "done" and "expired" count always, the rest only while the token matches. A repeat changes '
  'nothing. Returns {"busy": [lanes], "lost": [lanes with another token], "waiting": freed lanes with pending work}.';

create function public.gre_relay_exchange_v1(
  p_sink text, p_results jsonb, p_token uuid, p_lanes integer default 100, p_per_lane integer default 10,
  p_lease_seconds numeric default 30, p_owner uuid default null, p_held uuid[] default '{}'
) returns json
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_settled jsonb := public.gre_relay_settle_v1(p_sink, p_results);
begin
  return json_build_object('settled', v_settled, 'claim', public.gre_relay_claim_v1(
    p_sink, p_token, p_lanes, p_per_lane, p_lease_seconds, p_owner, p_held));
end $$;
comment on function public.gre_relay_exchange_v1 is
  'A settle and then a claim of the same sink, both or neither; the claim finds the lanes that the settle freed: '
  '{"settled": answer of the settle, "claim": answer of the claim}.';

create function public.gre_relay_extend_v1(
  p_sink text, p_token uuid, p_lanes text[], p_lease_seconds numeric default 30
) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_until timestamptz := clock_timestamp()
    + least(greatest(p_lease_seconds, 0.1) * interval '1 second', gre.max_lease());
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
comment on function public.gre_relay_extend_v1 is
  'Extends the lease of lanes: {"extended": [lanes], "busy": [lanes]}. A lane in neither list is lost.';

create function public.gre_relay_release_v1(p_sink text, p_owner uuid) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_released integer;
  v_busy integer;
begin
  perform gre.require_worker();
  with mine as (
    select sink, lane_key from public.gre_relay_lanes
    where sink = p_sink and ready_at is not null and lease_owner = p_owner
    for no key update skip locked
  )
  update public.gre_relay_lanes l set lease_until = null, lease_token = null, lease_owner = null
  from mine where l.sink = mine.sink and l.lane_key = mine.lane_key;
  get diagnostics v_released = row_count;
  select count(*) into v_busy from public.gre_relay_lanes
  where sink = p_sink and ready_at is not null and lease_owner = p_owner;
  return jsonb_build_object('released', v_released, 'busy', v_busy);
end $$;
comment on function public.gre_relay_release_v1 is
  'Gives back all lanes of a worker that ends, unsent: {"released": number, "busy": number}.';

-- Statistics and version ----------------------------------------------------------------------------------

-- Return an array with the statistics of each sink.
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

create function public.gre_relay_stats_v1() returns jsonb
language sql stable security definer set search_path = '' as $$
  select gre.require_worker();
  select gre.relay_stats()
$$;
comment on function public.gre_relay_stats_v1 is
  'Returns statistics per sink: [{"sink", "enabled", "pending", "oldest_age" (seconds), "dead", "lanes_waiting", '
  '"lanes_leased", "lanes_blocked"}].';

-- Stable: an immutable function would be folded into cached plans, which bypasses the check of the privilege.
create function public.gre_schema_version() returns integer
language sql stable parallel safe set search_path = '' as $$ select 3 $$;
comment on function public.gre_schema_version is 'Version of the contract between the database and the workers.';

revoke execute on all functions in schema gre from public;
grant execute on function gre.message_json, gre.sessions_json, gre.session_json to authenticated, service_role;
revoke execute on function public.gre_relay_listen_v1, public.gre_relay_unlisten_v1, public.gre_relay_claim_v1,
  public.gre_relay_settle_v1, public.gre_relay_exchange_v1, public.gre_relay_extend_v1, public.gre_relay_release_v1,
  public.gre_relay_stats_v1, public.gre_schema_version from public, anon, authenticated, service_role;
grant execute on function public.gre_relay_listen_v1, public.gre_relay_unlisten_v1, public.gre_relay_claim_v1,
  public.gre_relay_settle_v1, public.gre_relay_exchange_v1, public.gre_relay_extend_v1, public.gre_relay_release_v1,
  public.gre_relay_stats_v1, public.gre_schema_version to service_role;
