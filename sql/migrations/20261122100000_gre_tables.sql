-- The tables of the chat and of the outbox.
--
-- One path for a new project and for a live one: each table is created with its key alone where it is
-- missing, then gets the columns that it lacks.
set local lock_timeout = '5s';

create schema if not exists gre;
comment on schema gre is 'Helpers of gre-bridge. Not exposed over the API.';
revoke all on schema gre from public;
grant usage on schema gre to anon, authenticated, service_role;

-- Sessions -----------------------------------------------------------------------------------------------
create table if not exists public.gre_chat_sessions (
  id uuid primary key default gen_random_uuid()
);
alter table public.gre_chat_sessions
  add column if not exists player_id bigint,
  add column if not exists player_name text,
  add column if not exists status text,
  add column if not exists assigned_staff_id text,
  add column if not exists last_seq bigint,
  add column if not exists rev bigint,
  add column if not exists last_message_at timestamptz,
  add column if not exists unread_by_staff integer,
  add column if not exists unread_by_player integer,
  add column if not exists created_at timestamptz,
  add column if not exists updated_at timestamptz,
  add column if not exists closed_at timestamptz;

-- Messages -----------------------------------------------------------------------------------------------
create table if not exists public.gre_chat_messages (
  id uuid primary key default gen_random_uuid()
);
alter table public.gre_chat_messages
  add column if not exists session_id uuid,
  add column if not exists seq bigint,
  add column if not exists player_id bigint,
  add column if not exists player_name text,
  add column if not exists sender text,
  add column if not exists sender_id text,
  add column if not exists sender_name text,
  add column if not exists message text,
  add column if not exists status text,
  add column if not exists metadata jsonb,
  add column if not exists created_at timestamptz,
  add column if not exists "timestamp" timestamptz;

-- Who is on line -----------------------------------------------------------------------------------------
create table if not exists public.gre_online_status (
  staff_id text primary key
);
alter table public.gre_online_status
  add column if not exists display_name text,
  add column if not exists status text,
  add column if not exists last_seen_at timestamptz,
  add column if not exists updated_at timestamptz;

-- Pushes -------------------------------------------------------------------------------------------------
create table if not exists public.push_notifications (
  id uuid primary key default gen_random_uuid()
);
alter table public.push_notifications
  add column if not exists delivery_id uuid,
  add column if not exists message_id uuid,
  add column if not exists audience text,
  add column if not exists recipients text[],
  add column if not exists title text,
  add column if not exists body text,
  add column if not exists data jsonb,
  add column if not exists status text,
  add column if not exists provider_id text,
  add column if not exists error text,
  add column if not exists created_at timestamptz,
  add column if not exists sent_at timestamptz;

-- People -------------------------------------------------------------------------------------------------
create table if not exists public.gre_chat_players (
  player_id bigint primary key,
  user_id uuid unique,
  display_name text,
  chat_enabled boolean not null default true,
  updated_at timestamptz not null default now()
);
create table if not exists public.gre_staff (
  staff_id text primary key,
  user_id uuid unique,
  display_name text,
  role text not null default 'staff' constraint gre_staff_role_check check (role in ('staff', 'admin')),
  active boolean not null default true,
  updated_at timestamptz not null default now()
);

-- Defaults, keys and text rules --------------------------------------------------------------------------
alter table public.gre_chat_sessions
  alter column player_id set not null,
  alter column status set default 'active',
  alter column status set not null,
  alter column last_seq set default 0,
  alter column last_seq set not null,
  alter column rev set default 0,
  alter column rev set not null,
  alter column unread_by_staff set default 0,
  alter column unread_by_staff set not null,
  alter column unread_by_player set default 0,
  alter column unread_by_player set not null,
  alter column created_at set default now(),
  alter column created_at set not null,
  alter column updated_at set default now(),
  alter column updated_at set not null;
alter table public.gre_chat_sessions
  add constraint gre_chat_sessions_status_known check (status in ('active', 'closed', 'pending', 'waiting')) not valid,
  add constraint gre_chat_sessions_player_positive check (player_id > 0) not valid;
create unique index if not exists gre_chat_sessions_one_open
  on public.gre_chat_sessions (player_id) where status <> 'closed';
create index if not exists gre_chat_sessions_player on public.gre_chat_sessions (player_id, created_at desc);
create index if not exists gre_chat_sessions_updated on public.gre_chat_sessions (updated_at);
create index if not exists gre_chat_sessions_recent
  on public.gre_chat_sessions (status, last_message_at desc nulls last, id);

alter table public.gre_chat_messages
  alter column session_id set not null,
  alter column seq set not null,
  alter column player_id set not null,
  alter column sender set not null,
  alter column message set not null,
  alter column status set default 'sent',
  alter column status set not null,
  alter column metadata set default '{}',
  alter column metadata set not null,
  alter column created_at set default now(),
  alter column created_at set not null,
  alter column "timestamp" set default now();
alter table public.gre_chat_messages
  add constraint gre_chat_messages_session_fk foreign key (session_id)
    references public.gre_chat_sessions (id) on delete cascade,
  add constraint gre_chat_messages_seq_unique unique (session_id, seq),
  add constraint gre_chat_messages_sender_known check (sender in ('player', 'staff', 'system')) not valid,
  add constraint gre_chat_messages_status_known check (status in ('sent', 'delivered', 'read')) not valid,
  add constraint gre_chat_messages_text_size check (char_length(message) between 1 and 4000) not valid,
  add constraint gre_chat_messages_name_size check (char_length(sender_name) <= 80) not valid,
  add constraint gre_chat_messages_metadata_size check (octet_length(metadata::text) <= 4096) not valid;
create index if not exists gre_chat_messages_player on public.gre_chat_messages (player_id, created_at, id);

alter table public.gre_online_status
  alter column status set default 'offline',
  alter column status set not null,
  alter column last_seen_at set default now(),
  alter column updated_at set default now();
alter table public.gre_online_status
  add constraint gre_online_status_known check (status in ('online', 'away', 'offline')) not valid;

alter table public.push_notifications
  alter column status set default 'queued',
  alter column status set not null,
  alter column data set default '{}',
  alter column created_at set default now();
alter table public.push_notifications
  add constraint push_notifications_delivery_unique unique (delivery_id),
  add constraint push_notifications_audience_known check (audience in ('staff', 'player')) not valid,
  add constraint push_notifications_status_known
    check (status in ('queued', 'sent', 'failed', 'expired', 'no_recipients')) not valid;
create index if not exists push_notifications_message on public.push_notifications (message_id);

-- No one reads or writes before the policies of the last migration say who may.
alter table public.gre_chat_sessions enable row level security;
alter table public.gre_chat_messages enable row level security;
alter table public.gre_online_status enable row level security;
alter table public.push_notifications enable row level security;
alter table public.gre_chat_players enable row level security;
alter table public.gre_staff enable row level security;
revoke all on public.gre_chat_players, public.gre_staff from public, anon, authenticated;
