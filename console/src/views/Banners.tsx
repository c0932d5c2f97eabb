/** What must be known above everything else: why nothing goes on, that the sign-in ends, that the page may not notify. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { clock } from '../format'
import { keep, kept } from '../kept'

const ASKED = 'gre.asked'

export function Banners({ desk }: { desk: Desk }) {
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
      {desk.endsAt !== undefined && (
        <div class="banner banner-warn" role="status">
          Your sign-in ends at {clock(desk.endsAt)}. Drafts are kept; sign in again then.
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
