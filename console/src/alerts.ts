/** Alerts for the user: a player's new message, a session that was handed over, a reply or note that failed. */

import type { Notices } from './notices'
import type { Notifier } from './notifier'
import { kindOf, type OutgoingText } from './outgoing'
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

  /** Announce a failed reply or note; show a toast unless its session is open on the page. */
  announceFailed(text: OutgoingText, player: string, error: string): void {
    const { sessionId: session, data } = text
    const name = player || data.playerName || 'a player'
    const line = kindOf(text) === 'reply' ? `Your reply was not sent to ${name}` : `Your note about ${name} was not stored`
    this.notices.announce(`${line}: ${error}`)
    const current = currentRoute()
    if (current.view === 'desk' && current.session === session) return
    this.notices.show('unsent', `${line}. ${error}`, session)
    this.notify(line, session)
  }

  /** Dismiss the toast about a failed reply or note if its session has none any more. */
  dismissFailed(hasFailed: (session: string) => boolean): void {
    const { toast } = this.notices
    if (toast?.kind === 'unsent' && !hasFailed(toast.session ?? '')) this.notices.dismiss()
  }

  private notify(line: string, session: string): void {
    this.notifier.notify(line, session, () => (location.hash = sessionHref(session)))
  }
}
