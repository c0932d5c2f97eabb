/** The reply box. What is not sent yet is kept for its session, in this tab. */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { keep, kept } from '../kept'
import { Icon } from './icons'

const LONGEST = 4000
const NEAR = 3600
const RESTS = 4000

interface Given {
  desk: Desk
  session: string
  name: string
  field: RefObject<HTMLTextAreaElement | null>
}

export function Reply({ desk, session, name, field }: Given) {
  const draft = `gre.draft.${session}`
  const [text, setText] = useState(kept(draft) ?? '')
  const resting = useRef<number>(undefined)

  const write = (value: string): void => {
    setText(value)
    keep(draft, value || null)
    clearTimeout(resting.current)
    if (value.trim()) {
      desk.typing.keystroke()
      resting.current = setTimeout(() => desk.typing.hush(), RESTS)
    } else desk.typing.hush()
  }
  const send = (): void => {
    if (!text.trim() || [...text].length > LONGEST) return
    desk.send(text)
    write('')
    field.current?.focus()
  }

  useEffect(() => () => clearTimeout(resting.current), [])
  useEffect(() => {
    // On a screen with a keyboard one opens a conversation to answer it; j and k must go on working, so it is not focused.
    const box = field.current
    if (box && text) box.setSelectionRange(text.length, text.length)
  }, [])
  useLayoutEffect(() => {
    const box = field.current
    if (!box) return
    box.style.height = 'auto'
    box.style.height = `${Math.min(box.scrollHeight + 2, 220)}px`
  }, [text])

  const length = [...text].length
  return (
    <form class="reply" onSubmit={(event) => { event.preventDefault(); send() }}>
      <textarea
        ref={field} id="reply" data-testid="reply" rows={1} dir="auto" value={text} placeholder="Write a reply …"
        aria-label={`Reply to ${name}`} aria-describedby="reply-hint" enterkeyhint="send"
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
          event.preventDefault()
          send()
        }}
      />
      <button class="primary" type="submit" data-testid="send" disabled={!text.trim() || length > LONGEST} aria-label="Send" title="Send (Enter)">
        <Icon name="send" />
      </button>
      <p id="reply-hint" class={length > LONGEST ? 'hint error' : 'hint'}>
        {length > NEAR ? `${length} of ${LONGEST} characters` : <span class="wide-only">Enter sends, Shift + Enter breaks the line</span>}
      </p>
    </form>
  )
}
