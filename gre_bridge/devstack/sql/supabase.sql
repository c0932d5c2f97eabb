-- What a hosted Supabase project has before anybody's first migration, as far as the bridge and the portals
-- can notice it: roles, schemas, default privileges, helper functions, PostgREST's reload. Schema realtime and the
-- publication are realtime.sql's, schema storage is storage.sql's.
-- Facts are those of the public supabase/postgres image (its migrations and expected role listings).
-- Run by the superuser supabase_admin in each database, in one transaction, with `gre_dev.password` set.
-- May be run again: roles belong to the cluster and outlive a database.

do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('postgres',                'login createdb createrole replication bypassrls'),
      ('anon',                    'nologin'),
      ('authenticated',           'nologin'),
      ('service_role',            'nologin bypassrls'),
      ('authenticator',           'login noinherit'),
      ('supabase_auth_admin',     'login noinherit createrole')
    ) as roles (name, attributes)
  loop
    if to_regrole(wanted.name) is null then
      execute format('create role %I %s', wanted.name, wanted.attributes);
    end if;
    if wanted.attributes like 'login%' then
      execute format('alter role %I password %L', wanted.name, current_setting('gre_dev.password'));
    end if;
  end loop;
end $$;

grant anon, authenticated, service_role to authenticator;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
grant anon, authenticated, service_role to postgres;
-- Supabase lets postgres set it (supautils); its guide restores data with it.
grant set on parameter session_replication_role to postgres;
do $$
begin
  if current_setting('server_version_num')::int >= 160000 then
    grant anon, authenticated, service_role to postgres with admin option;
  end if;
end $$;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;

do $$
begin
  execute format('alter database %I owner to postgres', current_database());
end $$;

-- Schema public belongs to the database's owner (pg_database_owner), so postgres may create in it.
grant usage on schema public to postgres, anon, authenticated, service_role;

create schema if not exists extensions;
grant usage on schema extensions to anon, authenticated, service_role;
grant all on schema extensions to postgres;
do $$
declare
  extension text;
begin
  -- Some builds lack one or the other; ours needs neither.
  for extension in select name from pg_available_extensions where name in ('uuid-ossp', 'pgcrypto') loop
    execute format('create extension if not exists %I with schema extensions', extension);
  end loop;
end $$;

-- Every new table, function and sequence is open to the API roles until someone revokes it: row-level security
-- and explicit revokes are all that protects a table on Supabase, so migrations must be tried against this.
do $$
declare
  creator text;
begin
  foreach creator in array array['postgres', 'supabase_admin'] loop
    execute format('alter default privileges for role %I in schema public grant all on tables
                    to postgres, anon, authenticated, service_role', creator);
    execute format('alter default privileges for role %I in schema public grant all on functions
                    to postgres, anon, authenticated, service_role', creator);
    execute format('alter default privileges for role %I in schema public grant all on sequences
                    to postgres, anon, authenticated, service_role', creator);
  end loop;
end $$;

-- Sign-in itself is not part of the stack; the table is what foreign keys to auth.users need.
create schema if not exists auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;
grant all on schema auth to supabase_auth_admin;
create table if not exists auth.users (
  id uuid primary key,
  aud text,
  role text,
  email text unique,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
alter table auth.users enable row level security;
alter table auth.users owner to supabase_auth_admin;
grant all on auth.users to postgres;

-- Both spellings of the claims exist in the field; PostgREST sets the whole object.
create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;

create or replace function auth.role() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  )
$$;

create or replace function auth.email() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
  )
$$;

-- PostgREST reloads its schema cache after DDL.
create or replace function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql as $$
begin
  perform pg_notify('pgrst', 'reload schema')
    from pg_event_trigger_ddl_commands()
   where coalesce(schema_name, '') not in ('pg_temp', 'auth', 'realtime', 'storage')
     and command_tag ~ '^(CREATE|ALTER) (SCHEMA|TABLE|FOREIGN TABLE|VIEW|MATERIALIZED VIEW|FUNCTION|TYPE)|^CREATE (RULE|TRIGGER)|^SELECT INTO|^COMMENT'
   limit 1;
end $$;

create or replace function extensions.pgrst_drop_watch() returns event_trigger language plpgsql as $$
begin
  perform pg_notify('pgrst', 'reload schema')
    from pg_event_trigger_dropped_objects()
   where not is_temporary
     and coalesce(schema_name, '') not in ('auth', 'realtime', 'storage')
     and object_type in ('schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'type', 'trigger', 'rule')
   limit 1;
end $$;

drop event trigger if exists pgrst_ddl_watch;
drop event trigger if exists pgrst_drop_watch;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();
