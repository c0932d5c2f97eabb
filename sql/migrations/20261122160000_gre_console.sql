-- For a desk: the order in which sessions wait for an answer, who is there, and what those who run it look at.
--
-- Workers of before this file and after it work with either schema: no function of theirs changes, so the version stays.
set local lock_timeout = '300ms';
set local statement_timeout = 0;
select gre.lock_tables();

-- Waiting ----------------------------------------------------------------------------------------------------

comment on column public.gre_chat_sessions.waiting_since is
  'Time of the player''s first message since staff''s last one; null when answered or closed. Belongs to the server.';
alter table public.gre_chat_sessions add column if not exists changed_xid xid8;
comment on column public.gre_chat_sessions.changed_xid is
  'The transaction that changed it last: so a reader finds what was committed since its last look. Belongs to the server.';
create index gre_chat_sessions_changed on public.gre_chat_sessions (changed_xid) where changed_xid is not null;
select gre.backfill('public.gre_chat_sessions',
  'update public.gre_chat_sessions set assigned_staff_id = left(assigned_staff_id, 128) where char_length(assigned_staff_id) > 128');
-- Players who wrote since adoption wait since then. Nothing is announced for it, and no rev grows.
select gre.backfill('public.gre_chat_sessions', $$
update public.gre_chat_sessions s set waiting_since = w.created_at
from public.gre_chat_sessions q
cross join lateral (
  select m.created_at from public.gre_chat_messages m
  where m.session_id = q.id and m.sender = 'player' and m.seq > coalesce((
    select max(a.seq) from public.gre_chat_messages a where a.session_id = q.id and a.sender = 'staff'), 0)
  order by m.seq limit 1) w
where q.status <> 'closed' and s.id = q.id and s.waiting_since is distinct from w.created_at
$$);

-- An open session costs no more than its place among those that wait: what else the queue needs are indexes of closed ones,
-- which are written once. Open ones, some thousands at most, are looked through in the order that they are listed in.
create index gre_chat_sessions_waiting on public.gre_chat_sessions (waiting_since, id)
  where status <> 'closed' and waiting_since is not null;
create index gre_chat_sessions_closed_latest on public.gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status = 'closed';
create index gre_chat_sessions_closed_assigned on public.gre_chat_sessions
  (assigned_staff_id, (case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status = 'closed';
create index gre_chat_sessions_closed_name on public.gre_chat_sessions (lower(player_name) text_pattern_ops) where status = 'closed';
alter index public.gre_chat_sessions_closed_name alter column 1 set statistics 0; -- as for the names themselves

-- As before, but the session is counted up once for each statement, and the number is given by the triggers below.
create or replace function gre.message_arrives() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.who();
  v_now timestamptz;
  v_session public.gre_chat_sessions;
  v_wanted uuid := new.session_id;
  v_profile public.gre_chat_players;
  v_existing public.gre_chat_messages;
  v_given text;
begin
  new.sender := lower(coalesce(new.sender, left(to_jsonb(new) ->> 'sender_type', 20),
                               case v_who.role when 'player' then 'player' when 'staff' then 'staff' when 'admin' then 'staff' end));
  if new.sender in ('gre', 'gre_staff', 'admin') then
    new.sender := 'staff';
  end if;
  if new.sender is null or new.sender not in ('player', 'staff', 'system') then
    perform gre.refuse(400, 'sender_unknown', 'sender must be player, staff or system');
  end if;
  new.metadata := coalesce(new.metadata, '{}');
  if new.id is null then
    new.id := gen_random_uuid();
  end if;
  if new.player_id is null and v_wanted is not null and v_who.role <> 'player' then
    select player_id into new.player_id from public.gre_chat_sessions where id = v_wanted;
  end if;
  if new.player_id is null then
    new.player_id := v_who.player_id;
  end if;
  if new.player_id is null or new.player_id not between 1 and 9007199254740991 then
    perform gre.refuse(400, 'player_invalid', 'player_id must be a whole number from 1 to 9007199254740991');
  end if;

  select * into v_profile from public.gre_chat_players where player_id = new.player_id;
  v_profile.display_name := gre.clean_name(v_profile.display_name);
  if new.sender = 'player' and not v_profile.chat_enabled then
    perform gre.refuse(403, 'chat_disabled', 'chat is disabled for this player');
  end if;

  loop
    if v_wanted is not null then
      -- (With its player in the condition: another's row is not even locked.)
      select * into v_session from public.gre_chat_sessions where id = v_wanted and player_id = new.player_id for no key update;
      if not found then
        perform gre.refuse(403, 'session_mismatch', 'session does not belong to this player');
      end if;
      exit when v_session.status <> 'closed';
      select * into v_existing from public.gre_chat_messages where id = new.id;
      exit when found;
      if new.sender <> 'player' then
        perform gre.refuse(409, 'session_closed', 'session is closed');
      end if;
      v_wanted := null;
    end if;
    select * into v_session from public.gre_chat_sessions
      where player_id = new.player_id and status <> 'closed' for no key update;
    exit when found;
    select * into v_existing from public.gre_chat_messages where id = new.id;
    exit when found;
    if v_who.role = 'player' then
      perform gre.check_pace(new.player_id); -- what it refuses has opened nothing
    end if;
    insert into public.gre_chat_sessions (player_id, player_name, status)
      values (new.player_id, coalesce(v_profile.display_name, gre.guest_name(new.player_id, coalesce(gre.clean_name(new.player_name),
                case new.sender when 'player' then gre.clean_name(new.sender_name) end))), 'active')
      on conflict (player_id) where status <> 'closed' do nothing
      returning * into v_session;
    exit when found;
  end loop;

  -- BEFORE triggers run before the conflict check: an id that exists must count nothing and open nothing.
  -- The primary key then decides.
  if v_existing.id is null then
    select * into v_existing from public.gre_chat_messages where id = new.id;
  end if;
  if v_existing.id is not null then
    new.session_id := v_existing.session_id;
    new.seq := -v_existing.seq;
    return new;
  end if;

  v_now := clock_timestamp();
  -- A player without a profile keeps the name that its session began with: it is what staff know it by.
  v_given := coalesce(gre.clean_name(new.player_name), case new.sender when 'player' then gre.clean_name(new.sender_name) end);
  new.player_name := coalesce(v_profile.display_name, nullif(v_session.player_name, 'Player ' || new.player_id),
                              case when v_given is not null then gre.guest_name(new.player_id, v_given) end);
  if new.sender = 'player' then
    new.sender_id := new.player_id::text;
    new.player_name := coalesce(new.player_name, 'Player ' || new.player_id);
    new.sender_name := new.player_name;
  elsif new.sender = 'staff' then
    if v_who.staff_id is not null then
      new.sender_id := v_who.staff_id;
      new.sender_name := gre.staff_name(v_who.staff_id, new.sender_name);
    end if;
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'Guest relations');
  else
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'System');
  end if;
  new.session_id := v_session.id;
  new.seq := 0;
  new.status := 'sent';
  new.created_at := v_now;
  -- What a clock said counts from the back end alone, which imports.
  new."timestamp" := case when v_who.role = 'service' and isfinite(new."timestamp") then new."timestamp" else v_now end;
  return new;
end $$;

-- Staff's name on a message: that of its row; where it has none, what was given unless that is a colleague's.
create function gre.staff_name(p_staff_id text, p_given text) returns text
language sql stable security definer set search_path = '' as $$
  select coalesce(
    (select gre.clean_name(display_name) from public.gre_staff where staff_id = p_staff_id),
    case when not exists (select from public.gre_staff where active and gre.name_key(display_name) = gre.name_key(p_given)) then gre.clean_name(p_given) end)
$$;

-- The number is given last, after every other BEFORE trigger (by its name), under the session's lock: what another trigger has sent
-- into the session meanwhile stands before. It sees what this statement has inserted, and there is none for a row that will not
-- be there. (The session's own row is written once, below: a row that one transaction updates a thousand times is found by way
-- of its thousand versions.)
create function gre.message_number() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  if new.seq < 0 then -- its id exists
    new.seq := -new.seq;
    return new;
  end if;
  select greatest(s.last_seq, (select max(m.seq) from public.gre_chat_messages m where m.session_id = s.id)) + 1 into new.seq
  from public.gre_chat_sessions s where s.id = new.session_id;
  return new;
end $$;
create trigger zzz_gre_message_number before insert on public.gre_chat_messages
  for each row execute function gre.message_number();

-- What this transaction's messages change in their sessions, whose locks it holds, for the sessions named: of all that have not been
-- counted yet. A trigger of the project may send a message, or change the session, while the statement that called it is not
-- at its end: then the first of them to get here counts all that came before it, in order, and the others find nothing left.
create function gre.count_messages(p_sessions uuid[], p_ids uuid[] default '{}') returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  update public.gre_chat_sessions s set
    last_seq = n.last_seq,
    rev = s.rev + n.found,
    player_name = coalesce(gre.clean_name(p.display_name), nullif(s.player_name, 'Player ' || s.player_id), n.player_name),
    last_message_at = greatest(s.last_message_at, n.last_at),
    updated_at = clock_timestamp(),
    unread_by_staff = s.unread_by_staff + n.by_player,
    unread_by_player = s.unread_by_player + n.found - n.by_player,
    waiting_since = case when n.answered is null then coalesce(s.waiting_since, n.asked) else n.asked end
  from (
    select session_id, max(player_id) as player_id, max(seq) as last_seq, count(*)::integer as found,
      max(created_at) as last_at, min(player_name) as player_name, max(answered) as answered,
      count(*) filter (where sender = 'player')::integer as by_player,
      min(created_at) filter (where sender = 'player' and (answered is null or seq > answered)) as asked
    from (
      select m.*, max(m.seq) filter (where m.sender = 'staff') over (partition by m.session_id) as answered
      from public.gre_chat_sessions q
      join public.gre_chat_messages m on m.session_id = q.id and m.seq > q.last_seq
      -- (What came in around the triggers before this transaction is for reconcile.)
      where q.id = any (p_sessions) and (m.created_at >= transaction_timestamp() or m.id = any (p_ids))) i
    group by session_id
  ) n
  left join public.gre_chat_players p on p.player_id = n.player_id
  where s.id = n.session_id;
end $$;

-- As before, and they are counted first.
create or replace function gre.settle_session(p_session uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform set_config('gre.nested', 'on', true);
  perform gre.count_messages(array[p_session]);
  perform gre.enqueue_messages(array[p_session]);
end $$;

-- What a statement's messages change in their sessions.
create or replace function gre.messages_arrived() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if pg_trigger_depth() > 1 or current_setting('gre.nested', true) = 'on' then
    if not exists (select from inserted) then
      return null;
    end if;
    perform set_config('gre.nested', 'on', true); -- for the rest of the transaction
    perform gre.count_messages(array(select distinct session_id from inserted), array(select id from inserted));
    return null;
  end if;
  -- The same for a statement within no other: what it inserted is all that there is to count (nothing, where it inserted nothing).
  update public.gre_chat_sessions s set
    last_seq = n.last_seq,
    rev = s.rev + n.found,
    player_name = coalesce(gre.clean_name(p.display_name), nullif(s.player_name, 'Player ' || s.player_id), n.player_name),
    last_message_at = n.last_at,
    updated_at = clock_timestamp(),
    unread_by_staff = s.unread_by_staff + n.by_player,
    unread_by_player = s.unread_by_player + n.found - n.by_player,
    waiting_since = case when n.answered is null then coalesce(s.waiting_since, n.asked) else n.asked end
  from (
    select session_id, max(player_id) as player_id, max(seq) as last_seq, count(*)::integer as found,
      max(created_at) as last_at, min(player_name) as player_name, max(answered) as answered,
      count(*) filter (where sender = 'player')::integer as by_player,
      min(created_at) filter (where sender = 'player' and (answered is null or seq > answered)) as asked
    from (
      select i.*, max(i.seq) filter (where i.sender = 'staff') over (partition by i.session_id) as answered from inserted i) i
    group by session_id
  ) n
  left join public.gre_chat_players p on p.player_id = n.player_id
  where s.id = n.session_id;
  return null;
end $$;
create trigger gre_messages_arrived after insert on public.gre_chat_messages
  referencing new table as inserted for each statement execute function gre.messages_arrived();

-- The first look at a session that a portal writes, as gre.message_checks at a message: who is asking, then the lengths.
create function gre.session_checks() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_who gre.actor;
begin
  if row_security_active('public.gre_chat_sessions') then
    v_who := gre.who();
    if tg_op = 'INSERT' and v_who.role = 'player' and coalesce(new.player_id, 0) = 0 then
      new.player_id := v_who.player_id;
    end if;
    if v_who.role not in ('player', 'staff', 'admin') or v_who.role = 'player'
      and (tg_op <> 'INSERT' or new.player_id is distinct from v_who.player_id or new.assigned_staff_id is not null) then
      perform gre.refuse_row('gre_chat_sessions');
    end if;
    new.player_name := left(new.player_name, 400);
    new.status := left(new.status, 40);
    if octet_length(new.assigned_staff_id) > 512 or char_length(new.assigned_staff_id) > 128 then
      perform gre.refuse(404, 'staff_unknown', 'there is no such active staff member');
    elsif pg_column_size(new) > 65536 then
      perform gre.refuse(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
  end if;
  return new;
end $$;
create trigger gre_check_session before insert or update on public.gre_chat_sessions
  for each row execute function gre.session_checks();

-- To whom a portal may assign a session: staff to themselves and to active staff; the back end to whom it knows. An id is short:
-- it is in indexes and events.
create function gre.check_assignee(p_staff_id text) returns void
language plpgsql stable security definer set search_path = '' as $$
declare
  v_who gre.actor := gre.who();
begin
  if char_length(p_staff_id) not between 1 and 128 or v_who.role <> 'service' and p_staff_id is distinct from v_who.staff_id
    and not exists (select from public.gre_staff where staff_id = p_staff_id and active) then
    perform gre.refuse(404, 'staff_unknown', 'there is no such active staff member');
  end if;
end $$;

-- As before, with waiting_since and changed_xid among the columns that belong to the server.
create or replace function gre.session_changes() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_portal boolean := current_user in ('anon', 'authenticated', 'service_role');
begin
  if v_portal and new.assigned_staff_id is not null and (tg_op = 'INSERT' or new.assigned_staff_id is distinct from old.assigned_staff_id) then
    perform gre.check_assignee(new.assigned_staff_id);
  end if;
  if tg_op = 'INSERT' then
    if new.player_id is null or new.player_id not between 1 and 9007199254740991 then
      perform gre.refuse(400, 'player_invalid', 'player_id must be a whole number from 1 to 9007199254740991');
    end if;
    if v_portal and new.player_id = gre.my_player_id() and exists (
      select from public.gre_chat_players p where p.player_id = new.player_id and not p.chat_enabled) then
      perform gre.refuse(403, 'chat_disabled', 'chat is disabled for this player');
    end if;
    new.last_seq := 0;
    new.rev := 1;
    new.unread_by_staff := 0;
    new.unread_by_player := 0;
    new.staff_read_seq := 0;
    new.staff_read_at := null;
    new.player_read_seq := 0;
    new.player_read_at := null;
    new.last_message_at := null;
    new.waiting_since := null;
    new.changed_xid := pg_current_xact_id();
    new.created_at := clock_timestamp();
    new.updated_at := new.created_at;
    new.player_name := case when v_portal then gre.session_name(new.player_id, new.player_name) else gre.clean_name(new.player_name) end;
    new.status := coalesce(new.status, 'active');
    new.closed_at := case when new.status = 'closed' then new.created_at end;
    return new;
  end if;
  new.id := old.id;
  new.player_id := old.player_id;
  new.created_at := old.created_at;
  if v_portal then
    new.last_seq := old.last_seq;
    new.last_message_at := old.last_message_at;
    new.waiting_since := old.waiting_since;
    new.unread_by_staff := old.unread_by_staff;
    new.unread_by_player := old.unread_by_player;
    new.staff_read_seq := old.staff_read_seq;
    new.staff_read_at := old.staff_read_at;
    new.player_read_seq := old.player_read_seq;
    new.player_read_at := old.player_read_at;
    new.rev := old.rev;
    new.closed_at := old.closed_at;
  end if;
  -- Whoever writes: what was counted, told and read stays counted, told and read.
  new.last_seq := greatest(new.last_seq, old.last_seq);
  new.last_message_at := greatest(new.last_message_at, old.last_message_at);
  new.staff_read_seq := greatest(new.staff_read_seq, old.staff_read_seq);
  new.player_read_seq := greatest(new.player_read_seq, old.player_read_seq);
  new.rev := greatest(new.rev, old.rev + 1);
  new.updated_at := clock_timestamp();
  new.changed_xid := pg_current_xact_id();
  if new.status is distinct from old.status then
    new.closed_at := case when new.status = 'closed' then new.updated_at end;
  end if;
  if new.status = 'closed' then
    new.waiting_since := null;
  end if;
  return new;
end $$;

-- The same for presence. Staff say their status; the name is that of their row, and the times are the server's, with what gre_set_online_status
-- has set standing as long as it lies ahead. From the back end, times count where they are times.
create function gre.presence_checks() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_who gre.actor;
  v_id text := new.staff_id;
  v_name text;
begin
  if row_security_active('public.gre_online_status') then
    v_who := gre.who();
    if v_who.staff_id is null or v_id <> v_who.staff_id then
      perform gre.refuse_row('gre_online_status');
    elsif pg_column_size(new) > 65536 then
      perform gre.refuse(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
    v_name := coalesce(new.display_name, to_jsonb(new) ->> 'gre_name');
    v_id := coalesce(v_id, case tg_op when 'INSERT' then to_jsonb(new) ->> 'gre_id' end);
    if v_id is distinct from v_who.staff_id then
      perform gre.refuse_row('gre_online_status');
    elsif char_length(v_name) > 400 then
      perform gre.refuse(413, 'row_too_large', 'the name is longer than 400 characters');
    end if;
    new.display_name := gre.staff_name(v_who.staff_id, v_name);
    new.last_seen_at := clock_timestamp();
    new.updated_at := new.last_seen_at;
    new.expires_at := case when tg_op = 'UPDATE' and old.expires_at > new.last_seen_at then old.expires_at end;
  elsif current_user = 'service_role' then
    if char_length(new.staff_id) > 128 then
      perform gre.refuse(400, 'staff_invalid', 'staff_id is longer than 128 characters');
    end if;
    new.display_name := gre.clean_name(new.display_name);
    new.last_seen_at := case when isfinite(new.last_seen_at) then new.last_seen_at else clock_timestamp() end;
    new.updated_at := case when isfinite(new.updated_at) then new.updated_at else clock_timestamp() end;
    new.expires_at := case when isfinite(new.expires_at) then new.expires_at end;
  end if;
  return new;
end $$;
create trigger gre_check_presence before insert or update on public.gre_online_status
  for each row execute function gre.presence_checks();

-- And for pushes: an admin may queue one.
create function gre.push_checks() returns trigger
language plpgsql set search_path = '' as $$
begin
  if row_security_active('public.push_notifications') then
    if (gre.who()).role <> 'admin' then
      perform gre.refuse_row('push_notifications');
    elsif pg_column_size(new) > 65536 then
      perform gre.refuse(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
  end if;
  return new;
end $$;
create trigger gre_check_push before insert on public.push_notifications
  for each row execute function gre.push_checks();

-- The queue --------------------------------------------------------------------------------------------------

-- Sessions in the order that a desk works in: {"sessions": [S and "waiting_since", …], "next": cursor | null}. Open ones that wait for an
-- answer, the longest waiting first; open ones that are answered, the latest first; closed ones, the latest first.
-- p_status: active | closed; p_assigned: me | none | a staff id; p_player: a player's id, or how its name begins.
-- A session that moves while one is paging may be met twice or not at all; whatever stays where it is, once.
-- (Definer: under row-level security a name could not be looked up in an index.)
create function public.gre_session_queue(
  p_status text default null, p_assigned text default null, p_player text default null, p_limit integer default 50, p_cursor text default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_name text := lower(nullif(btrim(p_player), ''));
  v_player bigint := case when v_name ~ '^[0-9]{1,18}$' then v_name::bigint end;
  v_staff text := case p_assigned when 'me' then v_who.staff_id when 'none' then null else p_assigned end;
  v_free boolean := p_assigned = 'none';
  v_part integer := -1; -- where the page before ended: among 0 those that wait, 1 those that are answered, 2 the closed
  v_at timestamptz;
  v_id uuid;
  v_answer jsonb;
begin
  if p_status not in ('active', 'closed') then
    perform gre.refuse(400, 'status_unknown', 'status must be active or closed');
  elsif p_cursor is not null then
    if p_cursor !~ '^[012]_[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      perform gre.refuse(400, 'cursor_invalid', 'cursor is not one that this list gave');
    end if;
    v_part := split_part(p_cursor, '_', 1)::integer;
    v_at := timestamptz 'epoch' + split_part(p_cursor, '_', 2)::bigint * interval '1 microsecond';
    v_id := split_part(p_cursor, '_', 3)::uuid;
  end if;
  -- (Three ranges, each of an index in its own order. The planner sees the arguments, so what does not apply is not read.)
  with page as (
    (select s, 0 as part, s.waiting_since as at from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is not null and (p_status is null or p_status = 'active')
      and (p_assigned is null or case when v_free then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and v_part <= 0 and (v_part < 0 or (s.waiting_since, s.id) > (v_at, v_id))
    order by s.waiting_since, s.id limit v_limit + 1)
    union all
    (select s, 1, case when s.last_message_at is null then s.created_at else s.last_message_at end from public.gre_chat_sessions s
    where s.status <> 'closed' and s.waiting_since is null and (p_status is null or p_status = 'active')
      and (p_assigned is null or case when v_free then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and v_part <= 1 and (v_part < 1 or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id) < (v_at, v_id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc limit v_limit + 1)
    union all
    (select s, 2, case when s.last_message_at is null then s.created_at else s.last_message_at end from public.gre_chat_sessions s
    where s.status = 'closed' and (p_status is null or p_status = 'closed')
      and (p_assigned is null or case when v_free then s.assigned_staff_id is null else s.assigned_staff_id = v_staff end)
      and (v_name is null or s.player_id = v_player or lower(s.player_name) ^@ v_name)
      and (v_part < 2 or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id) < (v_at, v_id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc limit v_limit + 1)
  ), numbered as (
    select s, part, at, row_number() over (
      order by part, case part when 0 then at end, case part when 0 then (s).id end, at desc, (s).id desc) as n from page
  ), shown as (
    select n, part, at, (s).id as id, gre.session_json(s) || jsonb_build_object('waiting_since', gre.iso((s).waiting_since)) as told
    from numbered where n <= v_limit + 1
  ), sized as ( -- 1 MB at most
    select *, n <= v_limit and (n = 1 or sum(octet_length(told::text)) over (order by n) <= 1048576) as fits from shown
  )
  select jsonb_build_object(
    'sessions', coalesce(jsonb_agg(told order by n) filter (where fits), '[]'),
    'next', case when count(*) > count(*) filter (where fits) then (
      select x.part || '_' || (extract(epoch from x.at) * 1000000)::bigint || '_' || x.id from sized x where x.fits order by x.n desc limit 1) end)
  into v_answer from sized;
  return v_answer;
end $$;

-- Active staff and who of them is there: [{"staff_id", "display_name", "role", "status"}, …].
create function public.gre_list_staff() returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_who gre.actor := gre.staff_caller();
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('staff_id', s.staff_id, 'display_name', s.display_name, 'role', s.role,
        'status', gre.presence(o.status, o.last_seen_at, o.expires_at))
      order by lower(coalesce(s.display_name, s.staff_id)), s.staff_id), '[]')
    from public.gre_staff s left join public.gre_online_status o on o.staff_id = s.staff_id where s.active);
end $$;

-- What is known of a player: {"player_id", "display_name", "enabled"}. Unknown players are enabled.
create function public.gre_get_player(p_player_id bigint) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_who gre.actor := gre.staff_caller();
  v public.gre_chat_players;
begin
  if p_player_id is null or p_player_id not between 1 and 9007199254740991 then
    perform gre.refuse(400, 'player_invalid', 'player_id must be a whole number from 1 to 9007199254740991');
  end if;
  select * into v from public.gre_chat_players where player_id = p_player_id;
  return jsonb_build_object('player_id', p_player_id, 'display_name', v.display_name, 'enabled', coalesce(v.chat_enabled, true));
end $$;

-- Running it -------------------------------------------------------------------------------------------------

-- How the relay does, for staff: {"backlog", "oldest_age_seconds", "dead", "sinks": [{"name", "enabled", "pending", "dead", "blocked",
-- "oldest_age_seconds", "breaker", "last_error"}], "workers": [{"host", "version", "seen_seconds"}], "per_minute": [{"minute", "count"}]}.
-- "workers" are those that relay. Of a sink the worst that a daemon has said of it in the last minute. per_minute: deliveries done in each of the last 60 minutes.
create function public.gre_operations() returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_now timestamptz := clock_timestamp();
  v_minute timestamptz := date_trunc('minute', v_now);
  v_first timestamptz := v_minute - interval '59 minutes';
  v_sinks jsonb := gre.relay_stats();
begin
  return jsonb_build_object(
    'backlog', (select coalesce(sum((x ->> 'pending')::bigint), 0) from jsonb_array_elements(v_sinks) x),
    'oldest_age_seconds', (select max((x ->> 'oldest_age')::numeric) from jsonb_array_elements(v_sinks) x),
    'dead', (select coalesce(sum((x ->> 'dead')::bigint), 0) from jsonb_array_elements(v_sinks) x),
    'sinks', (
      select coalesce(jsonb_agg(jsonb_build_object('name', x -> 'sink', 'enabled', x -> 'enabled', 'pending', x -> 'pending', 'dead', x -> 'dead',
        'blocked', x -> 'lanes_blocked', 'oldest_age_seconds', x -> 'oldest_age', 'breaker', w.said -> 'breaker',
        'last_error', w.said -> 'error') order by x ->> 'sink'), '[]')
      from jsonb_array_elements(v_sinks) x
      left join lateral (
        select b.info -> 'sinks' -> (x ->> 'sink') as said from public.gre_relay_workers b
        where b.seen_at > v_now - interval '1 minute' and b.info -> 'sinks' -> (x ->> 'sink') is not null
        order by array_position(array['open', 'half_open', 'closed'], b.info -> 'sinks' -> (x ->> 'sink') ->> 'breaker'), b.seen_at desc
        limit 1) w on true),
    'workers', (
      select coalesce(jsonb_agg(jsonb_build_object('host', w.host, 'version', w.version,
        'seen_seconds', round(greatest(extract(epoch from v_now - w.seen_at), 0)::numeric, 1)) order by w.started_at), '[]')
      from public.gre_relay_workers w where w.info ->> 'process' is distinct from 'api'),
    'per_minute', (
      select jsonb_agg(jsonb_build_object('minute', gre.iso(m.at), 'count', coalesce(c.n, 0)) order by m.at)
      from generate_series(v_first, v_minute, interval '1 minute') m (at)
      left join (
        select date_trunc('minute', d.settled_at) as at, count(*) as n from public.gre_relay_deliveries d
        where d.state in ('done', 'expired') and d.state = 'done' and d.settled_at >= v_first -- (as the index says it)
        group by 1) c on c.at = m.at));
end $$;

create function gre.admin_caller() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_who gre.actor := gre.caller();
begin
  if v_who.role not in ('admin', 'service') then
    perform gre.refuse(403, 'admin_only', 'only an admin may do this');
  end if;
  return v_who;
end $$;

-- Dead letters, the latest first: {"dead": [{"id", "sink", "event", "session_id", "message_id", "attempts", "error", "created_at"}, …],
-- "next": cursor | null}. Ids, never text.
create function public.gre_dead_letters(p_sink text default null, p_limit integer default 50, p_cursor text default null) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = 'force_custom_plan' set enable_seqscan = off set jit = off as $$
declare
  v_who gre.actor := gre.admin_caller();
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_at timestamptz;
  v_id uuid;
  v_answer jsonb;
begin
  if p_cursor is not null then
    if p_cursor !~ '^[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      perform gre.refuse(400, 'cursor_invalid', 'cursor is not one that this list gave');
    end if;
    v_at := timestamptz 'epoch' + split_part(p_cursor, '_', 1)::bigint * interval '1 microsecond';
    v_id := split_part(p_cursor, '_', 2)::uuid;
  end if;
  with numbered as (
    select d.*, row_number() over (order by d.settled_at desc, d.id desc) as n
    from public.gre_relay_sinks k
    cross join lateral (
      select * from public.gre_relay_deliveries q
      where q.sink = k.name and q.state = 'dead' and (v_id is null or q.settled_at <= v_at and (q.settled_at, q.id) < (v_at, v_id))
      order by q.settled_at desc, q.id desc limit v_limit + 1) d
    where p_sink is null or k.name = p_sink
  )
  select jsonb_build_object(
    'dead', coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'sink', d.sink, 'event', d.event,
      'session_id', case when d.event <> 'push' then d.lane_key end, 'message_id', d.message_id, 'attempts', d.attempts,
      'error', d.last_error, 'created_at', gre.iso(d.created_at)) order by d.n) filter (where d.n <= v_limit), '[]'),
    'next', case when count(*) > v_limit then (
      select (extract(epoch from x.settled_at) * 1000000)::bigint || '_' || x.id from numbered x where x.n = v_limit) end)
  into v_answer from numbered d;
  return v_answer;
end $$;

-- Sends dead letters again, at most 100 a call; returns how many. What is not dead (any more) is left as it is.
create function public.gre_retry_dead(p_ids uuid[]) returns integer
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_who gre.actor := gre.admin_caller();
begin
  if p_ids is null or cardinality(p_ids) > 100 then
    perform gre.refuse(400, 'ids_invalid', 'ids must be at most 100 ids of dead letters');
  end if;
  return gre.retry_dead(p_ids, false);
end $$;

do $$
declare
  v record;
begin
  for v in
    select p.oid::regprocedure as f from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in (
      'gre_session_queue', 'gre_list_staff', 'gre_get_player', 'gre_operations', 'gre_dead_letters', 'gre_retry_dead')
  loop
    execute format('revoke execute on function %s from public, anon, authenticated, service_role', v.f);
    execute format('grant execute on function %s to authenticated, service_role', v.f);
  end loop;
end $$;
revoke execute on all functions in schema gre from public;
grant execute on function gre.check_assignee(text), gre.staff_name(text, text) to authenticated, service_role;

notify pgrst, 'reload schema';
