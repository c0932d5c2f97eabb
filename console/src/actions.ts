/** What staff do with a session and its player: take it, hand it over, close it, open it again; stop the player from writing. */

import { type Api, ApiError, type SessionStatus } from './api'
import type { Outbox } from './outbox'
import type { Queue } from './queue'
import type { PlayerId, Session } from './types'

export class Actions {
  /** Whether players may write, as far as it is known. */
  readonly players = new Map<PlayerId, boolean>()
  private readonly changing = new Set<string>()
  private readonly closedHere = new Set<string>()

  constructor(
    private readonly api: Api,
    private readonly queue: Queue,
    private readonly outbox: Outbox,
    private readonly refused: (why: string) => void,
    private readonly changed: () => void,
  ) {}

  /** Change a session: `assigned` (to `staffId`, or to me), `active` (nobody's, open), `closed`. */
  change(id: string, status: SessionStatus, staffId?: string): Promise<void> {
    return this.attempt(async () => {
      this.changing.add(id)
      if (status === 'closed') this.closedHere.add(id)
      let done = false
      try {
        this.queue.put((await this.api.setStatus(id, status, staffId)).session)
        done = true
      } finally {
        this.changing.delete(id)
        if (done !== (status === 'closed')) this.closedHere.delete(id)
      }
    })
  }

  /** Open a closed session again, and send; `done` is called when the reply is in the outbox. */
  reopenAndSend(id: string, text: string, to: string, done: () => void): Promise<void> {
    return this.attempt(async () => {
      this.queue.put((await this.api.setStatus(id, 'active')).session)
      this.outbox.send(id, text, to)
      done()
    })
  }

  /** Let a player write, or not. */
  enable(player: PlayerId, enabled: boolean): Promise<void> {
    return this.attempt(async () => {
      this.players.set(player, (await this.api.enablePlayer(player, enabled)).enabled)
      this.changed()
    })
  }

  /** Learn whether a player may write. */
  async lookUp(player: PlayerId): Promise<void> {
    if (this.players.has(player)) return
    await this.attempt(async () => {
      this.players.set(player, (await this.api.player(player)).player.enabled)
      this.changed()
    })
  }

  /** Whether a session is being changed from here. */
  isChanging(id: string): boolean {
    return this.changing.has(id)
  }

  /** Who closed a session, as far as it is known, for the beginning of a sentence. */
  closerOf(session: Session): string {
    if (this.closedHere.has(session.id)) return 'You'
    if (session.closed_by === 'player') return session.player_name || 'The player'
    return session.closed_by === 'staff' ? 'A colleague' : 'Somebody else'
  }

  /** Do something, and tell why where it is refused. */
  async attempt(what: () => Promise<void>): Promise<void> {
    try {
      await what()
    } catch (error) {
      this.refused(error instanceof ApiError ? error.message : 'That did not work.')
    }
  }
}
