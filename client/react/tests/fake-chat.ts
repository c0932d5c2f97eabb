/** A chat without a connection: tests set its snapshots, and see what was called. */

import type { Attachment, Chat, Conversation, Message, Notes, Queue, Unsent, Upload } from '../../src/index.js'
import { NO_CONVERSATION, NO_NOTES, NO_QUEUE } from '../snapshot.js'

/** A message of staff, with what a page shows. */
export function message(seq: number, text: string, sessionId = 's1'): Message {
  return {
    id: `${sessionId}-${seq}`,
    seq,
    session_id: sessionId,
    player_id: 29,
    player_name: null,
    message: text,
    sender: 'staff',
    sender_name: 'Sam',
    status: 'sent',
    timestamp: '2026-11-29T17:00:00.000Z',
    created_at: '2026-11-29T17:00:00.000Z',
  }
}

/** An upload whose progress tests decide. */
export class FakeUpload implements Upload {
  state: Upload['state'] = 'uploading'
  progress = 0
  cancelled = false
  alt = ''
  readonly done = new Promise<Attachment>(() => {})
  readonly #listeners = new Set<() => void>()

  constructor(readonly id: string) {}

  set(state: Upload['state'], progress: number): void {
    Object.assign(this, { state, progress })
    for (const listener of this.#listeners) listener()
  }

  retry(): void {
    this.set('uploading', 0)
  }

  describe(alt: string): void {
    this.alt = alt
    this.set('uploading', 1)
  }

  cancel(): void {
    this.cancelled = true
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }
}

const resolved = (): Promise<never> => Promise.reject(new Error('not part of these tests'))

export class FakeChat implements Chat {
  readonly listeners = new Set<() => void>()
  readonly conversations = new Map<string, Conversation>()
  readonly queues = new Map<string, Queue>()
  /** What was called, in order: the name and the arguments. */
  readonly calls: unknown[][] = []
  readonly uploads: FakeUpload[] = []
  /** Waiting requests for addresses, by file. */
  readonly addresses = new Map<string, (url: string) => void>()
  unreadCount = 0
  typists: ReturnType<Chat['typing']> = []
  online: ReturnType<Chat['staffOnline']> = []
  opening: ReturnType<Chat['desk']>
  sessionNotes: Notes = NO_NOTES

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => void this.listeners.delete(listener)
  }

  /** Tell all subscribers that something has changed. */
  emit(): void {
    for (const listener of [...this.listeners]) listener()
  }

  /** A message arrives. */
  deliver(text: string, sessionId = 's1'): void {
    const before = this.messages(sessionId)
    const messages = [...before.messages, message(before.messages.length + 1, text, sessionId)]
    this.conversations.set(sessionId, { ...before, state: 'complete', messages })
    this.emit()
  }

  connect(): void {
    this.calls.push(['connect'])
  }

  close(): void {
    this.calls.push(['close'])
  }

  status(): ReturnType<Chat['status']> {
    return LIVE
  }

  messages(sessionId = 's1'): Conversation {
    return this.conversations.get(sessionId) ?? NO_CONVERSATION
  }

  sessions(): ReturnType<Chat['sessions']> {
    return NONE
  }

  unread(): number {
    return this.unreadCount
  }

  typing(): ReturnType<Chat['typing']> {
    return this.typists
  }

  desk(): ReturnType<Chat['desk']> {
    return this.opening
  }

  staffOnline(): ReturnType<Chat['staffOnline']> {
    return this.online
  }

  send(text: string, options?: object): Unsent {
    this.calls.push(['send', text, options])
    const unsent: Unsent = { id: text, text, files: [], createdAt: '2026-11-29T17:00:00.000Z', state: 'waiting' }
    const before = this.messages()
    this.conversations.set('s1', { ...before, unsent: [...before.unsent, unsent] })
    this.emit()
    return unsent
  }

  retry(id: string): void {
    this.calls.push(['retry', id])
  }

  discard(id: string): Unsent | undefined {
    this.calls.push(['discard', id])
    return undefined
  }

  markRead(sessionId?: string): void {
    this.calls.push(['markRead', sessionId])
  }

  setTyping(typing: boolean, sessionId?: string): void {
    this.calls.push(['setTyping', typing, sessionId])
  }

  upload(_file: Blob, options?: object): Upload {
    this.calls.push(['upload', options])
    const upload = new FakeUpload(`file-${this.uploads.length + 1}`)
    this.uploads.push(upload)
    return upload
  }

  url(attachmentId: string): Promise<string> {
    return new Promise((resolve) => this.addresses.set(attachmentId, resolve))
  }

  readonly loadOlder = resolved
  readonly rate = resolved
  readonly closeSession = resolved

  readonly staff: Chat['staff'] = {
    queue: (filter) => {
      this.calls.push(['queue', filter])
      return this.queues.get(filter?.assigned ?? '') ?? NO_QUEUE
    },
    notes: () => this.sessionNotes,
    unsent: () => NONE,
    viewing: (sessionId, viewing) => void this.calls.push(['viewing', sessionId, viewing]),
    viewers: () => NONE,
    reply: (_sessionId, text) => this.send(text),
    addNote: (_sessionId, text) => this.send(text),
    setStatus: () => {},
    loadMore: resolved,
    take: resolved,
    release: resolved,
    transfer: resolved,
    templates: resolved,
    render: resolved,
  }

  /** The arguments of each call of a name. */
  called(name: string): unknown[][] {
    return this.calls.filter(([called]) => called === name).map(([, ...given]) => given)
  }
}

const NONE: readonly never[] = []
const LIVE = { connection: 'live' as const }
