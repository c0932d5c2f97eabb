/**
 * The texts that are not known to be stored. Each keeps its id through all tries, so that a repeat stores nothing twice. Those of
 * one session are sent one after the other; one that was refused does not hold up the next.
 *
 * They are kept in storage under the name of their author, and are sent only while that person is signed in. One that was written
 * before anything was known of its author is kept without a name: the first person of the same page is its author. After a reload
 * it may be anybody's, and is offered to whoever is there, refused.
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

/** Of a text whose author is not known: it is sent only if somebody says so. */
const HELD = { state: 'refused', error: signedOut() } as const

export function createOutbox({ storage, prefix, author, ready, deliver, changed }: OutboxOwner) {
  const items = new Map<string, Item>()
  /** What storage has taken: once it is gone there, another tab has sent it or taken it back. */
  const kept = new Set<string>()
  const timers = createTimers()
  let lastAt = 0

  const nameOf = ({ owner = '', id }: Item): string => `${prefix}${owner}|${id}`
  const laneOf = ({ note, sessionId, playerId }: Item): string => `${note ?? ''}${sessionId ?? playerId}`

  const save = (item: Item): void => {
    const { error, ...rest } = item
    storage.set(nameOf(item), JSON.stringify({ ...rest, refusedWith: error && [error.code, error.message, error.status, 0, error.details] }))
    if (storage.get(nameOf(item))) kept.add(item.id)
  }

  const unkeep = (item: Item): void => {
    storage.set(nameOf(item), null)
    kept.delete(item.id)
  }

  /** Give a text without an author to a person. Storage may be too full for the longer name: then it is in memory only. */
  const assign = (item: Item, owner: string | undefined): void => {
    unkeep(item)
    item.owner = owner
    save(item)
  }

  const update = (item: Item, fields: Partial<Item>): void => {
    const updated = { ...item, ...fields }
    items.set(item.id, updated)
    if (updated.state === 'refused' || item.state === 'refused') save(updated)
    changed()
  }

  const remove = (item: Item): void => {
    items.delete(item.id)
    unkeep(item)
    // The next one did not fail.
    timers.end(laneOf(item))
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
  const list = (): Item[] => [...items.values()].filter((item) => !item.owner || item.owner === author()).sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1))

  /** Send what is due: the first text of each session. */
  const flush = (): void => {
    const seen = new Set<string>()
    for (const item of list()) {
      if (kept.has(item.id) && !storage.get(nameOf(item))) return remove(item)
      const lane = laneOf(item)
      if (item.stored || item.state === 'refused' || seen.has(lane)) continue
      seen.add(lane)
      if (item.state === 'sending' || timers.has(lane) || !item.owner) continue
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

  /** Take the texts of a person from storage; by default those without an author. */
  const load = (owner = ''): void => {
    for (const name of storage.names(`${prefix}${owner}|`)) {
      try {
        const { refusedWith, ...item } = JSON.parse(storage.get(name)!) as Item & { refusedWith?: ConstructorParameters<typeof ChatError> }
        if (items.has(item.id)) continue
        items.set(item.id, { ...item, error: refusedWith && new ChatError(...refusedWith), ...(!owner && HELD) })
        kept.add(item.id)
        // Clocks may go back; what is written now comes after.
        lastAt = Math.max(lastAt, Date.parse(item.createdAt) || 0)
      } catch {
        // Not written by this client.
      }
    }
  }

  return {
    flush,
    load,
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
      if (!item.owner) assign(item, author())
      update(item, { state: 'waiting', failures: 0, error: undefined, afterSeq: item.afterSeq === undefined ? undefined : (positions.get(item.sessionId!) ?? item.afterSeq) })
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
      unkeep(item)
      update(item, { stored: true, error: undefined })
      flush()
    },
    /** Remove it, whatever its state: it is shown among the messages, or given up. */
    forget(id: string): void {
      const item = items.get(id)
      if (item) remove(item)
    },
    /** The person is known. Texts that wait for an author are that person's; those of others wait for them. */
    adopt(owner: string): void {
      // Not those that another tab has sent or taken back.
      flush()
      for (const item of items.values()) if (!item.owner && item.state !== 'refused') assign(item, owner)
      load(owner)
      changed()
    },
    /** Nobody is signed in: texts without an author are sent only if somebody says so. */
    hold(): void {
      // Not those that another tab has sent or taken back.
      flush()
      for (const item of items.values()) if (!item.owner) update(item, HELD)
    },
    /** The connection is back: end all waiting times. */
    hurry(): void {
      timers.clear()
      flush()
    },
    close: timers.clear,
  }
}
