-- Claim and settle again, at the same contract, with plans that do not depend on statistics.
--
-- Until the next analyze after a burst PostgreSQL believes the outbox to be empty, and read all that waits once for
-- each lane: with 20,000 deliveries waiting, a claim of 1,000 took 480 ms and its settle 700 ms; now 30 and 30. Hence
-- deliveries are looked up by id and nothing else, no table is read from end to end, and nothing is compiled, which
-- costs more than it saves here. A claim answers json, not jsonb: it is put together as text and sent as text.
--
-- Neither waits for the disk: what a crash of the database takes back is a lease, or the word that something was sent,
-- and so costs at most a repeat. What is to be sent was written by the portal's own transaction, which does wait.
set local lock_timeout = '300ms';

-- Characters of a message that a claim reads: more than any sink takes (Pusher: 10,240 bytes), so that what an old portal
-- wrote without a limit is announced with its text cut, and says so.
create function gre.longest_text() returns integer
language sql immutable parallel safe set search_path = '' as $$ select 10300 $$;

-- Why a queued push cannot be sent as it is, null if it can. The stored sizes come first: a large value is not read to be
-- measured. The text of a jsonb can be much larger than what was given (1e131071 is six digits and becomes 131,072).
create function gre.push_fault(p_title text, p_body text, p_recipients text[], p_data jsonb) returns text
language plpgsql stable set search_path = '' as $$
begin
  if octet_length(p_title) > 4000 or octet_length(p_body) > 16000 then
    return 'its title is larger than 4,000 bytes or its body than 16,000';
  elsif pg_column_size(p_recipients) > 1048576 or octet_length(array_to_string(p_recipients, ',')) > 1048576 then
    return 'its recipients are larger than 1 MB';
  elsif pg_column_size(p_data) > 32768 or octet_length(p_data::text) > 16384 then
    return 'its data is larger than 16 KB';
  end if;
  return null;
end $$;

-- Refuses a queued push that is too large to be sent or addressed to nobody, in the transaction that queues it.
create function gre.push_bounded() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_fault text := gre.push_fault(new.title, new.body, new.recipients, new.data);
begin
  if v_fault is not null then
    perform gre.refuse(400, 'push_too_large', 'the push cannot be queued: ' || v_fault);
  end if;
  -- (A portal of before that addresses pushes by target_player_id may leave that empty: nobody gets it, as before.)
  if tg_op = 'INSERT' and (coalesce(new.audience, '') not in ('staff', 'player')
      or new.audience = 'player' and coalesce(cardinality(new.recipients), 0) = 0) and not to_jsonb(new) ? 'target_player_id' then
    if new.audience = 'player' then
      perform gre.refuse(400, 'recipients_missing', 'the push cannot be queued: a push for players needs recipients,'
        ' a list of OneSignal external ids such as ["player_29"]');
    end if;
    perform gre.refuse(400, 'audience_unknown', 'the push cannot be queued: its audience must be staff or player');
  end if;
  return new;
end $$;
-- (Behind gre_legacy_spellings, by name: that one says what is queued.)
create trigger gre_push_bounded before insert on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.push_bounded();
create trigger gre_push_stays_bounded before update of title, body, recipients, data on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.push_bounded();

-- A queued push as a claim hands it over; one that cannot be sent (it was there before the bounds, say) as its "fault".
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
  v_fault := gre.push_fault(n.title, n.body, n.recipients, n.data);
  if v_fault is not null then
    return json_build_object('id', n.id, 'fault', v_fault);
  end if;
  return json_build_object('id', n.id, 'audience', n.audience, 'recipients', n.recipients, 'title', n.title, 'body', n.body,
    'data', n.data::text);
exception when others then
  return json_build_object('id', p_push, 'fault', 'it cannot be read (' || sqlstate || ')');
end $$;

-- Whether somebody is there: "online", "away" or "offline". A status with expires_at holds until then; one without, which a
-- portal wrote itself, holds while last_seen_at is not older than gre.settings.presence_lasts (nor as far ahead).
create table gre.settings (
  single boolean primary key default true check (single),
  presence_lasts interval not null default '10 minutes' check (presence_lasts > interval '0'),
  player_external_id text not null default 'player_{player_id}' check (char_length(player_external_id) <= 200)
);
alter table gre.settings enable row level security;
comment on table gre.settings is 'One row: what an operator may set in the database.';
comment on column gre.settings.presence_lasts is 'How long a status without expires_at holds after last_seen_at.';
comment on column gre.settings.player_external_id is 'OneSignal''s id of a player, as the relay that started last makes it.';
insert into gre.settings default values;

create function gre.presence(p_status text, p_seen timestamptz, p_expires timestamptz) returns text
language sql stable security definer set search_path = '' as $$
  select case when p_status is null or p_status = 'offline' then 'offline'
    when p_expires is not null then case when p_expires > clock_timestamp() and p_expires < clock_timestamp() + interval '2 days'
      then p_status else 'offline' end
    when p_seen > clock_timestamp() - s.presence_lasts and p_seen < clock_timestamp() + s.presence_lasts then p_status
    else 'offline' end
  from gre.settings s
$$;

-- A portal that writes a status says that somebody is there, with or without a time. (Behind gre_legacy_spellings, by name.)
create function gre.presence_seen() returns trigger
language plpgsql set search_path = '' as $$
begin
  if new.status <> 'offline' and new.last_seen_at is not distinct from old.last_seen_at then
    new.last_seen_at := clock_timestamp();
  end if;
  return new;
end $$;
create trigger gre_online_seen before update of status on public.gre_online_status
  for each row execute function gre.presence_seen();

drop function public.gre_relay_claim(text, uuid, integer, integer, numeric);
create function public.gre_relay_claim(
  p_sink text, p_token uuid, p_lanes integer default 100, p_per_lane integer default 10, p_lease_seconds numeric default 30
) returns json
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lease timestamptz := v_now + least(greatest(p_lease_seconds, 0.1) * interval '1 second', gre.longest_lease());
  v_keys text[];
  v_more text[];
  v_empty text[];
  v_left text[];
  v_lanes json;
  v_full boolean;
  v_resting integer := 0;
  v_next timestamptz;
begin
  perform gre.require_worker();
  if p_lanes < 1 or p_per_lane < 1 then
    perform gre.refuse(400, 'claim_invalid', 'p_lanes and p_per_lane must be at least 1');
  end if;
  perform set_config('synchronous_commit', 'off', true);

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
    -- A later statement than the lock, on purpose: in one, the lock would see the newest lane but the deliveries would be
    -- read from the older snapshot, and what another worker had just settled would be sent again.
    -- What one row holds must not fail the answer that it travels in: text is cut, jsonb travels as text that the worker reads
    -- delivery by delivery, and lanes beyond 8 MB in all go back unread.
    select json_agg(json_build_object('lane_key', f.lane_key, 'deliveries', f.deliveries) order by f.n) filter (where f.found > 0 and f.fits),
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
              'player_name', left(m.player_name, 200), 'message', left(m.message, gre.longest_text()), 'sender', m.sender,
              'sender_name', left(m.sender_name, 200), 'status', m.status,
              -- gre.iso, without the cost of calling it for each row
              'timestamp', to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) end,
            'session', case when d.event = 'session' and d.data ->> 'session_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (
              select gre.session_json(s, 200) from public.gre_chat_sessions s where s.id = (d.data ->> 'session_id')::uuid) end,
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
      update public.gre_relay_lanes l set lease_until = null, lease_token = null
      where l.sink = p_sink and l.lane_key = any (v_left) and l.lease_token = p_token;
      v_full := true;
    end if;
    -- Nothing pending (its messages were deleted, say): the lane goes to rest, or it would be claimed for ever. Whoever
    -- adds to it locks it first, and these locks are ours.
    if v_empty is not null then
      update public.gre_relay_lanes l set ready_at = null, lease_until = null, lease_token = null
      where l.sink = p_sink and l.lane_key = any (v_empty) and l.lease_token = p_token;
      get diagnostics v_resting = row_count;
    end if;
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

  return json_build_object(
    'lanes', coalesce(v_lanes, '[]'),
    'rested', v_resting,
    'next_in', case when v_next is not null then round(greatest(extract(epoch from v_next - v_now), 0)::numeric, 4) end,
    'staff', case when p_sink = 'onesignal' and v_lanes is not null then (
      select coalesce(json_agg(json_build_object('staff_id', s.staff_id, 'online',
        gre.presence(o.status, o.last_seen_at, o.expires_at) = 'online')), '[]')
      from public.gre_staff s left join public.gre_online_status o on o.staff_id = s.staff_id
      where s.active) end);
end $$;

create or replace function public.gre_relay_settle(p_sink text, p_results jsonb) returns jsonb
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
  v_mine bigint[];
  v_free bigint[];
  v_busy text[];
  v_lost text[];
  v_waiting integer;
  v_held text[] := '{}';
  v_written integer;
begin
  perform gre.require_worker();
  if jsonb_typeof(p_results) is distinct from 'array' then
    perform gre.refuse(400, 'settle_invalid', 'p_results must be an array');
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

  -- Locked in one order and never waited for: two settles of the same deliveries (a zombie's and its heir's) pass.
  -- Each id is looked up by itself: `state = 'pending'` beside it would tempt the planner to the index of all that waits.
  with free as materialized (
    select d.id from public.gre_relay_deliveries d
    where d.id = any (v_done || v_expired) and d.sink || '' = p_sink and d.state || '' = 'pending'
    order by d.id
    for no key update of d skip locked
  )
  update public.gre_relay_deliveries d
  set state = case when d.id = any (v_expired) then 'expired' else 'done' end, settled_at = v_now
  from free f where d.id = f.id;

  get diagnostics v_written = row_count;
  if v_written < cardinality(v_done) + cardinality(v_expired) then
    -- What is still pending was skipped: somebody else held it. The rest had been settled before.
    select coalesce(array_agg(d.id::text), '{}') into v_skipped
    from public.gre_relay_deliveries d where d.id = any (v_done || v_expired) and d.state || '' = 'pending';
  end if;

  if jsonb_path_exists(p_results, '$[*].receipts') then
    v_held := gre.write_receipts(p_results);
  end if;

  -- Results (by their place in p_results) whose token is still their lane's; and of these the ones to free:
  -- the lane is locked, not to be kept, and nothing of theirs was skipped above (what somebody else holds makes its lane busy).
  with lanes as materialized (
    select lane_key, lease_token from public.gre_relay_lanes where sink = p_sink and lane_key = any (v_names)
  )
  select coalesce(array_agg(n), '{}'),
    coalesce(array_agg(n) filter (where l.lane_key = any (v_locked)
      and not coalesce(r -> 'done' ?| v_skipped, false) and not coalesce(r -> 'expired' ?| v_skipped, false)
      and not exists (select from jsonb_array_elements(r -> 'receipts') x
                      where coalesce(x ->> 'push_id', x ->> 'delivery_id') = any (v_held))), '{}')
    into v_mine, v_free
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  join lanes l on l.lane_key = r ->> 'lane' and l.lease_token = (r ->> 'token')::uuid
  where not coalesce((r ->> 'keep')::boolean, false);

  select coalesce(array_agg(x.id::uuid), '{}') into v_failed
  from jsonb_array_elements(p_results) with ordinality t (r, n), jsonb_array_elements_text(r -> 'failed' -> 'ids') x (id)
  where n = any (v_free) and r ? 'failed';
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
      from jsonb_array_elements(p_results) with ordinality t (r, n), jsonb_array_elements_text(r -> 'failed' -> 'ids') x (id)
      where n = any (v_free)
    ) f
    where d.id = f.id and d.id = any (v_failed) and d.sink || '' = p_sink and d.lane_key || '' = f.r ->> 'lane';
  end if;

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
    where n = any (v_free) and l.sink = p_sink and l.lane_key = r ->> 'lane' and l.lane_key = any (v_names)
    returning l.ready_at
  )
  select count(*) filter (where ready_at is not null) into v_waiting from freed;

  if cardinality(v_free) = jsonb_array_length(p_results) then
    return jsonb_build_object('busy', '[]'::jsonb, 'lost', '[]'::jsonb, 'waiting', v_waiting);
  end if;
  select coalesce(array_agg(r ->> 'lane') filter (where not n = any (v_free) and (n = any (v_mine) or not r ->> 'lane' = any (v_locked))), '{}'),
    coalesce(array_agg(r ->> 'lane') filter (where not n = any (v_mine) and r ->> 'lane' = any (v_locked)), '{}')
    into v_busy, v_lost
  from jsonb_array_elements(p_results) with ordinality t (r, n)
  where not coalesce((r ->> 'keep')::boolean, false) and not n = any (v_free)
    and exists (select from public.gre_relay_lanes k where k.sink = p_sink and k.lane_key = r ->> 'lane');

  return jsonb_build_object('busy', to_jsonb(v_busy), 'lost', to_jsonb(v_lost), 'waiting', v_waiting);
end $$;
revoke execute on function public.gre_relay_claim(text, uuid, integer, integer, numeric) from public, anon, authenticated, service_role;
grant execute on function public.gre_relay_claim(text, uuid, integer, integer, numeric) to service_role;
revoke execute on all functions in schema gre from public;
grant execute on function gre.presence(text, timestamptz, timestamptz) to authenticated, service_role;
