-- Facts about the database for `gre-bridge doctor`: one row with one JSON object. Reads only. Any role can run it; the
-- result depends on the privileges of the role. Python evaluates the facts.
select jsonb_build_object(
  'now', clock_timestamp(),
  'role', current_user,
  'wal_level', current_setting('wal_level'),
  'connections', (select count(*) from pg_catalog.pg_stat_activity where backend_type = 'client backend'),
  'max_connections',
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
  'slots', (select coalesce(jsonb_agg(jsonb_build_object('name', s.slot_name, 'active', s.active,
      'kept', pg_wal_lsn_diff(case when pg_is_in_recovery() then null else pg_current_wal_lsn() end, s.restart_lsn))
      order by s.slot_name), '[]')
    from pg_catalog.pg_replication_slots s),
  'max_slots', current_setting('max_replication_slots')::integer,
  'transactions', (select coalesce(jsonb_agg(jsonb_build_object('pid', a.pid, 'user', a.usename, 'state', a.state,
      'application', a.application_name, 'age', round(extract(epoch from clock_timestamp() - a.xact_start)))
      order by a.xact_start), '[]')
    from pg_catalog.pg_stat_activity a
    where a.datname = current_database() and a.backend_type = 'client backend'
      and a.xact_start < clock_timestamp() - interval '5 minutes'),
  'prepared', (select count(*) from pg_catalog.pg_prepared_xacts p
    where p.database = current_database() and p.prepared < clock_timestamp() - interval '5 minutes'),
  'publication', exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime'),
  'published', exists (select from pg_catalog.pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'gre_chat_messages'),
  'open_tables', (select coalesce(jsonb_agg(c.relname order by c.relname), '[]') from pg_catalog.pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
      and (c.relname like 'gre\_%' or c.relname = 'push_notifications')),
  'tables', (select count(*) from pg_catalog.pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
      and (c.relname like 'gre\_%' or c.relname = 'push_notifications')),
  -- While a trigger is disabled, messages are not enqueued.
  'disabled_triggers', (select coalesce(jsonb_agg(t.tgname || ' on ' || c.relname order by t.tgname), '[]')
    from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
    where c.relnamespace = 'public'::regnamespace and not t.tgisinternal and t.tgenabled in ('D', 'R')
      and t.tgname ~ '^(zzz_)?gre_'
      and (c.relname like 'gre\_%' or c.relname = 'push_notifications')),
  -- Null without Storage. The policies (restrictive but for two) and triggers of gre_storage_adopt; own: the project's
  -- permissive policies for users.
  'storage', (select jsonb_build_object('rls', c.relrowsecurity,
      'policies', (select coalesce(jsonb_agg(p.polname order by p.polname), '[]') from pg_catalog.pg_policy p
        where p.polrelid = c.oid and p.polname like 'gre\_%'
          and p.polpermissive = (p.polname in ('gre_chat_fetch', 'gre_chat_upload'))),
      'own', (select coalesce(jsonb_agg(jsonb_build_object('name', p.polname, 'rules', jsonb_build_array(
          pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))) order by p.polname), '[]')
        from pg_catalog.pg_policy p
        where p.polrelid = c.oid and p.polpermissive and p.polname not in ('gre_chat_fetch', 'gre_chat_upload')
          and (0 = any (p.polroles) or exists (select from pg_catalog.pg_roles r
            where r.oid = any (p.polroles) and r.rolname in ('anon', 'authenticated')))),
      'triggers', (select coalesce(jsonb_agg(t.tgname order by t.tgname), '[]') from pg_catalog.pg_trigger t
        where t.tgrelid = c.oid and t.tgname like 'gre\_%' and t.tgenabled in ('O', 'A')))
    from pg_catalog.pg_class c where c.oid = to_regclass('storage.objects')),
  'send', exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'realtime' and p.proname = 'send'
      and pg_get_function_identity_arguments(p.oid) like '%jsonb%text%text%boolean'),
  -- The owner of gre-bridge's functions broadcasts the wake-ups. realtime.send runs with its privileges, and hides a
  -- permission error.
  'send_allowed', coalesce((
    select has_function_privilege(n.nspowner, p.oid, 'execute')
      and has_schema_privilege(n.nspowner, p.pronamespace, 'usage')
      and (p.prosecdef or to_regclass('realtime.messages') is null
        or has_table_privilege(n.nspowner, to_regclass('realtime.messages'), 'insert'))
    from pg_catalog.pg_namespace n, pg_catalog.pg_proc p
    where n.nspname = 'gre' and p.oid = to_regprocedure('realtime.send(jsonb,text,text,boolean)')), true),
  'send_owner', (select pg_get_userbyid(nspowner) from pg_catalog.pg_namespace where nspname = 'gre'),
  'messages', (select jsonb_build_object(
      'policy', exists (select from pg_catalog.pg_policy y
        where y.polrelid = c.oid and y.polname = 'gre_relay_is_private' and not y.polpermissive),
      'rls', c.relrowsecurity,
      -- Realtime partitions the table by day, in UTC.
      'today', c.relkind = 'r' or exists (
        select from pg_catalog.pg_inherits i join pg_catalog.pg_class p on p.oid = i.inhrelid
        cross join lateral (select pg_get_expr(p.relpartbound, p.oid) as bound) b
        cross join lateral regexp_match(b.bound, 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') m
        where i.inhparent = c.oid and (b.bound = 'DEFAULT'
          or now() at time zone 'UTC' >= m[1]::timestamp and now() at time zone 'UTC' < m[2]::timestamp)))
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'realtime' and c.relname = 'messages'))
