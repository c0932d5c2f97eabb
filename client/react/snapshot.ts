/** How hooks read the chat: its snapshots are the state, and no hook keeps a copy. */

import { useCallback, useSyncExternalStore } from 'react'
import type { Chat, Conversation, Notes, Queue, Status } from '../src/index.js'
import { useChat } from './context.js'

/**
 * Return a snapshot of the chat; render again when it is another object.
 *
 * @param read Returns the same object until something in it changes, as all snapshots of `Chat` do.
 * @param before What a server renders, and a browser until it has taken over the server's page.
 */
export function useSnapshot<T>(read: (chat: Chat) => T, before: T): T {
  const chat = useChat()
  const subscribe = useCallback((listener: () => void) => chat.subscribe(listener), [chat])
  return useSyncExternalStore(
    subscribe,
    () => read(chat),
    () => before,
  )
}

export const NOTHING: readonly never[] = Object.freeze([])
export const NO_STATUS: Status = Object.freeze({ connection: 'idle' })
export const NO_CONVERSATION: Conversation = Object.freeze({
  messages: NOTHING,
  unsent: NOTHING,
  state: 'loading',
  hasOlder: false,
  loadingOlder: false,
  readUpTo: Object.freeze({}),
})
export const NO_QUEUE: Queue = Object.freeze({ sessions: NOTHING, state: 'loading', hasMore: false })
export const NO_NOTES: Notes = Object.freeze({ notes: NOTHING, unsent: NOTHING, state: 'loading' })
