-- Who is calling: from the verified JWT, or from the row that maps its user. Every rule asks here.
set local lock_timeout = '300ms';

create type gre.actor as (role text, player_id bigint, staff_id text);
comment on type gre.actor is 'role: service (the portals'' back end, the worker, a direct connection), admin, staff, player or none';

-- A refusal that PostgREST turns into an HTTP status: one plain line, the machine-readable code in HINT.
create function gre.refuse(p_status integer, p_code text, p_message text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code;
end $$;

create function gre.iso(p_time timestamptz) returns text
language sql stable parallel safe set search_path = '' as $$
  select to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- Names are shown in lists and pushes: one line, no control characters, nothing that turns text around.
create function gre.clean_name(p_name text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select nullif(left(btrim(regexp_replace(p_name,
    '[\u0001-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]', '', 'g')), 80), '')
$$;

create function gre.who() returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_role text := v_claims ->> 'role';
  v_app jsonb := v_claims -> 'app_metadata';
  v_user uuid;
  v_staff public.gre_staff;
  v_player bigint;
begin
  -- Without claims it is a direct connection (psql, a migration, a cron job). PostgREST always sets claims.
  if v_role = 'service_role' or (v_claims is null and session_user <> 'authenticator') then
    return row('service', null, null)::gre.actor;
  end if;
  if v_role is distinct from 'authenticated' then
    return row('none', null, null)::gre.actor;
  end if;
  if (v_claims ->> 'sub') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    v_user := (v_claims ->> 'sub')::uuid;
  end if;

  if v_app ->> 'gre_role' in ('staff', 'admin') then
    if coalesce(v_app ->> 'staff_id', '') = '' then
      return row('none', null, null)::gre.actor;
    end if;
    if exists (select from public.gre_staff where staff_id = v_app ->> 'staff_id' and not active) then
      return row('none', null, null)::gre.actor;
    end if;
    return row(v_app ->> 'gre_role', null, v_app ->> 'staff_id')::gre.actor;
  elsif v_app ->> 'gre_role' = 'player' then
    if (v_app ->> 'player_id') ~ '^[1-9][0-9]{0,17}$' then
      return row('player', (v_app ->> 'player_id')::bigint, null)::gre.actor;
    end if;
    return row('none', null, null)::gre.actor;
  end if;

  if v_user is not null then
    select * into v_staff from public.gre_staff where user_id = v_user;
    if found then
      if not v_staff.active then
        return row('none', null, null)::gre.actor;
      end if;
      return row(v_staff.role, null, v_staff.staff_id)::gre.actor;
    end if;
    select player_id into v_player from public.gre_chat_players where user_id = v_user;
    if found then
      return row('player', v_player, null)::gre.actor;
    end if;
  end if;
  return row('none', null, null)::gre.actor;
end $$;

-- For policies: `(select gre.is_staff())` is evaluated once per statement.
create function gre.is_staff() returns boolean
language sql stable set search_path = '' as $$
  select (gre.who()).role in ('staff', 'admin')
$$;
create function gre.is_admin() returns boolean
language sql stable set search_path = '' as $$
  select (gre.who()).role = 'admin'
$$;
create function gre.my_player_id() returns bigint
language sql stable set search_path = '' as $$
  select (gre.who()).player_id
$$;
create function gre.my_staff_id() returns text
language sql stable set search_path = '' as $$
  select (gre.who()).staff_id
$$;

create function public.gre_whoami() returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('role', w.role, 'player_id', w.player_id, 'staff_id', w.staff_id,
    'expires_at', (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'exp')::numeric)
  from gre.who() w
$$;
comment on function public.gre_whoami() is
  'Who the caller is: role (service, admin, staff, player, none), player_id or staff_id, expires_at (unix seconds).';

revoke execute on all functions in schema gre from public;
grant execute on function gre.who(), gre.is_staff(), gre.is_admin(), gre.my_player_id(), gre.my_staff_id()
  to anon, authenticated, service_role;
revoke execute on function public.gre_whoami() from public, anon, authenticated, service_role;
grant execute on function public.gre_whoami() to anon, authenticated, service_role;
