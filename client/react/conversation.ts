/**
 * Hooks for a conversation. `sessionId` names a session; a player's page leaves it out and gets all sessions of the
 * player as one conversation.
 */

import { useCallback, useEffect, useMemo, useRef } from 'react'
import type { Chat, Conversation, Desk, SendOptions, Session, StaffStatus, Status, Typist, Unsent } from '../src/index.js'
import { useChat } from './context.js'
import { NOTHING, NO_CONVERSATION, NO_STATUS, useSnapshot } from './snapshot.js'

/**
 * Return whether the chat is connected, why it is stopped, and who the caller is.
 *
 * @example
 * const { connection, reason } = useChatStatus()
 * if (connection === 'stopped') return <p>{reason === 'chat_disabled' ? 'The chat is closed.' : 'Please sign in again.'}</p>
 */
export function useChatStatus(): Status {
  return useSnapshot((chat) => chat.status(), NO_STATUS)
}

/**
 * Return a conversation: its messages in order and without holes, own texts that are not stored yet, and its state.
 * A message of another session renders nothing.
 *
 * @example
 * const { messages, state } = useMessages()
 * return <ul aria-busy={state !== 'complete'}>{messages.map((m) => <li key={m.id}>{m.message}</li>)}</ul>
 */
export function useMessages(sessionId?: string): Conversation {
  return useSnapshot((chat) => chat.messages(sessionId), NO_CONVERSATION)
}

/**
 * Return the function that sends a text, the same one in each render. The text is kept until it is stored, also
 * over a reload; call it once for each text, and show what `useUnsent` returns.
 *
 * @example
 * const send = useSend()
 * <form action={(fields) => void send(String(fields.get('text')))}><input name="text" /></form>
 */
export function useSend(sessionId?: string): (text: string, options?: SendOptions) => Unsent {
  const chat = useChat()
  return useCallback(
    (text, options) => chat.send(text, sessionId === undefined ? options : { sessionId, ...options }),
    [chat, sessionId],
  )
}

/** Own texts that are not known to be stored, and what can be done with one that was refused. */
export interface UnsentTexts {
  /** In the order in which they were written. */
  unsent: readonly Unsent[]
  /** Send a refused text again. */
  retry: Chat['retry']
  /** Take a text back; returns it, so that the page can put it into its box. */
  discard: Chat['discard']
}

/**
 * Return own texts that are not known to be stored. A server renders none.
 *
 * @example
 * const { unsent, retry, discard } = useUnsent()
 * unsent.map(({ id, text, state, error }) =>
 *   <p key={id}>{text} {state === 'refused' && <>{error?.message} <button onClick={() => retry(id)}>Again</button></>}</p>)
 */
export function useUnsent(sessionId?: string): UnsentTexts {
  const chat = useChat()
  const unsent = useSnapshot((from) => from.messages(sessionId).unsent, NOTHING as readonly Unsent[])
  return useMemo(
    () => ({ unsent, retry: (id: string) => chat.retry(id), discard: (id: string) => chat.discard(id) }),
    [chat, unsent],
  )
}

/**
 * Return the number of unread messages of the other side: of a session, or of all.
 *
 * @example
 * const unread = useUnread()
 * useEffect(() => { document.title = unread ? `(${unread}) Chat` : 'Chat' }, [unread])
 */
export function useUnread(sessionId?: string): number {
  return useSnapshot((chat) => chat.unread(sessionId), 0)
}

/**
 * Mark what a conversation shows as read, whenever the component is mounted in a page that is visible.
 *
 * @example
 * const { messages } = useMessages()
 * useMarkRead() // beside the hook whose messages are shown
 */
export function useMarkRead(sessionId?: string): void {
  const chat = useChat()
  const { messages } = useMessages(sessionId)
  useEffect(() => {
    const mark = (): void => {
      if (messages.length && document.visibilityState === 'visible') chat.markRead(sessionId)
    }
    mark()
    document.addEventListener('visibilitychange', mark)
    return () => document.removeEventListener('visibilitychange', mark)
  }, [chat, sessionId, messages])
}

/** Who is typing, and the function that tells the other side that this person is. */
export interface Typing {
  typists: readonly Typist[]
  /** Call it with each change of the text: the chat sends as little as it needs. */
  setTyping(typing: boolean): void
}

/**
 * Return who is typing. A component that leaves the page ends the typing that it has announced.
 *
 * @example
 * const { typists, setTyping } = useTyping()
 * <input onChange={(event) => setTyping(event.target.value !== '')} />
 * {typists.length > 0 && <p>… is writing</p>}
 */
export function useTyping(sessionId?: string): Typing {
  const chat = useChat()
  const typists = useSnapshot((from) => from.typing(sessionId), NOTHING as readonly Typist[])
  const announced = useRef(false)
  const setTyping = useCallback(
    (typing: boolean) => {
      announced.current = typing
      chat.setTyping(typing, sessionId)
    },
    [chat, sessionId],
  )
  useEffect(
    () => () => {
      if (announced.current) setTyping(false)
    },
    [setTyping],
  )
  return useMemo(() => ({ typists, setTyping }), [typists, setTyping])
}

/**
 * Return the sessions that the chat knows: a player's own, or those of staff's queue.
 *
 * @example
 * const closed = useSessions().filter(({ status }) => status === 'closed')
 */
export function useSessions(): readonly Session[] {
  return useSnapshot((chat) => chat.sessions(), NOTHING as readonly Session[])
}

/**
 * Return a session, or `undefined` while the chat does not know it.
 *
 * @example
 * const session = useSession(id)
 * {session?.status === 'closed' && <Rating onRate={(score) => chat.rate(id, score)} />}
 */
export function useSession(sessionId: string): Session | undefined {
  return useSnapshot((chat) => chat.sessions().find(({ id }) => id === sessionId), undefined)
}

/**
 * Return which members of staff are there.
 *
 * @example
 * const online = useStaffOnline().some(({ status }) => status === 'online')
 */
export function useStaffOnline(): readonly StaffStatus[] {
  return useSnapshot((chat) => chat.staffOnline(), NOTHING as readonly StaffStatus[])
}

/**
 * Return whether the staff's desk is open, and when that changes; `undefined` until it is known.
 *
 * @example
 * const desk = useDesk()
 * {desk && !desk.open && <p>We open at {new Date(desk.opensAt!).toLocaleString()}.</p>}
 */
export function useDesk(): Desk | undefined {
  return useSnapshot((chat) => chat.desk(), undefined)
}
