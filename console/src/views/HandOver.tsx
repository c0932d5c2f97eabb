/** The dialog that hands a conversation over: to a colleague or back to the queue, with a private note. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { Session, StaffMember } from '../types'
import { Modal } from './Modal'

/** The value of the option that returns the conversation to the queue; no staff id is empty. */
const QUEUE = ''
const PRESENCE_ORDER = { online: 0, away: 1, offline: 2 }

export function HandOver({ desk, session, onClose }: { desk: Desk; session: Session; onClose: () => void }) {
  const others = colleagues(desk, session)
  const [to, setTo] = useState(others[0]?.staffId ?? QUEUE)
  const [note, setNote] = useState(desk.drafts.get(session.id, 'hand-over'))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  const updateNote = (text: string): void => {
    setNote(text)
    desk.drafts.set(session.id, text, 'hand-over')
  }
  const submit = async (): Promise<void> => {
    setBusy(true)
    const refusal = await desk.actions.handOver(session.id, to === QUEUE ? null : to, note, desk.conversation?.contiguousSeq)
    setBusy(false)
    setError(refusal)
    if (refusal) return
    desk.drafts.set(session.id, '', 'hand-over')
    onClose()
  }
  return (
    <Modal title="Hand over" testId="hand-over-dialog" submitLabel="Hand over" busy={busy} error={error} onSubmit={() => void submit()} onClose={onClose}>
      <label>To
        <select data-testid="hand-over-to" value={to} onChange={(event) => setTo(event.currentTarget.value)}>
          {others.map((member) => (
            <option key={member.staffId} value={member.staffId}>{member.displayName || member.staffId} ({member.status})</option>
          ))}
          <option value={QUEUE}>Back to the queue</option>
        </select>
      </label>
      <label>Private note, for staff only
        <textarea
          data-testid="hand-over-note" class="note-field" rows={4} maxLength={4000} dir="auto" value={note}
          onInput={(event) => updateNote(event.currentTarget.value)}
        />
      </label>
    </Modal>
  )
}

/** The staff to whom the session can be handed over: those who are here first. */
function colleagues(desk: Desk, session: Session): StaffMember[] {
  return [...desk.staff.values()]
    .filter((member) => member.staffId !== desk.me?.staffId && member.staffId !== session.assigned_staff_id)
    .sort((a, b) => PRESENCE_ORDER[a.status] - PRESENCE_ORDER[b.status] || a.staffId.localeCompare(b.staffId))
}
