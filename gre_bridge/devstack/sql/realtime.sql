-- Schema realtime of the embedded stack: what Supabase's own has as far as programs use it, its role and publication,
-- and helpers of the stack's Realtime (stack_*). Runs as a superuser after supabase.sql, which makes the other roles;
-- may be run again.

do $$
begin
  if to_regrole('supabase_realtime_admin') is null then
    create role supabase_realtime_admin noinherit nologin;
  end if;
  -- The hosted service lets postgres write policies on realtime.messages through the extension supautils, which only
  -- it has. Membership in the owner is the nearest that plain PostgreSQL offers.
  grant supabase_realtime_admin to postgres;
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
    alter publication supabase_realtime owner to postgres;
  end if;
end $$;

create schema if not exists realtime;
grant usage on schema realtime to anon, authenticated, service_role;
grant usage on schema realtime to postgres with grant option;
grant all on schema realtime to supabase_realtime_admin with grant option;

-- Not partitioned by day as Supabase's is: the stack prunes it instead.
create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  primary key (id, inserted_at)
);
create index if not exists messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private;
alter table realtime.messages enable row level security;
alter table realtime.messages owner to supabase_realtime_admin;
grant select, insert, update on realtime.messages to postgres, anon, authenticated, service_role;

create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;
alter function realtime.topic() owner to supabase_realtime_admin;

-- Runs as its caller, so policies on realtime.messages decide who may send; says every error as a warning only.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$
declare
  new_id uuid := gen_random_uuid();
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (id, payload, event, topic, private, extension)
  values (new_id, case when payload ? 'id' then payload else jsonb_set(payload, '{id}', to_jsonb(new_id)) end,
          event, topic, private, 'broadcast');
exception when others then
  raise warning 'ErrorSendingBroadcastMessage: %', sqlerrm;
end $$;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;

-- The stack's Realtime listens for the id and reads the row: a payload may be larger than a notification.
create or replace function realtime.stack_notify() returns trigger language plpgsql as $$
begin
  perform pg_notify('realtime_messages', new.id::text);
  return null;
end $$;
create or replace trigger stack_notify after insert on realtime.messages
  for each row when (new.extension = 'broadcast') execute function realtime.stack_notify();

-- One filter of a binding, {"col", "op", "val", "negate"}, as a condition on the row `k`.
create or replace function realtime.stack_condition(f jsonb) returns text language sql immutable as $$
  select case when (f ->> 'negate')::boolean then 'not ' else '' end || case f ->> 'op'
    when 'in' then format('(k.%I = any (%L))', f ->> 'col', f ->> 'val')
    when 'is' then format('(k.%I is %s)', f ->> 'col',
                          case when lower(f ->> 'val') in ('true', 'false', 'unknown') then f ->> 'val' else 'null' end)
    else format('(k.%I %s %L)', f ->> 'col',
                '{"eq":"=","neq":"<>","lt":"<","lte":"<=","gt":">","gte":">=","like":"~~","ilike":"~~*","match":"~",
                  "imatch":"~*","isdistinct":"is distinct from"}'::jsonb ->> (f ->> 'op'), f ->> 'val') end
$$;

-- How many published tables a binding covers; raises what Realtime raises for its role and its filters.
create or replace function realtime.stack_check(publication text, schema_ text, table_ text, filters jsonb, role_ text)
returns integer language plpgsql as $$
declare
  entity regclass;
  covered integer := 0;
  f jsonb;
  type_ text;
begin
  for entity in
    select format('%I.%I', p.schemaname, p.tablename)::regclass from pg_publication_tables p
    where p.pubname = publication and schema_ in ('*', p.schemaname) and table_ in ('*', p.tablename)
  loop
    covered := covered + 1;
    perform quote_ident(role_)::regrole;
    for f in select * from jsonb_array_elements(filters) loop
      select format_type(a.atttypid, null) into type_ from pg_attribute a
      where a.attrelid = entity and a.attname = f ->> 'col' and a.attnum > 0 and not a.attisdropped
        and has_column_privilege(role_, entity, a.attnum, 'SELECT');
      if type_ is null then
        raise exception 'invalid column for filter %', f ->> 'col';
      end if;
      if f ->> 'op' <> 'is' then
        execute format('select %L::%s', f ->> 'val', type_ || case f ->> 'op' when 'in' then '[]' else '' end);
      end if;
    end loop;
  end loop;
  return covered;
end $$;

-- Of a table: is RLS on, its primary key, and the columns that the role may select, in their order.
create or replace function realtime.stack_access(entity regclass, role_ text)
returns table (rls boolean, keys text[], columns jsonb) language sql stable as $$
  select c.relrowsecurity,
    coalesce((select array_agg(a.attname::text) from pg_index i
              join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
              where i.indrelid = entity and i.indisprimary), '{}'),
    coalesce((select jsonb_agg(jsonb_build_object('name', a.attname, 'type', t.typname) order by a.attnum)
              from pg_attribute a join pg_type t on t.oid = a.atttypid
              where a.attrelid = entity and a.attnum > 0 and not a.attisdropped
                and has_column_privilege(role_, entity, a.attnum, 'SELECT')), '[]')
  from pg_class c where c.oid = entity
$$;

-- Rows of the WAL ({column: text value}) as JSON text, in order, with the types of the table and only these columns.
create or replace function realtime.stack_render(entity regclass, wal_rows jsonb, columns text[])
returns setof text language plpgsql as $$
begin
  return query execute format(
    'select coalesce((select jsonb_object_agg(j.key, j.value) from jsonb_each(to_jsonb(k)) j
                      where e.x ? j.key and j.key = any ($2)), ''{}'')::text
     from jsonb_array_elements($1) with ordinality e (x, n), lateral jsonb_populate_record(null::%s, e.x) k
     order by e.n', entity) using wal_rows, columns;
end $$;

-- For each row of the WAL: does it pass the filters and, when a role is given, may that role with these claims see it now?
create or replace function realtime.stack_passes(entity regclass, wal_rows jsonb, filters jsonb, role_ text, claims text)
returns setof boolean language plpgsql as $$
declare
  condition text := (select coalesce(string_agg(realtime.stack_condition(f), ' and '), 'true')
                     from jsonb_array_elements(filters) f);
begin
  if role_ is not null then
    condition := condition || format(' and exists (select from %s t where %s)', entity,
      (select string_agg(format('t.%1$I = k.%1$I', key), ' and ')
       from unnest((select a.keys from realtime.stack_access(entity, role_) a)) key));
    perform set_config('role', role_, true), set_config('request.jwt.claims', claims, true);
  end if;
  return query execute format(
    'select coalesce(%s, false) from jsonb_array_elements($1) with ordinality e (x, n),
       lateral jsonb_populate_record(null::%s, e.x) k order by e.n', condition, entity) using wal_rows;
end $$;

revoke execute on function realtime.stack_notify(), realtime.stack_condition(jsonb),
  realtime.stack_check(text, text, text, jsonb, text), realtime.stack_access(regclass, text),
  realtime.stack_render(regclass, jsonb, text[]), realtime.stack_passes(regclass, jsonb, jsonb, text, text) from public;
