-- Figures: the rows that reports are functions of. Cycles and questions of sessions, volumes of messages, ratings.
-- The triggers of gre_figures write them. They are kept when the session is deleted, under a random session_id that its
-- events and assignments get, too.
-- Depends on gre_tables (gre.settings).
set local lock_timeout = '300ms';

alter table gre.settings add column whole_from timestamptz not null default clock_timestamp();
comment on column gre.settings.whole_from is 'Time from which reports are whole: when figures were installed.';

create table gre.report_players (
  player_id bigint primary key,
  player_key bigint not null generated always as identity
);
comment on table gre.report_players is
  'The number under which figures count a player. gre_erase_player deletes the row: the number then leads nowhere.';
comment on column gre.report_players.player_id is 'The player.';
comment on column gre.report_players.player_key is 'Its number in figures.';

create table public.gre_chat_cycles (
  session_id uuid not null,
  cycle integer not null,
  player_key bigint not null,
  opened_at timestamptz not null,
  opened_staff_id text,
  asked_at timestamptz,
  staff_at timestamptz,
  closed_at timestamptz,
  closed_by text,
  closed_staff_id text,
  close_seconds integer,
  close_open_seconds integer,
  missed boolean,
  dropped boolean,
  rating_asked boolean,
  primary key (session_id, cycle)
);
comment on table public.gre_chat_cycles is
  'Figures: one row for each cycle of a session, from its opening or reopening to its closing. Written by triggers '
  'only.';
comment on column public.gre_chat_cycles.session_id is
  'The session; another, random id after its deletion. No foreign key: figures are kept.';
comment on column public.gre_chat_cycles.cycle is 'The cycle: 1, and one more with each reopening.';
comment on column public.gre_chat_cycles.player_key is 'The player (gre.report_players).';
comment on column public.gre_chat_cycles.opened_at is 'Time of the opening or reopening.';
comment on column public.gre_chat_cycles.opened_staff_id is 'To whom it was assigned then.';
comment on column public.gre_chat_cycles.asked_at is 'Time of its first message of the player.';
comment on column public.gre_chat_cycles.staff_at is 'Time of its first message of staff.';
comment on column public.gre_chat_cycles.closed_at is 'Time of the closing; null while it is open.';
comment on column public.gre_chat_cycles.closed_by is 'staff, player, idle or system, as gre_chat_sessions.closed_by.';
comment on column public.gre_chat_cycles.closed_staff_id is 'To whom it was assigned when it was closed.';
comment on column public.gre_chat_cycles.close_seconds is
  'Seconds from asked_at to closed_at, rounded down; null without asked_at, or if idleness closed it.';
comment on column public.gre_chat_cycles.close_open_seconds is 'The same in opening hours as they were at closed_at.';
comment on column public.gre_chat_cycles.missed is
  'True: closed with a question, and none was answered. Null while it is open.';
comment on column public.gre_chat_cycles.dropped is
  'True: closed with an open question after an answer. Null while it is open.';
comment on column public.gre_chat_cycles.rating_asked is
  'True: closed while rating_enabled, after messages of both the player and staff. Null while it is open.';

create table public.gre_chat_responses (
  session_id uuid not null,
  cycle integer not null,
  n integer not null,
  first boolean not null,
  asked_seq bigint not null,
  asked_at timestamptz not null,
  due_at timestamptz,
  ended text constraint gre_chat_responses_ended_check check (ended in ('answered', 'closed')),
  ended_at timestamptz,
  answered_seq bigint,
  answered_at timestamptz,
  staff_id text,
  wait_seconds integer,
  open_seconds integer,
  primary key (session_id, cycle, n)
);
create unique index gre_chat_responses_open on public.gre_chat_responses (session_id, cycle) where ended is null;
comment on table public.gre_chat_responses is
  'Figures: one row for each question, from a player''s first unanswered message to the next message of staff, or to '
  'the closing. Written by triggers only.';
comment on column public.gre_chat_responses.session_id is 'The session, see gre_chat_cycles.';
comment on column public.gre_chat_responses.cycle is 'The cycle.';
comment on column public.gre_chat_responses.n is '1, 2, 3 ... in the cycle.';
comment on column public.gre_chat_responses.first is 'True: staff had not written in the cycle before.';
comment on column public.gre_chat_responses.asked_seq is 'seq of the message that asks.';
comment on column public.gre_chat_responses.asked_at is 'Its time.';
comment on column public.gre_chat_responses.due_at is
  'Time until which the settings wanted an answer when it was asked; null without a goal.';
comment on column public.gre_chat_responses.ended is 'answered, or closed without an answer; null while it is open.';
comment on column public.gre_chat_responses.ended_at is 'Time of its end.';
comment on column public.gre_chat_responses.answered_seq is 'seq of the message that answers.';
comment on column public.gre_chat_responses.answered_at is 'Its time.';
comment on column public.gre_chat_responses.staff_id is 'The staff member who wrote it; null if it names none.';
comment on column public.gre_chat_responses.wait_seconds is
  'Seconds from asked_at to answered_at, rounded down; null if it was not answered.';
comment on column public.gre_chat_responses.open_seconds is 'The same in opening hours as they were at answered_at.';

create table public.gre_chat_activity (
  session_id uuid not null,
  quarter timestamptz not null,
  sender text not null constraint gre_chat_activity_sender_check check (sender in ('player', 'staff', 'system')),
  staff_id text not null default '',
  player_key bigint not null,
  messages integer not null,
  primary key (session_id, quarter, sender, staff_id)
) with (fillfactor = 80);
comment on table public.gre_chat_activity is
  'Figures: numbers of messages of a session in each quarter of an hour. Written by triggers only.';
comment on column public.gre_chat_activity.session_id is 'The session, see gre_chat_cycles.';
comment on column public.gre_chat_activity.quarter is 'Begin of the quarter of an hour.';
comment on column public.gre_chat_activity.sender is 'player, staff or system, as gre_chat_messages.sender.';
comment on column public.gre_chat_activity.staff_id is 'The author of messages of staff; empty if it is not known.';
comment on column public.gre_chat_activity.player_key is 'The player (gre.report_players).';
comment on column public.gre_chat_activity.messages is 'Number of messages.';

create table public.gre_chat_ratings (
  session_id uuid not null,
  cycle integer not null,
  score smallint not null constraint gre_chat_ratings_score_check check (score between 1 and 5),
  comment text constraint gre_chat_ratings_comment_check check (char_length(comment) <= 1000),
  staff_id text,
  rated_at timestamptz not null,
  primary key (session_id, cycle)
);
comment on table public.gre_chat_ratings is 'Ratings of cycles by players. Written by gre_rate_session only.';
comment on column public.gre_chat_ratings.session_id is 'The session, see gre_chat_cycles.';
comment on column public.gre_chat_ratings.cycle is 'The rated cycle.';
comment on column public.gre_chat_ratings.score is '1 (worst) to 5 (best).';
comment on column public.gre_chat_ratings.comment is
  'What the player wrote with it, at most 1,000 characters, or null. Deleted with the session.';
comment on column public.gre_chat_ratings.staff_id is 'To whom the session was assigned when the cycle was closed.';
comment on column public.gre_chat_ratings.rated_at is 'Time of the rating.';

alter table gre.report_players enable row level security;
alter table public.gre_chat_cycles enable row level security;
alter table public.gre_chat_responses enable row level security;
alter table public.gre_chat_activity enable row level security;
alter table public.gre_chat_ratings enable row level security;
revoke all on gre.report_players, public.gre_chat_cycles, public.gre_chat_responses, public.gre_chat_activity,
  public.gre_chat_ratings from public, anon, authenticated, service_role;
