/** How hooks read the chat: its snapshots are the state, and no hook keeps a copy. */

import { useCallback, useSyncExternalStore } from 'react'
import type { Chat, Conversation, Notes, Queue, Status } from '../src/index.js'
import { useChat } from './context.js'

/** Changes that are rendered at once after a time without any; those that follow them wait for a frame of the screen. */
const AT_ONCE = 20
/** Milliseconds. */
const FRAME = 16
const QUIET = 1000

/**
 * A subscription whose listener is called once a frame while very many changes come, such as all messages of an absence: a
 * page that rendered its whole list with each of them would stand still.
 */
function subscribePaced(chat: Chat, listener: () => void): () => void {
  let changes = 0
  let lastAt = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  const leave = chat.subscribe(() => {
    const now = Date.now()
    changes = now - lastAt > QUIET ? 1 : changes + 1
    lastAt = now
    if (changes <= AT_ONCE) return listener()
    timer ??= setTimeout(() => {
      timer = undefined
      listener()
    }, FRAME)
  })
  return () => {
    clearTimeout(timer)
    leave()
  }
}

/**
 * Return a snapshot of the chat; render again when it is another object.
 *
 * @param read Returns the same object until something in it changes, as all snapshots of `Chat` do.
 * @param before What a server renders, and a browser until it has taken over the server's page.
 */
export function useSnapshot<T>(read: (chat: Chat) => T, before: T): T {
  const chat = useChat()
  const subscribe = useCallback((listener: () => void) => subscribePaced(chat, listener), [chat])
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
