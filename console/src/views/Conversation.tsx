/** The open conversation: heading, actions, messages and reply. */

import type { RefObject } from 'preact'
import type { Desk } from '../desk'
import { sessionHref } from '../route'
import { ActionBar } from './ActionBar'
import { Icon } from './icons'
import { Messages } from './Messages'
import { Reply } from './Reply'

interface Props {
  desk: Desk
  replyRef: RefObject<HTMLTextAreaElement | null>
  onNext: () => void
}

export function ConversationView({ desk, replyRef, onNext }: Props) {
  const { conversation, session } = desk
  if (!conversation) {
    return (
      <div class="conversation nothing-open">
        <div class="empty">
          <p class="big">Choose a conversation</p>
          {desk.queue.filter !== 'closed' && desk.queue.waitingCount > 0 && (
            <p class="quiet wide-only">or press <kbd>j</kbd> for the one that has waited longest</p>
          )}
        </div>
      </div>
    )
  }
  const name = session ? session.player_name || `Player ${session.player_id}` : conversation.notFound ? 'Unknown conversation' : '…'
  const openSession = session?.status === 'closed' ? desk.queue.openSessionOf(session.player_id) : undefined
  const typing = desk.typing.typistIn(conversation.id)
  return (
    <section
      class="conversation" aria-labelledby="with" data-testid="conversation" data-session-id={conversation.id}
      data-player-id={session?.player_id} data-status={session?.status}
    >
      <div class="heading">
        <a class="back tool" href="#" aria-label="Back to the list"><Icon name="back" /></a>
        <div class="title">
          <h2 id="with" dir="auto">{name}</h2>
          <p class="quiet">
            {session && <>#{session.player_id} · {session.status === 'closed' ? 'closed' : assignment(desk, session.assigned_staff_id)}</>}
          </p>
        </div>
        {session && <ActionBar desk={desk} session={session} />}
      </div>
      {openSession && (
        <div class="banner">
          <span>This conversation is closed; the player has written again.</span>
          <a class="button" href={sessionHref(openSession.id)} data-testid="newer-session">Open the new one</a>
        </div>
      )}
      {conversation.error !== '' && (
        <div class="banner banner-warn" role="alert">
          <span>{conversation.error}</span>
          {conversation.notFound ? <a class="button" href="#">Back to the list</a> : (
            <button type="button" onClick={() => void desk.refresh().then(() => conversation.loadOlder())}>Try again</button>
          )}
        </div>
      )}
      <Messages key={conversation.id} desk={desk} conversation={conversation} name={name} />
      <p class="typing" data-testid="typing" dir="auto">
        {typing && <><TypingDots />{typing === 'player' ? `${name} is typing …` : `${desk.typing.colleagueIn(conversation.id)} is typing …`}</>}
      </p>
      {(!conversation.notFound || desk.drafts.get(conversation.id) !== '') && (
        <Reply key={conversation.id} desk={desk} id={conversation.id} session={session} name={name} openSession={openSession} field={replyRef} onNext={onNext} />
      )}
    </section>
  )
}

function assignment(desk: Desk, id: string | null): string {
  if (id === null) return 'unassigned'
  return id === desk.me?.staffId ? 'assigned to you' : `assigned to ${desk.staffName(id)}`
}

function TypingDots() {
  return <span class="dots" aria-hidden="true"><i /><i /><i /></span>
}
