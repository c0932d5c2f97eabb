-- List the objects of gre-bridge in a database: one JSON object of sorted lists of lines. Reads the catalog only.
-- `gre-bridge doctor` and `migrate --record` compare it with sql/expected.json, the result for a new project with all
-- migrations (`make expected`). Privileges are effective privileges, however granted.
with relation as (
  select c.oid, c.relname::text as name, c.relrowsecurity
  from pg_catalog.pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
    and (c.relname like 'gre\_%' or c.relname = 'push_notifications')
), routine as (
  select p.oid, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name,
    p.proname, p.prosecdef, p.prosrc, p.proconfig
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where n.nspname = 'gre' or n.nspname = 'public' and p.proname like 'gre\_%'
), api_role as (
  select rolname::text as name from pg_catalog.pg_roles
  where rolname in ('anon', 'authenticated', 'service_role', 'gre_worker')
), line as (
  select 'columns' as list, format('%s.%s %s', r.name, a.attname, pg_catalog.format_type(a.atttypid, null)) as text
  from relation r join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  where (r.name, a.attname) <> ('push_notifications', 'id')
  union all
  select 'row level security', r.name from relation r where r.relrowsecurity
  union all
  select 'triggers', format('%s on %s', t.tgname, r.name)
  from relation r join pg_catalog.pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
  union all
  select 'indexes', format('%s on %s', i.indexrelid::regclass, r.name)
  from relation r join pg_catalog.pg_index i on i.indrelid = r.oid
  where i.indisvalid and not i.indisprimary
  union all
  select 'constraints', format('%s on %s', k.conname, r.name)
  from relation r join pg_catalog.pg_constraint k on k.conrelid = r.oid and k.contype in ('c', 'f', 'u')
  union all
  select 'policies', format('%s on %s: %s for %s to %s%s%s', y.policyname, y.tablename, lower(y.permissive),
    lower(y.cmd), array_to_string(y.roles, ', '),
    ' using (' || y.qual || ')', ' with check (' || y.with_check || ')')
  from relation r join pg_catalog.pg_policies y on y.schemaname = 'public' and y.tablename = r.name
  union all
  select 'functions', format('%s%s', r.name, case when r.prosecdef then ', security definer' else '' end) from routine r
  union all
  select 'sources', format('%s: %s', r.name, md5(concat_ws(e'\n', r.prosrc, array_to_string(r.proconfig, ', '))))
  from routine r
  union all
  select 'privileges', format('%s may execute %s', p.name, r.name)
  from api_role p cross join routine r
  where has_function_privilege(p.name, r.oid, 'execute')
    and has_schema_privilege(p.name, split_part(r.name, '.', 1), 'usage')
  union all
  select 'privileges', format('%s may %s %s', p.name, lower(x.privilege), r.name)
  from api_role p cross join relation r
  cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) x (privilege)
  where has_table_privilege(p.name, r.oid, x.privilege)
    and (p.name in ('anon', 'authenticated') or x.privilege in ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
  union all
  select 'privileges', format('%s may %s (%s) of %s', p.name, lower(x.privilege), a.attname, r.name)
  from api_role p cross join relation r
  join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  cross join unnest(array['SELECT', 'INSERT', 'UPDATE']) x (privilege)
  where has_column_privilege(p.name, r.oid, a.attnum, x.privilege)
    and not has_table_privilege(p.name, r.oid, x.privilege)
  union all
  -- The project's own security definer functions that use the chat's tables and that users may execute.
  select 'open functions',
    format('%s may be executed by %s', f.oid::regprocedure, string_agg(p.name, ' and ' order by p.name))
  from pg_catalog.pg_proc f
  join api_role p on p.name in ('anon', 'authenticated') and has_function_privilege(p.name, f.oid, 'execute')
  where f.prosecdef and f.prorettype <> 'trigger'::regtype and f.oid not in (select oid from routine)
    and f.pronamespace::regnamespace::text not in (
      'pg_catalog', 'information_schema', 'auth', 'storage', 'realtime', 'graphql', 'vault', 'extensions')
    and coalesce(nullif(f.prosrc, ''), pg_get_functiondef(f.oid)) ~ ('\m(gre_chat_sessions|gre_chat_messages'
      '|gre_online_status|push_notifications|gre_chat_players|gre_staff)\M')
    and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = f.oid and d.deptype = 'e')
  group by f.oid
)
select jsonb_object_agg(list, lines) from (
  select list, jsonb_agg(text order by text collate "C") as lines
  from (select distinct list, text from line) l group by list) x;
