-- Identity: the caller of a statement, from the verified JWT or from the row that maps its user. Every rule asks here.
set local lock_timeout = '300ms';

create type gre.actor as (role text, player_id bigint, staff_id text);
comment on type gre.actor is
  'role: service (a back end, the worker, a direct connection), admin, staff, player or none';

-- Return the actor that a Supabase Auth user is mapped to.
create function gre.mapped_actor(p_user uuid) returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_staff public.gre_staff;
  v_player bigint;
begin
  select * into v_staff from public.gre_staff where user_id = p_user;
  if found then
    return case when v_staff.active then row(v_staff.role, null, v_staff.staff_id)::gre.actor
                else row('none', null, null)::gre.actor end;
  end if;
  select player_id into v_player from public.gre_chat_players
  where user_id = p_user and player_id between 1 and 9007199254740991;
  return case when v_player is not null then row('player', v_player, null)::gre.actor
              else row('none', null, null)::gre.actor end;
end $$;

-- Return the current actor. The service key may act for one person, named in the header X-GRE-Act-As; PostgREST passes
-- the headers in `request.headers`, and only the service key gives this one a meaning.
--
-- Staff are active rows of gre_staff. A token's claim counts without a row only while the table is empty, so that a
-- project whose tokens name its staff can start. The header never counts without a row: nobody signed it.
create function gre.current_actor() returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_role text := v_claims ->> 'role';
  v_app jsonb := v_claims -> 'app_metadata';
  v_said text := v_app ->> 'gre_role';
  v_nobody constant gre.actor := row('none', null, null)::gre.actor;
  v_act_as text;
  v_staff public.gre_staff;
  v_player bigint;
begin
  -- Without claims it is a direct connection (psql, a migration, a cron job). PostgREST always sets claims.
  if v_claims is null and session_user <> 'authenticator' then
    return row('service', null, null)::gre.actor;
  end if;
  if v_role = 'service_role' then
    v_act_as := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-gre-act-as';
    if v_act_as is null then
      return row('service', null, null)::gre.actor;
    elsif starts_with(v_act_as, 'player:') then
      v_player := gre.parse_player_id(substr(v_act_as, 8));
      return case when v_player is null then v_nobody else row('player', v_player, null)::gre.actor end;
    elsif starts_with(v_act_as, 'staff:') then
      select * into v_staff from public.gre_staff where staff_id = substr(v_act_as, 7) and active;
      return case when not found then v_nobody else row(v_staff.role, null, v_staff.staff_id)::gre.actor end;
    end if;
    return v_nobody;
  end if;
  if v_role is distinct from 'authenticated' then
    return v_nobody;
  end if;

  if v_said in ('staff', 'admin') then
    if coalesce(char_length(v_app ->> 'staff_id'), 0) not between 1 and 128 then
      return v_nobody;
    end if;
    select * into v_staff from public.gre_staff where staff_id = v_app ->> 'staff_id';
    if (case when found then not v_staff.active else exists (select from public.gre_staff) end) then
      return v_nobody;
    end if;
    return row(v_said, null, v_app ->> 'staff_id')::gre.actor;
  elsif v_said = 'player' then
    v_player := gre.parse_player_id(v_app ->> 'player_id');
    return case when v_player is null then v_nobody else row('player', v_player, null)::gre.actor end;
  end if;

  if (v_claims ->> 'sub') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return gre.mapped_actor((v_claims ->> 'sub')::uuid);
  end if;
  return v_nobody;
end $$;

-- Return the current actor, or raise the error that says what is missing.
create function gre.require_actor() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_actor gre.actor := gre.current_actor();
  v_role text;
begin
  if v_actor.role = 'none' then
    v_role := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role';
    if v_role = 'service_role' then
      if starts_with(nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-gre-act-as', 'staff:') then
        perform gre.raise_http(403, 'act_as_required',
                               'X-GRE-Act-As names nobody of the active staff (a row of gre_staff)');
      end if;
      perform gre.raise_http(403, 'act_as_required', 'the service key speaks for nobody without X-GRE-Act-As: '
        'player:<id> or staff:<id> (of active staff)');
    elsif v_role is distinct from 'authenticated' then
      perform gre.raise_http(401, 'not_authenticated', 'a user''s token is required');
    end if;
    perform gre.raise_http(403, 'no_identity', 'this user is neither a player nor active staff');
  end if;
  return v_actor;
end $$;

create function gre.require_staff() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_actor gre.actor := gre.require_actor();
begin
  if v_actor.role not in ('staff', 'admin', 'service') then
    perform gre.raise_http(403, 'staff_only', 'only staff may do this');
  end if;
  return v_actor;
end $$;

create function gre.require_admin() returns gre.actor
language plpgsql stable set search_path = '' as $$
declare
  v_actor gre.actor := gre.require_actor();
begin
  if v_actor.role not in ('admin', 'service') then
    perform gre.raise_http(403, 'admin_only', 'only an admin may do this');
  end if;
  return v_actor;
end $$;

-- Raise an error unless a worker calls. A grant of execute is not enough: a project can give it away with one "grant …
-- on all functions". A worker's token has the role service_role, or gre_worker except for the operator's functions; a
-- direct connection must be a member of the role that owns this function.
create function gre.require_worker(p_operator boolean default false) returns void
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims text := nullif(current_setting('request.jwt.claims', true), '');
  v_role text := v_claims::json ->> 'role';
begin
  if v_claims is null then
    if session_user <> 'authenticator' and pg_has_role(session_user, current_user, 'member') then
      return;
    end if;
  elsif v_role = 'service_role' or v_role = 'gre_worker' and not p_operator then
    return;
  end if;
  if coalesce(v_role, 'anon') = 'anon' then
    perform gre.raise_http(401, 'service_only', 'only the service key may do this');
  end if;
  perform gre.raise_http(403, 'service_only', 'only the service key may do this');
end $$;

-- For policies: `(select gre.is_staff())` is evaluated once per statement.
create function gre.is_staff() returns boolean
language sql stable set search_path = '' as $$
  select (gre.current_actor()).role in ('staff', 'admin')
$$;

create function gre.is_admin() returns boolean
language sql stable set search_path = '' as $$
  select (gre.current_actor()).role = 'admin'
$$;

create function gre.my_player_id() returns bigint
language sql stable set search_path = '' as $$
  select (gre.current_actor()).player_id
$$;

create function gre.my_staff_id() returns text
language sql stable set search_path = '' as $$
  select (gre.current_actor()).staff_id
$$;

-- Security definer: anon calls it, too.
create function public.gre_whoami() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('role', w.role, 'player_id', w.player_id, 'staff_id', w.staff_id,
    'display_name', coalesce(p.display_name, s.display_name),
    'chat_enabled', case when w.role = 'player' then coalesce(p.chat_enabled, true) end,
    'user_id', case when c.claims ->> 'role' = 'authenticated' and w.role <> 'none'
        and coalesce(c.claims -> 'app_metadata' ->> 'gre_role', '') not in ('player', 'staff', 'admin')
      then c.claims ->> 'sub' end,
    'expires_at', (c.claims ->> 'exp')::numeric)
  from gre.current_actor() w
  cross join (select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims) c
  left join public.gre_chat_players p on p.player_id = w.player_id
  left join public.gre_staff s on s.staff_id = w.staff_id
$$;
comment on function public.gre_whoami is
  'The caller: role (service, admin, staff, player, none), player_id or staff_id, display_name, chat_enabled '
  '(players), user_id (of a user that a row maps; null if the token itself has the identity), expires_at (unix '
  'seconds).';

revoke execute on all functions in schema gre from public;
revoke execute on function public.gre_whoami from public, anon, authenticated, service_role;
grant execute on function gre.current_actor, gre.is_staff, gre.is_admin, gre.my_player_id, gre.my_staff_id,
  public.gre_whoami to anon, authenticated, service_role;
grant execute on function gre.require_actor, gre.require_staff to authenticated, service_role;
