// A portal's back end, with the service key.
import { createClient } from '@supabase/supabase-js'
import { pickResult, serve } from './steps.mjs'

const supabase = createClient(process.env.SUPABASE_URL, process.env.SUPABASE_SERVICE_KEY, {
  auth: { persistSession: false, autoRefreshToken: false },
})

await serve({
  push: async ({ row }) => pickResult(await supabase.from('push_notifications').insert(row).select().single()),
  pushed: async ({ id }) => pickResult(await supabase.from('push_notifications').select('*').eq('id', id).single()),
  insert: async ({ rows }) => pickResult(await supabase.from('gre_chat_messages').insert(rows).select()),
})
