/** The dialog at the sign-out while drafts or replies are not sent: keep, wait or discard. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'

interface Props {
  desk: Desk
  onStay: () => void
  onSignOut: () => void
}

export function SignOutDialog({ desk, onStay, onSignOut }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [waiting, setWaiting] = useState(false)
  const { outgoing, drafts, files } = desk
  const unsent = outgoing.count
  const replies = outgoing.countOf('reply')
  const notes = outgoing.countOf('note')
  useEffect(() => dialog.current?.showModal(), [])
  useEffect(() => {
    if (waiting && unsent === 0) onSignOut()
  }, [waiting, unsent])
  const discard = (): void => {
    outgoing.discard()
    drafts.discard()
    onSignOut()
  }
  return (
    <dialog ref={dialog} onClose={onStay} aria-labelledby="leaving-title" data-testid="leaving">
      <h2 id="leaving-title">Sign out?</h2>
      <p>
        {replies > 0 && <>{replies === 1 ? 'One reply is' : `${replies} replies are`} not sent yet. </>}
        {notes > 0 && <>{notes === 1 ? 'One note is' : `${notes} notes are`} not stored yet. </>}
        {drafts.count > 0 && <>{drafts.count} {drafts.count === 1 ? 'draft is' : 'drafts are'} not finished.</>}
      </p>
      <p class="quiet">
        What you keep stays in this tab, is shown to nobody else, and goes on when you sign in here again.
        {files.uploads.isUploading && ' Files that are not uploaded yet are not kept: you will have to choose them again.'}
      </p>
      {waiting && <p role="status">You are signed out as soon as it is stored.</p>}
      <div class="row choices">
        <button type="button" class="primary" onClick={() => dialog.current?.close()}>Stay</button>
        {outgoing.canStillSend && !waiting && <button type="button" onClick={() => setWaiting(true)}>Wait, then sign out</button>}
        <button type="button" onClick={onSignOut}>Keep and sign out</button>
        <button type="button" onClick={discard}>Discard and sign out</button>
      </div>
    </dialog>
  )
}
