/** One session in the list. It is a link, so that the browser's keys and menus work on it. */

import type { Desk } from '../desk'
import { brief, full, initials } from '../format'
import { sessionHref } from '../route'
import type { QueuedSession } from '../types'
import { typistIn } from '../typing'
import { WaitingTime } from './WaitingTime'

interface Props {
  desk: Desk
  session: QueuedSession
  position: number
  total: number
  isOpen: boolean
}

export function SessionRow({ desk, session, position, total, isOpen }: Props) {
  const now = desk.api.now()
  const unread = session.unread_by_staff
  const name = session.player_name || `Player ${session.player_id}`
  const at = session.last_message_at ?? session.created_at
  const typist = typistIn(desk, session.id)
  const owner = session.assigned_staff_id
  return (
    <li aria-posinset={position} aria-setsize={total}>
      <a
        class="session" href={sessionHref(session.id)} aria-current={isOpen ? 'true' : undefined} data-testid="session-row"
        data-session-id={session.id} data-player-id={session.player_id} data-status={session.status}
        data-unread={unread} data-waiting={session.waiting_since !== null}
      >
        <span class="face" aria-hidden="true">{initials(name)}</span>
        <span class="who">
          <span class="name" dir="auto" data-testid="name">{name}</span>
          <span class="number">#{session.player_id}</span>
        </span>
        {session.waiting_since ? (
          <WaitingTime desk={desk} session={session} since={session.waiting_since} />
        ) : (
          <time class="when" dateTime={at} title={full(at)}>{brief(at, now)}</time>
        )}
        <span class={`preview ${typist ? 'is-typing' : ''}`} dir="auto" data-testid="preview">
          {typist ? `${typist.name} is typing …`.trimStart() : session.last_message || 'No message yet'}
        </span>
        <span class="tags">
          {owner && <span class={`owner ${owner === desk.me?.staffId ? 'owner-me' : ''}`} data-testid="assignee" dir="auto">{owner === desk.me?.staffId ? 'you' : desk.staffName(owner)}</span>}
          {desk.outgoing.hasFailed(session.id) && <span class="unsent" data-testid="unsent">not sent</span>}
          {unread > 0 && <span class="unread" data-testid="unread">{unread > 99 ? '99+' : unread}<span class="visually-hidden"> unread</span></span>}
        </span>
      </a>
    </li>
  )
}
