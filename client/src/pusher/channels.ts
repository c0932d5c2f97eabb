/** The channels of a link. Links of one pusher-js object share them; the page's own subscriptions are left alone. */

import type { PusherChannel, PusherClient } from './types.js'

type Handlers = Record<string, (data: any) => void>

interface Entry {
  channel: PusherChannel
  subscribed: boolean
  handlers: Handlers
}

export interface ChannelsOwner {
  /** A subscription has begun or ended: true if all have begun. Called for each that begins. */
  changed(all: boolean): void
  /** pusher-js does not ask again by itself. */
  refused(error: { status?: number }): void
}

/** How many links use a channel. Those of the page are used once more. */
const uses = new WeakMap<PusherClient, Map<string, number>>()

export function createChannels(pusher: PusherClient, events: Handlers, owner: ChannelsOwner) {
  const entries = new Map<string, Entry>()
  const counts = uses.get(pusher) ?? new Map<string, number>()
  uses.set(pusher, counts)

  const count = (name: string, more: number): number => {
    const sum = (counts.get(name) ?? (pusher.channel(name) ? 1 : 0)) + more
    counts.set(name, sum)
    if (!sum) counts.delete(name)
    return sum
  }

  const isComplete = (): boolean => entries.size > 0 && [...entries.values()].every(({ subscribed }) => subscribed)

  const leave = (name: string, { channel, handlers }: Entry): void => {
    entries.delete(name)
    for (const [event, act] of Object.entries(handlers)) channel.unbind(event, act)
    if (!count(name, -1)) pusher.unsubscribe(name)
  }

  const add = (name: string): void => {
    count(name, 1)
    const channel = pusher.subscribe(name)
    const set = (subscribed: boolean): void => {
      entry.subscribed = subscribed
      owner.changed(isComplete())
    }
    const entry: Entry = {
      channel,
      subscribed: channel.subscribed,
      handlers: {
        ...events,
        'pusher:subscription_succeeded': () => set(true),
        'pusher:subscription_error': (error) => {
          set(false)
          owner.refused(error ?? {})
        },
      },
    }
    entries.set(name, entry)
    for (const [event, act] of Object.entries(entry.handlers)) channel.bind(event, act)
  }

  return {
    /** Be subscribed to these, and to no others. */
    join(names: readonly string[]): void {
      for (const [name, entry] of [...entries]) if (!names.includes(name)) leave(name, entry)
      for (const name of names) if (!entries.has(name)) add(name)
      owner.changed(isComplete())
    },
    /** Ask for those that were refused. */
    subscribe(): void {
      for (const [name, { subscribed }] of entries) if (!subscribed) pusher.subscribe(name)
    },
    /** The connection is lost; pusher-js subscribes again after the next one. */
    lost(): void {
      for (const entry of entries.values()) entry.subscribed = false
      owner.changed(false)
    },
    clear: (): void => [...entries].forEach(([name, entry]) => leave(name, entry)),
  }
}
