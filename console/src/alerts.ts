/** Alerts for the user: a player's new message, a session that was handed over, a reply that failed. */

import type { Notices } from './notices'
import type { Notifier } from './notifier'
import type { OutgoingReply } from './unsent-replies'
import { currentRoute, sessionHref } from './route'
import type { Message } from './types'

/** Milliseconds after which a message is too old for a notification. */
const LATE_AFTER = 30_000

export class Alerts {
  constructor(
    private readonly notices: Notices,
    private readonly notifier: Notifier,
    /** The server's time in milliseconds since 1970. */
    private readonly now: () => number,
  ) {}

  announceMessage(message: Message, replay: boolean, isOpen: boolean): void {
    if (message.sender !== 'player') return
    const name = message.player_name || `player ${message.player_id}`
    if (isOpen) this.notices.announce(`${name}: ${message.message}`)
    else if (!replay) this.notices.announce(`New message from ${name}`)
    if (replay || this.now() - Date.parse(message.timestamp) > LATE_AFTER) return
    this.notify(`New message from ${name}`, message.session_id)
  }

  announceHandOver(session: string, player: string): void {
    const line = `${player} was handed over to you`
    this.notices.announce(line)
    this.notices.show('news', `${line}.`, session)
    this.notify(line, session)
  }

  /** Announce a failed reply; show a toast unless its session is open on the page. */
  announceFailedReply(session: string, player: string, reply: OutgoingReply): void {
    const line = `Your reply was not sent to ${player || reply.playerName || 'a player'}`
    this.notices.announce(`${line}: ${reply.error}`)
    const current = currentRoute()
    if (current.view === 'desk' && current.session === session) return
    this.notices.show('unsent', `${line}. ${reply.error}`, session)
    this.notify(line, session)
  }

  /** Dismiss the toast about a failed reply if its session has no failed reply any more. */
  dismissFailedReply(hasFailed: (session: string) => boolean): void {
    const { toast } = this.notices
    if (toast?.kind === 'unsent' && !hasFailed(toast.session ?? '')) this.notices.dismiss()
  }

  private notify(line: string, session: string): void {
    this.notifier.notify(line, session, () => (location.hash = sessionHref(session)))
  }
}
