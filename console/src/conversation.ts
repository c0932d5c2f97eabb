/** One session's messages by seq: pages from REST, news from the socket, holes found and filled. */

import { type Api, ApiError } from './api'
import type { Life } from './life'
import type { Mark, Message, Session } from './types'

const PAGE = 100
const MARKS: Mark[] = ['sent', 'delivered', 'read']
const FILL_AFTER = 1000

interface Query {
  limit: number
  before_seq?: number
  after_seq?: number
}

export class Conversation {
  /** Ascending by seq. */
  messages: Message[] = []
  /** Changes whenever `messages` does. */
  version = 0
  loaded = false
  hasOlder = false
  error = ''
  /** There is no such session. */
  missing = false
  /** It is known from where it is unread, so that it can be shown from there. */
  ready = false
  /** The first seq that was unread when the conversation was opened; 0 if none was. */
  unreadFrom = 0
  private filling: number | undefined
  /** The latest read, while it is under way. */
  private reading: Promise<void> | undefined

  constructor(
    readonly id: string,
    private readonly api: Api,
    private readonly life: Life,
    private readonly changed: () => void,
    private readonly session: (session: Session) => void,
  ) {}

  get loading(): boolean {
    return this.reading !== undefined
  }

  /** Up to which seq everything is here. */
  get upTo(): number {
    let at = this.messages[0]?.seq ?? 0
    for (const message of this.messages) {
      if (message.seq > at + 1) break
      at = message.seq
    }
    return at
  }

  /** Read the newest page: at first, and again for marks that changed while the connection was away. */
  async refresh(): Promise<void> {
    await this.reading
    await this.read({ limit: PAGE }, (more) => {
      if (!this.loaded) this.hasOlder = more
      this.loaded = true
    })
  }

  /** Read the page before the first message that is here. While a read is under way, wait for that one instead. */
  async older(): Promise<void> {
    if (this.reading) return this.reading
    const first = this.messages[0]
    if (!this.hasOlder || !first) return
    await this.read({ limit: PAGE, before_seq: first.seq }, (more) => (this.hasOlder = more))
  }

  /** Take messages; those that are here already only get their marks. */
  take(messages: Message[]): void {
    for (const message of messages) this.add(message)
    this.version += 1
    if (this.upTo < (this.messages.at(-1)?.seq ?? 0)) this.fill()
  }

  /** The other side has read staff's messages up to there. */
  marked(upTo: number): void {
    this.messages = this.messages.map((one) =>
      one.seq <= upTo && one.sender !== 'player' && one.status !== 'read' ? { ...one, status: 'read' as const } : one,
    )
    this.version += 1
  }

  private add(message: Message): void {
    let at = this.messages.length
    while (at > 0 && this.messages[at - 1]!.seq > message.seq) at -= 1
    const same = this.messages[at - 1]
    if (same?.seq !== message.seq) this.messages.splice(at, 0, message)
    else if (MARKS.indexOf(message.status) > MARKS.indexOf(same.status)) this.messages[at - 1] = message
  }

  /** A message is missing in between: it may be on its way; if not, ask for it. */
  private fill(): void {
    this.filling ??= this.life.after(FILL_AFTER, () => {
      this.filling = undefined
      if (this.upTo < (this.messages.at(-1)?.seq ?? 0)) void this.read({ limit: PAGE, after_seq: this.upTo }, () => {})
    })
  }

  private read(query: Query, done: (more: boolean) => void): Promise<void> {
    const reading = this.page(query, done).then(() => {
      if (this.reading === reading) this.reading = undefined
      this.changed()
    })
    this.reading = reading
    this.changed()
    return reading
  }

  private async page(query: Query, done: (more: boolean) => void): Promise<void> {
    try {
      const page = await this.api.messages(this.id, query)
      this.error = ''
      this.missing = false
      done(page.has_more)
      this.take(page.messages)
      this.session(page.session)
    } catch (error) {
      this.error = error instanceof ApiError ? error.message : 'The messages could not be read.'
      this.missing = error instanceof ApiError && error.status === 404
    }
  }
}
