/**
 * The user's replies and notes that are not stored by the server yet: the client's outbox, kept in this tab.
 *
 * They are sent once the server has said who the user is, and with the files of their draft. A failure that may pass is shown
 * after some tries.
 */

import { ChatError } from '../../client/src/errors'
import { createOutbox, type Item } from '../../client/src/outbox'
import { type Api, ApiError } from './api'
import type { Conversation } from './conversation'
import type { Drafts } from './drafts'
import type { Files } from './files'
import { authorKey, importEarlierTexts, type KeptText, KEPT_TEXTS } from './kept-texts'
import type { TaskScope } from './scope'
import { getItem, itemNames, setItem } from './storage'
import type { Message, Note } from './types'

export type TextKind = 'reply' | 'note'

export type OutgoingText = Item & KeptText

export interface OutgoingListener {
  onMessage(message: Message): void
  onNote(note: Note): void
  /** A text was refused, or has failed several times; `error` is the reason, for the user. */
  onFailed(text: OutgoingText, error: string): void
  onChange(): void
  /** The reason of a failure, for the user. */
  describe(error: unknown): string
}

/** Failed tries after which a text that is tried again counts as failed, too. */
const SHOWN_AFTER = 4

/** True if the user is told that a text is not sent. */
export const isFailed = ({ state, failures }: Item): boolean => state === 'refused' || failures >= SHOWN_AFTER

export const kindOf = ({ note }: Item): TextKind => (note ? 'note' : 'reply')

export class Outgoing {
  private readonly outbox: ReturnType<typeof createOutbox>
  /** True once the server has said who the user is. */
  private identified = false
  private discarding = false
  /** What is being sent. While a request runs, no later text of its kind and session is sent, even if its own is given up. */
  private readonly running = new Set<string>()
  /** The texts of sessions that were asked for since the last change. */
  private readonly bySession = new Map<string, readonly OutgoingText[]>()

  /** `owner` is the author's staff id, empty until the server reports it. */
  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
    private owner: string,
    private readonly drafts: Drafts,
    private readonly files: Files,
    private readonly listener: OutgoingListener,
  ) {
    importEarlierTexts()
    this.outbox = createOutbox({
      storage: { get: getItem, set: setItem, names: itemNames },
      prefix: KEPT_TEXTS,
      author: () => (this.owner ? authorKey(this.owner) : undefined),
      ready: (item) => this.identified && !this.scope.closed && !this.discarding && !this.running.has(laneOf(item)),
      deliver: (item) => this.deliver(item as OutgoingText),
      changed: () => {
        this.bySession.clear()
        listener.onChange()
      },
    })
    scope.signal.addEventListener('abort', this.outbox.close)
    // Those without an author, from before a reload: refused, until somebody says that they are theirs.
    this.outbox.load()
    if (owner) this.outbox.adopt(authorKey(owner))
  }

  /** The texts of a session, in the order of writing: the same list until one changes. */
  of(session: string): readonly OutgoingText[] {
    const known = this.bySession.get(session) ?? this.list.filter(({ sessionId }) => sessionId === session)
    this.bySession.set(session, known)
    return known
  }

  /** Send a reply with the files of its draft. */
  sendReply({ id, contiguousSeq: afterSeq }: Pick<Conversation, 'id' | 'contiguousSeq'>, text: string, playerName: string, templateId?: string): void {
    const files = this.files.drafts.take(id)
    this.outbox.add({ sessionId: id, text, afterSeq, templateId, files: files.map((file) => file.id), data: { playerName, at: this.api.now(), files } })
  }

  sendNote(sessionId: string, text: string, playerName: string): void {
    this.outbox.add({ sessionId, text, note: true, files: [], data: { playerName, at: this.api.now(), files: [] } })
  }

  /** Send a failed text again, at once: its author has read the messages that are loaded by now. */
  retry({ id, contiguousSeq }: Pick<Conversation, 'id' | 'contiguousSeq'>, text: OutgoingText): void {
    this.outbox.retry(text.id, new Map([[id, contiguousSeq]]))
  }

  /** Put a failed text and its files back into its field. */
  edit(text: OutgoingText): void {
    const { sessionId, data } = text
    if (text.text) this.drafts.append(sessionId, text.text, kindOf(text))
    if (data.files.length) this.files.drafts.put(sessionId, data.files)
    this.outbox.forget(text.id)
  }

  /** Give up a failed text and its files. */
  drop({ id, data }: OutgoingText): void {
    for (const file of data.files) this.files.uploads.cancel(file)
    this.outbox.forget(id)
  }

  /** The server has stored a text, whether or not it has answered. */
  confirm({ id, attachments }: { id: string; attachments?: Message['attachments'] }): void {
    this.outbox.forget(id)
    this.files.uploads.forget((attachments ?? []).map((file) => file.id))
  }

  get count(): number {
    return this.list.length
  }

  countOf(kind: TextKind): number {
    return this.list.filter((text) => kindOf(text) === kind).length
  }

  /** True if a text is being sent or will be retried automatically. */
  get canStillSend(): boolean {
    return this.list.some(({ state }) => state !== 'refused')
  }

  get failed(): readonly OutgoingText[] {
    return this.list.filter(isFailed)
  }

  hasFailed(session: string): boolean {
    return this.of(session).some(isFailed)
  }

  /** The server reported the user's staff id: send that person's texts. Another author's stay in storage. */
  resume(owner: string): void {
    this.owner = owner
    this.identified = true
    this.outbox.adopt(authorKey(owner))
    this.outbox.hurry()
  }

  discard(): void {
    // The removal of one text is no reason to send the next.
    this.discarding = true
    for (const { id } of this.list) this.outbox.forget(id)
    this.discarding = false
  }

  private get list(): OutgoingText[] {
    return this.outbox.list() as OutgoingText[]
  }

  private find(id: string): OutgoingText | undefined {
    return this.list.find((text) => text.id === id)
  }

  /** Raises ChatError. */
  private async deliver(text: OutgoingText): Promise<void> {
    const { id, sessionId, data } = text
    const lane = laneOf(text)
    this.running.add(lane)
    try {
      if (text.note) this.listener.onNote((await this.api.addNote(sessionId, id, text.text)).note)
      else this.listener.onMessage((await this.files.sendWith(sessionId, data.files, () => this.reply(text))).message)
      this.outbox.forget(id)
    } catch (error) {
      // After the sign-out it waits in storage.
      if (!this.scope.closed) throw this.refusal(text, error)
    } finally {
      this.running.delete(lane)
      this.outbox.flush()
    }
  }

  /** Send a reply whose files are stored. Raises ApiError. */
  private reply(text: OutgoingText): ReturnType<Api['reply']> {
    // The user may have given it up meanwhile, which ends the uploads.
    if (!this.find(text.id)) throw new ApiError(0, 'cancelled', 'The reply was discarded.')
    return this.api.reply(text.sessionId, text)
  }

  private refusal({ id, failures }: OutgoingText, error: unknown): ChatError {
    const reason = this.listener.describe(error)
    const { code, status, retryAfter, details } = error instanceof ApiError ? error : new ApiError(0, 'unknown', reason)
    const refusal = new ChatError(code, reason, status, retryAfter, details)
    const text = this.find(id)
    // If it is gone, the socket has reported it as stored, or the user has given it up.
    if (text && (refusal.transient ? failures + 1 === SHOWN_AFTER : failures < SHOWN_AFTER)) this.listener.onFailed(text, reason)
    return refusal
  }
}

const laneOf = ({ note, sessionId }: Item): string => `${note ? 'note' : 'reply'} ${sessionId}`
