/** What staff do with a session: take it, hand it over, let go of it, close it; and the player's chat. */

import type { Desk } from '../desk'
import type { Session } from '../types'

export function ActionBar({ desk, session }: { desk: Desk; session: Session }) {
  const mine = session.assigned_staff_id === desk.me?.staffId
  const enabled = desk.actions.players.get(session.player_id)
  const others = [...desk.staff.values()].filter((one) => one.staffId !== desk.me?.staffId && one.staffId !== session.assigned_staff_id)
  const order = { online: 0, away: 1, offline: 2 }
  others.sort((a, b) => order[a.status] - order[b.status] || a.staffId.localeCompare(b.staffId))
  return (
    <div class="actions" role="group" aria-label="This conversation">
      {session.status === 'active' && (
        <>
          {mine ? (
            <button type="button" data-testid="release" onClick={() => void desk.actions.change(session.id, 'active')}>Release</button>
          ) : (
            <button type="button" data-testid="assign-me" onClick={() => void desk.actions.change(session.id, 'assigned')}>Assign to me</button>
          )}
          <label class="pick">
            <span class="unseen">Hand over to</span>
            <select
              data-testid="hand-over" value="" disabled={!others.length}
              onChange={(event) => {
                const { value } = event.currentTarget
                event.currentTarget.value = ''
                if (value) void desk.actions.change(session.id, 'assigned', value)
              }}
            >
              <option value="">Hand over</option>
              {others.map((one) => (
                <option key={one.staffId} value={one.staffId}>{one.displayName || one.staffId} ({one.status})</option>
              ))}
            </select>
          </label>
          <button type="button" data-testid="close-session" onClick={() => void desk.actions.change(session.id, 'closed')}>Close</button>
        </>
      )}
      {/* (Its place is there before it is known, so that no other button moves under the pointer.) */}
      <button
        type="button" class={`switch ${enabled === false ? 'is-off' : ''}`} data-testid="player-chat" aria-pressed={enabled ?? 'mixed'} disabled={enabled === undefined}
        title={enabled === false ? 'The player cannot write. Press to let the player write.' : 'The player may write. Press to stop the player from writing.'}
        onClick={() => void desk.actions.enable(session.player_id, !enabled)}
      >
        Player may write
      </button>
    </div>
  )
}
