-- Foundation: schema gre and the helpers that the other files use. Changes no table of the project.
--
-- The files are applied in the order of their names, each in one transaction:
--   foundation   schema, locks, errors, text, time
--   adoption     checks and functions that turn the tables of a live project into the tables of this schema
--   tables       sessions, messages, presence, pushes, players, staff, settings
--   identity     the caller: from the token, or from the row that maps its user
--   messages     runs the adoption; rules and triggers of the chat's tables
--   outbox       sinks, lanes and deliveries; enqueue, claim, settle, extend, release; wake-ups
--   operations   workers, status, dead letters, replay, reconcile, expire, prune
--   users        functions of players, staff and back ends
--   desk         functions of the staff's console
--   hub          functions of the API's sockets
--   access       row-level security, grants on tables, Realtime, the worker's role
--
-- Every function of schema gre is internal. Functions whose name ends in _v1 are called by workers: a change of their
-- contract gets a new version, so that workers of two releases can use one database.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Refuse a database that has a gre-bridge already. `gre-bridge migrate --dry-run` runs this statement, too.
do $check$
declare
  v_problem text := 'gre-bridge is installed here already, but not recorded in supabase_migrations.schema_migrations: '
    'record its files there with `gre-bridge migrate --record`';
begin
  if to_regprocedure('public.gre_schema_version()') is not null then
    if to_regprocedure('public.gre_relay_leave_v1(uuid)') is null then
      v_problem := 'a gre-bridge from before 0.1.0 is installed here, and there is no way on from it: '
        'start with a new database, or restore a backup that was made before';
    end if;
    raise exception using errcode = 'GRE01', message = 'cannot adopt: ' || v_problem, detail = v_problem;
  end if;
end $check$;

create schema if not exists gre;
comment on schema gre is 'Internals of gre-bridge. Not exposed over the API.';
revoke all on schema gre from public;
grant usage on schema gre to anon, authenticated, service_role;

-- Role gre_worker: a token with "role": "gre_worker", signed with the project's key, can stand for SUPABASE_SERVICE_KEY
-- in a worker. gre_access grants what a worker needs, and nothing else.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'gre_worker') then
    create role gre_worker nologin noinherit;
  end if;
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    grant gre_worker to authenticator;
  end if;
exception when insufficient_privilege then
  raise notice 'gre-bridge: could not create role gre_worker (%); the service key does the same', sqlerrm;
end $$;

-- Locks ---------------------------------------------------------------------------------------------------

-- Lock the chat's tables for the rest of the transaction, or fail within `lock_timeout` and name the sessions that hold
-- them. Writes of portals queue behind a lock that is waited for, so the caller retries instead of waiting.
create function gre.lock_tables() returns void
language plpgsql set search_path = '' as $$
declare
  -- Messages first, as portals' writes do.
  v_tables constant text[] := array['gre_chat_messages', 'gre_chat_sessions', 'gre_online_status',
                                    'push_notifications'];
  v_names text;
  v_holders text;
  v_all_autovacuum boolean;
  v_timeout constant text := current_setting('lock_timeout');
  v_began timestamptz;
begin
  select string_agg(format('public.%I', t), ', ' order by n) into v_names
  from unnest(v_tables) with ordinality x (t, n) where to_regclass('public.' || t) is not null;
  if v_names is null then
    return;
  end if;
  for v_try in 1 .. 2 loop
    v_began := clock_timestamp();
    begin
      execute 'lock table ' || v_names || ' in access exclusive mode';
      perform set_config('lock_timeout', v_timeout, true);
      return;
    exception when lock_not_available or deadlock_detected then
      select string_agg(case when h.pid is null then 'a prepared transaction'
          else format('pid %s (%s)', h.pid, concat_ws(', ', a.usename, nullif(a.application_name, ''),
            nullif(a.backend_type, 'client backend'), a.state,
            'since ' || to_char(a.xact_start at time zone 'UTC', 'HH24:MI:SS') || ' UTC')) end,
          '; ' order by a.xact_start),
        coalesce(bool_and(a.backend_type = 'autovacuum worker'), false)
        into v_holders, v_all_autovacuum
      from (select distinct l.pid from pg_catalog.pg_locks l
            where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
              and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
              and l.relation in (select to_regclass('public.' || t) from unnest(v_tables) t)) h
      left join pg_catalog.pg_stat_activity a on a.pid = h.pid
      -- Who came later waited behind us, and has the lock only since we gave up.
      where h.pid is null or coalesce(a.xact_start, v_began) <= v_began and a.state is distinct from 'idle';
      -- An autovacuum gives way to whoever has waited for deadlock_timeout, one second.
      if v_all_autovacuum and v_try = 1 then
        perform set_config('lock_timeout', '1500ms', true);
        continue;
      end if;
      raise exception using errcode = 'lock_not_available',
        message = 'gre-bridge: the chat''s tables are in use' || coalesce(' by ' || v_holders, ''),
        hint = 'Nothing of this file was applied. Apply it again, at a quieter time or when these transactions have '
          'ended.';
    end;
  end loop;
end $$;

-- A first try: `supabase db push`, which applies each file in a transaction of its own, fails before any change.
select gre.lock_tables();

-- Errors --------------------------------------------------------------------------------------------------

-- Raise an error that PostgREST turns into an HTTP status. The code goes into HINT, for programs.
create function gre.raise_http(p_status integer, p_code text, p_message text, p_detail text default null) returns void
language plpgsql set search_path = '' as $$
begin
  if p_detail is null then
    raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code;
  end if;
  raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code, detail = p_detail;
end $$;

-- Raise the error of a row-level security policy. BEFORE triggers run before the policies: a trigger that knows that a
-- policy will refuse the row refuses it with the same words.
create function gre.raise_row_denied(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = '42501',
    message = format('new row violates row-level security policy for table "%s"', p_table);
end $$;

-- Time ----------------------------------------------------------------------------------------------------

-- Format a time as the API does. PL/pgSQL keeps the plan; SQL functions are planned again in each statement.
create function gre.iso(p_time timestamptz) returns text
language plpgsql stable parallel safe set search_path = '' as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end $$;

-- Format a position in the order (created_at, id). The inverse is split_part(text, '_', 1 or 2).
create function gre.format_cursor(p_at timestamptz, p_id uuid) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '_' || p_id
$$;

-- Text ----------------------------------------------------------------------------------------------------

-- Return true if the text has a visible character. Not visible: spaces, controls, joiners, direction marks, fillers,
-- variation selectors, tags. PL/pgSQL keeps its plans. Most texts have a printable ASCII character, which is cheap to
-- find.
create function gre.has_text(p_text text) returns boolean
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  return p_text ~ '[!-~]'
    or p_text ~ ('[^[:space:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f'
    '\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb'
    '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a'
    '\U000e0000-\U000e0fff]');
end $$;

-- Clean a name for lists and pushes: one line of at most 80 characters, without control characters, bidi embeddings and
-- overrides, unbalanced isolates and tags. U+200C and U+200D stay: names (Sinhala, Malayalam, Persian) and emoji need
-- them. Null if nothing visible is left.
create function gre.clean_name(p_name text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_blank constant text :=
    '[[:space:]\u00a0\u00ad\u115f\u1160\u1680\u180e\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]+';
  v_name text := left(p_name, 400); -- first, so that no expression below runs over megabytes
  v_open integer := 0;
  v_char text;
begin
  if v_name is null or octet_length(v_name) <= 80 and v_name ~ '^[!-~]([ -~]*[!-~])?$' then
    return v_name; -- printable ASCII: nothing to remove
  end if;
  v_name := regexp_replace(v_name,
    '[\u0001-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb\U000e0000-\U000e007f]',
    '', 'g');
  v_name := left(regexp_replace(v_name, '^' || v_blank || '|' || v_blank || '$', '', 'g'), 80);
  if v_name ~ '[\u2066-\u2069]' then
    foreach v_char in array regexp_split_to_array(v_name, '') loop
      v_open := v_open
        + case ascii(v_char) when 8297 then -1 when 8294 then 1 when 8295 then 1 when 8296 then 1 else 0 end;
      exit when v_open < 0;
    end loop;
    if v_open <> 0 then
      v_name := regexp_replace(v_name, '[\u2066-\u2069]', '', 'g');
    end if;
  end if;
  return case when gre.has_text(v_name) then btrim(v_name) end;
end $$;

-- Key under which two names look the same to people: without case, width, blanks, punctuation and invisible characters,
-- with Cyrillic and Greek letters as the Latin letters that they look like.
create function gre.name_key(p_name text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select translate(regexp_replace(lower(normalize(left(p_name, 400), nfkc)),
      '[[:space:][:punct:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f'
      '\u2000-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]', '', 'g'),
    'авеѕікмнорстухјԁɡαεικνορτυχ0', 'abesikmhopctyxjdgaeikvoptuxo')
$$;

-- Return true if a user's jsonb may be stored: at most p_bytes of text, 32 levels, numbers within the range of a double
-- (1e131071 is 9 characters on the way in and 131,072 on the way out).
-- PL/pgSQL, because the planner would evaluate every branch of an SQL case for a constant, whatever its size.
create function gre.json_fits(p_json jsonb, p_bytes integer) returns boolean
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_json is null or p_json = '{}' then
    return true;
  elsif pg_column_size(p_json) > 8 * p_bytes + 1024 or jsonb_path_exists(p_json, 'strict $.**{33 to last}') then
    return false;
  elsif jsonb_path_exists(p_json, 'strict $.** ? (@.type() == "number"'
    ' && (@ > 1e308 || @ < -1e308 || (@ < 1e-300 && @ > -1e-300 && @ != 0)))') then
    return false;
  end if;
  return octet_length(p_json::text) <= p_bytes;
end $$;

-- Parse a player's id, or return null. JavaScript holds whole numbers up to 2^53 - 1: beyond that, two ids would be one
-- player in every page.
create function gre.parse_player_id(p_text text) returns bigint
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_text ~ '^[1-9][0-9]{0,15}$' and p_text::bigint <= 9007199254740991 then
    return p_text::bigint;
  end if;
  return null;
end $$;

revoke execute on all functions in schema gre from public;
grant execute on function gre.raise_http, gre.raise_row_denied, gre.iso, gre.has_text, gre.clean_name, gre.name_key,
  gre.json_fits to authenticated, service_role;
