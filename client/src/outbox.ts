/**
 * The texts that are not known to be stored. Each keeps its id through all tries, so that a repeat stores nothing twice. Those of
 * one session are sent one after the other; one that was refused does not hold up the next.
 *
 * They are kept in storage under the name of their author, and are sent only while that person is signed in.
 */

import type { ChatStorage, Unsent } from './api.js'
import { ChatError } from './errors.js'
import { namesOf } from './storage.js'
import { backoff, type Timer, uuid } from './util.js'

export interface Item extends Unsent {
  /** The author; undefined until something is known of the person. */
  owner: string | undefined
  note?: boolean | undefined
  afterSeq?: number | undefined
  templateId?: string | undefined
  /** Stored by the server, and not shown among the messages yet. */
  stored?: boolean
}

export type Draft = Pick<Item, 'text' | 'files'> & Partial<Pick<Item, 'sessionId' | 'playerId' | 'note' | 'afterSeq' | 'templateId'>>

export interface OutboxOwner {
  storage: ChatStorage
  /** Names in storage begin with it. */
  prefix: string
  /** The author of what is written now. */
  author(): string | undefined
  /** True if the item can be sent now; raises ChatError if it never can. */
  ready(item: Item): boolean
  /** Send, and call `stored`. Raises ChatError. */
  deliver(item: Item): Promise<void>
  changed(): void
}

export type Outbox = ReturnType<typeof createOutbox>

export function createOutbox(owner: OutboxOwner) {
  const items = new Map<string, Item>()
  /** Items of other tabs or of an earlier visit: their name in storage is gone once they are sent or taken back there. */
  const adopted = new Set<string>()
  const busy = new Set<string>()
  const pauses = new Map<string, { failures: number; timer: Timer }>()
  let lastAt = 0
  let closed = false

  const nameOf = ({ owner: author, id }: Item): string => `${owner.prefix}${author}|${id}`
  const laneOf = ({ note, sessionId, playerId }: Item): string => `${note ?? ''}|${sessionId ?? playerId ?? ''}`

  const save = (item: Item): void => {
    if (item.owner === undefined) return
    const { error, ...rest } = item
    const kept = item.state === 'refused' ? { ...rest, error: error && { code: error.code, text: error.message, details: error.details } } : { ...rest, state: 'waiting' }
    try {
      owner.storage.setItem(nameOf(item), JSON.stringify(kept))
    } catch {
      // Storage is full or forbidden: this page has it in memory.
    }
  }

  const erase = (item: Item): void => {
    try {
      owner.storage.removeItem(nameOf(item))
    } catch {
      // As above.
    }
  }

  const update = (item: Item, fields: Partial<Item>): void => {
    const { error: _, ...rest } = item
    const updated = { ...rest, ...fields }
    items.set(item.id, updated)
    if (updated.state === 'refused' || item.state === 'refused') save(updated)
    owner.changed()
  }

  const remove = (item: Item): void => {
    items.delete(item.id)
    erase(item)
    owner.changed()
    flush()
  }

  const send = async (item: Item, lane: string): Promise<void> => {
    busy.add(lane)
    update(item, { state: 'sending' })
    try {
      await owner.deliver(item)
      pauses.delete(lane)
    } catch (reason) {
      const error = reason instanceof ChatError ? reason : new ChatError('unreachable', String(reason))
      const current = items.get(item.id)
      if (current && !current.stored && current.owner === owner.author()) {
        update(current, { state: error.transient ? 'waiting' : 'refused', error })
        if (error.transient) {
          const failures = (pauses.get(lane)?.failures ?? 0) + 1
          const timer = setTimeout(() => {
            pauses.set(lane, { failures, timer: undefined })
            flush()
          }, error.retryAfter ? error.retryAfter * 1000 : backoff(failures + 1))
          pauses.set(lane, { failures, timer })
        }
      }
    }
    busy.delete(lane)
    flush()
  }

  /** Send what is due: the first text of each session. */
  const flush = (): void => {
    if (closed) return
    const seen = new Set<string>()
    for (const item of items.values()) {
      const lane = laneOf(item)
      if (item.stored || item.state === 'refused' || seen.has(lane)) continue
      seen.add(lane)
      if (busy.has(lane) || pauses.get(lane)?.timer !== undefined || item.owner === undefined || item.owner !== owner.author()) continue
      if (adopted.has(item.id) && owner.storage.getItem(nameOf(item)) === null) {
        items.delete(item.id)
        owner.changed()
        return flush()
      }
      try {
        if (owner.ready(item)) void send(item, lane)
      } catch (error) {
        update(item, { state: 'refused', error: error as ChatError })
        return flush()
      }
    }
  }

  const load = (author: string): void => {
    const found: Item[] = []
    for (const name of namesOf(owner.storage, `${owner.prefix}${author}|`)) {
      try {
        const item = JSON.parse(owner.storage.getItem(name)!) as Item & { error?: { code: string; text: string; details?: Record<string, unknown> } }
        const { error } = item
        if (items.has(item.id) || nameOf({ ...item, owner: author }) !== name) continue
        found.push({ ...item, owner: author, ...(error && { error: new ChatError(error.code, error.text, 0, undefined, error.details) }) })
        adopted.add(item.id)
      } catch {
        // Not written by this client.
      }
    }
    if (!found.length) return
    const sorted = [...items.values(), ...found].sort((a, b) => (a.createdAt + a.id < b.createdAt + b.id ? -1 : 1))
    items.clear()
    for (const item of sorted) items.set(item.id, item)
    owner.changed()
  }

  /** What was written by `from` is from now on `author`'s: they are the same person. */
  const rename = (from: string | undefined, author: string): void => {
    for (const item of items.values()) {
      if (item.owner !== from) continue
      erase(item)
      const renamed = { ...item, owner: author }
      items.set(item.id, renamed)
      save(renamed)
    }
  }

  return {
    flush,
    add(draft: Draft): Item {
      // Two texts of the same millisecond keep their order.
      lastAt = Math.max(lastAt + 1, Date.now())
      const item: Item = { ...draft, id: uuid(), createdAt: new Date(lastAt).toISOString(), state: 'waiting', owner: owner.author() }
      items.set(item.id, item)
      save(item)
      owner.changed()
      queueMicrotask(flush)
      return item
    },
    get: (id: string): Item | undefined => items.get(id),
    /** The author's texts, in the order of writing. */
    list: (): Item[] => [...items.values()].filter((item) => item.owner === owner.author() || item.owner === undefined),
    retry(id: string, afterSeq?: number): void {
      const item = items.get(id)
      if (item?.state !== 'refused') return
      update(item, { state: 'waiting', owner: item.owner ?? owner.author(), ...(afterSeq !== undefined && item.afterSeq !== undefined && { afterSeq }) })
      flush()
    },
    discard(id: string): Item | undefined {
      const item = items.get(id)
      if (!item || item.state === 'sending') return undefined
      remove(item)
      return item
    },
    /** The server has stored it; it is shown until `shown`. */
    stored(id: string): void {
      const item = items.get(id)
      if (!item || item.stored) return
      erase(item)
      update(item, { stored: true })
      flush()
    },
    shown(id: string): void {
      const item = items.get(id)
      if (item) remove(item)
    },
    /** The person is known: `from` is what was known before. Texts of others stay in storage. */
    adopt(from: string | undefined, author: string): void {
      if (from !== undefined && from !== author) load(from), rename(from, author)
      rename(undefined, author)
      for (const item of [...items.values()]) if (item.owner !== author) items.delete(item.id)
      load(author)
      owner.changed()
    },
    /** Nobody is signed in: texts without an author are sent only if somebody says so. */
    hold(): void {
      for (const item of items.values()) if (item.owner === undefined) update(item, { state: 'refused', error: new ChatError('signed_out', 'Nobody was signed in.') })
    },
    /** The connection is back: end all waiting times. */
    hurry(): void {
      for (const [lane, { timer }] of pauses) clearTimeout(timer), pauses.delete(lane)
      flush()
    },
    close(): void {
      closed = true
      for (const { timer } of pauses.values()) clearTimeout(timer)
    },
  }
}
