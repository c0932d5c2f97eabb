/** What must be known above everything else: why nothing goes on, that the sign-in ends, that the page may not notify. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { KeptForOther } from '../drafts'
import { clock } from '../format'
import { keep, kept } from '../kept'

const ASKED = 'gre.asked'

export function Banners({ desk, onAccept }: { desk: Desk; onAccept: () => void }) {
  const [asked, setAsked] = useState(kept(ASKED, true) !== null)
  const done = (): void => {
    keep(ASKED, 'yes', true)
    setAsked(true)
  }
  return (
    <section class="banners" aria-label="Notices">
      {desk.stopped !== '' && desk.link === 'stopped' && (
        <div class="banner banner-bad" role="alert">
          <span>{desk.stopped}</span>
          <button type="button" onClick={() => location.reload()}>Try again</button>
        </div>
      )}
      {desk.offer !== undefined && (
        <div class="banner banner-warn" role="alert" data-testid="other-sign-in">
          <span>A link wants to sign you in as <b dir="auto">{desk.offer || 'somebody else'}</b>. What you have not sent is kept for you.</span>
          <button type="button" onClick={() => desk.declineOffer()}>Stay signed in</button>
          <button type="button" onClick={onAccept}>Sign in as {desk.offer || 'that person'}</button>
        </div>
      )}
      {desk.others.length > 0 && (
        <div class="banner" role="status" data-testid="kept-for-others">
          <span>Kept in this tab until they sign in here again, and not sent: {desk.others.map(words).join('; ')}.</span>
          <button type="button" class="plain" onClick={() => desk.hideOthers()}>Dismiss</button>
        </div>
      )}
      {desk.endsAt !== undefined && (
        <div class="banner banner-warn" role="status">
          Your sign-in ends at {clock(desk.endsAt)}. Drafts and replies are kept; sign in again then.
        </div>
      )}
      {desk.bell.askable && !asked && (
        <div class="banner">
          <span>Be told of new messages while this page is hidden?</span>
          <button type="button" onClick={() => { done(); void desk.bell.allow() }}>Allow notifications</button>
          <button type="button" class="plain" onClick={done}>Not now</button>
        </div>
      )}
    </section>
  )
}

function words({ staffId, replies, drafts }: KeptForOther): string {
  const counted = (count: number, one: string, more: string): string => (count === 1 ? `1 ${one}` : `${count} ${more}`)
  const what = [replies > 0 && counted(replies, 'reply', 'replies'), drafts > 0 && counted(drafts, 'draft', 'drafts')]
  return `${what.filter(Boolean).join(' and ')} of ${staffId}`
}
