-- Access: row-level security, grants on tables, the Realtime topic, the publication, and the grants of role gre_worker.
-- Each file grants execute on its own functions. Depends on all other files.
set local lock_timeout = '300ms';
select gre.lock_tables();

-- Foreign policies and grants -----------------------------------------------------------------------------
-- Drop the project's own policies and grants on the chat's tables, and make views use the privileges of their reader:
-- permissive policies are ORed, so one legacy `for all using (true)` would override all policies below.
-- `gre-bridge migrate --dry-run` lists these changes beforehand (sql/adoption_plan.sql selects the same objects).
do $$
declare
  v_tables constant regclass[] := array['public.gre_chat_sessions', 'public.gre_chat_messages',
                                        'public.gre_online_status', 'public.push_notifications'];
  v record;
begin
  for v in select polname, polrelid::regclass as relation from pg_catalog.pg_policy where polrelid = any (v_tables)
  loop
    raise notice 'gre-bridge: dropping policy % on %', quote_ident(v.polname), v.relation;
    execute format('drop policy %I on %s', v.polname, v.relation);
  end loop;
  for v in
    select distinct c.oid::regclass as relation, g.rolname
    from pg_catalog.pg_class c
    cross join lateral (
      select x.grantee from pg_catalog.aclexplode(c.relacl) x
      union all
      select x.grantee from pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x where a.attrelid = c.oid) a
    join pg_catalog.pg_roles g on g.oid = a.grantee
    where c.oid = any (v_tables) and a.grantee <> c.relowner and not g.rolsuper
      and g.rolname not in ('service_role', 'supabase_admin', 'postgres', current_user)
  loop
    raise notice 'gre-bridge: revoking the grants of % on %', quote_ident(v.rolname), v.relation;
    execute format('revoke all on %s from %I', v.relation, v.rolname);
  end loop;
  for v in
    select distinct c.oid::regclass as relation
    from pg_catalog.pg_depend d
    join pg_catalog.pg_rewrite r on d.classid = 'pg_catalog.pg_rewrite'::regclass and r.oid = d.objid
    join pg_catalog.pg_class c on c.oid = r.ev_class
    where d.refobjid = any (v_tables) and c.relkind = 'v' and pg_has_role(c.relowner, 'USAGE')
      and not coalesce(array_to_string(c.reloptions, ',') ~ 'security_invoker=(true|on|1|yes)', false)
  loop
    raise notice 'gre-bridge: view % now uses the privileges of its reader (security_invoker)', v.relation;
    execute format('alter view %s set (security_invoker = true)', v.relation);
  end loop;
end $$;

alter table public.gre_chat_sessions enable row level security;
alter table public.gre_chat_messages enable row level security;
alter table public.gre_online_status enable row level security;
alter table public.push_notifications enable row level security;
revoke all on public.gre_chat_sessions, public.gre_chat_messages, public.gre_online_status, public.push_notifications,
  public.gre_chat_players, public.gre_staff from public, anon, authenticated;
grant select, insert, update, delete on public.gre_chat_sessions, public.gre_chat_messages, public.gre_online_status,
  public.push_notifications, public.gre_chat_players, public.gre_staff to service_role;

-- Collect no statistics on texts and names. Statistics contain samples of the values and outlive an erase, and
-- `Prefer: count=planned` derives estimates from them for rows that the caller may not read.
alter table public.gre_chat_messages
  alter column message set statistics 0,
  alter column sender_name set statistics 0,
  alter column player_name set statistics 0,
  alter column metadata set statistics 0;
alter table public.gre_chat_sessions alter column player_name set statistics 0;
alter index public.gre_chat_sessions_closed_name alter column 1 set statistics 0;
alter table public.gre_chat_players alter column display_name set statistics 0;
alter index public.push_notifications_keys alter column 1 set statistics 0;
alter table public.push_notifications
  alter column title set statistics 0,
  alter column body set statistics 0,
  alter column data set statistics 0,
  alter column recipients set statistics 0;

-- Policies ------------------------------------------------------------------------------------------------
-- One policy for each table, command and role. `(select f())` is evaluated once per statement.

-- Sessions: players read and open their own; staff read all, and open, assign and close them.
grant select, insert on public.gre_chat_sessions to authenticated;
grant update (status, assigned_staff_id) on public.gre_chat_sessions to authenticated;
create policy gre_sessions_read on public.gre_chat_sessions for select to authenticated
  using (player_id = (select gre.my_player_id()) or (select gre.is_staff()));
create policy gre_sessions_open on public.gre_chat_sessions for insert to authenticated
  with check (status = 'active'
    and (player_id = (select gre.my_player_id()) and assigned_staff_id is null or (select gre.is_staff())));
create policy gre_sessions_update on public.gre_chat_sessions for update to authenticated
  using ((select gre.is_staff())) with check ((select gre.is_staff()));

-- Messages: read and insert. The policies use only columns of the row. A policy that reads the sessions would refuse a
-- player's first message, since the same statement opens its session.
grant select, insert on public.gre_chat_messages to authenticated;
create policy gre_messages_read on public.gre_chat_messages for select to authenticated
  using (player_id = (select gre.my_player_id()) or (select gre.is_staff()));
create policy gre_messages_send on public.gre_chat_messages for insert to authenticated
  with check (sender = 'player' and player_id = (select gre.my_player_id())
    or sender = 'staff' and (select gre.is_staff()) and sender_id = (select gre.my_staff_id()));

-- Presence: players and staff read it; staff write their own row.
grant select, insert, update on public.gre_online_status to authenticated;
create policy gre_presence_read on public.gre_online_status for select to authenticated
  using ((select (gre.current_actor()).role) in ('player', 'staff', 'admin'));
create policy gre_presence_insert on public.gre_online_status for insert to authenticated
  with check (staff_id = (select gre.my_staff_id()));
create policy gre_presence_update on public.gre_online_status for update to authenticated
  using (staff_id = (select gre.my_staff_id())) with check (staff_id = (select gre.my_staff_id()));

-- Pushes: staff read them; an admin may queue one. The index for erasures calls its function as the role that inserts
-- the push, which can be one of the project's own.
grant execute on function gre.push_keys to public;
grant select, insert on public.push_notifications to authenticated;
create policy gre_pushes_read on public.push_notifications for select to authenticated
  using ((select gre.is_staff()));
create policy gre_pushes_queue on public.push_notifications for insert to authenticated
  with check ((select gre.is_admin()) and status = 'queued' and delivery_id is null);

-- Events of sessions: staff read them.
grant select on public.gre_chat_events to authenticated, service_role;
create policy gre_events_read on public.gre_chat_events for select to authenticated
  using ((select gre.is_staff()));

-- Blocks of players: staff read them.
grant select on public.gre_chat_blocks to authenticated, service_role;
create policy gre_blocks_read on public.gre_chat_blocks for select to authenticated
  using ((select gre.is_staff()));

-- Profiles and staff: players read their own profile, staff read all. Functions and back ends change them.
grant select on public.gre_chat_players, public.gre_staff to authenticated;
create policy gre_players_read on public.gre_chat_players for select to authenticated
  using (player_id = (select gre.my_player_id()) or (select gre.is_staff()));
create policy gre_staff_read on public.gre_staff for select to authenticated
  using ((select gre.is_staff()));

-- Realtime ------------------------------------------------------------------------------------------------

-- Close the topic of the wake-ups to users. Restrictive, so that no other policy on realtime.messages can open it.
do $$
begin
  if to_regclass('realtime.messages') is not null then
    drop policy if exists gre_relay_is_private on realtime.messages;
    create policy gre_relay_is_private on realtime.messages as restrictive for all to anon, authenticated
      using (realtime.topic() is distinct from 'gre:relay' and topic is distinct from 'gre:relay')
      with check (realtime.topic() is distinct from 'gre:relay' and topic is distinct from 'gre:relay');
  end if;
exception when insufficient_privilege or undefined_function or undefined_column then
  raise notice 'gre-bridge: could not put a policy on realtime.messages (%); see `gre-bridge doctor`', sqlerrm;
end $$;

-- Publish messages: postgres_changes are wake-ups where broadcasts do not work.
do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and puballtables)
    and not exists (select from pg_catalog.pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'gre_chat_messages') then
    alter publication supabase_realtime add table public.gre_chat_messages;
  end if;
exception when insufficient_privilege then
  raise notice 'gre-bridge: could not add gre_chat_messages to publication supabase_realtime (%)', sqlerrm;
end $$;

-- The worker's role ---------------------------------------------------------------------------------------

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'gre_worker') then
    return;
  end if;
  grant usage on schema public to gre_worker;
  grant execute on function public.gre_relay_claim_v1, public.gre_relay_settle_v1, public.gre_relay_exchange_v1,
    public.gre_relay_extend_v1, public.gre_relay_release_v1, public.gre_relay_stats_v1, public.gre_relay_listen_v1,
    public.gre_relay_unlisten_v1, public.gre_relay_report_v1, public.gre_relay_leave_v1, public.gre_relay_notify_v1,
    public.gre_relay_status, public.gre_hub_changes_v1, public.gre_hub_presence_v1, public.gre_assign_waiting_v1,
    public.gre_desk_stats_v1, public.gre_report_pack_v1, public.gre_tick_v1, public.gre_media_claim_v1,
    public.gre_media_extend_v1, public.gre_media_settle_v1, public.gre_storage_deletions_claim_v1,
    public.gre_storage_deletions_settle_v1, public.gre_media_sweep_v1, public.gre_storage_state_v1,
    public.gre_schema_version to gre_worker;
  -- For postgres_changes: Realtime sends a subscriber the rows and columns that its role may read.
  grant select (id, session_id, seq) on public.gre_chat_messages to gre_worker;
  create policy gre_messages_worker_read on public.gre_chat_messages for select to gre_worker using (true);
  if to_regclass('realtime.messages') is not null then
    begin
      grant usage on schema realtime to gre_worker;
      grant select, insert on realtime.messages to gre_worker;
      create policy gre_relay_for_workers on realtime.messages for all to gre_worker
        using (realtime.topic() in ('gre:relay', 'gre:relay:rows')) with check (realtime.topic() = 'gre:relay');
    exception when insufficient_privilege or undefined_function or undefined_column then
      raise notice 'gre-bridge: could not grant the topic of the wake-ups to role gre_worker (%)', sqlerrm;
    end;
  end if;
end $$;

notify pgrst, 'reload schema';
