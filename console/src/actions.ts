/** Staff's actions on a session (assign, hand over, release, close, reopen) and its player (enable or disable the chat). */

import { type Api, ApiError, type SessionStatus } from './api'
import type { UnsentReplies } from './unsent-replies'
import type { Queue } from './queue'
import type { PlayerId } from './types'

export class Actions {
  /** By player id: true if the player may write. Only loaded players are in it. */
  readonly chatEnabled = new Map<PlayerId, boolean>()
  /** Ids of the sessions with a pending request. */
  private readonly changing = new Set<string>()
  private readonly closedByMe = new Set<string>()

  constructor(
    private readonly api: Api,
    private readonly queue: Queue,
    private readonly unsentReplies: UnsentReplies,
    private readonly onError: (message: string) => void,
    private readonly onChange: () => void,
  ) {}

  /** Set a session's status: `assigned` (to `staffId`, by default the user), `active` (unassigned) or `closed`. */
  setStatus(id: string, status: SessionStatus, staffId?: string): Promise<void> {
    return this.attempt(async () => {
      this.changing.add(id)
      if (status === 'closed') this.closedByMe.add(id)
      let done = false
      try {
        this.queue.applySession((await this.api.setStatus(id, status, staffId)).session)
        done = true
      } finally {
        this.changing.delete(id)
        if (done !== (status === 'closed')) this.closedByMe.delete(id)
      }
    })
  }

  /** Reopen a closed session and send a reply; `onSent` is called when the reply is queued. */
  reopenAndSend(id: string, text: string, playerName: string, onSent: () => void): Promise<void> {
    return this.attempt(async () => {
      this.queue.applySession((await this.api.setStatus(id, 'active')).session)
      this.unsentReplies.send(id, text, playerName)
      onSent()
    })
  }

  /** Enable or disable a player's chat. */
  setChatEnabled(player: PlayerId, enabled: boolean): Promise<void> {
    return this.attempt(async () => {
      this.chatEnabled.set(player, (await this.api.enablePlayer(player, enabled)).enabled)
      this.onChange()
    })
  }

  /** Load `chatEnabled` of a player, unless it is loaded. */
  async loadPlayer(player: PlayerId): Promise<void> {
    if (this.chatEnabled.has(player)) return
    await this.attempt(async () => {
      this.chatEnabled.set(player, (await this.api.player(player)).player.enabled)
      this.onChange()
    })
  }

  /** True while a request of this page changes the session. */
  isChanging(id: string): boolean {
    return this.changing.has(id)
  }

  /** True if this page closed the session. */
  isClosedByMe(id: string): boolean {
    return this.closedByMe.has(id)
  }

  /** Run an action, and report its error to the user. */
  async attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.onError(error instanceof ApiError ? error.message : 'That did not work.')
    }
  }
}
