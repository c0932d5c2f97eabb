/**
 * The reply box. Its text is stored as a draft of its session and author.
 *
 * A box with text or the focus stays when the conversation is closed; it then becomes read-only.
 */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { MAX_FILES } from '../draft-files'
import { navigate, sessionHref } from '../route'
import type { Session } from '../types'
import { FileButtons, pastedFiles, useFileDrop } from './FileInput'
import { FileTray } from './FileTray'
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
  const files = desk.files.drafts.of(id)
  const filesProblem = problemOf(desk, id)
  const sendable = (text.trim() !== '' || files.length > 0) && [...text].length <= MAX_LENGTH && filesProblem === ''

  const addFiles = (chosen: File[]): void => {
    const left = desk.files.drafts.add(id, chosen)
    if (left) desk.showError(`A message can have ${MAX_FILES} files: ${left} ${left === 1 ? 'was' : 'were'} not added.`)
    field.current?.focus()
  }
  useFileDrop(closed ? undefined : addFiles)
  const updateText = (value: string): void => {
    setText(value)
    drafts.set(id, value)
    if (!value.trim()) template.current = undefined
    clearTimeout(typingTimer.current)
    if (value.trim()) {
      desk.typing.set(true, id)
      typingTimer.current = setTimeout(() => desk.typing.stop(), TYPING_PAUSE)
    } else desk.typing.stop()
  }
  const insertTemplate = (value: string, templateId: string): void => {
    updateText(value)
    template.current = templateId
  }
  const send = (): boolean => {
    if (closed || !sendable) return false
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
  const keepOpen = closed && (text !== '' || files.length > 0 || (field.current !== null && document.activeElement === field.current))
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
        {closed && <ClosedReply desk={desk} session={session} openSession={openSession} text={text} sendable={sendable} field={field} onClear={() => updateText('')} />}
        <FileTray
          files={files} uploads={desk.files.uploads}
          edit={{
            onRemove: (file) => { desk.files.drafts.remove(id, file); field.current?.focus() },
            onAlt: (file, alt) => desk.files.drafts.setAlt(id, file, alt),
          }}
        />
        {!closed && <FileButtons onFiles={addFiles} />}
        <textarea
          ref={field} id="reply" data-testid="reply" rows={1} dir="auto" value={text} placeholder={closed ? '' : 'Write a reply …'} readOnly={closed}
          aria-label={`Reply to ${name}`} aria-describedby="reply-hint" enterkeyhint="send"
          onInput={(event) => {
            updateText(event.currentTarget.value)
            menu.update(event.currentTarget.value, event.currentTarget.selectionStart)
          }}
          onPaste={(event) => {
            const pasted = closed ? [] : pastedFiles(event)
            if (!pasted.length) return
            event.preventDefault()
            addFiles(pasted)
          }}
          onBlur={menu.close} {...menu.fieldAttributes}
          onKeyDown={(event) => {
            if (menu.handleKey(event) || event.key !== 'Enter' || event.shiftKey || event.isComposing) return
            event.preventDefault()
            if (send() && (event.ctrlKey || event.metaKey)) onNext()
          }}
        />
        {!closed && (
          <button class="primary" type="submit" data-testid="send" disabled={!sendable} aria-label="Send" title="Send (Enter)">
            <Icon name="send" />
          </button>
        )}
        {!closed && menu.view}
        <p id="reply-hint" class={length > MAX_LENGTH ? 'hint error' : 'hint'}>
          {filesProblem !== '' ? filesProblem : length > WARN_LENGTH ? `${length} of ${MAX_LENGTH} characters` : !closed && <span class="wide-only">Enter sends, Ctrl + Enter sends and opens the next, Shift + Enter breaks the line, / inserts a template</span>}
        </p>
      </form>
      {!closed && menu.dialog}
    </>
  )
}

/** Why the files of a draft cannot be sent; empty if they can. Files that are being uploaded are waited for. */
function problemOf({ files }: Desk, id: string): string {
  const { length } = files.drafts.of(id)
  if (length > MAX_FILES) return `A message can have ${MAX_FILES} files: remove ${length - MAX_FILES}.`
  return files.drafts.hasFailed(id) ? 'A file is not uploaded: retry or remove it, then send.' : ''
}

interface ClosedReplyProps {
  desk: Desk
  session: Session
  openSession: Session | undefined
  text: string
  sendable: boolean
  field: RefObject<HTMLTextAreaElement | null>
  /** The text was sent, moved or discarded. */
  onClear: () => void
}

/** The notice and actions for a text whose conversation was closed meanwhile. */
function ClosedReply({ desk, session, openSession, text, sendable, field, onClear }: ClosedReplyProps) {
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
    desk.drafts.set(openSession.id, existing && text ? `${existing}\n${text}` : existing || text)
    desk.files.drafts.move(session.id, openSession.id)
    onClear()
    navigate(sessionHref(openSession.id))
  }
  const empty = text === '' && desk.files.drafts.of(session.id).length === 0
  return (
    <div class="held">
      <p role="alert" data-testid="reply-closed">
        {desk.actions.isClosedByMe(session.id) ? 'You' : 'Somebody else'} closed this conversation.{!empty && ' Your text is kept, and is not sent.'}
      </p>
      <div class="row">
        {empty ? (
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
            <button type="button" class="plain" data-testid="reply-discard" onClick={() => { field.current?.focus(); desk.files.drafts.discard(session.id); onClear() }}>Discard</button>
          </>
        )}
      </div>
    </div>
  )
}
