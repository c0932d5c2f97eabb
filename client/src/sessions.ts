/** The rows of the known sessions, the numbers of unread messages, and the read marks that the server does not have yet. */

import type { Message, QueuedSession as Session } from './protocol.js'

/** Sessions in `since`: with more, the frame could exceed the server's limit of 64 KB. Of the others the server tells what is newer. */
const MAX_SINCE = 500

export type Sessions = ReturnType<typeof createSessions>

export function createSessions(isStaff: () => boolean, changed: () => void) {
  const rows = new Map<string, Session>()
  /** By session, the seq up to which this side has read, as far as this page knows. */
  const marks = new Map<string, number>()

  const unreadField = (): 'unread_by_staff' | 'unread_by_player' => (isStaff() ? 'unread_by_staff' : 'unread_by_player')

  return {
    rows,
    /** Keep a row of the server, unless a newer one is known. */
    apply(row: Session): void {
      const known = rows.get(row.id)
      if (known && known.rev > row.rev) return
      // It was read before a message that is known by now.
      const { last_seq, last_message, last_message_at, unread_by_staff, unread_by_player } = known ?? row
      const newer = known && known.last_seq > row.last_seq ? { last_seq, last_message, last_message_at, unread_by_staff, unread_by_player } : {}
      rows.set(row.id, { ...(known && 'waiting_since' in known && { waiting_since: known.waiting_since, replied: known.replied }), ...row, ...newer } as Session)
      changed()
    },
    /** Count a new message. */
    count(message: Message): void {
      const known = rows.get(message.session_id)
      if (!known || message.seq <= known.last_seq) return
      const fromPlayer = message.sender === 'player'
      const field = unreadField()
      rows.set(known.id, {
        ...known,
        last_seq: message.seq,
        last_message: message.message,
        last_message_at: message.created_at,
        [field]: known[field] + (fromPlayer === isStaff() ? 1 : 0),
        ...('waiting_since' in known && {
          waiting_since: message.sender === 'staff' ? null : (known.waiting_since ?? (fromPlayer ? message.created_at : null)),
          replied: known.replied || message.sender === 'staff',
        }),
      })
      changed()
    },
    /** This side has read up to a seq. */
    mark(id: string, upTo: number): void {
      if (upTo <= (marks.get(id) ?? 0)) return
      marks.set(id, upTo)
      changed()
    },
    markOf: (id: string): number => marks.get(id) ?? 0,
    unread(id?: string): number {
      let sum = 0
      for (const row of rows.values()) {
        if (id === undefined || id === row.id) sum += Math.max(0, Math.min(row[unreadField()], row.last_seq - (marks.get(row.id) ?? 0)))
      }
      return sum
    },
    /** Latest message first. */
    list(): Session[] {
      const key = (row: Session): string => row.last_message_at ?? row.created_at
      return [...rows.values()].sort((a, b) => (key(a) < key(b) ? 1 : -1))
    },
    /** The positions for `since`, of which `loaded` are exact; undefined without sessions. */
    since(loaded: ReadonlyMap<string, number>): Record<string, number> | undefined {
      const ids = new Set([...this.list().map(({ id }) => id), ...loaded.keys()])
      if (!ids.size) return undefined
      // The sessions whose messages are shown come first; a row's own position is that of its last message.
      const sorted = [...ids].sort((a, b) => Number(loaded.has(b)) - Number(loaded.has(a))).slice(0, MAX_SINCE)
      return Object.fromEntries(sorted.map((id) => [id, loaded.get(id) ?? rows.get(id)!.last_seq]))
    },
    clear(): void {
      rows.clear()
      marks.clear()
    },
  }
}
