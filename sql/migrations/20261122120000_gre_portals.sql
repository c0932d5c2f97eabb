-- What portals call: functions that REST, the WebSocket and supabase-js share. Each is one transaction, asks
-- gre.caller() who is calling, and may be repeated where a client may retry.
--
-- Those that need nobody else's rows run with the caller's rights, so that row-level security judges them too.
set local lock_timeout = '300ms';
select gre.lock_tables();

-- Identity ------------------------------------------------------------------------------------------------

create function gre.refuse(p_status integer, p_code text, p_message text, p_detail text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code, detail = p_detail;
end $$;

-- A player's id as text, or null where it is none. JavaScript holds whole numbers up to 2^53 - 1: two greater ids would be one
-- player in every page.
create function gre.player_number(p_text text) returns bigint
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_text ~ '^[1-9][0-9]{0,15}$' and p_text::bigint <= 9007199254740991 then
    return p_text::bigint;
  end if;
  return null;
end $$;

-- As before, and: the portals' back end may speak for one person, which it names in a header. PostgREST hands
-- the request's headers over (`request.headers`); nothing but the service key gives this one a meaning.
--
-- Staff are active rows of gre_staff. A token's claim counts without a row only while the table is empty, so that a project
-- whose tokens say who its staff are can start; the header X-GRE-Act-As never does, since it is not signed by anybody who knows.
create or replace function gre.who() returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_role text := v_claims ->> 'role';
  v_app jsonb := v_claims -> 'app_metadata';
  v_said text := v_app ->> 'gre_role';
  v_nobody constant gre.actor := row('none', null, null)::gre.actor;
  v_act_as text;
  v_staff public.gre_staff;
  v_player bigint;
begin
  -- Without claims it is a direct connection (psql, a migration, a cron job). PostgREST always sets claims.
  if v_claims is null and session_user <> 'authenticator' then
    return row('service', null, null)::gre.actor;
  end if;
  if v_role = 'service_role' then
    v_act_as := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-gre-act-as';
    if v_act_as is null then
      return row('service', null, null)::gre.actor;
    elsif starts_with(v_act_as, 'player:') then
      v_player := gre.player_number(substr(v_act_as, 8));
      return case when v_player is null then v_nobody else row('player', v_player, null)::gre.actor end;
    elsif starts_with(v_act_as, 'staff:') then
      select * into v_staff from public.gre_staff where staff_id = substr(v_act_as, 7) and active;
      return case when not found then v_nobody else row(v_staff.role, null, v_staff.staff_id)::gre.actor end;
    end if;
    return v_nobody;
  end if;
  if v_role is distinct from 'authenticated' then
    return v_nobody;
  end if;

  if v_said in ('staff', 'admin') then
    if coalesce(char_length(v_app ->> 'staff_id'), 0) not between 1 and 128 then
      return v_nobody;
    end if;
    select * into v_staff from public.gre_staff where staff_id = v_app ->> 'staff_id';
    if (case when found then not v_staff.active else exists (select from public.gre_staff) end) then
      return v_nobody;
    end if;
    return row(v_said, null, v_app ->> 'staff_id')::gre.actor;
  elsif v_said = 'player' then
    v_player := gre.player_number(v_app ->> 'player_id');
    return case when v_player is null then v_nobody else row('player', v_player, null)::gre.actor end;
  end if;

  if (v_claims ->> 'sub') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return gre.who_is((v_claims ->> 'sub')::uuid);
  end if;
  return v_nobody;
end $$;

-- Whom a Supabase Auth user is mapped to.
create function gre.who_is(p_user uuid) returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_staff public.gre_staff;
  v_player bigint;
begin
  select * into v_staff from public.gre_staff where user_id = p_user;
  if found then
    return case when v_staff.active then row(v_staff.role, null, v_staff.staff_id)::gre.actor else row('none', null, null)::gre.actor end;
  end if;
  select player_id into v_player from public.gre_chat_players where user_id = p_user and player_id between 1 and 9007199254740991;
  return case when v_player is not null then row('player', v_player, null)::gre.actor else row('none', null, null)::gre.actor end;
end $$;

-- Who is calling, or a refusal that says what is missing.
create function gre.caller() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_who gre.actor := gre.who();
  v_role text;
begin
  if v_who.role = 'none' then
    v_role := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role';
    if v_role = 'service_role' then
      if starts_with(nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-gre-act-as', 'staff:') then
        perform gre.refuse(403, 'act_as_required', 'X-GRE-Act-As names nobody of the active staff (a row of gre_staff)');
      end if;
      perform gre.refuse(403, 'act_as_required', 'the service key speaks for nobody without X-GRE-Act-As: player:<id> or staff:<id> (of active staff)');
    elsif v_role is distinct from 'authenticated' then
      perform gre.refuse(401, 'not_authenticated', 'a user''s token is required');
    end if;
    perform gre.refuse(403, 'no_identity', 'this user is neither a player nor active staff');
  end if;
  return v_who;
end $$;

create function gre.staff_caller() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_who gre.actor := gre.caller();
begin
  if v_who.role not in ('staff', 'admin', 'service') then
    perform gre.refuse(403, 'staff_only', 'only staff may do this');
  end if;
  return v_who;
end $$;

-- (Crosses row-level security: anon asks too.)
create or replace function public.gre_whoami() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('role', w.role, 'player_id', w.player_id, 'staff_id', w.staff_id,
    'display_name', coalesce(p.display_name, s.display_name),
    'chat_enabled', case when w.role = 'player' then coalesce(p.chat_enabled, true) end,
    'user_id', case when c.claims ->> 'role' = 'authenticated' and w.role <> 'none'
                      and coalesce(c.claims -> 'app_metadata' ->> 'gre_role', '') not in ('player', 'staff', 'admin') then c.claims ->> 'sub' end,
    'expires_at', (c.claims ->> 'exp')::numeric)
  from gre.who() w
  cross join (select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims) c
  left join public.gre_chat_players p on p.player_id = w.player_id
  left join public.gre_staff s on s.staff_id = w.staff_id
$$;
comment on function public.gre_whoami() is
  'Who the caller is: role (service, admin, staff, player, none), player_id or staff_id, display_name, chat_enabled (players), user_id (of a user whom a row maps; null where the token itself says who it is), expires_at (unix seconds).';

-- Rules that the functions need -----------------------------------------------------------------------------

alter table public.gre_chat_sessions
  add column if not exists staff_read_at timestamptz,
  add column if not exists player_read_at timestamptz;
-- Sessions to which somebody wrote since the last file count as read up to what they say is unread.
select gre.backfill('public.gre_chat_sessions', $$
  update public.gre_chat_sessions set staff_read_seq = greatest(last_seq - unread_by_staff, 0),
    player_read_seq = greatest(last_seq - unread_by_player, 0)
  where staff_read_seq <> greatest(last_seq - unread_by_staff, 0) or player_read_seq <> greatest(last_seq - unread_by_player, 0)
$$);
comment on column public.gre_chat_sessions.staff_read_seq is
  'Up to which seq staff have read the player''s messages. Belongs to the server: call gre_mark_read.';
comment on column public.gre_chat_sessions.staff_read_at is 'When staff moved that mark. Belongs to the server.';
comment on column public.gre_chat_sessions.player_read_at is 'When the player moved its mark. Belongs to the server.';
alter table public.gre_online_status add column if not exists expires_at timestamptz;
comment on column public.gre_online_status.expires_at is 'When the status becomes offline unless a heartbeat moves it; null never.';
-- (Not coalesce(): that counts as leaky, so under row-level security a cursor could not be looked up in the index.)
create index gre_chat_sessions_latest on public.gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc);
create index gre_chat_sessions_latest_open on public.gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status <> 'closed';
alter table public.gre_chat_players add constraint gre_chat_players_id_known check (player_id between 1 and 9007199254740991) not valid;
create index gre_online_status_expiring on public.gre_online_status (expires_at) where status <> 'offline';

-- As before, with the marks of what was read among the columns that belong to the server.
create or replace function gre.session_changes() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_portal boolean := current_user in ('anon', 'authenticated', 'service_role');
begin
  if tg_op = 'INSERT' then
    if new.player_id is null or new.player_id <= 0 then
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
    new.created_at := clock_timestamp();
    new.updated_at := new.created_at;
    new.player_name := gre.clean_name(new.player_name);
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
    new.unread_by_staff := old.unread_by_staff;
    new.unread_by_player := old.unread_by_player;
    new.staff_read_seq := old.staff_read_seq;
    new.staff_read_at := old.staff_read_at;
    new.player_read_seq := old.player_read_seq;
    new.player_read_at := old.player_read_at;
    new.rev := old.rev;
    new.closed_at := old.closed_at;
  end if;
  new.rev := greatest(new.rev, old.rev + 1);
  new.updated_at := clock_timestamp();
  if new.status is distinct from old.status then
    new.closed_at := case when new.status = 'closed' then new.updated_at end;
  end if;
  return new;
end $$;

-- As before, with the sender's id among what stays.
create or replace function gre.message_keeps() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.id := old.id;
  new.session_id := old.session_id;
  new.seq := old.seq;
  new.player_id := old.player_id;
  new.sender := old.sender;
  new.sender_id := old.sender_id;
  new.message := old.message;
  new.created_at := old.created_at;
  if array_position(array['sent', 'delivered', 'read'], new.status) < array_position(array['sent', 'delivered', 'read'], old.status) then
    new.status := old.status;
  end if;
  return new;
end $$;

-- How many messages a player may send in how long, by whatever door. (The service key, when it speaks for
-- nobody, imports and replays: it has no limit.)
create function gre.pace_messages() returns integer language sql immutable parallel safe set search_path = '' as $$ select 120 $$;
create function gre.pace_window() returns interval language sql immutable parallel safe set search_path = '' as $$ select interval '1 minute' $$;

create function gre.check_pace(p_player_id bigint) returns void
language plpgsql volatile security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp(); -- (a volatile function in a condition keeps it off the index)
  v_since timestamptz := v_now - gre.pace_window();
  v_wait numeric;
begin
  -- (Adopted rows can be dated ahead: by a phone's clock, for years.)
  select extract(epoch from m.created_at + gre.pace_window() - v_now) into v_wait
  from public.gre_chat_messages m
  where m.player_id = p_player_id and m.sender = 'player' and m.created_at > v_since and m.created_at <= v_now
  order by m.created_at desc, m.id desc offset gre.pace_messages() - 1 limit 1;
  if v_wait > 0 then
    perform gre.refuse(429, 'too_fast', 'too many messages, wait a moment', 'retry_after=' || ceil(v_wait));
  end if;
end $$;

create function gre.message_paces() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_who gre.actor := gre.who();
begin
  if new.seq < 0 then -- its id exists (gre.message_arrives)
    -- What policies and checks look at must pass, so that the primary key decides.
    new.sender_id := case new.sender when 'player' then new.player_id::text else coalesce(v_who.staff_id, new.sender_id) end;
    new.sender_name := gre.clean_name(new.sender_name);
    new.status := 'sent';
  elsif new.sender = 'player' and v_who.role = 'player' then
    -- Runs after gre_message_arrives, so under the session's lock: senders of one player pass one by one.
    perform gre.check_pace(new.player_id);
  end if;
  return new;
end $$;
create trigger gre_message_paces before insert on public.gre_chat_messages
  for each row execute function gre.message_paces();

-- The daemon hears of people's changes by the same bell.
create function gre.people_changed() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_table_name = 'gre_online_status' then
    perform gre.ring(null);
  else
    -- A right changed: rare, and told always. An API process that watches people at Pusher alone does not look by itself.
    perform gre.send_wakeup(null);
  end if;
  return null;
end $$;
create trigger gre_players_changed after insert or delete or update of player_id, user_id, chat_enabled on public.gre_chat_players
  for each statement execute function gre.people_changed(); -- one ring, however many are enabled
create trigger gre_staff_changed after insert or delete or update of staff_id, user_id, role, active on public.gre_staff
  for each statement execute function gre.people_changed();
create trigger gre_online_changed after update on public.gre_online_status
  for each row when (old.status is distinct from new.status) execute function gre.people_changed();
create trigger gre_online_added after insert on public.gre_online_status
  for each row execute function gre.people_changed();

-- As before, in PL/pgSQL, which keeps its plans: in SQL these three were planned anew in each statement (50 messages: 2 ms).
create or replace function gre.iso(p_time timestamptz) returns text
language plpgsql stable parallel safe set search_path = '' as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end $$;

-- As before; without p_cut the last message is whole.
create or replace function gre.session_json(p_session public.gre_chat_sessions, p_cut integer default null) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return jsonb_build_object(
    'id', p_session.id, 'player_id', p_session.player_id, 'player_name', left(p_session.player_name, 200),
    'status', case when p_session.status = 'closed' then 'closed' else 'active' end,
    'assigned_staff_id', left(p_session.assigned_staff_id, 200), 'last_seq', p_session.last_seq, 'rev', p_session.rev,
    'unread_by_staff', p_session.unread_by_staff, 'unread_by_player', p_session.unread_by_player,
    'last_message', (select left(m.message, coalesce(p_cut, 4000)) from public.gre_chat_messages m
                     where m.session_id = p_session.id and m.seq = p_session.last_seq),
    'last_message_at', gre.iso(p_session.last_message_at), 'created_at', gre.iso(p_session.created_at),
    'closed_at', gre.iso(p_session.closed_at));
end $$;

-- M of the API: a message as readers see it.
create function gre.message_json(m public.gre_chat_messages) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_at constant text := gre.iso(m.created_at);
begin
  return jsonb_build_object('id', m.id, 'seq', m.seq, 'session_id', m.session_id, 'player_id', m.player_id,
    'player_name', m.player_name, 'message', m.message, 'sender', m.sender, 'sender_name', m.sender_name,
    'status', m.status, 'timestamp', v_at, 'created_at', v_at);
end $$;

create function gre.sender_word(p_sender text) returns text
language sql immutable set search_path = '' as $$
  select case when lower(p_sender) in ('gre', 'gre_staff', 'admin') then 'staff' else lower(p_sender) end
$$;

-- Sending ---------------------------------------------------------------------------------------------------

-- The message that has this id already, if it is the caller's own and the same; else a refusal that tells
-- nothing about it.
create function gre.sent_before(p_id uuid, p_sender text, p_player_id bigint, p_session_id uuid, p_message text)
returns public.gre_chat_messages
language plpgsql stable security definer set search_path = '' as $$
declare
  v_who gre.actor := gre.who();
  v public.gre_chat_messages;
begin
  select * into v from public.gre_chat_messages m
  where m.id = p_id and m.sender = p_sender and m.message = p_message
    and (p_player_id is null or m.player_id = p_player_id)
    and (p_sender = 'player' or p_session_id is null or m.session_id = p_session_id)
    and (v_who.role = 'service' or m.sender_id = coalesce(v_who.staff_id, v_who.player_id::text));
  if not found then
    perform gre.refuse(409, 'id_conflict', 'this id is taken');
  end if;
  return v;
end $$;

-- Sends one message as the caller: {"message": M, "duplicate": false}. A player's goes into its open session,
-- which is opened if there is none; staff's into the session or to the player that they name. With an id of the
-- client's own the call may be repeated: the second one changes nothing and says "duplicate".
create function public.gre_send_message(
  p_message text, p_player_id bigint default null, p_session_id uuid default null, p_id uuid default null,
  p_sender text default null, p_player_name text default null, p_sender_name text default null, p_metadata jsonb default null
) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_who gre.actor := gre.caller();
  v_sender text := coalesce(gre.sender_word(p_sender),
                            case v_who.role when 'player' then 'player' when 'service' then null else 'staff' end);
  v_player bigint := p_player_id;
  v_id uuid := coalesce(p_id, gen_random_uuid());
  v public.gre_chat_messages;
  v_duplicate boolean := false;
begin
  if v_who.role = 'player' then
    if v_sender <> 'player' then
      perform gre.refuse(403, 'sender_forged', 'a player sends as a player');
    elsif p_player_id <> v_who.player_id then
      perform gre.refuse(403, 'player_mismatch', 'this token does not speak for that player');
    end if;
    v_player := v_who.player_id;
  elsif v_who.role in ('staff', 'admin') then
    if v_sender <> 'staff' then
      perform gre.refuse(403, 'sender_forged', 'staff send as staff');
    elsif p_player_id is null and p_session_id is null then
      perform gre.refuse(400, 'target_missing', 'a session or a player is required');
    end if;
    if p_session_id is not null and not exists (select from public.gre_chat_sessions where id = p_session_id) then
      perform gre.refuse(404, 'session_unknown', 'there is no such session');
    end if;
  end if;
  insert into public.gre_chat_messages (id, session_id, player_id, player_name, sender, sender_id, sender_name, message, metadata)
  values (v_id, p_session_id, v_player, p_player_name, v_sender, v_who.staff_id, p_sender_name, p_message, p_metadata)
  on conflict (id) do nothing
  returning * into v;
  if not found then
    v := gre.sent_before(v_id, v_sender, v_player, p_session_id, p_message);
    v_duplicate := true;
  end if;
  return jsonb_build_object('message', gre.message_json(v), 'duplicate', v_duplicate);
end $$;

-- Staff's answer, to a session or to a player: as gre_send_message.
create function public.gre_staff_reply(
  p_message text, p_session_id uuid default null, p_player_id bigint default null, p_id uuid default null, p_metadata jsonb default null
) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_who gre.actor := gre.staff_caller();
begin
  return public.gre_send_message(p_message => p_message, p_player_id => p_player_id, p_session_id => p_session_id,
                                 p_id => p_id, p_sender => 'staff', p_metadata => p_metadata);
end $$;

-- Many at once, all or nothing: [{"message", "player_id"?, "session_id"?, "id"?, "sender"?, "player_name"?,
-- "sender_name"?, "metadata"?}, …], at most 500. Written in one statement and in the order of players, so that
-- two such calls cannot deadlock. Returns [{"id", "session_id", "seq", "duplicate"}, …] in the order given.
create function public.gre_send_messages(p_messages jsonb) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_who gre.actor := gre.caller();
  v_rows jsonb;
  v_sent uuid[];
  v_answer jsonb;
begin
  if jsonb_typeof(p_messages) is distinct from 'array' or jsonb_array_length(p_messages) > 500 then
    perform gre.refuse(400, 'messages_invalid', 'p_messages must be an array of at most 500 messages');
  elsif exists (select from jsonb_array_elements(p_messages) x where jsonb_typeof(x) <> 'object') then
    perform gre.refuse(400, 'messages_invalid', 'every message must be an object');
  end if;
  with given as materialized ( -- (cast before it is joined: see gre_catch_up)
    select n, x, (x ->> 'session_id')::uuid as session_id from jsonb_array_elements(p_messages) with ordinality t (x, n)
  )
  select coalesce(jsonb_agg(to_jsonb(r)), '[]') into v_rows from (
    select n, coalesce((x ->> 'id')::uuid, gen_random_uuid()) as id,
      -- A player's goes to the open session anyway; locking the closed one that it names, too, could deadlock.
      case when not (s.status = 'closed' and k.sender = 'player' and k.player_id = s.player_id) or s.id is null
        then g.session_id end as session_id,
      k.player_id, k.sender,
      x ->> 'player_name' as player_name, x ->> 'sender_name' as sender_name, x ->> 'message' as message, x -> 'metadata' as metadata
    from given g
    left join lateral (select q.id, q.player_id, q.status from public.gre_chat_sessions q where q.id = g.session_id limit 1) s on true
    cross join lateral (
      select coalesce((x ->> 'player_id')::bigint, v_who.player_id, s.player_id) as player_id,
        coalesce(gre.sender_word(x ->> 'sender'),
                 case v_who.role when 'player' then 'player' when 'service' then null else 'staff' end) as sender) k
  ) r;
  if v_who.role = 'player' and exists (select from jsonb_array_elements(v_rows) r where r ->> 'sender' <> 'player') then
    perform gre.refuse(403, 'sender_forged', 'a player sends as a player');
  elsif v_who.role = 'player' and exists (select from jsonb_array_elements(v_rows) r where (r ->> 'player_id')::bigint <> v_who.player_id) then
    perform gre.refuse(403, 'player_mismatch', 'this token does not speak for that player');
  elsif v_who.role in ('staff', 'admin') and exists (select from jsonb_array_elements(v_rows) r where r ->> 'sender' <> 'staff') then
    perform gre.refuse(403, 'sender_forged', 'staff send as staff');
  end if;
  with sent as (
    insert into public.gre_chat_messages (id, session_id, player_id, player_name, sender, sender_id, sender_name, message, metadata)
    select r.id, r.session_id, r.player_id, r.player_name, r.sender, v_who.staff_id, r.sender_name, r.message, r.metadata
    from jsonb_to_recordset(v_rows) r (n bigint, id uuid, session_id uuid, player_id bigint, sender text, player_name text,
                                       sender_name text, message text, metadata jsonb)
    order by r.player_id, r.n
    on conflict (id) do nothing
    returning id
  )
  select coalesce(array_agg(id), '{}') into v_sent from sent;
  select coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'session_id', m.session_id, 'seq', m.seq,
                                               'duplicate', not r.id = any (v_sent) or r.nth > 1) order by r.n), '[]')
    into v_answer
  from (
    select q.*, row_number() over (partition by q.id order by q.n) as nth
    from jsonb_to_recordset(v_rows) q (n bigint, id uuid, session_id uuid, player_id bigint, sender text, message text)
  ) r
  cross join lateral gre.sent_before(r.id, r.sender, r.player_id, r.session_id, r.message) m;
  return v_answer;
end $$;

-- Reading ---------------------------------------------------------------------------------------------------

-- One page of a conversation: {"messages": [M, …] ascending, "next": id | null, "has_more": bool, "session": S | null,
-- "sessions": [S, …]}. Of one session or of all sessions of a player; the newest page, or the one before a message
-- (p_before, p_before_seq), or what came after p_after_seq. "next" is what p_before takes for the page before. A page
-- ends before p_limit where it would be longer than 1 MB (with p_sessions 512 KB); it has one message at least.
create function public.gre_chat_history(
  p_player_id bigint default null, p_session_id uuid default null, p_before uuid default null,
  p_before_seq bigint default null, p_after_seq bigint default null, p_limit integer default 200, p_sessions boolean default false
) returns jsonb
language plpgsql stable set search_path = '' set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$ -- pages are read in the order of an index
declare
  v_who gre.actor := gre.caller();
  v_player bigint := coalesce(p_player_id, v_who.player_id);
  v_limit integer := least(greatest(coalesce(p_limit, 200), 1), 500);
  v_session public.gre_chat_sessions;
  v_edge public.gre_chat_messages;
  v_rows refcursor;
  v_row public.gre_chat_messages;
  v_json jsonb;
  v_page jsonb[] := '{}';
  v_bytes integer := 0;
  v_most integer := case when p_sessions then 524288 else 1048576 end; -- with sessions each message is told twice
  v_more boolean := false;
  v_known uuid[] := '{}';
  v_sessions jsonb[] := '{}';
begin
  if v_who.role = 'player' and v_player <> v_who.player_id then
    perform gre.refuse(403, 'player_mismatch', 'this token does not speak for that player');
  elsif v_player is null and p_session_id is null then
    perform gre.refuse(400, 'target_missing', 'a session or a player is required');
  elsif p_session_id is null and (p_before_seq is not null or p_after_seq is not null) then
    perform gre.refuse(400, 'session_missing', 'paging by seq needs a session');
  end if;
  if p_session_id is not null then
    select * into v_session from public.gre_chat_sessions where id = p_session_id and player_id = coalesce(v_player, player_id);
    if not found then
      perform gre.refuse(404, 'session_unknown', 'there is no such session');
    end if;
  end if;
  if p_before is not null then
    select * into v_edge from public.gre_chat_messages
    where id = p_before and player_id = coalesce(v_player, v_session.player_id) and session_id = coalesce(p_session_id, session_id);
    if not found then
      perform gre.refuse(404, 'message_unknown', 'there is no such message here');
    end if;
  end if;

  -- From the page's fixed end: the oldest after p_after_seq, else the newest. One more than asked for tells whether there are more.
  if p_after_seq is not null then
    open v_rows for select * from public.gre_chat_messages where session_id = p_session_id and seq > p_after_seq
      order by seq limit v_limit + 1;
  elsif p_session_id is not null then
    open v_rows for select * from public.gre_chat_messages
      where session_id = p_session_id and seq < least(p_before_seq, v_edge.seq, v_session.last_seq + 1)
      order by seq desc limit v_limit + 1;
  elsif v_edge.id is not null then
    open v_rows for select * from public.gre_chat_messages
      where player_id = v_player and (created_at, id) < (v_edge.created_at, v_edge.id)
      order by created_at desc, id desc limit v_limit + 1;
  else
    open v_rows for select * from public.gre_chat_messages where player_id = v_player
      order by created_at desc, id desc limit v_limit + 1;
  end if;
  loop
    fetch v_rows into v_row;
    exit when not found;
    v_more := cardinality(v_page) = v_limit;
    exit when v_more;
    v_json := gre.message_json(v_row);
    v_bytes := v_bytes + octet_length(v_json::text);
    if p_sessions and not v_row.session_id = any (v_known) then
      v_known := v_known || v_row.session_id;
      v_sessions := v_sessions || (select gre.session_json(s) from public.gre_chat_sessions s where s.id = v_row.session_id);
      v_bytes := v_bytes + coalesce(octet_length(v_sessions[cardinality(v_sessions)]::text), 0);
    end if;
    v_more := v_bytes > v_most and cardinality(v_page) > 0;
    exit when v_more;
    v_page := v_page || v_json;
  end loop;
  close v_rows;
  return jsonb_build_object('messages', (
      select coalesce(jsonb_agg(x.m order by case when p_after_seq is null then -x.n else x.n end), '[]')
      from unnest(v_page) with ordinality x (m, n)),
    'has_more', v_more,
    'next', case when v_more and p_after_seq is null then v_page[cardinality(v_page)] -> 'id' end,
    'session', case when p_session_id is not null then gre.session_json(v_session) end,
    'sessions', case when p_sessions then (
      select coalesce(jsonb_agg(x.s order by x.s ->> 'created_at', x.s ->> 'id'), '[]') from unnest(v_sessions) x (s)
      where exists (select from unnest(v_page) m where m ->> 'session_id' = x.s ->> 'id')) end);
end $$;

-- Sessions, latest activity first: {"sessions": [S, …], "next": cursor | null}. A player sees its own.
-- p_status: active | closed; p_assigned: me | none | a staff id; p_cursor: "next" of the page before.
create function public.gre_list_sessions(
  p_status text default null, p_assigned text default null, p_limit integer default 50, p_cursor text default null
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_who gre.actor := gre.caller();
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_at timestamptz;
  v_id uuid;
  v_answer jsonb;
begin
  if p_status not in ('active', 'closed') then
    perform gre.refuse(400, 'status_unknown', 'status must be active or closed');
  end if;
  if p_cursor is not null then
    if p_cursor !~ '^[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      perform gre.refuse(400, 'cursor_invalid', 'cursor is not one that this list gave');
    end if;
    v_at := timestamptz 'epoch' + split_part(p_cursor, '_', 1)::bigint * interval '1 microsecond';
    v_id := split_part(p_cursor, '_', 2)::uuid;
  end if;
  with page as (
    select s, case when s.last_message_at is null then s.created_at else s.last_message_at end as at from public.gre_chat_sessions s
    where (p_status is null or case p_status when 'closed' then s.status = 'closed' else s.status <> 'closed' end)
      and (v_who.role <> 'player' or s.player_id = v_who.player_id)
      and (p_assigned is null or case p_assigned when 'none' then s.assigned_staff_id is null
                                   when 'me' then s.assigned_staff_id = v_who.staff_id else s.assigned_staff_id = p_assigned end)
      and (v_id is null or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id) < (v_at, v_id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
    limit v_limit + 1
  ), numbered as (
    select at, (s).id as id, gre.session_json(s) as told, row_number() over (order by at desc, (s).id desc) as n from page
  ), sized as ( -- 1 MB at most
    select *, n <= v_limit and (n = 1 or sum(octet_length(told::text)) over (order by n) <= 1048576) as fits from numbered
  )
  select jsonb_build_object(
    'sessions', coalesce(jsonb_agg(told order by n) filter (where fits), '[]'),
    'next', case when count(*) > count(*) filter (where fits) then (
      select (extract(epoch from x.at) * 1000000)::bigint || '_' || x.id from sized x where x.fits order by x.n desc limit 1) end)
  into v_answer from sized;
  return v_answer;
end $$;

-- What a reader that comes back has missed: {"sessions": [S, …], "missed": [M, …] in order of session and seq}.
-- Sessions: those that p_since names ({"<session id>": last seq seen}) and the caller's latest, open ones first. Missed: what is
-- newer than that; of a session that p_since does not name, what is newer than the newest message that p_since names (less a minute), be
-- the session open or closed by now; with nothing named, all of the open ones. Of one session the newest p_limit, of all p_total.
-- "positions" says for each session with something missed from which seq on ({"<session id>": last seq seen}), whatever p_limit and p_total are;
-- with p_total 0 there is nothing else, and last messages are cut: for who reads page by page.
create function public.gre_catch_up(p_since jsonb default null, p_limit integer default 200, p_total integer default 2000) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = 'force_custom_plan' set jit = off
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_who gre.actor := gre.caller();
  v_limit integer := least(greatest(coalesce(p_limit, 200), 1), 500);
  v_total integer := least(greatest(coalesce(p_total, 2000), 0), 5000);
  v_named jsonb := '{}';
  v_from timestamptz;
  v_answer jsonb;
begin
  if p_since is not null and jsonb_typeof(p_since) not in ('object', 'null') then
    perform gre.refuse(400, 'since_invalid', 'since must be an object of session ids and seqs');
  end if;
  if jsonb_typeof(p_since) = 'object' then
    select coalesce(jsonb_object_agg(lower(k), floor(least(n, 9e15))::bigint), '{}') into v_named
    from jsonb_each(p_since) t (k, x)
    cross join lateral (select case when jsonb_typeof(x) = 'number' then (x #>> '{}')::numeric end as n) v
    where k ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and n >= 0;
  end if;
  -- (Cast first, then joined: under row-level security a join on a cast would read every message.)
  with named as materialized (select k::uuid as id, seq::bigint as seq from jsonb_each_text(v_named) t (k, seq))
  select max(m.created_at) - interval '1 minute' into v_from
  from named n
  join public.gre_chat_messages m on m.session_id = n.id and m.seq = n.seq and (v_who.role <> 'player' or m.player_id = v_who.player_id);

  with listed as materialized (
    select s.id from (
      select q.id from public.gre_chat_sessions q
      where q.status <> 'closed' and (v_who.role <> 'player' or q.player_id = v_who.player_id)
      order by case when q.last_message_at is null then q.created_at else q.last_message_at end desc, q.id desc limit 100) s
    union
    select r.id from (
      select q.id from public.gre_chat_sessions q
      where case when q.last_message_at is null then q.created_at else q.last_message_at end > v_from
        and (v_who.role <> 'player' or q.player_id = v_who.player_id)
      order by case when q.last_message_at is null then q.created_at else q.last_message_at end desc, q.id desc limit 200) r
    union
    select k::uuid from jsonb_each(v_named) t (k, x)
  ), seen as materialized (
    select p.s, p.seq, greatest((p.s).last_seq - v_limit, p.seq) as start from (
      select s, coalesce((v_named ->> s.id::text)::bigint,
        case when p_since is null then s.last_seq
             when v_from is null then case when s.status = 'closed' then s.last_seq else greatest(s.last_seq - v_limit, 0) end
             else coalesce((select m.seq from public.gre_chat_messages m where m.session_id = s.id and m.created_at <= v_from
                            order by m.seq desc limit 1), 0) end) as seq
      from listed l join public.gre_chat_sessions s on s.id = l.id
      where v_who.role <> 'player' or s.player_id = v_who.player_id) p
  ), missed as (
    select m.m as m from seen
    cross join lateral (
      select m from public.gre_chat_messages m
      where m.session_id = (seen.s).id and m.seq > seen.start
    ) m
    order by coalesce((seen.s).last_message_at, (seen.s).created_at) desc, (m.m).session_id, (m.m).seq desc
    limit v_total
  )
  select jsonb_build_object(
    'sessions', (select coalesce(jsonb_agg(gre.session_json(s, case v_total when 0 then 200 end) order by (s).status = 'closed',
                                           coalesce((s).last_message_at, (s).created_at) desc, (s).id), '[]') from seen),
    'positions', (select coalesce(jsonb_object_agg((seen.s).id, seen.seq), '{}') from seen where seen.seq < (seen.s).last_seq),
    'missed', (select coalesce(jsonb_agg(gre.message_json(m) order by (m).session_id, (m).seq), '[]') from missed))
  into v_answer;
  return v_answer;
end $$;

-- Marks and states -------------------------------------------------------------------------------------------

-- The caller's side has read the other's messages up to a seq:
-- {"session_id", "by": "player"|"staff", "up_to_seq", "timestamp", "changed"}. Marks never go back.
create function public.gre_mark_read(p_session_id uuid, p_up_to_seq bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.caller();
  v_by text := case v_who.role when 'player' then 'player' else 'staff' end;
  v_session public.gre_chat_sessions;
  v_old bigint;
  v_to bigint;
  v_now timestamptz;
  v_unread integer;
  v_data jsonb;
begin
  if v_who.role = 'service' then
    perform gre.refuse(403, 'act_as_required', 'only a person reads: name one in X-GRE-Act-As');
  elsif p_up_to_seq is null or p_up_to_seq < 0 then
    perform gre.refuse(400, 'seq_invalid', 'the seq must be a whole number from 0');
  end if;
  select * into v_session from public.gre_chat_sessions
  where id = p_session_id and (v_by = 'staff' or player_id = v_who.player_id) for no key update;
  if not found then
    perform gre.refuse(404, 'session_unknown', 'there is no such session');
  end if;
  if pg_trigger_depth() > 0 then
    perform gre.settle_session(p_session_id);
    select * into v_session from public.gre_chat_sessions where id = p_session_id;
  end if;
  v_old := case v_by when 'player' then v_session.player_read_seq else v_session.staff_read_seq end;
  v_to := least(p_up_to_seq, v_session.last_seq);
  if v_to <= v_old then
    return jsonb_build_object('session_id', p_session_id, 'by', v_by, 'up_to_seq', v_old, 'changed', false,
      'timestamp', gre.iso(case v_by when 'player' then v_session.player_read_at else v_session.staff_read_at end));
  end if;
  v_now := clock_timestamp();
  update public.gre_chat_messages set status = 'read'
  where session_id = p_session_id and seq > v_old and seq <= v_to and status <> 'read' and (sender = 'player') = (v_by = 'staff');
  select count(*) into v_unread from public.gre_chat_messages
  where session_id = p_session_id and seq > v_to and (sender = 'player') = (v_by = 'staff');
  if v_by = 'player' then
    update public.gre_chat_sessions set player_read_seq = v_to, player_read_at = v_now, unread_by_player = v_unread
    where id = p_session_id;
  else
    update public.gre_chat_sessions set staff_read_seq = v_to, staff_read_at = v_now, unread_by_staff = v_unread
    where id = p_session_id;
  end if;
  v_data := jsonb_build_object('session_id', p_session_id, 'by', v_by, 'up_to_seq', v_to, 'timestamp', gre.iso(v_now));
  perform gre.announce(array['pusher'], p_session_id::text, 'read', v_data || jsonb_build_object('player_id', v_session.player_id));
  perform gre.ring(array[p_session_id]);
  return v_data || '{"changed": true}';
end $$;

-- "assigned" (to the caller, or to p_staff_id) | "active" (to nobody; reopens a closed session) | "closed": {"session": S}.
create function public.gre_set_session_status(p_session_id uuid, p_status text, p_staff_id text default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_staff text := coalesce(p_staff_id, v_who.staff_id);
  v_session public.gre_chat_sessions;
begin
  if p_status is null or p_status not in ('active', 'assigned', 'closed') then
    perform gre.refuse(400, 'status_unknown', 'status must be active, assigned or closed');
  end if;
  select * into v_session from public.gre_chat_sessions where id = p_session_id for no key update;
  if not found then
    perform gre.refuse(404, 'session_unknown', 'there is no such session');
  end if;
  if p_status = 'assigned' then
    if v_staff is null then
      perform gre.refuse(400, 'staff_missing', 'to whom it is assigned must be said');
    elsif v_staff is distinct from v_who.staff_id and not exists (select from public.gre_staff where staff_id = v_staff and active) then
      perform gre.refuse(404, 'staff_unknown', 'there is no such active staff member');
    elsif v_session.status = 'closed' then
      perform gre.refuse(409, 'session_closed', 'session is closed');
    end if;
  elsif p_status = 'active' and v_session.status = 'closed' then
    if exists (select from public.gre_chat_sessions where player_id = v_session.player_id and status <> 'closed') then
      perform gre.refuse(409, 'session_open', 'the player has another open session');
    end if;
  end if;
  update public.gre_chat_sessions s set
    status = case when p_status = 'closed' then 'closed' when s.status = 'closed' then 'active' else s.status end,
    assigned_staff_id = case p_status when 'assigned' then v_staff when 'active' then null else s.assigned_staff_id end
  where s.id = p_session_id and (
    (s.status = 'closed') <> (p_status = 'closed')
    or p_status = 'assigned' and s.assigned_staff_id is distinct from v_staff
    or p_status = 'active' and s.assigned_staff_id is not null)
  returning * into v_session;
  if not found then
    select * into v_session from public.gre_chat_sessions where id = p_session_id;
  end if;
  return jsonb_build_object('session', gre.session_json(v_session));
exception when unique_violation then -- another session was opened in this very moment
  perform gre.refuse(409, 'session_open', 'the player has another open session');
end $$;

-- Closes the player's open session, if there is one: {"session": S | null}.
create function public.gre_close_session(p_player_id bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_session public.gre_chat_sessions;
begin
  update public.gre_chat_sessions set status = 'closed' where player_id = p_player_id and status <> 'closed'
  returning * into v_session;
  return jsonb_build_object('session', case when v_session.id is not null then gre.session_json(v_session) end);
end $$;

-- {"player_id", "enabled"}
create function public.gre_enable_player(p_player_id bigint, p_enabled boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.staff_caller();
begin
  if p_player_id is null or p_player_id not between 1 and 9007199254740991 then
    perform gre.refuse(400, 'player_invalid', 'player_id must be a whole number from 1 to 9007199254740991');
  elsif p_enabled is null then
    perform gre.refuse(400, 'enabled_invalid', 'enabled must be true or false');
  end if;
  insert into public.gre_chat_players as p (player_id, chat_enabled) values (p_player_id, p_enabled)
  on conflict (player_id) do update set chat_enabled = excluded.chat_enabled, updated_at = clock_timestamp()
    where p.chat_enabled is distinct from excluded.chat_enabled;
  return jsonb_build_object('player_id', p_player_id, 'enabled', p_enabled);
end $$;

-- How many players were enabled that were not.
create function public.gre_enable_all_players() returns integer
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_count integer;
begin
  update public.gre_chat_players set chat_enabled = true, updated_at = clock_timestamp() where not chat_enabled;
  get diagnostics v_count = row_count;
  return v_count;
end $$;

-- The caller's own presence: {"staff_id", "display_name", "status"}. With p_expires_in (seconds) it becomes
-- offline by itself unless it is set again.
create function public.gre_set_online_status(p_status text, p_expires_in numeric default null) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_who gre.actor := gre.staff_caller();
  v_until timestamptz := case when p_expires_in is not null -- greatest() takes null for nothing
    then clock_timestamp() + least(greatest(p_expires_in, 1), 86400) * interval '1 second' end;
  v public.gre_online_status;
begin
  if v_who.staff_id is null then
    perform gre.refuse(403, 'act_as_required', 'only a person is online: name one in X-GRE-Act-As');
  elsif p_status is null or p_status not in ('online', 'away', 'offline') then
    perform gre.refuse(400, 'status_unknown', 'status must be online, away or offline');
  end if;
  insert into public.gre_online_status as o (staff_id, display_name, status, last_seen_at, updated_at, expires_at)
  values (v_who.staff_id, (select gre.clean_name(s.display_name) from public.gre_staff s where s.staff_id = v_who.staff_id), p_status,
          clock_timestamp(), clock_timestamp(), case when p_status <> 'offline' then v_until end)
  on conflict (staff_id) do update set display_name = coalesce(excluded.display_name, o.display_name), status = excluded.status,
    last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at, expires_at = excluded.expires_at
  returning * into v;
  return jsonb_build_object('staff_id', v.staff_id, 'display_name', v.display_name, 'status', v.status);
end $$;

-- Forgets a player: messages, sessions, pushes and profile (but not that its chat is off). Admins and the back end. {"messages", "sessions", "pushes"}.
-- (What went to Pusher and OneSignal is theirs to forget.)
create function public.gre_erase_player(p_player_id bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '5s' as $$
declare
  v_who gre.actor := gre.caller();
  v_sessions uuid[];
  v_lanes text[];
  v_pushes integer;
  v_messages integer;
  -- OneSignal's id of a player, as the daemons make it (GRE_PUSH_PLAYER_EXTERNAL_ID).
  v_external text := (select replace(player_external_id, '{player_id}', p_player_id::text) from gre.settings);
begin
  if v_who.role not in ('admin', 'service') then
    perform gre.refuse(403, 'admin_only', 'only an admin may do this');
  end if;
  -- In the order of everybody else: sessions, lanes, deliveries. A settle that comes later writes no receipt for
  -- deliveries that are gone; one that came first has written it before the pushes are looked for.
  select coalesce(array_agg(s.id), '{}') into v_sessions from (
    select id from public.gre_chat_sessions where player_id = p_player_id order by id for update) s;
  v_lanes := v_sessions::text[];
  update public.gre_relay_lanes set ready_at = null where lane_key = any (v_lanes);
  delete from public.gre_relay_deliveries where lane_key = any (v_lanes);
  with gone as (
    delete from public.push_notifications n
    where n.message_id in (select m.id from public.gre_chat_messages m where m.session_id = any (v_sessions))
      or n.data ->> 'session_id' = any (v_lanes) or n.data ->> 'player_id' = p_player_id::text
      or n.audience = 'player' and n.recipients && array[p_player_id::text, 'player_' || p_player_id, v_external]
    returning 'push:' || n.id as lane
  )
  select count(*), coalesce(array_agg(lane), '{}') into v_pushes, v_lanes from gone;
  update public.gre_relay_lanes set ready_at = null where lane_key = any (v_lanes);
  delete from public.gre_relay_deliveries where lane_key = any (v_lanes);
  delete from public.gre_chat_messages where session_id = any (v_sessions);
  get diagnostics v_messages = row_count;
  delete from public.gre_chat_sessions where id = any (v_sessions);
  -- Whom staff have turned off stays off: of that row the ban is kept, and nothing else.
  delete from public.gre_chat_players where player_id = p_player_id and chat_enabled;
  update public.gre_chat_players set user_id = null, display_name = null, updated_at = clock_timestamp() where player_id = p_player_id;
  return jsonb_build_object('messages', v_messages, 'sessions', cardinality(v_sessions), 'pushes', v_pushes);
end $$;

-- As before, and: of a player that was erased while a push was on its way, no receipt comes back. (Never waits: a
-- delivery that is being deleted is skipped.)
create or replace function gre.write_receipts(p_results jsonb, p_held text[]) returns void
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
  where x ->> 'push_id' is null and (x ->> 'delivery_id')::uuid in (
    select d.id from public.gre_relay_deliveries d
    where d.id in (select (y ->> 'delivery_id')::uuid from jsonb_array_elements(p_results) q, jsonb_array_elements(q -> 'receipts') y)
    for key share skip locked)
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

-- Says that a Supabase Auth user is this player or this staff member, for tokens without claims of ours; null for
-- both ends it. The back end alone.
create function public.gre_link_user(p_user_id uuid, p_player_id bigint default null, p_staff_id text default null) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
  if (gre.caller()).role <> 'service' then
    perform gre.refuse(403, 'service_only', 'only the back end may do this');
  elsif p_user_id is null or (p_player_id is not null and p_staff_id is not null)
    or p_player_id not between 1 and 9007199254740991 or char_length(p_staff_id) not between 1 and 128 then
    perform gre.refuse(400, 'link_invalid', 'a user is one player or one staff member');
  end if;
  update public.gre_chat_players set user_id = null where user_id = p_user_id and player_id is distinct from p_player_id;
  update public.gre_staff set user_id = null where user_id = p_user_id and staff_id is distinct from p_staff_id;
  if p_player_id is not null then
    insert into public.gre_chat_players (player_id, user_id) values (p_player_id, p_user_id)
    on conflict (player_id) do update set user_id = excluded.user_id;
  elsif p_staff_id is not null then
    insert into public.gre_staff (staff_id, user_id) values (p_staff_id, p_user_id)
    on conflict (staff_id) do update set user_id = excluded.user_id;
  end if;
end $$;

-- For the daemon's sockets --------------------------------------------------------------------------------------

-- What is newer than what a daemon has told its sockets: {"now", "sessions": [{"session": S, "reads": {"staff": [seq, at], "player": […]},
-- "messages": [M, …], "more": bool}], "more": bool, "left": [ids]}. Of the sessions named in p_sessions, and of those that changed since
-- p_since, where p_known ({"<id>": [seq, rev]}) is behind. Of a session that p_known does not name: messages since p_epoch. It is stable, so
-- all of it is of one snapshot and seq and rev belong together. p_players limits it to the sessions of these players.
-- Bounded by its product: p_limit messages of a session, and some p_bytes in all. `left` are the sessions that this left out.
create function public.gre_hub_news(
  p_known jsonb default '{}', p_sessions uuid[] default '{}', p_since timestamptz default null, p_epoch timestamptz default null,
  p_players bigint[] default null, p_limit integer default 200, p_bytes integer default 1000000
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_ids uuid[] := p_sessions;
  v_found jsonb[] := '{}';
  v_left uuid[] := '{}';
  v_count integer := 0;
  v_bytes bigint := 0;
  v_entry jsonb;
  v record;
begin
  perform gre.require_worker();
  -- (By themselves, in the order of updated_at: beside the named ones they would be walked from the oldest session on.)
  if p_since is not null then
    v_ids := v_ids || array(
      select s.id from public.gre_chat_sessions s
      where s.updated_at > p_since and (p_players is null or s.player_id = any (p_players))
        and s.rev > coalesce((p_known -> s.id::text ->> 1)::bigint, 0)
      order by s.updated_at limit 500);
  end if;
  for v in
    select s, k.known, coalesce((k.known ->> 0)::bigint, 0) as seq
    from public.gre_chat_sessions s
    cross join lateral (select p_known -> s.id::text as known) k
    where s.id = any (v_ids) and (p_players is null or s.player_id = any (p_players)) and s.rev > coalesce((k.known ->> 1)::bigint, 0)
    order by s.updated_at limit 500
  loop
    v_count := v_count + 1;
    if v_bytes >= p_bytes then
      v_left := v_left || (v.s).id;
      continue;
    end if;
    select jsonb_build_object('session', gre.session_json(v.s),
        'reads', jsonb_build_object('staff', jsonb_build_array((v.s).staff_read_seq, gre.iso((v.s).staff_read_at)),
                                    'player', jsonb_build_array((v.s).player_read_seq, gre.iso((v.s).player_read_at))),
        'messages', coalesce(jsonb_agg(gre.message_json(x.m) order by (x.m).seq) filter (where x.fits), '[]'),
        'more', count(*) >= p_limit or not coalesce(bool_and(x.fits), true))
    into v_entry
    from (
      -- (The first one always fits.)
      select y.m, sum(y.size) over (order by (y.m).seq) - y.size < p_bytes - v_bytes as fits from (
        select m, octet_length(m.message) + 400 as size from public.gre_chat_messages m
        where m.session_id = (v.s).id and m.seq > v.seq and (v.known is not null or m.created_at > p_epoch)
        order by m.seq limit p_limit) y) x;
    v_found := v_found || v_entry;
    v_bytes := v_bytes + pg_column_size(v_entry);
  end loop;
  return jsonb_build_object('now', clock_timestamp(), 'more', v_count >= 500 or cardinality(v_left) > 0, 'left', to_jsonb(v_left),
    'others', case when p_players is null then '[]' else (
      select coalesce(jsonb_agg(s.id), '[]') from public.gre_chat_sessions s where s.id = any (p_sessions) and s.player_id <> all (p_players)) end,
    'sessions', to_jsonb(v_found));
end $$;

-- Which of these identities no longer hold: [{"sub", "role", "player_id", "staff_id"}, …] as gre_whoami told them, sub being its
-- user_id: null where the token itself, or X-GRE-Act-As, said who it is. The lost ones come back as they were given.
create function gre.lost_identities(p_identities jsonb) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_agg(i.x), '[]')
    from jsonb_array_elements(p_identities) i (x)
    cross join lateral (
      select nullif(i.x ->> 'sub', '') as sub, i.x ->> 'role' as role, i.x ->> 'staff_id' as staff_id, (i.x ->> 'player_id')::bigint as player_id) w
    left join public.gre_staff s on s.staff_id = w.staff_id
    where case
      when w.sub !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then true
      when w.sub is not null then (
        select row(m.role, m.player_id, m.staff_id) is distinct from row(w.role, w.player_id, w.staff_id) from gre.who_is(w.sub::uuid) m)
      when w.staff_id is null then false
      when s.staff_id is null then exists (select from public.gre_staff)
      else not s.active end);
end $$;

-- The heartbeat of staff with sockets here, and who is there: {"online": [{"staff_id", "display_name", "status"}],
-- "gone": [staff ids of p_staff that are no longer active], "disabled": [player ids of p_players], "lost": [those of p_identities
-- that no longer hold, see gre.lost_identities]}.
create function public.gre_hub_presence(p_staff text[], p_players bigint[], p_expires_in numeric, p_identities jsonb default '[]') returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lost jsonb;
  v_staff text[];
begin
  perform gre.require_worker();
  if jsonb_typeof(p_identities) is distinct from 'array' then
    perform gre.refuse(400, 'identities_invalid', 'p_identities must be an array');
  end if;
  v_lost := gre.lost_identities(p_identities);
  -- Nobody is online through a socket that is about to be closed; unless another one, whose right holds, is there too.
  v_staff := array(
    select s from unnest(p_staff) s
    where not exists (select from jsonb_array_elements(v_lost) x where x ->> 'staff_id' = s)
      or exists (select from jsonb_array_elements(p_identities) x where x ->> 'staff_id' = s and not v_lost @> jsonb_build_array(x)));
  -- (Of a database that is read-only the answer is good all the same: who can read goes on reading.)
  if current_setting('transaction_read_only') = 'off' then
    update public.gre_online_status o set last_seen_at = v_now, expires_at = v_now + p_expires_in * interval '1 second',
      status = case o.status when 'offline' then 'online' else o.status end
    from (select staff_id from public.gre_online_status where staff_id = any (v_staff) and expires_at is not null
          order by staff_id for no key update skip locked) mine
    where o.staff_id = mine.staff_id;
    -- (The time stays: it tells who expired from who went. Who is here after all, comes back above.)
    update public.gre_online_status o set status = 'offline', updated_at = v_now
    from (select staff_id from public.gre_online_status where expires_at < v_now and status <> 'offline'
          order by staff_id for no key update skip locked) late
    where o.staff_id = late.staff_id;
  end if;
  return jsonb_build_object(
    'online', (select coalesce(jsonb_agg(jsonb_build_object('staff_id', o.staff_id, 'display_name', o.display_name, 'status', o.status)
                                         order by o.staff_id), '[]') from public.gre_online_status o
               where gre.presence(o.status, o.last_seen_at, o.expires_at) <> 'offline' and o.staff_id is not null),
    'gone', (select coalesce(jsonb_agg(s.staff_id), '[]') from public.gre_staff s where s.staff_id = any (p_staff) and not s.active),
    'disabled', (select coalesce(jsonb_agg(p.player_id), '[]') from public.gre_chat_players p
                 where p.player_id = any (p_players) and not p.chat_enabled),
    'lost', v_lost);
end $$;

-- Who may call what -------------------------------------------------------------------------------------------

do $$
declare
  v record;
begin
  for v in
    select p.oid::regprocedure as f, p.proname in ('gre_hub_news', 'gre_hub_presence', 'gre_link_user') as service_only
    from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in (
      'gre_send_message', 'gre_send_messages', 'gre_staff_reply', 'gre_chat_history', 'gre_list_sessions', 'gre_catch_up', 'gre_mark_read',
      'gre_set_session_status', 'gre_close_session', 'gre_enable_player', 'gre_enable_all_players', 'gre_set_online_status',
      'gre_erase_player', 'gre_link_user', 'gre_hub_news', 'gre_hub_presence')
  loop
    execute format('revoke execute on function %s from public, anon, authenticated, service_role', v.f);
    execute format('grant execute on function %s to service_role', v.f);
    if not v.service_only then
      execute format('grant execute on function %s to authenticated', v.f);
    end if;
  end loop;
end $$;
revoke execute on all functions in schema gre from public;
grant execute on function gre.refuse(integer, text, text, text), gre.caller(), gre.staff_caller(), gre.iso(timestamptz),
  gre.message_json(public.gre_chat_messages), gre.session_json(public.gre_chat_sessions, integer), gre.sender_word(text),
  gre.sent_before(uuid, text, bigint, uuid, text)
  to authenticated, service_role;

notify pgrst, 'reload schema';
