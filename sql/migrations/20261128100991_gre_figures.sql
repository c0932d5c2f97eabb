-- Figures: the triggers that write them (see gre_figure_tables), and ratings.
-- Depends on gre_tables, gre_identity, gre_messages, gre_story, gre_hours, gre_settings, gre_figure_tables and
-- gre_assignment.
--
-- Figures are written in the transaction that changes the chat, under the lock of the session, and in the order of
-- session_id where a statement changes many. Only messages whose sender is player or staff begin or answer a question.
--
-- What is older than this file is in no figure: a cycle that had begun has no row, but questions that begin in it
-- later have.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Helpers -------------------------------------------------------------------------------------------------

-- Return the time until which the settings want an answer to a question; null without a goal.
create function gre.question_due(p_first boolean, p_at timestamptz) returns timestamptz
language plpgsql stable set search_path = '' as $$
declare
  v public.gre_chat_settings;
  v_goal interval;
begin
  select * into v from public.gre_chat_settings;
  v_goal := case when p_first then v.first_reply_goal else v.reply_goal end;
  if v_goal is null then
    return null;
  end if;
  return gre.after_open(case when v.goals_in_hours then v.hours end, p_at, extract(epoch from v_goal));
end $$;

-- Return the number of a player in figures. The lock keeps gre_erase_player from deleting it before this transaction
-- ends.
create function gre.player_key(p_player_id bigint) returns bigint
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_key bigint;
begin
  loop
    select p.player_key into v_key from gre.report_players p where p.player_id = p_player_id for key share;
    if found then
      return v_key;
    end if;
    insert into gre.report_players (player_id) values (p_player_id) on conflict (player_id) do nothing;
  end loop;
end $$;

-- Add the row of the session's cycle, unless it is there.
create function gre.add_cycle(s public.gre_chat_sessions, p_opened_at timestamptz) returns void
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  insert into public.gre_chat_cycles (session_id, cycle, player_key, opened_at, opened_staff_id, closed_at, closed_by,
    closed_staff_id, missed, dropped, rating_asked)
  select s.id, s.cycle, coalesce(
      (select c.player_key from public.gre_chat_cycles c where c.session_id = s.id order by c.cycle limit 1),
      gre.player_key(s.player_id)),
    p_opened_at, s.assigned_staff_id, s.closed_at, s.closed_by, case when x.closed then s.assigned_staff_id end,
    not x.closed, not x.closed, not x.closed
  from (select nullif(s.status = 'closed', false) as closed) x
  on conflict (session_id, cycle) do nothing;
end $$;

-- Messages ------------------------------------------------------------------------------------------------

-- Count the messages of these sessions that are not counted yet (see gre.count_messages), in the order of seq.
-- gre.figures_seq has the seq up to which gre.sessions_figures has counted them in this transaction.
create function gre.count_figures(p_sessions uuid[], p_ids uuid[] default '{}') returns void
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_counted constant jsonb := coalesce(nullif(current_setting('gre.figures_seq', true), ''), '{}');
begin
  -- A trigger of the project can insert a message before the trigger that adds the session's first cycle.
  perform gre.add_cycle(q, q.created_at)
  from public.gre_chat_sessions q
  where q.id = any (p_sessions) and q.cycle = 1 and q.created_at >= (select s.whole_from from gre.settings s)
    and not exists (select from public.gre_chat_cycles c where c.session_id = q.id);
  with fresh as materialized (
    select m.session_id, m.seq, m.sender, m.sender_id, m.created_at, q.cycle, q.status <> 'closed' as open
    from public.gre_chat_sessions q
    join public.gre_chat_messages m on m.session_id = q.id
      and m.seq > greatest(q.last_seq, (v_counted ->> q.id::text)::bigint)
      and (m.created_at >= transaction_timestamp() or m.id = any (p_ids))
    where q.id = any (p_sessions)
  ), volume as (
    insert into public.gre_chat_activity as a (session_id, quarter, sender, staff_id, player_key, messages)
    select f.session_id, f.quarter, f.sender, f.staff_id, coalesce(
        (select c.player_key from public.gre_chat_cycles c where c.session_id = f.session_id order by c.cycle limit 1),
        (select gre.player_key(q.player_id) from public.gre_chat_sessions q where q.id = f.session_id)), f.messages
    from (
      select x.session_id, date_bin('15 minutes', x.created_at, timestamptz 'epoch') as quarter, x.sender,
        case x.sender when 'staff' then coalesce(x.sender_id, '') else '' end as staff_id, count(*) as messages
      from fresh x group by 1, 2, 3, 4) f
    order by f.session_id
    on conflict (session_id, quarter, sender, staff_id) do update set messages = a.messages + excluded.messages
  ), states as (
    select x.session_id, x.cycle, c.session_id is not null as whole, c.staff_at, r.n as asking,
      -- Without a row of the cycle, it is older than the figures: an open question may have none either.
      case when r.n is not null or c.session_id is null and (
        select m.sender from public.gre_chat_messages m
        where m.session_id = x.session_id and m.seq < x.first_seq and m.sender <> 'system'
        order by m.seq desc limit 1) = 'player' then 'player' else 'staff' end as sender,
      (select coalesce(max(p.n), 0) from public.gre_chat_responses p
       where p.session_id = x.session_id and p.cycle = x.cycle) as questions
    from (select f.session_id, f.cycle, min(f.seq) as first_seq from fresh f where f.open group by 1, 2) x
    left join public.gre_chat_cycles c on c.session_id = x.session_id and c.cycle = x.cycle
    left join public.gre_chat_responses r on r.session_id = x.session_id and r.cycle = x.cycle and r.ended is null
  ), people as (
    select f.*, s.whole, s.staff_at, s.asking, s.questions,
      coalesce(lag(f.sender) over w, s.sender) as before, count(*) filter (where f.sender = 'staff') over w as staff_n
    from fresh f join states s on s.session_id = f.session_id
    where f.sender <> 'system' and f.open
    window w as (partition by f.session_id order by f.seq)
  ), firsts as (
    update public.gre_chat_cycles c set asked_at = coalesce(c.asked_at, p.asked_at),
      staff_at = coalesce(c.staff_at, p.staff_at)
    from (
      select x.session_id, x.cycle,
        (array_agg(x.created_at order by x.seq) filter (where x.sender = 'player'))[1] as asked_at,
        (array_agg(x.created_at order by x.seq) filter (where x.sender = 'staff'))[1] as staff_at
      from people x group by 1, 2) p
    where c.session_id = p.session_id and c.cycle = p.cycle
      and (c.asked_at is null and p.asked_at is not null or c.staff_at is null and p.staff_at is not null)
  ), turns as ( -- the messages that ask or answer, in turn
    select p.*, lead(p.seq) over w as next_seq, lead(p.created_at) over w as next_at,
      lead(p.sender_id) over w as next_staff, row_number() over w as turn,
      p.questions + count(*) filter (where p.sender = 'player') over w as n
    from people p where p.sender <> p.before
    window w as (partition by p.session_id order by p.seq)
  ), answers as (
    update public.gre_chat_responses r set ended = 'answered', ended_at = t.created_at, answered_seq = t.seq,
      answered_at = t.created_at, staff_id = nullif(t.sender_id, ''),
      wait_seconds = gre.whole_seconds(r.asked_at, t.created_at),
      open_seconds = gre.desk_seconds(r.asked_at, t.created_at)
    from turns t
    where t.turn = 1 and t.sender = 'staff' and r.session_id = t.session_id and r.cycle = t.cycle and r.n = t.asking
    returning r.n
  )
  insert into public.gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, due_at, ended, ended_at,
    answered_seq, answered_at, staff_id, wait_seconds, open_seconds)
  select t.session_id, t.cycle, t.n, f.first, t.seq, t.created_at, gre.question_due(f.first, t.created_at),
    case when t.next_seq is not null then 'answered' end, t.next_at, t.next_seq, t.next_at, nullif(t.next_staff, ''),
    gre.whole_seconds(t.created_at, t.next_at), gre.desk_seconds(t.created_at, t.next_at)
  from turns t
  cross join lateral (select t.whole and t.staff_at is null and t.staff_n = 0 as first) f
  where t.sender = 'player'
    and (select count(*) from answers) >= 0 -- first: a cycle has one open question, see gre_chat_responses_open
  order by t.session_id, t.n;
end $$;

-- Count the messages of a statement before gre.messages_after_insert advances last_seq. Most statements insert one
-- message, and are not nested: that is counted by few statements and expressions (see gre.messages_check).
create function gre.messages_figures() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  m record;
  v_seconds integer;
begin
  if current_setting('gre.nested', true) = 'on' or pg_trigger_depth() > 1 and gre.is_nested() then
    return null; -- gre.count_messages counts them
  end if;
  select i.session_id, i.seq, i.sender, i.sender_id, i.created_at,
    (select count(*) from inserted) = 1 and coalesce(current_setting('gre.figures_seq', true), '') = '' as single,
    i.sender <> 'system' and q.status <> 'closed' as counts, q.cycle, c.player_key, c.asked_at, c.staff_at, r.n,
    r.asked_at as question_at, g.hours,
    case when c.staff_at is null then g.first_reply_goal else g.reply_goal end as goal
  into m
  from inserted i
  join public.gre_chat_sessions q on q.id = i.session_id
  join public.gre_chat_cycles c on c.session_id = q.id and c.cycle = q.cycle
  left join public.gre_chat_responses r on r.session_id = q.id and r.cycle = q.cycle and r.ended is null
  join public.gre_chat_settings g on g.single
  limit 1;
  if m.single is not true then
    perform gre.count_figures(array(select distinct i.session_id from inserted i), array(select i.id from inserted i))
    where exists (select from inserted);
    return null;
  end if;
  insert into public.gre_chat_activity as a (session_id, quarter, sender, staff_id, player_key, messages)
  values (m.session_id, date_bin('15 minutes', m.created_at, timestamptz 'epoch'), m.sender,
    case m.sender when 'staff' then coalesce(m.sender_id, '') else '' end, m.player_key, 1)
  on conflict (session_id, quarter, sender, staff_id) do update set messages = a.messages + 1;
  if not m.counts then
    return null;
  elsif m.sender = 'player' then
    if m.asked_at is null then
      update public.gre_chat_cycles c set asked_at = m.created_at
      where c.session_id = m.session_id and c.cycle = m.cycle;
    end if;
    if m.n is null then
      insert into public.gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, due_at)
      select m.session_id, m.cycle, coalesce(max(r.n), 0) + 1, m.staff_at is null, m.seq, m.created_at,
        case when m.goal is not null then gre.question_due(m.staff_at is null, m.created_at) end
      from public.gre_chat_responses r where r.session_id = m.session_id and r.cycle = m.cycle;
    end if;
    return null;
  end if;
  if m.staff_at is null then
    update public.gre_chat_cycles c set staff_at = m.created_at
    where c.session_id = m.session_id and c.cycle = m.cycle;
  end if;
  if m.n is not null then
    v_seconds := gre.whole_seconds(m.question_at, m.created_at);
    update public.gre_chat_responses r set ended = 'answered', ended_at = m.created_at, answered_seq = m.seq,
      answered_at = m.created_at, staff_id = nullif(m.sender_id, ''),
      wait_seconds = v_seconds,
      open_seconds = case when m.hours is null then v_seconds else gre.desk_seconds(m.question_at, m.created_at) end
    where r.session_id = m.session_id and r.cycle = m.cycle and r.n = m.n;
  end if;
  return null;
end $$;

-- Sessions ------------------------------------------------------------------------------------------------

create function gre.sessions_open_figures() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform gre.add_cycle(new, new.created_at);
  return null;
end $$;

-- Begin or end a cycle. A BEFORE trigger whose name sorts last, as gre.sessions_record_change.
create function gre.sessions_figures() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_seq bigint;
  v_asking boolean;
begin
  -- Messages that were inserted before this change belong to the cycle before it.
  select max(m.seq) into v_seq from public.gre_chat_messages m
  where m.session_id = old.id and m.seq > old.last_seq and m.created_at >= transaction_timestamp();
  if v_seq is not null then
    perform gre.count_figures(array[old.id]);
    perform set_config('gre.figures_seq', (coalesce(nullif(current_setting('gre.figures_seq', true), ''), '{}')::jsonb
      || jsonb_build_object(old.id::text, v_seq))::text, true);
  end if;
  if new.status <> 'closed' then
    perform gre.add_cycle(new, new.updated_at);
    return new;
  end if;
  update public.gre_chat_responses r set ended = 'closed', ended_at = new.closed_at
  where r.session_id = old.id and r.ended is null;
  v_asking := found;
  update public.gre_chat_cycles c set closed_at = new.closed_at, closed_by = new.closed_by,
    closed_staff_id = new.assigned_staff_id,
    close_seconds = case when new.closed_by <> 'idle' then gre.whole_seconds(c.asked_at, new.closed_at) end,
    close_open_seconds = case when new.closed_by <> 'idle' and c.asked_at is not null
      then gre.desk_seconds(c.asked_at, new.closed_at) end,
    missed = v_asking and not x.answered, dropped = v_asking and x.answered,
    rating_asked = c.asked_at is not null and c.staff_at is not null
      and (select s.rating_enabled from public.gre_chat_settings s)
  from (select exists (
    select from public.gre_chat_responses r
    where r.session_id = old.id and r.cycle = old.cycle and r.ended = 'answered') as answered) x
  where c.session_id = old.id and c.cycle = old.cycle;
  return new;
end $$;

create function gre.figures_truncated() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  update public.gre_chat_ratings set comment = null where comment is not null;
  return null;
end $$;

select gre.lock_tables();
create trigger gre_5_figures after insert on public.gre_chat_messages
  referencing new table as inserted for each statement execute function gre.messages_figures();
create trigger gre_6_figures after insert on public.gre_chat_sessions
  for each row execute function gre.sessions_open_figures();
create trigger zzz_gre_6_figures before update on public.gre_chat_sessions
  for each row when ((new.status = 'closed') <> (old.status = 'closed')) execute function gre.sessions_figures();
create trigger gre_6_figures_truncate after truncate on public.gre_chat_sessions
  for each statement execute function gre.figures_truncated();

update gre.settings set whole_from = clock_timestamp();

-- Ratings -------------------------------------------------------------------------------------------------

create function public.gre_rate_session(p_session_id uuid, p_score integer, p_comment text default null) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_actor();
  v_comment text;
  v public.gre_chat_sessions;
  v_rating public.gre_chat_ratings;
begin
  if v_actor.role = 'service' then
    perform gre.raise_http(403, 'act_as_required', 'only a player can rate: name one in X-GRE-Act-As');
  elsif v_actor.role <> 'player' then
    perform gre.raise_http(403, 'player_only', 'only the player can rate a session');
  elsif p_score is null or p_score not between 1 and 5 then
    perform gre.raise_http(400, 'score_invalid', 'the score must be a whole number from 1 to 5');
  elsif octet_length(p_comment) > 4000 or char_length(p_comment) > 1000 then
    perform gre.raise_http(400, 'comment_too_long', 'the comment is longer than 1000 characters');
  end if;
  v_comment := case when gre.has_text(p_comment) then p_comment end;
  select * into v from public.gre_chat_sessions s
  where s.id = p_session_id and s.player_id = v_actor.player_id for no key update;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  elsif v.status <> 'closed' then
    perform gre.raise_http(409, 'session_open', 'the session is open');
  elsif v.rating is not null then
    -- A rating that was adopted has no row.
    select * into v_rating from public.gre_chat_ratings r where r.session_id = v.id and r.cycle = v.cycle;
    if v.rating <> p_score or v_rating.comment is distinct from v_comment then
      perform gre.raise_http(409, 'already_rated', 'the session is rated already');
    end if;
    return jsonb_build_object('session', gre.session_json(v));
  elsif not (select s.rating_enabled from public.gre_chat_settings s) then
    perform gre.raise_http(409, 'rating_off', 'sessions cannot be rated');
  end if;
  update public.gre_chat_sessions s set rating = p_score where s.id = v.id returning * into v;
  insert into public.gre_chat_ratings (session_id, cycle, score, comment, staff_id, rated_at)
  select v.id, v.cycle, p_score, v_comment, case when c.session_id is null then v.assigned_staff_id
    else c.closed_staff_id end, v.updated_at
  from (select) x
  left join public.gre_chat_cycles c on c.session_id = v.id and c.cycle = v.cycle;
  insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, data)
  values (v.id, v.rev, v.updated_at, v.last_seq, 'rated', jsonb_build_object('score', p_score));
  perform gre.enqueue_event(array['pusher'], v.id::text, 'session', jsonb_build_object('session_id', v.id));
  perform gre.notify_workers(array[v.id]);
  return jsonb_build_object('session', gre.session_json(v));
end $$;
comment on function public.gre_rate_session is
  'Rates a closed session of the calling player, while rating_enabled is set: {"session": S}. p_score: 1 (worst) to 5 '
  '(best); p_comment: at most 1,000 characters. Each cycle can be rated once: the same rating again is a success, '
  'another is 409 already_rated.';

revoke execute on function gre.question_due, gre.player_key, gre.add_cycle, gre.count_figures, gre.messages_figures,
  gre.sessions_open_figures, gre.sessions_figures, gre.figures_truncated from public;
revoke execute on function public.gre_rate_session from public, anon, authenticated, service_role;
grant execute on function public.gre_rate_session to authenticated, service_role;
