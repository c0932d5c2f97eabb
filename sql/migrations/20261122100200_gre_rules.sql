-- The rules of the chat, as triggers: whatever door a row comes in by, it passes here.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- The tables take their final form in the transaction that gives them their triggers.
select gre.adopt();
drop function gre.adopt();

-- The first look at a row, before any lock, read or expression that its writer could make expensive. Row-level security judges
-- after all BEFORE triggers: whoever it will refuse in the end must not have held another's session until then, nor learn from
-- the other refusals what is there. Then the lengths. (Not security definer: row_security_active() is about the caller. By its name
-- it runs before all other triggers of ours.)
create function gre.message_checks() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_who gre.actor;
  v_word text;
begin
  -- Few and plain expressions: each is prepared anew in each transaction, and most have one message.
  new.session_id := nullif(new.session_id, '00000000-0000-0000-0000-000000000000'); -- the columns' defaults: not given
  new.player_id := nullif(new.player_id, 0);
  new.status := 'sent';
  if row_security_active(tg_relid) then
    v_who := gre.who();
    if v_who.role not in ('player', 'staff', 'admin') or v_who.role = 'player' and new.player_id <> v_who.player_id then
      perform gre.refuse_row('gre_chat_messages');
    end if;
    if pg_column_size(new.message) > 65536 or pg_column_size(new.metadata) > 65536 then
      null; -- refused below, in words
    else
      if octet_length(new.sender) > 20 or octet_length(new.sender_name) > 400 or octet_length(new.player_name) > 400
        or octet_length(new.sender_id) > 128 then
        new.sender := left(new.sender, 20);
        new.sender_name := left(new.sender_name, 400);
        new.player_name := left(new.player_name, 400);
        new.sender_id := left(new.sender_id, 128);
      end if;
      if pg_column_size(new) > 65536 then
        perform gre.refuse(413, 'row_too_large', 'the row is larger than 64 KB');
      end if;
      v_word := lower(btrim(coalesce(new.sender, left(to_jsonb(new) ->> 'sender_type', 20))));
      if v_word in ('gre', 'staff', 'gre_staff', 'admin', 'agent', 'support', 'operator', 'system', 'bot') and v_who.role = 'player'
        or v_word in ('player', 'user', 'customer', 'client', 'guest', 'system', 'bot') and v_who.role <> 'player' then
        perform gre.refuse_row('gre_chat_messages');
      end if;
    end if;
    if v_who.role = 'player' then
      new.player_id := v_who.player_id;
    end if;
  end if;
  if octet_length(new.message) > 16000 or char_length(new.message) > 4000 then
    perform gre.refuse(400, 'message_too_long', 'message is longer than 4000 characters');
  elsif new.message is null or not gre.has_text(new.message) then
    perform gre.refuse(400, 'message_empty', 'message is empty');
  elsif not gre.json_fits(new.metadata, 4096) then
    perform gre.refuse(400, 'metadata_too_large', 'metadata is larger than 4 KB, deeper than 32 levels, or holds a number beyond a double');
  end if;
  if octet_length(new.sender) > 20 or octet_length(new.sender_name) > 400 or octet_length(new.player_name) > 400
    or octet_length(new.sender_id) > 128 then
    new.sender := left(new.sender, 20);
    new.sender_name := left(new.sender_name, 400);
    new.player_name := left(new.player_name, 400);
    new.sender_id := left(new.sender_id, 128);
  end if;
  return new;
end $$;
create trigger gre_check_message before insert on public.gre_chat_messages
  for each row execute function gre.message_checks();

-- A name that a player chose, as it may be shown: not that of the house, and not that of somebody of the staff unless it says so.
create function gre.guest_name(p_player_id bigint, p_name text) returns text
language plpgsql stable security definer set search_path = '' as $$
declare
  v_name text := gre.clean_name(p_name);
  v_key text;
begin
  if v_name is null then
    return null;
  end if;
  v_key := gre.name_key(v_name);
  if v_key in ('guestrelations', 'guestrelation', 'gre', 'system', 'staff', 'support', 'admin', 'administrator', 'moderator') then
    return null;
  elsif v_key <> '' and exists (select from public.gre_staff where active and gre.name_key(display_name) = v_key) then
    return left(v_name, 50) || ' (player ' || p_player_id || ')';
  end if;
  return v_name;
end $$;
create index gre_staff_name_key on public.gre_staff (gre.name_key(display_name)) where active;

-- The name of a session that a portal opens: the profile's, else what was given.
create function gre.session_name(p_player_id bigint, p_name text) returns text
language sql stable security definer set search_path = '' as $$
  select coalesce((select gre.clean_name(p.display_name) from public.gre_chat_players p where p.player_id = p_player_id),
                  gre.guest_name(p_player_id, p_name))
$$;

-- A message arrives. Finds or opens its session, gives it the next seq under the session's row lock (so the
-- order of seq is the order of commit) and writes the columns that belong to the server.
create function gre.message_arrives() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_who gre.actor := gre.who();
  v_now timestamptz;
  v_session public.gre_chat_sessions;
  v_wanted uuid := new.session_id;
  v_profile public.gre_chat_players;
  v_existing public.gre_chat_messages;
begin
  new.sender := lower(coalesce(new.sender, to_jsonb(new) ->> 'sender_type',
                               case v_who.role when 'player' then 'player' when 'staff' then 'staff' when 'admin' then 'staff' end));
  if new.sender in ('gre', 'gre_staff', 'admin') then
    new.sender := 'staff';
  end if;
  if new.sender is null or new.sender not in ('player', 'staff', 'system') then
    perform gre.refuse(400, 'sender_unknown', 'sender must be player, staff or system');
  end if;
  if new.message is null or new.message !~ '[^[:space:]\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]' then
    perform gre.refuse(400, 'message_empty', 'message is empty');
  end if;
  if char_length(new.message) > 4000 then
    perform gre.refuse(400, 'message_too_long', 'message is longer than 4000 characters');
  end if;
  new.metadata := coalesce(new.metadata, '{}');
  if octet_length(new.metadata::text) > 4096 then
    perform gre.refuse(400, 'metadata_too_large', 'metadata is larger than 4 KB');
  end if;
  if new.id is null then
    new.id := gen_random_uuid();
  end if;
  if new.player_id is null and v_wanted is not null then
    select player_id into new.player_id from public.gre_chat_sessions where id = v_wanted;
  end if;
  if new.player_id is null then
    new.player_id := v_who.player_id;
  end if;
  if new.player_id is null or new.player_id <= 0 then
    perform gre.refuse(400, 'player_invalid', 'player_id must be a positive whole number');
  end if;

  select * into v_profile from public.gre_chat_players where player_id = new.player_id;
  v_profile.display_name := gre.clean_name(v_profile.display_name);
  -- (Whom the policies will refuse anyway learns nothing about others here.)
  if new.sender = 'player' and not v_profile.chat_enabled
    and (v_who.role in ('service', 'admin', 'staff') or v_who.player_id = new.player_id) then
    perform gre.refuse(403, 'chat_disabled', 'chat is disabled for this player');
  end if;

  loop
    if v_wanted is not null then
      select * into v_session from public.gre_chat_sessions where id = v_wanted for no key update;
      if not found or v_session.player_id <> new.player_id then
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
    insert into public.gre_chat_sessions (player_id, player_name, status)
      values (new.player_id, coalesce(v_profile.display_name, gre.clean_name(new.player_name),
                                      case new.sender when 'player' then gre.clean_name(new.sender_name) end), 'active')
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
    new.seq := v_existing.seq;
    return new;
  end if;

  v_now := clock_timestamp();
  new.player_name := coalesce(v_profile.display_name, gre.clean_name(new.player_name), v_session.player_name);
  if new.sender = 'player' then
    new.sender_id := new.player_id::text;
    new.sender_name := coalesce(v_profile.display_name, gre.clean_name(new.sender_name), new.player_name, 'Player ' || new.player_id);
    new.player_name := coalesce(new.player_name, new.sender_name);
  elsif new.sender = 'staff' then
    if v_who.staff_id is not null then
      new.sender_id := v_who.staff_id;
      new.sender_name := coalesce((select gre.clean_name(display_name) from public.gre_staff where staff_id = v_who.staff_id),
                                  gre.clean_name(new.sender_name));
    end if;
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'Guest relations');
  else
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'System');
  end if;
  new.session_id := v_session.id;
  new.status := 'sent';
  new.created_at := v_now;
  new."timestamp" := coalesce(new."timestamp", v_now);

  update public.gre_chat_sessions set
    last_seq = last_seq + 1,
    rev = rev + 1,
    player_name = coalesce(v_profile.display_name, player_name, new.player_name),
    last_message_at = v_now,
    updated_at = v_now,
    unread_by_staff = unread_by_staff + (new.sender = 'player')::integer,
    unread_by_player = unread_by_player + (new.sender <> 'player')::integer
  where id = v_session.id
  returning last_seq into new.seq;
  return new;
end $$;

create trigger gre_message_arrives before insert on public.gre_chat_messages
  for each row execute function gre.message_arrives();

-- What was sent stays as it was sent, whoever updates the row (a merge-upsert with the service key, say).
create function gre.message_keeps() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.id := old.id;
  new.session_id := old.session_id;
  new.seq := old.seq;
  new.player_id := old.player_id;
  new.sender := old.sender;
  new.message := old.message;
  new.created_at := old.created_at;
  if array_position(array['sent', 'delivered', 'read'], new.status) < array_position(array['sent', 'delivered', 'read'], old.status) then
    new.status := old.status;
  end if;
  return new;
end $$;

create trigger gre_message_keeps before update on public.gre_chat_messages
  for each row execute function gre.message_keeps();

-- A session's counters belong to the server; rev grows with every change.
-- (Not security definer: current_user then tells a portal's own update from one by our functions.)
create function gre.session_changes() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_portal boolean := current_user in ('anon', 'authenticated', 'service_role');
begin
  if tg_op = 'INSERT' then
    if new.player_id is null or new.player_id <= 0 then
      perform gre.refuse(400, 'player_invalid', 'player_id must be a positive whole number');
    end if;
    if v_portal and new.player_id = gre.my_player_id() and exists (
      select from public.gre_chat_players p where p.player_id = new.player_id and not p.chat_enabled) then
      perform gre.refuse(403, 'chat_disabled', 'chat is disabled for this player');
    end if;
    new.last_seq := 0;
    new.rev := 1;
    new.unread_by_staff := 0;
    new.unread_by_player := 0;
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
  end if;
  new.rev := greatest(new.rev, old.rev + 1);
  new.updated_at := clock_timestamp();
  if new.status is distinct from old.status then
    new.closed_at := case when new.status = 'closed' then new.updated_at end;
  end if;
  return new;
end $$;

create trigger gre_session_changes before insert or update on public.gre_chat_sessions
  for each row execute function gre.session_changes();

revoke execute on all functions in schema gre from public;
grant execute on function gre.clean_name(text), gre.name_key(text), gre.has_text(text), gre.json_fits(jsonb, integer), gre.refuse_row(text),
  gre.session_name(bigint, text), gre.refuse(integer, text, text) to authenticated, service_role;
grant execute on function gre.who(), gre.is_staff(), gre.is_admin(), gre.my_player_id(), gre.my_staff_id()
  to anon, authenticated, service_role;
