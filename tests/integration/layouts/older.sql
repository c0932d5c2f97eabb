-- Older spellings: sender_type, ids and player numbers as text, an enum for the status, started_at and
-- ended_at, numbers for staff, several rows of presence a person, triggers and views of the project's own.
create type public.chat_status as enum ('open', 'in_progress', 'ended');
create type public.chat_party as enum ('player', 'gre', 'system');
create table public.profiles (id text primary key);
insert into public.profiles values ('29'), ('30');
create table public.gre_chat_sessions (
  id text primary key default gen_random_uuid()::text,
  player_id text not null references public.profiles (id),
  status public.chat_status not null default 'open',
  gre_id integer,
  started_at timestamp not null default now(),
  ended_at timestamp,
  unique (player_id, started_at)
);
create unique index one_chat on public.gre_chat_sessions (player_id) where status = 'in_progress';
create table public.gre_chat_messages (
  id text primary key default gen_random_uuid()::text,
  session_id text references public.gre_chat_sessions (id) deferrable initially deferred,
  player_id text,
  sender_type public.chat_party not null,
  gre_id integer,
  gre_name text,
  message text not null,
  metadata text,
  status text not null default 'new',
  created_at timestamp not null default now(),
  channel text not null
);
create table public.gre_online_status (
  id serial primary key,
  gre_id integer not null,
  gre_name text,
  is_online boolean not null default false,
  updated_at timestamp default now()
);
create table public.push_notifications (
  id bigint primary key,
  title text not null,
  message text not null,
  target_player_id text not null,
  status text not null default 'pending' check (status in ('pending', 'sent', 'failed')),
  created_at timestamp default now()
);
create table public.webhook_calls (what text, id text);
create function public.call_webhook() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into public.webhook_calls values (tg_table_name || ' ' || tg_op, new.id::text);
  return null;
end $$;
create trigger webhook after insert or update on public.gre_chat_messages for each row execute function public.call_webhook();
create trigger webhook after insert or update on public.gre_chat_sessions for each row execute function public.call_webhook();
create trigger webhook after insert or update on public.push_notifications for each row execute function public.call_webhook();
create trigger read_webhook after update of status on public.gre_chat_messages
  for each row when (old.status is distinct from new.status) execute function public.call_webhook();
alter table public.gre_chat_sessions disable trigger webhook;
create view public.chat_lines as
  select m.id, m.player_id, s.status, m.message from public.gre_chat_messages m join public.gre_chat_sessions s on s.id = m.session_id;
create view public.chat_counts as select player_id, count(*) as lines from public.chat_lines group by player_id;
revoke all on public.chat_counts from anon, authenticated;
grant select on public.chat_counts to authenticated;
create policy own on public.gre_chat_messages for select to authenticated using (player_id = '29');
alter table public.gre_chat_messages enable row level security;

alter table public.gre_chat_sessions disable trigger user;
alter table public.gre_chat_messages disable trigger user;
alter table public.push_notifications disable trigger user;
insert into public.gre_chat_sessions (id, player_id, status, gre_id, started_at, ended_at) values
  ('00000000-0000-4000-8000-00000000000a', '29', 'ended', 7, '2025-01-01 10:00', '2025-01-01 11:00'),
  ('00000000-0000-4000-8000-00000000000b', '29', 'open', null, '2025-01-02 10:00', null),
  ('00000000-0000-4000-8000-00000000000c', '30', 'in_progress', 8, '2025-01-03 10:00', null);
insert into public.gre_chat_messages (id, session_id, player_id, sender_type, gre_id, gre_name, message, metadata, status, created_at, channel) values
  ('10000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000a', '29', 'player', null, null, 'a', null, 'new', '2025-01-01 10:01', 'web'),
  ('10000000-0000-4000-8000-00000000000b', '00000000-0000-4000-8000-00000000000a', null, 'gre', 7, 'Greta', 'b', '{"k": 1}', 'seen', '2025-01-01 10:02', 'web'),
  ('10000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-00000000000b', '29', 'system', null, null, 'c', '', 'new', '2025-01-02 10:01', 'web'),
  ('10000000-0000-4000-8000-00000000000d', null, '30', 'player', null, null, 'd', null, 'new', '2025-01-03 10:01', 'app');
set constraints all immediate;
insert into public.gre_online_status (gre_id, gre_name, is_online, updated_at) values
  (7, 'Greta', true, '2025-01-01 10:00'), (7, 'Greta', false, '2025-01-01 12:00'), (8, 'Gita', true, '2025-01-01 12:00');
insert into public.push_notifications (id, title, message, target_player_id, status) values
  (41, 'Hi', 'waits', '29', 'pending'), (42, 'Hi', 'went', '29', 'sent');
alter table public.gre_chat_messages enable trigger user;
alter table public.push_notifications enable trigger user;
