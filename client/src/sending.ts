/** How one text gets to the server: over the link, or by REST; and what the server's answer to it is. */

import type { ChatOptions, Person } from './api.js'
import { ChatError } from './errors.js'
import type { ClientFrame, Message, Note, ServerFrame } from './protocol.js'
import type { Item } from './outbox.js'
import type { Rest } from './rest.js'
import type { Timer } from './util.js'

/** Milliseconds: the server tries for 10 s to store a message. */
const ANSWER_WITHIN = 25_000
/** Characters: a longer text could exceed the server's limit of a frame, 64 KB. REST refuses it without ending a connection. */
const MAX_FRAME_TEXT = 10_000

export interface SenderOwner {
  options: ChatOptions
  rest: Rest
  me(): Person | undefined
  link(frame: ClientFrame): boolean
  onMessage(message: Message): void
  onNote(note: Note): void
}

export function createSender(owner: SenderOwner) {
  const answers = new Map<string, { item: Item; resolve: () => void; reject: (error: ChatError) => void; timer: Timer }>()

  const take = (id: string | null | undefined) => {
    const found = answers.get(id ?? '')
    if (found) clearTimeout(found.timer), answers.delete(id!)
    return found
  }

  /** True if the frame was sent, and an answer will come. Only a player's message can be built from its acknowledgement. */
  const byLink = ({ id, text, files, sessionId, templateId }: Item, me: Person): boolean =>
    me.role === 'player' &&
    text.length > 0 &&
    text.length < MAX_FRAME_TEXT &&
    !templateId &&
    // Only REST takes a name.
    (!owner.options.name || !!me.displayName) &&
    owner.link({ type: 'send_message', id, clientId: id, message: text, ...(sessionId && { sessionId }), ...(files.length && { attachmentIds: [...files] }) })

  return {
    /** Resolves once it is stored. Raises ChatError. */
    async deliver(item: Item): Promise<void> {
      const { id, text, files, sessionId, afterSeq, templateId } = item
      const me = owner.me()!
      if (item.note) {
        const { data } = await owner.rest<{ note: Note }>('POST', '/api/gre-admin/notes', { sessionId, id, text }, { owner: item.owner })
        return owner.onNote(data.note)
      }
      const answer = new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => take(id)?.reject(new ChatError('unreachable', 'The server does not answer.')), ANSWER_WITHIN)
        answers.set(id, { item, resolve, reject, timer })
      })
      if (byLink(item, me)) return answer
      take(id)
      const body = { id, message: text, sessionId, attachmentIds: files.length ? files : undefined }
      const { data } =
        me.role === 'player'
          ? await owner.rest<{ message: Message }>('POST', '/api/gre-chat/send', { ...body, playerId: me.playerId, playerName: owner.options.name, sender: 'player' }, { owner: item.owner })
          : await owner.rest<{ message: Message }>('POST', '/api/gre-admin/reply', { ...body, playerId: item.playerId, afterSeq, templateId }, { owner: item.owner })
      owner.onMessage(data.message)
    },
    /** A message is known to be stored. */
    stored: (id: string): void => take(id)?.resolve(),
    frame(frame: ServerFrame): void {
      if (frame.type === 'error') take(frame.clientId)?.reject(new ChatError(frame.code, frame.error, 0, frame.retryAfter, frame.details))
      if (frame.type !== 'message_ack') return
      const { item } = answers.get(frame.id) ?? {}
      const me = owner.me()
      if (!item || me?.playerId === undefined) return
      const { id, seq, sessionId: session_id, timestamp, attachments } = frame
      const name = me.displayName ?? null
      owner.onMessage({
        id, seq, session_id, player_id: me.playerId, player_name: name, message: item.text, sender: 'player', sender_name: name, status: 'sent',
        timestamp, created_at: timestamp, ...(attachments && { attachments }),
      })
    },
    /** The connection is lost, and with it the answers. */
    lost(): void {
      for (const id of [...answers.keys()]) take(id)?.reject(new ChatError('unreachable', 'The connection was lost.'))
    },
  }
}
