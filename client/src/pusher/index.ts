/** The second transport: events through the page's pusher-js object; calls to the daemon, or through supabase-js. */

import type { Transport } from '../transport.js'
import { openLink } from './link.js'
import { supabaseFetch } from './supabase.js'
import type { PusherOptions } from './types.js'

export type * from './types.js'

/** For `ChatOptions.transport`. The page's objects are used and never closed; channels are left when the chat closes. */
export function pusherTransport(options: PusherOptions): Transport {
  const { supabase } = options
  return {
    open: (host) => openLink(host, options),
    ...(supabase && { fetch: supabaseFetch(supabase) }),
  }
}
