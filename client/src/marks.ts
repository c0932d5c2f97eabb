/** Read marks that the server is not known to have: sent over the link or by REST, and again after a reconnection. */

import type { ChatError } from './errors.js'
import type { ClientFrame } from './protocol.js'
import type { Rest } from './rest.js'
import type { Sessions } from './sessions.js'

export interface MarksOwner {
  rest: Rest
  sessions: Sessions
  isUsable(): boolean
  link(frame: ClientFrame): boolean
}

export function createMarks({ rest, sessions, isUsable, link }: MarksOwner) {
  /** By session, the seq up to which this side has read. */
  const pending = new Map<string, number>()

  const confirm = (id: string, upTo: number): void => {
    sessions.mark(id, upTo)
    if (upTo >= (pending.get(id) ?? Infinity)) pending.delete(id)
  }

  const send = async (sessionId: string, upToSeq: number): Promise<void> => {
    if (!isUsable() || link({ type: 'mark_read', sessionId, upToSeq })) return
    try {
      const { data } = await rest<{ upToSeq: number }>('POST', `/api/gre-chat/read/${sessionId}`, { upToSeq })
      confirm(sessionId, data.upToSeq)
    } catch (error) {
      // Otherwise it is sent with the next mark or connection.
      if (!(error as ChatError).transient) pending.delete(sessionId)
    }
  }

  return {
    confirm,
    set(id: string, upTo: number): void {
      if (upTo <= sessions.markOf(id)) return
      sessions.mark(id, upTo)
      pending.set(id, upTo)
      void send(id, upTo)
    },
    /** The connection is back. */
    resend(): void {
      for (const [id, upTo] of pending) void send(id, upTo)
    },
    clear: (): void => pending.clear(),
  }
}
