-- Assignment: who has which session, by whom and how; load; staff with their limits; automatic assignment by a worker.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages, gre_outbox, gre_hours, gre_settings and gre_notes.
--
-- Locks are taken in this order: the row of gre_chat_settings, the session, rows of gre_staff_load in the order of
-- staff_id, lanes, deliveries. A transaction that holds rows of gre_staff_load locks a further session only if it need
-- not wait for it. Statements that close or assign many sessions at once can deadlock each other, like plain inserts of
-- messages into many sessions.
-- Automatic assignment is never part of a player's insert: a message does not wait for it.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Tables --------------------------------------------------------------------------------------------------

alter table public.gre_staff add column takes_sessions boolean not null default true;
alter table public.gre_staff add column max_sessions smallint
  constraint gre_staff_max_sessions_check check (max_sessions between 0 and 1000);
comment on column public.gre_staff.takes_sessions is 'False: automatic assignment gives this person no session.';
comment on column public.gre_staff.max_sessions is
  'Open sessions at which automatic assignment stops; null: gre_chat_settings.max_sessions.';

create table public.gre_staff_load (
  staff_id text primary key,
  open_sessions integer not null default 0 constraint gre_staff_load_open_check check (open_sessions >= 0),
  last_assigned_at timestamptz
) with (fillfactor = 50);
comment on table public.gre_staff_load is 'Load of each staff member. Written by triggers only.';
comment on column public.gre_staff_load.staff_id is 'The staff member.';
comment on column public.gre_staff_load.open_sessions is 'Number of open sessions assigned to this person.';
comment on column public.gre_staff_load.last_assigned_at is 'Time of the last assignment.';

create table public.gre_chat_assignments (
  session_id uuid not null,
  n integer not null,
  staff_id text not null,
  how text not null constraint gre_chat_assignments_how_check
    check (how in ('auto', 'returning', 'taken', 'given', 'transferred', 'adopted')),
  by_staff_id text,
  after_seq bigint not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  end_how text constraint gre_chat_assignments_end_how_check
    check (end_how in ('released', 'transferred', 'offline', 'closed', 'deleted')),
  open_seconds integer,
  primary key (session_id, n),
  constraint gre_chat_assignments_end_check check ((ended_at is null) = (end_how is null))
);
create unique index gre_chat_assignments_open on public.gre_chat_assignments (session_id) where ended_at is null;
create index gre_chat_assignments_staff on public.gre_chat_assignments (staff_id, started_at);
-- The queue of automatic assignment, and the waiting sessions of each staff member. Two indexes, since one on
-- (assigned_staff_id, waiting_since, id) gives no order for the condition "is null". A session is in one of them.
create index gre_chat_sessions_unassigned_waiting on public.gre_chat_sessions (waiting_since, id)
  where status <> 'closed' and waiting_since is not null and assigned_staff_id is null;
create index gre_chat_sessions_assigned_waiting on public.gre_chat_sessions (assigned_staff_id)
  where status <> 'closed' and waiting_since is not null and assigned_staff_id is not null;
comment on table public.gre_chat_assignments is
  'Who had a session, from when to when. At most one row of a session has no end; it is the open session''s '
  'assigned_staff_id. Written by triggers only.';
comment on column public.gre_chat_assignments.session_id is
  'The session; another, random id after its deletion. No foreign key: assignments are kept for reports.';
comment on column public.gre_chat_assignments.n is '1, 2, 3 ... in the session.';
comment on column public.gre_chat_assignments.staff_id is 'The staff member.';
comment on column public.gre_chat_assignments.how is
  'auto and returning: by a worker; taken: by the person; given: by somebody else; transferred: from somebody else; '
  'adopted: older than gre-bridge.';
comment on column public.gre_chat_assignments.by_staff_id is
  'The staff member who assigned it; null for a worker or a back end.';
comment on column public.gre_chat_assignments.after_seq is 'seq of the last message before the assignment.';
comment on column public.gre_chat_assignments.started_at is 'Time of the assignment.';
comment on column public.gre_chat_assignments.ended_at is 'Time of its end; null while it lasts.';
comment on column public.gre_chat_assignments.end_how is
  'released: back to the queue; transferred: to somebody else; offline: back to the queue, since the person was '
  'offline; closed and deleted: with the session.';
comment on column public.gre_chat_assignments.open_seconds is
  'Seconds from started_at to ended_at in opening hours as they were at ended_at, rounded down; null while it lasts.';

alter table public.gre_staff_load enable row level security;
alter table public.gre_chat_assignments enable row level security;
revoke all on public.gre_staff_load, public.gre_chat_assignments from public, anon, authenticated, service_role;

-- Triggers ------------------------------------------------------------------------------------------------

create function gre.staff_load_added() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.gre_staff_load (staff_id) values (new.staff_id) on conflict (staff_id) do nothing;
  return null;
end $$;
create trigger gre_load after insert or update of staff_id on public.gre_staff
  for each row execute function gre.staff_load_added();
create trigger gre_staff_takes after update of takes_sessions, max_sessions on public.gre_staff
  for each statement execute function gre.people_after_change();

-- Change the load of a staff member; locks the row.
create function gre.change_load(p_staff text, p_change integer, p_at timestamptz) returns void
language plpgsql volatile set search_path = '' as $$
begin
  insert into public.gre_staff_load as l (staff_id, open_sessions, last_assigned_at)
  values (p_staff, greatest(p_change, 0), case when p_change > 0 then p_at end)
  on conflict (staff_id) do update set open_sessions = greatest(l.open_sessions + p_change, 0),
    last_assigned_at = case when p_change > 0 then p_at else l.last_assigned_at end;
end $$;

-- Keep gre_chat_assignments and gre_staff_load equal to the session's row, whatever changed it. gre-bridge's own
-- functions set gre.assign_how and gre.release_how for the statement.
create function gre.sessions_assignment() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_old text := case when tg_op <> 'INSERT' and old.status <> 'closed' then old.assigned_staff_id end;
  v_new text := case when tg_op <> 'DELETE' and new.status <> 'closed' then new.assigned_staff_id end;
  v_now constant timestamptz := clock_timestamp();
  v_by text;
begin
  if v_new is not distinct from v_old then
    return null;
  end if;
  -- In the order of staff_id, so that transfers that cross cannot deadlock.
  if v_old is not null and (v_new is null or v_old < v_new) then
    perform gre.change_load(v_old, -1, v_now);
  end if;
  if v_new is not null then
    perform gre.change_load(v_new, 1, v_now);
  end if;
  if v_old > v_new then
    perform gre.change_load(v_old, -1, v_now);
  end if;
  v_by := (gre.current_actor()).staff_id;
  update public.gre_chat_assignments a set ended_at = v_now, open_seconds = gre.desk_seconds(a.started_at, v_now),
    end_how = case when tg_op = 'DELETE' then 'deleted' when new.status = 'closed' then 'closed'
      when v_new is not null then 'transferred'
      else coalesce(nullif(current_setting('gre.release_how', true), ''), 'released') end
  where a.session_id = coalesce(new.id, old.id) and a.ended_at is null;
  if v_new is not null then
    insert into public.gre_chat_assignments (session_id, n, staff_id, how, by_staff_id, after_seq, started_at)
    select new.id, coalesce(max(a.n), 0) + 1, v_new,
      coalesce(nullif(current_setting('gre.assign_how', true), ''), case
        when v_by = v_new then 'taken' when v_old is not null then 'transferred' else 'given' end),
      -- A message of this transaction may not be counted in last_seq yet.
      v_by, (select greatest(new.last_seq, max(m.seq)) from public.gre_chat_messages m where m.session_id = new.id),
      v_now
    from public.gre_chat_assignments a where a.session_id = new.id;
  end if;
  return null;
end $$;

create function gre.sessions_truncated() returns trigger
language plpgsql set search_path = '' as $$
begin
  update public.gre_staff_load set open_sessions = 0 where open_sessions <> 0;
  update public.gre_chat_assignments a set ended_at = clock_timestamp(), end_how = 'deleted',
    open_seconds = gre.desk_seconds(a.started_at, clock_timestamp())
  where a.ended_at is null;
  return null;
end $$;

-- The conditions keep these functions out of a message's insert.
select gre.lock_tables();
create trigger gre_6_assignment after insert on public.gre_chat_sessions
  for each row when (new.assigned_staff_id is not null) execute function gre.sessions_assignment();
create trigger gre_6_assignment_update after update on public.gre_chat_sessions
  for each row when (new.assigned_staff_id is distinct from old.assigned_staff_id
                     or (new.status = 'closed') is distinct from (old.status = 'closed'))
  execute function gre.sessions_assignment();
create trigger gre_6_assignment_delete after delete on public.gre_chat_sessions
  for each row when (old.assigned_staff_id is not null) execute function gre.sessions_assignment();
create trigger gre_6_assignment_truncate after truncate on public.gre_chat_sessions
  for each statement execute function gre.sessions_truncated();

-- Sessions and staff that are older than this schema.
insert into public.gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at)
select s.id, 1, s.assigned_staff_id, 'adopted', s.last_seq, s.updated_at
from public.gre_chat_sessions s where s.status <> 'closed' and s.assigned_staff_id is not null;
insert into public.gre_staff_load (staff_id, open_sessions)
select coalesce(s.staff_id, a.staff_id), coalesce(a.n, 0)
from public.gre_staff s
full join (
  select staff_id, count(*) as n from public.gre_chat_assignments where ended_at is null group by staff_id
) a on a.staff_id = s.staff_id;

-- By hand -------------------------------------------------------------------------------------------------

-- Lock an open session. Raises 404 and 409.
create function gre.lock_session(p_session uuid) returns public.gre_chat_sessions
language plpgsql volatile set search_path = '' as $$
declare
  v public.gre_chat_sessions;
begin
  select * into v from public.gre_chat_sessions where id = p_session for no key update;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  elsif v.status = 'closed' then
    perform gre.raise_http(409, 'session_closed', 'session is closed');
  end if;
  return v;
end $$;

-- Raise 409 if the session is assigned to somebody else; p_staff is null for a back end, which is nobody.
create function gre.require_holder(p_session public.gre_chat_sessions, p_staff text) returns void
language plpgsql stable set search_path = '' as $$
begin
  if p_session.assigned_staff_id <> p_staff then
    perform gre.raise_http(409, 'session_taken', 'somebody else has this session',
                           jsonb_build_object('by', p_session.assigned_staff_id)::text);
  end if;
end $$;

-- Assign a session that the caller has locked, and return it for the answer. "over_limit" is there if the person now
-- has more open sessions than automatic assignment would give.
create function gre.assign_session(p_session uuid, p_staff text) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v public.gre_chat_sessions;
  v_over jsonb;
begin
  update public.gre_chat_sessions s set assigned_staff_id = p_staff
  where s.id = p_session and s.assigned_staff_id is distinct from p_staff returning * into v;
  if not found then
    select * into v from public.gre_chat_sessions where id = p_session;
  end if;
  select jsonb_build_object('over_limit', jsonb_build_object('open_sessions', l.open_sessions, 'max_sessions', x.most))
  into v_over
  from public.gre_staff_load l
  cross join public.gre_chat_settings c
  left join public.gre_staff t on t.staff_id = l.staff_id
  cross join lateral (select coalesce(t.max_sessions, c.max_sessions) as most) x
  where l.staff_id = p_staff and l.open_sessions > x.most;
  return jsonb_build_object('session', gre.session_json(v)) || coalesce(v_over, '{}');
end $$;

create function public.gre_take_session(p_session_id uuid, p_from_staff text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v public.gre_chat_sessions;
begin
  if v_actor.staff_id is null then
    perform gre.raise_http(403, 'act_as_required', 'only a person can take a session: name one in X-GRE-Act-As');
  end if;
  v := gre.lock_session(p_session_id);
  if v.assigned_staff_id is distinct from p_from_staff then
    perform gre.require_holder(v, v_actor.staff_id);
  end if;
  return gre.assign_session(p_session_id, v_actor.staff_id);
end $$;
comment on function public.gre_take_session is
  'Assigns an open session to the caller, if it is nobody''s, p_from_staff''s or the caller''s: {"session": S, '
  '"over_limit"?: {"open_sessions", "max_sessions"}}. If it is somebody else''s: 409 session_taken with {"by"}. The '
  'limit of automatic assignment does not apply.';

create function public.gre_release_session(p_session_id uuid) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
begin
  perform gre.require_holder(gre.lock_session(p_session_id), v_actor.staff_id);
  return gre.assign_session(p_session_id, null);
end $$;
comment on function public.gre_release_session is
  'Returns an open session of the caller to the queue, at the place of its waiting time: {"session": S}. Automatic '
  'assignment does not give it to the same person again while it waits. If it is somebody else''s: 409 session_taken '
  'with {"by"}; gre_transfer_session returns the session of a colleague. A session of nobody is no error.';

create function public.gre_transfer_session(
  p_session_id uuid, p_to_staff text default null, p_note text default null, p_after_seq bigint default null,
  p_from_staff text default null, p_note_id uuid default null
) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v public.gre_chat_sessions;
  v_note public.gre_chat_notes;
  v_answer jsonb;
begin
  if p_to_staff is not null then
    perform gre.check_assignee(p_to_staff);
  end if;
  v := gre.lock_session(p_session_id);
  v_note := gre.added_note(p_note_id, p_session_id, v_actor.staff_id, p_note);
  if v_note.id is not null then
    -- A repeat, also if somebody has assigned the session again since.
    if p_to_staff is not null and not exists (
      select from public.gre_chat_assignments a where a.session_id = p_session_id and a.staff_id = p_to_staff
        and (a.ended_at is null or a.ended_at > v_note.created_at)) then
      perform gre.raise_http(409, 'id_conflict', 'this id is taken');
    end if;
    return jsonb_build_object('session', gre.session_json(v));
  end if;
  perform gre.check_not_moved(p_session_id, p_after_seq);
  if p_from_staff is not null and v.assigned_staff_id is distinct from p_from_staff
    and v.assigned_staff_id is distinct from p_to_staff then
    perform gre.require_holder(v, coalesce(v_actor.staff_id, ''));
  end if;
  if p_note is not null then
    v_note := gre.add_note(p_session_id, v_actor.staff_id, p_note, p_note_id);
  end if;
  v_answer := gre.assign_session(p_session_id, p_to_staff);
  if p_note is not null then
    perform gre.announce_note(v_note); -- the lane is locked after the loads
  end if;
  return v_answer;
end $$;
comment on function public.gre_transfer_session is
  'Assigns an open session to another staff member, or to nobody (null: back to the queue), together with a note: '
  '{"session": S, "over_limit"?: {"open_sessions", "max_sessions"}}. p_after_seq: 409 session_moved with {"by", "seq"} '
  'if another staff member has written since. p_from_staff (empty: nobody): 409 session_taken with {"by"} if the '
  'session is neither this person''s nor the caller''s nor nobody''s. With p_note_id, a call with a note can be '
  'repeated.';

-- Staff ---------------------------------------------------------------------------------------------------

-- Return a staff member, or all of them, as the API does: active ones only, by name.
create function gre.staff_json(p_staff_id text default null) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('staff_id', s.staff_id, 'display_name', s.display_name, 'role', s.role,
      'status', gre.presence(o.status, o.last_seen_at, o.expires_at), 'open_sessions', coalesce(l.open_sessions, 0),
      'takes_sessions', s.takes_sessions, 'max_sessions', s.max_sessions)
    order by lower(coalesce(s.display_name, s.staff_id)), s.staff_id), '[]')
  from public.gre_staff s
  left join public.gre_online_status o on o.staff_id = s.staff_id
  left join public.gre_staff_load l on l.staff_id = s.staff_id
  where s.active and (p_staff_id is null or s.staff_id = p_staff_id)
$$;

create function public.gre_list_staff() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  perform gre.require_staff();
  return gre.staff_json();
end $$;
comment on function public.gre_list_staff is
  'Lists active staff with their presence and load: [{"staff_id", "display_name", "role", "status", "open_sessions", '
  '"takes_sessions", "max_sessions"}]. Staff only.';

create function public.gre_set_staff(p_staff_id text, p_settings jsonb) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_staff public.gre_staff;
begin
  perform gre.require_admin();
  if jsonb_typeof(p_settings) is distinct from 'object'
    or p_settings - array['takes_sessions', 'max_sessions'] <> '{}' then
    perform gre.raise_http(400, 'settings_invalid', 'settings must be an object with takes_sessions and max_sessions');
  end if;
  select * into v_staff from public.gre_staff where staff_id = p_staff_id and active for no key update;
  if not found then
    perform gre.raise_http(404, 'staff_unknown', 'there is no such active staff member');
  end if;
  begin
    v_staff := jsonb_populate_record(v_staff, p_settings);
    update public.gre_staff set takes_sessions = v_staff.takes_sessions, max_sessions = v_staff.max_sessions
    where staff_id = p_staff_id;
  exception when data_exception or check_violation or not_null_violation then
    perform gre.raise_http(400, 'settings_invalid', 'a setting has a value that is not allowed');
  end;
  return gre.staff_json(p_staff_id) -> 0;
end $$;
comment on function public.gre_set_staff is
  'Changes the given settings of a staff member for automatic assignment (takes_sessions, max_sessions; see '
  'gre_staff), and returns the staff member as gre_list_staff does. For admins.';

-- By a worker ---------------------------------------------------------------------------------------------

-- Return the time since which a staff member is offline (see gre.presence); null while online or away.
create function gre.offline_since(
  p_status text, p_seen timestamptz, p_updated timestamptz, p_expires timestamptz
) returns timestamptz
language plpgsql stable set search_path = '' as $$
declare
  v_since timestamptz;
begin
  if gre.presence(p_status, p_seen, p_expires) <> 'offline' then
    return null;
  end if;
  v_since := case when p_status is null or p_status = 'offline' then greatest(p_updated, p_seen)
    when p_expires is not null then p_expires
    else p_seen + (select s.presence_lasts from gre.settings s) end;
  -- No time, or one in the future, which a wrong clock has written.
  return case when v_since <= clock_timestamp() then v_since else '-infinity' end;
end $$;

-- Return the staff with open sessions who are not active, or offline for p_after.
create function gre.offline_staff(p_after interval) returns text[]
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
begin
  return array(
    select l.staff_id
    from public.gre_staff_load l
    left join public.gre_staff t on t.staff_id = l.staff_id
    left join public.gre_online_status o on o.staff_id = l.staff_id
    where l.open_sessions > 0
      and (not t.active or gre.offline_since(o.status, o.last_seen_at, o.updated_at, o.expires_at)
                           <= clock_timestamp() - p_after));
end $$;

-- Return the staff to whom automatic assignment could give a session now.
create function gre.available_staff() returns text[]
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_settings public.gre_chat_settings;
begin
  select * into v_settings from public.gre_chat_settings;
  if coalesce(v_settings.assignment, 'off') = 'off' or not gre.open_at(v_settings.hours, clock_timestamp()) then
    return '{}';
  end if;
  return array(
    select t.staff_id
    from public.gre_staff t
    join public.gre_online_status o on o.staff_id = t.staff_id
    join public.gre_staff_load l on l.staff_id = t.staff_id
    where t.active and t.takes_sessions and gre.presence(o.status, o.last_seen_at, o.expires_at) = 'online'
      and l.open_sessions < coalesce(t.max_sessions, v_settings.max_sessions, 2147483647));
end $$;

-- Return to the queue the sessions that wait for these people and were assigned before p_before. Returns their number.
create function gre.release_waiting(p_staff text[], p_before timestamptz, p_limit integer) returns integer
language plpgsql volatile
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
set jit = off as $$
declare
  v_staff text[];
  v_sessions uuid[];
begin
  -- Sessions without waiting for their locks, then load rows in the order of staff_id.
  select array_agg(x.id), array_agg(x.assigned_staff_id) into v_sessions, v_staff
  from (
    select s.id, s.assigned_staff_id
    from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is not null
      and s.assigned_staff_id = any (p_staff)
      -- A subquery: a join would read the open assignments of everybody.
      and (select a.started_at from public.gre_chat_assignments a
           where a.session_id = s.id and a.ended_at is null) <= p_before
    limit p_limit
    for no key update skip locked) x;
  if v_sessions is null then
    return 0;
  end if;
  perform from (
    select from public.gre_staff_load where staff_id = any (v_staff) order by staff_id for no key update) x;
  perform set_config('gre.release_how', 'offline', true);
  update public.gre_chat_sessions set assigned_staff_id = null where id = any (v_sessions);
  perform set_config('gre.release_how', '', true);
  return cardinality(v_sessions);
end $$;

create function public.gre_assign_waiting_v1(p_limit integer default 20) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
set lock_timeout = '2s' as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 20), 1), 200);
  v_now constant timestamptz := clock_timestamp();
  v_answer constant jsonb :=
    jsonb_build_object('enabled', true, 'busy', false, 'more', false, 'assigned', 0, 'released', 0);
  v_settings public.gre_chat_settings;
  v_offline text[];
  v_online text[] := '{}';
  v_released integer := 0;
  v_assigned integer := 0;
  v_more boolean := false;
  v_waited integer := 0;
  v_locked boolean := false;
  v_next record;
  v_session public.gre_chat_sessions;
  v_last text;
  v_to text;
begin
  perform gre.require_worker();
  select * into v_settings from public.gre_chat_settings;
  if coalesce(v_settings.assignment, 'off') = 'off' then
    return v_answer || '{"enabled": false}';
  end if;
  -- Look first, and take no lock if there is nothing to do.
  v_offline := gre.offline_staff(v_settings.offline_after);
  if exists (
    select from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is null
  ) then
    v_online := gre.available_staff();
  end if;
  if v_online = '{}' and not exists (
    select from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is not null
      and s.assigned_staff_id = any (v_offline)
  ) then
    return v_answer;
  end if;
  -- Read again under the lock: a change that committed before it applies.
  select * into v_settings from public.gre_chat_settings for no key update skip locked;
  if not found then
    return v_answer || '{"busy": true}';
  elsif v_settings.assignment = 'off' then
    return v_answer || '{"enabled": false}';
  end if;
  if v_offline <> '{}' then
    v_released := gre.release_waiting(v_offline, v_now - v_settings.offline_after, v_limit);
  end if;
  if v_released > 0 then
    -- The next call assigns them: this transaction holds rows of gre_staff_load.
    return v_answer || jsonb_build_object('released', v_released, 'more', true);
  elsif v_online = '{}' then
    return v_answer;
  end if;

  -- At most 1,000 sessions are read: those that nobody here may get again are passed over.
  for v_next in
    select s.id, s.waiting_since from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is null
    order by s.waiting_since, s.id limit 1000
  loop
    -- No session may be assigned before one that waits for longer. Wait for the lock of a session while this
    -- transaction holds no other, else end the call: the next one begins with this session. Pass over a session whose
    -- lock another transaction holds for long.
    if v_locked or v_waited >= 3 then
      select * into v_session from public.gre_chat_sessions where id = v_next.id for no key update skip locked;
      v_more := v_locked and not found;
      exit when v_more;
    else
      begin
        perform set_config('lock_timeout', '100ms', true);
        select * into v_session from public.gre_chat_sessions where id = v_next.id for no key update;
        perform set_config('lock_timeout', '2s', true);
      exception when lock_not_available then -- lock_timeout is 2s again
        v_waited := v_waited + 1;
        continue;
      end;
    end if;
    continue when v_session.id is null or v_session.status = 'closed' or v_session.assigned_staff_id is not null
      or v_session.waiting_since is distinct from v_next.waiting_since;
    if not v_locked then
      -- From here on the loads of these people change in this transaction only.
      perform from (
        select from public.gre_staff_load where staff_id = any (v_online) order by staff_id for no key update) x;
      v_locked := true;
      -- Without people who went away, or became inactive, while this transaction waited for locks.
      v_online := array(select unnest(v_online) intersect select unnest(gre.available_staff()));
      exit when v_online = '{}';
    end if;
    v_last := case when v_settings.returning_within is not null then (
      select a.staff_id
      from (select s.id from public.gre_chat_sessions s where s.player_id = v_session.player_id
            order by s.created_at desc limit 10) s
      join public.gre_chat_assignments a on a.session_id = s.id
      where a.ended_at > v_now - v_settings.returning_within
      order by a.ended_at desc limit 1) end;
    select l.staff_id into v_to
    from public.gre_staff_load l
    join public.gre_staff t on t.staff_id = l.staff_id
    where l.staff_id = any (v_online)
      and l.open_sessions < coalesce(t.max_sessions, v_settings.max_sessions, 2147483647)
      -- Not a person who has released this session since the player began to wait.
      and not exists (
        select from public.gre_chat_assignments a
        where a.session_id = v_session.id and a.staff_id = l.staff_id and a.end_how = 'released'
          and a.ended_at >= v_session.waiting_since)
    order by coalesce(l.staff_id = v_last, false) desc,
      case v_settings.assignment when 'least_busy' then l.open_sessions end, l.last_assigned_at nulls first, l.staff_id
    limit 1;
    if found then
      perform set_config('gre.assign_how', case when v_to = v_last then 'returning' else 'auto' end, true);
      update public.gre_chat_sessions set assigned_staff_id = v_to where id = v_session.id;
      perform set_config('gre.assign_how', '', true);
      v_assigned := v_assigned + 1;
      v_more := v_assigned >= v_limit;
      exit when v_more;
    end if;
    -- Do not lock a session that nobody can get.
    exit when not exists (
      select from public.gre_staff_load l
      join public.gre_staff t on t.staff_id = l.staff_id
      where l.staff_id = any (v_online)
        and l.open_sessions < coalesce(t.max_sessions, v_settings.max_sessions, 2147483647));
  end loop;
  return v_answer || jsonb_build_object('assigned', v_assigned, 'more', v_more);
end $$;
comment on function public.gre_assign_waiting_v1 is
  'Assigns at most p_limit waiting sessions to eligible staff, the longest waiting first; before that, returns to the '
  'queue what waits for staff who are offline: {"enabled": false if assignment is off, "busy": another worker does it '
  'at this moment, "more": call again at once, "assigned", "released"}. For workers.';

create function public.gre_desk_stats_v1() returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_settings public.gre_chat_settings;
  v_oldest timestamptz;
begin
  perform gre.require_worker();
  select * into v_settings from public.gre_chat_settings;
  select s.waiting_since into v_oldest from public.gre_chat_sessions s
  where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is null
  order by s.waiting_since, s.id limit 1;
  return jsonb_build_object(
    'assignment', coalesce(v_settings.assignment, 'off'),
    'unassigned', (
      select count(*) from (
        select from public.gre_chat_sessions s
        where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is null limit 10000) x),
    'assigned', (
      select count(*) from (
        select from public.gre_chat_sessions s
        where s.status <> 'closed' and s.waiting_since is not null and s.assigned_staff_id is not null limit 10000) x),
    'oldest_age', case when v_oldest is not null then round(
      gre.open_seconds(v_settings.hours, greatest(v_oldest, v_now - interval '30 days'), v_now), 3) end,
    'available_staff', cardinality(gre.available_staff()),
    'staff', (select count(*) from public.gre_staff t where t.active and t.takes_sessions),
    'opens', gre.next_open(v_settings.hours, v_now) is not null);
end $$;
comment on function public.gre_desk_stats_v1 is
  'Returns the state of the desk: {"assignment": as in gre_chat_settings, "unassigned", "assigned": numbers of open '
  'sessions that wait for an answer (at most 10,000 are counted), "oldest_age": open seconds for which the longest '
  'waiting session of nobody has waited (of the last 30 days; null without one), "available_staff": number of staff to '
  'whom automatic assignment could give a session now, "staff": number of active staff who take sessions, "opens": '
  'false if the opening hours have no open time within 400 days}. For workers.';

revoke execute on function gre.staff_load_added, gre.change_load, gre.sessions_assignment, gre.sessions_truncated,
  gre.lock_session, gre.require_holder, gre.assign_session, gre.offline_since, gre.offline_staff, gre.available_staff,
  gre.release_waiting, gre.staff_json
  from public;
revoke execute on function public.gre_take_session, public.gre_release_session, public.gre_transfer_session,
  public.gre_list_staff, public.gre_set_staff, public.gre_assign_waiting_v1, public.gre_desk_stats_v1
  from public, anon, authenticated, service_role;
grant execute on function public.gre_take_session, public.gre_release_session, public.gre_transfer_session,
  public.gre_list_staff, public.gre_set_staff to authenticated, service_role;
grant execute on function public.gre_assign_waiting_v1, public.gre_desk_stats_v1 to service_role;
