/** The rows of the log: days, messages, and own texts that are not stored yet. Pure functions of the chat's snapshots. */

import type { Attachment, Conversation, Message, Session, Unsent } from '../src/index'
import { dayKey } from './format'

export type Row =
  | { kind: 'day'; key: string; at: string }
  | { kind: 'message'; key: string; message: Message; mine: boolean; first: boolean; receipt: '' | 'sent' | 'read' }
  | { kind: 'unsent'; key: string; unsent: Unsent; first: boolean }

/**
 * `first` marks the first row of an author in a row; `receipt` stands at the last own message, and at the last one that
 * was read. A text keeps its key (its id) when it is stored, so its row stays where it is.
 */
export function rowsOf({ messages, unsent, readUpTo }: Conversation): Row[] {
  const rows: Row[] = []
  const own = messages.filter((message) => message.sender === 'player')
  const isRead = (message: Message): boolean => message.status === 'read' || message.seq <= (readUpTo[message.session_id] ?? 0)
  const lastRead = own.findLast(isRead)
  const last = own.at(-1)
  let day = ''
  let author = ''
  const begin = (at: string, who: string): boolean => {
    const key = dayKey(at)
    const first = key !== day || who !== author
    if (key !== day) rows.push({ kind: 'day', key: `day ${key}`, at })
    day = key
    author = who
    return first
  }
  for (const message of messages) {
    const mine = message.sender === 'player'
    const first = begin(message.created_at, `${message.sender} ${mine ? '' : message.sender_name}`)
    const receipt = message === lastRead ? 'read' : message === last ? 'sent' : ''
    rows.push({ kind: 'message', key: message.id, message, mine, first, receipt })
  }
  const stored = new Set(own.slice(-100).map(({ id }) => id))
  for (const item of unsent) {
    if (stored.has(item.id)) continue
    // The clocks of the page and of the server differ: an unsent text never stands above a stored one.
    const at = [item.createdAt, messages.at(-1)?.created_at ?? ''].sort().at(-1)!
    rows.push({ kind: 'unsent', key: item.id, unsent: item, first: begin(at, 'player ') })
  }
  return rows
}

/** The closed session that a page may ask the player to rate: the latest, if both sides wrote and it has no rating. */
export function sessionToRate(session: Session | undefined, messages: readonly Message[], enabled: boolean | undefined): Session | undefined {
  if (!enabled || session?.status !== 'closed' || (session.rating ?? null) !== null) return undefined
  const senders = new Set(messages.filter((message) => message.session_id === session.id).map(({ sender }) => sender))
  return senders.has('player') && senders.has('staff') ? session : undefined
}

/** The server's text for a message that has files only: it is for pages that show no files. */
export function isFilesText(message: Message): boolean {
  return Boolean(message.attachments?.length) && /^(📷 Photo|📷 [2-5] photos|📎 File|📎 [2-5] files)$/u.test(message.message)
}

/** Pictures and other files; what is not examined yet is neither. */
export function isPicture(file: Attachment): boolean {
  return file.kind === 'image' && file.state === 'ready'
}
