/** The rows of a conversation: days, the line above unread messages, messages, events and outgoing replies. A pure function. */

import type { Conversation } from '../conversation'
import { dayKey } from '../format'
import type { OutgoingReply } from '../unsent-replies'
import { describeEvent } from '../story'
import type { Message, SessionEvent } from '../types'

export type Row =
  | { kind: 'day'; key: string; at: string | number }
  | { kind: 'unread'; key: string }
  | { kind: 'message'; key: string; message: Message; follows: boolean }
  | { kind: 'event'; key: string; event: SessionEvent }
  | { kind: 'outgoing'; key: string; outgoing: OutgoingReply }

/** Milliseconds between two messages of one sender that are shown as a group. */
const GROUP_INTERVAL = 3 * 60_000

export function rowsOf(conversation: Conversation, replies: readonly OutgoingReply[]): Row[] {
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
  // Of events before the loaded messages, those directly before the first one are shown.
  const firstSeq = conversation.messages[0]?.seq ?? 0
  const events = conversation.story.events.filter((event) => event.after_seq >= firstSeq - 1 && describeEvent(event, String) !== '')
  const addEventsBefore = (seq: number): void => {
    while (events[0] && events[0].after_seq < seq) {
      const event = events.shift()!
      newDay(event.at)
      rows.push({ kind: 'event', key: `event-${event.rev}`, event })
      previous = undefined
    }
  }
  for (const message of conversation.messages) {
    addEventsBefore(message.seq)
    let follows = !newDay(message.timestamp) && previous !== undefined && isSameGroup(previous, message)
    if (message.seq === conversation.unreadFrom) {
      rows.push({ kind: 'unread', key: 'unread' })
      follows = false
    }
    rows.push({ kind: 'message', key: message.id, message, follows })
    stored.add(message.id)
    previous = message
  }
  if (conversation.loaded) addEventsBefore(Infinity)
  for (const outgoing of replies) {
    if (stored.has(outgoing.id)) continue
    newDay(outgoing.createdAt)
    rows.push({ kind: 'outgoing', key: outgoing.id, outgoing })
  }
  return rows
}

function isSameGroup(a: Message, b: Message): boolean {
  return a.sender === b.sender && a.sender_name === b.sender_name && Date.parse(b.timestamp) - Date.parse(a.timestamp) < GROUP_INTERVAL
}
