/** The public interface of the client: what a page calls, and what it reads. */

import type { ChatError } from './errors.js'
import type { Attachment, Message, Note, PlayerId, QueuedSession, ServerFrame, Session, StaffStatus, Template, Viewer } from './protocol.js'
import type { Transport } from './transport.js'

export interface ChatOptions {
  /** The daemon's address, such as "https://chat.example"; "" for the page's own origin. */
  url: string
  /**
   * Return the person's token. `refused` is true if the last one was refused or has expired: return a renewed one. Null: nobody
   * is signed in, and the chat stops with the reason `signed_out`.
   */
  getToken(refused: boolean): string | null | Promise<string | null>
  /** A player's name, for messages of players whose name the house does not store. */
  name?: string | undefined
  /** How frames travel; by default the daemon's /ws, and REST while no socket can be had. */
  transport?: Transport
  /** Where unsent texts are kept, by person; by default localStorage where there is one, else memory. Null: memory. */
  storage?: ChatStorage | null
  /** Called with every frame of the server, for what the snapshots do not tell, such as a sound for a new message. */
  onFrame?(frame: ServerFrame): void
}

/** A part of the browser's `Storage`. */
export interface ChatStorage {
  readonly length: number
  key(index: number): string | null
  getItem(name: string): string | null
  setItem(name: string, value: string): void
  removeItem(name: string): void
}

export interface Chat {
  /**
   * Call `listener` after every change of anything below, once per microtask. Returns the function that ends this. The first
   * subscriber connects; 5 s after the last one has left, the connection closes.
   */
  subscribe(listener: () => void): () => void
  /** Keep the connection without a listener, and try again after the chat has stopped. */
  connect(): void
  /** End everything, finally. Unsent texts stay in storage. */
  close(): void

  // Snapshots are immutable. Each is the same object until something in it changes, as useSyncExternalStore wants.

  status(): Status
  /**
   * The messages of a session; of a player without an id those of all its sessions, in order. Loading begins with the first
   * call, and goes on while somebody is subscribed.
   */
  messages(sessionId?: string): Conversation
  /** The known sessions, the one with the latest message first. */
  sessions(): readonly Session[]
  /** The number of the other side's messages that are not marked as read: of a session, or of all. */
  unread(sessionId?: string): number
  /** Who types in a session (of a player: in any). Forgotten 6 s after the last sign. */
  typing(sessionId?: string): readonly Typist[]
  /**
   * Whether the staff's desk is open, and when that changes; undefined until it is known. Read when it is first called, and kept
   * current while it is called after changes. It also fills `staffOnline()`, which otherwise knows changes only.
   */
  desk(): Desk | undefined
  /** The members of staff who are online or away, as far as it is known. */
  staffOnline(): readonly StaffStatus[]

  /**
   * Keep a text until it is stored. Its id is chosen here; it survives a reload, is sent in the order of writing in its session,
   * and is never sent as somebody else.
   */
  send(text: string, options?: SendOptions): Unsent
  /** Send a refused text again; one that waits for its next try, at once. What staff have read meanwhile counts as seen. */
  retry(id: string): void
  /**
   * Take a text back, and return it, so that the page can put it into its field. Undefined while it is being sent: it may be
   * stored by then.
   */
  discard(id: string): Unsent | undefined
  loadOlder(sessionId?: string): Promise<void>
  /** Mark as read up to a seq, by default all loaded messages; without a session those of all sessions that are loaded. Repeated until the server has it. */
  markRead(sessionId?: string, upToSeq?: number): void
  /** Say that the person types, at every keystroke, or has stopped; sent at most every 3 s. */
  setTyping(typing: boolean, sessionId?: string): void
  upload(file: Blob & { name?: string }, options?: UploadOptions): Upload
  /** An address of a file, kept until shortly before it expires. Raises ChatError. */
  url(attachmentId: string, variant?: 'thumb' | 'view' | 'file'): Promise<string>
  /** Rate a closed session of the player. Raises ChatError. */
  rate(sessionId: string, score: 1 | 2 | 3 | 4 | 5, comment?: string): Promise<Session>
  /** Close a session, of staff (the daemon refuses it to players: `staff_only`). Raises ChatError. */
  closeSession(sessionId?: string): Promise<void>
  readonly staff: StaffChat
}

export interface Status {
  /** `polling`: no socket can be had, REST is asked every few seconds. */
  connection: 'idle' | 'connecting' | 'live' | 'polling' | 'reconnecting' | 'offline' | 'stopped'
  /** Why it is stopped: `signed_out`, `token_rejected`, `chat_disabled`, `closed` or `defect`. */
  reason?: string | undefined
  me?: Person | undefined
  error?: ChatError | undefined
}

/** Who the person is, as the database derives it from the token. */
export interface Person {
  role: 'player' | 'staff' | 'admin'
  playerId?: PlayerId | undefined
  staffId?: string | undefined
  displayName?: string | null | undefined
  /** False while a player's chat is disabled; undefined until it is known. */
  chatEnabled?: boolean | undefined
  /** True while a page may ask a player for a rating of a closed session. */
  ratingEnabled?: boolean | undefined
}

/** The staff's desk. Times are ISO 8601. */
export interface Desk {
  /** True inside the opening hours, and always for a desk without any. */
  open: boolean
  /** The next opening of a closed desk; null if it is open, or does not open within 400 days. */
  opensAt: string | null
  /** Until when an open desk stays open; null if it is closed, or stays open for 8 days. */
  closesAt: string | null
  /** The time zone of the opening hours, such as Europe/Malta; null without any. */
  timezone: string | null
}

export interface Conversation {
  /** Ascending, each once, without a hole between them: what came early waits in `healing`. */
  messages: readonly Message[]
  /** Own texts that are not known to be stored, in the order of writing; shown after `messages`. */
  unsent: readonly Unsent[]
  /** `healing`: messages are missing and are being fetched. */
  state: 'loading' | 'complete' | 'healing' | 'failed'
  hasOlder: boolean
  loadingOlder: boolean
  /** By session id, the seq up to which the other side has read. */
  readUpTo: Readonly<Record<string, number>>
  error?: ChatError | undefined
}

export interface SendOptions {
  sessionId?: string | undefined
  /** Of staff: the player to whom they write, if no session is known. */
  playerId?: PlayerId | undefined
  /** Ids of uploads. */
  files?: readonly string[] | undefined
  /** Of staff: the last seq that they have seen. If a colleague has written after it, the text is refused, `session_moved`. */
  afterSeq?: number | undefined
  templateId?: string | undefined
  /** Of the page's own, kept with the text as JSON, and not sent. */
  data?: unknown
}

export interface Unsent {
  id: string
  sessionId?: string | undefined
  playerId?: PlayerId | undefined
  text: string
  files: readonly string[]
  createdAt: string
  /** `waiting`: not tried yet, or tried again by itself; `refused`: it will not be sent without `retry`. */
  state: 'waiting' | 'sending' | 'refused'
  /** Why the last try has failed, also while the next one is made. */
  error?: ChatError | undefined
  /** Tries that have failed since it was written, or since `retry`. */
  failures?: number
  /** True of a note of staff. */
  note?: boolean | undefined
  /** As given to `send`. */
  data?: unknown
}

export interface Upload {
  /** The id of the file, for `SendOptions.files`. */
  readonly id: string
  readonly state: 'uploading' | 'stored' | 'failed'
  /** The share that was sent, from 0 to 1. */
  readonly progress: number
  /** Why it has failed; while `uploading`, why it waits for another try. */
  readonly error?: ChatError | undefined
  /** Try again after a failure, or at once. */
  retry(): void
  /** Say in words what it shows, also after the upload: until the server has it, it is `uploading`. Texts with the file wait. */
  describe(alt: string): void
  /** Stop, and delete what the server has of it. */
  cancel(): void
  /**
   * The file, once its bytes are stored; rejected with a ChatError if it fails finally, is cancelled (`cancelled`), or another
   * person signs in or the chat is closed before (`upload_ended`).
   */
  readonly done: Promise<Attachment>
  subscribe(listener: () => void): () => void
}

export interface UploadOptions {
  sessionId?: string | undefined
  playerId?: PlayerId | undefined
  name?: string | undefined
  alt?: string | undefined
}

export interface Typist {
  by: 'player' | 'staff'
  sessionId: string
  staffId?: string | undefined
  /** True if a colleague writes a note. */
  note?: boolean | undefined
}

/** Sessions in the order of work: the longest wait first, then answered ones, then closed ones. */
export interface Queue {
  sessions: readonly QueuedSession[]
  state: 'loading' | 'complete' | 'failed'
  hasMore: boolean
  error?: ChatError | undefined
}

export interface QueueFilter {
  status?: 'active' | 'closed'
  assigned?: 'me' | 'none'
}

export interface Notes {
  notes: readonly Note[]
  /** Own notes that are not known to be stored. */
  unsent: readonly Unsent[]
  state: 'loading' | 'complete' | 'failed'
  error?: ChatError | undefined
}

/** What members of staff can do beside. Promises are rejected with a ChatError. */
export interface StaffChat {
  /** Snapshot, kept current while somebody is subscribed. */
  queue(filter?: QueueFilter): Queue
  loadMore(filter?: QueueFilter): Promise<void>
  /** Assign a session to the caller, if it is nobody's or `fromStaffId`'s; else refused, `session_taken`. */
  take(sessionId: string, fromStaffId?: string): Promise<Session>
  release(sessionId: string): Promise<Session>
  /** Give a session to a colleague, with null to nobody, together with a note. */
  transfer(sessionId: string, toStaffId: string | null, options?: { note?: string; afterSeq?: number }): Promise<Session>
  /** As `send`. Refused with `session_moved` and `details` {by, seq} if a colleague has written after `afterSeq`. */
  reply(sessionId: string, text: string, options?: { afterSeq?: number; files?: readonly string[]; templateId?: string; data?: unknown }): Unsent
  /** Snapshot of the own replies and notes that are not known to be stored, of all sessions, in the order of writing. */
  unsent(): readonly Unsent[]
  /** Snapshot. */
  notes(sessionId: string): Notes
  /** Keep a note until it is stored, as `send` does with a text. */
  addNote(sessionId: string, text: string): Unsent
  templates(): Promise<readonly Template[]>
  render(templateId: string, sessionId: string): Promise<{ text: string; missing: readonly string[] }>
  /** Say that the person looks at a session, or has left it; repeated by itself until then. */
  viewing(sessionId: string, viewing: boolean): void
  /** Snapshot. */
  viewers(sessionId: string): readonly Viewer[]
  setStatus(status: 'online' | 'away' | 'offline'): void
}
