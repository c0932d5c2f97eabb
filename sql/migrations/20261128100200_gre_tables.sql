-- Tables of the chat: players, staff, sessions, messages, presence, pushes, settings. gre_outbox defines the tables of
-- the outbox, gre_operations the table of workers.
-- Depends on gre_foundation (gre.name_key and gre.push_keys, in indexes) and gre_adoption (gre.adopt_choose_schema).
set local lock_timeout = '300ms';

-- People --------------------------------------------------------------------------------------------------

create table if not exists public.gre_chat_players (
  player_id bigint primary key,
  user_id uuid unique,
  display_name text,
  chat_enabled boolean not null default true,
  blocked_until timestamptz,
  updated_at timestamptz not null default now()
);
alter table public.gre_chat_players
  add constraint gre_chat_players_player_id_range check (player_id between 1 and 9007199254740991) not valid;
comment on table public.gre_chat_players is 'Profiles of players. A player without a row can chat.';
comment on column public.gre_chat_players.player_id is 'The player''s id, 1 to 9007199254740991.';
comment on column public.gre_chat_players.user_id is
  'The player''s Supabase Auth user, for tokens without gre-bridge''s claims (gre_link_user).';
comment on column public.gre_chat_players.display_name is
  'The player''s name. It replaces the name that a portal sends.';
comment on column public.gre_chat_players.chat_enabled is
  'False: the player can read but not send (error chat_disabled), until blocked_until if that is given.';
comment on column public.gre_chat_players.blocked_until is
  'Time at which chat_enabled = false ends by itself; null: not by itself.';
comment on column public.gre_chat_players.updated_at is 'Time of the last change.';

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
comment on column public.gre_staff.user_id is
  'The staff member''s Supabase Auth user, for tokens without gre-bridge''s claims (gre_link_user).';
comment on column public.gre_staff.display_name is 'The name on the staff member''s messages.';
comment on column public.gre_staff.role is 'staff or admin.';
comment on column public.gre_staff.active is 'False: the staff member has no access, whatever the token claims.';
comment on column public.gre_staff.updated_at is 'Time of the last change.';

alter table public.gre_chat_players enable row level security;
alter table public.gre_staff enable row level security;
revoke all on public.gre_chat_players, public.gre_staff from public, anon, authenticated;

-- The chat ------------------------------------------------------------------------------------------------
-- Row-level security without policies closes new tables until gre_access creates the policies.
--
-- In a live project these tables can exist already. Then the statements below create empty model tables in schema
-- gre_model, and gre.adopt(), called by gre_messages, gives the existing tables the columns, constraints and indexes of
-- the models.
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
  closed_by text,
  cycle integer not null default 1,
  rating smallint,
  changed_xid xid8,
  constraint gre_chat_sessions_status_check check (status in ('active', 'closed', 'pending', 'waiting')),
  constraint gre_chat_sessions_player_id_check check (player_id > 0),
  constraint gre_chat_sessions_closed_by_check check (closed_by in ('staff', 'player', 'idle', 'system')),
  constraint gre_chat_sessions_rating_check check (rating between 1 and 5)
);
create unique index gre_chat_sessions_one_open on gre_chat_sessions (player_id) where status <> 'closed';
create index gre_chat_sessions_player on gre_chat_sessions (player_id, created_at desc);
create index gre_chat_sessions_updated on gre_chat_sessions (updated_at);
create index gre_chat_sessions_recent on gre_chat_sessions (status, last_message_at desc nulls last, id);
create index gre_chat_sessions_changed on gre_chat_sessions (changed_xid) where changed_xid is not null;
-- Lists are in the order of the last message, or of the creation for a session without messages. Not coalesce(): it is
-- not leakproof, so under row-level security the index could not be used for the condition of a cursor.
create index gre_chat_sessions_latest on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc);
create index gre_chat_sessions_latest_open on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status <> 'closed';
-- The queue (gre_session_queue). Open sessions are updated often, so only those that wait are indexed for the queue;
-- the others, some thousands at most, are read in list order and filtered. Closed sessions rarely change.
create index gre_chat_sessions_waiting on gre_chat_sessions (waiting_since, id)
  where status <> 'closed' and waiting_since is not null;
create index gre_chat_sessions_closed_latest on gre_chat_sessions
  ((case when last_message_at is null then created_at else last_message_at end) desc, id desc) where status = 'closed';
create index gre_chat_sessions_closed_assigned on gre_chat_sessions
  (assigned_staff_id, (case when last_message_at is null then created_at else last_message_at end) desc, id desc)
  where status = 'closed';
create index gre_chat_sessions_closed_name on gre_chat_sessions (lower(player_name) text_pattern_ops)
  where status = 'closed';
comment on table gre_chat_sessions is 'Chat sessions. A player has at most one open session.';
comment on column gre_chat_sessions.id is 'The session''s id.';
comment on column gre_chat_sessions.player_id is 'The player. Cannot be changed.';
comment on column gre_chat_sessions.player_name is
  'The name of the player''s profile, or the name given when the session was opened.';
comment on column gre_chat_sessions.status is
  'active or closed; legacy values such as waiting count as open. An assigned session stays active.';
comment on column gre_chat_sessions.assigned_staff_id is
  'The staff member to whom the session is assigned; null if unassigned.';
comment on column gre_chat_sessions.last_seq is
  'seq of the last message, 0 without messages. Set by the server.';
comment on column gre_chat_sessions.rev is 'Increases with every change of the session. Set by the server.';
comment on column gre_chat_sessions.last_message_at is 'Time of the last message. Set by the server.';
comment on column gre_chat_sessions.unread_by_staff is
  'Number of the player''s messages that staff have not marked as read. Set by the server.';
comment on column gre_chat_sessions.unread_by_player is
  'Number of staff and system messages that the player has not marked as read. Set by the server.';
comment on column gre_chat_sessions.staff_read_seq is
  'seq up to which staff have read the player''s messages. Set by gre_mark_read.';
comment on column gre_chat_sessions.staff_read_at is 'Time of the last change of staff_read_seq. Set by the server.';
comment on column gre_chat_sessions.player_read_seq is
  'seq up to which the player has read staff''s messages. Set by gre_mark_read.';
comment on column gre_chat_sessions.player_read_at is 'Time of the last change of player_read_seq. Set by the server.';
comment on column gre_chat_sessions.waiting_since is
  'Time of the player''s first message after staff''s last message; null if answered or closed. Set by the server.';
comment on column gre_chat_sessions.created_at is 'Time of opening. Set by the server.';
comment on column gre_chat_sessions.updated_at is 'Time of the last change. Set by the server.';
comment on column gre_chat_sessions.closed_at is 'Time of closing; null for an open session. Set by the server.';
comment on column gre_chat_sessions.closed_by is
  'staff, player, idle or system (a back end): the side that closed the session. Null for an open session, or if it is '
  'not known. Set by the server.';
comment on column gre_chat_sessions.cycle is '1, and one more with each reopening. Set by the server.';
comment on column gre_chat_sessions.rating is
  'The player''s rating of the current cycle, 1 to 5; null if there is none. Set by gre_rate_session.';
comment on column gre_chat_sessions.changed_xid is
  'Transaction of the last change: lets readers find sessions committed since their last read. Set by the server.';

create table gre_chat_messages (
  id uuid primary key default gen_random_uuid(),
  -- The defaults of session_id, seq and player_id mean "not given" (gre.messages_check). They make the columns optional
  -- on insert in TypeScript types that are generated from the catalog.
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
  origin text not null default 'typed',
  metadata jsonb not null default '{}',
  attachment_ids uuid[] not null default '{}',
  created_at timestamptz not null default now(),
  "timestamp" timestamptz default now(),
  constraint gre_chat_messages_seq_unique unique (session_id, seq),
  constraint gre_chat_messages_sender_check check (sender in ('player', 'staff', 'system')),
  constraint gre_chat_messages_status_check check (status in ('sent', 'delivered', 'read')),
  constraint gre_chat_messages_origin_check check (origin in ('typed', 'template', 'auto')),
  constraint gre_chat_messages_text_size check (char_length(message) between 1 and 4000),
  constraint gre_chat_messages_name_size check (char_length(sender_name) <= 80),
  constraint gre_chat_messages_metadata_size check (octet_length(metadata::text) <= 4096),
  constraint gre_chat_messages_attachments_size check (cardinality(attachment_ids) <= 5)
);
create index gre_chat_messages_player on gre_chat_messages (player_id, created_at, id);
-- For replay and reconcile, which read the messages of all sessions by time.
create index gre_chat_messages_created on gre_chat_messages (created_at, id);
comment on table gre_chat_messages is 'Messages. Portals insert messages, and cannot change or delete them.';
comment on column gre_chat_messages.id is
  'The message''s id. A client may choose it (a UUID): an insert can then be repeated safely.';
comment on column gre_chat_messages.session_id is
  'The session. Default: the player''s open session, which is opened if necessary.';
comment on column gre_chat_messages.seq is
  'Number in the session: 1, 2, 3 ... without gaps, in the order of commits. Set by the server.';
comment on column gre_chat_messages.player_id is
  'The player of the session. Default: the caller if it is a player, or the session''s player.';
comment on column gre_chat_messages.player_name is
  'The player''s name at the time of sending. The profile''s name has precedence.';
comment on column gre_chat_messages.sender is
  'player, staff or system; gre and gre_staff are stored as staff. Must be the role of the caller; only the service '
  'key may send as system.';
comment on column gre_chat_messages.sender_id is 'The author: id of the player or of the staff member. From the token.';
comment on column gre_chat_messages.sender_name is
  'The author''s displayed name, at most 80 characters. The name of the profile or of gre_staff has precedence.';
comment on column gre_chat_messages.message is 'The text: 1 to 4000 characters, at least one of them visible.';
comment on column gre_chat_messages.status is
  'sent, delivered or read (marked by the other side). Set by the server.';
comment on column gre_chat_messages.origin is
  'typed, template (a text that staff took from a template) or auto (written by the server). Portals can set template '
  'on messages of staff; any other value is stored as typed.';
comment on column gre_chat_messages.metadata is 'JSON of the portal, at most 4 KB. Not relayed.';
comment on column gre_chat_messages.attachment_ids is
  'The files of the message (gre_chat_attachments), in order: at most 5, stored before, each sent once. A message with '
  'files and no text gets a short text.';
comment on column gre_chat_messages.created_at is 'Time of the insert. Set by the server.';
comment on column gre_chat_messages."timestamp" is
  'Equal to created_at, except for messages that the service key imports with a time.';

create table gre_online_status (
  staff_id text primary key,
  display_name text,
  status text not null default 'offline',
  last_seen_at timestamptz default now(),
  updated_at timestamptz default now(),
  expires_at timestamptz,
  constraint gre_online_status_status_check check (status in ('online', 'away', 'offline'))
);
create index gre_online_status_expiring on gre_online_status (expires_at) where status <> 'offline';
comment on table gre_online_status is 'Presence of staff, one row per staff member.';
comment on column gre_online_status.staff_id is 'The staff member. Staff write their own row only.';
comment on column gre_online_status.display_name is 'The displayed name. The name in gre_staff has precedence.';
comment on column gre_online_status.status is 'online, away or offline.';
comment on column gre_online_status.last_seen_at is
  'Time of the last write of status. Without expires_at, the status expires gre.settings.presence_lasts later.';
comment on column gre_online_status.updated_at is 'Time of the last change.';
comment on column gre_online_status.expires_at is
  'Time at which the status expires. Heartbeats extend it. Null: see last_seen_at.';

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
  constraint push_notifications_audience_check check (audience in ('staff', 'player')),
  constraint push_notifications_status_check
    check (status in ('queued', 'sent', 'failed', 'expired', 'no_recipients'))
);
create index push_notifications_message on push_notifications (message_id);
-- For prune.
create index push_notifications_receipts on push_notifications (created_at)
  where delivery_id is not null and status <> 'queued';
create index push_notifications_id_text on push_notifications ((id::text));
-- For gre_erase_player. Without a list of new entries, which each erasure would read: entries are few and short.
create index push_notifications_keys on push_notifications using gin (gre.push_keys(audience, recipients, data))
  with (fastupdate = off);
comment on table push_notifications is
  'Push notifications: one row for each that gre-bridge sends. It also sends the rows that are inserted as queued.';
comment on column push_notifications.id is 'The push''s id.';
comment on column push_notifications.delivery_id is
  'The delivery for which it was sent; null for a queued push. Set by the server.';
comment on column push_notifications.message_id is 'The message that caused it, or null.';
comment on column push_notifications.audience is 'staff or player.';
comment on column push_notifications.recipients is
  'OneSignal external ids. Required for audience player. For audience staff, null means the staff on duty.';
comment on column push_notifications.title is 'Heading, at most 4,000 bytes.';
comment on column push_notifications.body is 'Text, at most 16,000 bytes. If null, the title is used.';
comment on column push_notifications.data is 'JSON for the app, at most 16 KB (OneSignal accepts about 2 KB).';
comment on column push_notifications.status is 'queued, then sent, failed, expired or no_recipients.';
comment on column push_notifications.provider_id is 'OneSignal''s id of the notification.';
comment on column push_notifications.error is 'Error of the last attempt.';
comment on column push_notifications.created_at is 'Time of the insert.';
comment on column push_notifications.sent_at is 'Time at which OneSignal accepted it.';

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
comment on table gre.settings is 'Settings that an operator can change in the database. One row.';
comment on column gre.settings.single is 'Limits the table to one row.';
comment on column gre.settings.presence_lasts is
  'Time after last_seen_at for which a status without expires_at is valid.';
comment on column gre.settings.player_external_id is
  'Template of a player''s OneSignal external id: GRE_PUSH_PLAYER_EXTERNAL_ID of the relay that reported last.';
insert into gre.settings default values;
