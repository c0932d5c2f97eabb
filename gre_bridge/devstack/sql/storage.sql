-- Schema storage of the embedded stack: what Supabase Storage v1.70.6 makes, as far as programs and policies use it: its role,
-- buckets and objects without policies, and the functions that policies call. Runs as a superuser after supabase.sql,
-- which makes the other roles, with `gre_dev.password` set; may be run again.

do $$
begin
  if to_regrole('supabase_storage_admin') is null then
    create role supabase_storage_admin login noinherit createrole;
  end if;
  execute format('alter role supabase_storage_admin password %L', current_setting('gre_dev.password'));
  -- Storage becomes the caller in each of its transactions.
  grant anon, authenticated, service_role to supabase_storage_admin;
  -- The hosted service lets postgres, which does not own the tables, write policies on them through the extension supautils,
  -- which only it has. Membership in the owner is the nearest that plain PostgreSQL offers. It allows more, so
  -- storage.stack_refuse_ddl refuses the rest again.
  grant supabase_storage_admin to postgres;
end $$;
alter role supabase_storage_admin set search_path = storage;

create schema if not exists storage;
grant usage on schema storage to postgres, anon, authenticated, service_role;
grant all on schema storage to supabase_storage_admin with grant option;

do $$
begin
  if to_regtype('storage.buckettype') is null then
    create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');
    alter type storage.buckettype owner to supabase_storage_admin;
  end if;
end $$;

create table if not exists storage.buckets (
  id text primary key,
  name text not null,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  owner_id text,
  type storage.buckettype not null default 'STANDARD',
  versioning_status text not null default 'DISABLED' check (versioning_status = 'DISABLED')
);
create unique index if not exists bname on storage.buckets (name);

create table if not exists storage.objects (
  id uuid primary key default gen_random_uuid(),
  bucket_id text,
  name text,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  metadata jsonb,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  version text,
  owner_id text,
  user_metadata jsonb,
  archived_at timestamptz,
  is_delete_marker boolean not null default false,
  is_versioned boolean not null default false,
  constraint "objects_bucketId_fkey" foreign key (bucket_id) references storage.buckets (id)
);
create unique index if not exists bucketid_objname on storage.objects (bucket_id, name);
create index if not exists idx_objects_bucket_id_name on storage.objects (bucket_id, name collate "C");
create index if not exists idx_objects_bucket_id_name_lower on storage.objects (bucket_id, lower(name) collate "C");
create index if not exists name_prefix_search on storage.objects (name text_pattern_ops);

alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
-- Only the policies stand between a user and the rows.
grant all on storage.buckets, storage.objects to anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to postgres with grant option;

create or replace function storage.foldername(name text) returns text[] language sql immutable as $$
  select parts[1:cardinality(parts) - 1] from (select string_to_array(name, '/') as parts) x
$$;

create or replace function storage.filename(name text) returns text language sql immutable as $$
  select parts[cardinality(parts)] from (select string_to_array(name, '/') as parts) x
$$;

create or replace function storage.extension(name text) returns text language sql immutable as $$
  select parts[cardinality(parts)] from (select string_to_array(storage.filename(name), '.') as parts) x
$$;

create or replace function storage.operation() returns text language sql stable as $$
  select current_setting('storage.operation', true)
$$;

-- "storage." in front of a name may be left out, on both sides.
create or replace function storage.allow_any_operation(expected_operations text[]) returns boolean
language sql stable as $$
  select exists (
    select from unnest(expected_operations) expected
    where expected <> '' and regexp_replace(expected, '^storage\.', '') = regexp_replace(storage.operation(), '^storage\.', '')
  )
$$;

create or replace function storage.allow_only_operation(expected_operation text) returns boolean
language sql stable as $$
  select storage.allow_any_operation(array[expected_operation])
$$;

create or replace function storage.enforce_bucket_name_length() returns trigger language plpgsql as $$
begin
  if length(new.name) > 100 then
    raise exception 'bucket name "%" is too long (% characters). Max is 100.', new.name, length(new.name);
  end if;
  return new;
end $$;

create or replace function storage.update_updated_at_column() returns trigger language plpgsql as $$
begin
  new.updated_at = now();
  return new;
end $$;

-- For every role, superusers too, and even for no rows: the bytes of a row that SQL deletes would stay for ever.
create or replace function storage.protect_delete() returns trigger language plpgsql as $$
begin
  if coalesce(current_setting('storage.allow_delete_query', true), 'false') <> 'true' then
    raise exception 'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
      using errcode = '42501', hint = 'This prevents accidental data loss from orphaned objects.';
  end if;
  return null;
end $$;

create or replace trigger enforce_bucket_name_length_trigger before insert or update of name on storage.buckets
  for each row execute function storage.enforce_bucket_name_length();
create or replace trigger protect_buckets_delete before delete on storage.buckets
  for each statement execute function storage.protect_delete();
create or replace trigger update_objects_updated_at before update on storage.objects
  for each row execute function storage.update_updated_at_column();
create or replace trigger protect_objects_delete before delete on storage.objects
  for each statement execute function storage.protect_delete();

do $$
declare
  f regprocedure;
begin
  for f in select oid from pg_proc where pronamespace = 'storage'::regnamespace and proname <> 'stack_refuse_ddl' loop
    execute format('alter function %s owner to supabase_storage_admin', f);
    execute format('grant execute on function %s to postgres, anon, authenticated, service_role', f);
  end loop;
end $$;

-- What a hosted project's postgres may do here is to write policies and triggers, and to grant. For the rest it is told
-- what PostgreSQL says to one who is not the owner.
create or replace function storage.stack_refuse_ddl() returns event_trigger language plpgsql as $$
declare
  command record;
begin
  if current_user <> 'postgres' then
    return;
  end if;
  for command in
    select c.command_tag, c.object_type, c.object_identity from pg_event_trigger_ddl_commands() c
    where (c.schema_name = 'storage' or c.object_type = 'policy' and c.object_identity like '% on storage.%')
      and c.command_tag not in ('CREATE POLICY', 'ALTER POLICY', 'CREATE TRIGGER', 'GRANT', 'REVOKE')
  loop
    raise exception 'must be owner of % %', command.object_type, command.object_identity using errcode = '42501';
  end loop;
end $$;
revoke execute on function storage.stack_refuse_ddl() from public;
drop event trigger if exists storage_refuse_ddl;
create event trigger storage_refuse_ddl on ddl_command_end execute function storage.stack_refuse_ddl();
