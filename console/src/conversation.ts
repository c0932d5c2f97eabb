/** The messages, events and notes of one session: pages from REST, new ones from the socket; gaps are filled from REST. */

import { type Api, ApiError } from './api'
import { newerAttachment, withChanges } from './attachments'
import type { TaskScope } from './scope'
import { Notes } from './notes'
import { Story } from './story'
import type { Attachment, Message, MessageStatus, Session } from './types'

/** Messages per page. */
const PAGE = 100
/** Messages per page while an old message is looked for: the server's limit. */
const SEEK_PAGE = 500
/** Older pages that are loaded to reach the first unread message. */
const MAX_PAGES_TO_UNREAD = 10
const STATUS_ORDER: MessageStatus[] = ['sent', 'delivered', 'read']
/** Milliseconds in which a missing message may still arrive by the socket. */
const GAP_DELAY = 1000

interface Query {
  limit: number
  before_seq?: number
  after_seq?: number
}

export class Conversation {
  /** Ascending by seq. */
  messages: Message[] = []
  readonly story: Story
  readonly notes: Notes
  /** Incremented by each change of `messages`, of the story and of the notes. */
  version = 0
  loaded = false
  hasOlder = false
  error = ''
  /** True if the server knows no such session. */
  notFound = false
  /** True if `unreadFrom` is determined, so that the view can scroll to it. */
  unreadKnown = false
  /** The first seq that was unread when the conversation was opened; 0 without unread messages. */
  unreadFrom = 0
  /** The message at which the view is to be positioned, once it is loaded: a new object for each time. */
  target: { message: Message } | undefined
  /** Messages that arrived before the first page, which may have been read before they were stored. */
  private early: Message[] = []
  /** The files that have changed while this is open: a page may have been read before the change. */
  private readonly changedFiles = new Map<string, Attachment>()
  private gapTimer: number | undefined
  /** The latest request, while it is running. */
  private pendingLoad: Promise<void> | undefined

  constructor(
    readonly id: string,
    private readonly api: Api,
    private readonly scope: TaskScope,
    private readonly onChange: () => void,
    private readonly onSession: (session: Session) => void,
    /** The seq of a message that is looked for; undefined once it is the target. */
    private targetSeq?: number,
  ) {
    const onAsideChange = (): void => {
      this.version += 1
      this.onChange()
    }
    this.story = new Story(id, api, onAsideChange)
    this.notes = new Notes(id, api, onAsideChange)
  }

  get loading(): boolean {
    return this.pendingLoad !== undefined
  }

  /** The last seq before the first gap; 0 without messages. */
  get contiguousSeq(): number {
    let seq = this.messages[0]?.seq ?? 0
    for (const message of this.messages) {
      if (message.seq > seq + 1) break
      seq = message.seq
    }
    return seq
  }

  /** Load the newest page: initially, and after a reconnection, when statuses may have changed. */
  async refresh(): Promise<void> {
    void this.notes.load()
    await this.pendingLoad
    await this.load({ limit: PAGE }, (more) => {
      if (!this.loaded) this.hasOlder = more
      this.loaded = true
    })
  }

  /** Load the page before the first loaded message; if a request is running, only wait for it. */
  async loadOlder(limit = PAGE): Promise<void> {
    if (this.pendingLoad) return this.pendingLoad
    const first = this.messages[0]
    if (!this.hasOlder || !first) return
    await this.load({ limit, before_seq: first.seq }, (more) => (this.hasOlder = more))
  }

  /** Make the message with a seq the target, while `isOpen` returns true. If that fails, a refresh tries it again. */
  seek(seq: number, isOpen: () => boolean): Promise<void> {
    this.targetSeq = seq
    return this.findTarget(isOpen)
  }

  /** Load older pages until the message that is looked for is loaded, while `isOpen` returns true. */
  async findTarget(isOpen: () => boolean): Promise<void> {
    const seq = this.targetSeq
    if (seq === undefined || !this.loaded) return
    while (isOpen() && this.hasOlder && !this.error && this.messages[0] && this.messages[0].seq > seq) await this.loadOlder(SEEK_PAGE)
    if (!isOpen() || this.error || seq !== this.targetSeq) return
    this.targetSeq = undefined
    // If the message was deleted: the next one.
    const message = this.messages.find((candidate) => candidate.seq >= seq)
    this.target = message && { message }
    this.onChange()
  }

  /** Load older pages until the first of `unread` messages is loaded, and set `unreadFrom`, while `isOpen` returns true. */
  async findUnread(unread: number, isOpen: () => boolean): Promise<void> {
    const playerMessages = (): Message[] => this.messages.filter((message) => message.sender === 'player')
    for (let pages = 0; pages < MAX_PAGES_TO_UNREAD && this.hasOlder && !this.error; pages += 1) {
      if (!isOpen() || playerMessages().length >= unread) break
      await this.loadOlder()
    }
    // A reconnection may have called this a second time while pages were being loaded.
    if (!isOpen() || this.unreadKnown) return
    this.unreadFrom = unread ? (playerMessages().at(-unread)?.seq ?? playerMessages()[0]?.seq ?? 0) : 0
    this.unreadKnown = this.loaded
    this.onChange()
  }

  /** Insert a message from the socket or of a response; before the first page is loaded, it waits for it. */
  receive(message: Message): void {
    if (this.loaded) this.addMessages([message])
    else this.early.push(message)
  }

  /** Insert messages; of a loaded one only the status changes, and never backwards. */
  addMessages(messages: Message[]): void {
    for (const message of messages) this.addMessage(message)
    this.version += 1
    if (this.contiguousSeq < (this.messages.at(-1)?.seq ?? 0)) this.scheduleGapFill()
  }

  /** The player has read staff's messages up to the seq `upTo`. */
  applyRead(upTo: number): void {
    this.messages = this.messages.map((message) =>
      message.seq <= upTo && message.sender !== 'player' && message.status !== 'read' ? { ...message, status: 'read' as const } : message,
    )
    this.version += 1
  }

  /** A file of a message has changed. */
  applyAttachment(changed: Attachment): void {
    this.changedFiles.set(changed.id, newerAttachment(this.changedFiles.get(changed.id) ?? changed, changed))
    this.messages = this.messages.map((message) => withChanges(message, this.changedFiles))
    this.version += 1
    this.onChange()
  }

  private addMessage(received: Message): void {
    for (const file of received.attachments ?? []) {
      const known = this.changedFiles.get(file.id)
      if (!known || newerAttachment(known, file) === file) this.changedFiles.set(file.id, file)
    }
    const message = withChanges(received, this.changedFiles)
    let index = this.messages.length
    while (index > 0 && this.messages[index - 1]!.seq > message.seq) index -= 1
    const existing = this.messages[index - 1]
    if (existing?.seq !== message.seq) this.messages.splice(index, 0, message)
    else if (STATUS_ORDER.indexOf(message.status) > STATUS_ORDER.indexOf(existing.status)) this.messages[index - 1] = message
    else this.messages[index - 1] = withChanges(existing, this.changedFiles)
  }

  /** A message is missing: load it, unless the socket delivers it first. */
  private scheduleGapFill(): void {
    this.gapTimer ??= this.scope.schedule(GAP_DELAY, () => {
      this.gapTimer = undefined
      if (this.contiguousSeq < (this.messages.at(-1)?.seq ?? 0)) void this.load({ limit: PAGE, after_seq: this.contiguousSeq }, () => {})
    })
  }

  private load(query: Query, onPage: (more: boolean) => void): Promise<void> {
    const request = this.fetchPage(query, onPage).then(() => {
      if (this.pendingLoad === request) this.pendingLoad = undefined
      this.onChange()
    })
    this.pendingLoad = request
    this.onChange()
    return request
  }

  private async fetchPage(query: Query, onPage: (more: boolean) => void): Promise<void> {
    try {
      const page = await this.api.messages(this.id, query)
      this.error = ''
      this.notFound = false
      onPage(page.has_more)
      this.addMessages([...page.messages, ...this.early.splice(0)])
      this.story.follow(page.session)
      this.onSession(page.session)
    } catch (error) {
      this.error = error instanceof ApiError ? error.message : 'The messages could not be read.'
      this.notFound = error instanceof ApiError && error.status === 404
    }
  }
}
