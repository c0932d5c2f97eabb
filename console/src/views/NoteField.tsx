/** The field for a private note. It has a draft of its own, and sends no typing indicator. */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'

/** Characters, as the database limits them. */
const MAX_LENGTH = 4000
const WARN_LENGTH = 3600

interface Props {
  desk: Desk
  /** The session's id. */
  id: string
  name: string
  field: RefObject<HTMLTextAreaElement | null>
}

export function NoteField({ desk, id, name, field }: Props) {
  const { drafts } = desk
  const [text, setText] = useState(drafts.get(id, 'note'))
  const length = [...text].length
  const updateText = (value: string): void => {
    setText(value)
    drafts.set(id, value, 'note')
  }
  const add = (): void => {
    if (!text.trim() || length > MAX_LENGTH) return
    desk.sendNote(text)
    updateText('')
    field.current?.focus()
  }
  useEffect(() => setText(drafts.get(id, 'note')), [drafts.owner, drafts.revision])
  useLayoutEffect(() => {
    const box = field.current
    if (!box) return
    box.style.height = 'auto'
    box.style.height = `${Math.min(box.scrollHeight + 2, 220)}px`
  }, [text])
  return (
    <form class="reply is-note" onSubmit={(event) => { event.preventDefault(); add() }}>
      <textarea
        ref={field} id="note" data-testid="note-field" class="note-field" rows={1} dir="auto" value={text} placeholder="Private note, for staff only …"
        aria-label={`Private note about ${name}`} aria-describedby="note-hint"
        onInput={(event) => updateText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
          event.preventDefault()
          add()
        }}
      />
      <button class="note-button" type="submit" data-testid="add-note" disabled={!text.trim() || length > MAX_LENGTH}>Add note</button>
      <p id="note-hint" class={length > MAX_LENGTH ? 'hint error' : 'hint'}>
        {length > WARN_LENGTH ? `${length} of ${MAX_LENGTH} characters` : <>The player never sees a note.<span class="wide-only"> Enter adds it, Shift + Enter breaks the line</span></>}
      </p>
    </form>
  )
}
