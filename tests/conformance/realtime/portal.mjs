// A portal's use of supabase-js, as its documentation shows it: says on standard output what it hears, one JSON
// line each, and ends when it has heard a row, the bell, its own broadcast and one sent over HTTP.
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'

const [url, key] = process.argv.slice(2)
const heard = new Set()
const client = createClient(url, key, { realtime: { transport: ws } })
const channel = client.channel('gre:relay', { config: { private: true, broadcast: { self: true, ack: true } } })

const tell = async (what, detail) => {
  console.log(JSON.stringify({ what, detail }))
  heard.add(what)
  if (['row', 'wakeup', 'typing', 'http'].every((name) => heard.has(name))) {
    console.log(JSON.stringify({ what: 'left', detail: await client.removeChannel(channel) }))
    process.exit(0)
  }
}

channel
  .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'gre_chat_messages' }, (row) => tell('row', row))
  .on('broadcast', { event: 'wakeup' }, (message) => tell('wakeup', message))
  .on('broadcast', { event: 'typing' }, (message) => tell('typing', message))
  .on('broadcast', { event: 'http' }, (message) => tell('http', message))
  .on('system', {}, async (message) => {
    await tell('system', message)
    await tell('sent', await channel.send({ type: 'broadcast', event: 'typing', payload: { who: 'é' } }))
    await tell('posted', await channel.httpSend('http', { n: 1 }))
  })
  .subscribe((state, error) => tell('state', error ? `${state} ${error}` : state))

setTimeout(() => process.exit(3), 20000)
