/** @jsxImportSource preact */
/** Where a message is written: its text, its files, and the button. Enter sends; on touch screens it begins a line. */

import { useEffect, useRef, useState } from 'preact/hooks'
import { usePanel } from '../context'
import { MAX_BYTES, MAX_FILES, type Rejection } from '../draft'
import { fill } from '../words'
import { Icon } from './Icon'
import { Tray } from './Tray'

/** Characters that the server takes. */
const MAX_TEXT = 4000

export function Composer() {
  const { chat, draft, words } = usePanel()
  const field = useRef<HTMLTextAreaElement>(null)
  const chooser = useRef<HTMLInputElement>(null)
  const [dragging, setDragging] = useState(false)
  const [rejected, setRejected] = useState<Rejection>()
  useEffect(() => {
    const element = field.current!
    if (element.value !== draft.text) element.value = draft.text
    grow(element)
  })
  const add = (files: readonly File[]): void => setRejected(files.length ? draft.add(files) : rejected)
  const send = async (): Promise<void> => {
    setRejected(undefined)
    if (await draft.send()) field.current?.focus()
  }
  const problem = rejected && (rejected.kind === 'many' ? fill(words.tooMany, { n: MAX_FILES }) : fill(words.tooLarge, { name: rejected.name, n: MAX_BYTES / 1024 / 1024 }))
  return (
    <form
      class="composer" part="composer" data-dragging={dragging}
      onSubmit={(event) => {
        event.preventDefault()
        void send()
      }}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes('Files')) return
        event.preventDefault()
        setDragging(true)
      }}
      onDragLeave={() => setDragging(false)}
      onDrop={(event) => {
        event.preventDefault()
        setDragging(false)
        add([...(event.dataTransfer?.files ?? [])])
      }}
    >
      <Tray />
      <p class="meta error" role="alert">{problem}</p>
      <p class="meta" role="status">{draft.waiting && draft.files.length > 0 ? words.waitForFiles : dragging ? words.drop : ''}</p>
      <div class="line">
        <button type="button" class="tool" part="attach" aria-label={words.attach} title={words.attach} onClick={() => chooser.current!.click()}><Icon name="clip" /></button>
        <input
          ref={chooser} type="file" multiple hidden
          onChange={(event) => {
            add([...(event.currentTarget.files ?? [])])
            event.currentTarget.value = '' // the same file may be chosen again
          }}
        />
        <textarea
          ref={field} part="input" rows={1} maxLength={MAX_TEXT} dir="auto" aria-label={words.message} placeholder={words.placeholder}
          onInput={(event) => {
            draft.write(event.currentTarget.value)
            grow(event.currentTarget)
            chat.setTyping(draft.text.trim() !== '')
          }}
          onBlur={() => chat.setTyping(false)}
          onKeyDown={(event) => {
            if (event.key !== 'Enter' || event.shiftKey || event.isComposing || matchMedia('(pointer: coarse)').matches) return
            event.preventDefault()
            void send()
          }}
          onPaste={(event) => {
            // A copied table has a picture of itself beside its text, which is meant.
            if (!event.clipboardData?.files.length || event.clipboardData.types.includes('text/plain')) return
            event.preventDefault()
            add([...event.clipboardData.files])
          }}
        />
        <button type="submit" class="send" part="send" aria-label={words.send} title={words.send} aria-disabled={draft.waiting}><Icon name="send" /></button>
      </div>
    </form>
  )
}

/** As high as its text, up to the limit of the style sheet. */
function grow(field: HTMLTextAreaElement): void {
  field.style.height = 'auto'
  if (field.scrollHeight) field.style.height = `${field.scrollHeight + 2}px`
}
