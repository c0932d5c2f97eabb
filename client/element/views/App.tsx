/** @jsxImportSource preact */
/** The panel from top to bottom. */

import { useEffect, useRef, useState } from 'preact/hooks'
import { usePanel } from '../context'
import type { Desk } from '../../src/index'
import { appointment } from '../format'
import { rowsOf, sessionToRate } from '../rows'
import { fill, type Words } from '../words'
import { Composer } from './Composer'
import { Icon } from './Icon'
import { Log } from './Log'
import { Rating } from './Rating'
import { Notice } from './Notice'

export function App({ open }: { open: boolean }) {
  const { chat, words, close } = usePanel()
  const [atEnd, setAtEnd] = useState(true)
  const status = chat.status()
  const conversation = chat.messages()
  const rows = useRef<{ of: typeof conversation; rows: ReturnType<typeof rowsOf> }>(undefined)
  if (rows.current?.of !== conversation) rows.current = { of: conversation, rows: rowsOf(conversation) }
  const latest = chat.sessions()[0]
  const rated = sessionToRate(latest, conversation.messages, status.me?.ratingEnabled)
  const unread = chat.unread()
  const seen = open && atEnd && document.visibilityState === 'visible' && conversation.state === 'complete'
  useEffect(() => {
    if (seen && unread) chat.markRead()
  }, [seen, unread, conversation])
  const writable = !(status.connection === 'stopped' && status.reason !== 'defect') && status.me?.chatEnabled !== false
  return (
    <>
      <header part="header">
        <h2 id="title" part="title" tabIndex={-1}>{words.title}</h2>
        <Presence open={open} />
        <button type="button" class="tool" part="close" aria-label={words.close} title={words.close} onClick={close}><Icon name="close" /></button>
      </header>
      <Notice />
      <Log rows={rows.current.rows} conversation={conversation} closed={latest?.status === 'closed' && !conversation.unsent.length} onEnd={setAtEnd} />
      <p class="typing" role="status">{chat.typing().length > 0 && words.typing}</p>
      <Rating session={rated} closed={latest?.status === 'closed'} />
      {writable && <Composer />}
    </>
  )
}

/** Milliseconds before closing from which on the time is shown without its day. */
const SOON = 86_400_000

/** Who is there, as far as this is known, and whether the desk is open. */
function Presence({ open }: { open: boolean }) {
  const { chat, words, language } = usePanel()
  // A closed panel asks for nothing. A chat of the page's own may be an older one.
  const desk = open ? chat.desk?.() : undefined
  const names = chat.staffOnline().filter(({ status }) => status === 'online').map(({ displayName }) => displayName ?? words.staff)
  const text = names.length > 1 ? words.onlineMore : names.length ? words.online : ''
  return (
    <p part="presence" dir="auto">
      {fill(text, { name: names[0] ?? '', n: names.length - 1 })} <span part="hours" data-open={desk?.open}>{openingText(desk, words, language)} {words.hours}</span>
    </p>
  )
}

/** Whether the desk is open, and until or from when; nothing for a desk that is always open. */
function openingText(desk: Desk | undefined, words: Words, language: string): string {
  if (!desk?.timezone) return ''
  const { open, opensAt, closesAt, timezone } = desk
  const now = Date.now()
  const at = open ? closesAt : opensAt
  if (open && !(at && Date.parse(at) - now < SOON)) return words.openNow
  return at ? fill(open ? words.openUntil : words.opensAt, appointment(at, now, timezone, language)) : words.closedNow
}
