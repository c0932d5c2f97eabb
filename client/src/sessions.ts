/** The rows of the known sessions, the numbers of unread messages, and how far this side has read. */

import type { Core } from './core.js'
import type { Message, QueuedSession, Session } from './protocol.js'
import { keep } from './store.js'

/** Sessions in `since`: with more, the frame could exceed the server's limit of 64 KB. Of the others the server tells what is newer. */
const MAX_SINCE = 500

export type Sessions = ReturnType<typeof createSessions>

export function createSessions({ isStaff, changed }: Core) {
  const rows = new Map<string, QueuedSession>()
  /** By session, the seq up to which this side has read. */
  const marks = new Map<string, number>()

  const unreadField = (): 'unread_by_staff' | 'unread_by_player' => `unread_by_${isStaff() ? 'staff' : 'player'}`
  const markOf = (id: string): number => marks.get(id) ?? 0

  const note = (id: string, upTo: number): void => {
    marks.set(id, Math.max(upTo, markOf(id)))
    changed()
  }

  const list = (): QueuedSession[] => {
    const key = (row: Session): string => row.last_message_at ?? row.created_at
    return [...rows.values()].sort((a, b) => (key(a) < key(b) ? 1 : -1))
  }

  return {
    rows,
    list,
    /** This side has read up to a seq, on whatever page. */
    note,
    /** Keep a row of the server, unless a newer one is known. */
    apply(row: Session | QueuedSession): void {
      const known = rows.get(row.id)
      if (known && known.rev > row.rev) return
      const { last_seq, last_message, last_message_at } = known ?? row
      const field = unreadField()
      const merged = {
        ...known,
        ...row,
        // It was read before a message that is known by now.
        ...(last_seq > row.last_seq && { last_seq, last_message, last_message_at, [field]: known![field] }),
      }
      rows.set(row.id, keep(known, merged))
      changed()
    },
    /** Count a new message. */
    count({ session_id, seq, message, created_at, sender }: Message): void {
      const known = rows.get(session_id)
      if (!known || seq <= known.last_seq) return
      const field = unreadField()
      const isOther = (sender === 'player') === isStaff()
      const unread = known[field] + Number(isOther)
      if (!isOther && markOf(session_id) >= known.last_seq) marks.set(session_id, seq)
      rows.set(session_id, { ...known, last_seq: seq, last_message: message, last_message_at: created_at, [field]: unread })
      changed()
    },
    markOf,
    unread(id?: string): number {
      let sum = 0
      for (const row of rows.values()) if (!id || id === row.id) sum += Math.max(0, Math.min(row[unreadField()], row.last_seq - markOf(row.id)))
      return sum
    },
    /** The positions for `since`, of which `exact` are of shown messages; undefined without sessions. */
    since(exact: Map<string, number>): Record<string, number> | undefined {
      const positions = new Map([...exact, ...list().map(({ id, last_seq }) => [id, exact.get(id) ?? last_seq] as const)])
      return positions.size ? Object.fromEntries([...positions].slice(0, MAX_SINCE)) : undefined
    },
    clear: (): void => [rows, marks].forEach((part) => part.clear()),
  }
}
