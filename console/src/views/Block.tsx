/** The dialog that blocks a player, with a reason and an end; and the banner that says why a player is blocked. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { brief, clock, dayKey } from '../format'
import type { Session } from '../types'
import { Modal } from './Modal'

const HOUR = 3_600_000
/** Choices for the end, in milliseconds from now; 0: none. */
const ENDS: [number, string][] = [
  [HOUR, 'For an hour'],
  [24 * HOUR, 'For a day'],
  [7 * 24 * HOUR, 'For a week'],
  [30 * 24 * HOUR, 'For 30 days'],
  [0, 'Until somebody ends it'],
]
/** Characters, as the database limits them. */
const MAX_REASON = 500

interface Props {
  desk: Desk
  session: Session
  name: string
  onClose: () => void
}

export function BlockDialog({ desk, session, name, onClose }: Props) {
  const [lasts, setLasts] = useState(24 * HOUR)
  const [reason, setReason] = useState(desk.drafts.get(session.id, 'block'))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  const updateReason = (text: string): void => {
    setReason(text)
    desk.drafts.set(session.id, text, 'block')
  }
  const submit = async (): Promise<void> => {
    setBusy(true)
    const until = lasts ? new Date(desk.api.now() + lasts).toISOString() : undefined
    const refusal = await desk.actions.block(session.player_id, until, reason.trim() || undefined)
    setBusy(false)
    setError(refusal)
    if (refusal) return
    desk.drafts.set(session.id, '', 'block')
    onClose()
  }
  return (
    <Modal title={`Block ${name}`} testId="block-dialog" submitLabel="Block" busy={busy} error={error} onSubmit={() => void submit()} onClose={onClose}>
      <p class="quiet">The player can read and cannot write. The player is not told the reason.</p>
      <label>End
        <select data-testid="block-end" value={lasts} onChange={(event) => setLasts(Number(event.currentTarget.value))}>
          {ENDS.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
        </select>
      </label>
      <label>Reason, for staff only
        <textarea data-testid="block-reason" class="note-field" rows={3} maxLength={MAX_REASON} dir="auto" value={reason} onInput={(event) => updateReason(event.currentTarget.value)} />
      </label>
    </Modal>
  )
}

/** Says who blocked the player, until when and why. */
export function BlockBanner({ desk, session }: { desk: Desk; session: Session }) {
  const block = desk.actions.blockOf(session.player_id)
  if (!block) return null
  const now = desk.api.now()
  const until = block.until === null ? '' : ` until ${dayKey(block.until) === dayKey(now) ? clock(block.until) : brief(block.until, now)}`
  return (
    <div class="banner banner-bad" role="status" data-testid="blocked">
      <span dir="auto">The player is blocked{until}{block.by !== null && ` by ${desk.staffName(block.by)}`}{block.reason && `: ${block.reason}`}</span>
    </div>
  )
}
