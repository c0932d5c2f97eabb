/** Compiled by `npm run check`: a page that uses supabase-js with the `Database` type. */

import { createClient } from '@supabase/supabase-js'
import type { Database } from '../src/database.js'

const supabase = createClient<Database>('https://project.supabase.co', 'anon key')

export async function page(): Promise<string[]> {
  const { data: messages } = await supabase
    .from('gre_chat_messages')
    .select('id, seq, message, sender_name')
    .eq('player_id', 29)
    .order('seq')
    .throwOnError()
  const seqs: number[] = messages.map((message) => message.seq)
  const names: (string | null)[] = messages.map((message) => message.sender_name)
  // @ts-expect-error a column that was not selected
  messages.map((message) => message.origin)

  await supabase.from('gre_chat_messages').insert({ sender: 'player', message: 'Hello' })
  await supabase.from('gre_chat_sessions').insert({ player_id: 29 })
  await supabase.from('gre_online_status').upsert({ staff_id: 's1', status: 'online' })
  await supabase.from('gre_chat_sessions').update({ status: 'closed' }).eq('id', 'x')
  // @ts-expect-error no message
  await supabase.from('gre_chat_messages').insert({ sender: 'player' })
  // @ts-expect-error no such column
  await supabase.from('gre_chat_messages').insert({ sender: 'player', message: 'Hello', mesage: 'x' })
  // @ts-expect-error nobody inserts events
  await supabase.from('gre_chat_events').insert({ kind: 'opened' })
  // @ts-expect-error no such table
  await supabase.from('gre_chat_message').select()

  const { data: sessions } = await supabase
    .from('gre_chat_sessions')
    .select('id, gre_chat_messages(seq, message)')
    .throwOnError()
  const texts = sessions.flatMap((session) => session.gre_chat_messages.map((message) => message.message))

  const { data: mark } = await supabase.rpc('gre_mark_read', { p_session_id: 'x', p_up_to_seq: 3 }).throwOnError()
  const by: 'player' | 'staff' = mark.by
  // @ts-expect-error an argument is missing
  await supabase.rpc('gre_mark_read', { p_session_id: 'x' })
  // @ts-expect-error no such function
  await supabase.rpc('gre_mark_unread', {})
  const { data: me } = await supabase.rpc('gre_whoami').throwOnError()
  const on: boolean | null = me.chat_enabled
  const { data: moved } = await supabase
    .rpc('gre_transfer_session', { p_session_id: 'x', p_to_staff: null, p_note: 'Back to the queue' })
    .throwOnError()
  return [...texts, by, String(on), moved.session.id, ...names.map(String), ...seqs.map(String)]
}
