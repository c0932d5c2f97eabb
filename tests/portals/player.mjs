// A player's portal: writes to Supabase with the player's token, subscribes to its private channel and its own rows.
import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { pickResult, listen, serve, watch } from './steps.mjs'

const env = process.env
const supabase = createClient(env.SUPABASE_URL, env.SUPABASE_ANON_KEY, {
  accessToken: async () => env.USER_TOKEN ?? null,
})
const pusher = new Pusher(env.PUSHER_KEY, {
  cluster: env.PUSHER_CLUSTER,
  wsHost: env.PUSHER_HOST,
  wsPort: env.PUSHER_PORT,
  forceTLS: false,
  enabledTransports: ['ws'],
  disableStats: true,
  channelAuthorization: {
    endpoint: env.PUSHER_AUTH_URL,
    transport: 'ajax',
    headersProvider: () => ({ Authorization: `Bearer ${env.USER_TOKEN}` }),
  },
})
const messages = () => supabase.from('gre_chat_messages')

await serve({
  insert: async ({ rows }) => pickResult(await messages().insert(rows)),
  insertAndSelect: async ({ rows }) => pickResult(await messages().insert(rows).select()),
  send: async ({ row }) => pickResult(await messages().upsert(row, { onConflict: 'id', ignoreDuplicates: true })),
  history: async ({ player }) => pickResult(await messages().select('*').eq('player_id', player).order('seq')),
  everything: async () => pickResult(await messages().select('id')),
  rewrite: async ({ id, message }) => pickResult(await messages().update({ message }).eq('id', id).select()),
  closeSession: async ({ id }) =>
    pickResult(await supabase.from('gre_chat_sessions').update({ status: 'closed' }).eq('id', id).select()),
  setOnline: async (row) => pickResult(await supabase.from('gre_online_status').upsert(row)),
  whoIsOnline: async () =>
    pickResult(await supabase.from('gre_online_status').select('display_name, status').eq('status', 'online')),
  whoami: async () => pickResult(await supabase.rpc('gre_whoami')),
  listen: ({ channel }) => listen(pusher, channel),
  watch: ({ filter }) => watch(supabase, 'gre_chat_messages', filter),
})
