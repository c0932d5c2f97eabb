-- Files in the chat: what a person announces, uploads to Supabase Storage and binds to a message. The bytes are in
-- Storage only; these tables know what was checked of them. Depends on gre_foundation, gre_tables, gre_identity,
-- gre_messages, gre_outbox and gre_settings.
--
-- A file is awaited when it is announced (gre_attachment_begin), stored when Storage has written its object
-- (gre_storage), bound when a message names it, and ready or refused when a worker has examined it (gre_media). The
-- names of objects are {player_id}/{id}/original, view and thumb, and are never used twice: an id stays taken, as a
-- tombstone, until a day after its last object was deleted.
--
-- Lock order: sessions, files (in the order of id), jobs. Functions of workers take locks with skip locked.
set local lock_timeout = '300ms';
set local statement_timeout = 0;
select gre.lock_tables();

create table public.gre_chat_attachments (
  id uuid primary key,
  player_id bigint not null,
  session_id uuid,
  message_id uuid,
  place smallint,
  by text not null constraint gre_chat_attachments_by_check check (by in ('player', 'staff')),
  staff_id text,
  name text not null,
  alt text,
  kind text not null constraint gre_chat_attachments_kind_check check (kind in ('image', 'file')),
  type text not null,
  bytes bigint not null,
  width integer,
  height integer,
  preview text,
  state text not null default 'awaited' constraint gre_chat_attachments_state_check
    check (state in ('awaited', 'stored', 'ready', 'refused', 'gone')),
  refused text,
  announced_bytes bigint not null,
  object_id uuid,
  object_version text,
  object_type text not null,
  rev bigint,
  created_at timestamptz not null default clock_timestamp(),
  stored_at timestamptz,
  ready_at timestamptz,
  changed_at timestamptz,
  constraint gre_chat_attachments_name_size check (char_length(name) between 1 and 200),
  constraint gre_chat_attachments_alt_size check (char_length(alt) <= 1000),
  constraint gre_chat_attachments_preview_size check (char_length(preview) <= 64),
  constraint gre_chat_attachments_staff_check check ((by = 'staff') = (staff_id is not null)),
  constraint gre_chat_attachments_bound_check
    check ((message_id is null) = (session_id is null) and (message_id is null) = (place is null))
);
create index gre_chat_attachments_player on public.gre_chat_attachments (player_id, created_at);
create index gre_chat_attachments_unbound on public.gre_chat_attachments (player_id) where message_id is null;
create index gre_chat_attachments_old on public.gre_chat_attachments (created_at) where message_id is null;
create index gre_chat_attachments_session on public.gre_chat_attachments (session_id, rev)
  where session_id is not null;
create index gre_chat_attachments_state on public.gre_chat_attachments (state) where state <> 'ready';
create index gre_chat_attachments_ready on public.gre_chat_attachments (ready_at) where ready_at is not null;
-- Statistics contain samples of the values and outlive an erase.
alter table public.gre_chat_attachments
  alter column name set statistics 0, alter column alt set statistics 0, alter column preview set statistics 0;
comment on table public.gre_chat_attachments is
  'Files of the chat: what is known of them. Their bytes are in Supabase Storage. Written by functions only.';
comment on column public.gre_chat_attachments.id is 'The file''s id, chosen by the client. Never used again.';
comment on column public.gre_chat_attachments.player_id is 'The player to whose chat the file belongs.';
comment on column public.gre_chat_attachments.session_id is 'The session of its message; null if it is not sent.';
comment on column public.gre_chat_attachments.message_id is 'The message with which it was sent, or null.';
comment on column public.gre_chat_attachments.place is 'Its place in the message: 0 to 4.';
comment on column public.gre_chat_attachments.by is 'player or staff: who began it.';
comment on column public.gre_chat_attachments.staff_id is 'The staff member who began it, or null.';
comment on column public.gre_chat_attachments.name is 'The name to show and to save it by: 1 to 200 characters.';
comment on column public.gre_chat_attachments.alt is 'Description of a picture for those who cannot see it, or null.';
comment on column public.gre_chat_attachments.kind is
  'image (has a view and a thumbnail once it is ready) or file (a download). At first by the announced type.';
comment on column public.gre_chat_attachments.type is
  'The media type: the announced one, then the one that the examination found.';
comment on column public.gre_chat_attachments.bytes is 'Size: the announced one, then the one that was stored.';
comment on column public.gre_chat_attachments.width is 'Width of a picture in pixels, upright.';
comment on column public.gre_chat_attachments.height is 'Height of a picture in pixels, upright.';
comment on column public.gre_chat_attachments.preview is 'A few characters from which a page can draw a preview.';
comment on column public.gre_chat_attachments.state is
  'awaited (announced), stored, ready (examined: the other side can fetch it), refused (only its sender can fetch '
  'it) or '
  'gone.';
comment on column public.gre_chat_attachments.refused is 'Why it was refused: a code.';
comment on column public.gre_chat_attachments.announced_bytes is
  'The announced size: the largest that can be uploaded.';
comment on column public.gre_chat_attachments.object_id is 'Id of the object in Storage.';
comment on column public.gre_chat_attachments.object_version is 'Version of that object.';
comment on column public.gre_chat_attachments.object_type is 'The media type with which it has to be uploaded.';
comment on column public.gre_chat_attachments.rev is
  'rev of its session at the last change after it was sent; null if there was none.';
comment on column public.gre_chat_attachments.created_at is 'Time at which it was announced.';
comment on column public.gre_chat_attachments.stored_at is 'Time at which it was stored.';
comment on column public.gre_chat_attachments.ready_at is 'Time at which it became ready.';
comment on column public.gre_chat_attachments.changed_at is 'Time of the last change after it was sent.';
alter table public.gre_chat_attachments enable row level security;
revoke all on public.gre_chat_attachments from public, anon, authenticated, service_role;
-- Not what identifies the object in Storage.
grant select (id, player_id, session_id, message_id, place, by, staff_id, name, alt, kind, type, bytes, width, height,
  preview, state, refused, rev, created_at, stored_at, ready_at, changed_at)
  on public.gre_chat_attachments to authenticated;
grant select on public.gre_chat_attachments to service_role;
-- What is not sent yet is its author's alone.
create policy gre_attachments_read on public.gre_chat_attachments for select to authenticated
  using (player_id = (select gre.my_player_id()) and (by = 'player' or message_id is not null)
    or (select gre.is_staff()) and (message_id is not null or staff_id = (select gre.my_staff_id())));

create table public.gre_storage_deletions (
  name text collate "C" primary key,
  attachment_id uuid not null,
  requested_at timestamptz not null default clock_timestamp(),
  due_at timestamptz not null default clock_timestamp(),
  attempt integer not null default 0,
  claimed_by uuid,
  lease_until timestamptz,
  last_error text
);
create index gre_storage_deletions_due on public.gre_storage_deletions (due_at);
create index gre_storage_deletions_attachment on public.gre_storage_deletions (attachment_id);
comment on table public.gre_storage_deletions is
  'Objects that workers have to delete over the Storage API: SQL cannot delete their bytes.';
comment on column public.gre_storage_deletions.name is 'Name of the object in bucket gre-chat.';
comment on column public.gre_storage_deletions.attachment_id is 'The file to which it belonged.';
comment on column public.gre_storage_deletions.requested_at is 'Time at which the file was deleted.';
comment on column public.gre_storage_deletions.due_at is 'Time of the next attempt.';
comment on column public.gre_storage_deletions.attempt is 'Number of attempts that failed.';
comment on column public.gre_storage_deletions.claimed_by is 'The worker that has it, or null.';
comment on column public.gre_storage_deletions.lease_until is 'End of the lease, or null.';
comment on column public.gre_storage_deletions.last_error is 'Code of the last failure.';
alter table public.gre_storage_deletions enable row level security;
revoke all on public.gre_storage_deletions from public, anon, authenticated, service_role;
grant select on public.gre_storage_deletions to service_role;

-- No foreign key: a job without its file is dropped when it is claimed.
create table gre.media_jobs (
  attachment_id uuid primary key,
  player_id bigint not null,
  due_at timestamptz not null default clock_timestamp(),
  attempt integer not null default 0,
  own_failures integer not null default 0,
  crashes integer not null default 0,
  crashed_at timestamptz,
  claimed_by uuid,
  lease_until timestamptz,
  last_error text
);
create index media_jobs_player on gre.media_jobs ((attempt > 0), player_id, due_at, attachment_id);
create index media_jobs_retries on gre.media_jobs (due_at) where attempt > 0;
create index media_jobs_leased on gre.media_jobs (player_id) where claimed_by is not null;
comment on table gre.media_jobs is 'Stored files that a worker has to examine.';
comment on column gre.media_jobs.attempt is 'Attempts that began, but for those that were given back.';
comment on column gre.media_jobs.own_failures is 'Attempts that failed for a reason that is not the file''s.';
comment on column gre.media_jobs.crashes is 'Attempts in which the decoder crashed; crashed_at: the first one.';
alter table gre.media_jobs enable row level security;

create table gre.attachment_tombstones (
  id uuid primary key,
  who text,
  at timestamptz not null default clock_timestamp()
);
create index attachment_tombstones_at on gre.attachment_tombstones (at);
create index attachment_tombstones_who on gre.attachment_tombstones (who) where who is not null;
comment on table gre.attachment_tombstones is
  'Ids of deleted files: never free while an object of theirs can exist. at: time of the last deletion; '
  'who: whose it was (player:29, staff:s1), null after an erase.';
alter table gre.attachment_tombstones enable row level security;

create table gre.attachment_quotas (
  who text not null,
  day date not null,
  begins integer not null default 0,
  bytes bigint not null default 0,
  minute timestamptz,
  repeats integer not null default 0,
  primary key (who, day)
);
create index attachment_quotas_day on gre.attachment_quotas (day);
comment on table gre.attachment_quotas is 'What a person (player:29, staff:s1) has announced on a day (UTC).';
comment on column gre.attachment_quotas.repeats is
  'Repeated announcements in that minute, which the day does not count.';
alter table gre.attachment_quotas enable row level security;
revoke all on gre.media_jobs, gre.attachment_tombstones, gre.attachment_quotas
  from public, anon, authenticated, service_role;

-- Limits --------------------------------------------------------------------------------------------------

create function gre.max_file_bytes() returns bigint
language sql immutable parallel safe set search_path = '' as $$ select 26214400::bigint $$;

-- The types that the bucket takes. Never HTML, SVG or XML: Storage serves an object on the project's origin with the
-- type of its upload. Everything else is uploaded as application/octet-stream.
create function gre.file_types() returns text[]
language sql immutable parallel safe set search_path = '' as $$
  select array['image/jpeg', 'image/png', 'image/webp', 'image/gif', 'image/heic', 'image/heif', 'image/avif',
    'application/pdf', 'text/plain', 'text/csv', 'application/zip', 'application/msword', 'application/vnd.ms-excel',
    'application/vnd.ms-powerpoint', 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
    'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
    'application/vnd.openxmlformats-officedocument.presentationml.presentation',
    'application/vnd.oasis.opendocument.text', 'application/vnd.oasis.opendocument.spreadsheet',
    'application/vnd.oasis.opendocument.presentation', 'audio/mp4', 'audio/mpeg', 'audio/webm', 'audio/ogg',
    'video/mp4', 'video/mpeg', 'video/webm', 'video/ogg', 'application/octet-stream']
$$;

-- Return the type with which a file has to be uploaded: without parameters, in lower case.
create function gre.upload_type(p_type text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select coalesce((
    select t from unnest(gre.file_types()) t where t = lower(btrim(split_part(left(p_type, 255), ';', 1)))),
    'application/octet-stream')
$$;

-- Return a file's name in one line of at most 200 characters: without folders, control characters and direction marks.
-- The ending is kept.
create function gre.file_name(p_name text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_name text := right(p_name, 1000);
  v_end text;
begin
  v_name := regexp_replace(v_name,
    '[\u0001-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb'
    '\U000e0000-\U000e007f]', '', 'g');
  v_name := btrim(regexp_replace(v_name, '^.*[/\\]', ''), ' .');
  if v_name is null or not gre.has_text(v_name) then
    return 'file';
  elsif char_length(v_name) > 200 then
    v_end := coalesce(substring(v_name from '\.[^.]{1,20}$'), '');
    v_name := left(v_name, 200 - char_length(v_end)) || v_end;
  end if;
  return v_name;
end $$;

-- Return the name by which the view of a picture is saved: a JPEG or WebP, whatever the picture was and was called.
create function gre.view_name(p_name text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select case when p_name ~* '\.(jpe?g|png|webp|gif)$' then p_name
    else regexp_replace(p_name, '\.(heic|heif|hif|avif|bmp)$', '', 'i') || '.jpg' end
$$;

-- Return true if the bucket's triggers are there (public.gre_storage_adopt).
create function gre.storage_on() returns boolean
language sql stable set search_path = '' as $$
  select exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = to_regclass('storage.objects') and t.tgname = 'gre_2_stored')
$$;

-- JSON and rights -----------------------------------------------------------------------------------------

create function gre.object_name(p_player_id bigint, p_id uuid, p_variant text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select p_player_id || '/' || p_id || '/' || p_variant
$$;

-- Return the files of a message as [A] of the API, in their order. Row-level security applies for users. The columns
-- are named: users may not read all of them.
create function gre.attachments_json(p_ids uuid[]) returns jsonb
language sql stable set search_path = '' set enable_seqscan = off set jit = off as $$
  select coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'kind', a.kind, 'type', a.type, 'name', a.name, 'alt', a.alt,
      'bytes', a.bytes, 'width', a.width, 'height', a.height, 'preview', a.preview, 'place', a.place, 'state', a.state)
    || case when a.refused is null then '{}' else jsonb_build_object('refused', a.refused) end
    order by a.place, a.id), '[]')
  from public.gre_chat_attachments a where a.id = any (p_ids)
$$;

-- Return true if the actor began the file.
create function gre.is_author(p_file public.gre_chat_attachments, p_actor gre.actor) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(p_file.by = 'player' and p_actor.role = 'player' and p_file.player_id = p_actor.player_id
    or p_file.by = 'staff' and p_actor.role in ('staff', 'admin') and p_file.staff_id = p_actor.staff_id, false)
$$;

-- Return true if the actor may know of the file.
create function gre.may_see(p_file public.gre_chat_attachments, p_actor gre.actor) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(p_actor.role = 'service' or gre.is_author(p_file, p_actor)
    or p_file.message_id is not null
      and (p_actor.role in ('staff', 'admin')
        or p_actor.role = 'player' and p_file.player_id = p_actor.player_id), false)
$$;

-- Return true if the actor may fetch an object of the file: original, view or thumb. The original of a picture can say
-- where it was taken, so it is for its author only.
create function gre.may_fetch(p_file public.gre_chat_attachments, p_actor gre.actor, p_variant text) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(p_file.state in ('stored', 'ready', 'refused') and gre.may_see(p_file, p_actor) and case
    when p_variant = 'original' then p_actor.role = 'service' or gre.is_author(p_file, p_actor)
      or p_file.state = 'ready' and p_file.kind = 'file'
    else p_file.state = 'ready' and p_file.kind = 'image' end, false)
$$;

-- Binding -------------------------------------------------------------------------------------------------

-- Return the text of a message that has files only. A constant in English, for portals that show no files.
create function gre.files_text(p_ids uuid[]) returns text
language sql stable set search_path = '' set enable_seqscan = off set jit = off as $$
  select case when coalesce(bool_and(a.kind = 'image'), false)
      then case when cardinality(p_ids) = 1 then '📷 Photo' else '📷 ' || cardinality(p_ids) || ' photos' end
    when cardinality(p_ids) = 1 then '📎 File' else '📎 ' || cardinality(p_ids) || ' files' end
  from public.gre_chat_attachments a where a.id = any (p_ids)
$$;

create function gre.is_files_text(p_text text) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select p_text ~ '^(📷 Photo|📷 [2-5] photos|📎 File|📎 [2-5] files)$'
$$;

create function gre.messages_files_text() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  new.message := gre.files_text(new.attachment_ids);
  return new;
end $$;
create trigger gre_3_files_text before insert on public.gre_chat_messages
  for each row when (new.message = '') execute function gre.messages_files_text();

-- Bind the files of a message that was inserted: the transaction holds the session's lock. Whose they are is checked
-- before any lock. A worker that has locked one of them is waited for.
create function gre.messages_bind_files() returns trigger
language plpgsql security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_file public.gre_chat_attachments;
  v_found integer := 0;
begin
  if (select count(*) from public.gre_chat_attachments a
      where a.id = any (new.attachment_ids) and a.player_id = new.player_id and a.by = new.sender
        and (a.by = 'player' or a.staff_id = new.sender_id)) < cardinality(new.attachment_ids) then
    perform gre.raise_http(404, 'attachment_not_found', 'there is no such file');
  end if;
  for v_file in
    select * from public.gre_chat_attachments a where a.id = any (new.attachment_ids) order by a.id for update
  loop
    v_found := v_found + 1;
    if v_file.message_id is not null then
      perform gre.raise_http(409, 'attachment_used', 'the file was sent');
    elsif v_file.state = 'awaited' then
      perform gre.raise_http(409, 'attachment_not_stored', 'the file was not uploaded');
    elsif v_file.state = 'refused' then
      perform gre.raise_http(409, 'attachment_refused', 'the file was refused',
                             jsonb_build_object('refused', v_file.refused)::text);
    elsif v_file.state = 'gone' then
      perform gre.raise_http(409, 'attachment_gone', 'the file was deleted');
    end if;
  end loop;
  if v_found < cardinality(new.attachment_ids) then -- deleted meanwhile
    perform gre.raise_http(409, 'attachment_gone', 'the file was deleted');
  end if;
  update public.gre_chat_attachments a set message_id = new.id, session_id = new.session_id, place = x.n - 1
  from unnest(new.attachment_ids) with ordinality x (id, n) where a.id = x.id;
  return null;
end $$;
create trigger gre_5_bind after insert on public.gre_chat_messages
  for each row when (new.attachment_ids <> '{}') execute function gre.messages_bind_files();

-- Return {"attachments": [A with "message_id" and "rev"]}: the files of a session that changed after this rev, or with
-- p_after null after p_epoch. The first 100, and "files_more": their rev, if there are more; {} if there are none.
create function gre.changed_attachments(p_session uuid, p_after bigint, p_epoch timestamptz) returns jsonb
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_changed jsonb;
  v_rev bigint;
begin
  select jsonb_agg((gre.attachments_json(array[x.id]) -> 0)
                     || jsonb_build_object('message_id', x.message_id, 'rev', x.rev) order by x.rev, x.place),
    max(x.rev) into v_changed, v_rev
  from (select a.id, a.message_id, a.rev, a.place from public.gre_chat_attachments a
        where a.session_id = p_session and a.rev > coalesce(p_after, 0)
          and (p_after is not null or a.changed_at > p_epoch)
        order by a.rev fetch first 100 rows with ties) x;
  return case when v_changed is null then '{}' else jsonb_build_object('attachments', v_changed) end
    || case when exists (select from public.gre_chat_attachments a where a.session_id = p_session and a.rev > v_rev)
       then jsonb_build_object('files_more', v_rev) else '{}' end;
end $$;

-- Return {"attachments": [{"session_id", "attachment": A}]}: the files of these sessions that changed after p_from;
-- with p_player only those of this player. The last 500; {} if there are none. Row-level security applies for users.
create function gre.missed_attachments(p_sessions uuid[], p_from timestamptz, p_player bigint) returns jsonb
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_changed jsonb;
begin
  select jsonb_agg(jsonb_build_object('session_id', x.session_id, 'attachment', gre.attachments_json(array[x.id]) -> 0)
                   order by x.changed_at, x.id) into v_changed
  from (select a.id, a.session_id, a.changed_at from public.gre_chat_attachments a
        where a.session_id = any (p_sessions) and a.changed_at > p_from
          and (p_player is null or a.player_id = p_player)
        order by a.changed_at desc, a.id limit 500) x;
  return case when v_changed is null then '{}' else jsonb_build_object('attachments', v_changed) end;
end $$;

-- Deleting ------------------------------------------------------------------------------------------------

-- Delete files that the caller has locked: their ids stay taken, and their objects are deleted by a worker.
create function gre.delete_attachments(p_ids uuid[]) returns void
language plpgsql volatile set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set jit = off as $$
begin
  insert into gre.attachment_tombstones (id, who)
    select a.id, a.by || ':' || coalesce(a.staff_id, a.player_id::text)
    from public.gre_chat_attachments a where a.id = any (p_ids)
    on conflict (id) do nothing;
  insert into public.gre_storage_deletions (name, attachment_id)
    select gre.object_name(a.player_id, a.id, v.variant), a.id
    from public.gre_chat_attachments a
    cross join unnest(array['original', 'view', 'thumb']) v (variant)
    where a.id = any (p_ids) and (v.variant = 'original' or a.state <> 'awaited')
    on conflict (name) do nothing;
  delete from gre.media_jobs where attachment_id = any (p_ids);
  delete from public.gre_chat_attachments where id = any (p_ids);
end $$;

-- Delete the files of a message that is deleted: by retention, an erase or a back end.
create function gre.messages_delete_files() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  perform gre.delete_attachments(array(
    select a.id from public.gre_chat_attachments a
    where a.id = any (old.attachment_ids) and a.message_id = old.id order by a.id for update));
  return old;
end $$;
create trigger gre_delete_files before delete on public.gre_chat_messages
  for each row when (old.attachment_ids <> '{}') execute function gre.messages_delete_files();

-- For users -----------------------------------------------------------------------------------------------

create function public.gre_attachment_begin(
  p_id uuid, p_player_id bigint default null, p_session_id uuid default null, p_name text default null,
  p_type text default null, p_bytes bigint default null, p_alt text default null
) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_actor();
  v_by constant text := case v_actor.role when 'player' then 'player' else 'staff' end;
  v_now constant timestamptz := clock_timestamp();
  v_player bigint := coalesce(p_player_id, v_actor.player_id);
  v_who text;
  v_owner text;
  v_profile public.gre_chat_players;
  v_name text;
  v_type text;
  v_alt text;
  v_quota gre.attachment_quotas;
  v_file public.gre_chat_attachments;
  v_new boolean;
begin
  if v_actor.role = 'service' then
    perform gre.raise_http(403, 'act_as_required', 'only a person can send a file: name one in X-GRE-Act-As');
  elsif v_actor.role = 'player' and v_player <> v_actor.player_id then
    perform gre.raise_http(403, 'player_mismatch', 'player_id is not the caller''s');
  elsif v_player is null and p_session_id is null then
    perform gre.raise_http(400, 'target_missing', 'a session or a player is required');
  elsif p_id is null then
    perform gre.raise_http(400, 'attachment_invalid', 'an id is required');
  elsif octet_length(p_name) > 4000 or octet_length(p_alt) > 4000 or char_length(p_alt) > 1000 then
    perform gre.raise_http(400, 'attachment_invalid', 'name or alt is longer than 1000 characters');
  elsif p_bytes is null or p_bytes < 0 then
    perform gre.raise_http(400, 'attachment_invalid', 'bytes must be a whole number from 0');
  elsif p_bytes > gre.max_file_bytes() then
    perform gre.raise_http(413, 'file_too_large', 'the file is larger than 25 MB',
                           jsonb_build_object('max_bytes', gre.max_file_bytes())::text);
  elsif not gre.storage_on() then
    perform gre.raise_http(503, 'files_off', 'this chat takes no files');
  end if;
  if p_session_id is not null then
    select s.player_id into v_player from public.gre_chat_sessions s
    where s.id = p_session_id and s.player_id = coalesce(v_player, s.player_id);
    if not found then
      perform gre.raise_http(404, 'session_unknown', 'there is no such session');
    end if;
  end if;
  perform gre.check_player_id(v_player);
  if v_actor.role = 'player' then
    select * into v_profile from public.gre_chat_players where player_id = v_player;
    if not v_profile.chat_enabled then
      perform gre.check_chat_enabled(v_profile);
    end if;
  end if;
  v_name := gre.file_name(p_name);
  v_type := gre.upload_type(p_type);
  v_alt := case when gre.has_text(p_alt) then p_alt end;

  -- Before any lock. Whose it is is not said.
  select * into v_file from public.gre_chat_attachments where id = p_id;
  v_new := not found;
  if not v_new and (not gre.is_author(v_file, v_actor) or v_file.player_id <> v_player
      or v_file.announced_bytes <> p_bytes or v_file.object_type <> v_type or v_file.name <> v_name) then
    perform gre.raise_http(409, 'id_taken', 'this id is taken');
  end if;
  v_who := v_by || ':' || coalesce(v_actor.staff_id, v_player::text);
  if v_new then
    select t.who into v_owner from gre.attachment_tombstones t where t.id = p_id;
    if found and v_owner is distinct from v_who then
      perform gre.raise_http(409, 'id_taken', 'this id is taken');
    elsif found then
      perform gre.raise_http(409, 'attachment_gone', 'this file was deleted: announce it again with another id');
    end if;
  end if;

  -- The row's lock makes a person's calls wait for each other. Repeated calls have a limit by the minute: while Storage
  -- is away, a page that tries again must not use up its day.
  insert into gre.attachment_quotas as q (who, day, begins, bytes, minute, repeats)
  values (v_who, (v_now at time zone 'UTC')::date, v_new::integer, case when v_new then p_bytes else 0 end,
          case when not v_new then date_trunc('minute', v_now) end, (not v_new)::integer)
  on conflict (who, day) do update set begins = q.begins + excluded.begins, bytes = q.bytes + excluded.bytes,
    minute = coalesce(excluded.minute, q.minute),
    repeats = case when q.minute = coalesce(excluded.minute, q.minute) then q.repeats else 0 end + excluded.repeats
  returning * into v_quota;
  if not v_new and v_quota.repeats > 30 then
    perform gre.raise_http(429, 'too_fast', 'this file was announced too often, wait a moment', 'retry_after=' ||
      ceil(extract(epoch from v_quota.minute + interval '1 minute' - v_now)));
  elsif v_new and v_quota.begins > (case v_by when 'player' then 100 else 500 end)
    or v_new and v_by = 'player' and v_quota.bytes > 209715200 then
    perform gre.raise_http(429, 'file_quota', 'too many files today', 'retry_after=' || ceil(extract(epoch from
      (v_quota.day + 1)::timestamp at time zone 'UTC' - v_now)));
  end if;
  if v_new then
    if (select count(*) from public.gre_chat_attachments a where a.player_id = v_player and a.message_id is null
        and a.by = v_by and a.staff_id is not distinct from v_actor.staff_id and a.state <> 'gone') >= 20 then
      perform gre.raise_http(429, 'too_many_files', 'too many files that are not sent: send or delete some first');
    end if;
    insert into public.gre_chat_attachments
      (id, player_id, by, staff_id, name, alt, kind, type, bytes, announced_bytes, object_type)
    values (p_id, v_player, v_by, v_actor.staff_id, v_name, v_alt,
            case when v_type like 'image/%' then 'image' else 'file' end, v_type, p_bytes, p_bytes, v_type)
    on conflict (id) do nothing
    returning * into v_file;
    if not found then -- meanwhile
      perform gre.raise_http(409, 'id_taken', 'this id is taken');
    end if;
  elsif p_alt is not null and v_alt is distinct from v_file.alt then -- written or cleared while the bytes were uploaded
    update public.gre_chat_attachments set alt = v_alt where id = p_id and message_id is null;
  end if;
  return gre.attachments_json(array[p_id]) -> 0
    || jsonb_build_object('object', gre.object_name(v_player, p_id, 'original'), 'object_type', v_file.object_type);
end $$;
comment on function public.gre_attachment_begin is
  'Announces a file of at most 25 MB that the caller uploads to bucket gre-chat afterwards: A with "object" (the '
  'name to '
  'upload it as) and "object_type" (the type to upload it with: that of p_type if the bucket takes it, else '
  'application/octet-stream). Staff name a session or a player. With the same arguments the call can be repeated; '
  'another p_alt replaces the one of a file that is not sent, an empty one clears it, null keeps it. At most '
  '20 files of a player that are not sent, and 100 and 200 MB a day; 500 a day of a staff member. '
  'Calls for a file that is announced do not count there: 30 a minute (429 too_fast). 503 files_off: the '
  'project has no Storage.';

-- Return the file with this id if the caller may know of it. Otherwise raise 404, whether it exists or not.
create function gre.find_attachment(p_id uuid, p_actor gre.actor) returns public.gre_chat_attachments
language plpgsql stable set search_path = '' as $$
declare
  v_file public.gre_chat_attachments;
begin
  select * into v_file from public.gre_chat_attachments where id = p_id;
  if v_file.id is null or not gre.may_see(v_file, p_actor) then
    perform gre.raise_http(404, 'attachment_not_found', 'there is no such file');
  end if;
  return v_file;
end $$;

create function public.gre_attachment_get(p_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_file constant public.gre_chat_attachments := gre.find_attachment(p_id, gre.require_actor());
begin
  return gre.attachments_json(array[v_file.id]) -> 0
    || jsonb_build_object('player_id', v_file.player_id, 'session_id', v_file.session_id,
                          'message_id', v_file.message_id);
end $$;
comment on function public.gre_attachment_get is
  'Returns a file that the caller began or that was sent in a conversation that the caller can read: A = {"id", '
  '"kind": '
  'image | file, "type", "name", "alt", "bytes", "width", "height", "preview", "place", "state", "refused"?} with '
  '"player_id", "session_id" and "message_id".';

create function public.gre_attachment_drop(p_id uuid) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_actor();
  v_file public.gre_chat_attachments := gre.find_attachment(p_id, v_actor);
begin
  -- Who knows of a file that another began knows it from a message.
  select * into v_file from public.gre_chat_attachments where id = p_id for update;
  if not found then
    perform gre.raise_http(404, 'attachment_not_found', 'there is no such file');
  elsif v_file.message_id is not null then
    perform gre.raise_http(409, 'attachment_used', 'the file was sent');
  end if;
  perform gre.delete_attachments(array[p_id]);
  return jsonb_build_object('id', p_id);
end $$;
comment on function public.gre_attachment_drop is
  'Deletes a file of the caller that was not sent: {"id"}. A worker deletes its bytes. 409 attachment_used if it was '
  'sent.';

create function public.gre_attachment_names(p_ids uuid[], p_variant text)
returns table (id uuid, object text, name text)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_actor constant gre.actor := gre.require_actor();
begin
  if p_variant is null or p_variant not in ('thumb', 'view', 'file') then
    perform gre.raise_http(400, 'variant_unknown', 'variant must be thumb, view or file');
  elsif p_ids is null or cardinality(p_ids) > 100 then
    perform gre.raise_http(400, 'ids_invalid', 'ids must be at most 100 ids of files');
  end if;
  return query
    select a.id, gre.object_name(a.player_id, a.id, v.variant),
      case v.variant when 'original' then a.name else gre.view_name(a.name) end
    from public.gre_chat_attachments a
    cross join lateral (
      -- Where the original is not for the caller, the file of a picture is its view.
      select case when p_variant <> 'file' then p_variant
        when gre.may_fetch(a, v_actor, 'original') then 'original' else 'view' end as variant) v
    where a.id = any (p_ids) and gre.may_fetch(a, v_actor, v.variant);
end $$;
comment on function public.gre_attachment_names is
  'Returns the names of those objects that the caller may fetch: rows of id, object (in bucket gre-chat) and name '
  '(to save '
  'it by). p_variant: thumb and view of pictures, or file. At most 100 ids; what is missing or not for the caller is '
  'left '
  'out.';

revoke execute on function gre.max_file_bytes, gre.file_types, gre.upload_type, gre.file_name, gre.view_name,
  gre.storage_on,
  gre.object_name, gre.attachments_json, gre.files_text, gre.is_files_text, gre.messages_files_text,
  gre.messages_bind_files, gre.missed_attachments, gre.changed_attachments, gre.messages_delete_files,
  gre.is_author, gre.may_see, gre.may_fetch, gre.delete_attachments,
  gre.find_attachment from public;
revoke execute on function public.gre_attachment_begin, public.gre_attachment_get, public.gre_attachment_drop,
  public.gre_attachment_names from public, anon, authenticated, service_role;
grant execute on function gre.attachments_json, gre.missed_attachments to authenticated, service_role;
grant execute on function public.gre_attachment_begin, public.gre_attachment_get, public.gre_attachment_drop,
  public.gre_attachment_names to authenticated, service_role;
