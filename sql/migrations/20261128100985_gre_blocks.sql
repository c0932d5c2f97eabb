-- Blocks of players: why a player's chat is disabled, by whom and until when. gre_chat_players has the state that every
-- message is checked against (chat_enabled, blocked_until); a block ends by itself at blocked_until.
-- Depends on gre_foundation, gre_tables, gre_identity and gre_story.
set local lock_timeout = '300ms';

create table public.gre_chat_blocks (
  player_id bigint primary key references public.gre_chat_players on delete cascade,
  reason text constraint gre_chat_blocks_reason_size check (char_length(reason) between 1 and 500),
  by_staff_id text,
  created_at timestamptz not null default clock_timestamp()
);
-- Statistics contain samples of the values and outlive an erase.
alter table public.gre_chat_blocks alter column reason set statistics 0;
comment on table public.gre_chat_blocks is
  'Why, by whom and since when a player is blocked. Not readable for players. Written by functions.';
comment on column public.gre_chat_blocks.player_id is 'The player.';
comment on column public.gre_chat_blocks.reason is 'The reason, for staff: at most 500 characters, or null.';
comment on column public.gre_chat_blocks.by_staff_id is 'The staff member who blocked the player; null for a back end.';
comment on column public.gre_chat_blocks.created_at is 'Time of the block.';
alter table public.gre_chat_blocks enable row level security;
revoke all on public.gre_chat_blocks from public, anon, authenticated, service_role;

-- Add the event of a block, or of its end, to the story of sessions that the caller has locked.
create function gre.add_block_events(p_sessions uuid[], p_blocked boolean, p_until timestamptz) returns void
language sql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
  with changed as (
    update public.gre_chat_sessions set rev = rev + 1 where id = any (p_sessions)
    returning id, rev, updated_at, last_seq)
  insert into public.gre_chat_events (session_id, rev, at, after_seq, kind, by_staff_id, data)
  select c.id, c.rev, c.updated_at,
    (select greatest(c.last_seq, max(m.seq)) from public.gre_chat_messages m where m.session_id = c.id),
    case when p_blocked then 'blocked' else 'unblocked' end, (gre.current_actor()).staff_id,
    case when p_until is not null then jsonb_build_object('until', gre.iso(p_until)) else '{}' end
  from changed c
$$;

-- Block a player, or unblock it, and add an event to the story of its open session if that changes anything. Locks the
-- session before the player, as an erase does. p_switch: the call is the switch of older portals, which keeps the
-- reason of a block and records none of its own.
create function gre.set_block(
  p_player_id bigint, p_blocked boolean, p_until timestamptz, p_reason text, p_switch boolean default false
) returns void
language plpgsql volatile set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_staff constant text := (gre.current_actor()).staff_id;
  v_session public.gre_chat_sessions;
  v_reason text := p_reason;
  v_old record; -- reason and recorded: of a block that lasts
begin
  perform gre.check_player_id(p_player_id);
  select * into v_session from public.gre_chat_sessions
  where player_id = p_player_id and status <> 'closed' for no key update;
  -- Locks the row also if it exists already: an erase may delete it at this moment.
  insert into public.gre_chat_players as p (player_id) values (p_player_id)
  on conflict (player_id) do update set updated_at = p.updated_at;
  select p.chat_enabled, p.blocked_until, b.reason, b.player_id is not null as recorded into v_old
  from public.gre_chat_players p
  left join public.gre_chat_blocks b on b.player_id = p.player_id
    and not p.chat_enabled and not coalesce(p.blocked_until <= clock_timestamp(), false)
  where p.player_id = p_player_id;
  if p_switch and p_blocked then
    v_reason := v_old.reason;
  end if;
  if row(v_old.chat_enabled, v_old.blocked_until, v_old.reason)
    is not distinct from row(not p_blocked, p_until, v_reason) and (v_old.recorded or p_switch or not p_blocked) then
    return;
  end if;
  update public.gre_chat_players set chat_enabled = not p_blocked, blocked_until = p_until,
    updated_at = clock_timestamp()
  where player_id = p_player_id;
  delete from public.gre_chat_blocks where player_id = p_player_id;
  if p_blocked and (v_old.recorded or not p_switch) then
    insert into public.gre_chat_blocks (player_id, reason, by_staff_id) values (p_player_id, v_reason, v_staff);
  end if;
  if v_session.id is not null then
    perform gre.add_block_events(array[v_session.id], p_blocked, p_until);
  end if;
end $$;

-- Return a player for the API. "block" is there only while the player is blocked and more is known of it: older portals
-- know no such key.
create function gre.player_json(p_player_id bigint) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v public.gre_chat_players;
  v_blocked boolean;
begin
  select * into v from public.gre_chat_players where player_id = p_player_id;
  v_blocked := coalesce(not v.chat_enabled and not coalesce(v.blocked_until <= clock_timestamp(), false), false);
  return jsonb_build_object('player_id', p_player_id, 'display_name', v.display_name, 'enabled', not v_blocked)
    || coalesce((
      select jsonb_build_object('block', jsonb_build_object('until', gre.iso(v.blocked_until), 'reason', b.reason,
        'by', b.by_staff_id, 'at', gre.iso(coalesce(b.created_at, v.updated_at))))
      from (select) x left join public.gre_chat_blocks b on b.player_id = p_player_id
      where v_blocked and (b.player_id is not null or v.blocked_until is not null)), '{}');
end $$;

create function public.gre_block_player(
  p_player_id bigint, p_until timestamptz default null, p_reason text default null
) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_reason constant text := case when gre.has_text(p_reason) then btrim(p_reason) end;
begin
  perform gre.require_staff();
  if p_until <= clock_timestamp() or not isfinite(p_until) then
    perform gre.raise_http(400, 'until_invalid', 'until must be a time in the future');
  elsif char_length(v_reason) > 500 then
    perform gre.raise_http(400, 'reason_too_long', 'reason is longer than 500 characters');
  end if;
  perform gre.set_block(p_player_id, true, p_until, v_reason);
  return gre.player_json(p_player_id);
end $$;
comment on function public.gre_block_player is
  'Disables a player''s chat until a time, or until it is enabled again: {"player_id", "display_name", "enabled", '
  '"block": {"until", "reason", "by", "at"}}. p_reason is for staff; the player sees only blocked_until. For '
  'staff.';

create function public.gre_unblock_player(p_player_id bigint) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
begin
  perform gre.require_staff();
  perform gre.set_block(p_player_id, false, null, null);
  return gre.player_json(p_player_id);
end $$;
comment on function public.gre_unblock_player is
  'Enables a player''s chat. Returns what gre_get_player returns. For staff.';

revoke execute on function gre.add_block_events, gre.set_block, gre.player_json from public;
grant execute on function gre.player_json to authenticated, service_role;
revoke execute on function public.gre_block_player, public.gre_unblock_player
  from public, anon, authenticated, service_role;
grant execute on function public.gre_block_player, public.gre_unblock_player to authenticated, service_role;
