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

-- A refusal in the words of row-level security, for a row that its policies would refuse after the BEFORE triggers have run.
create function gre.refuse_row(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = '42501', message = format('new row violates row-level security policy for table "%s"', p_table);
end $$;

-- Whether there is anything to see: spaces, controls, joiners, marks of direction, fillers, variation selectors and tags are not.
-- (PL/pgSQL, which keeps its plans: a function with settings is not inlined. Most texts have a printable ASCII character, and the long
-- class of characters is for the others.)
create function gre.has_text(p_text text) returns boolean
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  return p_text ~ '[!-~]' or p_text ~ ('[^[:space:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f'
    '\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a'
    '\U000e0000-\U000e0fff]');
end $$;

-- Names are shown in lists and pushes: one line of at most 80 characters, without what deceives: control characters, bidi
-- embeddings and overrides, isolates that are not closed, tags. The joiners U+200C and U+200D belong to the spelling of names
-- (Sinhala, Malayalam, Persian) and to emoji. Null where nothing is left to be seen.
create function gre.clean_name(p_name text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_blank constant text := '[[:space:]\u00a0\u00ad\u115f\u1160\u1680\u180e\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]+';
  v_name text := left(p_name, 400); -- first, so that no expression below runs over megabytes
  v_open integer := 0;
  v_char text;
begin
  if v_name is null or octet_length(v_name) <= 80 and v_name ~ '^[!-~]([ -~]*[!-~])?$' then
    return v_name; -- printable ASCII: nothing to remove
  end if;
  v_name := regexp_replace(v_name,
    '[\u0001-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb\U000e0000-\U000e007f]', '', 'g');
  v_name := left(regexp_replace(v_name, '^' || v_blank || '|' || v_blank || '$', '', 'g'), 80);
  if v_name ~ '[\u2066-\u2069]' then
    foreach v_char in array regexp_split_to_array(v_name, '') loop
      v_open := v_open + case ascii(v_char) when 8297 then -1 when 8294 then 1 when 8295 then 1 when 8296 then 1 else 0 end;
      exit when v_open < 0;
    end loop;
    if v_open <> 0 then
      v_name := regexp_replace(v_name, '[\u2066-\u2069]', '', 'g');
    end if;
  end if;
  return case when gre.has_text(v_name) then btrim(v_name) end;
end $$;

-- What two names have in common that people would take for one: without case, width, blanks, punctuation and what cannot be seen,
-- and with Cyrillic and Greek letters as the Latin ones that they look like.
create function gre.name_key(p_name text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select translate(regexp_replace(lower(normalize(left(p_name, 400), nfkc)),
      '[[:space:][:punct:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2000-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]', '', 'g'),
    'авеѕікмнорстухјԁɡαεικνορτυχ0', 'abesikmhopctyxjdgaeikvoptuxo')
$$;

-- Whether a user's jsonb may be stored: at most p_bytes of text, 32 levels deep, and only numbers that a double can hold (1e131071
-- is nine characters on the way in and 131,072 on the way out).
-- (PL/pgSQL: in SQL the planner would work out every branch of a case for a value that it knows, whatever its size.)
create function gre.json_fits(p_json jsonb, p_bytes integer) returns boolean
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_json is null or p_json = '{}' then
    return true;
  elsif pg_column_size(p_json) > 8 * p_bytes + 1024 or jsonb_path_exists(p_json, 'strict $.**{33 to last}') then
    return false;
  elsif jsonb_path_exists(p_json, 'strict $.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308 || (@ < 1e-300 && @ > -1e-300 && @ != 0)))') then
    return false;
  end if;
  return octet_length(p_json::text) <= p_bytes;
end $$;

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
