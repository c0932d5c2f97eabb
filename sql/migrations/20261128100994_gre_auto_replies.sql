-- Auto-replies: rules, their choice, and the messages that they cause. gre_timers has the triggers that start them.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages, gre_outbox, gre_hours, gre_settings and
-- gre_templates (gre.check_texts, gre.render_text).
--
-- An auto-reply is entered in gre_auto_sent and inserted by one transaction, which holds the session's lock. For an
-- answer to a player's message it is the transaction of that message. Its sender is system, which starts no rule.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_auto_replies (
  id uuid primary key default gen_random_uuid(),
  name text not null constraint gre_auto_replies_name_size check (char_length(name) between 1 and 120),
  occasion text not null constraint gre_auto_replies_occasion_check check (occasion in (
    'opened', 'reopened', 'closed_hours', 'nobody_online', 'waiting', 'idle_warning', 'idle_close')),
  wait interval,
  once text not null default 'cycle'
    constraint gre_auto_replies_once_check check (once in ('cycle', 'day', 'question')),
  hours text references public.gre_hours on update cascade,
  texts jsonb not null,
  priority integer not null default 0
    constraint gre_auto_replies_priority_check check (priority between -1000000 and 1000000),
  push boolean not null default false,
  active boolean not null default true,
  valid_from timestamptz constraint gre_auto_replies_from_check check (isfinite(valid_from)),
  valid_to timestamptz constraint gre_auto_replies_to_check check (isfinite(valid_to)),
  updated_at timestamptz not null default now(),
  constraint gre_auto_replies_wait_check check (case occasion
    when 'waiting' then coalesce(wait between interval '1 second' and interval '30 days', false)
    else wait is null end)
);
create index gre_auto_replies_hours on public.gre_auto_replies (hours);
comment on table public.gre_auto_replies is 'Rules for messages that the server writes by itself.';
comment on column public.gre_auto_replies.id is 'The rule''s id.';
comment on column public.gre_auto_replies.name is 'The name, for staff.';
comment on column public.gre_auto_replies.occasion is
  'opened, reopened: the player''s message is the first one of the session, or after its reopening. closed_hours: a '
  'player''s message outside the hours. nobody_online: a player''s message while no staff member is online. waiting: '
  'the player waits for an answer since "wait". idle_warning, idle_close: before the session is closed, see '
  'gre_chat_settings.idle_warn_after.';
comment on column public.gre_auto_replies.wait is 'For waiting: the time in open hours since the question.';
comment on column public.gre_auto_replies.once is
  'The rule applies once per cycle of a session, per day of the hours'' time zone, or per question. For idle_warning '
  'and idle_close, question means: once after each answer of staff.';
comment on column public.gre_auto_replies.hours is
  'The opening hours. closed_hours applies outside them, and waiting counts its time in them; null: those of the desk. '
  'Other occasions apply within them; null: at any time.';
comment on column public.gre_auto_replies.texts is
  'The text in each language: {"en": text with placeholders}, see gre_render_template.';
comment on column public.gre_auto_replies.priority is
  'Of all rules that apply to a player''s message only the one with the highest priority answers.';
comment on column public.gre_auto_replies.push is 'True: the player also gets a push.';
comment on column public.gre_auto_replies.active is 'False: the rule does not apply.';
comment on column public.gre_auto_replies.valid_from is 'Time from which the rule applies; null: always.';
comment on column public.gre_auto_replies.valid_to is 'Time until which the rule applies; null: always.';
comment on column public.gre_auto_replies.updated_at is 'Time of the last change.';

create table public.gre_auto_sent (
  session_id uuid not null references public.gre_chat_sessions on delete cascade,
  rule_id uuid not null,
  key text not null,
  message_id uuid,
  at timestamptz not null default clock_timestamp(),
  skipped text constraint gre_auto_sent_skipped_check check (skipped in ('late', 'text')),
  primary key (session_id, rule_id, key)
);
comment on table public.gre_auto_sent is
  'The auto-replies of each session. The primary key makes each of them at most one message.';
comment on column public.gre_auto_sent.session_id is 'The session.';
comment on column public.gre_auto_sent.rule_id is
  'The rule. No foreign key: the rows of a deleted rule are kept, and a deletion never makes a message fail.';
comment on column public.gre_auto_sent.key is 'cycle:<n>, day:<date> or question:<seq>, see gre_auto_replies.once.';
comment on column public.gre_auto_sent.message_id is 'The message; null if it was skipped.';
comment on column public.gre_auto_sent.at is 'Time of the entry.';
comment on column public.gre_auto_sent.skipped is
  'The reason for which no message was sent. late: a worker found it too late. text: a value was missing, or the text '
  'was too long.';

alter table public.gre_auto_replies enable row level security;
alter table public.gre_auto_sent enable row level security;
revoke all on public.gre_auto_replies, public.gre_auto_sent from public, anon, authenticated, service_role;

-- Choice and sending --------------------------------------------------------------------------------------

create function gre.somebody_online() returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from public.gre_online_status o left join public.gre_staff t on t.staff_id = o.staff_id
    where coalesce(t.active, true) and gre.presence(o.status, o.last_seen_at, o.expires_at) = 'online')
$$;

-- Return the rule of highest priority that applies at this time to one of these occasions; null if there is none. Of
-- equal priorities, one that says that nobody answers comes before a greeting. The costly conditions are tested last,
-- and for each opening hours once.
create function gre.choose_auto_reply(p_occasions text[], p_at timestamptz) returns public.gre_auto_replies
language plpgsql stable set search_path = '' as $$
declare
  v public.gre_auto_replies;
  v_hours text;
  v_open jsonb := '{}';
  v_online boolean;
begin
  for v in
    select * from public.gre_auto_replies r
    where r.active and r.occasion = any (p_occasions)
      and coalesce(r.valid_from <= p_at, true) and coalesce(r.valid_to > p_at, true)
    order by r.priority desc, r.occasion in ('opened', 'reopened'), r.id
  loop
    v_hours := v.hours;
    if v.occasion = 'closed_hours' and v_hours is null then
      select s.hours into v_hours from public.gre_chat_settings s;
    end if;
    if v_hours is not null and not v_open ? v_hours then
      v_open := v_open || jsonb_build_object(v_hours, gre.open_at(v_hours, p_at));
    end if;
    continue when coalesce((v_open -> v_hours)::boolean, true) = (v.occasion = 'closed_hours');
    if v.occasion = 'nobody_online' then
      v_online := coalesce(v_online, gre.somebody_online());
      continue when v_online;
    end if;
    return v;
  end loop;
  return null;
end $$;

-- Return the seq of the player's first unanswered message; 0 if there is none.
create function gre.question_seq(p_session public.gre_chat_sessions) returns bigint
language sql stable set search_path = '' set enable_seqscan = off set jit = off as $$
  select coalesce(min(m.seq), 0) from public.gre_chat_messages m
  where m.player_id = p_session.player_id and m.created_at = p_session.waiting_since
    and m.session_id = p_session.id and m.sender = 'player'
$$;

-- Return the key in gre_auto_sent of a rule that applies now.
create function gre.auto_key(
  p_rule public.gre_auto_replies, p_session public.gre_chat_sessions, p_question bigint
) returns text
language plpgsql stable set search_path = '' as $$
begin
  if p_rule.once = 'cycle' then
    return 'cycle:' || p_session.cycle;
  elsif p_rule.once = 'question' then
    return 'question:' || p_question;
  end if;
  return 'day:' || (clock_timestamp() at time zone coalesce((
    select h.timezone from public.gre_hours h
    where h.name = coalesce(p_rule.hours, (select s.hours from public.gre_chat_settings s))), 'UTC'))::date;
end $$;

-- Enter a rule for a session, whose row the caller has locked, and send its message, unless it was entered before.
-- p_late: enter it as skipped. Returns sent, skipped, or null if it was entered before.
create function gre.send_auto_reply(
  p_rule public.gre_auto_replies, p_session public.gre_chat_sessions, p_question bigint, p_late boolean default false
) returns text
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_key constant text := gre.auto_key(p_rule, p_session, p_question);
  -- The same for the same rule, session and key.
  v_id constant uuid := md5('gre auto-reply ' || p_session.id || ' ' || p_rule.id || ' ' || v_key)::uuid;
  v_text record;
  v_skipped text := case when p_late then 'late' end;
begin
  if exists (select from public.gre_auto_sent a
             where a.session_id = p_session.id and a.rule_id = p_rule.id and a.key = v_key) then
    return null;
  end if;
  if not p_late then
    select * into v_text from gre.render_text(
      p_rule.texts, gre.session_language(p_session.id), p_session,
      case when p_session.assigned_staff_id is not null then gre.staff_name(p_session.assigned_staff_id, null) end);
    v_skipped := case when v_text.missing <> '{}' or char_length(v_text.text) > 4000 then 'text' end;
  end if;
  insert into public.gre_auto_sent (session_id, rule_id, key, message_id, skipped)
  values (p_session.id, p_rule.id, v_key, case when v_skipped is null then v_id end, v_skipped)
  on conflict do nothing;
  if not found then
    return null;
  elsif v_skipped is not null then
    return 'skipped';
  end if;
  insert into public.gre_chat_messages (id, session_id, player_id, sender, message, origin)
  values (v_id, p_session.id, p_session.player_id, 'system', v_text.text, 'auto')
  on conflict (id) do nothing;
  if p_rule.push then
    update public.gre_relay_deliveries d set data = '{"push": true}'
    where d.message_id = v_id and d.sink || '' = 'onesignal';
  end if;
  return 'sent';
end $$;

-- Functions of admins -------------------------------------------------------------------------------------

create function gre.auto_reply_json(r public.gre_auto_replies) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('id', r.id, 'name', r.name, 'occasion', r.occasion, 'wait', extract(epoch from r.wait),
    'once', r.once, 'hours', r.hours, 'texts', r.texts, 'priority', r.priority, 'push', r.push, 'active', r.active,
    'valid_from', gre.iso(r.valid_from), 'valid_to', gre.iso(r.valid_to))
$$;

create function public.gre_list_auto_replies() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_now public.gre_auto_replies;
begin
  perform gre.require_staff();
  v_now := gre.choose_auto_reply(array['opened', 'closed_hours', 'nobody_online'], clock_timestamp());
  return jsonb_build_object(
    'auto_replies', (
      select coalesce(jsonb_agg(gre.auto_reply_json(r) order by r.priority desc, r.name, r.id), '[]')
      from public.gre_auto_replies r),
    'now', case when v_now.id is not null then (
      select jsonb_build_object('id', v_now.id, 'text', t.text, 'missing', t.missing)
      from gre.render_text(v_now.texts, null, null, null) t) end);
end $$;
comment on function public.gre_list_auto_replies is
  'Lists the rules: {"auto_replies": [{"id", "name", "occasion", "wait" (seconds), "once", "hours", "texts": {"en": '
  'text}, "priority", "push", "active", "valid_from", "valid_to"}], "now": {"id", "text", "missing"} | null}. "now" is '
  'the answer that a new session''s first message would get at this moment. See gre_auto_replies. Staff only.';

create function public.gre_get_auto_reply(p_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v public.gre_auto_replies;
begin
  perform gre.require_staff();
  select * into v from public.gre_auto_replies where id = p_id;
  if not found then
    perform gre.raise_http(404, 'auto_reply_unknown', 'there is no such auto-reply');
  end if;
  return gre.auto_reply_json(v);
end $$;
comment on function public.gre_get_auto_reply is 'Returns a rule (see gre_list_auto_replies). Staff only.';

create function public.gre_save_auto_reply(p_auto_reply jsonb, p_id uuid default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v public.gre_auto_replies;
begin
  perform gre.require_admin();
  if jsonb_typeof(p_auto_reply) is distinct from 'object'
    or jsonb_typeof(p_auto_reply -> 'wait') not in ('number', 'null') then
    perform gre.raise_http(400, 'auto_reply_invalid', 'an auto-reply must be an object, and wait a number of seconds');
  elsif p_id is null then
    v.once := case when p_auto_reply ->> 'occasion' in ('idle_warning', 'idle_close') then 'question' else 'cycle' end;
    v.priority := 0;
    v.push := false;
    v.active := true;
  else
    select * into v from public.gre_auto_replies where id = p_id for no key update;
    if not found then
      perform gre.raise_http(404, 'auto_reply_unknown', 'there is no such auto-reply');
    end if;
  end if;
  begin
    v := jsonb_populate_record(v, p_auto_reply - array['id', 'updated_at']
      || case when jsonb_typeof(p_auto_reply -> 'wait') = 'number'
           then jsonb_build_object('wait', (p_auto_reply ->> 'wait') || ' seconds') else '{}' end);
  exception when data_exception then
    perform gre.raise_http(400, 'auto_reply_invalid', 'a field of the auto-reply has a value that is not allowed');
  end;
  perform gre.check_texts(v.texts, false);
  if p_id is null and (select count(*) from public.gre_auto_replies) >= 100 then
    perform gre.raise_http(409, 'too_many', 'there are 100 auto-replies already');
  end if;
  perform gre.check_room(
    (select sum(octet_length(r.texts::text)) from public.gre_auto_replies r where r.id is distinct from p_id),
    v.texts, 4194304); -- 4 MB
  begin
    insert into public.gre_auto_replies as r
      (id, name, occasion, wait, once, hours, texts, priority, push, active, valid_from, valid_to)
    values (coalesce(p_id, gen_random_uuid()), v.name, v.occasion, v.wait, v.once, v.hours, v.texts, v.priority, v.push,
            v.active, v.valid_from, v.valid_to)
    on conflict (id) do update set name = excluded.name, occasion = excluded.occasion, wait = excluded.wait,
      once = excluded.once, hours = excluded.hours, texts = excluded.texts, priority = excluded.priority,
      push = excluded.push, active = excluded.active, valid_from = excluded.valid_from, valid_to = excluded.valid_to,
      updated_at = clock_timestamp()
    returning * into v;
  exception
    when foreign_key_violation then
      perform gre.raise_http(404, 'hours_unknown', 'there are no such opening hours');
    when check_violation or not_null_violation then
      perform gre.raise_http(400, 'auto_reply_invalid', 'a field of the auto-reply has a value that is not allowed');
  end;
  return gre.auto_reply_json(v);
end $$;
comment on function public.gre_save_auto_reply is
  'Creates a rule, or with p_id changes the given fields of one, and returns it (see gre_list_auto_replies). For '
  'admins.';

create function public.gre_delete_auto_reply(p_id uuid) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v public.gre_auto_replies;
begin
  perform gre.require_admin();
  delete from public.gre_auto_replies where id = p_id returning * into v;
  if not found then
    perform gre.raise_http(404, 'auto_reply_unknown', 'there is no such auto-reply');
  end if;
  return gre.auto_reply_json(v);
end $$;
comment on function public.gre_delete_auto_reply is 'Deletes a rule, and returns it. For admins.';

revoke execute on function gre.somebody_online, gre.choose_auto_reply, gre.question_seq, gre.auto_key,
  gre.send_auto_reply, gre.auto_reply_json from public;
revoke execute on function public.gre_list_auto_replies, public.gre_get_auto_reply, public.gre_save_auto_reply,
  public.gre_delete_auto_reply from public, anon, authenticated, service_role;
grant execute on function public.gre_list_auto_replies, public.gre_get_auto_reply, public.gre_save_auto_reply,
  public.gre_delete_auto_reply to authenticated, service_role;
