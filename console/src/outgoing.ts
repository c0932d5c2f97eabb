/** The user's replies and notes that are not stored by the server yet: two objects with separate storage. */

import type { Api } from './api'
import type { Conversation } from './conversation'
import { type Drafts, unsentNotesKey, unsentRepliesKey } from './drafts'
import type { Files } from './files'
import type { TaskScope } from './scope'
import type { Message, Note } from './types'
import { type OutgoingReply, UnsentReplies } from './unsent-replies'

export type TextKind = 'reply' | 'note'

export interface OutgoingListener {
  onMessage(message: Message): void
  onNote(note: Note): void
  onFailed(kind: TextKind, session: string, text: OutgoingReply): void
  onChange(): void
  /** The reason of a failure, for the user. */
  describe(error: unknown): string
}

export class Outgoing {
  readonly replies: UnsentReplies<Message>
  readonly notes: UnsentReplies<Note>

  /** `owner` is the author's staff id, empty until the server reports it. */
  constructor(api: Api, scope: TaskScope, owner: string, private readonly drafts: Drafts, private readonly files: Files, listener: OutgoingListener) {
    const now = (): number => api.now()
    const onChange = (): void => listener.onChange()
    const describe = (error: unknown): string => listener.describe(error)
    this.replies = new UnsentReplies<Message>({
      now,
      storageKey: unsentRepliesKey,
      store: (session, reply) => files.sendWith(session, reply.files, async () => (await api.reply(session, reply)).message),
    }, scope, owner, {
      onStored: (message) => listener.onMessage(message),
      onFailed: (session, reply) => listener.onFailed('reply', session, reply),
      onChange,
      describe,
    })
    this.notes = new UnsentReplies<Note>({
      now,
      storageKey: unsentNotesKey,
      store: async (session, { id, text }) => (await api.addNote(session, id, text)).note,
    }, scope, owner, {
      onStored: (note) => listener.onNote(note),
      onFailed: (session, note) => listener.onFailed('note', session, note),
      onChange,
      describe,
    })
  }

  of(kind: TextKind): UnsentReplies<Message> | UnsentReplies<Note> {
    return kind === 'reply' ? this.replies : this.notes
  }

  /** Send a reply with the files of its draft. */
  sendReply({ id, contiguousSeq: afterSeq }: Conversation, text: string, playerName: string, templateId?: string): void {
    const files = this.files.drafts.take(id)
    this.replies.send(id, text, playerName, { afterSeq, ...(templateId !== undefined && { templateId }), ...(files.length && { files }) })
  }

  /** Send a failed text again: its author has read the messages that are loaded by now. */
  retry(kind: TextKind, { id, contiguousSeq }: Conversation, text: OutgoingReply): void {
    this.of(kind).retry(id, text.id, kind === 'reply' ? contiguousSeq : undefined)
  }

  /** Put a failed text and its files back into its field. */
  edit(kind: TextKind, session: string, { id, text, files }: OutgoingReply): void {
    if (text) this.drafts.append(session, text, kind)
    if (files) this.files.drafts.put(session, files)
    this.of(kind).remove(session, id)
  }

  /** Give up a failed text and its files. */
  drop(kind: TextKind, session: string, { id, files }: OutgoingReply): void {
    for (const file of files ?? []) this.files.uploads.cancel(file)
    this.of(kind).remove(session, id)
  }

  /** The server has stored a reply, whether or not it has answered. */
  confirm({ session_id, id, attachments }: Message): void {
    this.replies.remove(session_id, id)
    this.files.uploads.forget((attachments ?? []).map((file) => file.id))
  }

  get count(): number {
    return this.replies.count + this.notes.count
  }

  /** True if a text is being sent or will be retried automatically. */
  get canStillSend(): boolean {
    return this.replies.canStillSend || this.notes.canStillSend
  }

  get failedCount(): number {
    return this.replies.failedCount + this.notes.failedCount
  }

  /** The ids of the sessions with a failed reply or note. */
  get failedSessions(): string[] {
    return [...this.replies.failedSessions, ...this.notes.failedSessions]
  }

  hasFailed(session: string): boolean {
    return this.replies.hasFailed(session) || this.notes.hasFailed(session)
  }

  /** The server reported the user's staff id: send that person's texts. */
  resume(owner: string): void {
    this.replies.resume(owner)
    this.notes.resume(owner)
  }

  discard(): void {
    this.replies.discard()
    this.notes.discard()
  }
}
