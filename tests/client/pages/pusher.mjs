// The options of a chat over Pusher. Calls go to the daemon, or with TRANSPORT=supabase to the database.
import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { currentToken, env } from './driver.mjs'

const { pusherTransport } = await import(`${env.CLIENT}/pusher.js`)

const pusher = new Pusher(env.PUSHER_KEY, {
  cluster: env.PUSHER_CLUSTER,
  enabledTransports: ['ws'],
  disableStats: true,
  wsHost: env.PUSHER_HOST,
  wsPort: Number(env.PUSHER_PORT),
  forceTLS: false,
  channelAuthorization: {
    endpoint: env.PUSHER_AUTH_URL,
    transport: 'ajax',
    headersProvider: () => ({ Authorization: `Bearer ${currentToken()}` }),
  },
})
/** Milliseconds: what another tab of a player has sent is announced by no event. */
const readEvery = Number(env.READ_EVERY ?? 10_000)

export function pusherOptions() {
  if (env.TRANSPORT === 'pusher') return { transport: pusherTransport({ pusher, readEvery }) }
  const supabase = createClient(env.SUPABASE_URL, env.SUPABASE_ANON_KEY, { accessToken: async () => currentToken() })
  return { url: '', transport: pusherTransport({ pusher, supabase, readEvery }) }
}
