/** Pages of messages from REST, of the person's own role. */

import type { Person } from './api.js'
import { ChatError } from './errors.js'
import type { Message, Session } from './protocol.js'
import type { Rest } from './rest.js'
import type { Page, PageQuery } from './timeline.js'
import { withQuery } from './util.js'

export function createPages(rest: Rest, me: () => Person | undefined, onSession: (row: Session) => void) {
  const page = async ({ limit, before, after, sessionId, etag }: PageQuery): Promise<Page> => {
    const person = me()
    if (!person) throw new ChatError('unreachable', 'It is not known yet who you are.')
    if (person.role === 'player') {
      const path = withQuery(`/api/gre-chat/messages/${person.playerId}`, { limit, before, sessionId, after_seq: after })
      const { data, headers, unchanged } = await rest<Message[]>('GET', path, undefined, { etag })
      return { messages: unchanged ? undefined : data, next: headers.get('X-Next-Before') ?? undefined, etag: headers.get('ETag') ?? undefined }
    }
    // Staff read one session at a time.
    if (sessionId === undefined) return { messages: [] }
    const path = withQuery(`/api/gre-admin/messages/${sessionId}`, { limit, before_seq: before, after_seq: after })
    const { data } = await rest<{ messages: Message[]; session: Session; has_more: boolean }>('GET', path)
    onSession(data.session)
    const first = data.messages[0]
    return { messages: data.messages, next: after === undefined && data.has_more && first ? String(first.seq) : undefined }
  }

  return {
    page,
    /** Read the row of a player's latest session. */
    async rows(): Promise<void> {
      const { data } = await rest<{ conversations: Session[] }>('GET', `/api/chat-history/${me()?.playerId}?limit=1`)
      for (const { chat_messages: _, ...row } of data.conversations as (Session & { chat_messages?: unknown })[]) onSession(row)
    },
  }
}
