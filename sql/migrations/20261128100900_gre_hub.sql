-- Functions for the hub, the part of the API process that reads for all its sockets. Only workers may call them.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages (gre.presence), gre_outbox (JSON) and gre_story (at
-- run time).
set local lock_timeout = '300ms';

-- Return {"last_note": n, 0 without notes, "notes": [N]} of a session: the notes after p_after, or those created after
-- p_epoch if p_after is null. At most 50, and {"more": true} if there are more.
create function gre.new_notes(p_session uuid, p_after integer, p_epoch timestamptz) returns jsonb
language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_last constant integer := coalesce((select max(n) from public.gre_chat_notes where session_id = p_session), 0);
begin
  if v_last <= coalesce(p_after, 0) then
    return jsonb_build_object('last_note', v_last);
  end if;
  return (
    select jsonb_build_object('last_note', v_last,
        'notes', coalesce(jsonb_agg(gre.note_json(x.note) order by x.n), '[]'))
      || case when max(x.n) < v_last then '{"more": true}'::jsonb else '{}' end
    from (select q as note, q.n from public.gre_chat_notes q
          where q.session_id = p_session and q.n > coalesce(p_after, 0)
            and (p_after is not null or q.created_at > p_epoch)
          order by q.n limit 50) x);
end $$;

create function public.gre_hub_changes_v1(
  p_positions jsonb default '{}', p_sessions uuid[] default '{}', p_since timestamptz default null,
  p_epoch timestamptz default null,
  p_players bigint[] default null, p_limit integer default 200, p_bytes integer default 1000000
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_ids uuid[] := p_sessions;
  v_changes jsonb[] := '{}';
  v_skipped uuid[] := '{}';
  v_count integer := 0;
  v_bytes bigint := 0;
  v_entry jsonb;
  v record;
begin
  perform gre.require_worker();
  -- A separate query, so that the index on updated_at is read from p_since on.
  if p_since is not null then
    v_ids := v_ids || array(
      select s.id from public.gre_chat_sessions s
      where s.updated_at > p_since and (p_players is null or s.player_id = any (p_players))
        and s.rev > coalesce((p_positions -> s.id::text ->> 1)::bigint, 0)
      order by s.updated_at limit 500);
  end if;
  for v in
    select s, p.position, coalesce((p.position ->> 0)::bigint, 0) as seq,
      case when p.position ->> 3 is null then (p.position ->> 1)::bigint end as after_rev,
      coalesce((p.position ->> 3)::timestamptz, p_epoch) as epoch
    from public.gre_chat_sessions s
    cross join lateral (select p_positions -> s.id::text as position) p
    where s.id = any (v_ids) and (p_players is null or s.player_id = any (p_players))
      and s.rev > coalesce((p.position ->> 1)::bigint, 0)
    order by s.updated_at limit 500
  loop
    v_count := v_count + 1;
    if v_bytes >= p_bytes then
      v_skipped := v_skipped || (v.s).id;
      continue;
    end if;
    select jsonb_build_object('session', gre.session_json(v.s),
        'reads', jsonb_build_object('staff', jsonb_build_array((v.s).staff_read_seq, gre.iso((v.s).staff_read_at)),
                                    'player', jsonb_build_array((v.s).player_read_seq, gre.iso((v.s).player_read_at))),
        'messages', coalesce(jsonb_agg(gre.message_json(x.m) order by (x.m).seq) filter (where x.fits), '[]'),
        'more', count(*) >= p_limit or not coalesce(bool_and(x.fits), true))
      -- A position with a negative rev is that of one connection, which catches up.
      || case when p_players is null and coalesce((v.position ->> 1)::bigint, 0) >= 0
           then gre.new_events((v.s).id, v.after_rev, v.epoch) else '{}' end
      || case when p_players is null then gre.new_notes((v.s).id, (v.position ->> 2)::integer, p_epoch) else '{}' end
      || case when coalesce((v.position ->> 1)::bigint, 0) >= 0
           then gre.changed_attachments((v.s).id, v.after_rev, v.epoch) else '{}' end
    into v_entry
    from (
      -- The first message is always included.
      select y.m, sum(y.size) over (order by (y.m).seq) - y.size < p_bytes - v_bytes as fits from (
        -- A file: a name of 200 characters, an alternative text of 1000, and the rest.
        select m, octet_length(m.message) + 400 + 5400 * cardinality(m.attachment_ids) as size
        from public.gre_chat_messages m
        where m.session_id = (v.s).id and m.seq > v.seq and (v.position is not null or m.created_at > p_epoch)
        order by m.seq limit p_limit) y) x;
    v_changes := v_changes || v_entry;
    v_bytes := v_bytes + pg_column_size(v_entry);
  end loop;
  return jsonb_build_object('now', clock_timestamp(), 'more', v_count >= 500 or cardinality(v_skipped) > 0,
    'skipped', to_jsonb(v_skipped),
    'other_sessions', case when p_players is null then '[]' else (
      select coalesce(jsonb_agg(s.id), '[]') from public.gre_chat_sessions s
      where s.id = any (p_sessions) and s.player_id <> all (p_players)) end,
    'sessions', to_jsonb(v_changes));
end $$;
comment on function public.gre_hub_changes_v1 is
  'Returns sessions that changed after the hub''s positions: {"now", "sessions": [{"session": S, "reads": {"staff": '
  '[seq, at], "player": [seq, at]}, "messages": [M], "more", "events"? (see gre_session_events; the first 50), '
  '"last_note", "notes": [N], "attachments"? (files that changed after they were sent: [A with "message_id" and '
  '"rev"], the first 100), "events_more"?, "files_more"? (the rev up to which they are here, if there are more)}], '
  '"more", "skipped": [ids], '
  '"other_sessions": [ids]}. Reads the sessions in p_sessions and those updated after '
  'p_since, if their rev is greater than in p_positions ({id: [seq, rev, n?, epoch?]}), and their messages after that '
  'seq and notes after that n; without a position, those created after p_epoch. Events and files come after that rev, '
  'or, of a position with an epoch, from that time on. p_players: only sessions of these players, '
  'without events and notes; "other_sessions" are the sessions in p_sessions of other players. Limits: p_limit '
  'messages of a session, and about p_bytes in all; "skipped" are sessions beyond that. Stable, so that all queries '
  'use one snapshot, and seq and rev are consistent.';

-- Return the elements of p_identities that are no longer valid: [{"sub", "role", "player_id", "staff_id"}], from
-- gre_whoami. sub is its user_id: null if the token itself, or X-GRE-Act-As, carries the identity.
create function gre.revoked_identities(p_identities jsonb) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_agg(i.x), '[]')
    from jsonb_array_elements(p_identities) i (x)
    cross join lateral (
      select nullif(i.x ->> 'sub', '') as sub, i.x ->> 'role' as role, i.x ->> 'staff_id' as staff_id,
        (i.x ->> 'player_id')::bigint as player_id) c
    left join public.gre_staff s on s.staff_id = c.staff_id
    where case
      when c.sub !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then true
      when c.sub is not null then (
        select row(m.role, m.player_id, m.staff_id) is distinct from row(c.role, c.player_id, c.staff_id)
        from gre.mapped_actor(c.sub::uuid) m)
      when c.staff_id is null then false
      when s.staff_id is null then exists (select from public.gre_staff)
      else not s.active end);
end $$;

create function public.gre_hub_presence_v1(
  p_staff text[], p_players bigint[], p_expires_in numeric, p_identities jsonb default '[]'
) returns jsonb
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_revoked jsonb;
  v_staff text[];
begin
  perform gre.require_worker();
  if jsonb_typeof(p_identities) is distinct from 'array' then
    perform gre.raise_http(400, 'identities_invalid', 'p_identities must be an array');
  end if;
  v_revoked := gre.revoked_identities(p_identities);
  -- Staff with revoked identities only do not stay online: the caller closes their sockets.
  v_staff := array(
    select s from unnest(p_staff) s
    where not exists (select from jsonb_array_elements(v_revoked) x where x ->> 'staff_id' = s)
      or exists (select from jsonb_array_elements(p_identities) x
                 where x ->> 'staff_id' = s and not v_revoked @> jsonb_build_array(x)));
  -- On a read-only database, skip the writes and return the answer.
  if current_setting('transaction_read_only') = 'off' then
    update public.gre_online_status o set last_seen_at = v_now, expires_at = v_now + p_expires_in * interval '1 second',
      status = case o.status when 'offline' then 'online' else o.status end
    from (select staff_id from public.gre_online_status where staff_id = any (v_staff) and expires_at is not null
          order by staff_id for no key update skip locked) l
    where o.staff_id = l.staff_id;
    -- Expire the others. Keep expires_at: it marks the status as expired, so that the statement above can restore it.
    update public.gre_online_status o set status = 'offline', updated_at = v_now
    from (select staff_id from public.gre_online_status where expires_at < v_now and status <> 'offline'
          order by staff_id for no key update skip locked) l
    where o.staff_id = l.staff_id;
  end if;
  return jsonb_build_object(
    'online', (select coalesce(jsonb_agg(jsonb_build_object('staff_id', o.staff_id, 'display_name', o.display_name,
                                                            'status', o.status)
                                         order by o.staff_id), '[]')
               from public.gre_online_status o left join public.gre_staff t on t.staff_id = o.staff_id
               where gre.presence(o.status, o.last_seen_at, o.expires_at) <> 'offline' and o.staff_id is not null
                 and coalesce(t.active, true)),
    'disabled', (select coalesce(jsonb_agg(p.player_id), '[]') from public.gre_chat_players p
                 where p.player_id = any (p_players) and not p.chat_enabled
                   and not coalesce(p.blocked_until <= v_now, false)),
    'revoked', v_revoked);
end $$;
comment on function public.gre_hub_presence_v1 is
  'Heartbeat of the staff with sockets at a hub (p_staff): extends their presence by p_expires_in seconds. Returns '
  '{"online": [{"staff_id", "display_name", "status"}] without inactive staff, "disabled": [ids in p_players whose '
  'chat is disabled], '
  '"revoked": [elements of p_identities that are no longer valid]}.';

revoke execute on all functions in schema gre from public;
revoke execute on function public.gre_hub_changes_v1, public.gre_hub_presence_v1
  from public, anon, authenticated, service_role;
grant execute on function public.gre_hub_changes_v1, public.gre_hub_presence_v1 to service_role;
