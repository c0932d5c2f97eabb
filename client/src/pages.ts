/** The pages of messages that a timeline reads. */

import type { Core } from './core.js'
import type { Desk } from './desk.js'
import { unreachable } from './errors.js'
import type { Message } from './protocol.js'
import type { Page, PageQuery } from './timeline.js'
import { withQuery } from './util.js'

/** Raises ChatError. */
export async function readPage({ rest, me, isStaff }: Core, { load }: Desk, query: PageQuery): Promise<Page> {
  const person = me()
  if (!person) throw unreachable()
  if (isStaff()) return (await load()).page(query)
  const { etag, ...wanted } = query
  const { data, headers } = await rest<Message[] | undefined>('GET', withQuery(`/api/gre-chat/messages/${person.playerId}`, wanted), undefined, { etag })
  return { messages: data, next: headers.get('X-Next-Before'), etag: headers.get('ETag') }
}
