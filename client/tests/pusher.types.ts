/** Compiled by `npm run check`: objects of the real packages fit, with and without the type of the database. */

import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'

import type { Database } from '../src/database.js'
import { createChat } from '../src/index.js'
import { pusherTransport } from '../src/pusher/index.js'

const pusher = new Pusher('key', { cluster: 'eu' })
const supabase = createClient<Database>('https://project.supabase.co', 'anon key')
const untyped = createClient('https://project.supabase.co', 'anon key')

export const transports = [
  pusherTransport({ pusher }),
  pusherTransport({ pusher, supabase }),
  pusherTransport({ pusher, supabase: untyped, channel: ['private-staff-portal'], readEvery: 0 }),
]
export const chat = createChat({ url: '', getToken: () => null, transport: transports[0]! })
// @ts-expect-error a page without pusher-js
pusherTransport({ supabase })
// @ts-expect-error a client of supabase-js in place of pusher-js
pusherTransport({ pusher: supabase })
