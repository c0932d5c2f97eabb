-- The tables of the chat, and how the tables of a live project become them.
--
-- One path for a new project and for a live one: each table is created with its key alone where it is
-- missing, then gets the columns that it lacks. This file changes nothing else, so portals go on working;
-- what is heavier (types, history, keys) is gre.adopt() of the next file, called in the transaction that creates
-- the triggers. Portals' writes wait meanwhile: while a migration waits for a lock, at most `lock_timeout`, and while it
-- works, about two seconds for each 100,000 messages that are adopted. A role whose `statement_timeout` is
-- shorter than that (anon's is 3 s on Supabase) gets 57014 for what it wrote in that time.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Look first: what cannot be adopted stops here, with one line that names table and column, before any
-- change. Reads only; `gre-bridge migrate --dry-run` runs this very statement in a read-only transaction, and then
-- every file in a transaction that is rolled back.
do $check$
declare
  v_tables constant text[] := array['gre_chat_sessions', 'gre_chat_messages', 'gre_online_status', 'push_notifications'];
  v_ready oid[] := '{}';
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
  if to_regprocedure('public.gre_schema_version()') is not null then
    v_problems := v_problems || text 'gre-bridge is installed here already, but not recorded in supabase_migrations.schema_migrations: record its files there with `gre-bridge migrate --record`';
  end if;
  perform set_config('timezone', 'UTC', true);
  for v in
    select c.oid, c.relname, c.relkind, pg_get_userbyid(c.relowner) as owner, pg_has_role(c.relowner, 'USAGE') as ours
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = any (v_tables)
    order by array_position(v_tables, c.relname::text)
  loop
    if v.relkind <> 'r' then
      v_problems := v_problems || format('public.%s is a %s, not an ordinary table', v.relname,
        case v.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                       when 'p' then 'partitioned table' else 'relation of another kind' end);
    elsif not v.ours then
      v_problems := v_problems || format('public.%s belongs to role %s and %s may not alter it: migrate as %2$s, or change its owner',
                                         v.relname, v.owner, current_user);
    else
      v_ready := v_ready || v.oid;
    end if;
  end loop;
  v_has_sessions := to_regclass('public.gre_chat_sessions')::oid = any (v_ready);
  v_has_messages := to_regclass('public.gre_chat_messages')::oid = any (v_ready);

  -- Columns whose type has to change, and whether every value survives it.
  for v in
    select w.relation, w.name, w.type, format_type(a.atttypid, null) as has, t.typcategory as category, a.attrelid, a.attnum
    from (values
      ('gre_chat_sessions', 'id', 'uuid'), ('gre_chat_sessions', 'player_id', 'bigint'),
      ('gre_chat_sessions', 'last_message_at', 'timestamp with time zone'), ('gre_chat_sessions', 'created_at', 'timestamp with time zone'),
      ('gre_chat_sessions', 'updated_at', 'timestamp with time zone'), ('gre_chat_sessions', 'closed_at', 'timestamp with time zone'),
      ('gre_chat_messages', 'id', 'uuid'), ('gre_chat_messages', 'session_id', 'uuid'), ('gre_chat_messages', 'player_id', 'bigint'),
      ('gre_chat_messages', 'metadata', 'jsonb'), ('gre_chat_messages', 'created_at', 'timestamp with time zone'),
      ('gre_chat_messages', 'timestamp', 'timestamp with time zone'),
      ('gre_online_status', 'last_seen_at', 'timestamp with time zone'), ('gre_online_status', 'updated_at', 'timestamp with time zone'),
      ('push_notifications', 'message_id', 'uuid'), ('push_notifications', 'delivery_id', 'uuid'),
      ('push_notifications', 'recipients', 'text[]'), ('push_notifications', 'data', 'jsonb'),
      ('push_notifications', 'created_at', 'timestamp with time zone'), ('push_notifications', 'sent_at', 'timestamp with time zone')
      union all select 'gre_chat_sessions', unnest(array['player_name', 'status', 'assigned_staff_id']), 'text'
      union all select 'gre_chat_messages', unnest(array['player_name', 'sender', 'sender_id', 'sender_name', 'message', 'status']), 'text'
      union all select 'gre_online_status', unnest(array['staff_id', 'display_name', 'status']), 'text'
      union all select 'push_notifications', unnest(array['audience', 'title', 'body', 'status', 'provider_id', 'error']), 'text'
    ) w (relation, name, type)
    join pg_attribute a on a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    where a.attrelid = any (v_ready) and format_type(a.atttypid, null) <> w.type
  loop
    v_pattern := case
      when v.type = 'text' then '' -- every value has a text
      when v.type = 'bigint' and v.category in ('N', 'S') then '^\s*(-?[0-9]{1,18}(\.0*)?)?\s*$'
      when v.type = 'uuid' and v.category = 'S' then '^\s*([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?\s*$'
      when v.type = 'timestamp with time zone' and (v.category = 'S' or v.has in ('timestamp without time zone', 'date')) then ''
      when v.type = 'jsonb' and (v.category = 'S' or v.has = 'json') then ''
      when v.type = 'text[]' and v.category = 'A' then '' end;
    v_count := null;
    if v_pattern is null then
      v_problems := v_problems || format('public.%s.%s is %s, not %s', v.relation, v.name, v.has, v.type);
    elsif v_pattern <> '' then
      execute format('select count(*) from public.%I where %I::text !~ %L', v.relation, v.name, v_pattern) into v_count;
    elsif v.type <> 'text' then
      begin
        execute format('select count(nullif(btrim(%I::text), %L)::%s) * 0 from public.%I', v.name, '', v.type, v.relation) into v_count;
      exception when data_exception then
        v_problems := v_problems || format('public.%s.%s is %s and holds values that are no %s', v.relation, v.name, v.has, v.type);
      end;
    end if;
    if v_count > 0 then
      v_problems := v_problems || format('public.%s.%s is %s and holds %s values that are no %s', v.relation, v.name, v.has, v_count,
                                         case v.type when 'bigint' then 'whole numbers' else v.type end);
    end if;
    for v_dependent in
      select pg_describe_object(d.classid, d.objid, d.objsubid)
      from pg_depend d
      left join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
      left join pg_attrdef e on d.classid = 'pg_attrdef'::regclass and e.oid = d.objid
      where d.refclassid = 'pg_class'::regclass and d.refobjid = v.attrelid and d.refobjsubid = v.attnum
        and (k.contype = 'f' and k.conrelid <> all (v_ready) or e.adnum <> v.attnum or d.classid = 'pg_class'::regclass and d.objsubid > 0)
    loop
      v_problems := v_problems || format('%s depends on public.%s.%s, whose type has to change: drop it, and create it again afterwards',
                                         v_dependent, v.relation, v.name);
    end loop;
  end loop;
  -- Views step aside while columns are rewritten. What else reads these columns, or a view on them, cannot.
  for v in
    with recursive reading (oid) as (
      select unnest(v_ready)
      union
      select r.ev_class from reading s
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
      join pg_class c on c.oid = r.ev_class and c.relkind = 'v' and pg_has_role(c.relowner, 'USAGE')
    )
    select distinct coalesce(c.oid::regclass::text, pg_describe_object(d.classid, d.objid, d.objsubid)) as dependent, s.oid::regclass as relation
    from reading s
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = s.oid and d.refobjsubid > 0
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and (a.attname <> 'id' or s.oid <> all (v_ready))
    left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    left join pg_class c on c.oid = r.ev_class
    left join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
    where c.oid not in (select oid from reading) or d.classid = 'pg_proc'::regclass or p.polrelid <> all (v_ready)
  loop
    v_problems := v_problems || format('%s reads %s, whose columns are rewritten: drop it, and create it again afterwards',
                                       v.dependent, v.relation);
  end loop;

  -- Every row needs its player: its own, its session's or its messages'. (A column that is not there counts as null.)
  select jsonb_object_agg(w.relation || '.' || w.name,
      case when a.attname is null then 'null::text' else format('nullif(btrim(%I.%I::text), %L)', w.relation, w.name, '') end)
    into v_columns
    from (values ('gre_chat_sessions', 'id'), ('gre_chat_sessions', 'player_id'), ('gre_chat_messages', 'session_id'),
                 ('gre_chat_messages', 'player_id'), ('gre_chat_messages', 'message')) w (relation, name)
    left join pg_attribute a on a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped;
  v_matching := format(' and %s = %s and %%s is not null)', v_columns ->> 'gre_chat_sessions.id', v_columns ->> 'gre_chat_messages.session_id');
  if v_has_sessions then
    execute format('select count(*) from public.gre_chat_sessions where %s is null', v_columns ->> 'gre_chat_sessions.player_id')
      || case when v_has_messages then ' and not exists (select from public.gre_chat_messages where true'
                                       || format(v_matching, v_columns ->> 'gre_chat_messages.player_id') else '' end
      into v_count;
    if v_count > 0 then
      v_problems := v_problems || format('public.gre_chat_sessions.player_id is missing for %s sessions', v_count);
    end if;
  end if;
  if v_has_messages then
    execute format('select count(*) from public.gre_chat_messages where %s is null', v_columns ->> 'gre_chat_messages.player_id')
      || case when v_has_sessions then ' and not exists (select from public.gre_chat_sessions where true'
                                       || format(v_matching, v_columns ->> 'gre_chat_sessions.player_id') else '' end
      into v_count;
    if v_count > 0 then
      v_problems := v_problems || format('public.gre_chat_messages.player_id is missing for %s messages without a session', v_count);
    end if;
    execute 'select count(*) from (select from public.gre_chat_messages limit 1) x' into v_count;
    if v_count > 0 and v_columns ->> 'gre_chat_messages.message' = 'null::text' then
      v_problems := v_problems || text 'public.gre_chat_messages.message is missing: the text is in another column';
    end if;
  end if;

  -- Sessions are opened for messages that have none. A foreign key of the project must let them in.
  if v_has_messages and v_has_sessions then
    for v in
      select k.conname, k.confrelid::regclass as known, quote_ident(b.attname) as key
      from pg_constraint k
      join pg_attribute a on a.attrelid = k.conrelid and k.conkey = array[a.attnum] and a.attname = 'player_id'
      join pg_attribute b on b.attrelid = k.confrelid and k.confkey = array[b.attnum]
      where k.conrelid = to_regclass('public.gre_chat_sessions') and k.contype = 'f' and a.atttypid = 'bigint'::regtype
    loop
      execute format('select count(distinct %s) from public.gre_chat_messages where not exists (select from public.gre_chat_sessions where true',
                     v_columns ->> 'gre_chat_messages.player_id')
        || format(v_matching, '1') || format(' and not exists (select from %s p where p.%s::text = %s)', v.known, v.key,
                                             v_columns ->> 'gre_chat_messages.player_id')
        into v_count;
      if v_count > 0 then
        v_problems := v_problems || format('public.gre_chat_messages has messages without a session of %s players who are not in %s'
          ' (foreign key %s of gre_chat_sessions): add these players, or drop the foreign key', v_count, v.known, v.conname);
      end if;
    end loop;
  end if;

  for v in
    select c.relname, a.attname from pg_index i
    join pg_class c on c.oid = i.indrelid
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::smallint[])
    where i.indisprimary and i.indrelid = any (v_ready) and not a.atthasdef and a.attidentity = ''
      and not (a.attname = 'id' or c.relname = 'gre_online_status' and a.attname in ('staff_id', 'gre_id'))
  loop
    v_problems := v_problems || format('public.%s.%s is in the primary key and has no default', v.relname, v.attname);
  end loop;
  for v in
    select w.relation, w.name from (values
      ('gre_chat_players', 'player_id'), ('gre_chat_players', 'user_id'), ('gre_chat_players', 'display_name'),
      ('gre_chat_players', 'chat_enabled'), ('gre_chat_players', 'updated_at'), ('gre_staff', 'staff_id'), ('gre_staff', 'user_id'),
      ('gre_staff', 'display_name'), ('gre_staff', 'role'), ('gre_staff', 'active'), ('gre_staff', 'updated_at')) w (relation, name)
    where to_regclass('public.' || w.relation) is not null and not exists (
      select from pg_attribute a where a.attrelid = to_regclass('public.' || w.relation) and a.attname = w.name and not a.attisdropped)
  loop
    v_problems := v_problems || format('public.%s exists already, without column %s: rename it', v.relation, v.name);
  end loop;

  if v_problems <> '{}' then
    raise exception using errcode = 'GRE01', message = 'cannot adopt: ' || array_to_string(v_problems, '; '),
      detail = array_to_string(v_problems, e'\n');
  end if;
end $check$;

create schema if not exists gre;
comment on schema gre is 'Helpers of gre-bridge. Not exposed over the API.';
revoke all on schema gre from public;
grant usage on schema gre to anon, authenticated, service_role;

-- Locks the chat's tables, or says at once who is in the way. Each file that changes them calls this first: portals' writes queue
-- behind a lock that is waited for, so the wait is `lock_timeout` at most, and who applies the file tries again.
create function gre.lock_tables() returns void
language plpgsql set search_path = '' as $$
declare
  -- Messages first, as portals' writes do.
  v_tables constant text[] := array['gre_chat_messages', 'gre_chat_sessions', 'gre_online_status', 'push_notifications'];
  v_names text;
  v_holders text;
  v_all_autovacuum boolean;
  v_timeout constant text := current_setting('lock_timeout');
  v_began timestamptz;
begin
  select string_agg(format('public.%I', t), ', ' order by n) into v_names
  from unnest(v_tables) with ordinality x (t, n) where to_regclass('public.' || t) is not null;
  if v_names is null then
    return;
  end if;
  for v_try in 1 .. 2 loop
    v_began := clock_timestamp();
    begin
      execute 'lock table ' || v_names || ' in access exclusive mode';
      perform set_config('lock_timeout', v_timeout, true);
      return;
    exception when lock_not_available or deadlock_detected then
      select string_agg(case when h.pid is null then 'a prepared transaction'
          else format('pid %s (%s)', h.pid, concat_ws(', ', a.usename, nullif(a.application_name, ''), nullif(a.backend_type, 'client backend'),
                                                      a.state, 'since ' || to_char(a.xact_start at time zone 'UTC', 'HH24:MI:SS') || ' UTC')) end,
          '; ' order by a.xact_start),
        coalesce(bool_and(a.backend_type = 'autovacuum worker'), false)
        into v_holders, v_all_autovacuum
      from (select distinct l.pid from pg_catalog.pg_locks l
            where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
              and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
              and l.relation in (select to_regclass('public.' || t) from unnest(v_tables) t)) h
      left join pg_catalog.pg_stat_activity a on a.pid = h.pid
      -- Who came later waited behind us, and has the lock only since we gave up.
      where h.pid is null or coalesce(a.xact_start, v_began) <= v_began and a.state is distinct from 'idle';
      -- An autovacuum gives way to whoever has waited for deadlock_timeout, one second.
      if v_all_autovacuum and v_try = 1 then
        perform set_config('lock_timeout', '1500ms', true);
        continue;
      end if;
      raise exception using errcode = 'lock_not_available',
        message = 'gre-bridge: the chat''s tables are in use' || coalesce(' by ' || v_holders, ''),
        hint = 'Nothing of this file was applied. Apply it again, at a quieter time or when these transactions have ended.';
    end;
  end loop;
end $$;

-- Runs an UPDATE of old rows that nobody is to hear of: no trigger of the table fires, neither ours nor the project's.
create function gre.backfill(p_table regclass, p_update text) returns void
language plpgsql set search_path = '' as $$
declare
  v_restore text[];
  v_line text;
begin
  select coalesce(array_agg(format('alter table %s enable %strigger %I', p_table,
      case tgenabled when 'A' then 'always ' when 'R' then 'replica ' else '' end, tgname)), '{}') into v_restore
  from pg_catalog.pg_trigger where tgrelid = p_table and not tgisinternal and tgenabled <> 'D';
  -- What is deferred would be pending, and a table with pending events cannot be altered.
  set constraints all immediate;
  execute format('alter table %s disable trigger user', p_table);
  execute p_update;
  foreach v_line in array v_restore loop
    execute v_line;
  end loop;
end $$;

select gre.lock_tables();

-- The columns of the chat's tables. (push_notifications.id keeps the type that it has.)
create function gre.shape() returns table (relation text, name text, type text)
language sql immutable set search_path = '' as $$ values
  ('gre_chat_sessions', 'id', 'uuid'),
  ('gre_chat_sessions', 'player_id', 'bigint'),
  ('gre_chat_sessions', 'player_name', 'text'),
  ('gre_chat_sessions', 'status', 'text'),
  ('gre_chat_sessions', 'assigned_staff_id', 'text'),
  ('gre_chat_sessions', 'last_seq', 'bigint'),
  ('gre_chat_sessions', 'rev', 'bigint'),
  ('gre_chat_sessions', 'last_message_at', 'timestamp with time zone'),
  ('gre_chat_sessions', 'unread_by_staff', 'integer'),
  ('gre_chat_sessions', 'unread_by_player', 'integer'),
  ('gre_chat_sessions', 'created_at', 'timestamp with time zone'),
  ('gre_chat_sessions', 'updated_at', 'timestamp with time zone'),
  ('gre_chat_sessions', 'closed_at', 'timestamp with time zone'),
  ('gre_chat_sessions', 'staff_read_seq', 'bigint'),
  ('gre_chat_sessions', 'player_read_seq', 'bigint'),
  ('gre_chat_sessions', 'waiting_since', 'timestamp with time zone'),
  ('gre_chat_messages', 'id', 'uuid'),
  ('gre_chat_messages', 'session_id', 'uuid'),
  ('gre_chat_messages', 'seq', 'bigint'),
  ('gre_chat_messages', 'player_id', 'bigint'),
  ('gre_chat_messages', 'player_name', 'text'),
  ('gre_chat_messages', 'sender', 'text'),
  ('gre_chat_messages', 'sender_id', 'text'),
  ('gre_chat_messages', 'sender_name', 'text'),
  ('gre_chat_messages', 'message', 'text'),
  ('gre_chat_messages', 'status', 'text'),
  ('gre_chat_messages', 'metadata', 'jsonb'),
  ('gre_chat_messages', 'created_at', 'timestamp with time zone'),
  ('gre_chat_messages', 'timestamp', 'timestamp with time zone'),
  ('gre_online_status', 'staff_id', 'text'),
  ('gre_online_status', 'display_name', 'text'),
  ('gre_online_status', 'status', 'text'),
  ('gre_online_status', 'last_seen_at', 'timestamp with time zone'),
  ('gre_online_status', 'updated_at', 'timestamp with time zone'),
  ('push_notifications', 'id', 'uuid'),
  ('push_notifications', 'delivery_id', 'uuid'),
  ('push_notifications', 'message_id', 'uuid'),
  ('push_notifications', 'audience', 'text'),
  ('push_notifications', 'recipients', 'text[]'),
  ('push_notifications', 'title', 'text'),
  ('push_notifications', 'body', 'text'),
  ('push_notifications', 'data', 'jsonb'),
  ('push_notifications', 'status', 'text'),
  ('push_notifications', 'provider_id', 'text'),
  ('push_notifications', 'error', 'text'),
  ('push_notifications', 'created_at', 'timestamp with time zone'),
  ('push_notifications', 'sent_at', 'timestamp with time zone')
$$;

do $$
declare
  v record;
begin
  for v in
    select relation, string_agg(format('add column if not exists %I %s%s', name, type,
                                       case when name = 'id' then ' default gen_random_uuid()' end), ', ' order by n) as clauses
    from gre.shape() with ordinality s (relation, name, type, n) group by relation
  loop
    if to_regclass('public.' || v.relation) is null then
      if v.relation = 'gre_online_status' then
        create table public.gre_online_status (staff_id text primary key);
      else
        execute format('create table public.%I (id uuid primary key default gen_random_uuid())', v.relation);
      end if;
      -- No one reads or writes a new table before the policies of the last migration say who may.
      execute format('alter table public.%I enable row level security', v.relation);
    end if;
    execute format('alter table public.%I %s', v.relation, v.clauses);
  end loop;
end $$;

-- People -------------------------------------------------------------------------------------------------
create table if not exists public.gre_chat_players (
  player_id bigint primary key,
  user_id uuid unique,
  display_name text,
  chat_enabled boolean not null default true,
  updated_at timestamptz not null default now()
);
create table if not exists public.gre_staff (
  staff_id text primary key,
  user_id uuid unique,
  display_name text,
  role text not null default 'staff' constraint gre_staff_role_check check (role in ('staff', 'admin')),
  active boolean not null default true,
  updated_at timestamptz not null default now()
);
alter table public.gre_chat_players enable row level security;
alter table public.gre_staff enable row level security;
revoke all on public.gre_chat_players, public.gre_staff from public, anon, authenticated;

-- What docs/tables.md says of them.
comment on table public.gre_chat_sessions is 'Conversations. A player has at most one that is open.';
comment on column public.gre_chat_sessions.id is 'The session''s id.';
comment on column public.gre_chat_sessions.player_id is 'Whose conversation it is. Written once.';
comment on column public.gre_chat_sessions.player_name is
  'The player''s stored name, or the one with which the session began.';
comment on column public.gre_chat_sessions.status is
  'active or closed; legacy values such as waiting count as open. An assigned session stays active.';
comment on column public.gre_chat_sessions.assigned_staff_id is 'To whom of the staff it is assigned; null to nobody.';
comment on column public.gre_chat_sessions.last_seq is
  'seq of its last message, 0 while there is none. Belongs to the server.';
comment on column public.gre_chat_sessions.rev is 'Grows with every change of the session. Belongs to the server.';
comment on column public.gre_chat_sessions.last_message_at is 'Time of its last message. Belongs to the server.';
comment on column public.gre_chat_sessions.unread_by_staff is
  'The player''s messages that staff have not marked as read. Belongs to the server.';
comment on column public.gre_chat_sessions.unread_by_player is
  'Staff''s and system messages that the player has not marked as read. Belongs to the server.';
comment on column public.gre_chat_sessions.created_at is 'When it was opened. Belongs to the server.';
comment on column public.gre_chat_sessions.updated_at is 'When it changed last. Belongs to the server.';
comment on column public.gre_chat_sessions.closed_at is
  'When it was closed; null while it is open. Belongs to the server.';
comment on column public.gre_chat_sessions.player_read_seq is
  'Up to which seq the player has read staff''s messages. Belongs to the server: call gre_mark_read.';
comment on table public.gre_chat_messages is 'Messages. Portals insert; nobody changes or deletes what was sent.';
comment on column public.gre_chat_messages.id is
  'Chosen by the client (a UUID, once for each message: makes a second try safe) or by the database.';
comment on column public.gre_chat_messages.session_id is
  'Its session. Left out, it is the player''s open session, which is opened if there is none.';
comment on column public.gre_chat_messages.seq is
  '1, 2, 3 ... in its session without gaps, in the order of commits. Belongs to the server.';
comment on column public.gre_chat_messages.player_id is
  'Whose conversation it is; a player''s own, or the session''s, by default.';
comment on column public.gre_chat_messages.player_name is 'The player''s name when it was sent. The stored name wins.';
comment on column public.gre_chat_messages.sender is
  'player, staff or system; gre and gre_staff are taken for staff. Must be what the caller is; system is for the service key.';
comment on column public.gre_chat_messages.sender_id is 'Who wrote it: the player''s id or the staff id. From the token.';
comment on column public.gre_chat_messages.sender_name is
  'Shown as its author, at most 80 characters. The stored name wins.';
comment on column public.gre_chat_messages.message is 'The text: 1 to 4000 characters, of which one can be seen.';
comment on column public.gre_chat_messages.status is
  'sent, delivered or read (the other side has marked it). Belongs to the server.';
comment on column public.gre_chat_messages.metadata is
  'What a portal keeps with it: JSON of at most 4 KB. Never relayed.';
comment on column public.gre_chat_messages.created_at is 'When the database took it. Belongs to the server.';
comment on column public.gre_chat_messages.timestamp is
  'The same as created_at, unless the service key wrote another time (an import).';
comment on table public.gre_online_status is 'Presence of the staff, one row for each person.';
comment on column public.gre_online_status.staff_id is 'Whose status it is; staff write their own.';
comment on column public.gre_online_status.display_name is 'The name that is shown. The stored name wins.';
comment on column public.gre_online_status.status is 'online, away or offline.';
comment on column public.gre_online_status.last_seen_at is
  'When the status was last written: it holds for some minutes after that unless expires_at says until when.';
comment on column public.gre_online_status.updated_at is 'When the row changed last.';
comment on table public.push_notifications is 'Pushes: one row for each that the bridge sends. A row inserted as queued is sent.';
comment on column public.push_notifications.id is 'The push''s id.';
comment on column public.push_notifications.delivery_id is
  'The delivery that it was sent for; null for one that was queued here. Belongs to the server.';
comment on column public.push_notifications.message_id is 'The message that it tells of, if it tells of one.';
comment on column public.push_notifications.audience is 'staff or player.';
comment on column public.push_notifications.recipients is
  'OneSignal external ids, a list. For staff null means those on duty; for players it must be given.';
comment on column public.push_notifications.title is 'Its heading, at most 4,000 bytes.';
comment on column public.push_notifications.body is 'Its text, at most 16,000 bytes; the title where it is null.';
comment on column public.push_notifications.data is
  'JSON for the app, at most 16 KB (OneSignal itself takes about 2 KB).';
comment on column public.push_notifications.status is 'queued, then sent, failed, expired or no_recipients.';
comment on column public.push_notifications.provider_id is 'OneSignal''s id of the notification.';
comment on column public.push_notifications.error is 'Why it failed.';
comment on column public.push_notifications.created_at is 'When it was queued or sent.';
comment on column public.push_notifications.sent_at is 'When OneSignal took it.';
comment on table public.gre_chat_players is 'Profiles of players. A player without a row may chat.';
comment on column public.gre_chat_players.player_id is 'The player''s id, 1 to 9007199254740991.';
comment on column public.gre_chat_players.user_id is
  'The Supabase Auth user who is this player, where tokens carry no claims (gre_link_user).';
comment on column public.gre_chat_players.display_name is 'The stored name; it wins over what a portal sends.';
comment on column public.gre_chat_players.chat_enabled is
  'False turns the player''s chat off: reading goes on, sending is refused (chat_disabled).';
comment on column public.gre_chat_players.updated_at is 'When the row changed last.';
