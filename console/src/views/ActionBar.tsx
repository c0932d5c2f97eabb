/** The actions on a session (assign, release, hand over, close) and on its player's chat. */

import type { Desk } from '../desk'
import type { Session } from '../types'

export function ActionBar({ desk, session }: { desk: Desk; session: Session }) {
  const mine = session.assigned_staff_id === desk.me?.staffId
  const enabled = desk.actions.chatEnabled.get(session.player_id)
  const others = [...desk.staff.values()].filter((member) => member.staffId !== desk.me?.staffId && member.staffId !== session.assigned_staff_id)
  const order = { online: 0, away: 1, offline: 2 }
  others.sort((a, b) => order[a.status] - order[b.status] || a.staffId.localeCompare(b.staffId))
  return (
    <div class="actions" role="group" aria-label="This conversation">
      {session.status === 'active' && (
        <>
          {mine ? (
            <button type="button" data-testid="release" onClick={() => void desk.actions.setStatus(session.id, 'active')}>Release</button>
          ) : (
            <button type="button" data-testid="assign-me" onClick={() => void desk.actions.setStatus(session.id, 'assigned')}>Assign to me</button>
          )}
          <label class="pick">
            <span class="visually-hidden">Hand over to</span>
            <select
              data-testid="hand-over" value="" disabled={!others.length}
              onChange={(event) => {
                const { value } = event.currentTarget
                event.currentTarget.value = ''
                if (value) void desk.actions.setStatus(session.id, 'assigned', value)
              }}
            >
              <option value="">Hand over</option>
              {others.map((member) => (
                <option key={member.staffId} value={member.staffId}>{member.displayName || member.staffId} ({member.status})</option>
              ))}
            </select>
          </label>
          <button type="button" data-testid="close-session" onClick={() => void desk.actions.setStatus(session.id, 'closed')}>Close</button>
        </>
      )}
      {/* Rendered before the value is loaded, so that no other button moves under the pointer. */}
      <button
        type="button" class={`switch ${enabled === false ? 'is-off' : ''}`} data-testid="player-chat" aria-pressed={enabled ?? 'mixed'} disabled={enabled === undefined}
        title={enabled === false ? 'The player cannot write. Press to let the player write.' : 'The player may write. Press to stop the player from writing.'}
        onClick={() => void desk.actions.setChatEnabled(session.player_id, !enabled)}
      >
        Player may write
      </button>
    </div>
  )
}
