-- Who may do what: row-level security, grants, the Realtime topic and the publication.
set local lock_timeout = '300ms';
select gre.lock_tables();

-- Permissive policies are ORed: one old `for all using (true)` would undo every policy below. So what is not
-- ours goes, policies and grants, and views read with their reader's rights: `gre-bridge migrate --dry-run`
-- lists each beforehand.
do $$
declare
  v_tables constant regclass[] := array['public.gre_chat_sessions', 'public.gre_chat_messages', 'public.gre_online_status',
                                        'public.push_notifications'];
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
    raise notice 'gre-bridge: view % is read with its reader''s rights from now on', v.relation;
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

-- Statistics are samples of the values: they outlive what was erased, and `Prefer: count=planned` tells of rows that one may not read.
alter table public.gre_chat_messages alter column message set statistics 0, alter column sender_name set statistics 0,
  alter column player_name set statistics 0, alter column metadata set statistics 0;
alter table public.gre_chat_sessions alter column player_name set statistics 0;
alter table public.gre_chat_players alter column display_name set statistics 0;
alter table public.push_notifications alter column title set statistics 0, alter column body set statistics 0,
  alter column data set statistics 0, alter column recipients set statistics 0;

-- Sessions: a player sees and opens its own; staff see all, assign and close.
grant select, insert on public.gre_chat_sessions to authenticated;
grant update (status, assigned_staff_id) on public.gre_chat_sessions to authenticated;
create policy gre_sessions_player_reads on public.gre_chat_sessions for select to authenticated
  using (player_id = (select gre.my_player_id()));
create policy gre_sessions_staff_reads on public.gre_chat_sessions for select to authenticated
  using ((select gre.is_staff()));
create policy gre_sessions_player_opens on public.gre_chat_sessions for insert to authenticated
  with check (player_id = (select gre.my_player_id()) and status = 'active' and assigned_staff_id is null);
create policy gre_sessions_staff_opens on public.gre_chat_sessions for insert to authenticated
  with check ((select gre.is_staff()) and status = 'active');
create policy gre_sessions_staff_updates on public.gre_chat_sessions for update to authenticated
  using ((select gre.is_staff())) with check ((select gre.is_staff()));

-- Messages: insert-only. The policies use the row's own columns only: one that looked into the sessions would
-- refuse a player's first message, whose session is opened inside the same statement.
grant select, insert on public.gre_chat_messages to authenticated;
create policy gre_messages_player_reads on public.gre_chat_messages for select to authenticated
  using (player_id = (select gre.my_player_id()));
create policy gre_messages_staff_reads on public.gre_chat_messages for select to authenticated
  using ((select gre.is_staff()));
create policy gre_messages_player_sends on public.gre_chat_messages for insert to authenticated
  with check (player_id = (select gre.my_player_id()) and sender = 'player');
create policy gre_messages_staff_sends on public.gre_chat_messages for insert to authenticated
  with check (sender = 'staff' and (select gre.is_staff()) and sender_id = (select gre.my_staff_id()));

-- Presence: everyone in the chat sees who is there; staff write their own row.
grant select, insert, update on public.gre_online_status to authenticated;
create policy gre_online_all_read on public.gre_online_status for select to authenticated
  using ((select (gre.who()).role) in ('player', 'staff', 'admin'));
create policy gre_online_staff_inserts on public.gre_online_status for insert to authenticated
  with check (staff_id = (select gre.my_staff_id()));
create policy gre_online_staff_updates on public.gre_online_status for update to authenticated
  using (staff_id = (select gre.my_staff_id())) with check (staff_id = (select gre.my_staff_id()));

-- Pushes: staff see them; an admin may queue one.
grant select, insert on public.push_notifications to authenticated;
create policy gre_pushes_staff_read on public.push_notifications for select to authenticated
  using ((select gre.is_staff()));
create policy gre_pushes_admin_queues on public.push_notifications for insert to authenticated
  with check ((select gre.is_admin()) and status = 'queued' and delivery_id is null);

-- People: a player sees itself, staff see all; changes go through functions or the back end.
grant select on public.gre_chat_players, public.gre_staff to authenticated;
create policy gre_players_own_read on public.gre_chat_players for select to authenticated
  using (player_id = (select gre.my_player_id()));
create policy gre_players_staff_read on public.gre_chat_players for select to authenticated
  using ((select gre.is_staff()));
create policy gre_staff_staff_read on public.gre_staff for select to authenticated
  using ((select gre.is_staff()));

-- The bell is for the workers. Restrictive, so that no other policy on realtime.messages opens it.
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

-- The second bell: postgres_changes.
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

notify pgrst, 'reload schema';
