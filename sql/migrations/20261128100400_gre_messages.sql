-- Triggers of the chat's tables: messages, sessions, presence, pushes. They apply to every write, whatever its path.
-- Runs the adoption first. Depends on gre_foundation, gre_adoption (gre.adopt), gre_tables and gre_identity.
--
-- Triggers of one event fire in the order of their names, so the names carry numbers:
--   gre_1_check           permission and size limits: before any lock, query or costly expression
--   gre_2_legacy          legacy columns and values (only on adopted tables)
--   gre_3_before_insert   session, sender, names, times
--   gre_3_files_text      text of a message that has files only (gre_files)
--   gre_4_rate_limit      messages per minute of a player
--   zzz_gre_5_assign_seq  seq; after all BEFORE triggers of the project
--   gre_5_bind            files of the message, under the session's lock (gre_files)
--   gre_6_after_insert    counters of the session
--   gre_7_enqueue         deliveries (gre_outbox)
--   gre_8_auto_reply      auto-replies and timers (gre_timers)
-- Policies are checked after all BEFORE triggers. gre_1_check refuses a row that they would refuse, so that such a row
-- cannot lock another player's session or reveal through other errors which rows exist.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Adopt the tables of a live project in the transaction that creates their triggers: no write comes in between.
select gre.lock_tables();
select gre.adopt();
drop function gre.adopt();

-- Each message is updated once or twice soon after its insert (status). With room in its page the new version needs no
-- entries in the indexes, of which that of the search costs most, and leaves none for vacuum.
alter table public.gre_chat_messages set (fillfactor = 90);

-- Names ---------------------------------------------------------------------------------------------------

-- Return the display form of a name that a player chose: null if it is reserved; with the player's id appended if it
-- looks like the name of active staff.
create function gre.safe_player_name(p_player_id bigint, p_name text) returns text
language plpgsql stable security definer set search_path = '' as $$
declare
  v_name text := gre.clean_name(p_name);
  v_key text;
begin
  if v_name is null then
    return null;
  end if;
  v_key := gre.name_key(v_name);
  if v_key in ('guestrelations', 'guestrelation', 'gre', 'system', 'staff', 'support', 'admin', 'administrator',
               'moderator') then
    return null;
  elsif v_key <> '' and exists (select from public.gre_staff where active and gre.name_key(display_name) = v_key) then
    return left(v_name, 50) || ' (player ' || p_player_id || ')';
  end if;
  return v_name;
end $$;

-- Return the name for a session that a portal opens: the profile's name, or the given one.
create function gre.session_name(p_player_id bigint, p_name text) returns text
language sql stable security definer set search_path = '' as $$
  select coalesce(
    (select gre.clean_name(p.display_name) from public.gre_chat_players p where p.player_id = p_player_id),
    gre.safe_player_name(p_player_id, p_name))
$$;

-- Return the name for a staff member's message: the name in gre_staff, or the given name unless it looks like the name
-- of active staff.
create function gre.staff_name(p_staff_id text, p_given text) returns text
language sql stable security definer set search_path = '' as $$
  select coalesce(
    (select gre.clean_name(display_name) from public.gre_staff where staff_id = p_staff_id),
    case when not exists (
      select from public.gre_staff where active and gre.name_key(display_name) = gre.name_key(p_given)
    ) then gre.clean_name(p_given) end)
$$;

-- Rate limit ----------------------------------------------------------------------------------------------

create function gre.rate_limit_messages() returns integer
language sql immutable parallel safe set search_path = '' as $$ select 120 $$;

create function gre.rate_limit_window() returns interval
language sql immutable parallel safe set search_path = '' as $$ select interval '1 minute' $$;

-- Raise 429 if the player has reached the limit of messages in the window. Counts the messages of all paths. Callers do
-- not check the service key without X-GRE-Act-As, which imports messages.
create function gre.check_rate_limit(p_player_id bigint) returns void
language plpgsql volatile security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := clock_timestamp(); -- a variable: a condition with a volatile function cannot use the index
  v_since timestamptz := v_now - gre.rate_limit_window();
  v_wait numeric;
begin
  -- The upper bound excludes adopted rows with a time in the future.
  select extract(epoch from m.created_at + gre.rate_limit_window() - v_now) into v_wait
  from public.gre_chat_messages m
  where m.player_id = p_player_id and m.sender = 'player' and m.created_at > v_since and m.created_at <= v_now
  order by m.created_at desc, m.id desc offset gre.rate_limit_messages() - 1 limit 1;
  if v_wait > 0 then
    perform gre.raise_http(429, 'too_fast', 'too many messages, wait a moment', 'retry_after=' || ceil(v_wait));
  end if;
end $$;

-- Messages: before insert ---------------------------------------------------------------------------------

-- Check the permission of the caller and the sizes of the fields. Not security definer, since row_security_active()
-- applies to the current user. Few and simple expressions: PL/pgSQL prepares each one in every transaction, and most
-- transactions insert one message.
create function gre.messages_check() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_actor gre.actor;
  v_sender text;
begin
  -- The defaults of these columns mean "not given".
  new.session_id := nullif(new.session_id, '00000000-0000-0000-0000-000000000000');
  new.player_id := nullif(new.player_id, 0);
  new.status := 'sent';
  if octet_length(new.sender) > 20 or octet_length(new.sender_name) > 400 or octet_length(new.player_name) > 400
    or octet_length(new.sender_id) > 128 then
    new.sender := left(new.sender, 20);
    new.sender_name := left(new.sender_name, 400);
    new.player_name := left(new.player_name, 400);
    new.sender_id := left(new.sender_id, 128);
  end if;
  if row_security_active(tg_relid) then
    v_actor := gre.current_actor();
    if v_actor.role not in ('player', 'staff', 'admin')
      or v_actor.role = 'player' and new.player_id <> v_actor.player_id then
      perform gre.raise_row_denied('gre_chat_messages');
    end if;
    -- A larger message or metadata is refused below, with a more specific error.
    if not coalesce(pg_column_size(new.message) > 65536 or pg_column_size(new.metadata) > 65536, false) then
      if pg_column_size(new) > 65536 then
        perform gre.raise_http(413, 'row_too_large', 'the row is larger than 64 KB');
      end if;
      v_sender := lower(btrim(coalesce(new.sender, left(to_jsonb(new) ->> 'sender_type', 20))));
      if v_actor.role = 'player'
          and v_sender in ('gre', 'staff', 'gre_staff', 'admin', 'agent', 'support', 'operator', 'system', 'bot')
        or v_actor.role <> 'player'
          and v_sender in ('player', 'user', 'customer', 'client', 'guest', 'system', 'bot') then
        perform gre.raise_row_denied('gre_chat_messages');
      end if;
    end if;
    if v_actor.role = 'player' then
      new.player_id := v_actor.player_id;
    end if;
  end if;
  if new.origin is distinct from 'typed' then
    -- Portals cannot set another origin, but for staff's templates. On current_user, see gre.sessions_before_write.
    if new.origin is null or current_user in ('anon', 'authenticated', 'service_role')
      and (new.origin <> 'template' or (gre.current_actor()).role not in ('staff', 'admin', 'service')) then
      new.origin := 'typed';
    elsif new.origin = 'template' and new.message like '%{{%' then
      perform gre.raise_http(400, 'template_incomplete', 'the text has placeholders that are not filled in',
        jsonb_build_object('missing', array(
          select distinct m[1]
          from regexp_matches(left(new.message, 4000), '\{\{\??([a-z_]+)[^{}]*\}\}', 'g') m
          order by 1))::text);
    end if;
  end if;
  if octet_length(new.message) > 16000 or char_length(new.message) > 4000 then
    perform gre.raise_http(400, 'message_too_long', 'message is longer than 4000 characters');
  elsif (new.message is null or not gre.has_text(new.message)) and coalesce(new.attachment_ids = '{}', true) then
    perform gre.raise_http(400, 'message_empty', 'message is empty');
  elsif not gre.json_fits(new.metadata, 4096) then
    perform gre.raise_http(400, 'metadata_too_large',
      'metadata is larger than 4 KB, deeper than 32 levels, or holds a number beyond a double');
  elsif new.attachment_ids is distinct from '{}' then
    new.attachment_ids := coalesce(new.attachment_ids, '{}');
    if cardinality(new.attachment_ids) > 5 or array_ndims(new.attachment_ids) > 1
      or (select count(distinct x) from unnest(new.attachment_ids) x) < cardinality(new.attachment_ids) then
      perform gre.raise_http(400, 'attachments_invalid', 'attachment_ids must be at most 5 different ids of files');
    elsif new.message is null or not gre.has_text(new.message) then
      new.message := ''; -- gre.messages_files_text
    end if;
  end if;
  return new;
end $$;
create trigger gre_1_check before insert on public.gre_chat_messages
  for each row execute function gre.messages_check();

-- Raise 403 if a player's chat is disabled. Disabled is a state of the profile: chat_enabled, until blocked_until.
create function gre.check_chat_enabled(p_player public.gre_chat_players) returns void
language plpgsql volatile set search_path = '' as $$
begin
  if not p_player.chat_enabled and not coalesce(p_player.blocked_until <= clock_timestamp(), false) then
    perform gre.raise_http(403, 'chat_disabled', 'chat is disabled for this player', case
      when p_player.blocked_until is not null
      then jsonb_build_object('until', gre.iso(p_player.blocked_until))::text end);
  end if;
end $$;

-- Find or open the session, lock its row, and set the columns of the server. Sequential scans are off, since a plan
-- that is made while a table is empty stays cached.
create function gre.messages_before_insert() returns trigger
language plpgsql security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_actor gre.actor := gre.current_actor();
  v_now timestamptz;
  v_session public.gre_chat_sessions;
  v_session_id uuid := new.session_id;
  v_profile public.gre_chat_players;
  v_existing public.gre_chat_messages;
  v_given_name text;
begin
  new.sender := lower(coalesce(new.sender, left(to_jsonb(new) ->> 'sender_type', 20), case v_actor.role
    when 'player' then 'player' when 'staff' then 'staff' when 'admin' then 'staff' end));
  if new.sender in ('gre', 'gre_staff', 'admin') then
    new.sender := 'staff';
  end if;
  if new.sender is null or new.sender not in ('player', 'staff', 'system') then
    perform gre.raise_http(400, 'sender_unknown', 'sender must be player, staff or system');
  end if;
  new.metadata := coalesce(new.metadata, '{}');
  if new.id is null then
    new.id := gen_random_uuid();
  end if;
  if new.player_id is null and v_session_id is not null and v_actor.role <> 'player' then
    select player_id into new.player_id from public.gre_chat_sessions where id = v_session_id;
  end if;
  if new.player_id is null then
    new.player_id := v_actor.player_id;
  end if;
  perform gre.check_player_id(new.player_id);

  select * into v_profile from public.gre_chat_players where player_id = new.player_id;
  v_profile.display_name := gre.clean_name(v_profile.display_name);
  if new.sender = 'player' and not v_profile.chat_enabled then
    perform gre.check_chat_enabled(v_profile);
  end if;

  loop
    if v_session_id is not null then
      -- With the player in the condition, so that another player's session is not locked.
      select * into v_session from public.gre_chat_sessions
        where id = v_session_id and player_id = new.player_id for no key update;
      if not found then
        perform gre.raise_http(403, 'session_mismatch', 'session does not belong to this player');
      end if;
      exit when v_session.status <> 'closed';
      select * into v_existing from public.gre_chat_messages where id = new.id;
      exit when found;
      if new.sender <> 'player' then
        perform gre.raise_http(409, 'session_closed', 'session is closed');
      end if;
      v_session_id := null;
    end if;
    select * into v_session from public.gre_chat_sessions
      where player_id = new.player_id and status <> 'closed' for no key update;
    exit when found;
    select * into v_existing from public.gre_chat_messages where id = new.id;
    exit when found;
    if v_actor.role = 'player' then
      perform gre.check_rate_limit(new.player_id); -- before it opens a session
    end if;
    insert into public.gre_chat_sessions (player_id, player_name, status)
      values (new.player_id, coalesce(v_profile.display_name, gre.safe_player_name(new.player_id, coalesce(
        gre.clean_name(new.player_name), case new.sender when 'player' then gre.clean_name(new.sender_name) end))),
        'active')
      on conflict (player_id) where status <> 'closed' do nothing
      returning * into v_session;
    exit when found;
  end loop;

  -- BEFORE triggers fire before the conflict check. For an id that exists, use no seq and open no session: the primary
  -- key refuses the row afterwards. A negative seq marks such a row for the triggers below.
  if v_existing.id is null then
    select * into v_existing from public.gre_chat_messages where id = new.id;
  end if;
  if v_existing.id is not null then
    new.session_id := v_existing.session_id;
    new.seq := -v_existing.seq;
    return new;
  end if;

  -- Again, under the session's lock: gre.set_block may have committed while this message waited for that lock.
  if new.sender = 'player' then
    select p.chat_enabled, p.blocked_until into v_profile.chat_enabled, v_profile.blocked_until
    from public.gre_chat_players p where p.player_id = new.player_id;
    if not v_profile.chat_enabled then
      perform gre.check_chat_enabled(v_profile);
    end if;
  end if;

  v_now := clock_timestamp();
  -- Without a profile, a player keeps the name with which its session was opened.
  v_given_name := coalesce(gre.clean_name(new.player_name),
                           case new.sender when 'player' then gre.clean_name(new.sender_name) end);
  new.player_name := coalesce(v_profile.display_name, nullif(v_session.player_name, 'Player ' || new.player_id),
    case when v_given_name is not null then gre.safe_player_name(new.player_id, v_given_name) end);
  if new.sender = 'player' then
    new.sender_id := new.player_id::text;
    new.player_name := coalesce(new.player_name, 'Player ' || new.player_id);
    new.sender_name := new.player_name;
  elsif new.sender = 'staff' then
    if v_actor.staff_id is not null then
      new.sender_id := v_actor.staff_id;
      new.sender_name := gre.staff_name(v_actor.staff_id, new.sender_name);
    end if;
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'Guest relations');
  else
    new.sender_name := coalesce(gre.clean_name(new.sender_name), 'System');
  end if;
  new.session_id := v_session.id;
  new.seq := 0;
  new.status := 'sent';
  new.created_at := v_now;
  -- Only a back end may set a time (for imports).
  new."timestamp" := case when v_actor.role = 'service' and isfinite(new."timestamp") then new."timestamp"
                          else v_now end;
  return new;
end $$;
create trigger gre_3_before_insert before insert on public.gre_chat_messages
  for each row execute function gre.messages_before_insert();

-- Check the rate limit of a player's own messages. The transaction holds the session's lock, so concurrent messages of
-- a player are checked one at a time.
create function gre.messages_rate_limit() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_actor gre.actor := gre.current_actor();
begin
  if new.seq < 0 then
    -- The id exists (gre.messages_before_insert). Make the row pass policies and checks: the primary key refuses it.
    new.sender_id := case new.sender when 'player' then new.player_id::text
                                     else coalesce(v_actor.staff_id, new.sender_id) end;
    new.sender_name := gre.clean_name(new.sender_name);
    new.status := 'sent';
  elsif new.sender = 'player' and v_actor.role = 'player' then
    perform gre.check_rate_limit(new.player_id);
  end if;
  return new;
end $$;
create trigger gre_4_rate_limit before insert on public.gre_chat_messages
  for each row execute function gre.messages_rate_limit();

-- Assign seq under the session's lock, so that the order of seq is the order of commits. Last of the BEFORE triggers:
-- messages that another trigger has inserted into the session get lower numbers. gre.messages_after_insert updates the
-- session's row, once per statement, since each update in a transaction adds a row version to every later read.
create function gre.messages_assign_seq() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  if new.seq < 0 then -- the id exists
    new.seq := -new.seq;
    return new;
  end if;
  select greatest(s.last_seq, (select max(m.seq) from public.gre_chat_messages m where m.session_id = s.id)) + 1
    into new.seq
  from public.gre_chat_sessions s where s.id = new.session_id;
  return new;
end $$;
create trigger zzz_gre_5_assign_seq before insert on public.gre_chat_messages
  for each row execute function gre.messages_assign_seq();

-- Messages: after insert, before update -------------------------------------------------------------------

-- Add the messages of this transaction that are not counted yet to the counters of their sessions. The transaction
-- holds the sessions' locks. For nested statements: a trigger of the project can insert a message, or change the
-- session, before the statement that fired it ends. The first call counts all earlier messages in order.
create function gre.count_messages(p_sessions uuid[], p_ids uuid[] default '{}') returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  perform gre.count_figures(p_sessions, p_ids); -- before last_seq advances (gre_figures)
  update public.gre_chat_sessions s set
    last_seq = n.last_seq,
    rev = s.rev + n.messages,
    player_name = coalesce(gre.clean_name(p.display_name), nullif(s.player_name, 'Player ' || s.player_id),
                           n.player_name),
    last_message_at = greatest(s.last_message_at, n.last_at),
    updated_at = clock_timestamp(),
    unread_by_staff = s.unread_by_staff + n.by_player,
    unread_by_player = s.unread_by_player + n.messages - n.by_player,
    waiting_since = case when n.staff_seq is null then coalesce(s.waiting_since, n.first_at) else n.first_at end
  from (
    select session_id, max(player_id) as player_id, max(seq) as last_seq, count(*)::integer as messages,
      max(created_at) as last_at, min(player_name) as player_name, max(staff_seq) as staff_seq,
      count(*) filter (where sender = 'player')::integer as by_player,
      min(created_at) filter (where sender = 'player' and (staff_seq is null or seq > staff_seq)) as first_at
    from (
      select m.*, max(m.seq) filter (where m.sender = 'staff') over (partition by m.session_id) as staff_seq
      from public.gre_chat_sessions q
      join public.gre_chat_messages m on m.session_id = q.id and m.seq > q.last_seq
      -- Rows of earlier transactions that bypassed the triggers are left to reconcile.
      where q.id = any (p_sessions) and (m.created_at >= transaction_timestamp() or m.id = any (p_ids))) i
    group by session_id
  ) n
  left join public.gre_chat_players p on p.player_id = n.player_id
  where s.id = n.session_id;
end $$;

-- Return true within a trigger, and in the rest of a transaction in which one inserted messages: earlier messages may
-- not be counted and enqueued yet. gre.messages_auto_reply inserts after its statement was counted and enqueued, and
-- says so by the depth of the triggers that it causes.
create function gre.is_nested() returns boolean
language plpgsql stable set search_path = '' as $$
begin
  return current_setting('gre.nested', true) = 'on'
    or pg_trigger_depth() > 1 and pg_trigger_depth()::text is distinct from current_setting('gre.auto_depth', true);
end $$;

-- Add the messages of a statement to the counters of their sessions.
create function gre.messages_after_insert() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if gre.is_nested() then
    if not exists (select from inserted) then
      return null;
    end if;
    perform set_config('gre.nested', 'on', true); -- until the end of the transaction
    perform gre.count_messages(array(select distinct session_id from inserted), array(select id from inserted));
    return null;
  end if;
  -- Not nested: only the inserted rows are not counted yet.
  update public.gre_chat_sessions s set
    last_seq = n.last_seq,
    rev = s.rev + n.messages,
    player_name = coalesce(gre.clean_name(p.display_name), nullif(s.player_name, 'Player ' || s.player_id),
                           n.player_name),
    last_message_at = n.last_at,
    updated_at = clock_timestamp(),
    unread_by_staff = s.unread_by_staff + n.by_player,
    unread_by_player = s.unread_by_player + n.messages - n.by_player,
    waiting_since = case when n.staff_seq is null then coalesce(s.waiting_since, n.first_at) else n.first_at end
  from (
    select session_id, max(player_id) as player_id, max(seq) as last_seq, count(*)::integer as messages,
      max(created_at) as last_at, min(player_name) as player_name, max(staff_seq) as staff_seq,
      count(*) filter (where sender = 'player')::integer as by_player,
      min(created_at) filter (where sender = 'player' and (staff_seq is null or seq > staff_seq)) as first_at
    from (
      select i.*, max(i.seq) filter (where i.sender = 'staff') over (partition by i.session_id) as staff_seq
      from inserted i) i
    group by session_id
  ) n
  left join public.gre_chat_players p on p.player_id = n.player_id
  where s.id = n.session_id;
  return null;
end $$;
create trigger gre_6_after_insert after insert on public.gre_chat_messages
  referencing new table as inserted for each statement execute function gre.messages_after_insert();

-- Keep the sent columns unchanged: a merge-upsert with the service key would overwrite them.
create function gre.messages_before_update() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.id := old.id;
  new.session_id := old.session_id;
  new.seq := old.seq;
  new.player_id := old.player_id;
  new.sender := old.sender;
  new.sender_id := old.sender_id;
  new.message := old.message;
  new.origin := old.origin;
  new.attachment_ids := old.attachment_ids;
  new.created_at := old.created_at;
  if array_position(array['sent', 'delivered', 'read'], new.status)
    < array_position(array['sent', 'delivered', 'read'], old.status) then
    new.status := old.status;
  end if;
  return new;
end $$;
create trigger gre_before_update before update on public.gre_chat_messages
  for each row execute function gre.messages_before_update();

-- Sessions ------------------------------------------------------------------------------------------------

-- Check the permission of the caller and the sizes of the fields (see gre.messages_check).
create function gre.sessions_check() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_actor gre.actor;
begin
  if row_security_active('public.gre_chat_sessions') then
    v_actor := gre.current_actor();
    if tg_op = 'INSERT' and v_actor.role = 'player' and coalesce(new.player_id, 0) = 0 then
      new.player_id := v_actor.player_id;
    end if;
    if v_actor.role not in ('player', 'staff', 'admin')
      or v_actor.role = 'player' and (tg_op <> 'INSERT' or new.player_id is distinct from v_actor.player_id
                                      or new.assigned_staff_id is not null) then
      perform gre.raise_row_denied('gre_chat_sessions');
    end if;
    new.player_name := left(new.player_name, 400);
    new.status := left(new.status, 40);
    if octet_length(new.assigned_staff_id) > 512 or char_length(new.assigned_staff_id) > 128 then
      perform gre.raise_http(404, 'staff_unknown', 'there is no such active staff member');
    elsif pg_column_size(new) > 65536 then
      perform gre.raise_http(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
  end if;
  return new;
end $$;
create trigger gre_1_check before insert or update on public.gre_chat_sessions
  for each row execute function gre.sessions_check();

-- Raise 404 unless the caller may assign a session to this staff member: staff to themselves and to active staff, a
-- back end to any id. An id has at most 128 characters, since indexes and events contain it.
create function gre.check_assignee(p_staff_id text) returns void
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor gre.actor := gre.current_actor();
begin
  if char_length(p_staff_id) not between 1 and 128
    or v_actor.role <> 'service' and p_staff_id is distinct from v_actor.staff_id
      and not exists (select from public.gre_staff where staff_id = p_staff_id and active) then
    perform gre.raise_http(404, 'staff_unknown', 'there is no such active staff member');
  end if;
end $$;

-- Set the columns of the server, and increase rev. Not security definer: current_user distinguishes a portal's
-- statement from a statement of gre-bridge's own functions.
create function gre.sessions_before_write() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_portal boolean := current_user in ('anon', 'authenticated', 'service_role');
begin
  if v_portal and new.assigned_staff_id is not null
    and (tg_op = 'INSERT' or new.assigned_staff_id is distinct from old.assigned_staff_id) then
    perform gre.check_assignee(new.assigned_staff_id);
  end if;
  if tg_op = 'INSERT' then
    perform gre.check_player_id(new.player_id);
    if v_portal and new.player_id = gre.my_player_id() and exists (
      select from public.gre_chat_players p where p.player_id = new.player_id and not p.chat_enabled
        and not coalesce(p.blocked_until <= clock_timestamp(), false)) then
      perform gre.raise_http(403, 'chat_disabled', 'chat is disabled for this player');
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
    new.player_name := case when v_portal then gre.session_name(new.player_id, new.player_name)
                            else gre.clean_name(new.player_name) end;
    new.status := coalesce(new.status, 'active');
    new.closed_at := case when new.status = 'closed' then new.created_at end;
    new.closed_by := case when new.status = 'closed' and not v_portal then new.closed_by end;
    new.cycle := 1;
    new.rating := null;
  else
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
      new.closed_by := old.closed_by;
      new.rating := old.rating;
    end if;
    -- Counters and read marks never decrease.
    new.last_seq := greatest(new.last_seq, old.last_seq);
    new.last_message_at := greatest(new.last_message_at, old.last_message_at);
    new.staff_read_seq := greatest(new.staff_read_seq, old.staff_read_seq);
    new.player_read_seq := greatest(new.player_read_seq, old.player_read_seq);
    new.rev := greatest(new.rev, old.rev + 1);
    new.updated_at := clock_timestamp();
    new.changed_xid := pg_current_xact_id();
    new.closed_at := old.closed_at;
    new.cycle := old.cycle;
    if (new.status = 'closed') = (old.status = 'closed') then
      new.closed_by := old.closed_by;
    elsif new.status = 'closed' then
      new.closed_at := new.updated_at;
    else
      new.closed_at := null;
      new.closed_by := null;
      new.cycle := old.cycle + 1;
      new.rating := null;
    end if;
  end if;
  if new.status = 'closed' then
    new.waiting_since := null;
    if new.closed_by is null and (tg_op = 'INSERT' or old.status <> 'closed') then
      new.closed_by := case (gre.current_actor()).role when 'player' then 'player' when 'staff' then 'staff'
                                                       when 'admin' then 'staff' else 'system' end;
    end if;
  end if;
  return new;
end $$;
create trigger gre_3_before_write before insert or update on public.gre_chat_sessions
  for each row execute function gre.sessions_before_write();

-- Presence ------------------------------------------------------------------------------------------------

-- Return online, away or offline. A status with expires_at is valid until then. A status without it, written by a
-- portal, is valid while last_seen_at differs from now by less than gre.settings.presence_lasts.
create function gre.presence(p_status text, p_seen timestamptz, p_expires timestamptz) returns text
language sql stable security definer set search_path = '' as $$
  select case when p_status is null or p_status = 'offline' then 'offline'
    when p_expires is not null then case
      when p_expires > clock_timestamp() and p_expires < clock_timestamp() + interval '2 days' then p_status
      else 'offline' end
    when p_seen > clock_timestamp() - s.presence_lasts and p_seen < clock_timestamp() + s.presence_lasts then p_status
    else 'offline' end
  from gre.settings s
$$;

-- Check the permission of the caller and the sizes of the fields (see gre.messages_check). For staff, set the name and
-- the times; a future expires_at is kept. A back end may set finite times.
create function gre.presence_check() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_actor gre.actor;
  v_id text := new.staff_id;
  v_name text;
begin
  if row_security_active('public.gre_online_status') then
    v_actor := gre.current_actor();
    if v_actor.staff_id is null or v_id <> v_actor.staff_id then
      perform gre.raise_row_denied('gre_online_status');
    elsif pg_column_size(new) > 65536 then
      perform gre.raise_http(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
    v_name := coalesce(new.display_name, to_jsonb(new) ->> 'gre_name');
    v_id := coalesce(v_id, case tg_op when 'INSERT' then to_jsonb(new) ->> 'gre_id' end);
    if v_id is distinct from v_actor.staff_id then
      perform gre.raise_row_denied('gre_online_status');
    elsif char_length(v_name) > 400 then
      perform gre.raise_http(413, 'row_too_large', 'the name is longer than 400 characters');
    end if;
    new.display_name := gre.staff_name(v_actor.staff_id, v_name);
    new.last_seen_at := clock_timestamp();
    new.updated_at := new.last_seen_at;
    new.expires_at := case when tg_op = 'UPDATE' and old.expires_at > new.last_seen_at then old.expires_at end;
  elsif current_user = 'service_role' then
    if char_length(new.staff_id) > 128 then
      perform gre.raise_http(400, 'staff_invalid', 'staff_id is longer than 128 characters');
    end if;
    new.display_name := gre.clean_name(new.display_name);
    new.last_seen_at := case when isfinite(new.last_seen_at) then new.last_seen_at else clock_timestamp() end;
    new.updated_at := case when isfinite(new.updated_at) then new.updated_at else clock_timestamp() end;
    new.expires_at := case when isfinite(new.expires_at) then new.expires_at end;
  end if;
  return new;
end $$;
create trigger gre_1_check before insert or update on public.gre_online_status
  for each row execute function gre.presence_check();

-- Set last_seen_at when a portal writes a status without it.
create function gre.presence_before_update() returns trigger
language plpgsql set search_path = '' as $$
begin
  if new.status <> 'offline' and new.last_seen_at is not distinct from old.last_seen_at then
    new.last_seen_at := clock_timestamp();
  end if;
  return new;
end $$;
create trigger gre_3_before_update before update of status on public.gre_online_status
  for each row execute function gre.presence_before_update();

-- Pushes --------------------------------------------------------------------------------------------------

-- Check the permission of the caller and the size of the row (see gre.messages_check).
create function gre.pushes_check() returns trigger
language plpgsql set search_path = '' as $$
begin
  if row_security_active('public.push_notifications') then
    if (gre.current_actor()).role <> 'admin' then
      perform gre.raise_row_denied('push_notifications');
    elsif pg_column_size(new) > 65536 then
      perform gre.raise_http(413, 'row_too_large', 'the row is larger than 64 KB');
    end if;
  end if;
  return new;
end $$;
create trigger gre_1_check before insert on public.push_notifications
  for each row execute function gre.pushes_check();

-- Return the reason for which a queued push cannot be sent, or null. Stored sizes are checked first: that does not
-- decompress the value. The text of a jsonb can be much larger than its input (1e131071 becomes 131,072 digits).
create function gre.push_error(p_title text, p_body text, p_recipients text[], p_data jsonb) returns text
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

-- Raise 400 if a queued push is too large or has no recipients.
create function gre.pushes_check_size() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_error text := gre.push_error(new.title, new.body, new.recipients, new.data);
begin
  if v_error is not null then
    perform gre.raise_http(400, 'push_too_large', 'the push cannot be queued: ' || v_error);
  end if;
  -- A legacy push with an empty target_player_id is accepted, and sent to nobody.
  if tg_op = 'INSERT' and not to_jsonb(new) ? 'target_player_id'
    and (coalesce(new.audience, '') not in ('staff', 'player')
      or new.audience = 'player' and coalesce(cardinality(new.recipients), 0) = 0) then
    if new.audience = 'player' then
      perform gre.raise_http(400, 'recipients_missing', 'the push cannot be queued: a push for players needs '
        'recipients, a list of OneSignal external ids such as ["player_29"]');
    end if;
    perform gre.raise_http(400, 'audience_unknown', 'the push cannot be queued: its audience must be staff or player');
  end if;
  return new;
end $$;
create trigger gre_3_check_size before insert on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.pushes_check_size();
create trigger gre_3_check_size_update before update of title, body, recipients, data on public.push_notifications
  for each row when (new.status = 'queued') execute function gre.pushes_check_size();

revoke execute on all functions in schema gre from public;
grant execute on function gre.session_name, gre.staff_name, gre.check_assignee, gre.presence
  to authenticated, service_role;
