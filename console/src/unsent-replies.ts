/**
 * Replies that are not stored by the server yet; each session's are sent in order. No reply is sent while an earlier one
 * will be retried automatically; one that the server refused does not hold up the next. Notes are sent in the same way, by
 * an object of their own with separate storage.
 *
 * A reply keeps its id through all attempts, so a retry never stores it twice. It is kept in the tab's storage for its
 * author, and is sent only while its author is signed in.
 */

import { uuid } from '../../client/src/util'
import { ApiError } from './api'
import type { TaskScope } from './scope'
import { getItem, parseJson, setItem } from './storage'
import type { ChosenFile } from './uploads'

export interface OutgoingReply {
  id: string
  text: string
  /** The player's name, for notices about a session that is not loaded. */
  playerName: string
  /** Milliseconds since 1970, by the server's clock. */
  createdAt: number
  state: 'sending' | 'failed'
  error: string
  /** True if the failure may pass: the reply is retried automatically. */
  transient: boolean
  /** The last seq that the author has seen; notes have none. */
  afterSeq?: number
  /** The template from which the text was made. */
  templateId?: string
  /** The files that are sent with it, once they are stored. */
  files?: readonly ChosenFile[]
}

/** The server's side: replies and notes have different paths. */
export interface Delivery<Stored> {
  /** The server's time in milliseconds since 1970. */
  now(): number
  store(session: string, reply: OutgoingReply): Promise<Stored>
  /** The name under which an author's replies are kept in the tab's storage. */
  storageKey(owner: string): string
}

export interface UnsentRepliesListener<Stored> {
  onStored(stored: Stored): void
  onFailed(session: string, reply: OutgoingReply): void
  onChange(): void
  /** The reason of a failure, for the user. */
  describe(error: unknown): string
}

/** One constant list, so that a component sees that it did not change. */
const NO_REPLIES: readonly OutgoingReply[] = []
/** Milliseconds before the second, third and fourth attempt; then the reply counts as failed. */
const RETRY_DELAYS = [1000, 3000, 6000]
/** Milliseconds between attempts to send a failed reply. */
const SLOW_RETRY_DELAY = 15_000

export class UnsentReplies<Stored> {
  /** By session id, in the order in which they were written. */
  private readonly bySession = new Map<string, OutgoingReply[]>()
  /** The sessions whose replies are being sent. */
  private readonly sending = new Set<string>()
  /** Ids of failed replies that are due for another attempt, which reports no failure. */
  private readonly dueRetries = new Set<string>()

  /** `owner` is the author's staff id, empty until the server reports it. */
  constructor(
    private readonly delivery: Delivery<Stored>,
    private readonly scope: TaskScope,
    private owner: string,
    private readonly listener: UnsentRepliesListener<Stored>,
  ) {
    this.load()
  }

  repliesOf(session: string): readonly OutgoingReply[] {
    return this.bySession.get(session) ?? NO_REPLIES
  }

  get count(): number {
    return [...this.bySession.values()].flat().length
  }

  /** True if a reply is being sent or will be retried automatically. */
  get canStillSend(): boolean {
    return [...this.bySession.values()].flat().some((reply) => reply.state === 'sending' || reply.transient)
  }

  /** The ids of the sessions with a failed reply. */
  get failedSessions(): string[] {
    return [...this.bySession].filter(([, replies]) => replies.some(isFailed)).map(([session]) => session)
  }

  get failedCount(): number {
    return [...this.bySession.values()].flat().filter(isFailed).length
  }

  hasFailed(session: string): boolean {
    return this.repliesOf(session).some(isFailed)
  }

  send(session: string, text: string, playerName: string, details: Pick<OutgoingReply, 'afterSeq' | 'templateId' | 'files'> = {}): void {
    const reply: OutgoingReply = {
      id: uuid(), text, playerName, createdAt: this.delivery.now(), state: 'sending', error: '', transient: false,
      ...details,
    }
    this.bySession.set(session, [...this.repliesOf(session), reply])
    this.save()
    void this.sendPending(session)
  }

  /** Send a failed reply again; `afterSeq` is the last seq that its author has seen by now. */
  retry(session: string, id: string, afterSeq?: number): void {
    this.updateReply(session, id, { state: 'sending', error: '', ...(afterSeq !== undefined && { afterSeq }) })
    void this.sendPending(session)
  }

  /** The server reported the user's staff id: send that person's replies. */
  resume(owner: string): void {
    if (owner !== this.owner) {
      // Another author's replies stay in storage.
      if (this.owner) this.bySession.clear()
      this.owner = owner
      this.load()
    }
    for (const [session, replies] of this.bySession) {
      for (const reply of replies) {
        if (isFailed(reply) && reply.transient) this.updateReply(session, reply.id, { state: 'sending', error: '' })
      }
      void this.sendPending(session)
    }
  }

  /** Remove a reply that is stored by the server, or that the user discards. */
  remove(session: string, id: string): void {
    if (!this.repliesOf(session).some((reply) => reply.id === id)) return
    const remaining = this.repliesOf(session).filter((reply) => reply.id !== id)
    if (remaining.length) this.bySession.set(session, remaining)
    else this.bySession.delete(session)
    this.save()
    void this.sendPending(session)
  }

  discard(): void {
    this.bySession.clear()
    this.save()
  }

  private async sendPending(session: string): Promise<void> {
    if (this.sending.has(session)) return
    this.sending.add(session)
    for (let reply; !this.scope.closed && (reply = this.nextReply(session)); ) await this.sendReply(session, reply)
    this.sending.delete(session)
  }

  /** The first reply that is not refused, if it is due. */
  private nextReply(session: string): OutgoingReply | undefined {
    const first = this.repliesOf(session).find((reply) => !isFailed(reply) || reply.transient)
    return first && (!isFailed(first) || this.dueRetries.has(first.id)) ? first : undefined
  }

  private async sendReply(session: string, reply: OutgoingReply): Promise<void> {
    const isSlowRetry = this.dueRetries.delete(reply.id)
    for (let attempt = isSlowRetry ? RETRY_DELAYS.length : 0; ; attempt += 1) {
      try {
        this.listener.onStored(await this.delivery.store(session, reply))
        return this.remove(session, reply.id)
      } catch (error) {
        if (this.scope.closed) return
        const isPending = (): boolean => this.repliesOf(session).some(({ id }) => id === reply.id)
        if (!isPending()) return // removed meanwhile: the socket reported it as stored
        const transient = !(error instanceof ApiError) || error.transient
        const delay = RETRY_DELAYS[attempt]
        if (!transient || delay === undefined) return this.markFailed(session, reply.id, error, transient)
        await this.scope.sleep(delay)
        if (!isPending()) return
      }
    }
  }

  private markFailed(session: string, id: string, error: unknown, transient: boolean): void {
    const reply = this.repliesOf(session).find((item) => item.id === id)
    if (!reply) return
    const failed: OutgoingReply = { ...reply, state: 'failed', error: this.listener.describe(error), transient }
    this.updateReply(session, id, failed)
    if (reply.state === 'sending') this.listener.onFailed(session, failed)
    if (!transient) return
    this.scope.schedule(SLOW_RETRY_DELAY, () => {
      if (!this.repliesOf(session).some((reply) => reply.id === id && isFailed(reply))) return
      this.dueRetries.add(id)
      void this.sendPending(session)
    })
  }

  private updateReply(session: string, id: string, fields: Partial<OutgoingReply>): void {
    const updated = this.repliesOf(session).map((reply) => (reply.id === id ? { ...reply, ...fields } : reply))
    if (updated.length) this.bySession.set(session, updated)
    this.save()
  }

  private load(): void {
    if (!this.owner) return
    const stored = parseJson<Record<string, OutgoingReply[]>>(getItem(this.delivery.storageKey(this.owner))) ?? {}
    for (const [session, replies] of Object.entries(stored)) {
      this.bySession.set(session, [...replies, ...this.repliesOf(session)])
    }
    if (this.bySession.size) this.save()
  }

  private save(): void {
    if (this.owner && !this.scope.closed) {
      const stored = this.bySession.size ? JSON.stringify(Object.fromEntries(this.bySession)) : null
      setItem(this.delivery.storageKey(this.owner), stored)
    }
    this.listener.onChange()
  }
}

function isFailed(reply: OutgoingReply): boolean {
  return reply.state === 'failed'
}
