-- A worker's calls of one moment in one transaction; receipts and numbers that are written without reading whole tables.
--
-- Workers of before this file and after it work with either schema, so the version stays.
set local lock_timeout = '300ms';

-- What a worker asks for at the same moment, in one call: each part is the arguments of a settle or of a claim as they
-- are named there, and its answer has the same place. A lane that a settle frees, a claim behind it may lease. A part that
-- fails is undone by itself and answers {"error": {"code", "message"}}: what one sink's rows hold costs no other sink.
create function public.gre_relay_turn(p_parts jsonb) returns json
language plpgsql volatile security definer set search_path = '' as $$
declare
  v jsonb;
  v_answers json[] := '{}';
begin
  perform gre.require_worker();
  if jsonb_typeof(p_parts) is distinct from 'array' then
    perform gre.refuse(400, 'turn_invalid', 'p_parts must be an array');
  end if;
  for v in select x from jsonb_array_elements(p_parts) x loop
    begin
      if v ? 'p_results' then
        v_answers := v_answers || public.gre_relay_settle(v ->> 'p_sink', v -> 'p_results')::json;
      else
        v_answers := v_answers || public.gre_relay_claim(v ->> 'p_sink', (v ->> 'p_token')::uuid, (v ->> 'p_lanes')::integer,
          (v ->> 'p_per_lane')::integer, (v ->> 'p_lease_seconds')::numeric);
      end if;
    exception when others then
      v_answers := v_answers || json_build_object('error', json_build_object('code', sqlstate, 'message', sqlerrm));
    end;
  end loop;
  return array_to_json(v_answers);
end $$;

-- Writes these receipts of pushes of ours, each a row of its own; a repeat finds its row by the delivery's id.
create function gre.insert_receipts(p_receipts jsonb) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  insert into public.push_notifications as n
    (delivery_id, message_id, audience, recipients, title, body, data, status, provider_id, error, sent_at)
  select (x ->> 'delivery_id')::uuid, (select m.id from public.gre_chat_messages m where m.id = (x ->> 'message_id')::uuid),
    x ->> 'audience',
    case when jsonb_typeof(x -> 'recipients') = 'array' then array(select jsonb_array_elements_text(x -> 'recipients')) end,
    x ->> 'title', x ->> 'body', coalesce(x -> 'data', '{}'), x ->> 'status', x ->> 'provider_id', x ->> 'error',
    case when x ->> 'status' = 'sent' then clock_timestamp() end
  from jsonb_array_elements(p_receipts) x
  order by x ->> 'delivery_id'
  on conflict (delivery_id) do update set status = excluded.status, provider_id = excluded.provider_id,
    error = excluded.error, recipients = excluded.recipients, sent_at = excluded.sent_at
    where n.status is distinct from 'sent';
end $$;

-- Writes the receipts of a settle and waits for nobody: returns the ids (push_id or delivery_id) of those for which somebody
-- holds a row that they need. Their lanes are busy, and no others. A receipt that cannot be written at all is left out: the
-- push went out, and sending it again would not mend that.
drop function gre.write_receipts(jsonb, text[]);
create function gre.write_receipts(p_results jsonb) returns text[]
language plpgsql security definer set lock_timeout = '50ms'
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v jsonb;
  v_receipts jsonb;
  v_held text[] := '{}';
  v_wanted text[];
  v_ids uuid[];
  v_messages uuid[];
  v_free uuid[];
  v_pushes text[];
begin
  select jsonb_agg(x), array_agg(distinct (x ->> 'delivery_id')::uuid), array_agg(distinct (x ->> 'message_id')::uuid)
    into v_receipts, v_wanted, v_messages
  from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x where x ->> 'push_id' is null;

  if v_receipts is not null then
    -- Of a player that was erased while a push was on its way, no receipt comes back.
    v_ids := array(select d.id from public.gre_relay_deliveries d where d.id = any (v_wanted::uuid[]));
    v_free := array(select d.id from public.gre_relay_deliveries d where d.id = any (v_ids) for key share skip locked);
    v_held := array(select i::text from unnest(v_ids) i where i <> all (v_free));
    v_free := array(select n.delivery_id from public.push_notifications n where n.delivery_id = any (v_ids)
                    order by n.delivery_id for no key update skip locked);
    v_held := v_held || array(select n.delivery_id::text from public.push_notifications n
                              where n.delivery_id = any (v_ids) and n.delivery_id <> all (v_free));
    v_free := array(select m.id from public.gre_chat_messages m where m.id = any (v_messages) for key share skip locked);
    v_messages := array(select m.id from public.gre_chat_messages m where m.id = any (v_messages) and m.id <> all (v_free));
    v_held := v_held || array(select x ->> 'delivery_id' from jsonb_array_elements(v_receipts) x
                              where (x ->> 'message_id')::uuid = any (v_messages));
    v_receipts := coalesce((select jsonb_agg(x) from jsonb_array_elements(v_receipts) x
                            where (x ->> 'delivery_id')::uuid = any (v_ids) and x ->> 'delivery_id' <> all (v_held)), '[]');
    begin
      perform gre.insert_receipts(v_receipts);
    exception when others then
      for v in select x from jsonb_array_elements(v_receipts) x loop
        begin
          perform gre.insert_receipts(jsonb_build_array(v));
        exception
          when lock_not_available or deadlock_detected then
            v_held := v_held || (v ->> 'delivery_id');
          when others then
            raise warning 'gre-bridge: the receipt of delivery % cannot be written (%)', v ->> 'delivery_id', sqlstate;
        end;
      end loop;
    end;
  end if;

  v_pushes := array(select x ->> 'push_id' from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x where x ? 'push_id');
  if v_pushes <> '{}' then
    v_wanted := array(select n.id::text from public.push_notifications n where n.id::text = any (v_pushes) for no key update skip locked);
    v_held := v_held || array(select n.id::text from public.push_notifications n
                              where n.id::text = any (v_pushes) and n.id::text <> all (v_wanted));
    for v in select x from jsonb_array_elements(p_results) r, jsonb_array_elements(r -> 'receipts') x
      where x ->> 'push_id' = any (v_wanted)
    loop
      update public.push_notifications n set status = v ->> 'status', provider_id = v ->> 'provider_id', error = v ->> 'error',
        sent_at = case when v ->> 'status' = 'sent' then clock_timestamp() end
      where n.id::text = v ->> 'push_id' and n.status is distinct from 'sent';
    end loop;
  end if;
  return v_held;
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
