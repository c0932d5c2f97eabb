-- Adoption: checks the existing tables of a live project, and defines the functions that convert them to the tables of
-- this schema. Depends on gre_foundation (gre.lock_tables).
--
-- This file creates functions only. gre_tables creates the model tables, and gre_messages calls gre.adopt() in the
-- transaction that creates the triggers, so that no write fails between two files. Adoption keeps all rows. Afterwards,
-- only the triggers for legacy columns remain, on tables that have such columns.
--
-- Adoption blocks portals' writes for about two seconds per 100,000 messages, and for up to lock_timeout while it waits
-- for its locks. A role with a shorter statement_timeout (Supabase: 3 s for anon) gets error 57014 meanwhile.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Check the tables before any change, and raise one error that names each table and column that cannot be adopted.
-- `gre-bridge migrate --dry-run` runs this statement in a read-only transaction, and then all files in a transaction
-- that it rolls back.
do $check$
declare
  v_tables constant text[] := array['gre_chat_sessions', 'gre_chat_messages', 'gre_online_status',
                                    'push_notifications'];
  v_relations oid[] := '{}'; -- tables that can be altered
  v_has_sessions boolean;
  v_has_messages boolean;
  v_problems text[] := '{}';
  v_pattern text;
  v_count bigint;
  v_dependent text;
  v_columns jsonb;
  v_matching text;
  v record;
begin
  perform set_config('timezone', 'UTC', true);
  for v in
    select c.oid, c.relname, c.relkind, pg_get_userbyid(c.relowner) as owner,
      pg_has_role(c.relowner, 'USAGE') as may_alter
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = any (v_tables)
    order by array_position(v_tables, c.relname::text)
  loop
    if v.relkind <> 'r' then
      v_problems := v_problems || format('public.%s is a %s, not an ordinary table', v.relname,
        case v.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                       when 'p' then 'partitioned table' else 'relation of another kind' end);
    elsif not v.may_alter then
      v_problems := v_problems || format(
        'public.%s belongs to role %s and %s may not alter it: migrate as %2$s, or change its owner',
        v.relname, v.owner, current_user);
    else
      v_relations := v_relations || v.oid;
    end if;
  end loop;
  v_has_sessions := to_regclass('public.gre_chat_sessions')::oid = any (v_relations);
  v_has_messages := to_regclass('public.gre_chat_messages')::oid = any (v_relations);

  -- Columns of another type: check that every value can be converted.
  for v in
    select w.relation, w.name, w.type, format_type(a.atttypid, null) as has, t.typcategory as category, a.attrelid,
      a.attnum
    from (
      select 'gre_chat_sessions' as relation,
        unnest(array['player_name', 'status', 'assigned_staff_id', 'closed_by']) as name, 'text' as type
      union all select 'gre_chat_messages',
        unnest(array['player_name', 'sender', 'sender_id', 'sender_name', 'message', 'status', 'origin']), 'text'
      union all select 'gre_online_status', unnest(array['staff_id', 'display_name', 'status']), 'text'
      union all select 'push_notifications',
        unnest(array['audience', 'title', 'body', 'status', 'provider_id', 'error']), 'text'
      union all select 'push_notifications', 'recipients', 'text[]'
      union all select 'push_notifications', 'data', 'jsonb'
      union all select 'gre_chat_messages', 'metadata', 'jsonb'
      union all select 'gre_chat_messages', 'attachment_ids', 'uuid[]'
      union all select unnest(array['gre_chat_sessions', 'gre_chat_messages']), 'player_id', 'bigint'
      union all select 'gre_chat_sessions', 'id', 'uuid'
      union all select 'gre_chat_sessions', 'rating', 'smallint'
      union all select 'gre_chat_messages', unnest(array['id', 'session_id']), 'uuid'
      union all select 'push_notifications', unnest(array['message_id', 'delivery_id']), 'uuid'
      union all select 'gre_chat_sessions', unnest(array['last_message_at', 'staff_read_at', 'player_read_at',
        'created_at', 'updated_at', 'closed_at']), 'timestamp with time zone'
      union all select 'gre_chat_messages', unnest(array['created_at', 'timestamp']), 'timestamp with time zone'
      union all select 'gre_online_status', unnest(array['last_seen_at', 'updated_at', 'expires_at']),
        'timestamp with time zone'
      union all select 'push_notifications', unnest(array['created_at', 'sent_at']), 'timestamp with time zone'
    ) w
    join pg_attribute a
      on a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    where a.attrelid = any (v_relations) and (format_type(a.atttypid, null) <> w.type or w.type = 'smallint')
  loop
    v_pattern := case
      when v.type = 'text' then '' -- every value has a text
      when v.type = 'bigint' and v.category in ('N', 'S') then '^\s*(-?[0-9]{1,18}(\.0*)?)?\s*$'
      when v.type = 'smallint' and v.category in ('N', 'S') then '^\s*([1-5](\.0*)?)?\s*$'
      when v.type = 'uuid' and v.category = 'S' then '^\s*([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?\s*$'
      when v.type = 'timestamp with time zone'
        and (v.category = 'S' or v.has in ('timestamp without time zone', 'date')) then ''
      when v.type = 'jsonb' and (v.category = 'S' or v.has = 'json') then ''
      when v.type = 'text[]' and v.category = 'A' then '' end;
    v_count := null;
    if v_pattern is null then
      v_problems := v_problems || format('public.%s.%s is %s, not %s', v.relation, v.name, v.has, v.type);
    elsif v_pattern <> '' then
      execute format('select count(*) from public.%I where %I::text !~ %L', v.relation, v.name, v_pattern)
        into v_count;
    elsif v.type <> 'text' then
      begin
        execute format('select count(nullif(btrim(%I::text), %L)::%s) * 0 from public.%I',
                       v.name, '', v.type, v.relation) into v_count;
      exception when data_exception then
        v_problems := v_problems || format('public.%s.%s is %s and holds values that are no %s',
                                           v.relation, v.name, v.has, v.type);
      end;
    end if;
    if v_count > 0 then
      v_problems := v_problems || format('public.%s.%s is %s and holds %s values that are no %s',
        v.relation, v.name, v.has, v_count, case v.type
          when 'bigint' then 'whole numbers' when 'smallint' then 'numbers from 1 to 5' else v.type end);
    end if;
    for v_dependent in
      select pg_describe_object(d.classid, d.objid, d.objsubid)
      from pg_depend d
      left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
      left join pg_attrdef e on d.classid = 'pg_attrdef'::regclass and e.oid = d.objid
      where d.refclassid = 'pg_class'::regclass and d.refobjid = v.attrelid and d.refobjsubid = v.attnum
        and (k.contype = 'f' and k.conrelid <> all (v_relations) or e.adnum <> v.attnum
          or d.classid = 'pg_class'::regclass and d.objsubid > 0)
    loop
      v_problems := v_problems || format(
        '%s depends on public.%s.%s, whose type has to change: drop it, and create it again afterwards',
        v_dependent, v.relation, v.name);
    end loop;
  end loop;
  -- Adoption drops and recreates the views on these tables. Refuse other objects that depend on the columns or views.
  for v in
    with recursive readers (oid) as (
      select unnest(v_relations)
      union
      select r.ev_class from readers s
      join pg_depend d
        on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
      join pg_class c on c.oid = r.ev_class and c.relkind = 'v' and pg_has_role(c.relowner, 'USAGE')
    )
    select distinct coalesce(c.oid::regclass::text, pg_describe_object(d.classid, d.objid, d.objsubid)) as dependent,
      s.oid::regclass as relation
    from readers s
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and d.refobjsubid > 0
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      and (a.attname <> 'id' or s.oid <> all (v_relations))
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_class c on c.oid = r.ev_class
    left join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
    where c.oid not in (select oid from readers) or d.classid = 'pg_proc'::regclass or p.polrelid <> all (v_relations)
  loop
    v_problems := v_problems || format(
      '%s reads %s, whose columns are rewritten: drop it, and create it again afterwards', v.dependent, v.relation);
  end loop;

  -- Every row needs a player: its own, its session's or its messages'. A missing column counts as null.
  select jsonb_object_agg(w.relation || '.' || w.name,
      case when a.attname is null then 'null::text'
           else format('nullif(btrim(%I.%I::text), %L)', w.relation, w.name, '') end)
    into v_columns
    from (values ('gre_chat_sessions', 'id'), ('gre_chat_sessions', 'player_id'), ('gre_chat_messages', 'session_id'),
                 ('gre_chat_messages', 'player_id'), ('gre_chat_messages', 'message')) w (relation, name)
    left join pg_attribute a
      on a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped;
  v_matching := format(' and %s = %s and %%s is not null)',
                       v_columns ->> 'gre_chat_sessions.id', v_columns ->> 'gre_chat_messages.session_id');
  if v_has_sessions then
    execute format('select count(*) from public.gre_chat_sessions where %s is null',
                   v_columns ->> 'gre_chat_sessions.player_id')
      || case when v_has_messages then ' and not exists (select from public.gre_chat_messages where true'
                                       || format(v_matching, v_columns ->> 'gre_chat_messages.player_id') else '' end
      into v_count;
    if v_count > 0 then
      v_problems := v_problems || format('public.gre_chat_sessions.player_id is missing for %s sessions', v_count);
    end if;
  end if;
  if v_has_messages then
    execute format('select count(*) from public.gre_chat_messages where %s is null',
                   v_columns ->> 'gre_chat_messages.player_id')
      || case when v_has_sessions then ' and not exists (select from public.gre_chat_sessions where true'
                                       || format(v_matching, v_columns ->> 'gre_chat_sessions.player_id') else '' end
      into v_count;
    if v_count > 0 then
      v_problems := v_problems || format(
        'public.gre_chat_messages.player_id is missing for %s messages without a session', v_count);
    end if;
    execute 'select count(*) from (select from public.gre_chat_messages limit 1) x' into v_count;
    if v_count > 0 and v_columns ->> 'gre_chat_messages.message' = 'null::text' then
      v_problems := v_problems
        || text 'public.gre_chat_messages.message is missing: the text is in another column';
    end if;
  end if;

  -- Adoption creates sessions for messages without one. Check that a foreign key of the project allows their players.
  if v_has_messages and v_has_sessions then
    for v in
      select k.conname, k.confrelid::regclass as referenced, quote_ident(b.attname) as key
      from pg_constraint k
      join pg_attribute a on a.attrelid = k.conrelid and k.conkey = array[a.attnum] and a.attname = 'player_id'
      join pg_attribute b on b.attrelid = k.confrelid and k.confkey = array[b.attnum]
      where k.conrelid = to_regclass('public.gre_chat_sessions') and k.contype = 'f'
        and a.atttypid = 'bigint'::regtype
    loop
      execute format('select count(distinct %s) from public.gre_chat_messages'
                     ' where not exists (select from public.gre_chat_sessions where true',
                     v_columns ->> 'gre_chat_messages.player_id')
        || format(v_matching, '1') || format(' and not exists (select from %s p where p.%s::text = %s)',
                                             v.referenced, v.key, v_columns ->> 'gre_chat_messages.player_id')
        into v_count;
      if v_count > 0 then
        v_problems := v_problems || format('public.gre_chat_messages has messages without a session of %s players'
          ' who are not in %s (foreign key %s of gre_chat_sessions): add these players, or drop the foreign key',
          v_count, v.referenced, v.conname);
      end if;
    end loop;
  end if;

  for v in
    select c.relname, a.attname from pg_index i
    join pg_class c on c.oid = i.indrelid
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::smallint[])
    where i.indisprimary and i.indrelid = any (v_relations) and not a.atthasdef and a.attidentity = ''
      and not (a.attname = 'id' or c.relname = 'gre_online_status' and a.attname in ('staff_id', 'gre_id'))
  loop
    v_problems := v_problems || format('public.%s.%s is in the primary key and has no default', v.relname, v.attname);
  end loop;
  for v in
    select w.relation, w.name from (
      select 'gre_chat_players' as relation,
        unnest(array['player_id', 'user_id', 'display_name', 'chat_enabled', 'blocked_until', 'updated_at']) as name
      union all select 'gre_staff',
        unnest(array['staff_id', 'user_id', 'display_name', 'role', 'active', 'updated_at'])) w
    where to_regclass('public.' || w.relation) is not null and not exists (
      select from pg_attribute a
      where a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped)
  loop
    v_problems := v_problems || format('public.%s exists already, without column %s: rename it', v.relation, v.name);
  end loop;

  if v_problems <> '{}' then
    raise exception using errcode = 'GRE01', message = 'cannot adopt: ' || array_to_string(v_problems, '; '),
      detail = array_to_string(v_problems, e'\n');
  end if;
end $check$;

-- Triggers for legacy portals -----------------------------------------------------------------------------
-- They translate the legacy columns and values of a row. gre.adopt() creates them on the tables with such columns only.

-- gre.adopt() sets search_path after its last use: a function with settings cannot be inlined.
create function gre.legacy_sender(p_value text) returns text
language sql immutable parallel safe as $$
  select case lower(btrim(p_value))
    when 'player' then 'player' when 'user' then 'player' when 'customer' then 'player' when 'client' then 'player'
    when 'guest' then 'player' when 'gre' then 'staff' when 'staff' then 'staff' when 'gre_staff' then 'staff'
    when 'admin' then 'staff' when 'agent' then 'staff' when 'support' then 'staff' when 'operator' then 'staff'
    when 'system' then 'system' when 'bot' then 'system' end
$$;

create function gre.legacy_session_status(p_value text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when w is null
                or w in ('active', 'open', 'opened', 'new', 'assigned', 'ongoing', 'in_progress') then 'active'
              when w in ('pending', 'waiting') then w else 'closed' end
  from lower(btrim(p_value)) w
$$;

create function gre.legacy_presence(p_value text, p_online boolean) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when w in ('online', 'available', 'active') then 'online' when w in ('away', 'busy', 'idle') then 'away'
              when w is null and p_online then 'online' else 'offline' end
  from lower(btrim(p_value)) w
$$;

-- Trigger argument: the value of sender_type that means staff in this project.
create function gre.legacy_messages_before_insert() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_row jsonb := to_jsonb(new);
  v_staff text := (gre.current_actor()).staff_id;
begin
  new.sender := coalesce(gre.legacy_sender(new.sender), gre.legacy_sender(v_row ->> 'sender_type'), new.sender,
                         v_row ->> 'sender_type');
  if new.sender = 'staff' then
    new.sender_id := coalesce(new.sender_id, v_row ->> 'gre_id');
    new.sender_name := coalesce(new.sender_name, left(v_row ->> 'gre_name', 400));
    if v_staff is not null then
      -- A staff member's own insert: set the legacy columns to the caller.
      new := jsonb_populate_record(new, jsonb_build_object(
        'gre_name', gre.staff_name(v_staff, new.sender_name), 'gre_id', null));
      begin
        new := jsonb_populate_record(new, jsonb_build_object('gre_id', v_staff));
      exception when data_exception then
        null; -- gre_id is numeric, and staff_id is not a number
      end;
    end if;
  elsif v_row ->> 'gre_id' is not null or v_row ->> 'gre_name' is not null then
    -- Legacy portals treat a message with these columns as a message of staff.
    new := jsonb_populate_record(new, '{"gre_id": null, "gre_name": null}');
  end if;
  -- Legacy portals read sender_type: make it agree with sender.
  if gre.legacy_sender(v_row ->> 'sender_type') is distinct from new.sender then
    new := jsonb_populate_record(new, jsonb_build_object(
      'sender_type', case new.sender when 'staff' then tg_argv[0] else new.sender end));
  end if;
  return new;
end $$;

create function gre.legacy_sessions_before_write() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_row jsonb := to_jsonb(new);
begin
  new.status := gre.legacy_session_status(new.status);
  if tg_op = 'INSERT' then
    new.assigned_staff_id := coalesce(new.assigned_staff_id, v_row ->> 'gre_id');
  elsif v_row -> 'gre_id' is distinct from to_jsonb(old) -> 'gre_id' then
    new.assigned_staff_id := v_row ->> 'gre_id';
  end if;
  return new;
end $$;

-- Set is_online and gre_id from status and staff_id, for portals that read them.
-- Trigger argument: 'many' if gre_id is not unique: legacy portals then insert a row for each heartbeat.
create function gre.legacy_presence_before_write() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_row jsonb := to_jsonb(new);
  v_online boolean := (v_row ->> 'is_online')::boolean;
begin
  if tg_op = 'UPDATE' and new.staff_id is null then
    return new; -- an older row of a staff member, see below
  end if;
  if tg_op = 'INSERT' then
    new.staff_id := coalesce(new.staff_id, v_row ->> 'gre_id');
  end if;
  new.display_name := coalesce(new.display_name, v_row ->> 'gre_name');
  if tg_op = 'INSERT' then
    -- A status equal to the column's default may not have been given: then is_online decides.
    new.status := case when v_online and new.status = 'offline' then 'online'
                       else gre.legacy_presence(new.status, v_online) end;
  elsif new.status is distinct from old.status then
    new.status := gre.legacy_presence(new.status, v_online);
  elsif v_row -> 'is_online' is distinct from to_jsonb(old) -> 'is_online' then
    new.status := case when v_online then 'online' else 'offline' end;
  end if;
  new.last_seen_at := case
    when new.status = 'online' and tg_op = 'UPDATE' and new.last_seen_at is not distinct from old.last_seen_at
      then now() else new.last_seen_at end;
  new.updated_at := now();
  new := jsonb_populate_record(new, jsonb_build_object('is_online', new.status = 'online'));
  if (gre.current_actor()).staff_id is not null then
    -- A staff member's own write: gre_1_check has set staff_id and display_name, but not the legacy columns.
    v_row := v_row || jsonb_build_object('gre_id', new.staff_id, 'gre_name', new.display_name);
    new := jsonb_populate_record(new, jsonb_build_object('gre_name', new.display_name));
  end if;
  begin
    new := jsonb_populate_record(new, jsonb_build_object(
      'gre_id', coalesce(v_row ->> 'gre_id', new.staff_id),
      'gre_name', coalesce(v_row ->> 'gre_name', new.display_name)));
  exception when data_exception then
    null; -- gre_id is numeric, and staff_id is not a number
  end;
  if tg_op = 'INSERT' and tg_argv[0] = 'many' and v_row ->> 'staff_id' is null then
    -- Only the newest row of a staff member keeps its staff_id.
    update public.gre_online_status set staff_id = null where staff_id = new.staff_id;
  end if;
  return new;
end $$;

create function gre.legacy_pushes_before_insert() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_row jsonb := to_jsonb(new);
begin
  new.body := coalesce(new.body, v_row ->> 'message');
  if v_row ->> 'target_player_id' is not null then
    new.audience := coalesce(new.audience, 'player');
    if new.recipients is null and to_regclass('gre.settings') is not null then
      new.recipients := array[(
        select replace(player_external_id, '{player_id}', v_row ->> 'target_player_id') from gre.settings)];
    end if;
    new.recipients := coalesce(new.recipients, array['player_' || (v_row ->> 'target_player_id')]);
  end if;
  new.status := case when lower(new.status) in ('pending', 'new', 'scheduled', 'waiting') then 'queued'
                     when lower(new.status) in ('delivered', 'success') then 'sent'
                     when lower(new.status) in ('error', 'failure') then 'failed' else new.status end;
  new := jsonb_populate_record(new, jsonb_build_object('message', coalesce(v_row ->> 'message', new.body)));
  return new;
end $$;

-- Helpers -------------------------------------------------------------------------------------------------

-- The sessions after adoption; is_new: created for messages without a session.
create unlogged table gre.adopt_sessions (
  id uuid primary key, player_id bigint, player_name text, status text, is_new boolean not null default false,
  created_at timestamptz, updated_at timestamptz, closed_at timestamptz, last_seq bigint not null default 0,
  last_message_at timestamptz, waiting_since timestamptz
);
-- The messages before adoption, in the types of the model.
create unlogged table gre.adopt_source_messages (
  id uuid, session_id uuid, player_id bigint, player_name text, sender text, created_at timestamptz
);
-- The messages after adoption; is_assigned: adoption chose the session.
create unlogged table gre.adopt_messages (
  id uuid, session_id uuid, is_assigned boolean, seq bigint, player_id bigint, sender text, created_at timestamptz
);

create function gre.adopt_session(p_id uuid) returns gre.adopt_sessions
language plpgsql stable as $$
declare
  v gre.adopt_sessions;
begin
  select * into v from gre.adopt_sessions where id = p_id;
  return v;
end $$;

create function gre.adopt_message(p_id uuid) returns gre.adopt_messages
language plpgsql stable as $$
declare
  v gre.adopt_messages;
begin
  select * into v from gre.adopt_messages where id = p_id;
  return v;
end $$;

-- Set search_path to the schema in which gre_tables creates the chat's tables: public, or gre_model if any of them
-- exists in public. The function itself has no search_path setting, since that would undo the change.
create function gre.adopt_choose_schema() returns void
language plpgsql as $$
begin
  if to_regclass('public.gre_chat_sessions') is not null or to_regclass('public.gre_chat_messages') is not null
    or to_regclass('public.gre_online_status') is not null or to_regclass('public.push_notifications') is not null then
    create schema gre_model;
    perform pg_catalog.set_config('search_path', 'gre_model', true);
  else
    perform pg_catalog.set_config('search_path', 'public', true);
  end if;
end $$;

-- List the columns of the model tables.
create function gre.adopt_columns() returns table (relation text, name text, type text)
language sql stable set search_path = '' as $$
  select c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, null)
  from pg_catalog.pg_class c
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  where c.relnamespace = to_regnamespace('gre_model') and c.relkind = 'r'
  order by c.relname, a.attnum
$$;

-- Return an SQL expression of type text: the first of these columns that exists and is not blank.
create function gre.adopt_first_of(p_relation text, variadic p_names text[]) returns text
language sql stable set search_path = '' as $$
  select 'coalesce('
    || coalesce(string_agg(format('nullif(btrim(%I::text), %L)', n.name, ''), ', ' order by n.n) || ', ', '')
    || 'null::text)'
  from unnest(p_names) with ordinality n (name, n)
  join pg_catalog.pg_attribute a on a.attrelid = to_regclass('public.' || p_relation) and a.attname = n.name
    and a.attnum > 0 and not a.attisdropped
$$;

create function gre.adopt_has_column(p_relation text, variadic p_names text[]) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from pg_catalog.pg_attribute a where a.attrelid = to_regclass('public.' || p_relation)
    and a.attname = any (p_names) and a.attnum > 0 and not a.attisdropped)
$$;

-- Return true if there is a unique index on this column alone.
create function gre.adopt_is_unique(p_table regclass, p_column text) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = p_column
    where i.indrelid = p_table and i.indisunique and i.indpred is null and i.indkey::text = a.attnum::text)
$$;

-- Return an SQL expression over a legacy row: the sender of a message.
create function gre.adopt_sender() returns text
language sql stable set search_path = '' as $$
  select format('coalesce(gre.legacy_sender(%1$s), gre.legacy_sender(%2$s), case when %3$s is not null then ''staff''
                when %1$s is null and %2$s is null then ''player'' else ''system'' end)',
    gre.adopt_first_of('gre_chat_messages', 'sender'), gre.adopt_first_of('gre_chat_messages', 'sender_type'),
    gre.adopt_first_of('gre_chat_messages', 'gre_id'))
$$;

-- Return an SQL expression over a legacy row: the value of a column in the type of the model.
create function gre.adopt_cast(p_relation text, p_name text) returns text
language sql stable set search_path = '' as $$
  select case
    when pg_catalog.format_type(a.atttypid, null) = s.type then format('%I', s.name)
    when s.type = 'text' then format('%I::text', s.name)
    when s.type in ('bigint', 'integer', 'smallint')
      then format('split_part(nullif(btrim(%I::text), %L), %L, 1)::%s', s.name, '', '.', s.type)
    else format('nullif(btrim(%I::text), %L)::%s', s.name, '', s.type) end
  from gre.adopt_columns() s
  join pg_catalog.pg_attribute a on a.attrelid = to_regclass('public.' || s.relation) and a.attname = s.name
  where s.relation = p_relation and s.name = p_name
$$;

-- Adoption ------------------------------------------------------------------------------------------------

-- Create missing tables and columns, without constraints and defaults.
create function gre.adopt_prepare() returns void
language plpgsql set search_path = '' as $$
declare
  v record;
begin
  for v in
    select c.relation, to_regclass('public.' || c.relation) is null as missing,
      string_agg(format('add column if not exists %I %s%s', c.name, c.type,
                        case when c.name = 'id' then ' default gen_random_uuid()' end), ', ') as clauses
    from gre.adopt_columns() c group by c.relation
  loop
    if v.missing then
      execute format('create table public.%I (%s primary key)', v.relation,
                     case v.relation when 'gre_online_status' then 'staff_id text' else 'id uuid' end);
      execute format('alter table public.%I enable row level security', v.relation);
    end if;
    execute format('alter table public.%I %s', v.relation, v.clauses);
  end loop;
end $$;

-- Convert the columns of a table to the types of the model, with the values of p_values ({column: SQL expression over
-- the legacy row}), in one rewrite of the table. A rewrite leaves no dead rows, fires no triggers, and sends nothing to
-- Realtime (logical decoding ignores it).
create function gre.adopt_rewrite(p_relation text, p_values jsonb) returns void
language plpgsql set search_path = '' set timezone = 'UTC' as $$
declare
  v_table regclass := to_regclass('public.' || p_relation);
  v_clauses text[] := '{}';
  v_columns smallint[] := '{}';
  v_retyped smallint[] := '{}';
  v_changes boolean;
  v record;
begin
  for v in
    select s.name, s.type, a.attnum, a.attidentity, a.attgenerated,
      pg_catalog.format_type(a.atttypid, null) <> s.type as retype,
      coalesce(p_values ->> s.name, gre.adopt_cast(p_relation, s.name)) as value
    from gre.adopt_columns() s join pg_catalog.pg_attribute a on a.attrelid = v_table and a.attname = s.name
    where s.relation = p_relation and (p_relation, s.name) <> ('push_notifications', 'id')
  loop
    v_changes := v.retype;
    if not v_changes and p_values ? v.name then
      execute format('select exists (select from %s where %I is distinct from (%s))', v_table, v.name, v.value)
        into v_changes;
    end if;
    if v.attidentity <> '' then
      execute format('alter table %s alter column %I drop identity', v_table, v.name);
    elsif v.attgenerated <> '' then
      execute format('alter table %s alter column %I drop expression', v_table, v.name);
    end if;
    if v_changes then
      v_columns := v_columns || v.attnum;
      v_retyped := v_retyped || case when v.retype then array[v.attnum] else '{}' end;
      execute format('alter table %s alter column %I drop default', v_table, v.name);
      v_clauses := v_clauses || format('alter column %I type %s using (%s)', v.name, v.type, v.value);
    end if;
  end loop;
  if v_clauses = '{}' then
    return;
  end if;
  for v in
    select distinct p.polname from pg_catalog.pg_policy p
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
    where p.polrelid = v_table and d.refobjid = v_table and d.refobjsubid = any (v_columns)
  loop
    raise notice 'gre-bridge: dropping policy % on %', quote_ident(v.polname), p_relation;
    execute format('drop policy %I on %s', v.polname, v_table);
  end loop;
  for v in
    select distinct i.indexrelid::regclass as index from pg_catalog.pg_index i
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = i.indexrelid
    where i.indrelid = v_table and (i.indpred is not null or i.indexprs is not null)
      and d.refobjid = v_table and d.refobjsubid = any (v_retyped)
  loop
    raise notice 'gre-bridge: dropping index %, written for another type', v.index;
    execute format('drop index %s', v.index);
  end loop;
  if gre.adopt_has_column(p_relation, 'gre_adopted') then
    v_clauses := v_clauses || text 'drop column gre_adopted'; -- the expressions read the row before the change
  end if;
  execute format('alter table %s %s', v_table, array_to_string(v_clauses, ', '));
end $$;

-- Compute the sessions and messages after adoption: each message has a session, seq is in the order of time, and each
-- player has at most one open session.
create function gre.adopt_collect() returns void
language plpgsql set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set work_mem = '64MB' as $$
declare
  v record;
begin
  execute format($q$
    insert into gre.adopt_sessions (id, player_id, player_name, status, created_at, updated_at, closed_at)
    select %1$s, %2$s, %3$s,
      case when %2$s <= 0 or %4$s is null and %5$s is not null then 'closed' else gre.legacy_session_status(%4$s) end,
      %6$s::timestamptz, %7$s::timestamptz, %5$s::timestamptz
    from public.gre_chat_sessions $q$,
    gre.adopt_cast('gre_chat_sessions', 'id'), gre.adopt_cast('gre_chat_sessions', 'player_id'),
    gre.adopt_first_of('gre_chat_sessions', 'player_name'), gre.adopt_first_of('gre_chat_sessions', 'status'),
    gre.adopt_first_of('gre_chat_sessions', 'closed_at', 'ended_at'),
    gre.adopt_first_of('gre_chat_sessions', 'created_at', 'started_at'),
    gre.adopt_first_of('gre_chat_sessions', 'updated_at', 'last_activity'));
  execute format($q$
    insert into gre.adopt_source_messages (id, session_id, player_id, player_name, sender, created_at)
    select m.id, s.id, coalesce(m.player_id, s.player_id), m.player_name, m.sender,
      coalesce(m.created_at, s.created_at, now())
    from (select %s as id, %s as session_id, %s as player_id, %s as player_name, %s as sender,
            coalesce(%s, %s, %s::timestamptz) as created_at
          from public.gre_chat_messages) m
    left join gre.adopt_sessions s on s.id = m.session_id $q$,
    gre.adopt_cast('gre_chat_messages', 'id'), gre.adopt_cast('gre_chat_messages', 'session_id'),
    gre.adopt_cast('gre_chat_messages', 'player_id'), gre.adopt_first_of('gre_chat_messages', 'player_name'),
    gre.adopt_sender(),
    gre.adopt_cast('gre_chat_messages', 'created_at'), gre.adopt_cast('gre_chat_messages', 'timestamp'),
    gre.adopt_first_of('gre_chat_messages', 'sent_at'));
  analyze gre.adopt_sessions, gre.adopt_source_messages;

  update gre.adopt_sessions s set player_id = coalesce(s.player_id, m.player_id), last_message_at = m.last_at,
    created_at = coalesce(s.created_at, m.first_at)
  from (select session_id, min(player_id) as player_id, min(created_at) as first_at, max(created_at) as last_at
        from gre.adopt_source_messages group by session_id) m
  where m.session_id = s.id;
  update gre.adopt_sessions set created_at = coalesce(updated_at, closed_at, now()) where created_at is null;

  for v in
    update gre.adopt_sessions s set status = 'closed'
    from (select id, row_number() over (
            partition by player_id order by greatest(created_at, last_message_at) desc, id) as n
          from gre.adopt_sessions where status <> 'closed') r
    where r.id = s.id and r.n > 1
    returning s.id, s.player_id
  loop
    raise notice 'gre-bridge: closing session % of player %, who has a newer open one', v.id, v.player_id;
  end loop;

  -- Assign a message without a session to its player's open session. If there is none, create a session for all such
  -- messages of the player; it is open if the newest of them is at most a week old.
  insert into gre.adopt_sessions (id, player_id, player_name, status, is_new, created_at)
  select gen_random_uuid(), m.player_id,
    (array_agg(m.player_name order by m.created_at desc) filter (where m.player_name is not null))[1],
    case when max(m.created_at) > now() - interval '7 days' and m.player_id > 0 then 'active' else 'closed' end,
    true, min(m.created_at)
  from gre.adopt_source_messages m
  where m.session_id is null
    and not exists (select from gre.adopt_sessions s where s.player_id = m.player_id and s.status <> 'closed')
  group by m.player_id;
  insert into gre.adopt_messages (id, session_id, is_assigned, seq, player_id, sender, created_at)
  select m.id, s.id, m.session_id is null, row_number() over (partition by s.id order by m.created_at, m.id),
    coalesce(m.player_id, s.player_id), m.sender, m.created_at
  from gre.adopt_source_messages m
  left join gre.adopt_sessions o
    on m.session_id is null and o.player_id = m.player_id and (o.is_new or o.status <> 'closed')
  join gre.adopt_sessions s on s.id = coalesce(m.session_id, o.id);
  alter table gre.adopt_messages add primary key (id);
  update gre.adopt_sessions s set last_seq = m.last_seq, last_message_at = m.last_at
  from (select session_id, max(seq) as last_seq, max(created_at) as last_at
        from gre.adopt_messages group by session_id) m
  where m.session_id = s.id;
  -- waiting_since is the time of the player's first message after staff's last message.
  update gre.adopt_sessions s set waiting_since = w.at
  from (select m.session_id, min(m.created_at) as at
        from gre.adopt_messages m
        left join (select session_id, max(seq) as seq
                   from gre.adopt_messages where sender = 'staff' group by session_id) a
          on a.session_id = m.session_id
        where m.sender = 'player' and m.seq > coalesce(a.seq, 0) group by m.session_id) w
  where w.session_id = s.id and s.status <> 'closed';
  update gre.adopt_sessions set updated_at = coalesce(updated_at, last_message_at, created_at),
    closed_at = case when status = 'closed' then coalesce(closed_at, last_message_at, updated_at, created_at) end;
  analyze gre.adopt_sessions, gre.adopt_messages;
end $$;

-- Drop the objects that prevent the conversion: views and triggers, constraints that would refuse the new values, and
-- not null. Return the statements that recreate the views and triggers.
create function gre.adopt_drop_dependents(p_tables regclass[]) returns text[]
language plpgsql set search_path = '' as $$
declare
  v_statements text[] := '{}';
  v record;
begin
  -- Views and triggers. A view is recreated before the views that read it.
  for v in
    with recursive views (oid, depth) as (
      select r.ev_class, 1 from pg_catalog.pg_rewrite r
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
      where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = any (p_tables)
        and r.ev_class <> all (p_tables)
      union
      select r.ev_class, s.depth + 1 from views s
      join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = s.oid
        and d.classid = 'pg_catalog.pg_rewrite'::regclass
      join pg_catalog.pg_rewrite r on r.oid = d.objid and r.ev_class <> s.oid
    )
    select c.oid, c.oid::regclass::text as name, max(s.depth) as depth, c.relacl, c.relowner, c.reloptions,
      rtrim(pg_catalog.pg_get_viewdef(c.oid), '; ') as body, obj_description(c.oid, 'pg_class') as about
    from views s join pg_catalog.pg_class c on c.oid = s.oid
    where c.relkind = 'v' and pg_has_role(c.relowner, 'USAGE')
    group by c.oid order by max(s.depth) desc
  loop
    v_statements := (select array_agg(line order by n) from (values
        (0, format('create view %s%s as %s', v.name, ' with (' || array_to_string(v.reloptions, ', ') || ')', v.body)),
        (1, format('alter view %s owner to %I', v.name, pg_get_userbyid(v.relowner))),
        (2, format('revoke all on %s from public, anon, authenticated, service_role', v.name)),
        (3, format('comment on view %s is %L', v.name, v.about))) l (n, line) where line is not null)
      || array(select format('grant %s on %s to %s%s', a.privilege_type, v.name,
                             case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                             case when a.is_grantable then ' with grant option' else '' end)
               from aclexplode(v.relacl) a where a.grantee <> v.relowner)
      || array(select pg_get_triggerdef(t.oid) from pg_catalog.pg_trigger t
               where t.tgrelid = v.oid and not t.tgisinternal)
      || v_statements;
    execute format('drop view %s', v.name);
  end loop;
  for v in
    select t.tgname, t.tgrelid::regclass as relation, pg_get_triggerdef(t.oid) as body, t.tgenabled
    from pg_catalog.pg_trigger t where t.tgrelid = any (p_tables) and not t.tgisinternal
  loop
    v_statements := v_statements || v.body || case v.tgenabled when 'O' then '{}' else array[
      format('alter table %s %s trigger %I', v.relation, case v.tgenabled
        when 'D' then 'disable' when 'A' then 'enable always' else 'enable replica' end, v.tgname)] end;
    execute format('drop trigger %I on %s', v.tgname, v.relation);
  end loop;

  -- Constraints that would refuse the new values.
  for v in
    select k.conname, k.conrelid::regclass as relation, pg_get_constraintdef(k.oid) as body
    from pg_catalog.pg_constraint k
    cross join lateral (
      select array_agg(a.attname::text) as names, bool_and(s.name is not null) as in_model,
        bool_or(pg_catalog.format_type(a.atttypid, null) <> s.type) as retyped
      from pg_catalog.pg_attribute a
      left join gre.adopt_columns() s on to_regclass('public.' || s.relation) = a.attrelid and s.name = a.attname
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey)) c
    where k.conrelid = any (p_tables) and (
      k.contype = 'c' and exists (
        select from gre.adopt_columns() s
        where to_regclass('public.' || s.relation) = k.conrelid and s.name = any (c.names))
      or k.contype = 'f' and (c.retyped
        or k.conrelid = 'public.gre_chat_messages'::regclass and c.names && array['session_id'])
      or k.contype = 'u' and k.conrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass)
        and c.in_model and not c.names && array['id'])
  loop
    raise notice 'gre-bridge: dropping constraint % on %: %', v.conname, v.relation, v.body;
    execute format('alter table %s drop constraint %I', v.relation, v.conname);
  end loop;
  for v in
    select i.indexrelid::regclass as index from pg_catalog.pg_index i
    where i.indrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass) and i.indisunique
      and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid)
      and not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = i.indrelid and a.attname = 'id' and a.attnum = any (i.indkey::smallint[]))
  loop
    raise notice 'gre-bridge: dropping unique index %', v.index;
    execute format('drop index %s', v.index);
  end loop;
  for v in
    select a.attrelid::regclass as relation, a.attname from pg_catalog.pg_attribute a
    left join gre.adopt_columns() s on to_regclass('public.' || s.relation) = a.attrelid and s.name = a.attname
    where a.attrelid = any (p_tables) and a.attnum > 0 and not a.attisdropped and a.attnotnull and a.attidentity = ''
      and (s.name is not null or not a.atthasdef)
      and not exists (
        select from pg_catalog.pg_index i
        where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any (i.indkey::smallint[]))
  loop
    execute format('alter table %s alter column %I drop not null', v.relation, v.attname);
  end loop;
  return v_statements;
end $$;

-- Convert the rows: ids, types, values and keys.
create function gre.adopt_rows(p_tables regclass[]) returns void
language plpgsql set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set work_mem = '64MB'
set maintenance_work_mem = '128MB' as $$
declare
  v_lookup text; -- SQL expression: the adopted session or message of a row
  v_sender text := gre.adopt_sender();
  v_target_player text := gre.adopt_first_of('push_notifications', 'target_player_id');
  v_dangling boolean;
  v_values jsonb;
  v record;
begin
  -- Replace ids that are null, and duplicate ids except for the first row.
  for v in
    select a.attrelid::regclass as relation, pg_catalog.format_type(a.atttypid, a.atttypmod) as type
    from pg_catalog.pg_attribute a
    where a.attrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass)
      and a.attname = 'id' and not gre.adopt_is_unique(a.attrelid, 'id')
  loop
    execute format('update %s t set id = gen_random_uuid()::text::%s'
                   ' from (select ctid as row_id, row_number() over (partition by id order by ctid) as n from %1$s) d'
                   ' where t.ctid = d.row_id and (t.id is null or d.n > 1)', v.relation, v.type);
  end loop;

  perform gre.adopt_collect();

  v_lookup := format('(gre.adopt_session(%s))', gre.adopt_cast('gre_chat_sessions', 'id'));
  if exists (select from gre.adopt_sessions where not is_new) then
    -- Ten columns take values of the adopted session, and the expressions of a rewrite cannot join. A first rewrite
    -- stores the adopted session in a temporary column, so that each session is looked up once.
    alter table public.gre_chat_sessions add column gre_adopted gre.adopt_sessions;
    execute format('alter table public.gre_chat_sessions'
                   ' alter column gre_adopted type gre.adopt_sessions using (%s)', v_lookup);
    v_lookup := '(gre_adopted)';
  end if;
  perform gre.adopt_rewrite('gre_chat_sessions', jsonb_build_object(
    'player_id', v_lookup || '.player_id', 'status', v_lookup || '.status', 'last_seq', v_lookup || '.last_seq',
    'last_message_at', v_lookup || '.last_message_at', 'created_at', v_lookup || '.created_at',
    'updated_at', v_lookup || '.updated_at', 'closed_at', v_lookup || '.closed_at',
    'staff_read_seq', v_lookup || '.last_seq', 'player_read_seq', v_lookup || '.last_seq',
    'waiting_since', v_lookup || '.waiting_since', 'rev', '1', 'unread_by_staff', '0', 'unread_by_player', '0',
    'cycle', '1',
    'rating', format('case when %s.status = ''closed'' then %s end', v_lookup,
                     gre.adopt_cast('gre_chat_sessions', 'rating')),
    'closed_by', format('case when %1$s.status = ''closed'' then
        case lower(%2$s) when ''idle'' then ''idle'' else gre.legacy_sender(%2$s) end end',
      v_lookup, gre.adopt_first_of('gre_chat_sessions', 'closed_by')),
    'assigned_staff_id', format('left(%s, 128)',
                                gre.adopt_first_of('gre_chat_sessions', 'assigned_staff_id', 'gre_id'))));
  alter table public.gre_chat_sessions drop column if exists gre_adopted; -- if there was nothing to rewrite
  insert into public.gre_chat_sessions (id, player_id, player_name, status, last_seq, rev, last_message_at,
      unread_by_staff, unread_by_player, created_at, updated_at, closed_at, staff_read_seq, player_read_seq,
      waiting_since, cycle)
    select id, player_id, player_name, status, last_seq, 1, last_message_at, 0, 0, created_at, updated_at, closed_at,
      last_seq, last_seq, waiting_since, 1
    from gre.adopt_sessions where is_new;

  v_lookup := format('(gre.adopt_message(%s))', gre.adopt_cast('gre_chat_messages', 'id'));
  v_values := jsonb_build_object(
    'seq', v_lookup || '.seq',
    'player_id', format('coalesce(%s, %s.player_id)', gre.adopt_cast('gre_chat_messages', 'player_id'), v_lookup),
    'created_at', format('coalesce(%s, %s.created_at)', gre.adopt_cast('gre_chat_messages', 'created_at'), v_lookup),
    'timestamp', format('coalesce(%s, %s, %s.created_at)', gre.adopt_cast('gre_chat_messages', 'timestamp'),
                        gre.adopt_cast('gre_chat_messages', 'created_at'), v_lookup),
    'message', 'coalesce(message::text, '''')',
    'origin', '''typed''',
    'attachment_ids', format('coalesce(%s, ''{}'')', gre.adopt_cast('gre_chat_messages', 'attachment_ids')),
    'metadata', format('coalesce(%s, ''{}'')', gre.adopt_cast('gre_chat_messages', 'metadata')));
  if exists (select from gre.adopt_messages where is_assigned) then
    -- Look up the session only for messages without one, unless a message names a session that does not exist.
    execute format('select count(%s) <> (select count(session_id) from gre.adopt_source_messages)'
                   ' from public.gre_chat_messages', gre.adopt_cast('gre_chat_messages', 'session_id')) into v_dangling;
    v_values := v_values || jsonb_build_object('session_id', case when v_dangling then v_lookup || '.session_id'
      else format('coalesce(%s, %s.session_id)', gre.adopt_cast('gre_chat_messages', 'session_id'), v_lookup) end);
  end if;
  v_values := v_values || jsonb_build_object(
    'sender', v_sender,
    'sender_id', format('coalesce(%s, case %s when ''staff'' then %s when ''player'' then %s end)',
      gre.adopt_first_of('gre_chat_messages', 'sender_id'), v_sender,
      gre.adopt_first_of('gre_chat_messages', 'gre_id'), gre.adopt_first_of('gre_chat_messages', 'player_id')),
    'sender_name', format('coalesce(%s, case %s when ''staff'' then %s when ''player'' then %s end)',
      gre.adopt_first_of('gre_chat_messages', 'sender_name'), v_sender,
      gre.adopt_first_of('gre_chat_messages', 'gre_name'), gre.adopt_first_of('gre_chat_messages', 'player_name')),
    -- NOT VALID constraints are checked when a row is updated. A row that violates one gets the final status, read, so
    -- that it is not updated again.
    'status', format('case when coalesce(char_length(message::text), 0) not between 1 and 4000 or char_length(%s) > 80
        or octet_length(metadata::text) > 4096 then ''read''
      when %2$s is null or lower(%2$s) in (''read'', ''seen'') or %3$s = ''true'' then ''read''
      when lower(%2$s) in (''delivered'', ''received'') then ''delivered'' else ''sent'' end',
      gre.adopt_first_of('gre_chat_messages', 'sender_name', 'gre_name', 'player_name'),
      gre.adopt_first_of('gre_chat_messages', 'status'),
      gre.adopt_first_of('gre_chat_messages', 'is_read')));
  perform gre.adopt_rewrite('gre_chat_messages', v_values);

  perform gre.adopt_rewrite('gre_online_status', jsonb_build_object(
    'staff_id', gre.adopt_first_of('gre_online_status', 'staff_id', 'gre_id'),
    'display_name', gre.adopt_first_of('gre_online_status', 'display_name', 'gre_name', 'name'),
    'status', format('gre.legacy_presence(%s, %s::boolean)', gre.adopt_first_of('gre_online_status', 'status'),
                     gre.adopt_first_of('gre_online_status', 'is_online')),
    'last_seen_at', gre.adopt_first_of('gre_online_status', 'last_seen_at', 'last_seen', 'last_activity',
                                       'updated_at') || '::timestamptz'));
  if not gre.adopt_is_unique('public.gre_online_status', 'staff_id') then
    -- Only the newest row of a staff member keeps its staff_id.
    update public.gre_online_status t set staff_id = null
    from (select ctid as row_id, row_number() over (partition by staff_id
            order by updated_at desc nulls last, last_seen_at desc nulls last) as n
          from public.gre_online_status where staff_id is not null) d
    where t.ctid = d.row_id and d.n > 1;
    alter table public.gre_online_status add constraint gre_online_status_staff_unique unique (staff_id);
  end if;

  perform gre.adopt_rewrite('push_notifications', jsonb_build_object(
    'body', gre.adopt_first_of('push_notifications', 'body', 'message'),
    'audience', format('coalesce(%s, case when %s is not null then ''player'' end)',
                       gre.adopt_first_of('push_notifications', 'audience'), v_target_player),
    'recipients', format('coalesce(%s, case when %2$s is not null then array[''player_'' || %2$s] end)',
                         gre.adopt_cast('push_notifications', 'recipients'), v_target_player),
    'data', format('coalesce(%s, ''{}'')', gre.adopt_cast('push_notifications', 'data')),
    -- Queued pushes of a legacy sender are not sent.
    'status', format('case
      when lower(%1$s) in (''queued'', ''pending'', ''new'', ''scheduled'', ''waiting'', ''expired'') then ''expired''
      when lower(%1$s) in (''failed'', ''error'', ''failure'') then ''failed''
      when lower(%1$s) = ''no_recipients'' then ''no_recipients''
      else ''sent'' end', gre.adopt_first_of('push_notifications', 'status'))));

  for v in
    select a.attrelid::regclass as relation, pg_catalog.format_type(a.atttypid, null) as type, a.atttypid,
      a.atthasdef or a.attidentity <> '' as has_default,
      exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisprimary) as has_key,
      exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisunique
              and i.indpred is null and i.indimmediate and i.indkey::text = a.attnum::text) as is_unique
    from pg_catalog.pg_attribute a where a.attrelid = any (p_tables) and a.attname = 'id' and not a.attisdropped
      and a.attrelid <> 'public.gre_online_status'::regclass
  loop
    if v.type in ('bigint', 'integer', 'smallint') and not v.has_default then
      execute format('create sequence public.push_notifications_id_seq owned by public.push_notifications.id');
      perform setval('public.push_notifications_id_seq',
                     coalesce((select max(id::text::bigint) from public.push_notifications), 0) + 1, false);
      alter table public.push_notifications alter column id set default nextval('public.push_notifications_id_seq');
    elsif not v.has_default or v.relation <> 'public.push_notifications'::regclass then
      execute format('alter table %s alter column id set default gen_random_uuid()%s', v.relation,
                     case v.type when 'uuid' then '' else '::text' end);
    end if;
    if not v.has_key and (v.relation <> 'public.push_notifications'::regclass or v.is_unique) then
      execute format('alter table %s add primary key (id)', v.relation);
    elsif not v.is_unique and v.relation <> 'public.push_notifications'::regclass then
      execute format('alter table %s add unique (id)', v.relation);
    end if;
  end loop;
  if pg_get_serial_sequence('public.push_notifications', 'id') is not null then
    execute format('grant usage on sequence %s to authenticated, service_role',
                   pg_get_serial_sequence('public.push_notifications', 'id'));
  end if;
end $$;

-- Give the tables the defaults, constraints, indexes and comments of the model tables, and drop these. Check
-- constraints are NOT VALID, since legacy rows may violate them.
create function gre.adopt_model() returns void
language plpgsql set search_path = '' set work_mem = '64MB' set maintenance_work_mem = '128MB' as $$
declare
  v_statement text;
  v record;
begin
  for v in
    select c.relname, a.attname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid) as expression
    from pg_catalog.pg_class c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = 'gre_model'::regnamespace and c.relkind = 'r'
      -- gre.adopt_rows() has set the keys.
      and a.attname <> 'id' and (c.relname, a.attname) <> ('gre_online_status', 'staff_id')
      and (a.attnotnull or d.oid is not null)
  loop
    execute format('alter table public.%I %s', v.relname, concat_ws(', ',
      format('alter column %I set default ', v.attname) || v.expression,
      case when v.attnotnull then format('alter column %I set not null', v.attname) end));
  end loop;
  for v_statement in
    select replace(x.statement, ' gre_model.', ' public.') from (
      select 2 as step, format('alter table public.%I add constraint %I %s%s', c.relname, k.conname,
        pg_get_constraintdef(k.oid), case k.contype when 'c' then ' not valid' end) as statement
      from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
      where c.relnamespace = 'gre_model'::regnamespace and k.contype in ('c', 'f', 'u')
      union all
      select 1, regexp_replace(pg_get_indexdef(i.indexrelid), '^(CREATE (?:UNIQUE )?INDEX)', '\1 IF NOT EXISTS')
      from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indrelid
      where c.relnamespace = 'gre_model'::regnamespace
        and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid)
      union all
      select 3, format('comment on table public.%I is %L', c.relname, obj_description(c.oid, 'pg_class'))
      from pg_catalog.pg_class c where c.relnamespace = 'gre_model'::regnamespace and c.relkind = 'r'
        and obj_description(to_regclass('public.' || c.relname), 'pg_class') is null
      union all
      select 3, format('comment on column public.%I.%I is %L', c.relname, a.attname, col_description(c.oid, a.attnum))
      from pg_catalog.pg_class c
      join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      join pg_catalog.pg_attribute b on b.attrelid = to_regclass('public.' || c.relname) and b.attname = a.attname
      where c.relnamespace = 'gre_model'::regnamespace and c.relkind = 'r'
        and col_description(b.attrelid, b.attnum) is null) x
    order by x.step, x.statement
  loop
    execute v_statement;
  end loop;
  for v_statement in
    select format('drop table gre_model.%I', c.relname) from pg_catalog.pg_class c
    where c.relnamespace = 'gre_model'::regnamespace and c.relkind = 'r' order by c.relname
  loop
    execute v_statement;
  end loop;
  drop schema gre_model;
end $$;

-- Create the triggers for legacy portals on tables with legacy columns, and drop the functions of the others.
create function gre.adopt_legacy_triggers() returns void
language plpgsql set search_path = '' as $$
declare
  v_sender_type text := 'staff';
begin
  if gre.adopt_has_column('gre_chat_messages', 'sender_type') then
    execute 'select coalesce(mode() within group (order by sender_type::text), ''gre'') from public.gre_chat_messages
             where gre.legacy_sender(sender_type::text) = ''staff''' into v_sender_type;
  end if;
  if gre.adopt_has_column('gre_chat_messages', 'sender_type', 'gre_id', 'gre_name') then
    execute format('create trigger gre_2_legacy before insert on public.gre_chat_messages
                    for each row execute function gre.legacy_messages_before_insert(%L)', v_sender_type);
  else
    drop function gre.legacy_messages_before_insert();
  end if;
  if exists (select from gre.adopt_sessions where not is_new) then
    create trigger gre_2_legacy before insert or update on public.gre_chat_sessions
      for each row execute function gre.legacy_sessions_before_write();
  else
    drop function gre.legacy_sessions_before_write();
    drop function gre.legacy_session_status(text);
  end if;
  if gre.adopt_has_column('gre_online_status', 'is_online', 'gre_id', 'gre_name') then
    execute format('create trigger gre_2_legacy before insert or update on public.gre_online_status
                    for each row execute function gre.legacy_presence_before_write(%L)',
      case when gre.adopt_is_unique('public.gre_online_status', 'gre_id') then 'one' else 'many' end);
  else
    drop function gre.legacy_presence_before_write();
    drop function gre.legacy_presence(text, boolean);
  end if;
  if gre.adopt_has_column('push_notifications', 'message', 'target_player_id') then
    create trigger gre_2_legacy before insert on public.push_notifications
      for each row execute function gre.legacy_pushes_before_insert();
  else
    drop function gre.legacy_pushes_before_insert();
  end if;
  if to_regprocedure('gre.legacy_messages_before_insert()') is null then
    drop function gre.legacy_sender(text);
  else
    alter function gre.legacy_sender(text) set search_path = '';
  end if;
end $$;

-- Adopt the chat's tables if they existed before gre_tables, create the triggers for legacy portals, and drop the
-- helper functions. gre_messages calls it.
create function gre.adopt() returns void
language plpgsql set search_path = '' as $$
declare
  v_tables regclass[];
  v_statements text[];
  v_statement text;
  v_default_sender text;
begin
  if to_regnamespace('gre_model') is not null then
    perform gre.lock_tables();
    -- A table with pending events of deferred triggers or foreign keys cannot be altered.
    set constraints all immediate;
    perform gre.adopt_prepare();
    v_tables := array['public.gre_chat_sessions', 'public.gre_chat_messages', 'public.gre_online_status',
                      'public.push_notifications'];
    v_statements := gre.adopt_drop_dependents(v_tables);
    select gre.legacy_sender((regexp_match(pg_get_expr(d.adbin, d.adrelid), '^''([a-z_]+)''::'))[1])
      into v_default_sender
    from pg_catalog.pg_attrdef d
    join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    where d.adrelid = 'public.gre_chat_messages'::regclass and a.attname = 'sender';
    perform gre.adopt_rows(v_tables);
    perform gre.adopt_model();
    if v_default_sender is not null and not gre.adopt_has_column('gre_chat_messages', 'sender_type') then
      execute format('alter table public.gre_chat_messages alter column sender set default %L', v_default_sender);
    end if;
    foreach v_statement in array v_statements loop
      begin
        execute v_statement;
      exception when others then
        raise exception using errcode = 'GRE01',
          message = format('cannot adopt: this no longer fits the tables (%s): %s', sqlerrm, left(v_statement, 200));
      end;
    end loop;
  end if;
  perform gre.adopt_legacy_triggers();
  drop function gre.adopt_session(uuid), gre.adopt_message(uuid), gre.adopt_choose_schema(), gre.adopt_columns(),
    gre.adopt_first_of(text, text[]), gre.adopt_has_column(text, text[]), gre.adopt_is_unique(regclass, text),
    gre.adopt_sender(), gre.adopt_cast(text, text), gre.adopt_prepare(), gre.adopt_rewrite(text, jsonb),
    gre.adopt_collect(), gre.adopt_drop_dependents(regclass[]), gre.adopt_rows(regclass[]), gre.adopt_model(),
    gre.adopt_legacy_triggers();
  drop table gre.adopt_sessions, gre.adopt_source_messages, gre.adopt_messages;
end $$;

revoke execute on all functions in schema gre from public;
