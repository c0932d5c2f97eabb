/**
 * The list of sessions: waiting ones first, longest wait on top, then answered ones, then closed ones.
 *
 * Pages come from REST, changes from the socket. Both are stored in one map; the visible list is sorted from it.
 */

import type { Api, QueueQuery } from './api'
import { ApiError } from './api'
import { sessionMatcher } from './search'
import type { TaskScope } from './scope'
import type { Message, PlayerId, QueuedSession, Session } from './types'

export type Filter = 'open' | 'waiting' | 'mine' | 'unassigned' | 'closed'

/** Sessions per page. */
const FIRST_PAGE = 60
const PAGE = 500
/** Open sessions are loaded up to this number, so that counts are exact; further ones while the user scrolls. */
const EAGER_LIMIT = 10_000
/** Milliseconds between these pages, to leave the server time for others. */
const PAGE_DELAY = 60
/** More players than this are read as a list, not one by one. */
const MAX_SINGLE_FETCHES = 20
/** Sessions in `since`; the server finds changes of other sessions by the newest of these. */
const MAX_SINCE_SESSIONS = 200
/** Milliseconds between two reads of the list while there is no socket. */
const POLL_INTERVAL = 15_000
/** Milliseconds. */
const RETRY_DELAY = 5000

export class Queue {
  readonly sessions = new Map<string, QueuedSession>()
  filter: Filter = 'open'
  search = ''
  loading = false
  /** True if every session that the filter matches is loaded. */
  complete = false
  error = ''
  /** Incremented by each change of a session. */
  revision = 0
  private cursor: string | null = null
  /** True if every open session is loaded: then a filter needs no request. */
  private allOpenLoaded = false
  /** Incremented by each restart; a page of an older generation is dropped. */
  private generation = 0
  private loadStartedAt = 0
  private receivedIds = new Set<string>()
  private readonly changedAt = new Map<string, number>()
  private readonly playersToFetch = new Set<PlayerId>()
  private fetchTimer: number | undefined
  private matches: (session: QueuedSession) => boolean = () => true
  private cachedView: QueuedSession[] | undefined
  private cachedWaiting: number | undefined
  private cachedMine: number | undefined

  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
    private readonly myId: () => string,
    private readonly onChange: () => void,
    /** The session that is open on the page: it is never removed. */
    private readonly openId: () => string | undefined,
  ) {}

  /** The sessions that match the filter and the search, sorted. */
  get visible(): QueuedSession[] {
    this.cachedView ??= [...this.sessions.values()].filter((session) => this.isVisible(session)).sort(compareSessions)
    return this.cachedView
  }

  /** The number of open sessions that wait for an answer. */
  get waitingCount(): number {
    if (this.cachedWaiting === undefined) {
      this.cachedWaiting = 0
      for (const session of this.sessions.values()) if (session.status === 'active' && session.waiting_since) this.cachedWaiting += 1
    }
    return this.cachedWaiting
  }

  /** The number of open sessions that are assigned to the user. */
  get mineCount(): number {
    if (this.cachedMine === undefined) {
      const myId = this.myId()
      this.cachedMine = 0
      for (const session of this.sessions.values()) {
        if (session.status === 'active' && session.assigned_staff_id === myId) this.cachedMine += 1
      }
    }
    return this.cachedMine
  }

  /**
   * The session after (1) or before (-1) this one; after a session that was just answered, the next waiting one.
   *
   * `waitedSince` is the time since which this session's player waited when it was opened.
   */
  adjacent(id: string | undefined, step: 1 | -1, waitedSince: string | null): QueuedSession | undefined {
    const { visible } = this
    const index = visible.findIndex((session) => session.id === id)
    const current = visible[index]
    if (step === 1 && current && waitedSince && !current.waiting_since) {
      const waiting = visible.filter((session) => session.status === 'active' && session.waiting_since)
      const next = waiting.find((session) => compare(session.waiting_since!, waitedSince) >= 0) ?? waiting[0]
      if (next) return next
    }
    return visible[index < 0 ? 0 : index + step]
  }

  setFilter(filter: Filter, search: string): void {
    if (filter === this.filter && search === this.search && !this.error) return
    this.filter = filter
    this.search = search
    this.matches = sessionMatcher(search)
    if (!this.allOpenLoaded || filter === 'closed') return void this.restart()
    // Every open session is loaded, and the socket keeps them current.
    this.generation += 1
    this.loading = false
    this.error = ''
    this.complete = true
    this.invalidate()
  }

  /** Load the list again, since changes may have been missed; the loaded sessions stay visible meanwhile. */
  async reload(): Promise<void> {
    this.allOpenLoaded = false
    await this.restart()
  }

  /** Read the list in place of a socket, if the last time is long enough ago: it may have many pages. Return false if that failed. */
  async poll(): Promise<boolean> {
    if (this.error || Date.now() - this.loadStartedAt > POLL_INTERVAL) await this.reload()
    return !this.error
  }

  private async restart(): Promise<void> {
    this.generation += 1
    this.loadStartedAt = Date.now()
    this.receivedIds = new Set()
    this.cursor = null
    this.complete = false
    this.loading = false
    this.invalidate()
    await this.loadMore()
  }

  /** Load the next page, if there is one and none is being loaded. */
  async loadMore(): Promise<void> {
    if (this.loading || this.complete) return
    const generation = this.generation
    const first = this.cursor === null
    this.loading = true
    try {
      const page = await this.api.queue({ ...this.query(), limit: first ? FIRST_PAGE : PAGE, ...(this.cursor && { cursor: this.cursor }) })
      if (generation !== this.generation) return
      for (const session of page.sessions) {
        this.receivedIds.add(session.id)
        this.applySession(session)
      }
      this.cursor = page.next
      this.complete = page.next === null
      this.error = ''
      if (this.complete) this.removeMissing()
      if (this.complete && this.filter === 'open' && !this.search) this.allOpenLoaded = true
    } catch (error) {
      if (generation !== this.generation) return
      this.error = error instanceof ApiError ? error.message : 'The list could not be read.'
    }
    this.loading = false
    this.onChange()
    const eager = this.filter !== 'closed' && !this.search && this.receivedIds.size < EAGER_LIMIT
    if (eager && !this.complete && !this.error) this.scope.schedule(PAGE_DELAY, () => generation === this.generation && void this.loadMore())
  }

  /** Store a session from the server, unless a newer revision is stored. */
  applySession(session: Session | QueuedSession): void {
    const known = this.sessions.get(session.id)
    if (known && known.last_seq > session.last_seq) {
      // A change that was read before a message that is known by now: read again, for both.
      if (known.rev < session.rev) this.requestPlayer(session.player_id)
      return
    }
    if (known && known.rev > session.rev) return
    if ('waiting_since' in session) this.store(session)
    else if (session.status === 'closed') this.store({ ...session, waiting_since: null, replied: false })
    // Only REST tells since when the player of a reopened session waits.
    else if (known?.status === 'active') this.store({ ...session, waiting_since: known.waiting_since, replied: known.replied === true && known.cycle === session.cycle })
    else this.requestPlayer(session.player_id)
  }

  /** Update the session of a new message. */
  applyMessage(message: Message): void {
    const known = this.sessions.get(message.session_id)
    if (!known) return this.requestPlayer(message.player_id)
    const fromPlayer = message.sender === 'player'
    const newer = message.seq > known.last_seq
    const answered = message.sender === 'staff' && message.seq >= known.last_seq
    const waitingSince = answered ? null : known.waiting_since
    this.store({
      ...known,
      replied: known.replied || answered,
      waiting_since: fromPlayer && newer && known.status === 'active' ? (waitingSince ?? message.timestamp) : waitingSince,
      ...(newer && {
        last_seq: message.seq,
        last_message: message.message,
        last_message_at: message.timestamp,
        unread_by_staff: known.unread_by_staff + (fromPlayer ? 1 : 0),
      }),
    })
  }

  /** Staff have read a session up to the seq `upTo`. */
  applyRead(session: string, upTo: number): void {
    const known = this.sessions.get(session)
    if (known) this.store({ ...known, unread_by_staff: Math.min(known.unread_by_staff, Math.max(0, known.last_seq - upTo)) })
  }

  /**
   * By id, the last seq of the sessions with the newest messages, and of the open conversation the seq up to which it is
   * complete; undefined without sessions.
   */
  since(open: { id: string; loaded: boolean; contiguousSeq: number } | undefined): Record<string, number> | undefined {
    if (!this.sessions.size) return undefined
    const sessions = [...this.sessions.values()].sort((a, b) => compare(b.last_message_at ?? '', a.last_message_at ?? ''))
    const since = Object.fromEntries(sessions.slice(0, MAX_SINCE_SESSIONS).map((session) => [session.id, session.last_seq]))
    if (open?.loaded) since[open.id] = open.contiguousSeq
    return since
  }

  /** The open session of a player, if it is loaded. */
  openSessionOf(player: PlayerId): QueuedSession | undefined {
    for (const session of this.sessions.values()) if (session.player_id === player && session.status === 'active') return session
    return undefined
  }

  /** Load a player's sessions soon; many players at once are loaded as a list. */
  requestPlayer(player: PlayerId): void {
    this.playersToFetch.add(player)
    this.fetchTimer ??= this.scope.schedule(60, () => {
      this.fetchTimer = undefined
      const players = [...this.playersToFetch]
      this.playersToFetch.clear()
      if (players.length > MAX_SINGLE_FETCHES) return void this.reload()
      for (const id of players) void this.fetchPlayer(id)
    })
  }

  private async fetchPlayer(player: PlayerId): Promise<void> {
    try {
      const page = await this.api.queue({ player: String(player), limit: 10 })
      for (const session of page.sessions) {
        const known = this.sessions.get(session.id)
        // Read before a message that is known by now: read again, for the rest of the state.
        if (known && known.rev <= session.rev && known.last_seq > session.last_seq) this.requestPlayer(player)
        else this.applySession(session)
      }
      this.onChange()
    } catch {
      this.scope.schedule(RETRY_DELAY, () => this.requestPlayer(player))
    }
  }

  private store(session: QueuedSession): void {
    this.revision += 1
    this.sessions.set(session.id, session)
    this.changedAt.set(session.id, Date.now())
    this.invalidate()
  }

  private invalidate(): void {
    this.cachedView = this.cachedWaiting = this.cachedMine = undefined
    this.onChange()
  }

  private query(): QueueQuery {
    return {
      status: this.filter === 'closed' ? 'closed' : 'active',
      ...(this.filter === 'mine' && { assigned: 'me' }),
      ...(this.filter === 'unassigned' && { assigned: 'none' }),
      // The list shows a player's id as "#5000".
      ...(this.search && { player: this.search.replace(/^#(?=\d)/, '') }),
    }
  }

  private isVisible(session: QueuedSession): boolean {
    if ((session.status === 'closed') !== (this.filter === 'closed')) return false
    if (this.filter === 'waiting' && !session.waiting_since) return false
    if (this.filter === 'mine' && session.assigned_staff_id !== this.myId()) return false
    if (this.filter === 'unassigned' && session.assigned_staff_id !== null) return false
    return this.matches(session)
  }

  /** The list was loaded completely: remove the sessions that it did not contain. */
  private removeMissing(): void {
    for (const session of this.visible) {
      const keep = this.receivedIds.has(session.id) || (this.changedAt.get(session.id) ?? 0) >= this.loadStartedAt || session.id === this.openId()
      if (!keep) {
        this.sessions.delete(session.id)
        this.changedAt.delete(session.id)
      }
    }
    this.invalidate()
  }
}

function rank(session: QueuedSession): number {
  return session.status === 'closed' ? 2 : session.waiting_since ? 0 : 1
}

function compareSessions(a: QueuedSession, b: QueuedSession): number {
  const group = rank(a) - rank(b)
  if (group) return group
  if (a.waiting_since && b.waiting_since) return compare(a.waiting_since, b.waiting_since) || compare(a.id, b.id)
  return compare(b.last_message_at ?? b.created_at, a.last_message_at ?? a.created_at) || compare(b.id, a.id)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
