/** Banners: connection stopped, sign-in offered by a link, stored replies of others, sign-in expiring, notifications. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { StoredForOther } from '../drafts'
import { clock } from '../format'
import { getItem, setItem } from '../storage'

const PERMISSION_ANSWERED_KEY = 'gre.asked'

export function Banners({ desk, onAccept }: { desk: Desk; onAccept: () => void }) {
  const [answered, setAnswered] = useState(getItem(PERMISSION_ANSWERED_KEY, true) !== null)
  const dismissPermission = (): void => {
    setItem(PERMISSION_ANSWERED_KEY, 'yes', true)
    setAnswered(true)
  }
  return (
    <section class="banners" aria-label="Notices">
      {desk.stopReason !== '' && desk.connection === 'stopped' && (
        <div class="banner banner-bad" role="alert">
          <span>{desk.stopReason}</span>
          <button type="button" onClick={() => location.reload()}>Try again</button>
        </div>
      )}
      {desk.offeredName !== undefined && (
        <div class="banner banner-warn" role="alert" data-testid="other-sign-in">
          <span>A link wants to sign you in as <b dir="auto">{desk.offeredName || 'somebody else'}</b>. What you have not sent is kept for you.</span>
          <button type="button" onClick={() => desk.declineOffer()}>Stay signed in</button>
          <button type="button" onClick={onAccept}>Sign in as {desk.offeredName || 'that person'}</button>
        </div>
      )}
      {desk.storedForOthers.length > 0 && (
        <div class="banner" role="status" data-testid="kept-for-others">
          <span>Kept in this tab until they sign in here again, and not sent: {desk.storedForOthers.map(summary).join('; ')}.</span>
          <button type="button" class="plain" onClick={() => desk.dismissStoredForOthers()}>Dismiss</button>
        </div>
      )}
      {desk.tokenExpiresAt !== undefined && (
        <div class="banner banner-warn" role="status">
          Your sign-in ends at {clock(desk.tokenExpiresAt)}. Drafts and replies are kept; sign in again then.
        </div>
      )}
      {desk.notifier.canRequestPermission && !answered && (
        <div class="banner">
          <span>Be told of new messages while this page is hidden?</span>
          <button type="button" onClick={() => { dismissPermission(); void desk.notifier.requestPermission() }}>Allow notifications</button>
          <button type="button" class="plain" onClick={dismissPermission}>Not now</button>
        </div>
      )}
    </section>
  )
}

function summary({ staffId, replies, notes, drafts }: StoredForOther): string {
  const counted = (count: number, singular: string, plural: string): string => (count === 1 ? `1 ${singular}` : `${count} ${plural}`)
  const parts = [replies > 0 && counted(replies, 'reply', 'replies'), notes > 0 && counted(notes, 'note', 'notes'), drafts > 0 && counted(drafts, 'draft', 'drafts')]
  return `${parts.filter(Boolean).join(' and ')} of ${staffId}`
}
