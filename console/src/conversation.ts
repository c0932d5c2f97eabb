/** The messages, events and notes of one session: the client's timeline (client/src/timeline.ts), with the console's pages of REST. */

import { createTimeline, type Page, type PageQuery, positionsOf, type Timeline } from '../../client/src/timeline'
import { type Api, ApiError } from './api'
import type { TaskScope } from './scope'
import { Notes } from './notes'
import { Story } from './story'
import type { Attachment, Message, Session } from './types'

/** Messages per page while an old message is looked for: the server's limit. */
const SEEK_PAGE = 500
/** Older pages that are loaded to reach the first unread message. */
const MAX_PAGES_TO_UNREAD = 10

export class Conversation {
  readonly story: Story
  readonly notes: Notes
  /** Incremented by each change of `messages`, of the story and of the notes. */
  version = 0
  /** True if `unreadFrom` is determined, so that the view can scroll to it. */
  unreadKnown = false
  /** The first seq that was unread when the conversation was opened; 0 without unread messages. */
  unreadFrom = 0
  /** The message at which the view is to be positioned, once it is loaded: a new object for each time. */
  target: { message: Message } | undefined
  readonly timeline: Timeline
  /** The user's own messages that wait for those before them, by id. */
  private readonly early = new Map<string, Message>()
  /** What the timeline showed last. */
  private known: ReturnType<Timeline['view']> | undefined
  private refreshing = false
  private closed = false
  /** The page of older messages that is being loaded. */
  private loadingOlder: Promise<void> | undefined

  constructor(
    readonly id: string,
    private readonly api: Api,
    private readonly scope: TaskScope,
    private readonly onChange: () => void,
    private readonly onSession: (session: Session) => void,
    /** The newest messages are read: load what the view is positioned at. */
    private readonly position: () => unknown,
    /** The seq of a message that is looked for; undefined once it is the target. */
    private targetSeq?: number,
  ) {
    const onAsideChange = (): void => {
      this.version += 1
      this.onChange()
    }
    this.story = new Story(id, api, onAsideChange)
    this.notes = new Notes(id, api, onAsideChange)
    this.timeline = createTimeline(id, {
      page: (query) => this.page(query),
      isOwn: ({ sender }) => sender !== 'player',
      active: () => !this.closed,
      changed: () => this.changed(),
      shown: (message) => void this.early.delete(message.id),
    })
    scope.signal.addEventListener('abort', this.close)
  }

  /** End what is waited for: another conversation is open, or nobody is signed in. */
  readonly close = (): void => {
    this.closed = true
    this.timeline.close()
    this.scope.signal.removeEventListener('abort', this.close)
  }

  private changed(): void {
    const { known, loaded } = this
    this.known = this.timeline.view()
    const isLoaded = !loaded && this.loaded
    if (isLoaded || known?.messages !== this.known.messages || known.hasOlder !== this.known.hasOlder) this.version += 1
    this.onChange()
    // The timeline tries again by itself; the view is then positioned.
    if (isLoaded && !this.refreshing) this.position()
  }

  /** Ascending by seq, without a hole between them; then the user's own that wait for those before them. */
  get messages(): readonly Message[] {
    const { messages } = this.timeline.view()
    return this.early.size ? [...messages, ...[...this.early.values()].sort((a, b) => a.seq - b.seq)] : messages
  }

  /** The last seq before the first gap; 0 without messages. */
  get contiguousSeq(): number {
    return positionsOf([this.timeline]).get(this.id) ?? 0
  }

  get loaded(): boolean {
    return this.known !== undefined && this.known.state !== 'loading' && this.known.state !== 'failed'
  }

  get loading(): boolean {
    return this.refreshing || this.loadingOlder !== undefined
  }

  get hasOlder(): boolean {
    return this.timeline.view().hasOlder
  }

  /** The reason of a failure, for the user. */
  get error(): string {
    const { error } = this.timeline.view()
    return error ? (error instanceof ApiError ? error.message : 'The messages could not be read.') : ''
  }

  /** True if the server knows no such session. */
  get notFound(): boolean {
    return this.timeline.view().error?.status === 404
  }

  /** Load the newest messages: initially, and after a reconnection, when statuses may have changed. */
  async refresh(): Promise<void> {
    void this.notes.load()
    this.refreshing = true
    this.onChange()
    await this.timeline.refresh()
    this.refreshing = false
    this.onChange()
    await this.position()
  }

  /** Load the page before the first loaded message; concurrent calls share it. */
  loadOlder(limit?: number): Promise<void> {
    if (!this.hasOlder) return Promise.resolve()
    this.loadingOlder ??= this.timeline.loadOlder(limit).finally(() => {
      this.loadingOlder = undefined
      this.onChange()
    })
    return this.loadingOlder
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

  /** Insert a message from the socket or of a response. */
  receive(message: Message): void {
    if (!this.timeline.receive(message) || message.sender !== 'staff' || !this.loaded) return
    this.early.set(message.id, message)
    this.version += 1
  }

  /** The player has read staff's messages up to the seq `upTo`. */
  applyRead(upTo: number): void {
    this.timeline.read(this.id, upTo, true)
  }

  /** A file of a message has changed. */
  applyAttachment(changed: Attachment): void {
    this.timeline.attachment(this.id, changed)
  }

  private async page({ limit, before, after_seq }: PageQuery): Promise<Page> {
    const { messages, session, has_more } = await this.api.messages(this.id, {
      limit,
      ...(before && { before_seq: Number(before) }),
      ...(after_seq !== undefined && { after_seq }),
    })
    this.story.follow(session)
    this.onSession(session)
    return { messages, next: has_more && messages[0] ? String(messages[0].seq) : undefined }
  }
}
