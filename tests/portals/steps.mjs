// Shared code of these portals: each line of JSON on standard input names a step; its result is a line on standard
// output. Each event of a subscription is a line too. This module does not know the chat.
import { createInterface } from 'node:readline'
import ws from 'ws'

globalThis.WebSocket ??= ws // browsers, and Node.js from 22 on, have WebSocket

export const writeLine = (line) => console.log(JSON.stringify(line))
export const reportEvent = (from, event, data) => writeLine({ from, event, data })

// supabase-js returns more fields than the tests need.
export const pickResult = ({ data, error, status }) => ({ data, error, status })

// Report every event of a Pusher channel; resolve when the subscription succeeded or failed.
export const listen = (pusher, name) =>
  new Promise((resolve) => {
    const channel = pusher.subscribe(name)
    channel.bind('pusher:subscription_succeeded', () => resolve('subscribed'))
    channel.bind('pusher:subscription_error', (error) => resolve(error))
    channel.bind_global((event, data) => event.startsWith('pusher:') || reportEvent(name, event, data))
  })

// Subscribe to a table's changes; resolve when Realtime sends them: at the system message, which follows SUBSCRIBED.
export const watch = (supabase, table, filter) =>
  new Promise((resolve) => {
    supabase
      .channel(`watch-${table}`)
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table, filter }, (change) =>
        reportEvent('postgres_changes', change.eventType, change.new),
      )
      .on('system', {}, (message) => resolve(message.message))
      .subscribe((state, error) => error && resolve(`${state} ${error}`))
  })

export const serve = async (steps) => {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, ...options } = JSON.parse(line)
    writeLine({ answer: (await steps[step](options)) ?? null })
  }
  process.exit(0)
}
