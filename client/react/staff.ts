/** Hooks for members of staff. Their actions (take, release, transfer, reply …) are those of `useChat().staff`. */

import { useEffect, useMemo } from 'react'
import type { Notes, Queue, QueueFilter, Viewer } from '../src/index.js'
import { useChat } from './context.js'
import { NOTHING, NO_NOTES, NO_QUEUE, useSnapshot } from './snapshot.js'

/**
 * Return the queue, kept current by the connection.
 *
 * @example
 * const { sessions } = useQueue({ status: 'active', assigned: 'none' })
 * sessions.map((session) => <li key={session.id} onClick={() => chat.staff.take(session.id)}>…</li>)
 */
export function useQueue(filter: QueueFilter = {}): Queue {
  const { status, assigned } = filter
  // The page may write the filter as a literal, which is another object in each render.
  const stable = useMemo(() => ({ ...(status && { status }), ...(assigned && { assigned }) }), [status, assigned])
  return useSnapshot((chat) => chat.staff.queue(stable), NO_QUEUE)
}

/**
 * Return the private notes of a session, and own ones that are not known to be stored. `useChat().staff.addNote(sessionId,
 * text)` adds one.
 *
 * @example
 * const { notes } = useNotes(session.id)
 */
export function useNotes(sessionId: string): Notes {
  return useSnapshot((chat) => chat.staff.notes(sessionId), NO_NOTES)
}

/**
 * Tell colleagues that this person looks at a session, for as long as the component is mounted; return who else does.
 *
 * @example
 * const viewers = useViewers(session.id)
 * {viewers.map(({ staffId, displayName }) => <span key={staffId}>{displayName}</span>)}
 */
export function useViewers(sessionId: string): readonly Viewer[] {
  const chat = useChat()
  useEffect(() => {
    chat.staff.viewing(sessionId, true)
    return () => chat.staff.viewing(sessionId, false)
  }, [chat, sessionId])
  return useSnapshot((from) => from.staff.viewers(sessionId), NOTHING as readonly Viewer[])
}
