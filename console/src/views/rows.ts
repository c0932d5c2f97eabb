/** A conversation as rows: days, messages, what is being sent. Pure, and made anew only when one of them changes. */

import type { Conversation } from '../conversation'
import { dayKey } from '../format'
import type { Outgoing } from '../outbox'
import type { Message } from '../types'

export type Row =
  | { kind: 'day'; key: string; at: string | number }
  | { kind: 'unread'; key: string }
  | { kind: 'message'; key: string; message: Message; follows: boolean }
  | { kind: 'outgoing'; key: string; outgoing: Outgoing }

/** Milliseconds within which messages of one sender stand together. */
const TOGETHER = 3 * 60_000

export function rowsOf(open: Conversation, waiting: readonly Outgoing[]): Row[] {
  const rows: Row[] = []
  const stored = new Set<string>()
  let last: Message | undefined
  let today = ''
  const newDay = (at: string | number): boolean => {
    const key = dayKey(at)
    if (key === today) return false
    today = key
    rows.push({ kind: 'day', key: `day-${key}`, at })
    return true
  }
  for (const message of open.messages) {
    let follows = !newDay(message.timestamp) && last !== undefined && together(last, message)
    if (message.seq === open.unreadFrom) {
      rows.push({ kind: 'unread', key: 'unread' })
      follows = false
    }
    rows.push({ kind: 'message', key: message.id, message, follows })
    stored.add(message.id)
    last = message
  }
  for (const outgoing of waiting) {
    if (stored.has(outgoing.id)) continue
    newDay(outgoing.at)
    rows.push({ kind: 'outgoing', key: outgoing.id, outgoing })
  }
  return rows
}

function together(a: Message, b: Message): boolean {
  return a.sender === b.sender && a.sender_name === b.sender_name && Date.parse(b.timestamp) - Date.parse(a.timestamp) < TOGETHER
}
