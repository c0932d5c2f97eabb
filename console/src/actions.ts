/** Staff's actions on a session (take, release, hand over, close, reopen) and its player (block, unblock). */

import { uuid } from '../../client/src/util'
import { type Api, ApiError, type Transfer } from './api'
import type { Queue } from './queue'
import type { Player, PlayerId, Session, SessionAssigned } from './types'

/** Reports to the user. */
export interface Reporter {
  showError(text: string): void
  showNews(text: string): void
  /** An error in a sentence. */
  describe(error: unknown): string
}

/** The sessions that *Take next* asks for: some may be taken by colleagues meanwhile. */
const CANDIDATES = 20

export class Actions {
  /** By player id. Only loaded players are in it. */
  private readonly players = new Map<PlayerId, Player>()
  /** Ids of the sessions with a pending request. */
  private readonly changing = new Set<string>()
  private readonly closedByMe = new Set<string>()
  /** Notes of hand-overs whose answer has not come, by session id. */
  private readonly pendingNotes = new Map<string, { id: string; text: string; to: string | null }>()

  constructor(
    private readonly api: Api,
    private readonly queue: Queue,
    private readonly reporter: Reporter,
    private readonly onChange: () => void,
  ) {}

  /** Close a session, or reopen it (`active`). Returns true if that succeeded. */
  async setStatus(id: string, status: 'active' | 'closed'): Promise<boolean> {
    if (status === 'closed') this.closedByMe.add(id)
    const done = await this.attempt(async () => this.queue.applySession((await this.api.setStatus(id, status)).session))
    if (done !== (status === 'closed')) this.closedByMe.delete(id)
    return done
  }

  /** Assign a session to the user; refused if its owner has changed since it was shown. */
  async take({ id, assigned_staff_id: owner }: Session): Promise<void> {
    await this.attempt(() => this.assign(id, () => this.api.take(id, owner)))
  }

  async release(id: string): Promise<void> {
    await this.attempt(() => this.assign(id, () => this.api.release(id)))
  }

  /**
   * Hand a session over to a colleague or back to the queue. The caller reports a refusal. The note has the same id in
   * each attempt with the same text and person: it is stored once, also if an answer is lost.
   */
  async handOver(id: string, transfer: Omit<Transfer, 'noteId'>): Promise<void> {
    const { note: text, toStaffId: to } = transfer
    if (text == null) return this.assign(id, () => this.api.transfer(id, transfer))
    let note = this.pendingNotes.get(id)
    if (note?.text !== text || note.to !== to) note = { id: uuid(), text, to }
    this.pendingNotes.set(id, note)
    const noteId = note.id
    await this.assign(id, () => this.api.transfer(id, { ...transfer, noteId }))
    this.pendingNotes.delete(id)
  }

  /** Take the session that has waited longest and is nobody's; returns its id, undefined if there is none. */
  async takeNext(): Promise<string | undefined> {
    let taken: string | undefined
    await this.attempt(async () => {
      const { sessions } = await this.api.queue({ status: 'active', assigned: 'none', limit: CANDIDATES })
      for (const session of sessions) {
        if (!session.waiting_since || taken !== undefined) break
        this.queue.applySession(session)
        try {
          await this.assign(session.id, () => this.api.take(session.id, null))
          taken = session.id
        } catch (error) {
          // Somebody was faster: the next one.
          if (!(error instanceof ApiError) || !['session_taken', 'session_closed'].includes(error.code)) throw error
        }
      }
      if (taken === undefined) this.reporter.showNews('Nobody waits unassigned.')
    })
    return taken
  }

  private async assign(id: string, request: () => Promise<SessionAssigned>): Promise<void> {
    this.changing.add(id)
    try {
      const { session, over_limit: over } = await request()
      this.queue.applySession(session)
      if (over) this.reporter.showNews(`${over.open_sessions} conversations are assigned now; the limit is ${over.max_sessions}.`)
    } finally {
      this.changing.delete(id)
    }
  }

  /** True if the player may write; undefined while the player is not loaded. */
  mayWrite(player: PlayerId): boolean | undefined {
    const known = this.players.get(player)
    return known && (known.enabled || this.hasEnded(known))
  }

  /** The player's block, while it lasts. */
  blockOf(player: PlayerId): Player['block'] {
    const known = this.players.get(player)
    return known && !known.enabled && !this.hasEnded(known) ? known.block : undefined
  }

  /** Block a player. Returns the reason why it was refused; empty if it succeeded. */
  async block(player: PlayerId, until: string | undefined, reason: string | undefined): Promise<string> {
    try {
      this.applyPlayer(player, (await this.api.block(player, until, reason)).player)
      return ''
    } catch (error) {
      return this.reporter.describe(error)
    }
  }

  async unblock(player: PlayerId): Promise<void> {
    await this.attempt(async () => this.applyPlayer(player, (await this.api.unblock(player)).player))
  }

  async loadPlayer(player: PlayerId): Promise<void> {
    await this.attempt(async () => this.applyPlayer(player, (await this.api.player(player)).player))
  }

  private applyPlayer(id: PlayerId, player: Player): void {
    this.players.set(id, player)
    this.onChange()
  }

  private hasEnded({ block }: Player): boolean {
    return block?.until != null && Date.parse(block.until) <= this.api.now()
  }

  /** True while a request of this page changes the session. */
  isChanging(id: string): boolean {
    return this.changing.has(id)
  }

  /** True if this page closed the session. */
  isClosedByMe(id: string): boolean {
    return this.closedByMe.has(id)
  }

  /** Run an action, and report its error to the user; returns true if it succeeded. */
  async attempt(action: () => Promise<void>): Promise<boolean> {
    try {
      await action()
      return true
    } catch (error) {
      this.reporter.showError(this.reporter.describe(error))
      return false
    }
  }
}
