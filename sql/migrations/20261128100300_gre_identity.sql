-- Identity: the actor of a statement, read from the verified JWT or from the row that maps its user. All checks of
-- permissions use these functions.
-- Depends on gre_foundation (errors, player ids) and gre_tables (gre_chat_players, gre_staff).
set local lock_timeout = '300ms';

create type gre.actor as (role text, player_id bigint, staff_id text);
comment on type gre.actor is
  'role: service (a back end, a worker or a direct connection), admin, staff, player or none. player_id is set for '
  'players, staff_id for staff and admins.';

-- Return the actor to whom a Supabase Auth user is mapped; role none if there is no mapping.
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

-- Return the current actor. With the service key, the header X-GRE-Act-As selects one person as the actor; with other
-- tokens it is ignored. PostgREST passes the headers in the setting request.headers.
--
-- Staff need an active row in gre_staff. While that table is empty, the claims of a token suffice, so that a new
-- project whose tokens carry the claims can start. X-GRE-Act-As always needs a row, since it is not signed.
create function gre.current_actor() returns gre.actor
language plpgsql stable security definer set search_path = '' as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_role text := v_claims ->> 'role';
  v_app jsonb := v_claims -> 'app_metadata';
  v_gre_role text := v_app ->> 'gre_role';
  v_none constant gre.actor := row('none', null, null)::gre.actor;
  v_act_as text;
  v_staff public.gre_staff;
  v_player bigint;
begin
  -- No claims: a direct connection (psql, a migration, a cron job). PostgREST always sets claims.
  if v_claims is null and session_user <> 'authenticator' then
    return row('service', null, null)::gre.actor;
  end if;
  if v_role = 'service_role' then
    v_act_as := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-gre-act-as';
    if v_act_as is null then
      return row('service', null, null)::gre.actor;
    elsif starts_with(v_act_as, 'player:') then
      v_player := gre.parse_player_id(substr(v_act_as, 8));
      return case when v_player is null then v_none else row('player', v_player, null)::gre.actor end;
    elsif starts_with(v_act_as, 'staff:') then
      select * into v_staff from public.gre_staff where staff_id = substr(v_act_as, 7) and active;
      return case when not found then v_none else row(v_staff.role, null, v_staff.staff_id)::gre.actor end;
    end if;
    return v_none;
  end if;
  if v_role is distinct from 'authenticated' then
    return v_none;
  end if;

  if v_gre_role in ('staff', 'admin') then
    if coalesce(char_length(v_app ->> 'staff_id'), 0) not between 1 and 128 then
      return v_none;
    end if;
    select * into v_staff from public.gre_staff where staff_id = v_app ->> 'staff_id';
    if (case when found then not v_staff.active else exists (select from public.gre_staff) end) then
      return v_none;
    end if;
    return row(v_gre_role, null, v_app ->> 'staff_id')::gre.actor;
  elsif v_gre_role = 'player' then
    v_player := gre.parse_player_id(v_app ->> 'player_id');
    return case when v_player is null then v_none else row('player', v_player, null)::gre.actor end;
  end if;

  if (v_claims ->> 'sub') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return gre.mapped_actor((v_claims ->> 'sub')::uuid);
  end if;
  return v_none;
end $$;

-- Return the current actor. Raise 401 or 403 if its role is none.
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
                               'X-GRE-Act-As names no active staff member (no such active row in gre_staff)');
      end if;
      perform gre.raise_http(403, 'act_as_required',
                             'the service key needs X-GRE-Act-As: player:<id> or staff:<id> (of active staff)');
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

-- Raise 401 or 403 unless the caller is a worker or an operator: role service_role, role gre_worker (not for functions
-- of the operator), or a direct connection as a member of the role that owns this function. The check is in addition to
-- the grants, which one `grant execute on all functions` of the project would widen.
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

-- For policies, which write `(select gre.is_staff())`: a subquery is evaluated once per statement.
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

-- Security definer, since anon may call it.
create function public.gre_whoami(p_required boolean default false) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  if p_required then
    perform gre.require_actor();
  end if;
  return (
    select jsonb_build_object('role', a.role, 'player_id', a.player_id, 'staff_id', a.staff_id,
      'display_name', coalesce(p.display_name, s.display_name),
      'chat_enabled', case when a.role = 'player' then
        coalesce(p.chat_enabled, true) or coalesce(p.blocked_until <= clock_timestamp(), false) end,
      'user_id', case when c.claims ->> 'role' = 'authenticated' and a.role <> 'none'
          and coalesce(c.claims -> 'app_metadata' ->> 'gre_role', '') not in ('player', 'staff', 'admin')
        then c.claims ->> 'sub' end,
      'expires_at', (c.claims ->> 'exp')::numeric)
      || case when a.role = 'player' and (select t.rating_enabled from public.gre_chat_settings t)
           then '{"rating_enabled": true}' else '{}' end::jsonb
    from gre.current_actor() a
    cross join (select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims) c
    left join public.gre_chat_players p on p.player_id = a.player_id
    left join public.gre_staff s on s.staff_id = a.staff_id);
end $$;
comment on function public.gre_whoami is
  'Returns the current actor: {"role": service | admin | staff | player | none, "player_id", "staff_id", '
  '"display_name", "chat_enabled" (players), "user_id" (of a user mapped by a row; null if the token itself carries '
  'the identity), "expires_at" (of the token, Unix seconds), "rating_enabled" (true for players who can rate closed '
  'sessions, else absent)}. p_required: refuses a caller that is nobody.';

revoke execute on all functions in schema gre from public;
revoke execute on function public.gre_whoami from public, anon, authenticated, service_role;
grant execute on function gre.current_actor, gre.is_staff, gre.is_admin, gre.my_player_id, gre.my_staff_id,
  public.gre_whoami to anon, authenticated, service_role;
grant execute on function gre.require_actor, gre.require_staff to authenticated, service_role;
