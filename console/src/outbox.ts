/**
 * Replies from the moment Enter is pressed until they are stored, each session's in order.
 *
 * A reply keeps its id through every try, so that trying again never stores it twice.
 */

import { type Api, ApiError } from './api'
import type { Message } from './types'

export interface Outgoing {
  id: string
  text: string
  at: number
  state: 'sending' | 'failed'
  error: string
  /** Whether it failed for want of an answer, so that it is tried again when the connection is back. */
  transient: boolean
}

/** The same list each time: who draws it must see that it did not change. */
const NONE: readonly Outgoing[] = []
const PAUSES = [1000, 3000, 6000]

export class Outbox {
  private readonly waiting = new Map<string, Outgoing[]>()
  private readonly busy = new Set<string>()

  constructor(
    private readonly api: Api,
    private readonly stored: (message: Message) => void,
    private readonly changed: () => void,
  ) {}

  of(session: string): readonly Outgoing[] {
    return this.waiting.get(session) ?? NONE
  }

  get empty(): boolean {
    return this.waiting.size === 0
  }

  send(session: string, text: string): void {
    const one: Outgoing = { id: crypto.randomUUID(), text, at: this.api.now(), state: 'sending', error: '', transient: false }
    this.waiting.set(session, [...this.of(session), one])
    this.changed()
    void this.work(session)
  }

  retry(session: string, id: string): void {
    this.change(session, id, { state: 'sending', error: '' })
    void this.work(session)
  }

  /** The connection is back: try what got no answer. */
  resume(): void {
    for (const [session, all] of this.waiting) {
      for (const one of all) if (one.state === 'failed' && one.transient) this.retry(session, one.id)
    }
  }

  /** Give a reply up, or have it heard of as stored. */
  remove(session: string, id: string): void {
    const left = this.of(session).filter((one) => one.id !== id)
    if (left.length) this.waiting.set(session, left)
    else this.waiting.delete(session)
    this.changed()
  }

  private async work(session: string): Promise<void> {
    if (this.busy.has(session)) return
    this.busy.add(session)
    for (let one; (one = this.of(session).find(({ state }) => state === 'sending')); ) await this.deliver(session, one)
    this.busy.delete(session)
  }

  private async deliver(session: string, one: Outgoing): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      try {
        const { message } = await this.api.reply(session, one.id, one.text)
        this.stored(message)
        return this.remove(session, one.id)
      } catch (error) {
        if (!this.of(session).some(({ id }) => id === one.id)) return // the socket has told of it meanwhile
        const transient = !(error instanceof ApiError) || error.transient
        const pause = PAUSES[tries]
        if (!transient || pause === undefined) {
          const text = error instanceof ApiError ? error.message : 'It could not be sent.'
          return this.change(session, one.id, { state: 'failed', error: text, transient })
        }
        await new Promise((resolve) => setTimeout(resolve, pause))
      }
    }
  }

  private change(session: string, id: string, what: Partial<Outgoing>): void {
    this.waiting.set(session, this.of(session).map((one) => (one.id === id ? { ...one, ...what } : one)))
    this.changed()
  }
}
