/** One session in the list: a link, so that the browser's own keys and menus work on it. */

import type { Desk } from '../desk'
import { brief, full, initials, span } from '../format'
import { sessionHref } from '../route'
import type { Queued } from '../types'

/** Milliseconds after which waiting looks like waiting, and like too long. */
const LONG = 2 * 60_000
const TOO_LONG = 10 * 60_000

interface Given {
  desk: Desk
  session: Queued
  place: number
  total: number
  open: boolean
}

export function SessionRow({ desk, session, place, total, open }: Given) {
  const now = desk.api.now()
  const unread = session.unread_by_staff
  const waits = session.waiting_since ? now - Date.parse(session.waiting_since) : 0
  const name = session.player_name || `Player ${session.player_id}`
  const at = session.last_message_at ?? session.created_at
  const typing = desk.typing.in(session.id)
  const owner = session.assigned_staff_id
  return (
    <li aria-posinset={place} aria-setsize={total}>
      <a
        class="session" href={sessionHref(session.id)} aria-current={open ? 'true' : undefined} data-testid="session-row"
        data-session-id={session.id} data-player-id={session.player_id} data-status={session.status}
        data-unread={unread} data-waiting={session.waiting_since !== null}
      >
        <span class="face" aria-hidden="true">{initials(name)}</span>
        <span class="who">
          <span class="name" dir="auto" data-testid="name">{name}</span>
          <span class="number">#{session.player_id}</span>
        </span>
        {session.waiting_since ? (
          <span class={`waits ${waits > TOO_LONG ? 'waits-bad' : waits > LONG ? 'waits-warn' : ''}`} data-testid="waiting" title={`Waits since ${full(session.waiting_since)}`}>
            <span class="unseen">waits for </span>{span(waits)}
          </span>
        ) : (
          <time class="when" dateTime={at} title={full(at)}>{brief(at, now)}</time>
        )}
        <span class={`preview ${typing ? 'is-typing' : ''}`} dir="auto" data-testid="preview">
          {typing ? (typing === 'player' ? 'is typing …' : `${desk.typing.who(session.id)} is typing …`) : session.last_message || 'No message yet'}
        </span>
        <span class="tags">
          {owner && <span class={`owner ${owner === desk.me?.staffId ? 'owner-me' : ''}`} data-testid="assignee" dir="auto">{owner === desk.me?.staffId ? 'you' : desk.nameOf(owner)}</span>}
          {desk.outbox.hasFailed(session.id) && <span class="unsent" data-testid="unsent">not sent</span>}
          {unread > 0 && <span class="unread" data-testid="unread">{unread > 99 ? '99+' : unread}<span class="unseen"> unread</span></span>}
        </span>
      </a>
    </li>
  )
}
