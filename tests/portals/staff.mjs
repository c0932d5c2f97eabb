// A staff portal: Pusher set up as documented, the documented queries, replies inserted as rows.
import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { pickResult, reportEvent, listen, serve } from './steps.mjs'

const env = process.env
const supabase = createClient(env.SUPABASE_URL, env.SUPABASE_ANON_KEY, {
  accessToken: async () => env.USER_TOKEN,
})
const pusher = new Pusher(env.PUSHER_KEY, {
  cluster: env.PUSHER_CLUSTER,
  wsHost: env.PUSHER_HOST,
  wsPort: env.PUSHER_PORT,
  forceTLS: false,
  enabledTransports: ['ws'],
  disableStats: true,
})
// A connection that may have signed channels: the portal above needs none.
const signedIn = new Pusher(env.PUSHER_KEY, {
  cluster: env.PUSHER_CLUSTER,
  wsHost: env.PUSHER_HOST,
  wsPort: env.PUSHER_PORT,
  forceTLS: false,
  enabledTransports: ['ws'],
  channelAuthorization: {
    endpoint: env.PUSHER_AUTH_URL,
    transport: 'ajax',
    headersProvider: () => ({ Authorization: `Bearer ${env.USER_TOKEN}` }),
  },
})

await serve({
  open: () =>
    new Promise((resolve) => {
      const channel = pusher.subscribe('staff-portal')
      channel.bind('new-player-message', (data) => reportEvent('staff-portal', 'new-player-message', data))
      channel.bind('pusher:subscription_succeeded', () => resolve('subscribed'))
    }),
  listen: ({ channel }) => listen(signedIn, channel),
  openSessions: async () =>
    pickResult(
      await supabase
        .from('gre_chat_sessions')
        .select('*')
        .eq('status', 'active')
        .order('last_message_at', { ascending: false }),
    ),
  messages: async ({ session, by = 'seq' }) =>
    pickResult(
      await supabase
        .from('gre_chat_messages')
        .select('*')
        .eq('session_id', session)
        .order(by, { ascending: true }),
    ),
  sessionsWithMessages: async ({ player }) =>
    pickResult(
      await supabase
        .from('gre_chat_sessions')
        .select('*, gre_chat_messages(*)')
        .eq('player_id', player)
        .order('seq', { referencedTable: 'gre_chat_messages' }),
    ),
  reply: async ({ row }) => pickResult(await supabase.from('gre_chat_messages').insert(row).select().single()),
  setStatus: async ({ session, status }) =>
    pickResult(await supabase.from('gre_chat_sessions').update({ status }).eq('id', session).select().single()),
  assign: async ({ session, staff }) =>
    pickResult(await supabase.from('gre_chat_sessions').update({ assigned_staff_id: staff }).eq('id', session)),
  setOnline: async (row) => pickResult(await supabase.from('gre_online_status').upsert(row).select().single()),
  online: async () => pickResult(await supabase.from('gre_online_status').select('*')),
})
