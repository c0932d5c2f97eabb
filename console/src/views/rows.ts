/** The rows of a conversation: days, the line above unread messages, messages, events, notes and unsent texts. A pure function. */

import type { Conversation } from '../conversation'
import { dayKey } from '../format'
import type { OutgoingText } from '../outgoing'
import { describeEvent } from '../story'
import type { Message, Note, SessionEvent } from '../types'

export type Row =
  | { kind: 'day'; key: string; at: string | number }
  | { kind: 'unread'; key: string }
  | { kind: 'message'; key: string; message: Message; follows: boolean }
  | { kind: 'event'; key: string; event: SessionEvent }
  | { kind: 'note'; key: string; note: Note }
  | { kind: 'outgoing'; key: string; text: OutgoingText }

/** An event or a note: its place is after a message. */
interface Aside {
  afterSeq: number
  at: string
  row: Row
}

/** Milliseconds between two messages of one sender that are shown as a group. */
const GROUP_INTERVAL = 3 * 60_000

export function rowsOf(conversation: Conversation, unsent: readonly OutgoingText[]): Row[] {
  const rows: Row[] = []
  const stored = new Set<string>()
  let previous: Message | undefined
  let currentDay = ''
  const newDay = (at: string | number): boolean => {
    const key = dayKey(at)
    if (key === currentDay) return false
    currentDay = key
    rows.push({ kind: 'day', key: `day-${key}`, at })
    return true
  }
  const asides = asidesOf(conversation)
  const addAsidesBefore = (seq: number): void => {
    while (asides[0] && asides[0].afterSeq < seq) {
      const { at, row } = asides.shift()!
      newDay(at)
      rows.push(row)
      previous = undefined
    }
  }
  for (const message of conversation.messages) {
    addAsidesBefore(message.seq)
    let follows = !newDay(message.timestamp) && previous !== undefined && isSameGroup(previous, message)
    if (message.seq === conversation.unreadFrom) {
      rows.push({ kind: 'unread', key: 'unread' })
      follows = false
    }
    rows.push({ kind: 'message', key: message.id, message, follows })
    stored.add(message.id)
    previous = message
  }
  if (conversation.loaded) addAsidesBefore(Infinity)
  for (const note of conversation.notes.list) stored.add(note.id)
  for (const text of unsent) {
    if (stored.has(text.id)) continue
    newDay(text.data.at)
    rows.push({ kind: 'outgoing', key: text.id, text })
  }
  return rows
}

/** The events and notes to show, in order. Of those before the loaded messages, the ones directly before the first. */
function asidesOf({ messages, hasOlder, story, notes }: Conversation): Aside[] {
  const firstSeq = messages[0]?.seq ?? 0
  const events = story.events
    .filter((event) => event.after_seq >= firstSeq - 1 && describeEvent(event, String) !== '')
    .map((event): Aside => ({ afterSeq: event.after_seq, at: event.at, row: { kind: 'event', key: `event-${event.rev}`, event } }))
  const written = notes.list
    .filter((note) => !hasOlder || note.after_seq >= firstSeq - 1)
    .map((note): Aside => ({ afterSeq: note.after_seq, at: note.created_at, row: { kind: 'note', key: note.id, note } }))
  // Events stay in the order of rev, notes in that of n. The note of a transfer is stored before its event, often in the
  // same millisecond.
  return [...written, ...events].sort((a, b) => a.afterSeq - b.afterSeq || Date.parse(a.at) - Date.parse(b.at))
}

function isSameGroup(a: Message, b: Message): boolean {
  return a.sender === b.sender && a.sender_name === b.sender_name && Date.parse(b.timestamp) - Date.parse(a.timestamp) < GROUP_INTERVAL
}
