-- The story of a session: an append-only list of its events, each with its place between two messages. Reports count
-- from it. Depends on gre_tables, gre_identity and gre_messages (gre.sessions_before_write sets cycle, closed_at and
-- closed_by).
--
-- Triggers on gre_chat_sessions write the events, whatever changes the row. An update writes them in a BEFORE trigger:
-- under the lock of the row, so that rev and after_seq are in the order of commits, and before any message that a
-- trigger of the project inserts because of the update. Its name sorts last: it sees what other triggers set.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_chat_events (
  session_id uuid not null,
  rev bigint not null,
  at timestamptz not null,
  after_seq bigint not null,
  kind text not null constraint gre_chat_events_kind_check
    check (kind in ('opened', 'closed', 'reopened', 'assigned', 'released', 'transferred', 'blocked', 'unblocked',
                    'rated', 'deleted')),
  staff_id text,
  by_staff_id text,
  data jsonb not null default '{}',
  primary key (session_id, rev)
);
comment on table public.gre_chat_events is
  'The story of each session. Applied in the order of rev, the events of a session give its status, assigned_staff_id, '
  'cycle, closed_at and closed_by. Written by triggers, and never changed. When a session is deleted, its events are '
  'kept under a new session_id, so that they no longer lead to the player.';
comment on column public.gre_chat_events.session_id is
  'The session. No foreign key: the events of a deleted session are kept.';
comment on column public.gre_chat_events.rev is 'The session''s rev after the event.';
comment on column public.gre_chat_events.at is 'Time of the event.';
comment on column public.gre_chat_events.after_seq is 'seq of the last message before the event; 0 before the first.';
comment on column public.gre_chat_events.kind is
  'opened, closed, reopened, assigned (nobody had the session), released (to nobody), transferred, blocked and '
  'unblocked (the player), rated (by the player), or deleted.';
comment on column public.gre_chat_events.staff_id is
  'The staff member to whom the session is assigned by opened, assigned or transferred, or was until released.';
comment on column public.gre_chat_events.by_staff_id is
  'The staff member who caused the event; null for a player, a back end or the server.';
comment on column public.gre_chat_events.data is
  'closed: {"by"}, as closed_by. reopened: {"cycle"}. transferred: {"from"}, a staff id. blocked: {"until"} if the '
  'block has an end. rated: {"score"}. opened: {} for an open session; {"adopted": true} for a session that is older '
  'than gre-bridge, whose story begins with its state at that time; for a closed session also {"status", "closed_at", '
  '"closed_by"}.';
alter table public.gre_chat_events enable row level security;
revoke all on public.gre_chat_events from public, anon, authenticated, service_role;

-- Return the data of event opened: the state of the session as far as it is not that of a new one.
create function gre.opened_data(p_session public.gre_chat_sessions) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'status', case p_session.status when 'closed' then 'closed' end, 'closed_at', gre.iso(p_session.closed_at),
    'closed_by', p_session.closed_by, 'cycle', nullif(p_session.cycle, 1)))
$$;

create function gre.sessions_record_opening() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, staff_id, by_staff_id, data)
  values (new.id, new.rev, new.created_at, 0, 'opened', new.assigned_staff_id, (gre.current_actor()).staff_id,
          case when new.status = 'closed' then gre.opened_data(new) else '{}' end);
  return null;
end $$;

-- An update that closes or reopens a session and also changes its assignment causes two events, each with its own rev.
create function gre.sessions_record_change() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_closed constant boolean := new.status = 'closed' and old.status <> 'closed';
  v_reopened constant boolean := new.status <> 'closed' and old.status = 'closed';
  v_assigned constant boolean := new.assigned_staff_id is distinct from old.assigned_staff_id;
begin
  if v_assigned and (v_closed or v_reopened) then
    new.rev := new.rev + 1;
  end if;
  insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, staff_id, by_staff_id, data)
  select new.id, new.rev - count(*) over () + row_number() over (order by e.n), new.updated_at,
    -- Messages of this transaction may not be counted in last_seq yet, see gre.count_messages.
    (select greatest(new.last_seq, max(m.seq)) from public.gre_chat_messages m where m.session_id = new.id),
    e.kind, e.staff_id, (gre.current_actor()).staff_id, e.data
  from (values
    (1, 'reopened', null, jsonb_build_object('cycle', new.cycle), v_reopened),
    (2, case when old.assigned_staff_id is null then 'assigned' when new.assigned_staff_id is null then 'released'
             else 'transferred' end,
      coalesce(new.assigned_staff_id, old.assigned_staff_id),
      case when old.assigned_staff_id is not null and new.assigned_staff_id is not null
        then jsonb_build_object('from', old.assigned_staff_id) else '{}' end, v_assigned),
    (3, 'closed', null, jsonb_build_object('by', new.closed_by), v_closed)
  ) e (n, kind, staff_id, data, happened)
  where e.happened;
  return new;
end $$;

-- When a session is deleted, its events, assignments and figures (gre_figure_tables) get the same random session_id, so
-- that they no longer lead to the player.
create function gre.sessions_record_deletion() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_id constant uuid := gen_random_uuid();
begin
  update public.gre_chat_events set session_id = v_id where session_id = old.id;
  insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, by_staff_id)
  values (v_id, old.rev + 1, clock_timestamp(), old.last_seq, 'deleted', (gre.current_actor()).staff_id);
  update public.gre_chat_assignments set session_id = v_id where session_id = old.id;
  update public.gre_chat_cycles set session_id = v_id where session_id = old.id;
  update public.gre_chat_responses set session_id = v_id where session_id = old.id;
  update public.gre_chat_activity set session_id = v_id where session_id = old.id;
  update public.gre_chat_ratings set session_id = v_id, comment = null where session_id = old.id;
  return null;
end $$;

select gre.lock_tables();
create trigger gre_6_record_opening after insert on public.gre_chat_sessions
  for each row execute function gre.sessions_record_opening();
create trigger zzz_gre_5_record_change before update on public.gre_chat_sessions
  for each row when (new.assigned_staff_id is distinct from old.assigned_staff_id
                     or (new.status = 'closed') <> (old.status = 'closed'))
  execute function gre.sessions_record_change();
create trigger gre_6_record_deletion after delete on public.gre_chat_sessions
  for each row execute function gre.sessions_record_deletion();

-- The story of a session that exists already begins here.
insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, staff_id, data)
select s.id, s.rev, clock_timestamp(), s.last_seq, 'opened', s.assigned_staff_id,
  '{"adopted": true}' || gre.opened_data(s)
from public.gre_chat_sessions s;

-- Return an event as the API does.
create function gre.event_json(e public.gre_chat_events) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('rev', e.rev, 'at', gre.iso(e.at), 'after_seq', e.after_seq, 'kind', e.kind,
    'staff_id', e.staff_id, 'by_staff_id', e.by_staff_id, 'data', e.data)
$$;

-- Return {"events": [...]} of a session: those after a rev, or those since p_epoch if p_after is null. The first 50,
-- and "events_more": the rev of the last of them, if there are more; {} without events.
create function gre.new_events(p_session uuid, p_after bigint, p_epoch timestamptz) returns jsonb
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_events jsonb;
  v_rev bigint;
begin
  select jsonb_agg(gre.event_json(x.e) order by (x.e).rev), max((x.e).rev) into v_events, v_rev
  from (select v as e from public.gre_chat_events v
        where v.session_id = p_session and v.rev > coalesce(p_after, 0) and (p_after is not null or v.at > p_epoch)
        order by v.rev limit 50) x;
  return case when v_events is null then '{}' else jsonb_build_object('events', v_events) end
    || case when exists (select from public.gre_chat_events v where v.session_id = p_session and v.rev > v_rev)
       then jsonb_build_object('events_more', v_rev) else '{}' end;
end $$;

create function public.gre_session_events(
  p_session_id uuid, p_after_rev bigint default 0, p_limit integer default 200
) returns jsonb
language plpgsql stable set search_path = '' set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$ -- a page is read in index order
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 200), 1), 500);
  v_after constant bigint := coalesce(p_after_rev, 0); -- coalesce() in the condition: not leakproof, see gre_tables
begin
  perform gre.require_staff();
  if not exists (select from public.gre_chat_sessions where id = p_session_id) then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  return (
    select jsonb_build_object(
      'events', coalesce(jsonb_agg(gre.event_json(x.e) order by (x.e).rev) filter (where x.n <= v_limit), '[]'),
      'has_more', count(*) > v_limit)
    from (
      select v as e, row_number() over (order by v.rev) as n from public.gre_chat_events v
      where v.session_id = p_session_id and v.rev > v_after
      order by v.rev limit v_limit + 1) x);
end $$;
comment on function public.gre_session_events is
  'Returns a page of the story of a session, in order: {"events": [{"rev", "at", "after_seq", "kind", "staff_id", '
  '"by_staff_id", "data"}], "has_more"}. p_after_rev: "rev" of the last event of the page before. See gre_chat_events. '
  'For staff.';

revoke execute on all functions in schema gre from public;
revoke execute on function public.gre_session_events from public, anon, authenticated, service_role;
grant execute on function gre.event_json to authenticated, service_role;
grant execute on function public.gre_session_events to authenticated, service_role;
