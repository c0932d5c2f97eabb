/** The open conversation: who it is with, what can be done with it, its messages and the reply. */

import type { RefObject } from 'preact'
import type { Desk } from '../desk'
import { sessionHref } from '../route'
import { ActionBar } from './ActionBar'
import { Icon } from './icons'
import { Messages } from './Messages'
import { Reply } from './Reply'

interface Given {
  desk: Desk
  replyRef: RefObject<HTMLTextAreaElement | null>
  onNext: () => void
}

export function ConversationView({ desk, replyRef, onNext }: Given) {
  const { open, session } = desk
  if (!open) {
    return (
      <div class="conversation nothing-open">
        <div class="empty">
          <p class="big">Choose a conversation</p>
          {desk.queue.filter !== 'closed' && desk.queue.waiting > 0 && (
            <p class="quiet wide-only">or press <kbd>j</kbd> for the one that has waited longest</p>
          )}
        </div>
      </div>
    )
  }
  const name = session ? session.player_name || `Player ${session.player_id}` : open.missing ? 'Unknown conversation' : '…'
  const newer = session?.status === 'closed' ? desk.queue.openOf(session.player_id) : undefined
  const typing = desk.typing.in(open.id)
  return (
    <section
      class="conversation" aria-labelledby="with" data-testid="conversation" data-session-id={open.id}
      data-player-id={session?.player_id} data-status={session?.status}
    >
      <div class="heading">
        <a class="back tool" href="#" aria-label="Back to the list"><Icon name="back" /></a>
        <div class="title">
          <h2 id="with" dir="auto">{name}</h2>
          <p class="quiet">
            {session && <>#{session.player_id} · {session.status === 'closed' ? 'closed' : owner(desk, session.assigned_staff_id)}</>}
          </p>
        </div>
        {session && <ActionBar desk={desk} session={session} />}
      </div>
      {newer && (
        <div class="banner">
          <span>This conversation is closed; the player has written again.</span>
          <a class="button" href={sessionHref(newer.id)} data-testid="newer-session">Open the new one</a>
        </div>
      )}
      {open.error !== '' && (
        <div class="banner banner-warn" role="alert">
          <span>{open.error}</span>
          {open.missing ? <a class="button" href="#">Back to the list</a> : (
            <button type="button" onClick={() => void desk.refresh().then(() => open.older())}>Try again</button>
          )}
        </div>
      )}
      <Messages key={open.id} desk={desk} open={open} name={name} />
      <p class="typing" data-testid="typing" dir="auto">
        {typing && <><Dots />{typing === 'player' ? `${name} is typing …` : `${desk.typing.who(open.id)} is typing …`}</>}
      </p>
      {(!open.missing || desk.drafts.of(open.id) !== '') && (
        <Reply key={open.id} desk={desk} id={open.id} session={session} name={name} newer={newer} field={replyRef} onNext={onNext} />
      )}
    </section>
  )
}

function owner(desk: Desk, id: string | null): string {
  if (id === null) return 'unassigned'
  return id === desk.me?.staffId ? 'assigned to you' : `assigned to ${desk.nameOf(id)}`
}

function Dots() {
  return <span class="dots" aria-hidden="true"><i /><i /><i /></span>
}
