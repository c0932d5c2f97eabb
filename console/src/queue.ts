/**
 * The sessions in the order a desk works in: who waits longest first, then the answered, then the closed.
 *
 * Pages come from the server, changes from the socket; both end in one map, and what is shown is sorted from that.
 */

import type { Api, QueueQuery } from './api'
import { ApiError } from './api'
import { finder } from './find'
import type { Life } from './life'
import type { Message, PlayerId, Queued, Session } from './types'

export type Filter = 'open' | 'mine' | 'closed'

const FIRST_PAGE = 60
const PAGE = 500
/** Open sessions are loaded to the end, so that counts are true; beyond this, as one scrolls. */
const EAGER = 10_000
/** Milliseconds between such pages: others have work for the server too. */
const PAUSE = 60
const CROWD = 20
const AGAIN = 5000

export class Queue {
  readonly sessions = new Map<string, Queued>()
  filter: Filter = 'open'
  search = ''
  loading = false
  /** Whether everything that the filter finds is here. */
  complete = false
  error = ''
  private cursor: string | null = null
  /** Whether every open session is here. */
  private whole = false
  private turn = 0
  private begun = 0
  private seen = new Set<string>()
  private readonly touched = new Map<string, number>()
  private readonly unknown = new Set<PlayerId>()
  private asking: number | undefined
  private finds: (session: Queued) => boolean = () => true
  private sorted: Queued[] | undefined
  private counted: number | undefined
  private countedMine: number | undefined

  constructor(
    private readonly api: Api,
    private readonly life: Life,
    private readonly me: () => string,
    private readonly changed: () => void,
    /** A session that must stay known: the one that is open on the page. */
    private readonly kept: () => string | undefined,
  ) {}

  /** What the filter and the search show, in order. */
  get view(): Queued[] {
    this.sorted ??= [...this.sessions.values()].filter((one) => this.shows(one)).sort(inOrder)
    return this.sorted
  }

  /** How many open sessions wait for an answer. */
  get waiting(): number {
    if (this.counted === undefined) {
      this.counted = 0
      for (const one of this.sessions.values()) if (one.status === 'active' && one.waiting_since) this.counted += 1
    }
    return this.counted
  }

  /** How many open sessions are mine. */
  get mine(): number {
    if (this.countedMine === undefined) {
      const me = this.me()
      this.countedMine = 0
      for (const one of this.sessions.values()) {
        if (one.status === 'active' && one.assigned_staff_id === me) this.countedMine += 1
      }
    }
    return this.countedMine
  }

  /** Which session to work on after this one, or before it. After one that was answered: the next that waits. */
  neighbour(id: string | undefined, by: 1 | -1, waitedSince: string | null): Queued | undefined {
    const { view } = this
    const at = view.findIndex((session) => session.id === id)
    const here = view[at]
    if (by === 1 && here && waitedSince && !here.waiting_since) {
      const waiting = view.filter((session) => session.status === 'active' && session.waiting_since)
      const next = waiting.find((session) => compare(session.waiting_since!, waitedSince) >= 0) ?? waiting[0]
      if (next) return next
    }
    return view[at < 0 ? 0 : at + by]
  }

  show(filter: Filter, search: string): void {
    if (filter === this.filter && search === this.search && !this.error) return
    this.filter = filter
    this.search = search
    this.finds = finder(search)
    if (!this.whole || filter === 'closed') return void this.restart()
    // Every open session is here already, and what changes is told.
    this.turn += 1
    this.loading = false
    this.error = ''
    this.complete = true
    this.stale()
  }

  /** Read again from the start, for something may have been missed; what is shown stays until the answer is here. */
  async reload(): Promise<void> {
    this.whole = false
    await this.restart()
  }

  private async restart(): Promise<void> {
    this.turn += 1
    this.begun = Date.now()
    this.seen = new Set()
    this.cursor = null
    this.complete = false
    this.loading = false
    this.stale()
    await this.more()
  }

  /** Read the next page, if there is one. */
  async more(): Promise<void> {
    if (this.loading || this.complete) return
    const turn = this.turn
    const first = this.cursor === null
    this.loading = true
    try {
      const page = await this.api.queue({ ...this.query(), limit: first ? FIRST_PAGE : PAGE, ...(this.cursor && { cursor: this.cursor }) })
      if (turn !== this.turn) return
      for (const one of page.sessions) {
        this.seen.add(one.id)
        this.put(one)
      }
      this.cursor = page.next
      this.complete = page.next === null
      this.error = ''
      if (this.complete) this.sweep()
      if (this.complete && this.filter === 'open' && !this.search) this.whole = true
    } catch (error) {
      if (turn !== this.turn) return
      this.error = error instanceof ApiError ? error.message : 'The list could not be read.'
    }
    this.loading = false
    this.changed()
    const eager = this.filter !== 'closed' && !this.search && this.seen.size < EAGER
    if (eager && !this.complete && !this.error) this.life.after(PAUSE, () => turn === this.turn && void this.more())
  }

  /** Take a session as the server tells it. */
  put(session: Session | Queued): void {
    const old = this.sessions.get(session.id)
    if (old && (old.rev > session.rev || old.last_seq > session.last_seq)) return
    if ('waiting_since' in session) this.set(session)
    else if (session.status === 'closed') this.set({ ...session, waiting_since: null })
    // A session that was opened again has a past that only the queue knows.
    else if (old?.status === 'active') this.set({ ...session, waiting_since: old.waiting_since })
    else this.ask(session.player_id)
  }

  /** Take a message that was sent in one of them. */
  told(message: Message): void {
    const old = this.sessions.get(message.session_id)
    if (!old) return this.ask(message.player_id)
    const mine = message.sender === 'player'
    const newer = message.seq > old.last_seq
    const since = message.sender === 'staff' && message.seq >= old.last_seq ? null : old.waiting_since
    this.set({
      ...old,
      waiting_since: mine && newer && old.status === 'active' ? (since ?? message.timestamp) : since,
      ...(newer && {
        last_seq: message.seq,
        last_message: message.message,
        last_message_at: message.timestamp,
        unread_by_staff: old.unread_by_staff + (mine ? 1 : 0),
      }),
    })
  }

  /** Staff have read a session up to there. */
  read(session: string, upTo: number): void {
    const old = this.sessions.get(session)
    if (old) this.set({ ...old, unread_by_staff: Math.min(old.unread_by_staff, Math.max(0, old.last_seq - upTo)) })
  }

  /** The open session of a player, if it is known. */
  openOf(player: PlayerId): Queued | undefined {
    for (const one of this.sessions.values()) if (one.player_id === player && one.status === 'active') return one
    return undefined
  }

  /** Ask for a player's sessions; many at once are asked for as a list. */
  ask(player: PlayerId): void {
    this.unknown.add(player)
    this.asking ??= this.life.after(60, () => {
      this.asking = undefined
      const players = [...this.unknown]
      this.unknown.clear()
      if (players.length > CROWD) return void this.reload()
      for (const one of players) void this.fetch(one)
    })
  }

  private async fetch(player: PlayerId): Promise<void> {
    try {
      const found = await this.api.queue({ player: String(player), limit: 10 })
      for (const one of found.sessions) this.put(one)
      this.changed()
    } catch {
      this.life.after(AGAIN, () => this.ask(player))
    }
  }

  private set(session: Queued): void {
    this.sessions.set(session.id, session)
    this.touched.set(session.id, Date.now())
    this.stale()
  }

  private stale(): void {
    this.sorted = this.counted = this.countedMine = undefined
    this.changed()
  }

  private query(): QueueQuery {
    return {
      status: this.filter === 'closed' ? 'closed' : 'active',
      ...(this.filter === 'mine' && { assigned: 'me' }),
      // (The list writes a player's number as "#5000".)
      ...(this.search && { player: this.search.replace(/^#(?=\d)/, '') }),
    }
  }

  private shows(one: Queued): boolean {
    if ((one.status === 'closed') !== (this.filter === 'closed')) return false
    if (this.filter === 'mine' && one.assigned_staff_id !== this.me()) return false
    return this.finds(one)
  }

  /** The whole list was read: what it did not have is not in it any more. */
  private sweep(): void {
    for (const one of this.view) {
      const known = this.seen.has(one.id) || (this.touched.get(one.id) ?? 0) >= this.begun || one.id === this.kept()
      if (!known) {
        this.sessions.delete(one.id)
        this.touched.delete(one.id)
      }
    }
    this.stale()
  }
}

function rank(one: Queued): number {
  return one.status === 'closed' ? 2 : one.waiting_since ? 0 : 1
}

function inOrder(a: Queued, b: Queued): number {
  const group = rank(a) - rank(b)
  if (group) return group
  if (a.waiting_since && b.waiting_since) return compare(a.waiting_since, b.waiting_since) || compare(a.id, b.id)
  return compare(b.last_message_at ?? b.created_at, a.last_message_at ?? a.created_at) || compare(b.id, a.id)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
