-- A worker's calls of one moment in one transaction; receipts and numbers that are written without reading whole tables.
--
-- Workers of before this file and after it work with either schema, so the version stays.
set local lock_timeout = '300ms';

-- What a worker asks for at the same moment, in one call: each part is the arguments of a settle or of a claim as they
-- are named there, and its answer has the same place. A lane that a settle frees, a claim behind it may lease.
create function public.gre_relay_turn(p_parts jsonb) returns json
language plpgsql volatile set search_path = '' as $$
declare
  v jsonb;
  v_answers json[] := '{}';
begin
  if jsonb_typeof(p_parts) is distinct from 'array' then
    perform gre.refuse(400, 'turn_invalid', 'p_parts must be an array');
  end if;
  for v in select x from jsonb_array_elements(p_parts) x loop
    if v ? 'p_results' then
      v_answers := v_answers || public.gre_relay_settle(v ->> 'p_sink', v -> 'p_results')::json;
    else
      v_answers := v_answers || public.gre_relay_claim(v ->> 'p_sink', (v ->> 'p_token')::uuid, (v ->> 'p_lanes')::integer,
        (v ->> 'p_per_lane')::integer, (v ->> 'p_lease_seconds')::numeric);
    end if;
  end loop;
  return array_to_json(v_answers);
end $$;

-- As before; the deliveries are looked up by their ids and nothing else. And what somebody holds (the row of a push that was
-- tried before) is not waited for until he lets go: the other sink's lanes wait in the same call. It is tried again, alone.
create or replace function gre.write_receipts(p_results jsonb, p_held text[]) returns void
language plpgsql security definer set lock_timeout = '250ms'
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v jsonb;
  v_ids uuid[] := array(
    select distinct (x ->> 'delivery_id')::uuid from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
    where x ->> 'push_id' is null);
begin
  if v_ids <> '{}' then
    -- Of a player that was erased while a push was on its way, no receipt comes back. (Never waits: a delivery that is
    -- being deleted is skipped.)
    v_ids := array(select d.id from public.gre_relay_deliveries d where d.id = any (v_ids) for key share skip locked);
    insert into public.push_notifications as n
      (delivery_id, message_id, audience, recipients, title, body, data, status, provider_id, error, sent_at)
    select (x ->> 'delivery_id')::uuid, (select m.id from public.gre_chat_messages m where m.id = (x ->> 'message_id')::uuid),
      x ->> 'audience',
      case when jsonb_typeof(x -> 'recipients') = 'array' then array(select jsonb_array_elements_text(x -> 'recipients')) end,
      x ->> 'title', x ->> 'body', coalesce(x -> 'data', '{}'), x ->> 'status', x ->> 'provider_id', x ->> 'error',
      case when x ->> 'status' = 'sent' then clock_timestamp() end
    from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
    where x ->> 'push_id' is null and (x ->> 'delivery_id')::uuid = any (v_ids)
    order by x ->> 'delivery_id'
    on conflict (delivery_id) do update set status = excluded.status, provider_id = excluded.provider_id,
      error = excluded.error, recipients = excluded.recipients, sent_at = excluded.sent_at
      where n.status is distinct from 'sent';
  end if;

  for v in select x from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
    where x ? 'push_id' and x ->> 'push_id' <> all (p_held)
  loop
    update public.push_notifications n set status = v ->> 'status', provider_id = v ->> 'provider_id', error = v ->> 'error',
      sent_at = case when v ->> 'status' = 'sent' then clock_timestamp() end
    where n.id::text = v ->> 'push_id' and n.status is distinct from 'sent';
  end loop;
end $$;

-- A table that was emptied and vacuumed is planned for as empty for as long as that plan is kept: a bulk of 12,000 messages into it
-- read all of them twice for each one (25 s; now 2.5).
alter function gre.message_arrives() set enable_seqscan = off;
alter function gre.message_arrives() set jit = off;
alter function gre.message_paces() set enable_seqscan = off;
alter function gre.message_paces() set jit = off;

revoke execute on function public.gre_relay_turn(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.gre_relay_turn(jsonb) to service_role;
do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'gre_worker') then
    grant execute on function public.gre_relay_turn(jsonb) to gre_worker;
  end if;
end $$;
revoke execute on all functions in schema gre from public;

notify pgrst, 'reload schema';
