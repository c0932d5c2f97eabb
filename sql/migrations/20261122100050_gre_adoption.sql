-- Adoption: how the tables of a live project, as they are met in the field, take their final form.
--
-- This file only defines it; gre_rules calls gre.adopt(), which leaves nothing behind but the triggers that
-- read old spellings, where a table has these.
set local lock_timeout = '300ms';

-- What old portals write --------------------------------------------------------------------------------
-- These triggers read the older spellings of a row; gre.adopt() creates one only on a table that has them.
create function gre.known_sender(p_word text) returns text
language sql immutable parallel safe as $$
  select case lower(btrim(p_word))
    when 'player' then 'player' when 'user' then 'player' when 'customer' then 'player' when 'client' then 'player' when 'guest' then 'player'
    when 'gre' then 'staff' when 'staff' then 'staff' when 'gre_staff' then 'staff' when 'admin' then 'staff' when 'agent' then 'staff'
    when 'support' then 'staff' when 'operator' then 'staff' when 'system' then 'system' when 'bot' then 'system' end
$$;
create function gre.known_session_status(p_word text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when w is null or w in ('active', 'open', 'opened', 'new', 'assigned', 'ongoing', 'in_progress') then 'active'
              when w in ('pending', 'waiting') then w else 'closed' end
  from lower(btrim(p_word)) w
$$;
create function gre.known_presence(p_word text, p_online boolean) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when w in ('online', 'available', 'active') then 'online' when w in ('away', 'busy', 'idle') then 'away'
              when w is null and p_online then 'online' else 'offline' end
  from lower(btrim(p_word)) w
$$;

-- Argument: what this project calls staff in sender_type. Runs before gre_message_arrives, by its name.
create function gre.message_spellings() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_old jsonb := to_jsonb(new);
  v_staff text := (gre.who()).staff_id;
begin
  new.sender := coalesce(gre.known_sender(new.sender), gre.known_sender(v_old ->> 'sender_type'), new.sender, v_old ->> 'sender_type');
  if new.sender = 'staff' then
    new.sender_id := coalesce(new.sender_id, v_old ->> 'gre_id');
    new.sender_name := coalesce(new.sender_name, left(v_old ->> 'gre_name', 400));
    if v_staff is not null then
      -- Staff who write themselves are who they are in these columns too.
      new := jsonb_populate_record(new, jsonb_build_object('gre_name', gre.staff_name(v_staff, new.sender_name), 'gre_id', null));
      begin
        new := jsonb_populate_record(new, jsonb_build_object('gre_id', v_staff));
      exception when data_exception then
        null; -- gre_id is a number here and the staff_id is none
      end;
    end if;
  elsif v_old ->> 'gre_id' is not null or v_old ->> 'gre_name' is not null then
    -- Portals that still read these two take such a message for staff's.
    new := jsonb_populate_record(new, '{"gre_id": null, "gre_name": null}');
  end if;
  -- Old portals go by sender_type: it must not say other than sender.
  if gre.known_sender(v_old ->> 'sender_type') is distinct from new.sender then
    new := jsonb_populate_record(new, jsonb_build_object('sender_type', case new.sender when 'staff' then tg_argv[0] else new.sender end));
  end if;
  return new;
end $$;

create function gre.session_spellings() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_old jsonb := to_jsonb(new);
begin
  new.status := gre.known_session_status(new.status);
  if tg_op = 'INSERT' then
    new.assigned_staff_id := coalesce(new.assigned_staff_id, v_old ->> 'gre_id');
  elsif v_old -> 'gre_id' is distinct from to_jsonb(old) -> 'gre_id' then
    new.assigned_staff_id := v_old ->> 'gre_id';
  end if;
  return new;
end $$;

-- Both spellings stay true: is_online and gre_id follow status and staff_id, for portals that still read them.
-- Argument: 'many' where gre_id is not unique, so that old portals may insert a person again and again.
create function gre.presence_spellings() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_old jsonb := to_jsonb(new);
  v_said boolean := (v_old ->> 'is_online')::boolean;
begin
  if tg_op = 'UPDATE' and new.staff_id is null then
    return new; -- it has become history, see below
  end if;
  if tg_op = 'INSERT' then
    new.staff_id := coalesce(new.staff_id, v_old ->> 'gre_id');
  end if;
  new.display_name := coalesce(new.display_name, v_old ->> 'gre_name');
  if tg_op = 'INSERT' then
    -- The column's default and a status written as such cannot be told apart; is_online is the older portal's word.
    new.status := case when v_said and new.status = 'offline' then 'online' else gre.known_presence(new.status, v_said) end;
  elsif new.status is distinct from old.status then
    new.status := gre.known_presence(new.status, v_said);
  elsif v_old -> 'is_online' is distinct from to_jsonb(old) -> 'is_online' then
    new.status := case when v_said then 'online' else 'offline' end;
  end if;
  new.last_seen_at := case when new.status = 'online' and tg_op = 'UPDATE' and new.last_seen_at is not distinct from old.last_seen_at
                           then now() else new.last_seen_at end;
  new.updated_at := now();
  new := jsonb_populate_record(new, jsonb_build_object('is_online', new.status = 'online'));
  if (gre.who()).staff_id is not null then
    -- Staff who write themselves: gre_check_presence has looked at these two, not at the old columns.
    v_old := v_old || jsonb_build_object('gre_id', new.staff_id, 'gre_name', new.display_name);
    new := jsonb_populate_record(new, jsonb_build_object('gre_name', new.display_name));
  end if;
  begin
    new := jsonb_populate_record(new, jsonb_build_object(
      'gre_id', coalesce(v_old ->> 'gre_id', new.staff_id), 'gre_name', coalesce(v_old ->> 'gre_name', new.display_name)));
  exception when data_exception then
    null; -- gre_id is a number here and the new staff_id is none
  end;
  if tg_op = 'INSERT' and tg_argv[0] = 'many' and v_old ->> 'staff_id' is null then
    update public.gre_online_status set staff_id = null where staff_id = new.staff_id; -- the newest row speaks for its person
  end if;
  return new;
end $$;

create function gre.push_spellings() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_old jsonb := to_jsonb(new);
begin
  new.body := coalesce(new.body, v_old ->> 'message');
  if v_old ->> 'target_player_id' is not null then
    new.audience := coalesce(new.audience, 'player');
    if new.recipients is null and to_regclass('gre.settings') is not null then
      new.recipients := array[(select replace(player_external_id, '{player_id}', v_old ->> 'target_player_id') from gre.settings)];
    end if;
    new.recipients := coalesce(new.recipients, array['player_' || (v_old ->> 'target_player_id')]);
  end if;
  new.status := case when lower(new.status) in ('pending', 'new', 'scheduled', 'waiting') then 'queued'
                     when lower(new.status) in ('delivered', 'success') then 'sent'
                     when lower(new.status) in ('error', 'failure') then 'failed' else new.status end;
  new := jsonb_populate_record(new, jsonb_build_object('message', coalesce(v_old ->> 'message', new.body)));
  return new;
end $$;

-- Adoption -----------------------------------------------------------------------------------------------
create unlogged table gre.adopted_sessions (
  id uuid primary key, player_id bigint, player_name text, status text, made boolean not null default false,
  created_at timestamptz, updated_at timestamptz, closed_at timestamptz, last_seq bigint not null default 0, last_message_at timestamptz,
  waiting_since timestamptz
);
create unlogged table gre.found_messages (id uuid, session_id uuid, player_id bigint, player_name text, sender text,
  created_at timestamptz);
create unlogged table gre.adopted_messages (id uuid, session_id uuid, moved boolean, seq bigint, player_id bigint, sender text,
  created_at timestamptz);
create function gre.adopted_session(p_id uuid) returns gre.adopted_sessions
language plpgsql stable as $$
declare v gre.adopted_sessions; begin select * into v from gre.adopted_sessions where id = p_id; return v; end $$;
create function gre.adopted_message(p_id uuid) returns gre.adopted_messages
language plpgsql stable as $$
declare v gre.adopted_messages; begin select * into v from gre.adopted_messages where id = p_id; return v; end $$;

-- The first of these columns that exists and is filled, as an expression of type text.
create function gre.pick(p_relation text, variadic p_names text[]) returns text
language sql stable set search_path = '' as $$
  select 'coalesce(' || coalesce(string_agg(format('nullif(btrim(%I::text), %L)', n.name, ''), ', ' order by n.place) || ', ', '')
    || 'null::text)'
  from unnest(p_names) with ordinality n (name, place)
  join pg_catalog.pg_attribute a on a.attrelid = to_regclass('public.' || p_relation) and a.attname = n.name
    and a.attnum > 0 and not a.attisdropped
$$;

create function gre.has(p_relation text, variadic p_names text[]) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from pg_catalog.pg_attribute a where a.attrelid = to_regclass('public.' || p_relation)
    and a.attname = any (p_names) and a.attnum > 0 and not a.attisdropped)
$$;

-- Who sent a message, as an expression over its old row.
create function gre.adopted_sender() returns text
language sql stable set search_path = '' as $$
  select format('coalesce(gre.known_sender(%1$s), gre.known_sender(%2$s), case when %3$s is not null then ''staff''
                when %1$s is null and %2$s is null then ''player'' else ''system'' end)',
    gre.pick('gre_chat_messages', 'sender'), gre.pick('gre_chat_messages', 'sender_type'), gre.pick('gre_chat_messages', 'gre_id'))
$$;

-- A column's own value in the type that it is to have.
create function gre.converted(p_relation text, p_name text) returns text
language sql stable set search_path = '' as $$
  select case
    when pg_catalog.format_type(a.atttypid, null) = s.type then format('%I', s.name)
    when s.type = 'text' then format('%I::text', s.name)
    when s.type in ('bigint', 'integer') then format('split_part(nullif(btrim(%I::text), %L), %L, 1)::%s', s.name, '', '.', s.type)
    else format('nullif(btrim(%I::text), %L)::%s', s.name, '', s.type) end
  from gre.shape() s
  join pg_catalog.pg_attribute a on a.attrelid = to_regclass('public.' || s.relation) and a.attname = s.name
  where s.relation = p_relation and s.name = p_name
$$;

-- Gives a table's columns their types and p_values their values ({column: expression over the old row}), in one
-- rewrite: no dead rows, no trigger, and, as a rewrite is not decoded from the WAL, nothing for Realtime to tell.
create function gre.reshape(p_relation text, p_values jsonb) returns void
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
    select s.name, s.type, a.attnum, a.attidentity, a.attgenerated, pg_catalog.format_type(a.atttypid, null) <> s.type as retype,
      coalesce(p_values ->> s.name, gre.converted(p_relation, s.name)) as value
    from gre.shape() s join pg_catalog.pg_attribute a on a.attrelid = v_table and a.attname = s.name
    where s.relation = p_relation and (p_relation, s.name) <> ('push_notifications', 'id')
  loop
    v_changes := v.retype;
    if not v_changes and p_values ? v.name then
      execute format('select exists (select from %s where %I is distinct from (%s))', v_table, v.name, v.value) into v_changes;
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
  if gre.has(p_relation, 'gre_adopted') then
    v_clauses := v_clauses || text 'drop column gre_adopted'; -- the expressions still read the old row, which has it
  end if;
  execute format('alter table %s %s', v_table, array_to_string(v_clauses, ', '));
end $$;

-- Sessions and messages as they will be: each message in a session, seq in order of time, one open session a player.
create function gre.gather() returns void
language plpgsql set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set work_mem = '64MB' as $$
declare
  v record;
begin
  execute format($q$
    insert into gre.adopted_sessions (id, player_id, player_name, status, created_at, updated_at, closed_at)
    select %1$s, %2$s, %3$s, case when %2$s <= 0 or %4$s is null and %5$s is not null then 'closed' else gre.known_session_status(%4$s) end,
      %6$s::timestamptz, %7$s::timestamptz, %5$s::timestamptz
    from public.gre_chat_sessions $q$,
    gre.converted('gre_chat_sessions', 'id'), gre.converted('gre_chat_sessions', 'player_id'), gre.pick('gre_chat_sessions', 'player_name'),
    gre.pick('gre_chat_sessions', 'status'), gre.pick('gre_chat_sessions', 'closed_at', 'ended_at'),
    gre.pick('gre_chat_sessions', 'created_at', 'started_at'), gre.pick('gre_chat_sessions', 'updated_at', 'last_activity'));
  execute format($q$
    insert into gre.found_messages (id, session_id, player_id, player_name, sender, created_at)
    select m.id, s.id, coalesce(m.player_id, s.player_id), m.player_name, m.sender, coalesce(m.created_at, s.created_at, now())
    from (select %s as id, %s as session_id, %s as player_id, %s as player_name, %s as sender, coalesce(%s, %s, %s::timestamptz) as created_at
          from public.gre_chat_messages) m
    left join gre.adopted_sessions s on s.id = m.session_id $q$,
    gre.converted('gre_chat_messages', 'id'), gre.converted('gre_chat_messages', 'session_id'),
    gre.converted('gre_chat_messages', 'player_id'), gre.pick('gre_chat_messages', 'player_name'), gre.adopted_sender(),
    gre.converted('gre_chat_messages', 'created_at'), gre.converted('gre_chat_messages', 'timestamp'),
    gre.pick('gre_chat_messages', 'sent_at'));
  analyze gre.adopted_sessions, gre.found_messages;

  update gre.adopted_sessions s set player_id = coalesce(s.player_id, m.player_id), last_message_at = m.last_at,
    created_at = coalesce(s.created_at, m.first_at)
  from (select session_id, min(player_id) as player_id, min(created_at) as first_at, max(created_at) as last_at
        from gre.found_messages group by session_id) m
  where m.session_id = s.id;
  update gre.adopted_sessions set created_at = coalesce(updated_at, closed_at, now()) where created_at is null;

  for v in
    update gre.adopted_sessions s set status = 'closed'
    from (select id, row_number() over (partition by player_id order by greatest(created_at, last_message_at) desc, id) as place
          from gre.adopted_sessions where status <> 'closed') r
    where r.id = s.id and r.place > 1
    returning s.id, s.player_id
  loop
    raise notice 'gre-bridge: closing session % of player %, who has a newer open one', v.id, v.player_id;
  end loop;

  -- A message without a session joins its player's open one; else the player gets one for all of these, open if
  -- it wrote within the week.
  insert into gre.adopted_sessions (id, player_id, player_name, status, made, created_at)
  select gen_random_uuid(), m.player_id, (array_agg(m.player_name order by m.created_at desc) filter (where m.player_name is not null))[1],
    case when max(m.created_at) > now() - interval '7 days' and m.player_id > 0 then 'active' else 'closed' end, true, min(m.created_at)
  from gre.found_messages m
  where m.session_id is null
    and not exists (select from gre.adopted_sessions s where s.player_id = m.player_id and s.status <> 'closed')
  group by m.player_id;
  insert into gre.adopted_messages (id, session_id, moved, seq, player_id, sender, created_at)
  select m.id, s.id, m.session_id is null, row_number() over (partition by s.id order by m.created_at, m.id), coalesce(m.player_id, s.player_id),
    m.sender, m.created_at
  from gre.found_messages m
  left join gre.adopted_sessions o on m.session_id is null and o.player_id = m.player_id and (o.made or o.status <> 'closed')
  join gre.adopted_sessions s on s.id = coalesce(m.session_id, o.id);
  alter table gre.adopted_messages add primary key (id);
  update gre.adopted_sessions s set last_seq = m.last_seq, last_message_at = m.last_at
  from (select session_id, max(seq) as last_seq, max(created_at) as last_at from gre.adopted_messages group by session_id) m
  where m.session_id = s.id;
  -- Who waits for an answer has waited since its first message after staff's last one.
  update gre.adopted_sessions s set waiting_since = w.at
  from (select m.session_id, min(m.created_at) as at
        from gre.adopted_messages m
        left join (select session_id, max(seq) as seq from gre.adopted_messages where sender = 'staff' group by session_id) a
          on a.session_id = m.session_id
        where m.sender = 'player' and m.seq > coalesce(a.seq, 0) group by m.session_id) w
  where w.session_id = s.id and s.status <> 'closed';
  update gre.adopted_sessions set updated_at = coalesce(updated_at, last_message_at, created_at),
    closed_at = case when status = 'closed' then coalesce(closed_at, last_message_at, updated_at, created_at) end;
  analyze gre.adopted_sessions, gre.adopted_messages;
end $$;

create function gre.adopt() returns void
language plpgsql set search_path = '' set timezone = 'UTC' set datestyle = 'ISO' set work_mem = '64MB'
set maintenance_work_mem = '128MB' as $$
declare
  v_tables constant regclass[] := array['public.gre_chat_sessions', 'public.gre_chat_messages', 'public.gre_online_status',
                                        'public.push_notifications'];
  v_later text[] := '{}';
  v_said text;
  v_staff_word text;
  v_sender text;
  v_dangling boolean;
  v_values jsonb;
  v record;
begin
  perform gre.lock_tables();
  -- A table with pending events of deferred triggers or foreign keys cannot be altered.
  set constraints all immediate;

  -- Triggers and views step aside. Views first come back first.
  for v in
    with recursive seen (oid, depth) as (
      select r.ev_class, 1 from pg_catalog.pg_rewrite r
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
      where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = any (v_tables) and r.ev_class <> all (v_tables)
      union
      select r.ev_class, s.depth + 1 from seen s
      join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = s.oid
        and d.classid = 'pg_catalog.pg_rewrite'::regclass
      join pg_catalog.pg_rewrite r on r.oid = d.objid and r.ev_class <> s.oid
    )
    select c.oid, c.oid::regclass::text as name, max(s.depth) as depth, c.relacl, c.relowner, c.reloptions,
      rtrim(pg_catalog.pg_get_viewdef(c.oid), '; ') as body, obj_description(c.oid, 'pg_class') as about
    from seen s join pg_catalog.pg_class c on c.oid = s.oid
    where c.relkind = 'v' and pg_has_role(c.relowner, 'USAGE')
    group by c.oid order by max(s.depth) desc
  loop
    v_later := (select array_agg(line order by n) from (values
        (0, format('create view %s%s as %s', v.name, ' with (' || array_to_string(v.reloptions, ', ') || ')', v.body)),
        (1, format('alter view %s owner to %I', v.name, pg_get_userbyid(v.relowner))),
        (2, format('revoke all on %s from public, anon, authenticated, service_role', v.name)),
        (3, format('comment on view %s is %L', v.name, v.about))) l (n, line) where line is not null)
      || array(select format('grant %s on %s to %s%s', a.privilege_type, v.name,
                             case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                             case when a.is_grantable then ' with grant option' else '' end)
               from aclexplode(v.relacl) a where a.grantee <> v.relowner)
      || array(select pg_get_triggerdef(t.oid) from pg_catalog.pg_trigger t where t.tgrelid = v.oid and not t.tgisinternal)
      || v_later;
    execute format('drop view %s', v.name);
  end loop;
  for v in
    select t.tgname, t.tgrelid::regclass as relation, pg_get_triggerdef(t.oid) as body, t.tgenabled
    from pg_catalog.pg_trigger t where t.tgrelid = any (v_tables) and not t.tgisinternal
  loop
    v_later := v_later || v.body || case v.tgenabled when 'O' then '{}' else array[format('alter table %s %s trigger %I', v.relation,
      case v.tgenabled when 'D' then 'disable' when 'A' then 'enable always' else 'enable replica' end, v.tgname)] end;
    execute format('drop trigger %I on %s', v.tgname, v.relation);
  end loop;

  -- Rules that would refuse what is written from now on.
  for v in
    select k.conname, k.conrelid::regclass as relation, pg_get_constraintdef(k.oid) as body
    from pg_catalog.pg_constraint k
    cross join lateral (
      select array_agg(a.attname::text) as names, bool_or(pg_catalog.format_type(a.atttypid, null) <> s.type) as retyped, bool_and(s.name is not null) as ours
      from pg_catalog.pg_attribute a
      left join gre.shape() s on to_regclass('public.' || s.relation) = a.attrelid and s.name = a.attname
      where a.attrelid = k.conrelid and a.attnum = any (k.conkey)) c
    where k.conrelid = any (v_tables) and (
      k.contype = 'c' and exists (select from gre.shape() s where to_regclass('public.' || s.relation) = k.conrelid and s.name = any (c.names))
      or k.contype = 'f' and (c.retyped or k.conrelid = 'public.gre_chat_messages'::regclass and c.names && array['session_id'])
      or k.contype = 'u' and k.conrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass)
        and c.ours and not c.names && array['id'])
  loop
    raise notice 'gre-bridge: dropping constraint % on %: %', v.conname, v.relation, v.body;
    execute format('alter table %s drop constraint %I', v.relation, v.conname);
  end loop;
  for v in
    select i.indexrelid::regclass as index from pg_catalog.pg_index i
    where i.indrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass) and i.indisunique
      and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid)
      and not exists (select from pg_catalog.pg_attribute a where a.attrelid = i.indrelid and a.attname = 'id' and a.attnum = any (i.indkey::smallint[]))
  loop
    raise notice 'gre-bridge: dropping unique index %', v.index;
    execute format('drop index %s', v.index);
  end loop;
  for v in
    select a.attrelid::regclass as relation, a.attname from pg_catalog.pg_attribute a
    left join gre.shape() s on to_regclass('public.' || s.relation) = a.attrelid and s.name = a.attname
    where a.attrelid = any (v_tables) and a.attnum > 0 and not a.attisdropped and a.attnotnull and a.attidentity = ''
      and (s.name is not null or not a.atthasdef)
      and not exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any (i.indkey::smallint[]))
  loop
    execute format('alter table %s alter column %I drop not null', v.relation, v.attname);
  end loop;

  -- Ids that are missing or, for want of a key, there twice: the oldest row keeps its own.
  for v in
    select a.attrelid::regclass as relation, pg_catalog.format_type(a.atttypid, a.atttypmod) as type from pg_catalog.pg_attribute a
    where a.attrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass) and a.attname = 'id'
      and not exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisunique and i.indpred is null
                      and i.indkey::text = a.attnum::text)
  loop
    execute format('update %s t set id = gen_random_uuid()::text::%s from (select ctid as place, row_number() over (partition by id order by ctid) as n from %1$s) d '
                   'where t.ctid = d.place and (t.id is null or d.n > 1)', v.relation, v.type);
  end loop;

  v_staff_word := 'staff';
  if gre.has('gre_chat_messages', 'sender_type') then
    execute 'select coalesce(mode() within group (order by sender_type::text), ''gre'') from public.gre_chat_messages
             where gre.known_sender(sender_type::text) = ''staff''' into v_staff_word;
  end if;
  select gre.known_sender((regexp_match(pg_get_expr(d.adbin, d.adrelid), '^''([a-z_]+)''::'))[1]) into v_sender
  from pg_catalog.pg_attrdef d join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
  where d.adrelid = 'public.gre_chat_messages'::regclass and a.attname = 'sender';

  perform gre.gather();

  v_said := format('(gre.adopted_session(%s))', gre.converted('gre_chat_sessions', 'id'));
  if exists (select from gre.adopted_sessions where not made) then
    -- Ten columns read the adopted session. An expression of a rewrite cannot join: a first rewrite looks each session up once.
    alter table public.gre_chat_sessions add column gre_adopted gre.adopted_sessions;
    execute format('alter table public.gre_chat_sessions alter column gre_adopted type gre.adopted_sessions using (%s)', v_said);
    v_said := '(gre_adopted)';
  end if;
  perform gre.reshape('gre_chat_sessions', jsonb_build_object(
    'player_id', v_said || '.player_id', 'status', v_said || '.status', 'last_seq', v_said || '.last_seq',
    'last_message_at', v_said || '.last_message_at', 'created_at', v_said || '.created_at', 'updated_at', v_said || '.updated_at',
    'closed_at', v_said || '.closed_at',
    'staff_read_seq', v_said || '.last_seq', 'player_read_seq', v_said || '.last_seq', 'waiting_since', v_said || '.waiting_since', 'rev', '1', 'unread_by_staff', '0', 'unread_by_player', '0',
    'assigned_staff_id', gre.pick('gre_chat_sessions', 'assigned_staff_id', 'gre_id')));
  alter table public.gre_chat_sessions drop column if exists gre_adopted; -- where there was nothing to rewrite
  insert into public.gre_chat_sessions (id, player_id, player_name, status, last_seq, rev, last_message_at, unread_by_staff,
      unread_by_player, created_at, updated_at, closed_at, staff_read_seq, player_read_seq, waiting_since)
    select id, player_id, player_name, status, last_seq, 1, last_message_at, 0, 0, created_at, updated_at, closed_at,
      last_seq, last_seq, waiting_since
    from gre.adopted_sessions where made;

  v_said := format('(gre.adopted_message(%s))', gre.converted('gre_chat_messages', 'id'));
  v_values := jsonb_build_object(
    'seq', v_said || '.seq',
    'player_id', format('coalesce(%s, %s.player_id)', gre.converted('gre_chat_messages', 'player_id'), v_said),
    'created_at', format('coalesce(%s, %s.created_at)', gre.converted('gre_chat_messages', 'created_at'), v_said),
    'timestamp', format('coalesce(%s, %s, %s.created_at)', gre.converted('gre_chat_messages', 'timestamp'),
                        gre.converted('gre_chat_messages', 'created_at'), v_said),
    'message', 'coalesce(message::text, '''')',
    'metadata', format('coalesce(%s, ''{}'')', gre.converted('gre_chat_messages', 'metadata')));
  if exists (select from gre.adopted_messages where moved) then
    -- Each look-up costs: only what names no session, or one that is not there, is looked up a second time.
    execute format('select count(%s) <> (select count(session_id) from gre.found_messages) from public.gre_chat_messages',
      gre.converted('gre_chat_messages', 'session_id')) into v_dangling;
    v_values := v_values || jsonb_build_object('session_id', case when v_dangling then v_said || '.session_id'
      else format('coalesce(%s, %s.session_id)', gre.converted('gre_chat_messages', 'session_id'), v_said) end);
  end if;
  v_said := gre.adopted_sender();
  v_values := v_values || jsonb_build_object(
    'sender', v_said,
    'sender_id', format('coalesce(%s, case %s when ''staff'' then %s when ''player'' then %s end)', gre.pick('gre_chat_messages', 'sender_id'),
                        v_said, gre.pick('gre_chat_messages', 'gre_id'), gre.pick('gre_chat_messages', 'player_id')),
    'sender_name', format('coalesce(%s, case %s when ''staff'' then %s when ''player'' then %s end)', gre.pick('gre_chat_messages', 'sender_name'),
                          v_said, gre.pick('gre_chat_messages', 'gre_name'), gre.pick('gre_chat_messages', 'player_name')),
    -- NOT VALID rules are asked again when a row is updated: what breaks one has nothing left to be updated for.
    'status', format('case when coalesce(char_length(message::text), 0) not between 1 and 4000 or char_length(%s) > 80
        or octet_length(metadata::text) > 4096 then ''read''
      when %2$s is null or lower(%2$s) in (''read'', ''seen'') or %3$s = ''true'' then ''read''
      when lower(%2$s) in (''delivered'', ''received'') then ''delivered'' else ''sent'' end',
      gre.pick('gre_chat_messages', 'sender_name', 'gre_name', 'player_name'), gre.pick('gre_chat_messages', 'status'),
      gre.pick('gre_chat_messages', 'is_read')));
  perform gre.reshape('gre_chat_messages', v_values);

  perform gre.reshape('gre_online_status', jsonb_build_object(
    'staff_id', gre.pick('gre_online_status', 'staff_id', 'gre_id'),
    'display_name', gre.pick('gre_online_status', 'display_name', 'gre_name', 'name'),
    'status', format('gre.known_presence(%s, %s::boolean)', gre.pick('gre_online_status', 'status'), gre.pick('gre_online_status', 'is_online')),
    'last_seen_at', gre.pick('gre_online_status', 'last_seen_at', 'last_seen', 'last_activity', 'updated_at') || '::timestamptz'));
  if not exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = 'staff_id'
                 where i.indrelid = 'public.gre_online_status'::regclass and i.indisunique and i.indpred is null and i.indkey::text = a.attnum::text) then
    -- Of several rows of one person the newest speaks for it.
    update public.gre_online_status t set staff_id = null
    from (select ctid as place, row_number() over (partition by staff_id order by updated_at desc nulls last, last_seen_at desc nulls last) as n
          from public.gre_online_status where staff_id is not null) d
    where t.ctid = d.place and d.n > 1;
    alter table public.gre_online_status add constraint gre_online_status_staff_unique unique (staff_id);
  end if;

  v_said := gre.pick('push_notifications', 'target_player_id');
  perform gre.reshape('push_notifications', jsonb_build_object(
    'body', gre.pick('push_notifications', 'body', 'message'),
    'audience', format('coalesce(%s, case when %s is not null then ''player'' end)', gre.pick('push_notifications', 'audience'), v_said),
    'recipients', format('coalesce(%s, case when %2$s is not null then array[''player_'' || %2$s] end)',
                         gre.converted('push_notifications', 'recipients'), v_said),
    'data', format('coalesce(%s, ''{}'')', gre.converted('push_notifications', 'data')),
    -- What an old sender left waiting is not sent any more.
    'status', format('case when lower(%1$s) in (''queued'', ''pending'', ''new'', ''scheduled'', ''waiting'', ''expired'') then ''expired''
      when lower(%1$s) in (''failed'', ''error'', ''failure'') then ''failed'' when lower(%1$s) = ''no_recipients'' then ''no_recipients''
      else ''sent'' end', gre.pick('push_notifications', 'status'))));

  for v in
    select a.attrelid::regclass as relation, pg_catalog.format_type(a.atttypid, null) as type, a.atttypid, a.atthasdef or a.attidentity <> '' as filled,
      exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisprimary) as has_key,
      exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and i.indisunique and i.indpred is null and i.indimmediate
              and i.indkey::text = a.attnum::text) as is_unique
    from pg_catalog.pg_attribute a where a.attrelid = any (v_tables) and a.attname = 'id' and not a.attisdropped
      and a.attrelid <> 'public.gre_online_status'::regclass
  loop
    if v.type in ('bigint', 'integer', 'smallint') and not v.filled then
      execute format('create sequence public.push_notifications_id_seq owned by public.push_notifications.id');
      perform setval('public.push_notifications_id_seq', coalesce((select max(id::text::bigint) from public.push_notifications), 0) + 1, false);
      alter table public.push_notifications alter column id set default nextval('public.push_notifications_id_seq');
    elsif not v.filled or v.relation <> 'public.push_notifications'::regclass then
      execute format('alter table %s alter column id set default gen_random_uuid()%s', v.relation, case v.type when 'uuid' then '' else '::text' end);
    end if;
    if not v.has_key and (v.relation <> 'public.push_notifications'::regclass or v.is_unique) then
      execute format('alter table %s add primary key (id)', v.relation);
    elsif not v.is_unique and v.relation <> 'public.push_notifications'::regclass then
      execute format('alter table %s add unique (id)', v.relation);
    end if;
  end loop;
  if pg_get_serial_sequence('public.push_notifications', 'id') is not null then
    execute format('grant usage on sequence %s to authenticated, service_role', pg_get_serial_sequence('public.push_notifications', 'id'));
  end if;

  -- Defaults, keys and text rules.
  alter table public.gre_chat_sessions
    alter column player_id set not null,
    alter column status set default 'active',
    alter column status set not null,
    alter column last_seq set default 0,
    alter column last_seq set not null,
    alter column rev set default 0,
    alter column rev set not null,
    alter column unread_by_staff set default 0,
    alter column unread_by_staff set not null,
    alter column unread_by_player set default 0,
    alter column unread_by_player set not null,
    alter column staff_read_seq set default 0,
    alter column staff_read_seq set not null,
    alter column player_read_seq set default 0,
    alter column player_read_seq set not null,
    alter column created_at set default now(),
    alter column created_at set not null,
    alter column updated_at set default now(),
    alter column updated_at set not null;
  alter table public.gre_chat_sessions
    add constraint gre_chat_sessions_status_known check (status in ('active', 'closed', 'pending', 'waiting')) not valid,
    add constraint gre_chat_sessions_player_positive check (player_id > 0) not valid;
  create unique index if not exists gre_chat_sessions_one_open
    on public.gre_chat_sessions (player_id) where status <> 'closed';
  create index if not exists gre_chat_sessions_player on public.gre_chat_sessions (player_id, created_at desc);
  create index if not exists gre_chat_sessions_updated on public.gre_chat_sessions (updated_at);
  create index if not exists gre_chat_sessions_recent
    on public.gre_chat_sessions (status, last_message_at desc nulls last, id);

  alter table public.gre_chat_messages
    -- Defaults that mean "not given" (gre.message_checks): types made from the catalogue ask for what a portal must give, no more.
    alter column session_id set default '00000000-0000-0000-0000-000000000000',
    alter column session_id set not null,
    alter column seq set default 0,
    alter column seq set not null,
    alter column player_id set default 0,
    alter column player_id set not null,
    alter column sender set not null,
    alter column message set not null,
    alter column status set default 'sent',
    alter column status set not null,
    alter column metadata set default '{}',
    alter column metadata set not null,
    alter column created_at set default now(),
    alter column created_at set not null,
    alter column "timestamp" set default now();
  alter table public.gre_chat_messages
    add constraint gre_chat_messages_session_fk foreign key (session_id)
      references public.gre_chat_sessions (id) on delete cascade,
    add constraint gre_chat_messages_seq_unique unique (session_id, seq),
    add constraint gre_chat_messages_sender_known check (sender in ('player', 'staff', 'system')) not valid,
    add constraint gre_chat_messages_status_known check (status in ('sent', 'delivered', 'read')) not valid,
    add constraint gre_chat_messages_text_size check (char_length(message) between 1 and 4000) not valid,
    add constraint gre_chat_messages_name_size check (char_length(sender_name) <= 80) not valid,
    add constraint gre_chat_messages_metadata_size check (octet_length(metadata::text) <= 4096) not valid;
  create index if not exists gre_chat_messages_player on public.gre_chat_messages (player_id, created_at, id);

  alter table public.gre_online_status
    alter column status set default 'offline',
    alter column status set not null,
    alter column last_seen_at set default now(),
    alter column updated_at set default now();
  alter table public.gre_online_status
    add constraint gre_online_status_known check (status in ('online', 'away', 'offline')) not valid;

  alter table public.push_notifications
    alter column status set default 'queued',
    alter column status set not null,
    alter column data set default '{}',
    alter column created_at set default now();
  alter table public.push_notifications
    add constraint push_notifications_delivery_unique unique (delivery_id),
    add constraint push_notifications_audience_known check (audience in ('staff', 'player')) not valid,
    add constraint push_notifications_status_known
      check (status in ('queued', 'sent', 'failed', 'expired', 'no_recipients')) not valid;
  create index if not exists push_notifications_message on public.push_notifications (message_id);
  if v_sender is not null and not gre.has('gre_chat_messages', 'sender_type') then
    execute format('alter table public.gre_chat_messages alter column sender set default %L', v_sender);
  end if;

  foreach v_said in array v_later loop
    begin
      execute v_said;
    exception when others then
      raise exception using errcode = 'GRE01', message = format('cannot adopt: this no longer fits the tables (%s): %s', sqlerrm, left(v_said, 200));
    end;
  end loop;

  if gre.has('gre_chat_messages', 'sender_type', 'gre_id', 'gre_name') then
    execute format('create trigger gre_legacy_spellings before insert on public.gre_chat_messages
                    for each row execute function gre.message_spellings(%L)', v_staff_word);
  else
    drop function gre.message_spellings();
  end if;
  if exists (select from gre.adopted_sessions where not made) then
    create trigger gre_legacy_spellings before insert or update on public.gre_chat_sessions
      for each row execute function gre.session_spellings();
  else
    drop function gre.session_spellings();
    drop function gre.known_session_status(text);
  end if;
  if gre.has('gre_online_status', 'is_online', 'gre_id', 'gre_name') then
    execute format('create trigger gre_legacy_spellings before insert or update on public.gre_online_status
                    for each row execute function gre.presence_spellings(%L)',
      case when exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = 'gre_id'
                        where i.indrelid = 'public.gre_online_status'::regclass and i.indisunique and i.indpred is null and i.indkey::text = a.attnum::text)
           then 'one' else 'many' end);
  else
    drop function gre.presence_spellings();
    drop function gre.known_presence(text, boolean);
  end if;
  if gre.has('push_notifications', 'message', 'target_player_id') then
    create trigger gre_legacy_spellings before insert on public.push_notifications
      for each row execute function gre.push_spellings();
  else
    drop function gre.push_spellings();
  end if;
  if to_regprocedure('gre.message_spellings()') is null then
    drop function gre.known_sender(text);
  else
    alter function gre.known_sender(text) set search_path = ''; -- not earlier: a function with settings is not inlined
  end if;
  drop function gre.gather(), gre.reshape(text, jsonb), gre.pick(text, text[]), gre.has(text, text[]), gre.converted(text, text), gre.shape(), gre.adopted_sender(),
    gre.adopted_session(uuid), gre.adopted_message(uuid);
  drop table gre.adopted_sessions, gre.found_messages, gre.adopted_messages;
end $$;
revoke execute on all functions in schema gre from public;
