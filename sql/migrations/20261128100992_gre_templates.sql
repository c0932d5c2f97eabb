-- Templates: texts that staff send often, and the renderer of every text with placeholders.
-- Depends on gre_foundation, gre_tables, gre_identity, gre_messages (gre.staff_name), gre_hours and gre_settings.
--
-- A placeholder is {{name}} or {{name|fallback}}, or {{?name}} for a blank that the writer fills in. An unknown name is
-- refused when a text is saved; a value that is missing and has no fallback is refused when it is sent
-- (gre.messages_check). Braces in a value become parentheses, so a value is never read as a placeholder.
set local lock_timeout = '300ms';
set local statement_timeout = 0;

create table public.gre_templates (
  id uuid primary key default gen_random_uuid(),
  shortcut text not null constraint gre_templates_shortcut_check check (shortcut ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
  title text not null constraint gre_templates_title_size check (char_length(title) between 1 and 120),
  texts jsonb not null,
  staff_id text constraint gre_templates_staff_size check (char_length(staff_id) between 1 and 128),
  uses bigint not null default 0,
  active boolean not null default true,
  updated_at timestamptz not null default now(),
  constraint gre_templates_shortcut_unique unique nulls not distinct (staff_id, shortcut)
);
comment on table public.gre_templates is 'Texts that staff send often.';
comment on column public.gre_templates.id is 'The template''s id.';
comment on column public.gre_templates.shortcut is
  'The name that staff type: lower case letters, digits, - and _, at most 40.';
comment on column public.gre_templates.title is 'The title in lists.';
comment on column public.gre_templates.texts is
  'The text in each language: {"en": text with placeholders}, see gre_render_template.';
comment on column public.gre_templates.staff_id is
  'The staff member whose own template it is, who alone sees it; null: everybody''s.';
comment on column public.gre_templates.uses is
  'Number of messages sent from it; a message that is sent at the same time as another may not be counted.';
comment on column public.gre_templates.active is 'False: staff do not find it.';
comment on column public.gre_templates.updated_at is 'Time of the last change by a person.';
alter table public.gre_templates enable row level security;
revoke all on public.gre_templates from public, anon, authenticated, service_role;

-- Placeholders --------------------------------------------------------------------------------------------

create function gre.placeholder_pattern() returns text
language sql immutable parallel safe set search_path = '' as $$
  select '\{\{(\?)?([a-z_]{1,40})(\|[^{}]*)?\}\}'
$$;

-- Raise 400 unless p_texts is an object of at most 20 languages, each with a text of 1 to 4000 characters whose
-- placeholders are known. p_blanks: a writer fills in blanks.
create function gre.check_texts(p_texts jsonb, p_blanks boolean) returns void
language plpgsql stable set search_path = '' as $$
declare
  v_known constant text[] := array['player_name', 'staff_name', 'open_until', 'next_open'];
  v_unknown text[];
begin
  if jsonb_typeof(p_texts) is distinct from 'object' or p_texts = '{}' or pg_column_size(p_texts) > 400000
    or (select count(*) from jsonb_object_keys(p_texts)) > 20
    or exists (
      select from jsonb_each(p_texts) t
      where t.key !~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$' or jsonb_typeof(t.value) <> 'string'
        or char_length(t.value #>> '{}') > 4000 or not gre.has_text(t.value #>> '{}')) then
    perform gre.raise_http(400, 'texts_invalid',
      'texts must be an object of languages, such as {"en": "text"}, with texts of 1 to 4000 characters');
  end if;
  select array_agg(distinct coalesce(m[1], '') || m[2]) into v_unknown
  from jsonb_each_text(p_texts) t, regexp_matches(t.value, gre.placeholder_pattern(), 'g') m
  where case when m[1] is null then m[2] <> all (v_known) else not p_blanks or m[3] is not null end;
  if v_unknown is not null then
    perform gre.raise_http(400, 'placeholder_unknown', 'a text has a placeholder that is not known here',
                           jsonb_build_object('unknown', v_unknown)::text);
  elsif exists (select from jsonb_each_text(p_texts) t
                where regexp_replace(t.value, gre.placeholder_pattern(), '', 'g') ~ '\{\{|\}\}') then
    perform gre.raise_http(400, 'placeholder_invalid',
      'a text has {{ or }} that belongs to no placeholder, such as {{player_name}} or {{player_name|there}}');
  end if;
end $$;

-- Raise 409 if texts that are listed together would have more than p_limit bytes: p_used are those of the others.
create function gre.check_room(p_used bigint, p_texts jsonb, p_limit integer) returns void
language plpgsql stable set search_path = '' as $$
begin
  if coalesce(p_used, 0) + octet_length(p_texts::text) > p_limit then
    perform gre.raise_http(409, 'too_many', format('the texts together have more than %s bytes', p_limit));
  end if;
end $$;

-- Return the language of the texts for a language, such as de-AT: else its first part (de), else English, else the
-- first one.
create function gre.choose_language(p_texts jsonb, p_language text) returns text
language sql immutable parallel safe set search_path = '' as $$
  select t.key from jsonb_object_keys(p_texts) t (key)
  order by t.key = p_language desc nulls last, t.key = split_part(p_language, '-', 1) desc nulls last,
    t.key = 'en' desc, t.key
  limit 1
$$;

-- Return the language of a session: "language" in the metadata of the player's last message; null if it has none.
create function gre.session_language(p_session uuid) returns text
language sql stable set search_path = '' as $$
  select m.metadata ->> 'language' from public.gre_chat_messages m
  where m.session_id = p_session and m.sender = 'player' order by m.seq desc limit 1
$$;

-- Return a time in the time zone of opening hours: HH24:MI, on another day than p_now with the day: its name and date
-- in English, in other languages YYYY-MM-DD. Null for null.
create function gre.local_time(p_hours text, p_at timestamptz, p_now timestamptz, p_language text) returns text
language sql stable set search_path = '' as $$
  select to_char(x.at, case when x.at::date = x.now::date then 'HH24:MI'
                            when split_part(p_language, '-', 1) = 'en' then 'FMDay, FMDD FMMonth, HH24:MI'
                            else 'YYYY-MM-DD HH24:MI' end)
  from (
    select p_at at time zone z.name as at, p_now at time zone z.name as now
    from (select coalesce((select h.timezone from public.gre_hours h where h.name = p_hours), 'UTC') as name) z) x
  where p_at is not null
$$;

-- Return the text for a language with the values of its placeholders, and the names of those that have neither a value
-- nor a fallback, whose placeholders stay. Blanks are always missing. Only values that the text names are computed.
create function gre.render_text(
  p_texts jsonb, p_language text, p_session public.gre_chat_sessions, p_staff_name text,
  out text text, out missing text[]
)
language plpgsql stable set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_language constant text := gre.choose_language(p_texts, p_language);
  v_text constant text := p_texts ->> v_language;
  v_hours text;
  v_value text;
  v record;
begin
  text := v_text;
  missing := '{}';
  if v_text not like '%{{%' then
    return;
  end if;
  select s.hours into v_hours from public.gre_chat_settings s;
  for v in
    select distinct m[1] is not null as blank, m[2] as name, m[3] as fallback
    from regexp_matches(v_text, gre.placeholder_pattern(), 'g') m order by 2, 3
  loop
    v_value := case when v.blank then null else case v.name
      when 'player_name' then nullif(p_session.player_name, 'Player ' || p_session.player_id)
      when 'staff_name' then p_staff_name
      when 'open_until' then gre.local_time(v_hours, gre.open_until(v_hours, v_now), v_now, v_language)
      when 'next_open' then
        case when not gre.open_at(v_hours, v_now)
          then gre.local_time(v_hours, gre.next_open(v_hours, v_now), v_now, v_language) end
    end end;
    v_value := coalesce(translate(v_value, '{}', '()'), substr(v.fallback, 2));
    if v_value is null then
      missing := missing || v.name;
    else
      text := replace(text, '{{' || v.name || coalesce(v.fallback, '') || '}}', v_value);
    end if;
  end loop;
end $$;

-- Functions of staff --------------------------------------------------------------------------------------

create function gre.template_json(t public.gre_templates) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('id', t.id, 'shortcut', t.shortcut, 'title', t.title, 'texts', t.texts,
    'staff_id', t.staff_id, 'uses', t.uses, 'active', t.active)
$$;

-- Return a template that the caller can see: everybody's, or the caller's own. Raises 404.
create function gre.find_template(p_id uuid, p_staff_id text) returns public.gre_templates
language plpgsql stable set search_path = '' as $$
declare
  v public.gre_templates;
begin
  select * into v from public.gre_templates t where t.id = p_id and (t.staff_id is null or t.staff_id = p_staff_id);
  if not found then
    perform gre.raise_http(404, 'template_unknown', 'there is no such template');
  end if;
  return v;
end $$;

create function public.gre_list_templates() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
begin
  return (select coalesce(jsonb_agg(gre.template_json(t) order by t.shortcut, t.staff_id nulls last), '[]')
          from public.gre_templates t where t.staff_id is null or t.staff_id = v_actor.staff_id);
end $$;
comment on function public.gre_list_templates is
  'Lists everybody''s templates and the caller''s own: [{"id", "shortcut", "title", "texts": {"en": text}, "staff_id": '
  'null for everybody''s, "uses", "active"}]. Staff only.';

create function public.gre_get_template(p_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
begin
  return gre.template_json(gre.find_template(p_id, v_actor.staff_id));
end $$;
comment on function public.gre_get_template is 'Returns a template (see gre_list_templates). Staff only.';

create function public.gre_save_template(p_template jsonb, p_id uuid default null) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v_new public.gre_templates;
  v_old public.gre_templates;
begin
  if jsonb_typeof(p_template) is distinct from 'object' then
    perform gre.raise_http(400, 'template_invalid', 'a template must be an object');
  elsif p_id is null then
    v_new.active := true;
    v_new.staff_id := case v_actor.role when 'staff' then v_actor.staff_id end;
  else
    perform from public.gre_templates where id = p_id for no key update;
    v_old := gre.find_template(p_id, v_actor.staff_id);
    v_new := v_old;
  end if;
  begin
    v_new := jsonb_populate_record(v_new, p_template - array['id', 'uses', 'updated_at']);
  exception when data_exception then
    perform gre.raise_http(400, 'template_invalid', 'a field of the template has a value that is not allowed');
  end;
  -- A template that becomes or is everybody's needs an admin. Nobody writes for somebody else, but a back end.
  if v_actor.role = 'staff' and (v_new.staff_id is null or p_id is not null and v_old.staff_id is null) then
    perform gre.raise_http(403, 'admin_only', 'only an admin may change everybody''s templates');
  elsif v_actor.role <> 'service' and v_new.staff_id <> v_actor.staff_id then
    perform gre.raise_http(403, 'staff_mismatch', 'staff_id must be null or the caller''s');
  end if;
  perform gre.check_texts(v_new.texts, true);
  if (select count(*) from public.gre_templates t
      where t.staff_id is not distinct from v_new.staff_id and t.id is distinct from p_id) >= 500 then
    perform gre.raise_http(409, 'too_many', 'there are 500 templates already');
  end if;
  perform gre.check_room(
    (select sum(octet_length(t.texts::text)) from public.gre_templates t
     where t.staff_id is not distinct from v_new.staff_id and t.id is distinct from p_id),
    v_new.texts, case when v_new.staff_id is null then 4194304 else 1048576 end); -- 4 MB and 1 MB
  begin
    insert into public.gre_templates as t (id, shortcut, title, texts, staff_id, active)
    values (coalesce(p_id, gen_random_uuid()), v_new.shortcut, v_new.title, v_new.texts, v_new.staff_id, v_new.active)
    on conflict (id) do update set shortcut = excluded.shortcut, title = excluded.title, texts = excluded.texts,
      staff_id = excluded.staff_id, active = excluded.active, updated_at = clock_timestamp()
    returning * into v_new;
  exception
    when unique_violation then
      perform gre.raise_http(409, 'shortcut_taken', 'another template has this shortcut');
    when check_violation or not_null_violation then
      perform gre.raise_http(400, 'template_invalid', 'a field of the template has a value that is not allowed');
  end;
  return gre.template_json(v_new);
end $$;
comment on function public.gre_save_template is
  'Creates a template, or with p_id changes the given fields of one, and returns it (see gre_list_templates). Admins '
  'write everybody''s ("staff_id": null, their default), staff their own.';

create function public.gre_delete_template(p_id uuid) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v_old constant public.gre_templates := gre.find_template(p_id, v_actor.staff_id);
begin
  if v_actor.role = 'staff' and v_old.staff_id is null then
    perform gre.raise_http(403, 'admin_only', 'only an admin may change everybody''s templates');
  end if;
  delete from public.gre_templates where id = p_id;
  return gre.template_json(v_old);
end $$;
comment on function public.gre_delete_template is
  'Deletes a template, and returns it. Admins delete everybody''s, staff their own.';

create function public.gre_render_template(p_template_id uuid, p_session_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_actor constant gre.actor := gre.require_staff();
  v_template constant public.gre_templates := gre.find_template(p_template_id, v_actor.staff_id);
  v_session public.gre_chat_sessions;
begin
  select * into v_session from public.gre_chat_sessions where id = p_session_id;
  if not found then
    perform gre.raise_http(404, 'session_unknown', 'there is no such session');
  end if;
  return (select to_jsonb(r) from gre.render_text(
    v_template.texts, gre.session_language(p_session_id), v_session,
    gre.staff_name(v_actor.staff_id, null)) r);
end $$;
comment on function public.gre_render_template is
  'Returns the text of a template for a session: {"text", "missing": [names]}. Placeholders: {{player_name}}, '
  '{{staff_name}} (the caller''s), {{open_until}} and {{next_open}} (local times of the desk''s opening hours), with a '
  'fallback {{player_name|there}}, and blanks {{?amount}}. "missing" are blanks, and names without a value and '
  'fallback: their placeholders are left in "text", and a message with them is refused. The language is "language" in '
  'the metadata of the player''s last message, else English. Staff only.';

-- Count a message that staff sent from a template. Never waits.
create function gre.count_template(p_id uuid) returns void
language sql volatile security definer set search_path = '' as $$
  update public.gre_templates set uses = uses + 1
  where id = (select t.id from public.gre_templates t where t.id = p_id for no key update skip locked)
$$;

revoke execute on function gre.placeholder_pattern, gre.check_texts, gre.check_room, gre.choose_language,
  gre.session_language, gre.local_time, gre.render_text, gre.template_json, gre.find_template, gre.count_template
  from public;
grant execute on function gre.count_template to authenticated, service_role;
revoke execute on function public.gre_list_templates, public.gre_get_template, public.gre_save_template,
  public.gre_delete_template, public.gre_render_template from public, anon, authenticated, service_role;
grant execute on function public.gre_list_templates, public.gre_get_template, public.gre_save_template,
  public.gre_delete_template, public.gre_render_template to authenticated, service_role;
