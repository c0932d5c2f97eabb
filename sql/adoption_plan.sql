-- List the objects of a live project that the migrations will drop or change: kind, relation, name, detail. For
-- `gre-bridge migrate --dry-run`. Reads the catalog only. Selects the same objects as gre.adopt() and gre_access.
with relation as (
  select c.oid, c.relname::text as name, c.relacl, c.relowner, c.relrowsecurity
  from pg_catalog.pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
    and c.relname in ('gre_chat_sessions', 'gre_chat_messages', 'gre_online_status', 'push_notifications')
)
select 'policy' as kind, r.name as relation, quote_ident(p.policyname) as name,
  format('%s for %s to %s%s%s', lower(p.permissive), lower(p.cmd), array_to_string(p.roles, ', '),
    ' using (' || p.qual || ')', ' with check (' || p.with_check || ')') as detail
from relation r join pg_catalog.pg_policies p on p.schemaname = 'public' and p.tablename = r.name
union all
select 'grant', r.name, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
  string_agg(distinct lower(a.privilege_type) || coalesce(' (' || a.columns || ')', ''), ', ')
from relation r
cross join lateral (
  select x.grantee, x.privilege_type, null as columns from pg_catalog.aclexplode(r.relacl) x
  union all
  select x.grantee, x.privilege_type, string_agg(quote_ident(t.attname), ', ' order by t.attnum)
  from pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) x where t.attrelid = r.oid group by 1, 2
) a
left join pg_catalog.pg_roles g on g.oid = a.grantee
where a.grantee <> r.relowner and not coalesce(g.rolsuper, false)
  and coalesce(g.rolname, '') not in ('service_role', 'supabase_admin', 'postgres', current_user)
group by r.name, a.grantee
union all
select 'row level security', r.name, 'off', 'is turned on' from relation r where not r.relrowsecurity
union all
select distinct 'view', r.name, c.oid::regclass::text,
  case when c.relkind = 'm' then 'is a materialized view: whoever may read it goes on reading all that it holds'
       when pg_has_role(c.relowner, 'USAGE') then 'is read with its reader''s rights (security_invoker) from then on'
       else 'belongs to ' || quote_ident(pg_get_userbyid(c.relowner))
         || ' and shows every row to whoever may read it' end
from relation r
join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = r.oid
join pg_catalog.pg_rewrite w on d.classid = 'pg_catalog.pg_rewrite'::regclass and w.oid = d.objid
join pg_catalog.pg_class c on c.oid = w.ev_class and c.oid <> r.oid
where not coalesce(array_to_string(c.reloptions, ',') ~ 'security_invoker=(true|on|1|yes)', false)
union all
select 'trigger', r.name, quote_ident(t.tgname), 'stays; see that it suits the new rows'
from relation r join pg_catalog.pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal
union all
-- Policies do not apply inside a security definer function. A function that builds its SQL as text is not found.
select 'open function', t.name, f.oid::regprocedure::text,
  'stays; reads or writes with its owner''s rights for ' || string_agg(g.rolname, ', ' order by g.rolname)
    || ': revoke that, or let it ask who calls'
from pg_catalog.pg_proc f
join relation t on coalesce(nullif(f.prosrc, ''), pg_get_functiondef(f.oid)) ~ ('\m' || t.name || '\M')
join pg_catalog.pg_roles g on g.rolname in ('anon', 'authenticated') and has_function_privilege(g.oid, f.oid, 'execute')
where f.prosecdef and f.prorettype <> 'trigger'::regtype
  and f.pronamespace::regnamespace::text not in ('gre', 'pg_catalog', 'information_schema')
  and not exists (select from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = f.oid and d.deptype = 'e')
group by t.name, f.oid
order by 1, 2, 3;
