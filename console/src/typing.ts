/** Typing indicators: who types in which session, and the user's own typing, sent at most every three seconds. */

import type { TaskScope } from './scope'

/** Milliseconds after which an indicator that was not renewed ends. */
const INDICATOR_TIMEOUT = 6000
/** Milliseconds between frames while the user types. */
const SEND_INTERVAL = 3000

interface Typist {
  by: 'player' | 'staff'
  name: string
  timer: number | undefined
}

export class TypingIndicators {
  /** By session id. */
  private readonly typists = new Map<string, Typist>()
  /** When typing was last sent, in milliseconds since 1970; 0 if the user does not type. */
  private sentAt = 0

  constructor(
    private readonly scope: TaskScope,
    /** Tell the server that the user types in the open session, or has stopped. */
    private readonly sendTyping: (typing: boolean) => void,
    private readonly onChange: () => void,
  ) {}

  /** The side that types in a session; undefined if nobody does. */
  typistIn(session: string): 'player' | 'staff' | undefined {
    return this.typists.get(session)?.by
  }

  /** The name of the colleague who types in a session. */
  colleagueIn(session: string): string {
    return this.typists.get(session)?.name || 'A colleague'
  }

  applyTyping(session: string, by: 'player' | 'staff', typing: boolean, name = ''): void {
    this.scope.cancel(this.typists.get(session)?.timer)
    const timer = typing ? this.scope.schedule(INDICATOR_TIMEOUT, () => this.applyTyping(session, by, false)) : undefined
    if (typing) this.typists.set(session, { by, name, timer })
    else this.typists.delete(session)
    this.onChange()
  }

  /** The user pressed a key in the reply. */
  keystroke(): void {
    const now = Date.now()
    if (now - this.sentAt < SEND_INTERVAL) return
    this.sentAt = now
    this.sendTyping(true)
  }

  /** The user paused, sent the reply, or left it. */
  stopTyping(): void {
    if (this.sentAt) this.sendTyping(false)
    this.sentAt = 0
  }
}
