-- Settings of the staff's desk, and the functions with which admins change them and the opening hours.
-- Depends on gre_foundation, gre_identity, gre_messages (gre.presence), gre_outbox (gre.notify_workers) and gre_hours.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_chat_settings (
  single boolean primary key default true constraint gre_chat_settings_single_check check (single),
  assignment text not null default 'off'
    constraint gre_chat_settings_assignment_check check (assignment in ('off', 'round_robin', 'least_busy')),
  max_sessions smallint constraint gre_chat_settings_max_sessions_check check (max_sessions between 1 and 1000),
  returning_within interval,
  offline_after interval not null default '2 minutes',
  idle_warn_after interval,
  idle_close_after interval,
  first_reply_goal interval,
  reply_goal interval,
  goals_in_hours boolean not null default true,
  hours text references public.gre_hours on update cascade,
  rating_enabled boolean not null default false,
  updated_at timestamptz not null default now(),
  constraint gre_chat_settings_intervals_check check (
    returning_within between interval '1 second' and interval '366 days'
    and offline_after between interval '0' and interval '366 days'
    and idle_warn_after between interval '1 second' and interval '366 days'
    and idle_close_after between interval '1 second' and interval '366 days'
    and first_reply_goal between interval '1 second' and interval '366 days'
    and reply_goal between interval '1 second' and interval '366 days')
);
create index gre_chat_settings_hours on public.gre_chat_settings (hours);
insert into public.gre_chat_settings default values;
comment on table public.gre_chat_settings is 'Settings of the staff''s desk. One row. Admins change it.';
comment on column public.gre_chat_settings.single is 'Limits the table to one row.';
comment on column public.gre_chat_settings.assignment is
  'Automatic assignment. off: none. round_robin: to the eligible person whose last assignment is the oldest. '
  'least_busy: to the eligible person with the fewest open sessions.';
comment on column public.gre_chat_settings.max_sessions is
  'Number of open sessions of a staff member at which automatic assignment stops; null: no limit. '
  'gre_staff.max_sessions has precedence.';
comment on column public.gre_chat_settings.returning_within is
  'A player who returns within this time is assigned to the staff member of the last assignment, if eligible; null: '
  'no preference.';
comment on column public.gre_chat_settings.offline_after is
  'Time after which the waiting sessions of a staff member who is offline return to the queue. Applies while '
  'assignment is not off.';
comment on column public.gre_chat_settings.idle_warn_after is
  'Time without a message after which the player is warned that the session will be closed; null: no warning.';
comment on column public.gre_chat_settings.idle_close_after is
  'Time after the warning at which the session is closed; null: never.';
comment on column public.gre_chat_settings.first_reply_goal is 'Goal for the first reply time; null: none.';
comment on column public.gre_chat_settings.reply_goal is 'Goal for the reply time; null: none.';
comment on column public.gre_chat_settings.goals_in_hours is 'True: goals count open hours only.';
comment on column public.gre_chat_settings.hours is 'The opening hours of the desk; null: always open.';
comment on column public.gre_chat_settings.rating_enabled is 'True: players can rate a closed session.';
comment on column public.gre_chat_settings.updated_at is 'Time of the last change.';
alter table public.gre_chat_settings enable row level security;
revoke all on public.gre_chat_settings from public, anon, authenticated, service_role;

create function gre.settings_before_update() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end $$;
create trigger gre_before_update before update on public.gre_chat_settings
  for each row execute function gre.settings_before_update();

-- Broadcast a wake-up: a worker applies the new settings at once.
create function gre.settings_after_update() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform gre.notify_workers(null);
  return null;
end $$;
create trigger gre_after_update after update on public.gre_chat_settings
  for each row execute function gre.settings_after_update();

-- Seconds -------------------------------------------------------------------------------------------------

-- Return the whole seconds from a time to a later one; 0 if it is not later: times of one statement are not in the
-- order of seq where triggers of the project insert messages.
create function gre.whole_seconds(p_from timestamptz, p_to timestamptz) returns integer
language plpgsql immutable strict parallel safe set search_path = '' as $$
begin
  -- A time that was adopted can be infinite, or older than an integer holds.
  return least(greatest(floor(extract(epoch from p_to) - extract(epoch from p_from)), 0), 2147483647);
end $$;

-- Return the same in the desk's opening hours, of at most the last 1000 days. PL/pgSQL, stable: the hours are read in
-- the snapshot of the calling statement.
create function gre.desk_seconds(p_from timestamptz, p_to timestamptz) returns integer
language plpgsql stable strict set search_path = '' as $$
declare
  v_hours constant text := (select s.hours from public.gre_chat_settings s);
begin
  if v_hours is null then
    return gre.whole_seconds(p_from, p_to);
  end if;
  -- Each day costs time in the transaction that ends the wait.
  return floor(gre.open_seconds(v_hours, greatest(p_from, p_to - interval '1000 days'), p_to));
end $$;

-- Settings ------------------------------------------------------------------------------------------------

-- Return the settings as the API does: intervals as numbers of seconds.
create function gre.settings_json(p public.gre_chat_settings) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('assignment', p.assignment, 'max_sessions', p.max_sessions,
      'goals_in_hours', p.goals_in_hours, 'hours', p.hours, 'rating_enabled', p.rating_enabled)
    || jsonb_object_agg(i.name, trim_scale(extract(epoch from i.value)))
  from (values ('returning_within', p.returning_within), ('offline_after', p.offline_after),
    ('idle_warn_after', p.idle_warn_after), ('idle_close_after', p.idle_close_after),
    ('first_reply_goal', p.first_reply_goal), ('reply_goal', p.reply_goal)) i (name, value)
$$;

create function public.gre_get_settings() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  perform gre.require_staff();
  return (select gre.settings_json(s) from public.gre_chat_settings s);
end $$;
comment on function public.gre_get_settings is
  'Returns the settings of the desk: {"assignment", "max_sessions", "returning_within", "offline_after", '
  '"idle_warn_after", "idle_close_after", "first_reply_goal", "reply_goal", "goals_in_hours", "hours", '
  '"rating_enabled"}, intervals in seconds. Staff only.';

create function public.gre_set_settings(p_settings jsonb) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_intervals constant text[] := array['returning_within', 'offline_after', 'idle_warn_after', 'idle_close_after',
                                       'first_reply_goal', 'reply_goal'];
  v_settings public.gre_chat_settings;
begin
  perform gre.require_admin();
  if jsonb_typeof(p_settings) is distinct from 'object' then
    perform gre.raise_http(400, 'settings_invalid', 'settings must be an object');
  end if;
  select * into v_settings from public.gre_chat_settings for no key update;
  if not gre.settings_json(v_settings) ?& array(select jsonb_object_keys(p_settings)) then
    perform gre.raise_http(400, 'settings_invalid', 'settings has a key that is no setting');
  elsif exists (select from jsonb_each(p_settings) e
                where e.key = any (v_intervals) and jsonb_typeof(e.value) not in ('number', 'null')) then
    perform gre.raise_http(400, 'settings_invalid', 'intervals must be numbers of seconds');
  end if;
  begin
    v_settings := jsonb_populate_record(v_settings, (
      select coalesce(jsonb_object_agg(e.key, case when e.key = any (v_intervals) and jsonb_typeof(e.value) = 'number'
          then to_jsonb((e.value #>> '{}') || ' seconds') else e.value end), '{}')
      from jsonb_each(p_settings) e));
    update public.gre_chat_settings s set assignment = v_settings.assignment, max_sessions = v_settings.max_sessions,
      returning_within = v_settings.returning_within, offline_after = v_settings.offline_after,
      idle_warn_after = v_settings.idle_warn_after, idle_close_after = v_settings.idle_close_after,
      first_reply_goal = v_settings.first_reply_goal, reply_goal = v_settings.reply_goal,
      goals_in_hours = v_settings.goals_in_hours, hours = v_settings.hours,
      rating_enabled = v_settings.rating_enabled
    returning * into v_settings;
  exception
    when foreign_key_violation then
      perform gre.raise_http(404, 'hours_unknown', 'there are no such opening hours');
    when data_exception or check_violation or not_null_violation then
      perform gre.raise_http(400, 'settings_invalid', 'a setting has a value that is not allowed');
  end;
  return gre.settings_json(v_settings);
end $$;
comment on function public.gre_set_settings is
  'Changes the given settings of the desk, and returns all of them (see gre_get_settings). Intervals are numbers of '
  'seconds. For admins.';

-- Opening hours -------------------------------------------------------------------------------------------

-- Return opening hours as the API does: times as HH:MM, 24:00 for the end of the day, null for closed. Without what is
-- over: the version of the week that applies today and later ones, and days from today on.
create function gre.hours_json(p_name text) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('name', h.name, 'timezone', h.timezone,
    'week', (
      select coalesce(jsonb_agg(jsonb_build_object('weekday', w.weekday, 'opens', to_char(w.opens, 'HH24:MI'),
          'closes', to_char(w.closes, 'HH24:MI'), 'valid_from', w.valid_from)
        order by w.valid_from, w.weekday, w.opens), '[]')
      from public.gre_hours_week w
      where w.hours = h.name and w.valid_from >= coalesce((
        select max(v.valid_from) from public.gre_hours_week v where v.hours = h.name and v.valid_from <= t.today),
        t.today)),
    'dates', (
      select coalesce(jsonb_agg(jsonb_build_object('day', d.day, 'label', d.label, 'opens', to_char(d.opens, 'HH24:MI'),
          'closes', to_char(d.closes, 'HH24:MI'))
        order by d.day, d.opens), '[]')
      from public.gre_hours_dates d where d.hours = h.name and d.day >= t.today))
  from public.gre_hours h
  cross join lateral (select (clock_timestamp() at time zone h.timezone)::date as today) t
  where h.name = p_name
$$;

create function public.gre_list_hours() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  perform gre.require_staff();
  return (select coalesce(jsonb_agg(gre.hours_json(h.name) order by h.name), '[]') from public.gre_hours h);
end $$;
comment on function public.gre_list_hours is
  'Lists the opening hours: [{"name", "timezone", "week": [{"weekday": 1..7, "opens", "closes", "valid_from"}], '
  '"dates": [{"day", "label", "opens", "closes"}]}]. Times are local. "week" has the version that applies today and '
  'later ones, "dates" the days from today on. Staff only.';

create function public.gre_get_hours(p_name text) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_hours jsonb;
begin
  perform gre.require_staff();
  v_hours := gre.hours_json(p_name);
  if v_hours is null then
    perform gre.raise_http(404, 'hours_unknown', 'there are no such opening hours');
  end if;
  return v_hours;
end $$;
comment on function public.gre_get_hours is 'Returns opening hours by name, as gre_list_hours does. Staff only.';

create function public.gre_set_hours(
  p_name text, p_timezone text, p_week jsonb default '[]', p_dates jsonb default '[]', p_new boolean default null
) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_today date;
begin
  perform gre.require_admin();
  if jsonb_typeof(p_week) is distinct from 'array' or jsonb_typeof(p_dates) is distinct from 'array'
    or jsonb_array_length(p_week) > 500 or jsonb_array_length(p_dates) > 1000 then
    perform gre.raise_http(400, 'hours_invalid', 'week and dates must be arrays of at most 500 and 1000 entries');
  end if;
  if not exists (select from public.gre_hours where name = p_name)
    and (select count(*) from public.gre_hours) >= 100 then
    perform gre.raise_http(400, 'hours_invalid', 'there can be at most 100 opening hours');
  end if;
  begin
    if p_new then
      insert into public.gre_hours (name, timezone) values (p_name, p_timezone) on conflict (name) do nothing;
      if not found then
        perform gre.raise_http(409, 'hours_exist', 'there are opening hours with this name');
      end if;
    elsif not p_new and not exists (select from public.gre_hours where name = p_name for no key update) then
      perform gre.raise_http(404, 'hours_unknown', 'there are no such opening hours');
    end if;
    insert into public.gre_hours as h (name, timezone) values (p_name, p_timezone)
    on conflict (name) do update set timezone = excluded.timezone
    returning (clock_timestamp() at time zone h.timezone)::date into v_today;
    -- Entries of days that are over stay; an argument that repeats them is accepted.
    delete from public.gre_hours_week w where w.hours = p_name and w.valid_from >= v_today;
    insert into public.gre_hours_week (hours, valid_from, weekday, opens, closes)
    select p_name, x.valid_from, x.weekday, x.opens, x.closes
    from (
      select coalesce(e.valid_from, v_today) as valid_from, e.weekday, e.opens, e.closes
      from jsonb_to_recordset(p_week) e (weekday smallint, opens time, closes time, valid_from date)) x
    where not exists (
      select from public.gre_hours_week w
      where w.hours = p_name and w.valid_from = x.valid_from and w.weekday = x.weekday
        and w.opens is not distinct from x.opens and w.closes is not distinct from x.closes and x.valid_from < v_today);
    delete from public.gre_hours_dates d where d.hours = p_name and d.day >= v_today;
    insert into public.gre_hours_dates (hours, day, label, opens, closes)
    select p_name, x.day, x.label, x.opens, x.closes
    from jsonb_to_recordset(p_dates) x (day date, label text, opens time, closes time)
    where not exists (
      select from public.gre_hours_dates d
      where d.hours = p_name and d.day = x.day and d.opens is not distinct from x.opens
        and d.closes is not distinct from x.closes and x.day < v_today);
  exception when data_exception or check_violation or not_null_violation or unique_violation then
    perform gre.raise_http(400, 'hours_invalid', 'the name or an entry of the opening hours is not valid');
  end;
  return gre.hours_json(p_name);
end $$;
comment on function public.gre_set_hours is
  'Creates opening hours, or replaces their entries from today on, and returns them (see gre_list_hours). An entry of '
  'the week without valid_from applies from today. Entries of days that are over cannot be changed. p_new: true only '
  'creates, false only replaces (409 hours_exist, 404 hours_unknown). For admins.';

create function public.gre_delete_hours(p_name text) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_hours jsonb;
begin
  perform gre.require_admin();
  v_hours := public.gre_get_hours(p_name);
  delete from public.gre_hours where name = p_name;
  return v_hours;
exception when foreign_key_violation then
  perform gre.raise_http(409, 'hours_in_use', 'these opening hours are in use');
end $$;
comment on function public.gre_delete_hours is
  'Deletes opening hours, and returns what they were. 409 hours_in_use while a setting refers to them. For admins.';

create function public.gre_get_desk() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_end constant timestamptz := v_now + interval '8 days';
  v_hours text;
  v_timezone text;
  v_ranges tstzmultirange;
  v_open boolean;
begin
  perform gre.require_actor();
  select s.hours, h.timezone into v_hours, v_timezone
  from public.gre_chat_settings s left join public.gre_hours h on h.name = s.hours;
  -- Each day costs time, and pages ask often: gre.open_until would look ahead for years at a desk that never closes.
  v_ranges := gre.open_ranges(v_hours, v_now, v_end);
  v_open := v_ranges @> v_now;
  return jsonb_build_object(
    'open', v_open,
    'opens_at', case when not v_open then gre.iso(coalesce(lower(v_ranges), gre.next_open(v_hours, v_now))) end,
    'closes_at', (select gre.iso(upper(r)) from unnest(v_ranges) r where r @> v_now and upper(r) < v_end),
    'timezone', v_timezone,
    'now', gre.iso(v_now),
    'staff', (
      select coalesce(jsonb_agg(jsonb_build_object('staff_id', p.staff_id, 'display_name', p.name, 'status', p.status)
        order by p.status desc, p.name, p.staff_id), '[]')
      from (
        select o.staff_id, coalesce(t.display_name, o.display_name) as name,
          gre.presence(o.status, o.last_seen_at, o.expires_at) as status
        from public.gre_online_status o left join public.gre_staff t on t.staff_id = o.staff_id
        where o.status <> 'offline' and o.staff_id is not null and coalesce(t.active, true)
      ) p
      where p.status <> 'offline'));
end $$;
comment on function public.gre_get_desk is
  'Returns what players may know of the desk: {"open": inside the opening hours now, "opens_at": the next opening '
  'while it is closed, else null (also null if there is none within 400 days), "closes_at": the time until which it '
  'stays open, null while it is closed or if it stays open for 8 days, "timezone": of the opening hours, null without '
  'them, "now", "staff": [{"staff_id", "display_name", "status": online | away}]}. For every actor.';

revoke execute on function gre.settings_before_update, gre.settings_after_update, gre.whole_seconds, gre.desk_seconds,
  gre.settings_json, gre.hours_json from public;
revoke execute on function public.gre_get_settings, public.gre_set_settings, public.gre_list_hours,
  public.gre_get_hours, public.gre_set_hours, public.gre_delete_hours, public.gre_get_desk
  from public, anon, authenticated, service_role;
grant execute on function public.gre_get_settings, public.gre_set_settings, public.gre_list_hours,
  public.gre_get_hours, public.gre_set_hours, public.gre_delete_hours, public.gre_get_desk
  to authenticated, service_role;
