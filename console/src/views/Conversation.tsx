/** The open conversation: heading, actions, messages and reply. */

import type { RefObject } from 'preact'
import { useState } from 'preact/hooks'
import { picturesOf } from '../attachments'
import type { Desk } from '../desk'
import { sessionHref } from '../route'
import { typistIn } from '../typing'
import { ActionBar } from './ActionBar'
import { BlockBanner } from './Block'
import { Composer, type ComposerHandle } from './Composer'
import { Icon } from './icons'
import { Messages } from './Messages'
import { Viewer } from './Viewer'

interface Props {
  desk: Desk
  composer: RefObject<ComposerHandle | null>
  onNext: () => void
}

export function ConversationView({ desk, composer, onNext }: Props) {
  const { conversation, session } = desk
  /** The picture in the viewer, and whose it is. */
  const [shown, setShown] = useState<{ session: string; picture: string }>()
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
  const typist = typistIn(desk, conversation.id)
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
            <ViewerNames desk={desk} />
          </p>
        </div>
        {session && <ActionBar key={session.id} desk={desk} session={session} name={name} />}
      </div>
      {session && <BlockBanner desk={desk} session={session} />}
      {openSession && (
        <div class="banner">
          <span>This conversation is closed; the player has written again.</span>
          <a class="button" href={sessionHref(openSession.id)} data-testid="newer-session">Open the new one</a>
        </div>
      )}
      {conversation.notes.failed && (
        <div class="banner banner-warn" role="alert" data-testid="notes-failed">
          <span>The private notes could not be loaded.</span>
          <button type="button" onClick={() => void conversation.notes.load()}>Try again</button>
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
      <Messages key={conversation.id} desk={desk} conversation={conversation} name={name} onEdit={(kind) => composer.current?.focus(kind)} onOpen={(picture) => setShown({ session: conversation.id, picture })} />
      <p class="typing" data-testid="typing" dir="auto">
        {typist && <><TypingDots />{typist.name || name} is typing …</>}
      </p>
      {(!conversation.notFound || desk.drafts.get(conversation.id) !== '' || desk.files.drafts.of(conversation.id).length > 0) && (
        <Composer key={conversation.id} desk={desk} id={conversation.id} session={session} name={name} openSession={openSession} handle={composer} onNext={onNext} />
      )}
      {shown?.session === conversation.id && (
        <Viewer
          pictures={picturesOf(conversation.messages)} id={shown.picture} links={desk.files.links}
          onMove={(picture) => setShown({ session: conversation.id, picture })} onClose={() => setShown(undefined)}
        />
      )}
    </section>
  )
}

function assignment(desk: Desk, id: string | null): string {
  if (id === null) return 'unassigned'
  return id === desk.me?.staffId ? 'assigned to you' : `assigned to ${desk.staffName(id)}`
}

/** The colleagues who look at the open conversation, too. */
function ViewerNames({ desk }: { desk: Desk }) {
  const viewers = desk.connection === 'live' ? desk.viewers.others(desk.me?.staffId) : []
  if (!viewers.length) return null
  const names = viewers.map((viewer) => `${desk.staffName(viewer.staffId)}${viewer.typing ? ' (typing)' : ''}`)
  return <span class="viewers" data-testid="viewers" data-count={viewers.length}> · also here: {names.join(', ')}</span>
}

function TypingDots() {
  return <span class="dots" aria-hidden="true"><i /><i /><i /></span>
}
