-- Tables of the chat: sessions, messages, presence, pushes, players, staff, settings.
-- The tables of the outbox are in gre_outbox, those of workers in gre_operations.
set local lock_timeout = '300ms';

-- People --------------------------------------------------------------------------------------------------

create table if not exists public.gre_chat_players (
  player_id bigint primary key,
  user_id uuid unique,
  display_name text,
  chat_enabled boolean not null default true,
  updated_at timestamptz not null default now()
);
alter table public.gre_chat_players
  add constraint gre_chat_players_id_known check (player_id between 1 and 9007199254740991) not valid;
comment on table public.gre_chat_players is 'Profiles of players. A player without a row may chat.';
comment on column public.gre_chat_players.player_id is 'The player''s id, 1 to 9007199254740991.';
comment on column public.gre_chat_players.user_id is
  'The Supabase Auth user who is this player, where tokens carry no claims (gre_link_user).';
comment on column public.gre_chat_players.display_name is 'The stored name; it wins over what a portal sends.';
comment on column public.gre_chat_players.chat_enabled is
  'False turns the player''s chat off: reading goes on, sending is refused (chat_disabled).';
comment on column public.gre_chat_players.updated_at is 'When the row changed last.';

create table if not exists public.gre_staff (
  staff_id text primary key,
  user_id uuid unique,
  display_name text,
  role text not null default 'staff' constraint gre_staff_role_check check (role in ('staff', 'admin')),
  active boolean not null default true,
  updated_at timestamptz not null default now()
);
create index gre_staff_name_key on public.gre_staff (gre.name_key(display_name)) where active;
comment on table public.gre_staff is 'Guest relations staff.';
comment on column public.gre_staff.staff_id is 'The staff member''s id, at most 128 characters.';
comment on column public.gre_staff.user_id is 'The Supabase Auth user who is this staff member (gre_link_user).';
comment on column public.gre_staff.display_name is 'The name on the staff member''s messages.';
comment on column public.gre_staff.role is 'staff or admin.';
comment on column public.gre_staff.active is 'False overrides every claim of a token.';
comment on column public.gre_staff.updated_at is 'Time of the last change.';

alter table public.gre_chat_players enable row level security;
alter table public.gre_staff enable row level security;
revoke all on public.gre_chat_players, public.gre_staff from public, anon, authenticated;

-- The chat ------------------------------------------------------------------------------------------------
-- Nobody may read or write a new table before gre_access creates the policies.
--
-- On a live project these tables can exist. Then the statements below create empty models of them in schema gre_model,
-- and gre.adopt(), which gre_messages calls, gives the existing tables the columns, rules and indexes of the models.
select gre.adopt_choose_schema();

create table gre_chat_sessions (
  id uuid primary key default gen_random_uuid(),
  player_id bigint not null,
  player_name text,
  status text not null default 'active',
  assigned_staff_id text,
  last_seq bigint not null default 0,
  rev bigint not null default 0,
  last_message_at timestamptz,
  unread_by_staff integer not null default 0,
  unread_by_player integer not null default 0,
  staff_read_seq bigint not null default 0,
  staff_read_at timestamptz,
  player_read_seq bigint not null default 0,
  player_read_at timestamptz,
  waiting_since timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  closed_at timestamptz,
  changed_xid xid8,
  constraint gre_chat_sessions_status_known check (status in ('active', 'closed', 'pending', 'waiting')),
  constraint gre_chat_sessions_player_positive check (player_id > 0)
);
create unique index gre_chat_sessions_one_open on gre_chat_sessions (player_id) where status <> 'closed';
create index gre_chat_sessions_player on gre_chat_sessions (player_id, created_at desc);
create index gre_chat_sessions_updated on gre_chat_sessions (updated_at);
create index gre_chat_sessions_recent on gre_chat_sessions (status, last_message_at desc nulls last, id);
create index gre_chat_sessions_changed on gre_chat_sessions (changed_xid) where changed_xid is not null;
-- Lists are in the order of the last message, else of the creation. Not coalesce(): it counts as leaky, so under
-- row-level security the index could not be used to continue at a cursor.
create index gre_chat_sessions_latest on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc);
create index gre_chat_sessions_latest_open on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status <> 'closed';
-- The queue: an open session is in no other index of the queue than the one of waiting sessions, since it is written
-- often. Open sessions, some thousands at most, are filtered in list order; closed ones are written once.
create index gre_chat_sessions_waiting on gre_chat_sessions (waiting_since, id)
  where status <> 'closed' and waiting_since is not null;
create index gre_chat_sessions_closed_latest on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status = 'closed';
create index gre_chat_sessions_closed_assigned on gre_chat_sessions
  (assigned_staff_id, (case when last_message_at is null then created_at else last_message_at end) desc, id desc)
  where status = 'closed';
create index gre_chat_sessions_closed_name on gre_chat_sessions (lower(player_name) text_pattern_ops)
  where status = 'closed';
comment on table gre_chat_sessions is 'Conversations. A player has at most one that is open.';
comment on column gre_chat_sessions.id is 'The session''s id.';
comment on column gre_chat_sessions.player_id is 'Whose conversation it is. Written once.';
comment on column gre_chat_sessions.player_name is
  'The player''s stored name, or the one with which the session began.';
comment on column gre_chat_sessions.status is
  'active or closed; legacy values such as waiting count as open. An assigned session stays active.';
comment on column gre_chat_sessions.assigned_staff_id is 'To whom of the staff it is assigned; null to nobody.';
comment on column gre_chat_sessions.last_seq is
  'seq of its last message, 0 while there is none. Belongs to the server.';
comment on column gre_chat_sessions.rev is 'Grows with every change of the session. Belongs to the server.';
comment on column gre_chat_sessions.last_message_at is 'Time of its last message. Belongs to the server.';
comment on column gre_chat_sessions.unread_by_staff is
  'The player''s messages that staff have not marked as read. Belongs to the server.';
comment on column gre_chat_sessions.unread_by_player is
  'Staff''s and system messages that the player has not marked as read. Belongs to the server.';
comment on column gre_chat_sessions.staff_read_seq is
  'Up to which seq staff have read the player''s messages. Belongs to the server: call gre_mark_read.';
comment on column gre_chat_sessions.staff_read_at is 'When staff moved that mark. Belongs to the server.';
comment on column gre_chat_sessions.player_read_seq is
  'Up to which seq the player has read staff''s messages. Belongs to the server: call gre_mark_read.';
comment on column gre_chat_sessions.player_read_at is 'When the player moved its mark. Belongs to the server.';
comment on column gre_chat_sessions.waiting_since is
  'Time of the player''s first message since staff''s last one; null when answered or closed. Belongs to the server.';
comment on column gre_chat_sessions.created_at is 'When it was opened. Belongs to the server.';
comment on column gre_chat_sessions.updated_at is 'When it changed last. Belongs to the server.';
comment on column gre_chat_sessions.closed_at is 'When it was closed; null while it is open. Belongs to the server.';
comment on column gre_chat_sessions.changed_xid is
  'Transaction of the last change: a reader finds what was committed since its last read. Belongs to the server.';

create table gre_chat_messages (
  id uuid primary key default gen_random_uuid(),
  -- The defaults of session_id, seq and player_id mean "not given" (gre.messages_check). With them, types generated
  -- from the catalog require on insert what a portal must give, and no more.
  session_id uuid not null default '00000000-0000-0000-0000-000000000000'
    constraint gre_chat_messages_session_fk references gre_chat_sessions (id) on delete cascade,
  seq bigint not null default 0,
  player_id bigint not null default 0,
  player_name text,
  sender text not null,
  sender_id text,
  sender_name text,
  message text not null,
  status text not null default 'sent',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  "timestamp" timestamptz default now(),
  constraint gre_chat_messages_seq_unique unique (session_id, seq),
  constraint gre_chat_messages_sender_known check (sender in ('player', 'staff', 'system')),
  constraint gre_chat_messages_status_known check (status in ('sent', 'delivered', 'read')),
  constraint gre_chat_messages_text_size check (char_length(message) between 1 and 4000),
  constraint gre_chat_messages_name_size check (char_length(sender_name) <= 80),
  constraint gre_chat_messages_metadata_size check (octet_length(metadata::text) <= 4096)
);
create index gre_chat_messages_player on gre_chat_messages (player_id, created_at, id);
-- Replay and reconcile read the messages of all sessions by time.
create index gre_chat_messages_created on gre_chat_messages (created_at, id);
comment on table gre_chat_messages is 'Messages. Portals insert; nobody changes or deletes what was sent.';
comment on column gre_chat_messages.id is
  'Chosen by the client (a UUID, once for each message: makes a second try safe) or by the database.';
comment on column gre_chat_messages.session_id is
  'Its session. Left out, it is the player''s open session, which is opened if there is none.';
comment on column gre_chat_messages.seq is
  '1, 2, 3 ... in its session without gaps, in the order of commits. Belongs to the server.';
comment on column gre_chat_messages.player_id is
  'Whose conversation it is; a player''s own, or the session''s, by default.';
comment on column gre_chat_messages.player_name is 'The player''s name when it was sent. The stored name wins.';
comment on column gre_chat_messages.sender is
  'player, staff or system; gre and gre_staff are taken for staff. Must be what the caller is; system is for the '
  'service key.';
comment on column gre_chat_messages.sender_id is 'Who wrote it: the player''s id or the staff id. From the token.';
comment on column gre_chat_messages.sender_name is 'Shown as its author, at most 80 characters. The stored name wins.';
comment on column gre_chat_messages.message is 'The text: 1 to 4000 characters, of which one can be seen.';
comment on column gre_chat_messages.status is
  'sent, delivered or read (the other side has marked it). Belongs to the server.';
comment on column gre_chat_messages.metadata is 'What a portal keeps with it: JSON of at most 4 KB. Never relayed.';
comment on column gre_chat_messages.created_at is 'When the database took it. Belongs to the server.';
comment on column gre_chat_messages."timestamp" is
  'The same as created_at, unless the service key wrote another time (an import).';

create table gre_online_status (
  staff_id text primary key,
  display_name text,
  status text not null default 'offline',
  last_seen_at timestamptz default now(),
  updated_at timestamptz default now(),
  expires_at timestamptz,
  constraint gre_online_status_known check (status in ('online', 'away', 'offline'))
);
create index gre_online_status_expiring on gre_online_status (expires_at) where status <> 'offline';
comment on table gre_online_status is 'Presence of the staff, one row for each person.';
comment on column gre_online_status.staff_id is 'Whose status it is; staff write their own.';
comment on column gre_online_status.display_name is 'The name that is shown. The stored name wins.';
comment on column gre_online_status.status is 'online, away or offline.';
comment on column gre_online_status.last_seen_at is
  'When the status was last written: it holds for some minutes after that unless expires_at says until when.';
comment on column gre_online_status.updated_at is 'When the row changed last.';
comment on column gre_online_status.expires_at is
  'When the status becomes offline unless a heartbeat moves it; null never.';

create table push_notifications (
  id uuid primary key default gen_random_uuid(),
  delivery_id uuid constraint push_notifications_delivery_unique unique,
  message_id uuid,
  audience text,
  recipients text[],
  title text,
  body text,
  data jsonb default '{}',
  status text not null default 'queued',
  provider_id text,
  error text,
  created_at timestamptz default now(),
  sent_at timestamptz,
  constraint push_notifications_audience_known check (audience in ('staff', 'player')),
  constraint push_notifications_status_known
    check (status in ('queued', 'sent', 'failed', 'expired', 'no_recipients'))
);
create index push_notifications_message on push_notifications (message_id);
create index push_notifications_id_text on push_notifications ((id::text));
comment on table push_notifications is
  'Pushes: one row for each that the bridge sends. A row inserted as queued is sent.';
comment on column push_notifications.id is 'The push''s id.';
comment on column push_notifications.delivery_id is
  'The delivery that it was sent for; null for one that was queued here. Belongs to the server.';
comment on column push_notifications.message_id is 'The message that it tells of, if it tells of one.';
comment on column push_notifications.audience is 'staff or player.';
comment on column push_notifications.recipients is
  'OneSignal external ids, a list. For staff null means those on duty; for players it must be given.';
comment on column push_notifications.title is 'Its heading, at most 4,000 bytes.';
comment on column push_notifications.body is 'Its text, at most 16,000 bytes; the title where it is null.';
comment on column push_notifications.data is 'JSON for the app, at most 16 KB (OneSignal itself takes about 2 KB).';
comment on column push_notifications.status is 'queued, then sent, failed, expired or no_recipients.';
comment on column push_notifications.provider_id is 'OneSignal''s id of the notification.';
comment on column push_notifications.error is 'Why it failed.';
comment on column push_notifications.created_at is 'When it was queued or sent.';
comment on column push_notifications.sent_at is 'When OneSignal took it.';

alter table gre_chat_sessions enable row level security;
alter table gre_chat_messages enable row level security;
alter table gre_online_status enable row level security;
alter table push_notifications enable row level security;
set local search_path to default;

-- Settings ------------------------------------------------------------------------------------------------

create table gre.settings (
  single boolean primary key default true check (single),
  presence_lasts interval not null default '10 minutes' check (presence_lasts > interval '0'),
  player_external_id text not null default 'player_{player_id}' check (char_length(player_external_id) <= 200)
);
alter table gre.settings enable row level security;
comment on table gre.settings is 'One row: settings that an operator may change in the database.';
comment on column gre.settings.single is 'Keeps the table to one row.';
comment on column gre.settings.presence_lasts is
  'Time for which a status without expires_at holds after last_seen_at.';
comment on column gre.settings.player_external_id is
  'OneSignal''s external id of a player, as the relay that started last makes it (GRE_PUSH_PLAYER_EXTERNAL_ID).';
insert into gre.settings default values;
