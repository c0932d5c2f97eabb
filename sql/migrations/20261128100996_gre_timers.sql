-- Timers, and the triggers that start auto-replies. A worker fires due timers with gre_tick_v1.
-- Depends on gre_tables, gre_identity, gre_messages, gre_outbox, gre_hours, gre_settings, gre_assignment
-- (gre_staff_load) and gre_auto_replies.
--
-- A timer is written under the lock of its session, and fired under it by a transaction that looks at the session
-- again. Locks are taken in the order of gre_assignment: sessions (never waiting, with skip locked), timers, rows of
-- gre_staff_load in the order of staff_id, lanes, deliveries. An answer does not delete the timers of its question:
-- that would cost each answer an update. They are deleted when they are due.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_timers (
  session_id uuid not null references public.gre_chat_sessions on delete cascade,
  rule_id uuid,
  kind text not null constraint gre_timers_kind_check check (kind in ('waiting', 'idle_warning', 'idle_close')),
  due_at timestamptz not null,
  seq bigint not null,
  constraint gre_timers_unique unique nulls not distinct (session_id, rule_id)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index gre_timers_due on public.gre_timers (due_at);
comment on table public.gre_timers is
  'What a worker does with a session at a later time: one timer for each rule of occasion waiting, and one for '
  'idleness. When it is due and the session has changed, it has no effect.';
comment on column public.gre_timers.session_id is 'The session.';
comment on column public.gre_timers.rule_id is 'The rule (gre_auto_replies), without a foreign key; null for idleness.';
comment on column public.gre_timers.kind is
  'waiting: send the rule''s message if the player still waits. idle_warning: warn that the session will be closed. '
  'idle_close: close it.';
comment on column public.gre_timers.due_at is 'Time from which it fires.';
comment on column public.gre_timers.seq is
  'waiting: seq of the question. Otherwise: seq of the last message; a later one makes the timer void.';
alter table public.gre_timers enable row level security;
revoke all on public.gre_timers from public, anon, authenticated, service_role;

-- Start the timer for idleness of a session from its last message, if the settings want one. p_changed: the settings
-- have changed. Then a session whose warning would be more than 5 minutes old is closed without one.
create function gre.arm_idle(
  p_session public.gre_chat_sessions, p_settings public.gre_chat_settings, p_changed boolean default false
) returns void
language sql volatile set search_path = '' as $$
  insert into public.gre_timers as t (session_id, kind, due_at, seq)
  select p_session.id,
    case when p_settings.idle_warn_after is null or x.silent then 'idle_close' else 'idle_warning' end,
    case when x.silent then clock_timestamp() + p_settings.idle_close_after
      else p_session.last_message_at + coalesce(p_settings.idle_warn_after, p_settings.idle_close_after) end,
    p_session.last_seq
  from (select p_changed and coalesce(p_session.last_message_at + p_settings.idle_warn_after
                                      < clock_timestamp() - interval '5 minutes', false) as silent) x
  where p_session.last_message_at is not null
    and (p_settings.idle_warn_after is not null and not x.silent or p_settings.idle_close_after is not null)
  on conflict (session_id, rule_id) do update set kind = excluded.kind, due_at = excluded.due_at, seq = excluded.seq
$$;

create table gre.idle_change (
  single boolean primary key default true check (single),
  waits_for text[],
  after_player_id bigint not null default 0,
  skipped bigint[] not null default '{}'
);
comment on table gre.idle_change is
  'A change of idle_warn_after or idle_close_after that workers have not applied to all open sessions yet. At most one '
  'row.';
comment on column gre.idle_change.single is 'Limits the table to one row.';
comment on column gre.idle_change.waits_for is
  'Virtual ids of the transactions that wrote messages when a worker first saw the change: they can have read the '
  'older settings. Null while no worker has seen it.';
comment on column gre.idle_change.after_player_id is 'The change is applied to the sessions of players up to this one.';
comment on column gre.idle_change.skipped is 'Except the sessions of these players, which were locked.';
alter table gre.idle_change enable row level security;
revoke all on gre.idle_change from public, anon, authenticated, service_role;

-- Note a change of the settings.
create function gre.settings_arm_idle() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into gre.idle_change default values
  on conflict (single) do update set waits_for = null, after_player_id = 0, skipped = '{}';
  return null;
end $$;
create trigger gre_arm_idle after update on public.gre_chat_settings
  for each row when (new.idle_warn_after is distinct from old.idle_warn_after
                     or new.idle_close_after is distinct from old.idle_close_after)
  execute function gre.settings_arm_idle();

-- After a change of the settings, start the timers of open sessions that are answered, in the order of their players:
-- at most 500 of them, each under its lock. Begins when the transactions have ended that wrote messages at the time of
-- the change: such a transaction may answer a session without a timer. Sessions that another transaction has locked are
-- tried again. Returns the time in seconds after which to call it again; null if nothing is left.
create function gre.apply_idle_change() returns numeric
language plpgsql volatile set search_path = '' as $$
declare
  v_change gre.idle_change;
  v_settings public.gre_chat_settings;
  v_session public.gre_chat_sessions;
  v_writers text[];
  v_page bigint[];
  v_done bigint[] := '{}';
begin
  select * into v_change from gre.idle_change for update skip locked;
  if not found then
    return case when exists (select from gre.idle_change) then 1 end;
  end if;
  v_writers := array(
    select distinct l.virtualtransaction from pg_locks l
    where l.locktype = 'relation' and l.relation = 'public.gre_chat_messages'::regclass
      and l.mode = 'RowExclusiveLock' and l.granted and l.pid is distinct from pg_backend_pid()
      and l.database = (select d.oid from pg_database d where d.datname = current_database()));
  if v_change.waits_for is null then
    v_change.waits_for := v_writers;
  end if;
  if v_change.waits_for && v_writers then
    update gre.idle_change set waits_for = v_change.waits_for where single;
    return 1;
  end if;
  select * into v_settings from public.gre_chat_settings;
  v_page := array(
    select s.player_id from public.gre_chat_sessions s
    where s.status <> 'closed' and s.player_id > v_change.after_player_id
    order by s.player_id limit 500 - cardinality(v_change.skipped));
  for v_session in
    select * from public.gre_chat_sessions s
    where s.player_id = any (v_page || v_change.skipped) and s.status <> 'closed' for no key update skip locked
  loop
    v_done := v_done || v_session.player_id;
    delete from public.gre_timers t where t.session_id = v_session.id and t.rule_id is null;
    if v_session.waiting_since is null then
      perform gre.arm_idle(v_session, v_settings, true);
    end if;
  end loop;
  v_change.skipped := array(
    select s.player_id from public.gre_chat_sessions s
    where s.player_id = any (v_page || v_change.skipped) and s.player_id <> all (v_done) and s.status <> 'closed');
  if v_page = '{}' and v_change.skipped = '{}' then
    delete from gre.idle_change where single;
    return null;
  end if;
  update gre.idle_change set waits_for = v_change.waits_for, skipped = v_change.skipped,
    after_player_id = coalesce(v_page[cardinality(v_page)], v_change.after_player_id)
  where single;
  return case when v_page = '{}' then 1 else 0.1 end;
end $$;

-- Start the rules for messages of a player in one session: p_seq and p_at are seq and time of the first one.
create function gre.start_auto_replies(p_session public.gre_chat_sessions, p_seq bigint, p_at timestamptz) returns void
language plpgsql volatile set search_path = '' as $$
declare
  v_occasions text[] := array['closed_hours', 'nobody_online'];
  v_rule public.gre_auto_replies;
  v_question bigint;
  v_asked constant boolean := coalesce(p_session.waiting_since >= p_at, false);
begin
  if p_session.cycle = 1 then
    if p_seq = 1 then
      v_occasions := v_occasions || 'opened'::text;
    end if;
  elsif p_seq = 1 + (select e.after_seq from public.gre_chat_events e
                     where e.session_id = p_session.id and e.kind = 'reopened' order by e.rev desc limit 1) then
    v_occasions := v_occasions || 'reopened'::text;
  end if;
  v_rule := gre.choose_auto_reply(v_occasions, clock_timestamp());
  if v_asked or v_rule.id is not null then
    v_question := gre.question_seq(p_session);
  end if;
  if v_asked then
    insert into public.gre_timers as t (session_id, rule_id, kind, due_at, seq)
    select p_session.id, r.id, 'waiting', d.due_at, v_question
    from public.gre_auto_replies r
    cross join public.gre_chat_settings s
    cross join lateral gre.after_open(
      coalesce(r.hours, s.hours), p_session.waiting_since, extract(epoch from r.wait)) d (due_at)
    where r.active and r.occasion = 'waiting' and d.due_at is not null
      and coalesce(r.valid_from <= d.due_at, true) and coalesce(r.valid_to > d.due_at, true)
    on conflict (session_id, rule_id) do update set due_at = excluded.due_at, seq = excluded.seq;
  end if;
  if v_rule.id is not null then
    -- An error of this rule must not drop the timers of the others.
    begin
      perform gre.send_auto_reply(v_rule, p_session, v_question);
    exception when others then
      raise warning 'gre-bridge: the auto-reply of session % failed (%)', p_session.id, sqlstate;
    end;
  end if;
end $$;

-- Start rules for messages of players, and the timer for idleness for messages of staff. A back end that imports
-- messages can set "quiet" in their metadata. Most statements find no rule and return at once.
create function gre.messages_auto_reply() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_settings public.gre_chat_settings;
  v_session public.gre_chat_sessions;
  v record;
begin
  if current_setting('gre.auto_depth', true) <> '' then
    return null; -- caused by an auto-reply
  elsif exists (select from inserted where sender = 'staff') then
    select * into v_settings from public.gre_chat_settings;
    if v_settings.idle_warn_after is not null or v_settings.idle_close_after is not null then
      perform gre.arm_idle(s, v_settings) from public.gre_chat_sessions s
      where s.id in (select session_id from inserted where sender = 'staff')
        and s.status <> 'closed' and s.waiting_since is null;
    end if;
  end if;
  if not exists (select from public.gre_auto_replies r
                 where r.active and r.occasion not in ('idle_warning', 'idle_close')) then
    return null;
  end if;
  perform set_config('gre.auto_depth', (pg_trigger_depth() + 1)::text, true);
  for v in
    select i.session_id, min(i.seq) as seq, min(i.created_at) as at from inserted i
    where i.sender = 'player'
      and not (i.metadata @> '{"quiet": true}' and (gre.current_actor()).role = 'service')
    group by i.session_id order by i.session_id
  loop
    -- An error must not refuse the player's message.
    begin
      select * into v_session from public.gre_chat_sessions s where s.id = v.session_id;
      if v_session.status <> 'closed' then -- a trigger of the project can close it
        perform gre.start_auto_replies(v_session, v.seq, v.at);
      end if;
    exception when others then
      raise warning 'gre-bridge: the auto-replies of session % failed (%)', v.session_id, sqlstate;
    end;
  end loop;
  perform set_config('gre.auto_depth', '', true);
  return null;
end $$;

select gre.lock_tables();
create trigger gre_8_auto_reply after insert on public.gre_chat_messages
  referencing new table as inserted for each statement execute function gre.messages_auto_reply();

-- By a worker ---------------------------------------------------------------------------------------------

-- Fire or drop a due timer of a session that the caller has locked. A message that was due before p_late_before is
-- skipped. Returns what was done: sent, skipped, failed, closed.
create function gre.fire_timer(p_timer public.gre_timers, p_late_before timestamptz) returns text[]
language plpgsql volatile set search_path = '' as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_settings public.gre_chat_settings;
  v_session public.gre_chat_sessions;
  v_rule public.gre_auto_replies;
  v_due timestamptz;
  v_key bigint;
  v_done text;
begin
  delete from public.gre_timers t
  where t.session_id = p_timer.session_id and t.rule_id is not distinct from p_timer.rule_id;
  select * into v_session from public.gre_chat_sessions s where s.id = p_timer.session_id;
  if v_session.status = 'closed' then
    return '{}';
  elsif p_timer.kind = 'waiting' then
    select * into v_rule from public.gre_auto_replies r
    where r.id = p_timer.rule_id and r.active and r.occasion = 'waiting'
      and coalesce(r.valid_from <= v_now, true) and coalesce(r.valid_to > v_now, true);
    if found and v_session.waiting_since is not null and gre.question_seq(v_session) = p_timer.seq then
      -- The rule, or the opening hours, may have changed since the timer was started.
      v_due := gre.after_open(coalesce(v_rule.hours, (select s.hours from public.gre_chat_settings s)),
                              v_session.waiting_since, extract(epoch from v_rule.wait));
      if v_due <= v_now then
        v_done := gre.send_auto_reply(v_rule, v_session, p_timer.seq, v_due < p_late_before);
      elsif v_due is not null then
        insert into public.gre_timers (session_id, rule_id, kind, due_at, seq)
        values (p_timer.session_id, p_timer.rule_id, 'waiting', v_due, p_timer.seq);
      end if;
    end if;
    return array_remove(array[v_done], null);
  elsif v_session.waiting_since is not null then
    return '{}'; -- the next answer starts it again
  end if;
  select * into v_settings from public.gre_chat_settings;
  if p_timer.kind = 'idle_close' and v_settings.idle_warn_after is not null
    and exists (select from gre.idle_change) then
    -- The timer may be one of the older settings, without a warning.
    perform gre.arm_idle(v_session, v_settings, true);
    return '{}';
  elsif v_session.last_seq <> p_timer.seq
    or p_timer.kind = 'idle_warning'
      and coalesce(v_session.last_message_at + v_settings.idle_warn_after > v_now, true)
    or p_timer.kind = 'idle_close'
      and coalesce(v_session.last_message_at + v_settings.idle_close_after > v_now, true) then
    perform gre.arm_idle(v_session, v_settings);
    return '{}';
  end if;
  v_rule := gre.choose_auto_reply(array[p_timer.kind], v_now);
  if v_rule.id is not null then
    -- A warning is never too late: the time until the closing begins with it. The key is the last message that is no
    -- auto-reply: a warning that is followed by a change of the settings is not repeated.
    select m.seq into v_key from public.gre_chat_messages m
    where m.session_id = v_session.id and m.origin <> 'auto' order by m.seq desc limit 1;
    -- An error of the text must not keep the session open.
    begin
      v_done := gre.send_auto_reply(v_rule, v_session, coalesce(v_key, p_timer.seq),
                                    p_timer.due_at < p_late_before and p_timer.kind <> 'idle_warning');
    exception
      when lock_not_available or deadlock_detected then
        raise;
      when others then
        raise warning 'gre-bridge: the auto-reply of session % failed (%)', v_session.id, sqlstate;
        v_done := 'failed';
    end;
  end if;
  if p_timer.kind = 'idle_close' then
    update public.gre_chat_sessions set status = 'closed', closed_by = 'idle' where id = v_session.id;
    return array_remove(array[v_done, 'closed'], null);
  elsif v_settings.idle_close_after is not null then
    insert into public.gre_timers (session_id, kind, due_at, seq)
    select s.id, 'idle_close', clock_timestamp() + v_settings.idle_close_after, s.last_seq
    from public.gre_chat_sessions s where s.id = v_session.id;
  end if;
  return array_remove(array[v_done], null);
end $$;

create function public.gre_tick_v1(p_limit integer default 50, p_late_after numeric default 300) returns jsonb
language plpgsql volatile security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off
set lock_timeout = '2s' as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_limit constant integer := least(greatest(coalesce(p_limit, 50), 1), 200);
  v_late constant timestamptz :=
    v_now - least(greatest(coalesce(p_late_after, 300), 0), 86400) * interval '1 second';
  v_due uuid[];
  v_sessions uuid[];
  v_staff text[];
  v_done text[] := '{}';
  v_handled integer := 0;
  v_timer public.gre_timers;
  v_apply_in numeric;
begin
  perform gre.require_worker();
  v_due := array(select t.session_id from public.gre_timers t where t.due_at <= v_now order by t.due_at limit v_limit);
  if v_due <> '{}' then
    select coalesce(array_agg(x.id), '{}'), array_agg(x.assigned_staff_id) into v_sessions, v_staff
    from (
      select s.id, s.assigned_staff_id from public.gre_chat_sessions s
      where s.id = any (v_due) for no key update skip locked) x;
    if exists (select from public.gre_timers t
               where t.session_id = any (v_sessions) and t.due_at <= v_now and t.kind = 'idle_close') then
      perform from (
        select from public.gre_staff_load where staff_id = any (v_staff) order by staff_id for no key update) x;
    end if;
    for v_timer in
      select * from public.gre_timers t where t.session_id = any (v_sessions) and t.due_at <= v_now
      order by t.due_at, t.session_id
    loop
      -- An error of one timer must not end the call.
      begin
        v_done := v_done || gre.fire_timer(v_timer, v_late);
        v_handled := v_handled + 1;
      exception
        when lock_not_available or deadlock_detected then
          null; -- the next call fires it
        when others then
          raise warning 'gre-bridge: a timer of session % failed (%)', v_timer.session_id, sqlstate;
          -- A session that could not be closed is tried again: else it would be open until staff write.
          if v_timer.rule_id is null then
            update public.gre_timers t set due_at = v_now + interval '1 hour'
            where t.session_id = v_timer.session_id and t.rule_id is null;
          else
            delete from public.gre_timers t
            where t.session_id = v_timer.session_id and t.rule_id is not distinct from v_timer.rule_id;
          end if;
          v_done := v_done || 'failed'::text;
          v_handled := v_handled + 1;
      end;
    end loop;
  end if;
  v_apply_in := gre.apply_idle_change(); -- last, since it locks many sessions
  return jsonb_build_object(
    'enabled', v_apply_in is not null or exists (select from public.gre_timers) or exists (
        select from public.gre_chat_settings s where s.idle_warn_after is not null or s.idle_close_after is not null)
      or exists (select from public.gre_auto_replies r where r.active and r.occasion = 'waiting'),
    'next_in', least(v_apply_in, (
      select round(extract(epoch from min(t.due_at) - clock_timestamp()), 3) from public.gre_timers t)),
    'handled', v_handled,
    'sent', cardinality(array_positions(v_done, 'sent')), 'skipped', cardinality(array_positions(v_done, 'skipped')),
    'closed', cardinality(array_positions(v_done, 'closed')),
    'failed', cardinality(array_positions(v_done, 'failed')));
end $$;
comment on function public.gre_tick_v1 is
  'Fires the due timers of at most p_limit sessions, the oldest first: {"enabled": false if nothing can start a timer, '
  '"next_in": seconds until the next one is due, null if there is none, "handled": number of due timers that fired or '
  'failed, "sent", "skipped", "closed", "failed": numbers of their effects}. A message that is due for longer than '
  'p_late_after seconds is skipped, unless it is a warning. Sessions that another transaction has locked are left to '
  'the next call: then "next_in" is not positive. For workers.';

revoke execute on function gre.arm_idle, gre.settings_arm_idle, gre.apply_idle_change, gre.start_auto_replies,
  gre.messages_auto_reply, gre.fire_timer from public;
revoke execute on function public.gre_tick_v1 from public, anon, authenticated, service_role;
grant execute on function public.gre_tick_v1 to service_role;
