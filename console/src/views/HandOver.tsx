/** The dialog that hands a conversation over: to a colleague or back to the queue, with a private note. */

import { useRef, useState } from 'preact/hooks'
import { ApiError } from '../api'
import type { Desk } from '../desk'
import type { Session, StaffMember } from '../types'
import { useSaving } from './forms'
import { Modal } from './Modal'

/** The value of the option that returns the conversation to the queue; no staff id is empty. */
const QUEUE = ''
const PRESENCE_ORDER = { online: 0, away: 1, offline: 2 }

export function HandOver({ desk, session, onClose }: { desk: Desk; session: Session; onClose: () => void }) {
  const [to, setTo] = useState(() => colleagues(desk, session)[0]?.staffId ?? QUEUE)
  // The chosen person stays, also when the session is handed over to them: the answer may be lost.
  const others = colleagues(desk, session, to)
  const [note, setNote] = useState(desk.drafts.get(session.id, 'hand-over'))
  const saving = useSaving(desk)
  /** Who had the session when the user last saw it: when the dialog was opened, or when the server said so. */
  const owner = useRef(session.assigned_staff_id)
  const updateNote = (text: string): void => {
    setNote(text)
    desk.drafts.set(session.id, text, 'hand-over')
  }
  const submit = async (): Promise<void> => {
    const request = async (): Promise<void> => {
      try {
        await desk.actions.handOver(session.id, {
          toStaffId: to === QUEUE ? null : to,
          fromStaffId: owner.current,
          ...(desk.conversation && { afterSeq: desk.conversation.contiguousSeq }),
          ...(note.trim() && { note }),
        })
      } catch (error) {
        if (error instanceof ApiError && error.code === 'session_taken') owner.current = String(error.details.by)
        throw error
      }
    }
    if (!(await saving.run(request))) return
    desk.drafts.set(session.id, '', 'hand-over')
    onClose()
  }
  return (
    <Modal title="Hand over" testId="hand-over-dialog" submitLabel="Hand over" busy={saving.busy} error={saving.error} onSubmit={() => void submit()} onClose={onClose}>
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

/** The staff to whom the session can be handed over, and the chosen one: those who are here first. */
function colleagues(desk: Desk, session: Session, chosen?: string): StaffMember[] {
  return [...desk.staff.values()]
    .filter(({ staffId }) => staffId === chosen || (staffId !== desk.me?.staffId && staffId !== session.assigned_staff_id))
    .sort((a, b) => PRESENCE_ORDER[a.status] - PRESENCE_ORDER[b.status] || a.staffId.localeCompare(b.staffId))
}
