/** The open conversation: who it is with, what can be done with it, its messages and the reply. */

import type { RefObject } from 'preact'
import type { Desk } from '../desk'
import { sessionHref } from '../route'
import { Actions } from './Actions'
import { Icon } from './icons'
import { Messages } from './Messages'
import { Reply } from './Reply'

export function ConversationView({ desk, replyRef }: { desk: Desk; replyRef: RefObject<HTMLTextAreaElement | null> }) {
  const { open, session } = desk
  if (!open) {
    return (
      <div class="conversation nothing-open">
        <div class="empty">
          <p class="big">Choose a conversation</p>
          <p class="quiet">or press <kbd>j</kbd> for the one that has waited longest</p>
        </div>
      </div>
    )
  }
  const name = session ? session.player_name || `Player ${session.player_id}` : '…'
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
        {session && <Actions desk={desk} session={session} />}
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
          <button type="button" onClick={() => void open.refresh().then(() => open.older())}>Try again</button>
        </div>
      )}
      <Messages key={open.id} desk={desk} open={open} name={name} />
      <p class="typing" data-testid="typing" dir="auto">
        {typing && <><Dots />{typing === 'player' ? `${name} is typing …` : 'A colleague is typing …'}</>}
      </p>
      {session?.status === 'closed' ? (
        <div class="reply closed">
          <span class="quiet">This conversation is closed.</span>
          <button type="button" data-testid="reopen" onClick={() => void desk.change('active')}>Reopen</button>
        </div>
      ) : (
        <Reply key={open.id} desk={desk} session={open.id} name={name} field={replyRef} />
      )}
    </section>
  )
}

function owner(desk: Desk, id: string | null): string {
  if (id === null) return 'nobody has it'
  return id === desk.me?.staffId ? 'you have it' : `${desk.nameOf(id)} has it`
}

function Dots() {
  return <span class="dots" aria-hidden="true"><i /><i /><i /></span>
}
