-- Notes: what staff write about a session for each other. They are in a table of their own, which nothing that carries
-- messages reads, so no note can reach a player.
-- Depends on gre_foundation, gre_tables and gre_messages (gre.staff_name).
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
comment on table public.gre_chat_notes is 'Private notes of staff. Never sent to players.';
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

-- Add a note of a staff member to a session, whose row the caller has locked. Raises 400 and 403.
create function gre.add_note(p_session uuid, p_staff_id text, p_text text) returns public.gre_chat_notes
language plpgsql volatile set search_path = '' as $$
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
  insert into public.gre_chat_notes (session_id, n, after_seq, staff_id, staff_name, text)
  values (p_session,
    (select coalesce(max(x.n), 0) + 1 from public.gre_chat_notes x where x.session_id = p_session),
    (select coalesce(max(m.seq), 0) from public.gre_chat_messages m where m.session_id = p_session),
    p_staff_id, coalesce(gre.staff_name(p_staff_id, null), p_staff_id), p_text)
  returning * into v_note;
  return v_note;
end $$;

revoke execute on function gre.add_note from public;
