-- Supabase Storage: the bucket gre-chat, and the policies and triggers on its objects. Skipped in a project without
-- Storage; public.gre_storage_adopt() makes them later. Depends on gre_foundation, gre_identity, gre_outbox (wake-ups)
-- and gre_files.
--
-- An upload is two transactions. The first checks it as the caller: it inserts a row with version 1 and rolls it back.
-- The second, as service_role, inserts the row after the bytes are stored. The triggers fire in both, before the
-- policies. They refuse what they refuse with one error, so that nobody learns which files exist. Errors have SQLSTATE
-- 42501: Storage passes its message on, and removes the bytes.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Return the file to which an object's name belongs (p_variant: original, view or thumb), or null. Takes no lock.
create function gre.object_file(p_name text, out file public.gre_chat_attachments, out variant text)
language plpgsql stable set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_parts constant text[] := regexp_match(left(p_name, 200),
    '^([1-9][0-9]{0,15})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(original|view|thumb)$');
begin
  if v_parts is not null then
    variant := v_parts[3];
    select * into file from public.gre_chat_attachments
    where id = v_parts[2]::uuid and player_id = v_parts[1]::bigint;
  end if;
end $$;

-- For policies: return true if the caller began the file with this object, and it is not stored.
create function gre.may_upload_object(p_name text) returns boolean
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor constant gre.actor := gre.current_actor();
  v record;
begin
  if v_actor.role not in ('player', 'staff', 'admin') then
    return false;
  end if;
  v := gre.object_file(p_name);
  return v.variant = 'original' and (v.file).state = 'awaited' and gre.is_author(v.file, v_actor);
end $$;

-- For policies: return true if the caller may fetch this object.
create function gre.may_fetch_object(p_name text) returns boolean
language plpgsql stable security definer set search_path = '' as $$
declare
  v record;
begin
  v := gre.object_file(p_name);
  return coalesce(gre.may_fetch(v.file, gre.current_actor(), v.variant), false);
end $$;

-- Check a new object. Current_setting('role') is the role of the transaction: this function runs as its owner.
create function gre.objects_check() returns trigger
language plpgsql security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_service constant boolean := current_setting('role') = 'service_role';
  v record;
  v_file public.gre_chat_attachments;
begin
  v := gre.object_file(new.name);
  v_file := v.file;
  if v.variant is null or v_file.id is null
    or v.variant = 'original' and v_file.state <> 'awaited' or v.variant <> 'original' and v_file.state <> 'stored'
    or not v_service and not coalesce(gre.may_upload_object(new.name), false) then
    perform gre.raise_row_denied('objects');
  end if;
  if not v_service or new.version is not distinct from '1' then
    return new; -- rolled back; or a row without bytes, which counts for nothing
  end if;
  -- Under its lock the file is neither deleted nor stored a second time.
  if v.variant <> 'original' then
    perform from public.gre_chat_attachments a where a.id = v_file.id and a.state || '' = 'stored' for share;
  else
    select * into v_file from public.gre_chat_attachments a
    where a.id = v_file.id and a.state || '' = 'awaited' for update;
  end if;
  if not found then
    perform gre.raise_row_denied('objects');
  elsif v.variant = 'original' and (case when new.metadata ->> 'size' ~ '^[0-9]{1,15}$'
      then (new.metadata ->> 'size')::bigint <= v_file.announced_bytes end) is not true then
    raise exception using errcode = '42501', message = 'the file is larger than announced';
  elsif v.variant = 'original'
    and lower(btrim(split_part(new.metadata ->> 'mimetype', ';', 1))) is distinct from v_file.object_type then
    raise exception using errcode = '42501', message = 'the file has another type than announced';
  end if;
  return new;
end $$;

-- An object of this bucket is never changed: a name is not used twice, and what was checked stays as it was.
create function gre.objects_pinned() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = '42501', message = 'an object of this bucket cannot be replaced or moved';
end $$;

-- Only what is to be deleted is deleted: the row first, then the bytes. A view may be replaced until it is shown.
create function gre.objects_kept() returns trigger
language plpgsql security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v record;
begin
  v := gre.object_file(old.name);
  if (v.file).id is null or exists (select from public.gre_storage_deletions d where d.name = old.name) then
    return old;
  elsif v.variant <> 'original' then
    -- Under its lock the file does not become ready.
    perform from public.gre_chat_attachments a where a.id = (v.file).id and a.state = 'stored' for share;
    if found then
      return old;
    end if;
  end if;
  raise exception using errcode = '42501', message = 'an object of this bucket is deleted with its file only';
end $$;

-- Note that the bytes of a file are stored, in the transaction that writes its object's row.
create function gre.objects_stored() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_id uuid;
begin
  if current_setting('role') = 'service_role' and new.version is distinct from '1' and new.name like '%/original' then
    update public.gre_chat_attachments set state = 'stored', object_id = new.id, object_version = new.version,
      bytes = (new.metadata ->> 'size')::bigint, stored_at = clock_timestamp()
    where id = split_part(new.name, '/', 2)::uuid and state || '' = 'awaited'
    returning id into v_id;
    if v_id is not null then
      insert into gre.media_jobs (attachment_id, player_id) values (v_id, split_part(new.name, '/', 1)::bigint);
      perform gre.notify_media();
    end if;
  end if;
  return null;
end $$;

create function public.gre_storage_adopt() returns boolean
language plpgsql volatile set search_path = '' set lock_timeout = '2s' as $$
declare
  v_fetch constant text := '(split_part(name, ''/'', 1) = (select gre.my_player_id()::text) '
    'or (select gre.is_staff())) and gre.may_fetch_object(name)';
  v record;
begin
  if to_regclass('storage.objects') is null or to_regclass('storage.buckets') is null then
    return false;
  end if;
  insert into storage.buckets as b (id, name, public, file_size_limit, allowed_mime_types)
  values ('gre-chat', 'gre-chat', false, gre.max_file_bytes(), gre.file_types())
  on conflict (id) do update set public = false, file_size_limit = excluded.file_size_limit,
    allowed_mime_types = excluded.allowed_mime_types
  where (b.public, b.file_size_limit, b.allowed_mime_types)
    is distinct from (false, excluded.file_size_limit, excluded.allowed_mime_types);
  -- The bucket first in each condition: other buckets pay nothing. Then the folder, as text: of others' objects no
  -- function is called. The restrictive policies hold whatever a policy of the project allows for every bucket.
  for v in
    select * from (values
      ('gre_chat_upload', 'policy gre_chat_upload on storage.objects for insert to authenticated '
        'with check (bucket_id = ''gre-chat'' and gre.may_upload_object(name))'),
      ('gre_chat_fetch', 'policy gre_chat_fetch on storage.objects for select to authenticated '
        'using (bucket_id = ''gre-chat'' and ' || v_fetch || ')'),
      ('gre_chat_only_upload', 'policy gre_chat_only_upload on storage.objects as restrictive for insert '
        'to authenticated with check (bucket_id <> ''gre-chat'' or gre.may_upload_object(name))'),
      ('gre_chat_only_fetch', 'policy gre_chat_only_fetch on storage.objects as restrictive for select '
        'to authenticated using (bucket_id <> ''gre-chat'' or ' || v_fetch || ')'),
      ('gre_chat_no_update', 'policy gre_chat_no_update on storage.objects as restrictive for update '
        'to authenticated using (bucket_id <> ''gre-chat'')'),
      ('gre_chat_no_delete', 'policy gre_chat_no_delete on storage.objects as restrictive for delete '
        'to authenticated using (bucket_id <> ''gre-chat'')'),
      ('gre_chat_not_anon', 'policy gre_chat_not_anon on storage.objects as restrictive for all '
        'to anon using (bucket_id <> ''gre-chat'')'),
      ('gre_1_check', 'trigger gre_1_check before insert on storage.objects for each row '
        'when (new.bucket_id = ''gre-chat'') execute function gre.objects_check()'),
      ('gre_1_pinned', 'trigger gre_1_pinned before update on storage.objects for each row '
        'when ((old.bucket_id = ''gre-chat'' or new.bucket_id = ''gre-chat'') and (old.bucket_id, old.name, old.id, '
        'old.version) is distinct from (new.bucket_id, new.name, new.id, new.version)) '
        'execute function gre.objects_pinned()'),
      ('gre_1_kept', 'trigger gre_1_kept before delete on storage.objects for each row '
        'when (old.bucket_id = ''gre-chat'') execute function gre.objects_kept()'),
      ('gre_2_stored', 'trigger gre_2_stored after insert on storage.objects for each row '
        'when (new.bucket_id = ''gre-chat'') execute function gre.objects_stored()')) x (name, definition)
    where not exists (select from pg_catalog.pg_policy p
                      where p.polrelid = to_regclass('storage.objects') and p.polname = x.name)
      and not exists (select from pg_catalog.pg_trigger t
                      where t.tgrelid = to_regclass('storage.objects') and t.tgname = x.name)
  loop
    execute 'create ' || v.definition;
  end loop;
  return true;
end $$;
comment on function public.gre_storage_adopt is
  'Makes the bucket gre-chat with its policies and triggers in a project whose Storage was set up after gre-bridge. '
  'Returns '
  'false if the project has no Storage. `gre-bridge migrate` calls it.';

revoke execute on function gre.object_file, gre.may_upload_object, gre.may_fetch_object, gre.objects_check,
  gre.objects_pinned, gre.objects_kept, gre.objects_stored from public;
grant execute on function gre.may_upload_object, gre.may_fetch_object to authenticated, service_role;
revoke execute on function public.gre_storage_adopt from public, anon, authenticated, service_role;

do $$
begin
  if not public.gre_storage_adopt() then
    raise notice 'gre-bridge: this project has no Storage, so the chat takes no files';
  end if;
exception when insufficient_privilege or undefined_column or undefined_function then
  raise notice 'gre-bridge: could not set up Storage (%), so the chat takes no files', sqlerrm;
end $$;
