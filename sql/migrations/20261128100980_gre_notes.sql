-- Notes: what staff write about a session for each other. They are in a table of their own, which nothing that carries
-- messages reads, so no note can reach a player.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages (gre.staff_name) and gre_outbox.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_chat_notes (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.gre_chat_sessions on delete cascade,
  n integer not null,
  after_seq bigint not null,
  staff_id text not null,
  staff_name text not null,
  text text not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint gre_chat_notes_n_unique unique (session_id, n),
  constraint gre_chat_notes_text_size check (char_length(text) between 1 and 4000)
);
-- Statistics contain samples of the values and outlive an erase.
alter table public.gre_chat_notes alter column text set statistics 0, alter column staff_name set statistics 0;
comment on table public.gre_chat_notes is
  'Private notes of staff. Never sent to players; a note raises rev of its session, which its player can read.';
comment on column public.gre_chat_notes.id is 'The note''s id.';
comment on column public.gre_chat_notes.session_id is 'The session.';
comment on column public.gre_chat_notes.n is 'Number in the session: 1, 2, 3 ...';
comment on column public.gre_chat_notes.after_seq is 'seq of the last message before the note; 0 before the first.';
comment on column public.gre_chat_notes.staff_id is 'The author.';
comment on column public.gre_chat_notes.staff_name is 'The author''s name at the time of writing.';
comment on column public.gre_chat_notes.text is 'The text: 1 to 4000 characters, at least one of them visible.';
comment on column public.gre_chat_notes.created_at is 'Time of the insert.';
alter table public.gre_chat_notes enable row level security;
revoke all on public.gre_chat_notes from public, anon, authenticated, service_role;

create function gre.note_json(p_note public.gre_chat_notes) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('id', p_note.id, 'session_id', p_note.session_id, 'n', p_note.n,
    'after_seq', p_note.after_seq, 'staff_id', p_note.staff_id, 'staff_name', p_note.staff_name, 'text', p_note.text,
    'created_at', gre.iso(p_note.created_at))
$$;

-- Add a note of a staff member to a session, whose row the caller has locked. Raises 400 and 403. The caller announces
-- the note afterwards: that locks a lane.
create function gre.add_note(p_session uuid, p_staff_id text, p_text text, p_id uuid default null)
returns public.gre_chat_notes
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_note public.gre_chat_notes;
begin
  if p_staff_id is null then
    perform gre.raise_http(403, 'act_as_required', 'only a person can write a note: name one in X-GRE-Act-As');
  elsif octet_length(p_text) > 16000 or char_length(p_text) > 4000 then
    perform gre.raise_http(400, 'note_too_long', 'note is longer than 4000 characters');
  elsif p_text is null or not gre.has_text(p_text) then
    perform gre.raise_http(400, 'note_empty', 'note is empty');
  end if;
  insert into public.gre_chat_notes (id, session_id, n, after_seq, staff_id, staff_name, text)
  values (coalesce(p_id, gen_random_uuid()), p_session,
    (select coalesce(max(x.n), 0) + 1 from public.gre_chat_notes x where x.session_id = p_session),
    (select coalesce(max(m.seq), 0) from public.gre_chat_messages m where m.session_id = p_session),
    p_staff_id, coalesce(gre.staff_name(p_staff_id, null), p_staff_id), p_text)
  returning * into v_note;
  -- The hub reads sessions whose rev has grown.
  update public.gre_chat_sessions set rev = rev + 1 where id = p_session;
  return v_note;
end $$;

-- Return the note with this id, which a repeated call adds again; null if there is none. Raises 409 if it is another.
-- The caller has locked the session's row.
create function gre.added_note(p_id uuid, p_session uuid, p_staff_id text, p_text text)
returns public.gre_chat_notes
language plpgsql volatile set search_path = '' as $$
declare
  v_note public.gre_chat_notes;
begin
  select * into v_note from public.gre_chat_notes where id = p_id;
  if found and row(v_note.session_id, v_note.staff_id, v_note.text)
    is distinct from row(p_session, p_staff_id, p_text) then
    perform gre.raise_http(409, 'id_conflict', 'this id is taken');
  end if;
  return v_note;
end $$;

-- Announce a note: to Pusher only, whose route sends it to channels of staff.
create function gre.announce_note(p_note public.gre_chat_notes) returns void
language plpgsql volatile set search_path = '' as $$
begin
  perform gre.enqueue_event(array['pusher'], p_note.session_id::text, 'note', jsonb_build_object('note_id', p_note.id));
  perform gre.notify_workers(array[p_note.session_id]);
end $$;

create function public.gre_add_note(p_session_id uuid, p_text text, p_id uuid default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v_note public.gre_chat_notes;
begin
  perform from public.gre_chat_sessions where id = p_session_id for no key update;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  v_note := gre.added_note(p_id, p_session_id, v_actor.staff_id, p_text);
  if v_note.id is not null then
    return jsonb_build_object('note', gre.note_json(v_note), 'duplicate', true);
  end if;
  v_note := gre.add_note(p_session_id, v_actor.staff_id, p_text, p_id);
  perform gre.announce_note(v_note);
  return jsonb_build_object('note', gre.note_json(v_note), 'duplicate', false);
end $$;
comment on function public.gre_add_note is
  'Adds a private note of the caller to a session: {"note": N, "duplicate": boolean}. With p_id the call can be '
  'repeated. For staff.';

create function public.gre_list_notes(
  p_session_id uuid, p_after_n integer default 0, p_limit integer default 200
) returns jsonb
language plpgsql stable security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 200), 1), 500);
begin
  perform gre.require_staff();
  if not exists (select from public.gre_chat_sessions where id = p_session_id) then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  return (
    select jsonb_build_object(
      'notes', coalesce(jsonb_agg(gre.note_json(s.note) order by s.n) filter (where s.fits), '[]'),
      'has_more', count(*) > count(*) filter (where s.fits))
    from (
      select x.note, x.n, row_number() over w <= v_limit
        and (row_number() over w = 1 or sum(octet_length((x.note).text) + 300) over w <= 1048576) as fits -- 1 MB
      from (select q as note, q.n from public.gre_chat_notes q
            where q.session_id = p_session_id and q.n > coalesce(p_after_n, 0) order by q.n limit v_limit + 1) x
      window w as (order by x.n)) s);
end $$;
comment on function public.gre_list_notes is
  'Returns a page of the private notes of a session, in order: {"notes": [N = {"id", "session_id", "n", "after_seq", '
  '"staff_id", "staff_name", "text", "created_at"}], "has_more"}. p_after_n: "n" of the last note of the page before. '
  'For staff.';

revoke execute on function gre.note_json, gre.add_note, gre.added_note, gre.announce_note from public;
revoke execute on function public.gre_add_note, public.gre_list_notes from public, anon, authenticated, service_role;
grant execute on function public.gre_add_note, public.gre_list_notes to authenticated, service_role;
