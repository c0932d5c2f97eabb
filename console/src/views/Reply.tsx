/**
 * The reply box. What is not sent yet is kept for its session and its writer, in this tab.
 *
 * A box that has text or the focus stays where it is, whatever happens to the conversation: it can only not be sent.
 */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { go, sessionHref } from '../route'
import type { Session } from '../types'
import { Icon } from './icons'

const LONGEST = 4000
const NEAR = 3600
const RESTS = 4000

interface Given {
  desk: Desk
  /** The session's id. */
  id: string
  session: Session | undefined
  name: string
  /** The player's open session, if this one is closed and there is one. */
  newer: Session | undefined
  field: RefObject<HTMLTextAreaElement | null>
  /** To the next that waits. */
  onNext: () => void
}

export function Reply({ desk, id, session, name, newer, field, onNext }: Given) {
  const { drafts } = desk
  const [text, setText] = useState(drafts.of(id))
  const resting = useRef<number>(undefined)
  const owner = useRef('')
  const closed = session?.status === 'closed'

  const write = (value: string): void => {
    setText(value)
    drafts.write(id, value)
    clearTimeout(resting.current)
    if (value.trim()) {
      desk.typing.keystroke()
      resting.current = setTimeout(() => desk.typing.hush(), RESTS)
    } else desk.typing.hush()
  }
  const send = (): boolean => {
    if (closed || !text.trim() || [...text].length > LONGEST) return false
    desk.send(text)
    write('')
    field.current?.focus()
    return true
  }

  useEffect(() => () => clearTimeout(resting.current), [])
  useEffect(() => {
    // Whose drafts these are may be known a moment later than the conversation; another one's are not shown.
    if (!text || owner.current) setText(drafts.of(id))
    else drafts.write(id, text)
    owner.current = drafts.owner
  }, [drafts.owner])
  useEffect(() => {
    // On a screen with a keyboard one opens a conversation to answer it; j and k must go on working, so it is not focused.
    const box = field.current
    if (box && text) box.setSelectionRange(text.length, text.length)
  }, [])
  const held = closed && (text !== '' || (field.current !== null && document.activeElement === field.current))
  useLayoutEffect(() => {
    const box = field.current
    if (!box) return
    box.style.height = 'auto'
    box.style.height = `${Math.min(box.scrollHeight + 2, 220)}px`
  }, [text, held])

  if (closed && !held) {
    return (
      <div class="reply closed">
        <span class="quiet">This conversation is closed.</span>
        <button type="button" data-testid="reopen" onClick={() => void desk.actions.change(session.id, 'active')}>Reopen</button>
      </div>
    )
  }
  const length = [...text].length
  return (
    <form class={closed ? 'reply is-held' : 'reply'} onSubmit={(event) => { event.preventDefault(); send() }}>
      {closed && <Held desk={desk} session={session} newer={newer} text={text} field={field} onGone={() => write('')} />}
      <textarea
        ref={field} id="reply" data-testid="reply" rows={1} dir="auto" value={text} placeholder={closed ? '' : 'Write a reply …'} readOnly={closed}
        aria-label={`Reply to ${name}`} aria-describedby="reply-hint" enterkeyhint="send"
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
          event.preventDefault()
          if (send() && (event.ctrlKey || event.metaKey)) onNext()
        }}
      />
      {!closed && (
        <button class="primary" type="submit" data-testid="send" disabled={!text.trim() || length > LONGEST} aria-label="Send" title="Send (Enter)">
          <Icon name="send" />
        </button>
      )}
      <p id="reply-hint" class={length > LONGEST ? 'hint error' : 'hint'}>
        {length > NEAR ? `${length} of ${LONGEST} characters` : !closed && <span class="wide-only">Enter sends, Ctrl + Enter sends and opens the next, Shift + Enter breaks the line</span>}
      </p>
    </form>
  )
}

interface HeldGiven {
  desk: Desk
  session: Session
  newer: Session | undefined
  text: string
  field: RefObject<HTMLTextAreaElement | null>
  onGone: () => void
}

/** The conversation was closed while one was writing: what can be done with the text. */
function Held({ desk, session, newer, text, field, onGone }: HeldGiven) {
  const [copied, setCopied] = useState(false)
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      // (The clipboard is there on HTTPS only.)
      field.current?.select()
      document.execCommand('copy')
    }
    setCopied(true)
  }
  const take = (): void => {
    if (!newer) return
    const there = desk.drafts.of(newer.id)
    desk.drafts.write(newer.id, there ? `${there}\n${text}` : text)
    onGone()
    go(sessionHref(newer.id))
  }
  const sendable = text.trim() !== '' && [...text].length <= LONGEST
  return (
    <div class="held">
      <p role="alert" data-testid="reply-closed">
        {desk.actions.closerOf(session)} closed this conversation.{text !== '' && ' Your text is kept, and is not sent.'}
      </p>
      <div class="row">
        {text === '' ? (
          <button type="button" data-testid="reopen" onClick={() => void desk.actions.change(session.id, 'active')}>Reopen</button>
        ) : (
          <>
            {newer ? (
              <button type="button" data-testid="newer-send" onClick={take}>Take it to the new conversation</button>
            ) : (
              <>
                <button type="button" data-testid="reopen" onClick={() => void desk.actions.change(session.id, 'active')}>Reopen</button>
                <button type="button" data-testid="reopen-send" disabled={!sendable} onClick={() => void desk.actions.reopenAndSend(session.id, text, desk.playerOf(session.id), onGone)}>Reopen and send</button>
              </>
            )}
            <button type="button" data-testid="reply-copy" onClick={() => void copy()}>{copied ? 'Copied' : 'Copy'}</button>
            <button type="button" class="plain" data-testid="reply-discard" onClick={onGone}>Discard</button>
          </>
        )}
      </div>
    </div>
  )
}
