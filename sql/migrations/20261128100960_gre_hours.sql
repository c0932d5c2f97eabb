-- Opening hours: tables, checks, and the functions that compute with them. gre_settings has the functions that change
-- them. Depends on gre_foundation (gre.raise_http).
--
-- Entries are local times of a time zone, so daylight saving is PostgreSQL's business: a local time that a change of
-- clocks skips counts as the time an hour later, and one that occurs twice as the second one ("at time zone").
-- A null name of hours means: always open.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_hours (
  name text primary key constraint gre_hours_name_check check (name ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
  timezone text not null constraint gre_hours_timezone_size check (char_length(timezone) <= 64),
  updated_at timestamptz not null default now()
);
comment on table public.gre_hours is 'Opening hours. Rules and goals refer to them by name.';
comment on column public.gre_hours.name is 'The name: lower case letters, digits, - and _, at most 40.';
comment on column public.gre_hours.timezone is
  'Name of the IANA time zone in which the entries are local times, such as Europe/Malta.';
comment on column public.gre_hours.updated_at is 'Time of the last change.';

create table public.gre_hours_week (
  hours text not null references public.gre_hours on update cascade on delete cascade,
  valid_from date not null,
  weekday smallint not null constraint gre_hours_week_weekday_check check (weekday between 1 and 7),
  opens time,
  closes time,
  constraint gre_hours_week_unique unique nulls not distinct (hours, valid_from, weekday, opens),
  constraint gre_hours_week_valid_from_check check (isfinite(valid_from)),
  constraint gre_hours_week_times_check check ((opens is null) = (closes is null) and opens < time '24:00'
    and extract(second from opens) = 0 and extract(second from closes) = 0)
);
comment on table public.gre_hours_week is
  'The weekly entries. All entries with one valid_from are one version of the week; it applies to the days from '
  'valid_from on, until the next version. Days before the first version are open all day.';
comment on column public.gre_hours_week.hours is 'The opening hours.';
comment on column public.gre_hours_week.valid_from is 'First day of this version. Not in the past.';
comment on column public.gre_hours_week.weekday is '1 Monday ... 7 Sunday. A day can have several entries.';
comment on column public.gre_hours_week.opens is
  'Local time of opening: whole minutes, before 24:00. Null: no entry on this day.';
comment on column public.gre_hours_week.closes is
  'Local time of closing. Not later than opens: on the next day. 24:00 is the end of the day.';

create table public.gre_hours_dates (
  hours text not null references public.gre_hours on update cascade on delete cascade,
  day date not null,
  label text constraint gre_hours_dates_label_size check (char_length(label) <= 80),
  opens time,
  closes time,
  constraint gre_hours_dates_unique unique nulls not distinct (hours, day, opens),
  constraint gre_hours_dates_day_check check (isfinite(day)),
  constraint gre_hours_dates_times_check check ((opens is null) = (closes is null) and opens < time '24:00'
    and extract(second from opens) = 0 and extract(second from closes) = 0)
);
comment on table public.gre_hours_dates is
  'Entries of single days, such as holidays. They replace the entries of the week.';
comment on column public.gre_hours_dates.hours is 'The opening hours.';
comment on column public.gre_hours_dates.day is 'The day. Not in the past.';
comment on column public.gre_hours_dates.label is 'The reason, for people.';
comment on column public.gre_hours_dates.opens is
  'Local time of opening: whole minutes, before 24:00. Null: closed all day.';
comment on column public.gre_hours_dates.closes is
  'Local time of closing. Not later than opens: on the next day. 24:00 is the end of the day.';

alter table public.gre_hours enable row level security;
alter table public.gre_hours_week enable row level security;
alter table public.gre_hours_dates enable row level security;
revoke all on public.gre_hours, public.gre_hours_week, public.gre_hours_dates
  from public, anon, authenticated, service_role;

-- Checks --------------------------------------------------------------------------------------------------

create function gre.hours_check() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- "at time zone" reads a name that is an abbreviation, too (CET), as a fixed offset.
  if not exists (select from pg_catalog.pg_timezone_names z where z.name = new.timezone)
    or new.timezone not in ('UTC', 'GMT')
      and exists (select from pg_catalog.pg_timezone_abbrevs a where a.abbrev = upper(new.timezone)) then
    perform gre.raise_http(400, 'timezone_unknown',
      'timezone must be the name of an IANA time zone, such as Europe/Malta');
  elsif tg_op = 'UPDATE' and new.timezone <> old.timezone and exists (
    select from public.gre_hours_week w where w.hours = old.name and w.valid_from <= current_date + 1
  ) then
    -- The days that have been counted would move.
    perform gre.raise_http(409, 'hours_counted', 'the time zone of hours that apply already cannot be changed');
  end if;
  new.updated_at := clock_timestamp();
  return new;
end $$;
create trigger gre_1_check before insert or update on public.gre_hours
  for each row execute function gre.hours_check();

-- Refuse changes of days that are over: what was counted by these hours stays counted.
create function gre.hours_entries_check() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_old date;
  v_new date;
  v_hours text;
  v_today date;
begin
  if tg_op <> 'INSERT' then
    v_hours := old.hours;
    v_old := coalesce(to_jsonb(old) ->> 'valid_from', to_jsonb(old) ->> 'day')::date;
  end if;
  if tg_op <> 'DELETE' then
    v_hours := new.hours;
    v_new := coalesce(to_jsonb(new) ->> 'valid_from', to_jsonb(new) ->> 'day')::date;
  end if;
  select (clock_timestamp() at time zone h.timezone)::date into v_today
  from public.gre_hours h where h.name = v_hours;
  -- Not found: the hours themselves are being deleted.
  if least(v_old, v_new) < v_today then
    perform gre.raise_http(409, 'hours_in_the_past', 'opening hours of days that are over cannot be changed');
  end if;
  return coalesce(new, old);
end $$;
create trigger gre_1_check before insert or update or delete on public.gre_hours_week
  for each row execute function gre.hours_entries_check();
create trigger gre_1_check before insert or update or delete on public.gre_hours_dates
  for each row execute function gre.hours_entries_check();

-- Ranges --------------------------------------------------------------------------------------------------

-- Return the range from a local time of a day to another, which is on the next day unless it is later.
-- Empty where a change of clocks leaves nothing between them. PL/pgSQL, see gre.iso: a message can ask for open hours.
create function gre.local_range(p_day date, p_opens time, p_closes time, p_timezone text) returns tstzrange
language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_opens constant timestamptz := (p_day + p_opens) at time zone p_timezone;
  v_closes constant timestamptz :=
    (p_day + case when p_closes > p_opens then 0 else 1 end + p_closes) at time zone p_timezone;
begin
  return tstzrange(least(v_opens, v_closes), v_closes);
end $$;

-- Return the open ranges between two times.
create function gre.open_ranges(p_hours text, p_from timestamptz, p_to timestamptz) returns tstzmultirange
language plpgsql stable parallel safe
-- A custom plan would be made in each call: its estimate of the number of days is always better than a generic one's.
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_timezone text;
  v_found tstzmultirange;
begin
  if p_from >= p_to then
    return '{}';
  elsif p_hours is null then
    return tstzmultirange(tstzrange(p_from, p_to));
  end if;
  select h.timezone into v_timezone from public.gre_hours h where h.name = p_hours;
  if not found then
    perform gre.raise_http(404, 'hours_unknown', 'there are no such opening hours');
  end if;
  select range_agg(x.open) into v_found
  from (
    -- From the day before, whose entries may run into the first day.
    select generate_series((p_from at time zone v_timezone)::date - 1,
                           (p_to at time zone v_timezone)::date, interval '1 day')::date as day
  ) d
  cross join lateral (
    select max(w.valid_from) as version from public.gre_hours_week w
    where w.hours = p_hours and w.valid_from <= d.day
  ) v
  cross join lateral (
    select gre.local_range(d.day, s.opens, s.closes, v_timezone) as open
    from public.gre_hours_dates s
    where s.hours = p_hours and s.day = d.day and s.opens is not null
    union all
    select gre.local_range(d.day, w.opens, w.closes, v_timezone)
    from public.gre_hours_week w
    where w.hours = p_hours and w.valid_from = v.version and w.weekday = extract(isodow from d.day)
      and w.opens is not null
      and not exists (select from public.gre_hours_dates s where s.hours = p_hours and s.day = d.day)
    union all
    select gre.local_range(d.day, time '00:00', time '24:00', v_timezone)
    where v.version is null
      and not exists (select from public.gre_hours_dates s where s.hours = p_hours and s.day = d.day)
  ) x;
  return coalesce(v_found, '{}') * tstzmultirange(tstzrange(p_from, p_to));
end $$;

-- Return how many seconds between two times are open.
create function gre.open_seconds(p_hours text, p_from timestamptz, p_to timestamptz) returns numeric
language sql stable parallel safe set search_path = '' as $$
  select coalesce(sum(extract(epoch from upper(r) - lower(r))), 0)
  from unnest(gre.open_ranges(p_hours, p_from, p_to)) r
$$;

-- Return true if the hours are open at this time.
create function gre.open_at(p_hours text, p_at timestamptz) returns boolean
language plpgsql stable parallel safe set search_path = '' as $$
begin
  return gre.open_ranges(p_hours, p_at, p_at + interval '1 microsecond') @> p_at;
end $$;

-- Return the first open time from p_at on; null if there is none within 400 days.
create function gre.next_open(p_hours text, p_at timestamptz) returns timestamptz
language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_days integer := 8;
  v_found timestamptz;
begin
  loop
    v_found := lower(gre.open_ranges(p_hours, p_at, p_at + v_days * interval '1 day'));
    if v_found is not null or v_days >= 400 then
      return v_found;
    end if;
    v_days := least(v_days * 8, 400);
  end loop;
end $$;

-- Return the time until which the hours stay open from p_at on; null if they are closed then, or stay open for 400
-- days.
create function gre.open_until(p_hours text, p_at timestamptz) returns timestamptz
language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_days integer := 2;
  v_found timestamptz;
begin
  if p_hours is null or not gre.open_at(p_hours, p_at) then
    return null;
  end if;
  loop
    select upper(r) into v_found
    from unnest(gre.open_ranges(p_hours, p_at, p_at + v_days * interval '1 day')) r where r @> p_at;
    if v_found < p_at + v_days * interval '1 day' then
      return v_found;
    elsif v_days >= 400 then
      return null;
    end if;
    v_days := least(v_days * 8, 400);
  end loop;
end $$;

-- Return the time at which so many open seconds have passed since p_at; null if that takes more than 400 days.
create function gre.after_open(p_hours text, p_at timestamptz, p_seconds numeric) returns timestamptz
language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_days integer := 2;
  v_left numeric;
  v_range tstzrange;
  v_length numeric;
begin
  if p_hours is null then
    return p_at + p_seconds * interval '1 second';
  end if;
  loop
    v_left := p_seconds;
    for v_range in
      select r from unnest(gre.open_ranges(p_hours, p_at, p_at + v_days * interval '1 day')) r order by lower(r)
    loop
      v_length := extract(epoch from upper(v_range) - lower(v_range));
      if v_left < v_length then
        return lower(v_range) + v_left * interval '1 second';
      end if;
      v_left := v_left - v_length;
    end loop;
    if v_days >= 400 then
      return null;
    end if;
    v_days := least(v_days * 8, 400);
  end loop;
end $$;

revoke execute on function gre.hours_check, gre.hours_entries_check, gre.local_range, gre.open_ranges,
  gre.open_seconds, gre.open_at, gre.next_open, gre.open_until, gre.after_open from public;
