-- Search of messages by staff, newest first, on an index and for at most about a second.
-- Depends on gre_foundation, gre_tables, gre_identity and gre_outbox (JSON).
--
-- With the extension pg_trgm the index finds any part of a word, also in scripts without spaces. The extension is
-- created if the server has it. Otherwise the index finds the beginnings of words.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

select gre.lock_tables();
do $$
declare
  v_columns text := 'to_tsvector(''pg_catalog.simple'', left(message, 4000))';
begin
  if exists (select from pg_catalog.pg_available_extensions where name = 'pg_trgm' and installed_version is null) then
    begin
      execute format('create extension pg_trgm schema %I',
                     case when to_regnamespace('extensions') is null then 'public' else 'extensions' end);
    exception when others then
      raise notice 'gre-bridge: could not create pg_trgm (%): the search finds beginnings of words', sqlerrm;
    end;
  end if;
  select format('message %I.gin_trgm_ops', n.nspname) into v_columns
  from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_trgm'
  union all select v_columns limit 1;
  if pg_relation_size('public.gre_chat_messages') > 100 * 1024 * 1024 then
    -- The messages of a live project cannot be locked for as long as this takes.
    raise notice 'gre-bridge: the search has no index yet; create it without a lock: create index concurrently '
      'gre_chat_messages_search on public.gre_chat_messages using gin (%) with (gin_pending_list_limit = 512)',
      v_columns;
    return;
  end if;
  -- What new messages add waits in a list, which every search reads, and which one message in some hundred empties:
  -- a short one, so that this message takes milliseconds.
  execute format('create index gre_chat_messages_search on public.gre_chat_messages using gin (%s) '
    'with (gin_pending_list_limit = 512)', v_columns);
  if v_columns like 'to_tsvector%' then
    -- Statistics contain samples of the values and outlive an erase.
    alter index public.gre_chat_messages_search alter column 1 set statistics 0;
  end if;
end $$;

-- Read up to p_rows messages before a place in the order of time, and return the ids of those that match. seen: number
-- of messages read; last_at and last_id: the place of the last one.
create function gre.search_scan(
  p_patterns text[], p_words tsquery, p_player bigint, p_staff text, p_from timestamptz, p_at timestamptz, p_id uuid,
  p_rows integer, p_limit integer, out ids uuid[], out seen integer, out last_at timestamptz, out last_id uuid
)
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$ -- read in index order
begin
  with candidate as materialized (
    select m.*, row_number() over (order by m.created_at desc, m.id desc) as n
    from (
      select q.id, q.created_at, q.message, q.sender, q.sender_id from public.gre_chat_messages q
      where (p_player is null or q.player_id = p_player) and (p_from is null or q.created_at >= p_from)
        and (q.created_at, q.id) < (p_at, p_id)
      order by q.created_at desc, q.id desc limit p_rows) m
  )
  select array(
      select c.id from candidate c
      where case when p_words is null then c.message ilike all (p_patterns)
                 else to_tsvector('pg_catalog.simple', left(c.message, 4000)) @@ p_words end
        and (p_staff is null or c.sender = 'staff' and c.sender_id = p_staff)
      order by c.n limit p_limit),
    (select count(*) from candidate), l.created_at, l.id
    into ids, seen, last_at, last_id
  from (select) x left join lateral (select * from candidate c order by c.n desc limit 1) l on true;
end $$;

-- Return the ids of the messages before a place in the order of time that the index finds: at most p_most, in no order.
-- The patterns are parts of the statement, since only then the index is asked for all of them together.
create function gre.search_index(
  p_patterns text[], p_words tsquery, p_from timestamptz, p_at timestamptz, p_id uuid, p_most integer
) returns uuid[]
language plpgsql stable set search_path = '' set jit = off
set enable_seqscan = off set enable_indexscan = off set enable_indexonlyscan = off as $$
declare
  v_ids uuid[];
begin
  execute 'select array(select m.id from public.gre_chat_messages m where '
    || case when p_words is null
            then (select string_agg(format('m.message ilike %L', p), ' and ') from unnest(p_patterns) p)
            else format('to_tsvector(''pg_catalog.simple'', left(m.message, 4000)) @@ %L::tsquery', p_words) end
    || ' and (m.created_at, m.id) < ($2, $3) and m.created_at <= $2 and ($1 is null or m.created_at >= $1) limit $4)'
    into v_ids using p_from, p_at, p_id, p_most;
  return v_ids;
end $$;

create function public.gre_search_messages(
  p_query text, p_from timestamptz default null, p_to timestamptz default null, p_staff text default null,
  p_player bigint default null, p_limit integer default 50, p_cursor text default null
) returns jsonb
language plpgsql stable security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_limit constant integer := least(greatest(coalesce(p_limit, 50), 1), 50);
  v_rows constant integer := 5000;
  v_most constant integer := 2000;
  v_stop constant timestamptz := clock_timestamp() + interval '1 second';
  v_patterns text[];
  v_words tsquery;
  v_index text := pg_get_indexdef(to_regclass('public.gre_chat_messages_search'));
  v_place record;
  v_scan record;
  v_found uuid[];
  v_ids uuid[] := '{}';
  v_end boolean := false;
begin
  perform gre.require_staff();
  v_place := gre.parse_cursor(p_cursor);
  if char_length(p_query) > 100 or p_query is null or not gre.has_text(p_query) or char_length(btrim(p_query)) < 2 then
    perform gre.raise_http(400, 'query_invalid', 'the search needs 2 to 100 characters');
  end if;
  v_patterns := array(
    select '%' || replace(replace(replace(w, '\', '\\'), '%', '\%'), '_', '\_') || '%'
    from regexp_split_to_table(btrim(p_query), '\s+') w group by w order by char_length(w) desc limit 8);
  if v_index like '%to_tsvector%' then
    v_words := to_tsquery('pg_catalog.simple', (
      select string_agg(quote_literal(replace(w, '\', ' ')) || ':*', ' & ')
      from regexp_split_to_table(btrim(p_query), '\s+') w));
  end if;
  if p_player is not null or v_words is null and v_patterns[1] !~ '[[:alnum:]]{3}' then
    v_index := null; -- a player's messages are few; a word without three letters has no trigram
  end if;
  if p_cursor is null then
    v_place.at := coalesce(p_to, 'infinity');
    v_place.id := case when p_to is null then 'ffffffff-ffff-ffff-ffff-ffffffffffff'
                       else '00000000-0000-0000-0000-000000000000' end;
  end if;

  -- The latest messages are read without the index: enough for a page of a frequent word. Then the index is asked once.
  -- A word that it finds more than v_most times is frequent: reading on in the order of time soon fills the page.
  loop
    v_scan := gre.search_scan(v_patterns, v_words, p_player, p_staff, p_from, v_place.at, v_place.id, v_rows,
                              v_limit + 1 - cardinality(v_ids));
    v_ids := v_ids || v_scan.ids;
    v_end := v_scan.seen < v_rows;
    if not v_end then
      v_place.at := v_scan.last_at;
      v_place.id := v_scan.last_id;
    end if;
    exit when v_end or cardinality(v_ids) > v_limit or clock_timestamp() > v_stop;
    if v_index is not null then
      v_found := gre.search_index(v_patterns, v_words, p_from, v_place.at, v_place.id, v_most + 1);
      v_end := cardinality(v_found) <= v_most;
      if v_end then
        v_ids := v_ids || array(
          select x.id from (
            select m.id, m.created_at from public.gre_chat_messages m
            where m.id = any (v_found) and (p_staff is null or m.sender = 'staff' and m.sender_id = p_staff)
            offset 0) x -- by id, not in the order of time
          order by x.created_at desc, x.id desc limit v_limit + 1 - cardinality(v_ids));
      end if;
      exit when v_end;
      v_index := null;
    end if;
  end loop;

  if cardinality(v_ids) > v_limit then
    v_end := false;
    v_ids := v_ids[1:v_limit];
    select m.created_at, m.id into v_place.at, v_place.id from public.gre_chat_messages m where m.id = v_ids[v_limit];
  end if;
  return jsonb_build_object(
    'messages', (
      select coalesce(jsonb_agg(gre.message_json(m) || jsonb_build_object('session', gre.session_json(s, 200))
                                order by i.n), '[]')
      from unnest(v_ids) with ordinality i (id, n)
      join public.gre_chat_messages m on m.id = i.id
      join public.gre_chat_sessions s on s.id = m.session_id),
    'next', case when not v_end then gre.format_cursor(v_place.at, v_place.id) end);
end $$;
comment on function public.gre_search_messages is
  'Searches messages, newest first: {"messages": [M with "session": S], "next": cursor | null}. Each of at most 8 '
  'words of p_query (2 to 100 characters) must be in the text, in either case; the beginnings of words, where the '
  'extension pg_trgm is not available. p_from, p_to: times; p_staff: written by this staff member; p_player: in this '
  'player''s sessions. A search that takes longer than about a second ends with what it has found and "next". For '
  'staff.';

revoke execute on function gre.search_scan, gre.search_index from public;
revoke execute on function public.gre_search_messages from public, anon, authenticated, service_role;
grant execute on function public.gre_search_messages to authenticated, service_role;
