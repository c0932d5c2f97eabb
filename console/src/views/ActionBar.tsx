/** The actions on a session (take, release, hand over, close) and on its player's chat. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { Session } from '../types'
import { BlockDialog } from './Block'
import { HandOver } from './HandOver'

interface Props {
  desk: Desk
  session: Session
  /** The player's name. */
  name: string
}

export function ActionBar({ desk, session, name }: Props) {
  const [blocking, setBlocking] = useState(false)
  const [handingOver, setHandingOver] = useState(false)
  const mine = session.assigned_staff_id === desk.me?.staffId
  const enabled = desk.actions.mayWrite(session.player_id)
  return (
    <div class="actions" role="group" aria-label="This conversation">
      {session.status === 'active' && (
        <>
          {mine ? (
            <button type="button" data-testid="release" onClick={() => void desk.actions.release(session.id)}>Release</button>
          ) : (
            <button type="button" data-testid="assign-me" onClick={() => void desk.actions.take(session)}>{session.assigned_staff_id === null ? 'Take' : 'Take over'}</button>
          )}
          <button type="button" data-testid="hand-over" onClick={() => setHandingOver(true)}>Hand over</button>
          <button type="button" data-testid="close-session" onClick={() => void desk.actions.setStatus(session.id, 'closed')}>Close</button>
        </>
      )}
      {/* Rendered before the value is loaded, so that no other button moves under the pointer. */}
      <button
        type="button" class={`switch ${enabled === false ? 'is-off' : ''}`} data-testid="player-chat" aria-pressed={enabled ?? 'mixed'} disabled={enabled === undefined}
        title={enabled === false ? 'The player is blocked. Press to let the player write.' : 'The player may write. Press to block the player.'}
        onClick={() => (enabled ? setBlocking(true) : void desk.actions.unblock(session.player_id))}
      >
        Player may write
      </button>
      {blocking && <BlockDialog desk={desk} session={session} name={name} onClose={() => setBlocking(false)} />}
      {handingOver && <HandOver desk={desk} session={session} onClose={() => setHandingOver(false)} />}
    </div>
  )
}
