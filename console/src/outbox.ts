/**
 * Replies from the moment Enter is pressed until they are stored, each session's in order.
 *
 * A reply keeps its id through every try, so that trying again never stores it twice. It is kept in the tab for the
 * person who wrote it, and is sent while that person is signed in, and by nobody else.
 */

import { type Api, ApiError } from './api'
import { outboxKey } from './drafts'
import { keep, kept, parsed } from './kept'
import type { Life } from './life'
import type { Message } from './types'

export interface Outgoing {
  id: string
  text: string
  /** The player's name, for where the session is not known. */
  to: string
  at: number
  state: 'sending' | 'failed'
  error: string
  /** Whether it failed for want of an answer, so that it is tried again by itself. */
  transient: boolean
}

export interface OutboxListener {
  stored(message: Message): void
  failed(session: string, reply: Outgoing): void
  changed(): void
}

/** The same list each time: who draws it must see that it did not change. */
const NONE: readonly Outgoing[] = []
const PAUSES = [1000, 3000, 6000]
const AGAIN = 15_000

export class Outbox {
  private readonly waiting = new Map<string, Outgoing[]>()
  private readonly busy = new Set<string>()
  /** Replies that failed and are tried once more, in silence. */
  private readonly due = new Set<string>()

  /** `owner` is empty until it is known who is signed in. */
  constructor(
    private readonly api: Api,
    private readonly life: Life,
    private owner: string,
    private readonly listener: OutboxListener,
  ) {
    this.load()
  }

  of(session: string): readonly Outgoing[] {
    return this.waiting.get(session) ?? NONE
  }

  get count(): number {
    return [...this.waiting.values()].flat().length
  }

  /** Whether waiting helps: a reply is under way, or is tried again by itself. */
  get hopeful(): boolean {
    return [...this.waiting.values()].flat().some((reply) => reply.state === 'sending' || reply.transient)
  }

  /** The sessions with a reply that failed. */
  get failed(): string[] {
    return [...this.waiting].filter(([, replies]) => replies.some(isFailed)).map(([session]) => session)
  }

  get failedCount(): number {
    return [...this.waiting.values()].flat().filter(isFailed).length
  }

  hasFailed(session: string): boolean {
    return this.of(session).some(isFailed)
  }

  send(session: string, text: string, to: string): void {
    const at = this.api.now()
    const reply: Outgoing = { id: uuid(), text, to, at, state: 'sending', error: '', transient: false }
    this.waiting.set(session, [...this.of(session), reply])
    this.changed()
    void this.work(session)
  }

  retry(session: string, id: string): void {
    this.change(session, id, { state: 'sending', error: '' })
    void this.work(session)
  }

  /** The server says who is signed in: that person's replies go on. */
  resume(owner: string): void {
    if (owner !== this.owner) {
      // (Those of another owner stay where they are kept.)
      if (this.owner) this.waiting.clear()
      this.owner = owner
      this.load()
    }
    for (const [session, replies] of this.waiting) {
      for (const reply of replies) {
        if (isFailed(reply) && reply.transient) this.change(session, reply.id, { state: 'sending', error: '' })
      }
      void this.work(session)
    }
  }

  /** Give a reply up, or have it heard of as stored. */
  remove(session: string, id: string): void {
    if (!this.of(session).some((reply) => reply.id === id)) return
    const left = this.of(session).filter((reply) => reply.id !== id)
    if (left.length) this.waiting.set(session, left)
    else this.waiting.delete(session)
    this.changed()
  }

  discard(): void {
    this.waiting.clear()
    this.changed()
  }

  private async work(session: string): Promise<void> {
    if (this.busy.has(session)) return
    this.busy.add(session)
    const next = (): Outgoing | undefined =>
      this.of(session).find(({ state, id }) => state === 'sending' || this.due.has(id))
    for (let reply; (reply = next()); ) await this.deliver(session, reply)
    this.busy.delete(session)
  }

  private async deliver(session: string, reply: Outgoing): Promise<void> {
    const quiet = this.due.delete(reply.id)
    for (let tries = quiet ? PAUSES.length : 0; ; tries += 1) {
      try {
        const { message } = await this.api.reply(session, reply.id, reply.text)
        this.listener.stored(message)
        return this.remove(session, reply.id)
      } catch (error) {
        if (this.life.over) return
        const there = (): boolean => this.of(session).some(({ id }) => id === reply.id)
        if (!there()) return // the socket has told of it meanwhile
        const transient = !(error instanceof ApiError) || error.transient
        const pause = PAUSES[tries]
        if (!transient || pause === undefined) return this.fail(session, reply.id, error, transient)
        await this.life.pause(pause)
        if (!there()) return
      }
    }
  }

  private fail(session: string, id: string, error: unknown, transient: boolean): void {
    const known = this.of(session).find((reply) => reply.id === id)
    if (!known) return
    const text = error instanceof ApiError ? error.message : 'It could not be sent.'
    const failed: Outgoing = { ...known, state: 'failed', error: text, transient }
    this.change(session, id, failed)
    if (known.state === 'sending') this.listener.failed(session, failed)
    if (!transient) return
    this.life.after(AGAIN, () => {
      if (!this.of(session).some((reply) => reply.id === id && isFailed(reply))) return
      this.due.add(id)
      void this.work(session)
    })
  }

  private change(session: string, id: string, what: Partial<Outgoing>): void {
    const changed = this.of(session).map((reply) => (reply.id === id ? { ...reply, ...what } : reply))
    if (changed.length) this.waiting.set(session, changed)
    this.changed()
  }

  private load(): void {
    if (!this.owner) return
    const stored = parsed<Record<string, Outgoing[]>>(kept(outboxKey(this.owner))) ?? {}
    for (const [session, replies] of Object.entries(stored)) {
      this.waiting.set(session, [...replies, ...this.of(session)])
    }
    if (this.waiting.size) this.changed()
  }

  private changed(): void {
    if (this.owner && !this.life.over) {
      const all = this.waiting.size ? JSON.stringify(Object.fromEntries(this.waiting)) : null
      keep(outboxKey(this.owner), all)
    }
    this.listener.changed()
  }
}

function isFailed(reply: Outgoing): boolean {
  return reply.state === 'failed'
}

/** `crypto.randomUUID` is there on HTTPS and on this machine only; a desk in a house's own network may have neither. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}
