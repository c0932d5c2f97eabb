// What the portals of this folder share: a line of JSON on standard input names a step, its answer is a line on standard
// output; what a subscription hears is a line of its own. No knowledge of the chat belongs here.
import { createInterface } from 'node:readline'
import ws from 'ws'

globalThis.WebSocket ??= ws // browsers, and node from 22 on, have one

export const say = (line) => console.log(JSON.stringify(line))
export const hear = (from, event, data) => say({ from, event, data })

// supabase-js answers with more than a portal looks at.
export const brief = ({ data, error, status }) => ({ data, error, status })

// Binds every event of a Pusher channel; resolves when the subscription stands or was refused.
export const listen = (pusher, name) =>
  new Promise((resolve) => {
    const channel = pusher.subscribe(name)
    channel.bind('pusher:subscription_succeeded', () => resolve('subscribed'))
    channel.bind('pusher:subscription_error', (error) => resolve(error))
    channel.bind_global((event, data) => event.startsWith('pusher:') || hear(name, event, data))
  })

// Subscribes to a table's changes; resolves when they flow: that is after SUBSCRIBED, when the system message comes.
export const watch = (supabase, table, filter) =>
  new Promise((resolve) => {
    supabase
      .channel(`watch-${table}`)
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table, filter }, (change) =>
        hear('postgres_changes', change.eventType, change.new),
      )
      .on('system', {}, (message) => resolve(message.message))
      .subscribe((state, error) => error && resolve(`${state} ${error}`))
  })

export const serve = async (steps) => {
  for await (const line of createInterface({ input: process.stdin })) {
    const { step, ...options } = JSON.parse(line)
    say({ answer: (await steps[step](options)) ?? null })
  }
  process.exit(0)
}
