-- The rules of the chat, as triggers: whatever door a row comes in by, it passes here.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- The tables take their final form in the transaction that gives them their triggers.
select gre.adopt();
drop function gre.adopt();

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
grant execute on function gre.clean_name(text), gre.refuse(integer, text, text) to authenticated, service_role;
grant execute on function gre.who(), gre.is_staff(), gre.is_admin(), gre.my_player_id(), gre.my_staff_id()
  to anon, authenticated, service_role;
