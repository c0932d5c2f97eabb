/**
 * The staff who look at a session, and this page's own view of the open one, which is sent again before it expires.
 *
 * The server forgets a view after 15 seconds (docs/websocket.md).
 */

import type { ClientFrame } from '../../client/src/protocol'
import type { TaskScope } from './scope'
import type { Viewer } from './types'

/** Milliseconds between two frames while a session is open. */
const RENEW_INTERVAL = 8000

export class Viewers {
  private session: string | undefined
  private timer: number | undefined
  private list: Viewer[] = []

  constructor(
    private readonly scope: TaskScope,
    private readonly send: (frame: ClientFrame) => boolean,
    private readonly onChange: () => void,
  ) {
    document.addEventListener('visibilitychange', () => this.renew(), { signal: scope.signal })
  }

  /** The open session's viewers other than the user. */
  others(myId: string | undefined): Viewer[] {
    return this.list.filter((viewer) => viewer.staffId !== myId)
  }

  /** The user opened a session, or closed the open one. */
  open(session: string | undefined): void {
    if (session === this.session) return
    if (this.session !== undefined) this.send({ type: 'viewing', sessionId: this.session, viewing: false })
    this.session = session
    this.list = []
    this.renew()
  }

  /** The connection was established again: earlier frames may have been missed. */
  reset(): void {
    this.list = []
    this.renew()
  }

  apply(session: string, viewers: Viewer[]): void {
    if (session !== this.session) return
    this.list = viewers
    this.onChange()
  }

  private renew(): void {
    this.scope.cancel(this.timer)
    if (this.session === undefined || document.hidden) return
    this.send({ type: 'viewing', sessionId: this.session, viewing: true })
    this.timer = this.scope.schedule(RENEW_INTERVAL, () => this.renew())
  }
}
