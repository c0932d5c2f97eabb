/** Hooks for members of staff. Their actions (take, release, transfer, reply …) are those of `useChat().staff`. */
import type { Notes, Queue, QueueFilter, Viewer } from '../src/index.js';
/**
 * Return the queue, kept current by the connection.
 *
 * @example
 * const { sessions } = useQueue({ status: 'active', assigned: 'none' })
 * sessions.map((session) => <li key={session.id} onClick={() => chat.staff.take(session.id)}>…</li>)
 */
export declare function useQueue(filter?: QueueFilter): Queue;
/**
 * Return the private notes of a session, and own ones that are not known to be stored. `useChat().staff.addNote(sessionId,
 * text)` adds one.
 *
 * @example
 * const { notes } = useNotes(session.id)
 */
export declare function useNotes(sessionId: string): Notes;
/**
 * Tell colleagues that this person looks at a session, for as long as the component is mounted; return who else does.
 *
 * @example
 * const viewers = useViewers(session.id)
 * {viewers.map(({ staffId, displayName }) => <span key={staffId}>{displayName}</span>)}
 */
export declare function useViewers(sessionId: string): readonly Viewer[];
