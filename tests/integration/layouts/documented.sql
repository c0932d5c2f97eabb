-- The layout that the portals' documents show: sender player|gre, open policies, a view for everyone, and
-- players with several sessions left open.
create table public.gre_chat_sessions (
  id uuid primary key default gen_random_uuid(),
  player_id integer not null,
  player_name varchar(120) not null,
  status varchar(20) not null default 'active' check (status in ('active', 'closed', 'pending', 'waiting')),
  assigned_staff_id uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  favourite_table text not null default 'none'
);
create table public.gre_chat_messages (
  id uuid primary key default gen_random_uuid(),
  session_id uuid references public.gre_chat_sessions (id) on delete cascade,
  player_id integer not null,
  player_name text,
  message text not null check (char_length(message) <= 2000),
  sender text not null check (sender in ('player', 'gre')),
  sender_name text,
  "timestamp" timestamptz default now(),
  status text default 'sent' check (status in ('sent', 'delivered', 'read', 'unread')),
  created_at timestamptz default now()
);
alter table public.gre_chat_sessions enable row level security;
alter table public.gre_chat_messages enable row level security;
create policy "Allow all" on public.gre_chat_sessions for all using (true) with check (true);
create policy "Allow all" on public.gre_chat_messages for all using (true) with check (true);
create policy "gre only" on public.gre_chat_messages for select to anon using (sender = 'gre');
grant all on public.gre_chat_sessions, public.gre_chat_messages to anon, authenticated, service_role;
grant select (message) on public.gre_chat_messages to public;
create view public.recent_messages as select id, message, sender, session_id from public.gre_chat_messages;
create view public.recent_gre with (security_invoker = true) as select * from public.recent_messages where sender <> 'player';
grant select on public.recent_messages to authenticated;
comment on view public.recent_messages is 'for the lobby screen';

insert into public.gre_chat_sessions (id, player_id, player_name, status, created_at, updated_at, favourite_table) values
  ('00000000-0000-4000-8000-000000000001', 29, 'Asha', 'active', '2025-01-01 10:00+00', '2025-01-01 10:00+00', 'four'),
  ('00000000-0000-4000-8000-000000000002', 29, 'Asha', 'waiting', '2025-02-01 10:00+00', '2025-02-01 10:00+00', 'five'),
  ('00000000-0000-4000-8000-000000000003', 29, 'Asha', 'closed', '2025-03-01 10:00+00', '2025-03-01 10:00+00', 'none'),
  ('00000000-0000-4000-8000-000000000004', 30, 'Bela', 'pending', '2025-01-05 10:00+00', '2025-01-05 10:00+00', 'none'),
  ('00000000-0000-4000-8000-000000000005', 31, 'Caro', 'active', '2025-01-05 10:00+00', null, 'none'),
  ('00000000-0000-4000-8000-000000000006', 31, 'Caro', 'active', '2025-01-06 10:00+00', null, 'none');
insert into public.gre_chat_messages (id, session_id, player_id, player_name, message, sender, sender_name, "timestamp", status, created_at) values
  ('10000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-000000000001', 29, 'Asha', 'third', 'player', 'Asha', null, 'unread', '2025-01-01 10:03+00'),
  ('10000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 29, 'Asha', 'second', 'gre', 'Greta', '2025-01-01 10:02+00', 'delivered', '2025-01-01 10:02+00'),
  ('10000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000001', 29, 'Asha', 'first', 'player', 'Asha', '2025-01-01 10:01+00', 'read', '2025-01-01 10:01+00'),
  ('10000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-000000000002', 29, 'Asha', 'same time, by id: second', 'player', 'Asha', null, null, '2025-02-01 10:00+00'),
  ('10000000-0000-4000-8000-000000000004', '00000000-0000-4000-8000-000000000002', 29, 'Asha', 'same time, by id: first', 'player', 'Asha', null, 'sent', '2025-02-01 10:00+00'),
  -- Newest by what was written last, although session 6 was opened later.
  ('10000000-0000-4000-8000-000000000006', '00000000-0000-4000-8000-000000000005', 31, 'Caro', 'still here', 'player', 'Caro', null, 'sent', '2025-01-09 10:00+00'),
  -- Never had a session.
  ('10000000-0000-4000-8000-000000000007', null, 29, 'Asha', 'joins the open one', 'player', null, null, 'sent', '2025-01-15 10:00+00'),
  ('10000000-0000-4000-8000-000000000008', null, 32, 'Dina', 'long ago', 'player', null, null, 'sent', '2024-01-01 10:00+00'),
  ('10000000-0000-4000-8000-000000000009', null, 33, 'Emil', 'just now', 'player', null, null, 'sent', now() - interval '1 hour'),
  ('10000000-0000-4000-8000-000000000010', null, 33, 'Emil', repeat('x', 2000), 'gre', null, null, 'sent', now() - interval '30 minutes');
