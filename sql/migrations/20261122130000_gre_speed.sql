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
  v_lanes json;
  v_full boolean;
  v_resting integer := 0;
  v_next timestamptz;
begin
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
    select json_agg(json_build_object('lane_key', k.lane_key, 'deliveries', p.deliveries) order by k.n) filter (where p.found > 0),
      array_agg(k.lane_key) filter (where p.found = 0)
      into v_lanes, v_empty
    from unnest(v_keys) with ordinality k (lane_key, n)
    cross join lateral (
      select count(*) as found, json_agg(json_build_object(
          'id', d.id, 'ord', d.ord, 'event', d.event, 'attempts', d.attempts, 'data', d.data,
          'age', round(extract(epoch from v_now - d.created_at)::numeric, 4),
          'message', case when m.id is not null then json_build_object(
            'id', m.id, 'session_id', m.session_id, 'seq', m.seq, 'player_id', m.player_id, 'player_name', m.player_name,
            'message', m.message, 'sender', m.sender, 'sender_name', m.sender_name, 'status', m.status,
            -- gre.iso, without the cost of calling it for each row
            'timestamp', to_char(m.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) end,
          'session', case when d.event = 'session' then (
            select gre.session_json(s, 200) from public.gre_chat_sessions s where s.id = (d.data ->> 'session_id')::uuid) end,
          'push', case when d.event = 'push' then (
            select json_build_object('id', n.id, 'audience', n.audience, 'recipients', n.recipients, 'title', n.title,
              'body', n.body, 'data', n.data, 'message_id', n.message_id)
            from public.push_notifications n where n.id::text = d.data ->> 'push_id') end
        ) order by d.ord) as deliveries
      from (
        select * from public.gre_relay_deliveries q
        where q.sink = p_sink and q.lane_key = k.lane_key and q.state = 'pending'
        order by q.ord limit p_per_lane
      ) d
      left join public.gre_chat_messages m on m.id = d.message_id
    ) p;

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
      select coalesce(json_agg(json_build_object('staff_id', s.staff_id, 'online', coalesce(o.status = 'online', false))), '[]')
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
  v_pushes text[];
  v_receipts boolean := false;
  v_written integer;
begin
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
    -- Queued pushes whose rows a portal holds: their lanes are busy.
    select coalesce(array_agg(x ->> 'push_id'), '{}') into v_pushes
    from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x where x ? 'push_id';
    if v_pushes <> '{}' then
      select coalesce(array_agg(f.id), '{}') into v_held from (
        select n.id::text as id from public.push_notifications n where n.id::text = any (v_pushes) for no key update skip locked) f;
      select coalesce(array_agg(n.id::text), '{}') into v_held
      from public.push_notifications n where n.id::text = any (v_pushes) and n.id::text <> all (v_held);
    end if;
    v_receipts := true;
  end if;

  -- Results (by their place in p_results) whose token is still their lane's; and of these the ones to free:
  -- the lane is locked, not to be kept, and nothing of theirs was skipped above.
  with lanes as materialized (
    select lane_key, lease_token from public.gre_relay_lanes where sink = p_sink and lane_key = any (v_names)
  )
  select coalesce(array_agg(n), '{}'),
    coalesce(array_agg(n) filter (where l.lane_key = any (v_locked)
      and not coalesce(r -> 'done' ?| v_skipped, false) and not coalesce(r -> 'expired' ?| v_skipped, false)
      and not exists (select from jsonb_array_elements(r -> 'receipts') x where x ->> 'push_id' = any (v_held))), '{}')
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

  if v_receipts then
    perform gre.write_receipts(p_results, v_held);
  end if;

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
