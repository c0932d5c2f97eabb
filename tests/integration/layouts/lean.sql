-- The leanest: no sessions at all, times without zone, a push table with a serial key, presence by gre_id.
create table public.gre_chat_messages (
  id uuid default gen_random_uuid(),
  player_id integer not null,
  message text,
  sender text default 'gre',
  "timestamp" timestamp default now(),
  is_read boolean default false
);
create table public.gre_online_status (
  gre_id text primary key,
  gre_name text not null,
  is_online boolean not null default false,
  last_seen timestamp
);
create table public.push_notifications (
  id serial primary key,
  title text not null,
  message text not null,
  target_player_id integer,
  sent_at timestamp,
  created_at timestamp default now()
);
insert into public.gre_chat_messages (id, player_id, message, sender, "timestamp", is_read) values
  ('10000000-0000-4000-8000-000000000002', 29, 'two', 'gre', '2025-08-05 17:08:14.171', true),
  ('10000000-0000-4000-8000-000000000001', 29, 'one', 'player', '2025-08-05 17:08:13', false),
  -- For want of a key: the same id again, none, and no text.
  ('10000000-0000-4000-8000-000000000001', 29, 'three', 'player', '2025-08-05 17:08:15', false),
  (null, 30, null, 'player', '2025-08-05 17:08:16', false),
  ('10000000-0000-4000-8000-000000000004', 30, repeat('long ', 1000), 'player', null, false);
insert into public.gre_online_status values ('g1', 'Greta', true, '2025-08-05 17:00'), ('g2', 'Gita', false, null);
insert into public.push_notifications (title, message, target_player_id, sent_at) values
  ('Hello', 'Your table is ready', 29, '2025-08-05 17:00'), ('Hello', 'all of you', null, null);
