// A portal's back end: the service key, which no browser ever sees.
import { createClient } from '@supabase/supabase-js'
import { brief, serve } from './steps.mjs'

const supabase = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_SERVICE_KEY, {
  auth: { persistSession: false, autoRefreshToken: false },
})

await serve({
  push: async ({ row }) => brief(await supabase.from('push_notifications').insert(row).select().single()),
  pushed: async ({ id }) => brief(await supabase.from('push_notifications').select('*').eq('id', id).single()),
  insert: async ({ rows }) => brief(await supabase.from('gre_chat_messages').insert(rows).select()),
})
