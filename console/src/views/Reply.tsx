/**
 * The reply box. Its text is stored as a draft of its session and author.
 *
 * A box with text or the focus stays when the conversation is closed; it then becomes read-only.
 */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { navigate, sessionHref } from '../route'
import type { Session } from '../types'
import { Icon } from './icons'
import { useTemplateMenu } from './TemplateMenu'

/** Characters, as the database limits them. */
const MAX_LENGTH = 4000
const WARN_LENGTH = 3600
/** Milliseconds without input after which the user counts as no longer typing. */
const TYPING_PAUSE = 4000

interface Props {
  desk: Desk
  /** The session's id. */
  id: string
  session: Session | undefined
  name: string
  /** The player's open session, if this one is closed and there is one. */
  openSession: Session | undefined
  field: RefObject<HTMLTextAreaElement | null>
  /** Open the next waiting session. */
  onNext: () => void
}

export function Reply({ desk, id, session, name, openSession, field, onNext }: Props) {
  const { drafts } = desk
  const [text, setText] = useState(drafts.get(id))
  const typingTimer = useRef<number>(undefined)
  const draftOwner = useRef('')
  /** The template that was inserted last; none once the text was deleted. */
  const template = useRef<string>(undefined)
  const closed = session?.status === 'closed'

  const updateText = (value: string): void => {
    setText(value)
    drafts.set(id, value)
    if (!value.trim()) template.current = undefined
    clearTimeout(typingTimer.current)
    if (value.trim()) {
      desk.typing.keystroke()
      typingTimer.current = setTimeout(() => desk.typing.stopTyping(), TYPING_PAUSE)
    } else desk.typing.stopTyping()
  }
  const insertTemplate = (value: string, templateId: string): void => {
    updateText(value)
    template.current = templateId
  }
  const send = (): boolean => {
    if (closed || !text.trim() || [...text].length > MAX_LENGTH) return false
    desk.send(text, template.current)
    updateText('')
    field.current?.focus()
    return true
  }

  const menu = useTemplateMenu({ desk, id, field, onInsert: insertTemplate })

  useEffect(() => () => clearTimeout(typingTimer.current), [])
  const shownRevision = useRef(drafts.revision)
  useEffect(() => {
    // A failed reply was put back into the draft.
    if (shownRevision.current !== drafts.revision) setText(drafts.get(id))
    shownRevision.current = drafts.revision
  }, [drafts.revision])
  useEffect(() => {
    // The owner may become known after the box is rendered; another owner's draft must not be shown.
    if (!text || draftOwner.current) setText(drafts.get(id))
    else drafts.set(id, text)
    draftOwner.current = drafts.owner
  }, [drafts.owner])
  useEffect(() => {
    // The box is not focused, so that j and k keep working; the cursor is put after the draft.
    const box = field.current
    if (box && text) box.setSelectionRange(text.length, text.length)
  }, [])
  const keepOpen = closed && (text !== '' || (field.current !== null && document.activeElement === field.current))
  useLayoutEffect(() => {
    const box = field.current
    if (!box) return
    box.style.height = 'auto'
    box.style.height = `${Math.min(box.scrollHeight + 2, 220)}px`
  }, [text, keepOpen])

  if (closed && !keepOpen) {
    return (
      <div class="reply closed">
        <span class="quiet">This conversation is closed.</span>
        <button type="button" data-testid="reopen" onClick={() => void desk.actions.setStatus(session.id, 'active')}>Reopen</button>
      </div>
    )
  }
  const length = [...text].length
  return (
    <>
      <form class={closed ? 'reply is-held' : 'reply'} onSubmit={(event) => { event.preventDefault(); send() }}>
        {closed && <ClosedReply desk={desk} session={session} openSession={openSession} text={text} field={field} onClear={() => updateText('')} />}
        <textarea
          ref={field} id="reply" data-testid="reply" rows={1} dir="auto" value={text} placeholder={closed ? '' : 'Write a reply …'} readOnly={closed}
          aria-label={`Reply to ${name}`} aria-describedby="reply-hint" enterkeyhint="send"
          onInput={(event) => {
            updateText(event.currentTarget.value)
            menu.update(event.currentTarget.value, event.currentTarget.selectionStart)
          }}
          onBlur={menu.close} {...menu.fieldAttributes}
          onKeyDown={(event) => {
            if (menu.handleKey(event) || event.key !== 'Enter' || event.shiftKey || event.isComposing) return
            event.preventDefault()
            if (send() && (event.ctrlKey || event.metaKey)) onNext()
          }}
        />
        {!closed && (
          <button class="primary" type="submit" data-testid="send" disabled={!text.trim() || length > MAX_LENGTH} aria-label="Send" title="Send (Enter)">
            <Icon name="send" />
          </button>
        )}
        {!closed && menu.view}
        <p id="reply-hint" class={length > MAX_LENGTH ? 'hint error' : 'hint'}>
          {length > WARN_LENGTH ? `${length} of ${MAX_LENGTH} characters` : !closed && <span class="wide-only">Enter sends, Ctrl + Enter sends and opens the next, Shift + Enter breaks the line, / inserts a template</span>}
        </p>
      </form>
      {!closed && menu.dialog}
    </>
  )
}

interface ClosedReplyProps {
  desk: Desk
  session: Session
  openSession: Session | undefined
  text: string
  field: RefObject<HTMLTextAreaElement | null>
  onClear: () => void
}

/** The notice and actions for a text whose conversation was closed meanwhile. */
function ClosedReply({ desk, session, openSession, text, field, onClear }: ClosedReplyProps) {
  const [copied, setCopied] = useState(false)
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      // The clipboard API needs HTTPS.
      field.current?.select()
      document.execCommand('copy')
    }
    setCopied(true)
  }
  const moveToOpenSession = (): void => {
    if (!openSession) return
    const existing = desk.drafts.get(openSession.id)
    desk.drafts.set(openSession.id, existing ? `${existing}\n${text}` : text)
    onClear()
    navigate(sessionHref(openSession.id))
  }
  const sendable = text.trim() !== '' && [...text].length <= MAX_LENGTH
  return (
    <div class="held">
      <p role="alert" data-testid="reply-closed">
        {desk.actions.isClosedByMe(session.id) ? 'You' : 'Somebody else'} closed this conversation.{text !== '' && ' Your text is kept, and is not sent.'}
      </p>
      <div class="row">
        {text === '' ? (
          <button type="button" data-testid="reopen" onClick={() => void desk.actions.setStatus(session.id, 'active')}>Reopen</button>
        ) : (
          <>
            {openSession ? (
              <button type="button" data-testid="newer-send" onClick={moveToOpenSession}>Take it to the new conversation</button>
            ) : (
              <>
                <button type="button" data-testid="reopen" onClick={() => void desk.actions.setStatus(session.id, 'active')}>Reopen</button>
                <button type="button" data-testid="reopen-send" disabled={!sendable} onClick={() => void desk.reopenAndSend(text, onClear)}>Reopen and send</button>
              </>
            )}
            <button type="button" data-testid="reply-copy" onClick={() => void copy()}>{copied ? 'Copied' : 'Copy'}</button>
            <button type="button" class="plain" data-testid="reply-discard" onClick={() => { field.current?.focus(); onClear() }}>Discard</button>
          </>
        )}
      </div>
    </div>
  )
}
