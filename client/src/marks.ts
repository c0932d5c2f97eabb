/** What this side has read: noted at once, and sent until the server has it. */

import type { Core } from './core.js'
import type { ChatError } from './errors.js'
import type { Message } from './protocol.js'
import type { Sessions } from './sessions.js'
import type { Timeline } from './timeline.js'
import { createTimers } from './util.js'

/** Milliseconds until a mark that could not be sent is sent again. The next connection does it, too. */
const AGAIN_AFTER = 20_000

export function createMarks(
  { rest, isStaff, isUsable }: Pick<Core, 'rest' | 'isStaff' | 'isUsable'>,
  { markOf, note }: Pick<Sessions, 'markOf' | 'note'>,
  timelines: { values(): Iterable<Timeline> },
) {
  /** Sessions whose mark the server is not known to have. */
  const pending = new Set<string>()
  const running = new Set<string>()
  /** By session: one next try, however many connections have tried it, too. */
  const timers = createTimers()

  const send = async (id: string): Promise<void> => {
    if (!isUsable() || running.has(id) || !pending.has(id)) return
    running.add(id)
    const upToSeq = markOf(id)
    let again = false
    try {
      await rest('POST', `/api/gre-chat/read/${id}`, { upToSeq })
    } catch (error) {
      again = (error as ChatError).transient
    }
    running.delete(id)
    if (again) timers.start(id, AGAIN_AFTER, () => void send(id))
    else if (markOf(id) === upToSeq) pending.delete(id)
    else void send(id)
  }

  /** The messages of a session are read up to a seq, and as far as only own messages follow. */
  const readTo = (id: string, messages: readonly Message[], upTo: number): void => {
    const others = messages.filter(({ sender }) => (sender === 'player') === isStaff())
    const end = (others.find(({ seq }) => seq > upTo)?.seq ?? (messages.at(-1)?.seq ?? 0) + 1) - 1
    if (end <= markOf(id) || !others.some(({ seq, status }) => seq <= end && status !== 'read')) return
    note(id, end)
    pending.add(id)
    void send(id)
  }

  return {
    /** What is loaded is read, of a session or of all, up to a seq or to its end. */
    read(sessionId?: string, upTo = Infinity): void {
      for (const timeline of timelines.values()) {
        const { messages } = timeline.view()
        const ids = sessionId ? [sessionId] : new Set(messages.map(({ session_id }) => session_id))
        for (const id of ids) readTo(id, messages.filter(({ session_id }) => session_id === id), upTo)
      }
    },
    /** The connection is back. */
    resend: (): void => pending.forEach((id) => void send(id)),
    clear(): void {
      pending.clear()
      timers.clear()
    },
  }
}
