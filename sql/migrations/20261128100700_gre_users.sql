-- Functions for players, staff and back ends, called over PostgREST and by the daemon's REST API and WebSocket. Each
-- call is one transaction and checks the caller with gre.require_actor(). Calls that clients may retry can be repeated.
--
-- Functions that need only rows of the caller run with the caller's privileges, so row-level security applies to them.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages and gre_outbox.
set local lock_timeout = '300ms';

-- Sending -------------------------------------------------------------------------------------------------

create function gre.normalize_sender(p_sender text) returns text
language sql immutable set search_path = '' as $$
  select case when lower(p_sender) in ('gre', 'gre_staff', 'admin') then 'staff' else lower(p_sender) end
$$;

-- Return the message with this id if the caller sent it with the same arguments. Otherwise raise 409, which does not
-- reveal the message.
create function gre.find_duplicate(
  p_id uuid, p_sender text, p_player_id bigint, p_session_id uuid, p_message text, p_attachment_ids uuid[] default '{}'
) returns public.gre_chat_messages
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor gre.actor := gre.current_actor();
  v public.gre_chat_messages;
begin
  select * into v from public.gre_chat_messages m
  where m.id = p_id and m.sender = p_sender and m.attachment_ids = p_attachment_ids
    and (m.message = p_message or p_attachment_ids <> '{}' and not coalesce(gre.has_text(p_message), false)
                                  and gre.is_files_text(m.message))
    and (p_player_id is null or m.player_id = p_player_id)
    and (p_sender = 'player' or p_session_id is null or m.session_id = p_session_id)
    and (v_actor.role = 'service' or m.sender_id = coalesce(v_actor.staff_id, v_actor.player_id::text));
  if not found then
    perform gre.raise_http(409, 'id_conflict', 'this id is taken');
  end if;
  return v;
end $$;

-- Raise 409 session_moved if another staff member has written in the session after p_after_seq and before p_before_seq.
-- The caller holds the session's lock: for a message it calls this after the insert, whose trigger takes the lock.
create function gre.check_not_moved(p_session_id uuid, p_after_seq bigint, p_before_seq bigint default null)
returns void
language plpgsql stable security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_staff constant text := (gre.current_actor()).staff_id;
  v record;
begin
  select m.sender_id, m.seq into v from public.gre_chat_messages m
  where m.session_id = p_session_id and m.seq > p_after_seq and (p_before_seq is null or m.seq < p_before_seq)
    and m.sender = 'staff' and m.sender_id is distinct from v_staff
  order by m.seq desc limit 1;
  if found then
    perform gre.raise_http(409, 'session_moved', 'a colleague has written meanwhile',
                           jsonb_build_object('by', v.sender_id, 'seq', v.seq)::text);
  end if;
end $$;

create function public.gre_send_message(
  p_message text, p_player_id bigint default null, p_session_id uuid default null, p_id uuid default null,
  p_sender text default null, p_player_name text default null, p_sender_name text default null,
  p_metadata jsonb default null, p_after_seq bigint default null, p_template_id uuid default null,
  p_attachment_ids uuid[] default '{}'
) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_actor gre.actor := gre.require_actor();
  v_files constant uuid[] := coalesce(p_attachment_ids, '{}');
  v_sender text := coalesce(gre.normalize_sender(p_sender),
                            case v_actor.role when 'player' then 'player' when 'service' then null else 'staff' end);
  v_player bigint := p_player_id;
  v_id uuid := coalesce(p_id, gen_random_uuid());
  v public.gre_chat_messages;
  v_duplicate boolean := false;
begin
  if v_actor.role = 'player' then
    if v_sender <> 'player' then
      perform gre.raise_http(403, 'sender_forged', 'a player sends as a player');
    elsif p_player_id <> v_actor.player_id then
      perform gre.raise_http(403, 'player_mismatch', 'player_id is not the caller''s');
    end if;
    v_player := v_actor.player_id;
  elsif v_actor.role in ('staff', 'admin') then
    if v_sender <> 'staff' then
      perform gre.raise_http(403, 'sender_forged', 'staff send as staff');
    elsif p_player_id is null and p_session_id is null then
      perform gre.raise_http(400, 'target_missing', 'a session or a player is required');
    end if;
    if p_session_id is not null and not exists (select from public.gre_chat_sessions where id = p_session_id) then
      perform gre.raise_http(404, 'session_unknown', 'there is no such session');
    end if;
  end if;
  if v_sender = 'staff' and p_after_seq is not null and p_session_id is null then
    perform gre.raise_http(400, 'session_missing', 'after_seq needs a session');
  end if;
  insert into public.gre_chat_messages
    (id, session_id, player_id, player_name, sender, sender_id, sender_name, message, metadata, origin, attachment_ids)
  values (v_id, p_session_id, v_player, p_player_name, v_sender, v_actor.staff_id, p_sender_name, p_message, p_metadata,
          case when p_template_id is null then 'typed' else 'template' end, v_files)
  on conflict (id) do nothing
  returning * into v;
  if not found then
    v := gre.find_duplicate(v_id, v_sender, v_player, p_session_id, p_message, v_files);
    v_duplicate := true;
  elsif v_sender = 'staff' then
    if p_after_seq is not null then
      perform gre.check_not_moved(v.session_id, p_after_seq, v.seq);
    end if;
    if p_template_id is not null then
      perform gre.count_template(p_template_id);
    end if;
  end if;
  return jsonb_build_object('message', gre.message_json(v), 'duplicate', v_duplicate);
end $$;
comment on function public.gre_send_message is
  'Sends one message as the caller. Returns {"message": M, "duplicate": boolean}. A player''s message goes to its open '
  'session, which is opened if necessary. Staff give a session or a player. With p_id the call can be repeated: a '
  'repeat changes nothing and returns "duplicate": true. p_after_seq, for messages of staff: 409 session_moved with '
  '{"by", "seq"} if another staff member has written in the session after this seq. p_template_id: the template from '
  'which staff took the text. p_attachment_ids: at most 5 files that the caller has announced and uploaded; then the '
  'text '
  'may be empty. 404 attachment_not_found, 409 attachment_not_stored, attachment_used, attachment_refused or '
  'attachment_gone.';

create function public.gre_staff_reply(
  p_message text, p_session_id uuid default null, p_player_id bigint default null, p_id uuid default null,
  p_metadata jsonb default null, p_after_seq bigint default null, p_template_id uuid default null,
  p_attachment_ids uuid[] default '{}'
) returns jsonb
language plpgsql volatile set search_path = '' as $$
begin
  perform gre.require_staff();
  return public.gre_send_message(p_message => p_message, p_player_id => p_player_id, p_session_id => p_session_id,
                                 p_id => p_id, p_sender => 'staff', p_metadata => p_metadata,
                                 p_after_seq => p_after_seq, p_template_id => p_template_id,
                                 p_attachment_ids => p_attachment_ids);
end $$;
comment on function public.gre_staff_reply is
  'Sends a message of staff to a session or a player. Takes p_after_seq and p_attachment_ids and returns what '
  'gre_send_message does.';

create function public.gre_send_messages(p_messages jsonb) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_actor gre.actor := gre.require_actor();
  v_rows jsonb;
  v_inserted uuid[];
  v_result jsonb;
begin
  if jsonb_typeof(p_messages) is distinct from 'array' or jsonb_array_length(p_messages) > 500 then
    perform gre.raise_http(400, 'messages_invalid', 'p_messages must be an array of at most 500 messages');
  elsif exists (select from jsonb_array_elements(p_messages) x where jsonb_typeof(x) <> 'object') then
    perform gre.raise_http(400, 'messages_invalid', 'every message must be an object');
  end if;
  with given as materialized ( -- cast before the join, see gre_catch_up
    select n, x, (x ->> 'session_id')::uuid as session_id from jsonb_array_elements(p_messages) with ordinality t (x, n)
  )
  select coalesce(jsonb_agg(to_jsonb(r)), '[]') into v_rows from (
    select n, coalesce((x ->> 'id')::uuid, gen_random_uuid()) as id,
      -- A player's message to its closed session goes to the open one. The closed one is dropped here: locking it could
      -- cause a deadlock.
      case when not (s.status = 'closed' and k.sender = 'player' and k.player_id = s.player_id) or s.id is null
        then g.session_id end as session_id,
      k.player_id, k.sender,
      x ->> 'player_name' as player_name, x ->> 'sender_name' as sender_name, x ->> 'message' as message,
      x -> 'metadata' as metadata, (x ->> 'after_seq')::bigint as after_seq,
      coalesce(nullif(x -> 'attachment_ids', 'null'), '[]') as attachment_ids
    from given g
    left join lateral (
      select q.id, q.player_id, q.status from public.gre_chat_sessions q where q.id = g.session_id limit 1) s on true
    cross join lateral (
      select coalesce((x ->> 'player_id')::bigint, v_actor.player_id, s.player_id) as player_id,
        coalesce(gre.normalize_sender(x ->> 'sender'),
                 case v_actor.role when 'player' then 'player' when 'service' then null else 'staff' end) as sender) k
  ) r;
  if v_actor.role = 'player'
    and exists (select from jsonb_array_elements(v_rows) r where r ->> 'sender' <> 'player') then
    perform gre.raise_http(403, 'sender_forged', 'a player sends as a player');
  elsif v_actor.role = 'player'
    and exists (select from jsonb_array_elements(v_rows) r where (r ->> 'player_id')::bigint <> v_actor.player_id) then
    perform gre.raise_http(403, 'player_mismatch', 'player_id is not the caller''s');
  elsif v_actor.role in ('staff', 'admin')
    and exists (select from jsonb_array_elements(v_rows) r where r ->> 'sender' <> 'staff') then
    perform gre.raise_http(403, 'sender_forged', 'staff send as staff');
  end if;
  if jsonb_path_exists(v_rows, '$[*] ? (@.sender == "staff" && @.after_seq != null && @.session_id == null)') then
    perform gre.raise_http(400, 'session_missing', 'after_seq needs a session');
  end if;
  with inserted as (
    insert into public.gre_chat_messages
      (id, session_id, player_id, player_name, sender, sender_id, sender_name, message, metadata, attachment_ids)
    select r.id, r.session_id, r.player_id, r.player_name, r.sender, v_actor.staff_id, r.sender_name, r.message,
      r.metadata, r.attachment_ids
    from jsonb_to_recordset(v_rows) r (n bigint, id uuid, session_id uuid, player_id bigint, sender text,
                                       player_name text,
                                       sender_name text, message text, metadata jsonb, attachment_ids uuid[])
    order by r.player_id, r.n
    on conflict (id) do nothing
    returning id
  )
  select coalesce(array_agg(id), '{}') into v_inserted from inserted;
  if jsonb_path_exists(v_rows, '$[*] ? (@.sender == "staff" && @.after_seq != null)') then
    perform gre.check_not_moved(m.session_id, r.after_seq, m.seq)
    from jsonb_to_recordset(v_rows) r (n bigint, id uuid, sender text, after_seq bigint)
    cross join lateral (
      select i.session_id, i.seq from public.gre_chat_messages i
      where i.id = r.id and i.id = any (v_inserted) limit 1) m
    where r.sender = 'staff' and r.after_seq is not null;
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('id', m.id, 'session_id', m.session_id, 'seq', m.seq,
                                               'duplicate', not r.id = any (v_inserted) or r.nth > 1)
                            order by r.n), '[]')
    into v_result
  from (
    select q.*, row_number() over (partition by q.id order by q.n) as nth
    from jsonb_to_recordset(v_rows) q (n bigint, id uuid, session_id uuid, player_id bigint, sender text, message text,
                                       attachment_ids uuid[])
  ) r
  cross join lateral gre.find_duplicate(r.id, r.sender, r.player_id, r.session_id, r.message, r.attachment_ids) m;
  return v_result;
end $$;
comment on function public.gre_send_messages is
  'Sends at most 500 messages in one transaction: [{"message", "player_id"?, "session_id"?, "id"?, "sender"?, '
  '"player_name"?, "sender_name"?, "metadata"?, "after_seq"?, "attachment_ids"?}]. They are inserted in the order of '
  'players, so that two calls cannot deadlock; after_seq and attachment_ids are those of gre_send_message. Returns '
  '[{"id", "session_id", "seq", "duplicate"}] in '
  'the order of the argument.';

-- Reading -------------------------------------------------------------------------------------------------

create function public.gre_chat_history(
  p_player_id bigint default null, p_session_id uuid default null, p_before uuid default null,
  p_before_seq bigint default null, p_after_seq bigint default null, p_limit integer default 200,
  p_sessions boolean default false
) returns jsonb
language plpgsql stable set search_path = '' set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$ -- pages are read in index order
declare
  v_actor gre.actor := gre.require_actor();
  v_player bigint := coalesce(p_player_id, v_actor.player_id);
  v_limit integer := least(greatest(coalesce(p_limit, 200), 1), 500);
  v_session public.gre_chat_sessions;
  v_edge public.gre_chat_messages;
  v_rows refcursor;
  v_row public.gre_chat_messages;
  v_json jsonb;
  v_page jsonb[] := '{}';
  v_bytes integer := 0;
  v_max_bytes integer := case when p_sessions then 524288 else 1048576 end; -- a session can repeat a message's text
  v_more boolean := false;
  v_session_ids uuid[] := '{}';
  v_sessions jsonb[] := '{}';
begin
  if v_actor.role = 'player' and v_player <> v_actor.player_id then
    perform gre.raise_http(403, 'player_mismatch', 'player_id is not the caller''s');
  elsif v_player is null and p_session_id is null then
    perform gre.raise_http(400, 'target_missing', 'a session or a player is required');
  elsif p_session_id is null and (p_before_seq is not null or p_after_seq is not null) then
    perform gre.raise_http(400, 'session_missing', 'paging by seq needs a session');
  end if;
  if p_session_id is not null then
    select * into v_session from public.gre_chat_sessions
    where id = p_session_id and player_id = coalesce(v_player, player_id);
    if not found then
      perform gre.raise_http(404, 'session_unknown', 'there is no such session');
    end if;
  end if;
  if p_before is not null then
    select * into v_edge from public.gre_chat_messages
    where id = p_before and player_id = coalesce(v_player, v_session.player_id)
      and session_id = coalesce(p_session_id, session_id);
    if not found then
      perform gre.raise_http(404, 'message_unknown', 'there is no such message here');
    end if;
  end if;

  -- Ascending from p_after_seq, otherwise descending. One row beyond the limit is read to set has_more.
  if p_after_seq is not null then
    open v_rows for select * from public.gre_chat_messages where session_id = p_session_id and seq > p_after_seq
      order by seq limit v_limit + 1;
  elsif p_session_id is not null then
    open v_rows for select * from public.gre_chat_messages
      where session_id = p_session_id and seq < least(p_before_seq, v_edge.seq, v_session.last_seq + 1)
      order by seq desc limit v_limit + 1;
  elsif v_edge.id is not null then
    open v_rows for select * from public.gre_chat_messages
      where player_id = v_player and (created_at, id) < (v_edge.created_at, v_edge.id)
      order by created_at desc, id desc limit v_limit + 1;
  else
    open v_rows for select * from public.gre_chat_messages where player_id = v_player
      order by created_at desc, id desc limit v_limit + 1;
  end if;
  loop
    fetch v_rows into v_row;
    exit when not found;
    v_more := cardinality(v_page) = v_limit;
    exit when v_more;
    v_json := gre.message_json(v_row);
    v_bytes := v_bytes + octet_length(v_json::text);
    if p_sessions and not v_row.session_id = any (v_session_ids) then
      v_session_ids := v_session_ids || v_row.session_id;
      v_sessions := v_sessions || (
        select gre.session_json(s) from public.gre_chat_sessions s where s.id = v_row.session_id);
      v_bytes := v_bytes + coalesce(octet_length(v_sessions[cardinality(v_sessions)]::text), 0);
    end if;
    v_more := v_bytes > v_max_bytes and cardinality(v_page) > 0;
    exit when v_more;
    v_page := v_page || v_json;
  end loop;
  close v_rows;
  return jsonb_build_object('messages', (
      select coalesce(jsonb_agg(x.m order by case when p_after_seq is null then -x.n else x.n end), '[]')
      from unnest(v_page) with ordinality x (m, n)),
    'has_more', v_more,
    'next', case when v_more and p_after_seq is null then v_page[cardinality(v_page)] -> 'id' end,
    'session', case when p_session_id is not null then gre.session_json(v_session) end,
    'sessions', case when p_sessions then (
      select coalesce(jsonb_agg(x.s order by x.s ->> 'created_at', x.s ->> 'id'), '[]') from unnest(v_sessions) x (s)
      where exists (select from unnest(v_page) m where m ->> 'session_id' = x.s ->> 'id')) end);
end $$;
comment on function public.gre_chat_history is
  'Returns a page of messages of one session or of all sessions of a player: {"messages": [M] ascending, "next": id | '
  'null, "has_more", "session": S | null, "sessions": [S]}. It is the newest page, the page before a message '
  '(p_before, p_before_seq), or the messages after p_after_seq. "next" is the p_before of the preceding page. A page '
  'is limited to p_limit messages and 1 MB (512 KB with p_sessions), and has at least one message.';

create function public.gre_list_sessions(
  p_status text default null, p_assigned text default null, p_limit integer default 50, p_cursor text default null
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = 'force_custom_plan' as $$
declare
  v_actor gre.actor := gre.require_actor();
  v_limit integer := least(greatest(coalesce(p_limit, 50), 1), 500);
  v_after record := gre.parse_cursor(p_cursor);
  v_result jsonb;
begin
  if p_status not in ('active', 'closed') then
    perform gre.raise_http(400, 'status_unknown', 'status must be active or closed');
  end if;
  with page as (
    select s, case when s.last_message_at is null then s.created_at else s.last_message_at end as at
    from public.gre_chat_sessions s
    where (p_status is null or case p_status when 'closed' then s.status = 'closed' else s.status <> 'closed' end)
      and (v_actor.role <> 'player' or s.player_id = v_actor.player_id)
      and (p_assigned is null or case p_assigned when 'none' then s.assigned_staff_id is null
                                   when 'me' then s.assigned_staff_id = v_actor.staff_id
                                   else s.assigned_staff_id = p_assigned end)
      and (p_cursor is null or (case when s.last_message_at is null then s.created_at else s.last_message_at end, s.id)
                               < (v_after.at, v_after.id))
    order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
    limit v_limit + 1
  ), numbered as materialized (
    select at, s, row_number() over (order by at desc, (s).id desc) as n from page
  ), sized as ( -- 1 MB at most
    select n, at, (s).id as id, json,
      n <= v_limit and (n = 1 or sum(octet_length(json::text)) over (order by n) <= 1048576) as fits
    from numbered
    join gre.sessions_json(array(select s from numbered order by n)) with ordinality x (json, n) using (n)
  )
  select jsonb_build_object(
    'sessions', coalesce(jsonb_agg(json order by n) filter (where fits), '[]'),
    'next', case when count(*) > count(*) filter (where fits) then (
      select gre.format_cursor(x.at, x.id) from sized x where x.fits order by x.n desc limit 1) end)
  into v_result from sized;
  return v_result;
end $$;
comment on function public.gre_list_sessions is
  'Lists sessions, latest activity first: {"sessions": [S], "next": cursor | null}. A player gets its own sessions. '
  'p_status: active | closed; p_assigned: me | none | a staff id; p_cursor: "next" of the page before.';

-- Generic plans: planning these statements takes longer than running them. So players and staff, who need different
-- indexes, have statements of their own.
create function public.gre_catch_up(
  p_since jsonb default null, p_limit integer default 200, p_total integer default 2000
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare
  v_actor gre.actor := gre.require_actor();
  v_player constant bigint := case v_actor.role when 'player' then v_actor.player_id end;
  v_limit integer := least(greatest(coalesce(p_limit, 200), 1), 500);
  v_total integer := least(greatest(coalesce(p_total, 2000), 0), 5000);
  v_positions jsonb := '{}';
  v_named uuid[] := '{}';
  v_listed uuid[];
  v_side constant text := case v_actor.role when 'player' then 'player' else 'staff' end;
  v_from timestamptz;
  v_files_from timestamptz;
  v_result jsonb;
begin
  if p_since is not null and jsonb_typeof(p_since) not in ('object', 'null') then
    perform gre.raise_http(400, 'since_invalid', 'since must be an object of session ids and seqs');
  end if;
  if jsonb_typeof(p_since) = 'object' then
    select coalesce(jsonb_object_agg(lower(k), floor(least(n, 9e15))::bigint), '{}') into v_positions
    from jsonb_each(p_since) t (k, x)
    cross join lateral (select case when jsonb_typeof(x) = 'number' then (x #>> '{}')::numeric end as n) v
    where k ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and n >= 0;
    v_named := array(select k::uuid from jsonb_object_keys(v_positions) k);
  end if;
  if v_named <> '{}' then
    -- Cast before the join: under row-level security a join on a cast would read all messages.
    with positions as materialized (
      select k::uuid as id, seq::bigint as seq from jsonb_each_text(v_positions) t (k, seq)
    ), seen as materialized (
      select m.session_id, m.seq, m.created_at,
        (m.sender = v_side and (v_side = 'player' or m.sender_id = v_actor.staff_id)) is true as own
      from positions p
      join public.gre_chat_messages m
        on m.session_id = p.id and m.seq = p.seq and (v_player is null or m.player_id = v_player)
    ), before as materialized (
      select x.created_at, (x.sender = v_side and (v_side = 'player' or x.sender_id = v_actor.staff_id)) is true as own
      from (select * from seen where own order by created_at desc limit 20) s
      cross join lateral (
        select q.created_at, q.sender, q.sender_id from public.gre_chat_messages q
        where q.session_id = s.session_id and q.seq <= s.seq
        order by q.seq desc limit 20) x)
    -- A message that the caller sent itself does not say that it heard of files meanwhile: back to one of others.
    select (select max(created_at) from seen) - interval '1 minute',
      coalesce(greatest((select max(created_at) from seen where not own),
                        (select max(created_at) from before where not own)),
               (select min(created_at) from before)) - interval '1 minute'
    into v_from, v_files_from;
  end if;

  if v_player is not null then
    v_listed := array(
      select s.id from public.gre_chat_sessions s
      where s.player_id = v_player
        and (s.status <> 'closed'
          or case when s.last_message_at is null then s.created_at else s.last_message_at end > v_from)
      order by s.status = 'closed',
        case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
      limit 200);
  else
    v_listed := array(
      select s.id from public.gre_chat_sessions s
      where s.status <> 'closed'
      order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
      limit 100);
    if v_from is not null then
      v_listed := v_listed || array(
        select s.id from public.gre_chat_sessions s
        where case when s.last_message_at is null then s.created_at else s.last_message_at end > v_from
        order by case when s.last_message_at is null then s.created_at else s.last_message_at end desc, s.id desc
        limit 200);
    end if;
  end if;

  with positioned as materialized (
    select s, coalesce((v_positions ->> s.id::text)::bigint,
      case when p_since is null then s.last_seq
           when v_from is null
             then case when s.status = 'closed' then s.last_seq else greatest(s.last_seq - v_limit, 0) end
           else coalesce((select m.seq from public.gre_chat_messages m
                          where m.session_id = s.id and m.created_at <= v_from
                          order by m.seq desc limit 1), 0) end) as seq
    from public.gre_chat_sessions s
    where s.id = any (v_listed || v_named) and (v_player is null or s.player_id = v_player)
  ), limited as materialized ( -- under row-level security an index takes no expression
    select s, (s).id as id, greatest((s).last_seq - v_limit, seq) as start from positioned
  ), missed as (
    select m.m as m from limited p
    cross join lateral (
      select m from public.gre_chat_messages m
      where m.session_id = p.id and m.seq > p.start
    ) m
    order by coalesce((p.s).last_message_at, (p.s).created_at) desc, (m.m).session_id, (m.m).seq desc
    limit v_total
  )
  select jsonb_build_object(
    'sessions', (
      select coalesce(jsonb_agg(x.json order by x.n), '[]')
      from gre.sessions_json(
        array(select s from positioned order by (s).status = 'closed',
              coalesce((s).last_message_at, (s).created_at) desc, (s).id),
        case v_total when 0 then 200 end) with ordinality x (json, n)),
    'positions', (
      select coalesce(jsonb_object_agg((p.s).id, p.seq), '{}') from positioned p where p.seq < (p.s).last_seq),
    'missed', (select coalesce(jsonb_agg(gre.message_json(m) order by (m).session_id, (m).seq), '[]') from missed))
  into v_result;
  if v_files_from is not null then
    v_result := v_result || gre.missed_attachments(v_named, v_files_from, v_player);
  end if;
  return v_result;
end $$;
comment on function public.gre_catch_up is
  'Returns the messages that a returning reader has missed: {"sessions": [S], "missed": [M] in the order of session '
  'and seq, "positions": {session id: seq after which messages were missed}}. p_since: {session id: last seq seen}. '
  '"sessions" are the sessions in p_since and the caller''s latest ones. "missed" are messages after the seq in '
  'p_since; in other sessions, messages newer than the newest message in p_since (less a minute), or with an empty '
  'p_since all messages of open sessions. At most the newest p_limit of a session and p_total in all. With p_total 0, '
  '"missed" is empty and last messages are truncated. "attachments", if there are some: [{"session_id", "attachment": '
  'A}], files in the sessions in p_since that changed after the newest message of others in p_since or shortly before '
  '(less a minute), at most the last 500.';

-- In one call what a socket needs to begin: a storm of them costs as many calls.
create function public.gre_enter(p_since jsonb default null) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_actor constant jsonb := public.gre_whoami();
begin
  return jsonb_build_object('actor', v_actor,
    'missed', case when v_actor ->> 'role' in ('staff', 'admin')
                     or v_actor ->> 'role' = 'player' and (v_actor ->> 'chat_enabled')::boolean
                then public.gre_catch_up(p_since, p_total => 0) end);
end $$;
comment on function public.gre_enter is
  'Returns who the caller is and what it has missed: {"actor": as gre_whoami, "missed": as gre_catch_up with p_since '
  'and p_total 0, null for a caller that is no person of the chat, or a player whose chat is disabled}.';

-- Marks and states ----------------------------------------------------------------------------------------

create function public.gre_mark_read(p_session_id uuid, p_up_to_seq bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor gre.actor := gre.require_actor();
  v_by text := case v_actor.role when 'player' then 'player' else 'staff' end;
  v_session public.gre_chat_sessions;
  v_old_seq bigint;
  v_new_seq bigint;
  v_now timestamptz;
  v_unread integer;
  v_data jsonb;
begin
  if v_actor.role = 'service' then
    perform gre.raise_http(403, 'act_as_required', 'only a person can read: name one in X-GRE-Act-As');
  elsif p_up_to_seq is null or p_up_to_seq < 0 then
    perform gre.raise_http(400, 'seq_invalid', 'the seq must be a whole number from 0');
  end if;
  select * into v_session from public.gre_chat_sessions
  where id = p_session_id and (v_by = 'staff' or player_id = v_actor.player_id) for no key update;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  if pg_trigger_depth() > 0 then
    perform gre.flush_session(p_session_id);
    select * into v_session from public.gre_chat_sessions where id = p_session_id;
  end if;
  v_old_seq := case v_by when 'player' then v_session.player_read_seq else v_session.staff_read_seq end;
  v_new_seq := least(p_up_to_seq, v_session.last_seq);
  if v_new_seq <= v_old_seq then
    return jsonb_build_object('session_id', p_session_id, 'by', v_by, 'up_to_seq', v_old_seq, 'changed', false,
      'timestamp', gre.iso(case v_by when 'player' then v_session.player_read_at else v_session.staff_read_at end));
  end if;
  v_now := clock_timestamp();
  update public.gre_chat_messages set status = 'read'
  where session_id = p_session_id and seq > v_old_seq and seq <= v_new_seq and status <> 'read'
    and (sender = 'player') = (v_by = 'staff');
  select count(*) into v_unread from public.gre_chat_messages
  where session_id = p_session_id and seq > v_new_seq and (sender = 'player') = (v_by = 'staff');
  if v_by = 'player' then
    update public.gre_chat_sessions set player_read_seq = v_new_seq, player_read_at = v_now, unread_by_player = v_unread
    where id = p_session_id;
  else
    update public.gre_chat_sessions set staff_read_seq = v_new_seq, staff_read_at = v_now, unread_by_staff = v_unread
    where id = p_session_id;
  end if;
  v_data := jsonb_build_object('session_id', p_session_id, 'by', v_by, 'up_to_seq', v_new_seq,
                               'timestamp', gre.iso(v_now));
  perform gre.enqueue_event(array['pusher'], p_session_id::text, 'read',
                            v_data || jsonb_build_object('player_id', v_session.player_id));
  perform gre.notify_workers(array[p_session_id]);
  return v_data || '{"changed": true}';
end $$;
comment on function public.gre_mark_read is
  'Marks the other side''s messages as read up to a seq: {"session_id", "by": player | staff, "up_to_seq", '
  '"timestamp", "changed"}. Marks never decrease.';

create function public.gre_set_session_status(
  p_session_id uuid, p_status text, p_staff_id text default null
) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor gre.actor := gre.require_staff();
  v_staff text := coalesce(p_staff_id, v_actor.staff_id);
  v_session public.gre_chat_sessions;
begin
  if p_status is null or p_status not in ('active', 'assigned', 'closed') then
    perform gre.raise_http(400, 'status_unknown', 'status must be active, assigned or closed');
  end if;
  select * into v_session from public.gre_chat_sessions where id = p_session_id for no key update;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  if p_status = 'assigned' then
    if v_staff is null then
      perform gre.raise_http(400, 'staff_missing', 'a staff id is required');
    elsif v_staff is distinct from v_actor.staff_id
      and not exists (select from public.gre_staff where staff_id = v_staff and active) then
      perform gre.raise_http(404, 'staff_unknown', 'there is no such active staff member');
    elsif v_session.status = 'closed' then
      perform gre.raise_http(409, 'session_closed', 'session is closed');
    end if;
  elsif p_status = 'active' and v_session.status = 'closed' then
    if exists (select from public.gre_chat_sessions where player_id = v_session.player_id and status <> 'closed') then
      perform gre.raise_http(409, 'session_open', 'the player has another open session');
    end if;
  end if;
  update public.gre_chat_sessions s set
    status = case when p_status = 'closed' then 'closed' when s.status = 'closed' then 'active' else s.status end,
    assigned_staff_id = case p_status when 'assigned' then v_staff when 'active' then null else s.assigned_staff_id end
  where s.id = p_session_id and (
    (s.status = 'closed') <> (p_status = 'closed')
    or p_status = 'assigned' and s.assigned_staff_id is distinct from v_staff
    or p_status = 'active' and s.assigned_staff_id is not null)
  returning * into v_session;
  if not found then
    select * into v_session from public.gre_chat_sessions where id = p_session_id;
  end if;
  return jsonb_build_object('session', gre.session_json(v_session));
exception when unique_violation then -- another session was opened meanwhile
  perform gre.raise_http(409, 'session_open', 'the player has another open session');
end $$;
comment on function public.gre_set_session_status is
  'Sets a session''s status: assigned (to the caller, or to p_staff_id), active (unassigned; reopens a closed '
  'session) or closed. Returns {"session": S}.';

create function public.gre_close_session(p_player_id bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_session public.gre_chat_sessions;
begin
  perform gre.require_staff();
  update public.gre_chat_sessions set status = 'closed' where player_id = p_player_id and status <> 'closed'
  returning * into v_session;
  return jsonb_build_object('session', case when v_session.id is not null then gre.session_json(v_session) end);
end $$;
comment on function public.gre_close_session is
  'Closes the player''s open session, if there is one: {"session": S | null}.';

create function public.gre_enable_player(p_player_id bigint, p_enabled boolean default true) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
begin
  perform gre.require_staff();
  perform gre.check_player_id(p_player_id);
  if p_enabled is null then
    perform gre.raise_http(400, 'enabled_invalid', 'enabled must be true or false');
  end if;
  perform gre.set_block(p_player_id, not p_enabled, null, null, true);
  return jsonb_build_object('player_id', p_player_id, 'enabled', p_enabled);
end $$;
comment on function public.gre_enable_player is 'Enables or disables a player''s chat: {"player_id", "enabled"}.';

create function public.gre_enable_all_players() returns integer
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_count integer := 0;
  v_sessions uuid[];
  v_players bigint[];
  v_blocked bigint[];
begin
  perform gre.require_staff();
  lock table public.gre_chat_blocks in share update exclusive mode; -- one call at a time; blocks do not wait for it
  -- Again for those whom other transactions block meanwhile, each time in the order of locks of gre.set_block:
  -- sessions, players, blocks.
  for n in 1 .. 10 loop
    select coalesce(array_agg(x.id), '{}'), coalesce(array_agg(x.player_id), '{}') into v_sessions, v_players from (
      select s.id, s.player_id from public.gre_chat_sessions s
      join public.gre_chat_players p on p.player_id = s.player_id and not p.chat_enabled
      where s.status <> 'closed' order by s.player_id for no key update of s) x;
    select coalesce(array_agg(x.player_id), '{}'),
      coalesce(array_agg(x.player_id) filter (where not coalesce(x.blocked_until <= clock_timestamp(), false)), '{}')
    into v_players, v_blocked
    from (
      select p.player_id, p.blocked_until from public.gre_chat_players p
      where not p.chat_enabled and (p.player_id = any (v_players) or not exists (
        select from public.gre_chat_sessions s where s.player_id = p.player_id and s.status <> 'closed'))
      order by p.player_id for no key update) x;
    delete from public.gre_chat_blocks where player_id = any (v_players);
    update public.gre_chat_players set chat_enabled = true, blocked_until = null, updated_at = clock_timestamp()
    where player_id = any (v_players);
    perform gre.add_block_events(
      array(select s.id from public.gre_chat_sessions s
            where s.id = any (v_sessions) and s.player_id = any (v_blocked)),
      false, null);
    v_count := v_count + cardinality(v_blocked);
    exit when not exists (select from public.gre_chat_players p where not p.chat_enabled);
  end loop;
  return v_count;
end $$;
comment on function public.gre_enable_all_players is
  'Enables the chat of all players. Returns the number of players that were disabled.';

create function public.gre_set_online_status(p_status text, p_expires_in numeric default null) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_actor gre.actor := gre.require_staff();
  v_until timestamptz := case when p_expires_in is not null -- greatest() ignores null
    then clock_timestamp() + least(greatest(p_expires_in, 1), 86400) * interval '1 second' end;
  v public.gre_online_status;
begin
  if v_actor.staff_id is null then
    perform gre.raise_http(403, 'act_as_required', 'only a person can be online: name one in X-GRE-Act-As');
  elsif p_status is null or p_status not in ('online', 'away', 'offline') then
    perform gre.raise_http(400, 'status_unknown', 'status must be online, away or offline');
  end if;
  insert into public.gre_online_status as o (staff_id, display_name, status, last_seen_at, updated_at, expires_at)
  values (v_actor.staff_id,
          (select gre.clean_name(s.display_name) from public.gre_staff s where s.staff_id = v_actor.staff_id), p_status,
          clock_timestamp(), clock_timestamp(), case when p_status <> 'offline' then v_until end)
  on conflict (staff_id) do update set
    display_name = coalesce(excluded.display_name, o.display_name), status = excluded.status,
    last_seen_at = excluded.last_seen_at, updated_at = excluded.updated_at, expires_at = excluded.expires_at
  returning * into v;
  return jsonb_build_object('staff_id', v.staff_id, 'display_name', v.display_name, 'status', v.status);
end $$;
comment on function public.gre_set_online_status is
  'Sets the caller''s presence: {"staff_id", "display_name", "status"}. p_expires_in: seconds after which the status '
  'becomes offline unless it is set again.';

-- Players and users ---------------------------------------------------------------------------------------

create function public.gre_erase_player(p_player_id bigint) returns jsonb
language plpgsql volatile security definer
set search_path = '' set enable_seqscan = off set jit = off set lock_timeout = '5s' as $$
declare
  v_sessions uuid[];
  v_lanes text[];
  v_message_ids uuid[];
  v_keys bigint[];
  v_pushes integer;
  v_messages integer;
  v_attachments integer;
  v_external_ids constant text[] := array[p_player_id::text, 'player_' || p_player_id,
    (select replace(player_external_id, '{player_id}', p_player_id::text) from gre.settings)];
begin
  perform gre.require_admin();
  -- One erasure of a player at a time: sessions are locked twice below.
  perform pg_advisory_xact_lock(hashtextextended('gre_erase_player', p_player_id));
  -- In the common lock order: sessions, lanes, deliveries. A settle that waits for these locks finds no deliveries and
  -- writes no receipts; one that holds them has written its receipts before the pushes are deleted below.
  select coalesce(array_agg(s.id), '{}') into v_sessions from (
    select id from public.gre_chat_sessions where player_id = p_player_id order by id for update) s;
  -- An announcement in flight holds its quota's row: it is waited for, and its file is deleted below.
  insert into gre.attachment_quotas (who, day)
    select 'player:' || p_player_id, (clock_timestamp() at time zone 'UTC')::date where p_player_id is not null
  on conflict (who, day) do update set who = excluded.who;
  -- What figures count under is deleted, too. A transaction that opens a session holds this row: its session is there
  -- now, and a later one waits until the row is deleted.
  delete from gre.report_players where player_id = p_player_id;
  v_sessions := v_sessions || array(
    select s.id from public.gre_chat_sessions s
    where s.player_id = p_player_id and s.id <> all (v_sessions) order by s.id for update);
  v_lanes := v_sessions::text[];
  update public.gre_relay_lanes l set ready_at = null
  from public.gre_relay_sinks k where l.sink = k.name and l.lane_key = any (v_lanes);
  v_message_ids := array(select m.id from public.gre_chat_messages m where m.session_id = any (v_sessions));
  v_keys := array(select hashtextextended(x, 0) from unnest(v_lanes || v_external_ids) x) || 0::bigint;
  delete from public.gre_relay_deliveries d where d.message_id = any (v_message_ids);
  delete from public.gre_relay_deliveries d where d.message_id is null and d.lane_key = any (v_lanes);
  with deleted as (
    delete from public.push_notifications n
    where n.message_id = any (v_message_ids)
      -- Equal texts have equal keys. Key 0: see gre.push_keys.
      or gre.push_keys(n.audience, n.recipients, n.data) && v_keys
        and (n.data ->> 'session_id' = any (v_lanes) or n.data ->> 'player_id' = p_player_id::text
          or n.audience = 'player' and n.recipients && v_external_ids)
    returning 'push:' || n.id as lane
  )
  select count(*), coalesce(array_agg(lane), '{}') into v_pushes, v_lanes from deleted;
  update public.gre_relay_lanes l set ready_at = null
  from public.gre_relay_sinks k where l.sink = k.name and l.lane_key = any (v_lanes);
  delete from public.gre_relay_deliveries d where d.message_id is null and d.lane_key = any (v_lanes);
  select count(*) into v_attachments from public.gre_chat_attachments a
  where a.player_id = p_player_id and (a.message_id is null or a.session_id = any (v_sessions));
  delete from public.gre_chat_messages where session_id = any (v_sessions); -- and their files, by a trigger
  get diagnostics v_messages = row_count;
  -- Not those that were sent meanwhile, with a message that stays: the first of a new session.
  perform gre.delete_attachments(array(
    select a.id from public.gre_chat_attachments a
    where a.player_id = p_player_id and (a.message_id is null or a.session_id = any (v_sessions))
    order by a.id for update));
  update gre.attachment_tombstones set who = null where who = 'player:' || p_player_id;
  delete from gre.attachment_quotas where who = 'player:' || p_player_id;
  delete from public.gre_chat_sessions where id = any (v_sessions);
  -- A disabled player stays disabled: only chat_enabled and blocked_until are kept.
  delete from public.gre_chat_players where player_id = p_player_id and chat_enabled;
  update public.gre_chat_players set user_id = null, display_name = null, updated_at = clock_timestamp()
  where player_id = p_player_id;
  delete from public.gre_chat_blocks where player_id = p_player_id;
  return jsonb_build_object('messages', v_messages, 'sessions', cardinality(v_sessions), 'pushes', v_pushes,
    'attachments', v_attachments, 'objects', (
      select count(*) from public.gre_storage_deletions d
      where d.name > p_player_id || '/' and d.name < p_player_id || '0')); -- 0 follows /
end $$;
comment on function public.gre_erase_player is
  'Erases a player: messages, sessions, pushes and profile; a disabled chat stays disabled. Events and figures of the '
  'sessions are kept for reports, without any tie to the player (gre_chat_events, gre_chat_cycles). For admins and '
  'back ends. Returns '
  '{"messages", "sessions", "pushes", "attachments", "objects": number of objects of the player''s files that workers '
  'have yet to delete}. Pusher and OneSignal keep the data that they received.';

create function public.gre_link_user(
  p_user_id uuid, p_player_id bigint default null, p_staff_id text default null
) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
  if (gre.require_actor()).role <> 'service' then
    perform gre.raise_http(403, 'service_only', 'only the back end may do this');
  elsif p_user_id is null or (p_player_id is not null and p_staff_id is not null)
    or p_player_id not between 1 and 9007199254740991 or char_length(p_staff_id) not between 1 and 128 then
    perform gre.raise_http(400, 'link_invalid', 'a user can be one player or one staff member');
  end if;
  update public.gre_chat_players set user_id = null
  where user_id = p_user_id and player_id is distinct from p_player_id;
  update public.gre_staff set user_id = null where user_id = p_user_id and staff_id is distinct from p_staff_id;
  if p_player_id is not null then
    insert into public.gre_chat_players (player_id, user_id) values (p_player_id, p_user_id)
    on conflict (player_id) do update set user_id = excluded.user_id;
  elsif p_staff_id is not null then
    insert into public.gre_staff (staff_id, user_id) values (p_staff_id, p_user_id)
    on conflict (staff_id) do update set user_id = excluded.user_id;
  end if;
end $$;
comment on function public.gre_link_user is
  'Maps a Supabase Auth user to a player or a staff member, for tokens without gre-bridge''s claims. With neither, '
  'removes the mapping. For back ends.';

revoke execute on all functions in schema gre from public;
grant execute on function gre.normalize_sender, gre.find_duplicate, gre.check_not_moved to authenticated, service_role;
revoke execute on function public.gre_send_message, public.gre_staff_reply, public.gre_send_messages,
  public.gre_chat_history, public.gre_list_sessions, public.gre_catch_up, public.gre_enter, public.gre_mark_read,
  public.gre_set_session_status, public.gre_close_session, public.gre_enable_player, public.gre_enable_all_players,
  public.gre_set_online_status, public.gre_erase_player, public.gre_link_user
  from public, anon, authenticated, service_role;
grant execute on function public.gre_send_message, public.gre_staff_reply, public.gre_send_messages,
  public.gre_chat_history, public.gre_list_sessions, public.gre_catch_up, public.gre_enter, public.gre_mark_read,
  public.gre_set_session_status, public.gre_close_session, public.gre_enable_player, public.gre_enable_all_players,
  public.gre_set_online_status, public.gre_erase_player to authenticated, service_role;
grant execute on function public.gre_link_user to service_role;
