-- List the open sessions that adoption will close because their player has a newer open session: id, player_id. Selects
-- the same sessions as gre.adopt_collect(). Rows are read as JSON, since projects have different columns. Needs both
-- tables.
with session as (
  select s.id, s.player_id, s.created_at from (
    select j ->> 'id' as id, nullif(btrim(j ->> 'player_id'), '') as player_id, lower(btrim(j ->> 'status')) as status,
      coalesce(j ->> 'closed_at', j ->> 'ended_at') as closed_at,
      coalesce(j ->> 'created_at', j ->> 'started_at', j ->> 'updated_at')::timestamptz as created_at
    from (select to_jsonb(t) as j from public.gre_chat_sessions t) x
  ) s
  where case when s.status is null then s.closed_at is null
             else s.status in ('active', 'open', 'opened', 'new', 'assigned', 'ongoing', 'in_progress', 'pending',
                               'waiting') end
), last_message as (
  select j ->> 'session_id' as session_id,
    max(coalesce(j ->> 'created_at', j ->> 'timestamp', j ->> 'sent_at')::timestamptz) as at
  from (select to_jsonb(m) as j from public.gre_chat_messages m) x
  group by 1
), ranked as (
  select s.id, s.player_id,
    row_number() over (partition by s.player_id order by greatest(s.created_at, l.at) desc, s.id) as n
  from session s left join last_message l on l.session_id = s.id
)
select id, player_id from ranked where n > 1 order by player_id, id;
