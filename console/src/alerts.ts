/** What is brought to one's notice: a player's new message, a conversation that was handed over, a reply that failed. */

import type { Notices } from './notices'
import type { Bell } from './notify'
import type { Outgoing } from './outbox'
import { route, sessionHref } from './route'
import type { Message } from './types'

/** A message older than this rings no bell, whatever the frame says. */
const LATE = 30_000

export class Alerts {
  constructor(
    private readonly notices: Notices,
    private readonly bell: Bell,
    /** The server's time. */
    private readonly now: () => number,
  ) {}

  message(message: Message, replay: boolean, open: boolean): void {
    if (message.sender !== 'player') return
    const name = message.player_name || `player ${message.player_id}`
    if (open) this.notices.announce(`${name}: ${message.message}`)
    else if (!replay) this.notices.announce(`New message from ${name}`)
    if (replay || this.now() - Date.parse(message.timestamp) > LATE) return
    this.ring(`New message from ${name}`, message.session_id)
  }

  handedOver(session: string, player: string): void {
    const line = `${player} was handed over to you`
    this.notices.announce(line)
    this.notices.show('news', `${line}.`, session)
    this.ring(line, session)
  }

  /** Whoever looks at something else must know it too. */
  unsent(session: string, player: string, reply: Outgoing): void {
    const line = `Your reply was not sent to ${player || reply.to || 'a player'}`
    this.notices.announce(`${line}: ${reply.error}`)
    const at = route()
    if (at.view === 'desk' && at.session === session) return
    this.notices.show('unsent', `${line}. ${reply.error}`, session)
    this.ring(line, session)
  }

  /** A reply was stored or given up: what was said of it is over when none of its session has failed. */
  settled(hasFailed: (session: string) => boolean): void {
    const { toast } = this.notices
    if (toast?.kind === 'unsent' && !hasFailed(toast.session ?? '')) this.notices.dismiss()
  }

  private ring(line: string, session: string): void {
    this.bell.ring(line, session, () => (location.hash = sessionHref(session)))
  }
}
