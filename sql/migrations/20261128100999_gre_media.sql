-- Files, by workers: examinations of what was uploaded, deletions of objects, and the deletion of what was never sent.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_outbox (limits of leases, wake-ups), gre_files and
-- gre_storage.
--
-- A worker claims, works, and settles. A lease that ends is claimed by another. Each file and each object has its own
-- time of the next attempt, so that one that always fails delays no other. A failure of our side is never the file's:
-- it postpones, for ever.
--
-- Settling never waits for a lock: it holds the locks of sessions, and a message holds its session's while it waits
-- for a file's. What another transaction has locked is returned as busy, and the worker settles it again.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- The player whose file was claimed last: players take turns, in the order of their ids. Files that failed have turns
-- of their own, and at most every second claim while others wait (media_turn).
create sequence gre.media_cursor;
create sequence gre.media_retry_cursor;
create sequence gre.media_turn minvalue 0 maxvalue 1 cycle;
revoke all on sequence gre.media_cursor, gre.media_retry_cursor, gre.media_turn
  from public, anon, authenticated, service_role;

-- Return the pause after the n-th failed attempt: 5 seconds, doubled each time, at most gre.max_backoff().
create function gre.retry_pause(p_attempt integer) returns interval
language sql immutable parallel safe set search_path = '' as $$
  select least(interval '5 seconds' * power(2, least(greatest(p_attempt, 1), 12) - 1), gre.max_backoff())
$$;

create function gre.lease_end(p_now timestamptz, p_lease interval) returns timestamptz
language sql immutable parallel safe set search_path = '' as $$
  select p_now + least(greatest(p_lease, interval '1 second'), gre.max_lease())
$$;

-- Return true if the time has come. A time further ahead than the longest pause or lease is of a clock that was set
-- back.
create function gre.is_due(p_now timestamptz, p_due_at timestamptz, p_lease_until timestamptz) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select (p_due_at <= p_now or p_due_at > p_now + gre.max_backoff())
    and (p_lease_until is null or p_lease_until <= p_now or p_lease_until > p_now + gre.max_lease())
$$;

-- Return the seconds until gre.is_due() is true.
create function gre.due_in(p_now timestamptz, p_due_at timestamptz, p_lease_until timestamptz) returns numeric
language sql immutable parallel safe set search_path = '' as $$
  select case when gre.is_due(p_now, p_due_at, p_lease_until) then 0
    else round(greatest(extract(epoch from greatest(p_due_at, p_lease_until) - p_now), 0.001), 3) end
$$;

-- Examinations --------------------------------------------------------------------------------------------

-- Return files to claim next, of those that failed before or of those that did not. From player to player, from the
-- one after p_cursor on and around, until there are enough. Files that are being examined count as taken turns, and a
-- second file of a player comes after the first of all others.
create function gre.media_due(p_failed boolean, p_cursor bigint, p_now timestamptz, p_limit integer) returns uuid[]
language plpgsql volatile set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_player bigint := p_cursor;
  v_around boolean := false;
  v_busy integer;
  v_due uuid[];
  v_ids uuid[] := '{}';
  v_turns integer[] := '{}';
  v_first integer := 0;
  v_seen integer := 0;
begin
  loop
    select j.player_id into v_player from gre.media_jobs j
    where (j.attempt > 0) = p_failed and j.player_id > v_player order by j.player_id limit 1;
    if not found then
      exit when v_around;
      v_around := true;
      v_player := 0;
      continue;
    end if;
    exit when v_around and v_player > p_cursor;
    select count(*) into v_busy from gre.media_jobs j
    where j.player_id = v_player and j.claimed_by is not null and not gre.is_due(p_now, '-infinity', j.lease_until);
    v_due := array(
      select j.attachment_id from gre.media_jobs j
      where (j.attempt > 0) = p_failed and j.player_id = v_player and gre.is_due(p_now, j.due_at, j.lease_until)
      order by j.due_at, j.attachment_id limit p_limit);
    v_ids := v_ids || v_due;
    v_turns := v_turns || array(select v_busy + n from generate_series(1, cardinality(v_due)) n);
    v_first := v_first + (v_busy = 0 and v_due <> '{}')::integer;
    v_seen := v_seen + 1;
    exit when v_first >= p_limit or v_seen >= 200 and v_ids <> '{}';
  end loop;
  return array(
    select x.id from unnest(v_ids, v_turns) with ordinality x (id, turn, n) order by x.turn, x.n limit p_limit);
end $$;

create function public.gre_media_claim_v1(
  p_worker uuid, p_limit integer default 10, p_lease interval default '2 minutes'
) returns jsonb
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_limit constant integer := least(greatest(coalesce(p_limit, 10), 1), 100);
  v_end constant timestamptz := gre.lease_end(v_now, p_lease);
  v_fresh uuid[];
  v_failed uuid[] := '{}';
  v_turn integer := 0;
  v_ids uuid[];
  v_taken uuid[];
  v_player bigint;
  v_retried bigint;
  v_files jsonb;
begin
  perform gre.require_worker();
  if p_worker is null then
    perform gre.raise_http(400, 'claim_invalid', 'p_worker is required');
  end if;
  v_fresh := gre.media_due(false, (select c.last_value from gre.media_cursor c), v_now, v_limit);
  -- Two ranges of the index; the second is of a clock that was set back. What is leased is due after its lease.
  if exists (select from gre.media_jobs j where j.attempt > 0 and j.due_at <= v_now)
    or exists (select from gre.media_jobs j where j.attempt > 0 and j.due_at > v_now + gre.max_backoff()) then
    v_failed := gre.media_due(true, (select c.last_value from gre.media_retry_cursor c), v_now, v_limit);
  end if;
  if v_fresh <> '{}' and v_failed <> '{}' then
    v_turn := nextval('gre.media_turn');
  end if;
  v_ids := array(
    select x.id from (
      select f.id, f.n, v_turn as side from unnest(v_fresh) with ordinality f (id, n)
      union all
      select f.id, f.n, 1 - v_turn from unnest(v_failed) with ordinality f (id, n)) x
    order by x.n, x.side limit v_limit);

  with locked as materialized (
    select j.attachment_id from gre.media_jobs j
    where j.attachment_id = any (v_ids) and gre.is_due(v_now, j.due_at, j.lease_until)
    for update skip locked
  ), leased as (
    -- A lease that ended was not settled: its worker was killed. So that a file that kills its workers is not the next
    -- one of each, an attempt counts at once, and there is a pause after a lease as after a failure.
    update gre.media_jobs j set claimed_by = p_worker, lease_until = v_end, attempt = j.attempt + 1,
      due_at = v_end + gre.retry_pause(j.attempt + 1),
      own_failures = j.own_failures + case when j.claimed_by is null then 0 else 1 end
    from locked where j.attachment_id = locked.attachment_id
    returning j.attachment_id, j.player_id, j.attempt > 1 as failed
  )
  select array_agg(l.attachment_id order by array_position(v_ids, l.attachment_id)),
    (array_agg(l.player_id order by array_position(v_ids, l.attachment_id) desc) filter (where not l.failed))[1],
    (array_agg(l.player_id order by array_position(v_ids, l.attachment_id) desc) filter (where l.failed))[1]
    into v_taken, v_player, v_retried from leased l;
  if v_player is not null then
    perform setval('gre.media_cursor', v_player);
  end if;
  if v_retried is not null then
    perform setval('gre.media_retry_cursor', v_retried);
  end if;

  select jsonb_agg(jsonb_build_object('id', a.id, 'player_id', a.player_id,
      'object', gre.object_name(a.player_id, a.id, 'original'), 'object_id', a.object_id, 'version', a.object_version,
      'type', a.object_type, 'name', a.name, 'bytes', a.bytes, 'attempt', j.attempt - 1,
      'own_failures', j.own_failures, 'crashes', j.crashes) order by array_position(v_ids, a.id)) into v_files
  from public.gre_chat_attachments a join gre.media_jobs j on j.attachment_id = a.id
  where a.id = any (v_taken) and a.state || '' = 'stored'; -- by the key, not by the index of states
  -- Jobs of files that are gone, or examined.
  delete from gre.media_jobs j where j.attachment_id = any (v_taken) and not exists (
    select from public.gre_chat_attachments a where a.id = j.attachment_id and a.state || '' = 'stored');
  return jsonb_build_object('files', coalesce(v_files, '[]'), 'next_in', case
    when cardinality(v_ids) >= v_limit then 0
    else (select min(gre.due_in(v_now, j.due_at, j.lease_until)) from gre.media_jobs j) end);
end $$;
comment on function public.gre_media_claim_v1 is
  'Leases stored files for examination, fairly between players, and files that failed before after one that did not: '
  '{"files": [{"id", "player_id", "object" (name of the '
  'original), "object_id", "version", "type" (as it was uploaded), "name", "bytes", "attempt" (those '
  'before this one), "own_failures", '
  '"crashes"}], "next_in": seconds | null if none waits}. p_worker: an id that the worker chooses, one for each '
  'claim or '
  'for all. p_lease: at most 5 minutes. For workers.';

create function public.gre_media_extend_v1(
  p_worker uuid, p_ids uuid[], p_lease interval default '2 minutes'
) returns jsonb
language plpgsql volatile security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_end constant timestamptz := case when p_lease > interval '0' then gre.lease_end(v_now, p_lease) end;
  v_held uuid[];
begin
  perform gre.require_worker();
  with held as (
    update gre.media_jobs j set
      claimed_by = case when v_end is not null then p_worker end,
      lease_until = v_end,
      attempt = case when v_end is not null then j.attempt else greatest(j.attempt - 1, 0) end,
      due_at = coalesce(v_end + gre.retry_pause(j.attempt), v_now)
    from (select q.attachment_id from gre.media_jobs q
          where q.attachment_id = any (p_ids) and q.claimed_by = p_worker for update skip locked) x
    where j.attachment_id = x.attachment_id returning j.attachment_id
  )
  select array_agg(attachment_id) into v_held from held;
  return jsonb_build_object('held', to_jsonb(coalesce(v_held, '{}')));
end $$;
comment on function public.gre_media_extend_v1 is
  'Extends the leases of files that the worker still holds: {"held": [ids]}. p_lease 0 gives them back: they are due, '
  'and the attempt does not count. For workers.';

-- Apply the result of one examination, whose job, file and session the caller has locked. A result that cannot be
-- stored raises an error.
create function gre.settle_file(p_job gre.media_jobs, p_file public.gre_chat_attachments, p_result jsonb) returns void
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_result text := p_result ->> 'result';
  v_code text := left(p_result ->> 'code', 60);
  v_own boolean := true;
  v_others_pass boolean;
  v_rev bigint;
begin
  if v_result = 'crashed' then
    -- The file's fault only if it crashes again and again while other pictures pass: the decoder reads no other files.
    v_others_pass := exists (
      select from public.gre_chat_attachments a where a.ready_at > p_job.crashed_at and a.kind = 'image');
    if p_job.crashes + 1 >= 3 and v_others_pass then
      v_result := 'refused';
      v_code := 'undecodable';
    else
      v_own := p_job.crashes > 0 and not v_others_pass;
    end if;
  elsif v_result = 'gone' and to_regclass('storage.objects') is not null then
    -- While its row is there, the object may be found again: a backup that is not complete yet, a replica.
    if exists (select from storage.objects o where o.bucket_id = 'gre-chat'
               and o.name = gre.object_name(p_file.player_id, p_file.id, 'original')) then
      v_result := 'failed';
      v_code := 'object_missing';
    end if;
  end if;
  if v_result in ('ready', 'refused', 'gone') then
    if p_file.session_id is not null then
      -- The hub reads sessions whose rev has grown.
      update public.gre_chat_sessions set rev = rev + 1 where id = p_file.session_id returning rev into v_rev;
    end if;
    update public.gre_chat_attachments a set state = v_result,
      kind = coalesce(p_result ->> 'kind', a.kind), type = coalesce(left(p_result ->> 'type', 255), a.type),
      width = (p_result ->> 'width')::integer, height = (p_result ->> 'height')::integer,
      preview = p_result ->> 'preview',
      refused = case v_result when 'refused' then coalesce(v_code, 'refused') end,
      ready_at = case v_result when 'ready' then v_now end, rev = v_rev,
      changed_at = case when v_rev is not null then v_now end
    where a.id = p_file.id;
    delete from gre.media_jobs where attachment_id = p_file.id;
  else
    update gre.media_jobs j set claimed_by = null, lease_until = null,
      -- What this worker has no library for, another one may have.
      due_at = v_now + least(gre.retry_pause(j.attempt),
                             case when v_code like '%\_not\_installed' then interval '2 minutes' end),
      last_error = coalesce(v_code, v_result, 'result_invalid'),
      own_failures = j.own_failures + v_own::integer,
      crashes = j.crashes + (coalesce(v_result, '') = 'crashed')::integer,
      crashed_at = case when v_result = 'crashed' then coalesce(j.crashed_at, v_now) else j.crashed_at end
    where j.attachment_id = p_file.id;
  end if;
end $$;

create function public.gre_media_settle_v1(p_worker uuid, p_results jsonb) returns jsonb
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_sessions uuid[];
  v_told uuid[] := '{}';
  v_busy uuid[] := '{}';
  v_lost uuid[] := '{}';
  v_settled integer := 0;
  v_job gre.media_jobs;
  v_file public.gre_chat_attachments;
  v record;
begin
  perform gre.require_worker();
  if jsonb_typeof(p_results) is distinct from 'array' or jsonb_array_length(p_results) > 100 then
    perform gre.raise_http(400, 'settle_invalid', 'p_results must be an array of at most 100 results');
  end if;
  v_sessions := array(
    select x.id from (
      select s.id from public.gre_chat_sessions s
      where s.id in (
        select a.session_id from jsonb_array_elements(p_results) r
        join public.gre_chat_attachments a on a.id = (r ->> 'id')::uuid)
      order by s.id for no key update skip locked) x);
  for v in
    select (r ->> 'id')::uuid as id, r as result from jsonb_array_elements(p_results) r order by 1
  loop
    -- Again, under its lock: another result can have taken it. A settle that is repeated finds no job.
    select * into v_file from public.gre_chat_attachments a where a.id = v.id for update skip locked;
    if not found then
      if exists (select from public.gre_chat_attachments a where a.id = v.id) then
        v_busy := v_busy || v.id;
      else
        v_lost := v_lost || v.id;
      end if;
      continue;
    end if;
    select * into v_job from gre.media_jobs j
    where j.attachment_id = v.id and j.claimed_by = p_worker for update skip locked;
    if not found then
      if exists (select from gre.media_jobs j where j.attachment_id = v.id and j.claimed_by = p_worker) then
        v_busy := v_busy || v.id;
      else
        v_lost := v_lost || v.id;
      end if;
      continue;
    elsif v_file.session_id is not null and not v_file.session_id = any (v_sessions) then
      v_busy := v_busy || v.id; -- its session is locked, or it was sent meanwhile
      continue;
    end if;
    -- A result that cannot be stored must not fail the others.
    begin
      perform gre.settle_file(v_job, v_file, v.result);
    exception when data_exception or integrity_constraint_violation then
      perform gre.settle_file(v_job, v_file, '{"result": "failed", "code": "result_invalid"}');
    end;
    v_settled := v_settled + 1;
    if v_file.session_id is not null then
      v_told := v_told || v_file.session_id;
    end if;
  end loop;
  if v_told <> '{}' then
    perform gre.notify_workers(v_told);
  end if;
  return jsonb_build_object('settled', v_settled, 'busy', to_jsonb(v_busy), 'lost', to_jsonb(v_lost));
end $$;
comment on function public.gre_media_settle_v1 is
  'Stores the results of examinations: [{"id", "result", ...}] with "result" ready ("kind", "type", "width", "height", '
  '"preview"), refused ("code", the file''s own fault), gone (its object is not there: '
  'counts as failed while storage.objects has its row), failed ("code", a failure of '
  'our side: it is tried again for ever) or crashed (the decoder crashed: refused as undecodable after three times '
  'while other pictures pass). Returns {"settled": number, "busy": [ids, to be settled again after some '
  'milliseconds], "lost": '
  '[ids that another worker has, that are settled already or deleted]}. Nothing is deleted. For workers.';

create function public.gre_media_again(
  p_code text default null, p_ids uuid[] default null, p_after timestamptz default null, p_limit integer default 100
) returns jsonb
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set lock_timeout = '2s'
as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 100), 1), 1000);
  v_ids uuid[];
  v_next timestamptz;
  v_told uuid[] := '{}';
  v_count integer := 0;
  v_rev bigint;
  v record;
begin
  if (gre.require_actor()).role <> 'service' then
    perform gre.raise_http(403, 'service_only', 'only the back end may do this');
  end if;
  if p_ids is null then
    select array_agg(x.id), max(x.created_at) into v_ids, v_next from (
      select a.id, a.created_at from public.gre_chat_attachments a
      where a.state = 'refused' and a.state <> 'ready' and (p_code is null or a.refused = p_code)
        and a.created_at > coalesce(p_after, '-infinity')
      order by a.created_at fetch first v_limit rows with ties) x;
  else
    select array_agg(x.id), max(x.created_at) into v_ids, v_next from (
      select a.id, a.created_at from public.gre_chat_attachments a
      where a.id = any (p_ids) and a.state || '' = 'refused' and (p_code is null or a.refused = p_code)
        and a.created_at > coalesce(p_after, '-infinity')
      order by a.created_at fetch first v_limit rows with ties) x;
  end if;
  -- In the common lock order: sessions, files.
  perform from public.gre_chat_sessions s
  where s.id in (select a.session_id from public.gre_chat_attachments a where a.id = any (v_ids))
  order by s.id for no key update;
  for v in
    select a.id, a.player_id, a.session_id from public.gre_chat_attachments a
    where a.id = any (v_ids) and a.state || '' = 'refused' order by a.id for update
  loop
    v_rev := null;
    if v.session_id is not null then
      update public.gre_chat_sessions set rev = rev + 1 where id = v.session_id returning rev into v_rev;
      v_told := v_told || v.session_id;
    end if;
    update public.gre_chat_attachments a set state = 'stored', refused = null, rev = v_rev,
      changed_at = case when v_rev is not null then clock_timestamp() end
    where a.id = v.id;
    insert into gre.media_jobs (attachment_id, player_id) values (v.id, v.player_id)
    on conflict (attachment_id) do nothing;
    v_count := v_count + 1;
  end loop;
  if v_told <> '{}' then
    perform gre.notify_workers(v_told);
  end if;
  if v_count > 0 then
    perform gre.notify_media();
  end if;
  return jsonb_build_object('files', v_count, 'next', case when cardinality(v_ids) >= v_limit then v_next end);
end $$;
comment on function public.gre_media_again is
  'Has refused files examined again, after what refused them was corrected: all, those with this code, or those of '
  'p_ids, the oldest first: {"files": number, "next"}. p_after: "next" of the answer before; null at the end. Nothing '
  'of a refused file was deleted. For operators, with the service key.';

-- Deletions -----------------------------------------------------------------------------------------------

create function public.gre_storage_deletions_claim_v1(
  p_worker uuid, p_limit integer default 100, p_lease interval default '1 minute'
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_limit constant integer := least(greatest(coalesce(p_limit, 100), 1), 1000);
  v_due text[];
  v_names jsonb;
begin
  perform gre.require_worker();
  if p_worker is null then
    perform gre.raise_http(400, 'claim_invalid', 'p_worker is required');
  end if;
  -- Two ranges of the index; the second is of a clock that was set back.
  v_due := array(
    select d.name from public.gre_storage_deletions d
    where d.due_at <= v_now and gre.is_due(v_now, d.due_at, d.lease_until) order by d.due_at limit v_limit);
  v_due := v_due || array(
    select d.name from public.gre_storage_deletions d
    where d.due_at > v_now + gre.max_backoff() and gre.is_due(v_now, d.due_at, d.lease_until)
    order by d.due_at limit v_limit - cardinality(v_due));
  with due as (
    select d.name from public.gre_storage_deletions d
    where d.name = any (v_due) and gre.is_due(v_now, d.due_at, d.lease_until) for update skip locked
  ), leased as (
    update public.gre_storage_deletions d set claimed_by = p_worker, lease_until = gre.lease_end(v_now, p_lease)
    from due where d.name = due.name returning d.name
  )
  select jsonb_agg(name order by name) into v_names from leased;
  return jsonb_build_object('names', coalesce(v_names, '[]'), 'next_in', case
    when cardinality(v_due) >= v_limit then 0
    else (select min(gre.due_in(v_now, d.due_at, d.lease_until)) from (
      select q.due_at, q.lease_until from public.gre_storage_deletions q order by q.due_at limit 1000) d) end);
end $$;
comment on function public.gre_storage_deletions_claim_v1 is
  'Leases names of objects to delete over the Storage API: {"names": [text], "next_in": seconds | null if none '
  'waits}. For '
  'workers.';

create function public.gre_storage_deletions_settle_v1(p_worker uuid, p_results jsonb) returns jsonb
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_done text[];
  v_left text[] := '{}';
  v_ids uuid[];
  v_count integer;
begin
  perform gre.require_worker();
  if jsonb_typeof(p_results) is distinct from 'array' or jsonb_array_length(p_results) > 1000 then
    perform gre.raise_http(400, 'settle_invalid', 'p_results must be an array of at most 1000 results');
  end if;
  v_done := array(select r ->> 'name' from jsonb_array_elements(p_results) r where r ->> 'result' = 'done');
  -- The API answers 200 also for what it did not delete.
  if gre.storage_on() then
    v_left := array(select o.name from storage.objects o where o.bucket_id = 'gre-chat' and o.name = any (v_done));
  end if;
  with gone as (
    delete from public.gre_storage_deletions d where d.name = any (v_done) and d.name <> all (v_left)
    returning d.attachment_id
  )
  select array_agg(distinct attachment_id order by attachment_id), count(*) into v_ids, v_count from gone;
  -- Its id stays taken for a day more.
  update gre.attachment_tombstones t set at = v_now
  from (select q.id from gre.attachment_tombstones q where q.id = any (v_ids) order by q.id for update) x
  where t.id = x.id;
  update public.gre_storage_deletions d set claimed_by = null, lease_until = null, attempt = d.attempt + 1,
    due_at = v_now + gre.retry_pause(d.attempt + 1),
    last_error = case when d.name = any (v_left) then 'still_there' else x.code end
  from (select r ->> 'name' as name, left(r ->> 'code', 60) as code, r ->> 'result' as result
        from jsonb_array_elements(p_results) r) x
  where d.name = x.name and d.claimed_by = p_worker and (x.result is distinct from 'done' or d.name = any (v_left));
  return jsonb_build_object('done', v_count);
end $$;
comment on function public.gre_storage_deletions_settle_v1 is
  'Stores the results of deletions: [{"name", "result": done | failed, "code"?}]. What failed, or is still there, is '
  'tried '
  'again after a pause of its own. Returns {"done": number}. For workers.';

-- Sweep and state -----------------------------------------------------------------------------------------

create function public.gre_media_sweep_v1(p_limit integer default 200) returns jsonb
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
  v_before constant timestamptz := clock_timestamp() - interval '1 day';
  v_limit constant integer := least(greatest(coalesce(p_limit, 200), 1), 1000);
  v_ids uuid[];
  v_tombstones integer;
begin
  perform gre.require_worker();
  v_ids := array(
    select x.id from (
      select a.id from public.gre_chat_attachments a
      where a.message_id is null and a.created_at < v_before
      order by a.created_at limit v_limit for update skip locked) x);
  perform gre.delete_attachments(v_ids);
  delete from gre.attachment_tombstones t where t.id = any (array(
    select q.id from gre.attachment_tombstones q
    where q.at < v_before
      and not exists (select from public.gre_storage_deletions d where d.attachment_id = q.id)
    order by q.at limit v_limit for update skip locked));
  get diagnostics v_tombstones = row_count;
  delete from gre.attachment_quotas q where q.ctid = any (array(
    select o.ctid from gre.attachment_quotas o where o.day < (v_before at time zone 'UTC')::date
    order by o.day limit v_limit for update skip locked));
  return jsonb_build_object('attachments', cardinality(v_ids), 'tombstones', v_tombstones,
                            'more', cardinality(v_ids) >= v_limit or v_tombstones >= v_limit);
end $$;
comment on function public.gre_media_sweep_v1 is
  'Deletes files that were announced more than a day ago and not sent, and frees ids whose objects were deleted more '
  'than '
  'a day ago; at most p_limit of each: {"attachments", "tombstones": numbers, "more": boolean}. For workers.';

create function public.gre_storage_state_v1() returns jsonb
language plpgsql stable security definer
set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  perform gre.require_worker();
  return jsonb_build_object('on', gre.storage_on(),
    'files', (select coalesce(jsonb_object_agg(x.state, x.n), '{}') from (
      select a.state, count(*) as n from public.gre_chat_attachments a where a.state <> 'ready' group by a.state) x),
    'examinations', (
      select jsonb_build_object('waiting', count(*), 'failing', count(*) filter (where j.own_failures > 0),
        'own_failures', coalesce(max(j.own_failures), 0),
        'oldest', coalesce(round(extract(epoch from v_now - min(a.stored_at)), 1), 0),
        'error', (array_agg(j.last_error order by j.own_failures desc) filter (where j.own_failures > 0))[1])
      from gre.media_jobs j join public.gre_chat_attachments a on a.id = j.attachment_id),
    'deletions', (
      select jsonb_build_object('waiting', count(*), 'failing', count(*) filter (where d.attempt > 0),
        'attempts', coalesce(max(d.attempt), 0),
        'oldest', coalesce(round(extract(epoch from v_now - min(d.requested_at)), 1), 0),
        'error', (array_agg(d.last_error order by d.attempt desc) filter (where d.attempt > 0))[1])
      from public.gre_storage_deletions d));
end $$;
comment on function public.gre_storage_state_v1 is
  'Returns the state of files: {"on": boolean, "files": {state other than ready: number}, "examinations": {"waiting", '
  '"failing" (by our side), "own_failures": the most of one file, "oldest": seconds since its upload, "error"}, '
  '"deletions": {"waiting", "failing", "attempts", "oldest", "error"}}. For workers, doctor and metrics.';

revoke execute on function gre.retry_pause, gre.lease_end, gre.is_due, gre.due_in, gre.media_due,
  gre.settle_file from public;
revoke execute on function public.gre_media_claim_v1, public.gre_media_extend_v1, public.gre_media_settle_v1,
  public.gre_storage_deletions_claim_v1, public.gre_storage_deletions_settle_v1, public.gre_media_sweep_v1,
  public.gre_storage_state_v1, public.gre_media_again from public, anon, authenticated, service_role;
grant execute on function public.gre_media_claim_v1, public.gre_media_extend_v1, public.gre_media_settle_v1,
  public.gre_storage_deletions_claim_v1, public.gre_storage_deletions_settle_v1, public.gre_media_sweep_v1,
  public.gre_storage_state_v1, public.gre_media_again to service_role;
