-- Foundation: schema gre, role gre_worker, and the helper functions that the other files use. Depends on no other file.
-- Changes no table of the project.
--
-- The files are applied in the order of their names, each in one transaction:
--   foundation   schema, role of the worker, helpers: locks, errors, time, text
--   adoption     checks and functions that convert the tables of a live project to this schema
--   tables       sessions, messages, presence, pushes, players, staff, settings
--   identity     the current actor, read from the token or from the row that maps its user
--   messages     runs the adoption; triggers of the chat's tables
--   outbox       sinks, lanes and deliveries; wake-ups; enqueue, claim, settle, extend, release
--   operations   workers, status, dead letters, replay, reconcile, expire, prune
--   users        functions for players, staff and back ends
--   desk         functions for the staff's console
--   hub          functions for the API's sockets
--   story        what happened to each session: an append-only list of events
--   hours        opening hours
--   settings     settings of the staff's desk; functions that change them and the hours
--   notes        private notes of staff
--   blocks       blocks of players: reason, author, end
--   search       search of messages
--   figure_tables tables that reports are functions of
--   figure_check a check that computes their rows again
--   assignment   who has which session; staff and their load; automatic assignment
--   figures      triggers that write these tables; ratings
--   templates    texts that staff send often; the renderer of placeholders
--   auto_replies rules for messages that the server writes by itself
--   reports      figures by hour, day, week, month or person; the sessions behind each
--   export       messages, events and figures, page by page in the order of time
--   timers       what a worker does with a session at a later time
--   files        files in the chat: announced, stored, bound to a message, deleted
--   storage      bucket, policies and triggers of Supabase Storage
--   media        examinations and deletions of files, by workers
--   access       row-level security, grants on tables, Realtime, grants of role gre_worker
--
-- All functions in schema gre are internal. Workers call the functions whose names end in _v1. A change of such a
-- contract gets a new version, so that workers of two releases can share a database.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

-- Raise an error if gre-bridge is already installed. `gre-bridge migrate --dry-run` also runs this statement.
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

-- Create role gre_worker. A worker can use a token with "role": "gre_worker", signed with the project's key, instead of
-- SUPABASE_SERVICE_KEY. gre_access grants the role the minimal privileges of a worker.
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

-- Lock the chat's tables until the end of the transaction. After lock_timeout, raise an error that names the database
-- sessions that hold conflicting locks. The timeout is short, since portals' writes queue behind a pending lock: the
-- caller retries.
create function gre.lock_tables() returns void
language plpgsql set search_path = '' as $$
declare
  -- Messages first: the order in which portals' writes lock.
  v_tables constant text[] := array['gre_chat_messages', 'gre_chat_sessions', 'gre_online_status',
                                    'push_notifications'];
  v_names text;
  v_holders text;
  v_all_autovacuum boolean;
  v_timeout constant text := current_setting('lock_timeout');
  v_started_at timestamptz;
begin
  select string_agg(format('public.%I', t), ', ' order by n) into v_names
  from unnest(v_tables) with ordinality x (t, n) where to_regclass('public.' || t) is not null;
  if v_names is null then
    return;
  end if;
  for v_try in 1 .. 2 loop
    v_started_at := clock_timestamp();
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
      -- Exclude transactions that started later: they waited for this one and got the lock when it timed out.
      where h.pid is null or coalesce(a.xact_start, v_started_at) <= v_started_at and a.state is distinct from 'idle';
      -- Autovacuum cancels itself if it has blocked another lock for deadlock_timeout (one second): retry once.
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

-- Try the lock before any change: `supabase db push` applies each file in a transaction of its own.
select gre.lock_tables();

-- Errors --------------------------------------------------------------------------------------------------

-- Raise an error that PostgREST maps to HTTP status p_status. HINT carries the machine-readable code.
create function gre.raise_http(p_status integer, p_code text, p_message text, p_detail text default null) returns void
language plpgsql set search_path = '' as $$
begin
  if p_detail is null then
    raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code;
  end if;
  raise exception using errcode = 'PT' || p_status, message = p_message, hint = p_code, detail = p_detail;
end $$;

-- Raise the same error as a row-level security policy. BEFORE triggers call it for rows that the policies would refuse
-- later: policies are checked after BEFORE triggers.
create function gre.raise_row_denied(p_table text) returns void
language plpgsql set search_path = '' as $$
begin
  raise exception using errcode = '42501',
    message = format('new row violates row-level security policy for table "%s"', p_table);
end $$;

-- Time ----------------------------------------------------------------------------------------------------

-- Format a time as the API does: UTC, milliseconds. PL/pgSQL caches the plan; an SQL function is planned in every
-- statement.
create function gre.iso(p_time timestamptz) returns text
language plpgsql stable parallel safe set search_path = '' as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end $$;

-- Format the cursor of a list in the order (time, id): microseconds since 1970, and the id. Null for an infinite time.
create function gre.format_cursor(p_at timestamptz, p_id uuid) returns text
language sql stable set search_path = '' as $$
  select case when isfinite(p_at) then (extract(epoch from p_at) * 1000000)::bigint || '_' || p_id end
$$;

-- Parse a cursor; raise 400 if gre.format_cursor cannot have made it. Null gives nulls.
create function gre.parse_cursor(p_cursor text, out at timestamptz, out id uuid)
language plpgsql stable set search_path = '' as $$
declare
  v_microseconds bigint;
begin
  if p_cursor !~ '^-?[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    perform gre.raise_http(400, 'cursor_invalid', 'cursor is not one that this list gave');
  end if;
  v_microseconds := split_part(p_cursor, '_', 1);
  -- In two parts: an interval is multiplied as a double, which is not exact beyond 2^53.
  at := timestamptz 'epoch' + v_microseconds / 1000000 * interval '1 second'
    + v_microseconds % 1000000 * interval '1 microsecond';
  id := split_part(p_cursor, '_', 2);
end $$;

-- Text ----------------------------------------------------------------------------------------------------

-- Return true if the text has a visible character. Invisible are spaces, control characters, joiners, direction marks,
-- fillers, variation selectors and tags. Printable ASCII is tested first: most texts contain it, and the test is cheap.
create function gre.has_text(p_text text) returns boolean
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  return p_text ~ '[!-~]'
    or p_text ~ ('[^[:space:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f'
    '\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb'
    '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a'
    '\U000e0000-\U000e0fff]');
end $$;

-- Normalize a name for lists and pushes: one line of at most 80 characters, without control characters, bidi embeddings
-- and overrides, unbalanced isolates and tags. Keep U+200C and U+200D: Sinhala, Malayalam and Persian names and emoji
-- need them. Return null if no visible character remains.
create function gre.clean_name(p_name text) returns text
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_blank constant text :=
    '[[:space:]\u00a0\u00ad\u115f\u1160\u1680\u180e\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]+';
  v_name text := left(p_name, 400); -- bounds the input of the expressions below
  v_depth integer := 0;
  v_char text;
begin
  if v_name is null or octet_length(v_name) <= 80 and v_name ~ '^[!-~]([ -~]*[!-~])?$' then
    return v_name; -- printable ASCII
  end if;
  v_name := regexp_replace(v_name,
    '[\u0001-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb\U000e0000-\U000e007f]',
    '', 'g');
  v_name := left(regexp_replace(v_name, '^' || v_blank || '|' || v_blank || '$', '', 'g'), 80);
  if v_name ~ '[\u2066-\u2069]' then
    foreach v_char in array regexp_split_to_array(v_name, '') loop
      v_depth := v_depth
        + case ascii(v_char) when 8297 then -1 when 8294 then 1 when 8295 then 1 when 8296 then 1 else 0 end;
      exit when v_depth < 0;
    end loop;
    if v_depth <> 0 then
      v_name := regexp_replace(v_name, '[\u2066-\u2069]', '', 'g');
    end if;
  end if;
  return case when gre.has_text(v_name) then btrim(v_name) end;
end $$;

-- Return a key that is equal for names that look alike: case, width, spaces, punctuation and invisible characters are
-- removed, and Cyrillic and Greek letters are replaced by similar Latin letters.
create function gre.name_key(p_name text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select translate(regexp_replace(lower(normalize(left(p_name, 400), nfkc)),
      '[[:space:][:punct:]\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f'
      '\u2000-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]', '', 'g'),
    'авеѕікмнорстухјԁɡαεικνορτυχ0', 'abesikmhopctyxjdgaeikvoptuxo')
$$;

-- Return the keys by which an erasure finds a push: hashes of the session and the player in its data and, if it is for
-- players, of its recipients. A push for more than 100 of them has the key 0 instead: as many entries of an index would
-- cost each campaign more than reading all campaigns costs an erasure. Hashes, because the size of an entry is limited
-- and the texts of back ends are not.
create function gre.push_keys(p_audience text, p_recipients text[], p_data jsonb) returns bigint[]
language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_keys bigint[] := array[hashtextextended(p_data ->> 'session_id', 0), hashtextextended(p_data ->> 'player_id', 0)];
  v_recipient text;
begin
  if p_audience = 'player' and cardinality(p_recipients) <= 100 then
    foreach v_recipient in array p_recipients loop
      v_keys := v_keys || hashtextextended(v_recipient, 0);
    end loop;
  elsif p_audience = 'player' and cardinality(p_recipients) > 100 then
    v_keys := v_keys || 0::bigint;
  end if;
  return array_remove(v_keys, null);
end $$;

-- Return true if a user's jsonb may be stored: at most p_bytes as text, at most 32 levels, and numbers within the range
-- of a double (the input 1e131071 has 9 characters, its output 131,072). PL/pgSQL, because the planner evaluates every
-- branch of an SQL case for a constant, whatever its size.
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

-- Parse a player's id; return null if it is invalid. The largest id is 2^53 - 1: JavaScript cannot represent larger
-- integers exactly.
create function gre.parse_player_id(p_text text) returns bigint
language plpgsql immutable parallel safe set search_path = '' as $$
begin
  if p_text ~ '^[1-9][0-9]{0,15}$' and p_text::bigint <= 9007199254740991 then
    return p_text::bigint;
  end if;
  return null;
end $$;

-- Raise 400 unless the id of a player is valid.
create function gre.check_player_id(p_player_id bigint) returns void
language plpgsql stable set search_path = '' as $$
begin
  if p_player_id is null or p_player_id not between 1 and 9007199254740991 then
    perform gre.raise_http(400, 'player_invalid', 'player_id must be a whole number from 1 to 9007199254740991');
  end if;
end $$;

revoke execute on all functions in schema gre from public;
grant execute on function gre.raise_http, gre.raise_row_denied, gre.iso, gre.format_cursor, gre.parse_cursor,
  gre.has_text, gre.clean_name, gre.name_key, gre.json_fits, gre.check_player_id to authenticated, service_role;
