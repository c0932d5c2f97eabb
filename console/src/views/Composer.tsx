/** Below the messages: the reply box or, with its own colour, button and draft, the field for a private note. */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { TextKind } from '../outgoing'
import type { Session } from '../types'
import { NoteField } from './NoteField'
import { Reply } from './Reply'

/** The composer of the open conversation, for keyboard shortcuts. */
export interface ComposerHandle {
  /** Show the field of this kind and put the focus into it. */
  focus(kind: TextKind): void
}

interface Props {
  desk: Desk
  /** The session's id. */
  id: string
  session: Session | undefined
  name: string
  /** The player's open session, if this one is closed and there is one. */
  openSession: Session | undefined
  handle: RefObject<ComposerHandle | null>
  /** Open the next waiting session. */
  onNext: () => void
}

export function Composer({ desk, id, session, name, openSession, handle, onNext }: Props) {
  const [kind, setKind] = useState<TextKind>('reply')
  const field = useRef<HTMLTextAreaElement>(null)
  const focusDue = useRef(false)
  const show = (next: TextKind): void => {
    desk.typing.stop()
    if (next === kind) return field.current?.focus()
    focusDue.current = true
    setKind(next)
  }
  useEffect(() => {
    handle.current = { focus: show }
    return () => void (handle.current = null)
  })
  useLayoutEffect(() => {
    if (focusDue.current) field.current?.focus()
    focusDue.current = false
  }, [kind])
  const hasNoteDraft = kind === 'reply' && desk.drafts.get(id, 'note') !== ''
  return (
    <div class={`composer composer-${kind}`}>
      <div class="kinds" role="group" aria-label="Kind of text">
        <button type="button" data-testid="kind-reply" aria-pressed={kind === 'reply'} onClick={() => show('reply')}>Reply</button>
        <button type="button" data-testid="kind-note" class="kind-note" aria-pressed={kind === 'note'} onClick={() => show('note')}>
          Note{hasNoteDraft && <span class="visually-hidden"> (draft)</span>}{hasNoteDraft && <span class="dot" aria-hidden="true" />}
        </button>
      </div>
      {kind === 'reply' ? (
        <Reply desk={desk} id={id} session={session} name={name} openSession={openSession} field={field} onNext={onNext} />
      ) : (
        <NoteField desk={desk} id={id} name={name} field={field} />
      )}
    </div>
  )
}
