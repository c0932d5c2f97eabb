/**
 * The texts that are not known to be stored. Each keeps its id through all tries, so that a repeat stores nothing twice. Those of
 * one session are sent one after the other; one that was refused does not hold up the next.
 *
 * They are kept in storage under the name of their author, and are sent only while that person is signed in.
 */

import type { Unsent } from './api.js'
import { ChatError, signedOut } from './errors.js'
import type { Kept } from './storage.js'
import { backoff, createTimers, uuid } from './util.js'

export interface Item extends Unsent {
  /** The author; undefined until something is known of the person. */
  owner: string | undefined
  failures: number
  afterSeq?: number | undefined
  templateId?: string | undefined
  /** Stored by the server, and not shown among the messages yet. */
  stored?: boolean
}

export type Draft = Pick<Item, 'text' | 'files'> & Partial<Pick<Item, 'sessionId' | 'playerId' | 'note' | 'afterSeq' | 'templateId' | 'data'>>

export interface OutboxOwner {
  storage: Kept
  /** Names in storage begin with it. */
  prefix: string
  /** The author of what is written now. */
  author(): string | undefined
  /** True if the item can be sent now; raises ChatError if it never can. */
  ready(item: Item): boolean
  /** Send, and tell `stored`. Raises ChatError. */
  deliver(item: Item): Promise<void>
  changed(): void
}

export function createOutbox({ storage, prefix, author, ready, deliver, changed }: OutboxOwner) {
  let items = new Map<string, Item>()
  /** What storage has taken: once it is gone there, another tab has sent it or taken it back. */
  const kept = new Set<string>()
  const timers = createTimers()
  let lastAt = 0

  const nameOf = ({ owner, id }: Item): string => `${prefix}${owner}|${id}`
  const laneOf = ({ note, sessionId, playerId }: Item): string => `${note ?? ''}${sessionId ?? playerId}`

  const save = (item: Item): void => {
    const { error, ...rest } = item
    if (!rest.owner) return
    storage.set(nameOf(item), JSON.stringify({ ...rest, refusal: error && { ...error, text: error.message } }))
    if (storage.get(nameOf(item))) kept.add(item.id)
  }

  const update = (item: Item, fields: Partial<Item>): void => {
    const updated = { ...item, ...fields }
    items.set(item.id, updated)
    if (updated.state === 'refused' || item.state === 'refused') save(updated)
    changed()
  }

  const remove = (item: Item): void => {
    items.delete(item.id)
    storage.set(nameOf(item), null)
    changed()
    flush()
  }

  /** The server has refused it, or nothing is known of it. */
  const failed = (id: string, error: ChatError): void => {
    const item = items.get(id)
    if (item?.state !== 'sending' || item.stored) return
    const { transient, retryAfter } = error
    const failures = item.failures + 1
    update(item, { state: transient ? 'waiting' : 'refused', error, failures })
    if (transient) timers.start(laneOf(item), retryAfter ? retryAfter * 1000 : backoff(failures + 1), flush)
    flush()
  }

  /** The author's texts, in the order of writing, and those whose author is not known yet. */
  const list = (): Item[] => [...items.values()].filter((item) => !item.owner || item.owner === author())

  /** Send what is due: the first text of each session. */
  const flush = (): void => {
    const seen = new Set<string>()
    for (const item of list()) {
      const lane = laneOf(item)
      if (item.stored || item.state === 'refused' || seen.has(lane)) continue
      seen.add(lane)
      if (item.state === 'sending' || timers.has(lane) || !item.owner) continue
      if (kept.has(item.id) && !storage.get(nameOf(item))) return remove(item)
      try {
        if (!ready(item)) continue
      } catch (error) {
        update(item, { state: 'refused', error: error as ChatError })
        return flush()
      }
      update(item, { state: 'sending' })
      void deliver(item).catch((error) => failed(item.id, error))
    }
  }

  const load = (owner: string): void => {
    for (const name of storage.names(`${prefix}${owner}|`)) {
      try {
        const { refusal, ...item } = JSON.parse(storage.get(name)!) as Item & { refusal?: ChatError & { text: string } }
        if (items.has(item.id)) continue
        items.set(item.id, { ...item, error: refusal && new ChatError(refusal.code, refusal.text, refusal.status, undefined, refusal.details) })
        kept.add(item.id)
        // Clocks may go back; what is written now comes after.
        lastAt = Math.max(lastAt, Date.parse(item.createdAt))
      } catch {
        // Not written by this client.
      }
    }
    items = new Map([...items].sort(([, a], [, b]) => (a.createdAt < b.createdAt ? -1 : 1)))
  }

  return {
    flush,
    get: (id: string): Item | undefined => items.get(id),
    list,
    add(draft: Draft): Item {
      // Two texts of the same millisecond keep their order.
      lastAt = Math.max(lastAt + 1, Date.now())
      const item: Item = { ...draft, id: uuid(), createdAt: new Date(lastAt).toISOString(), state: 'waiting', owner: author(), failures: 0 }
      items.set(item.id, item)
      save(item)
      changed()
      queueMicrotask(flush)
      return item
    },
    retry(id: string, positions: Map<string, number>): void {
      const item = items.get(id)
      if (!item || item.state === 'sending') return
      timers.end(laneOf(item))
      update(item, { state: 'waiting', failures: 0, error: undefined, owner: item.owner ?? author(), afterSeq: item.afterSeq === undefined ? undefined : (positions.get(item.sessionId!) ?? item.afterSeq) })
      flush()
    },
    discard(id: string): Item | undefined {
      const item = items.get(id)
      if (!item || item.state === 'sending') return undefined
      remove(item)
      return item
    },
    /** The server has stored it; it is shown until `forget`. */
    stored(id: string): void {
      const item = items.get(id)
      if (!item || item.stored) return
      storage.set(nameOf(item), null)
      update(item, { stored: true, error: undefined })
      flush()
    },
    /** Remove it, whatever its state: it is shown among the messages, or given up. */
    forget(id: string): void {
      const item = items.get(id)
      if (item) remove(item)
    },
    /** The person is known. Texts without an author are that person's; those of others wait for them. */
    adopt(owner: string): void {
      for (const item of items.values()) {
        if (item.owner) continue
        item.owner = owner
        save(item)
      }
      load(owner)
      changed()
    },
    /** Nobody is signed in: texts without an author are sent only if somebody says so. */
    hold(): void {
      for (const item of items.values()) if (!item.owner) update(item, { state: 'refused', error: signedOut() })
    },
    /** The connection is back: end all waiting times. */
    hurry(): void {
      for (const item of items.values()) if (item.state === 'waiting') timers.end(laneOf(item))
      flush()
    },
    close: timers.clear,
  }
}
