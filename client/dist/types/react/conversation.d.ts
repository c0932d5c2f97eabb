/**
 * Hooks for a conversation. `sessionId` names a session; a player's page leaves it out and gets all sessions of the
 * player as one conversation.
 */
import type { Chat, Conversation, Desk, SendOptions, Session, StaffStatus, Status, Typist, Unsent } from '../src/index.js';
/**
 * Return whether the chat is connected, why it is stopped, and who the caller is.
 *
 * @example
 * const { connection, reason } = useChatStatus()
 * if (connection === 'stopped') return <p>{reason === 'chat_disabled' ? 'The chat is closed.' : 'Please sign in again.'}</p>
 */
export declare function useChatStatus(): Status;
/**
 * Return a conversation: its messages in order and without holes, own texts that are not stored yet, and its state.
 * A message of another session renders nothing.
 *
 * @example
 * const { messages, state } = useMessages()
 * return <ul aria-busy={state !== 'complete'}>{messages.map((m) => <li key={m.id}>{m.message}</li>)}</ul>
 */
export declare function useMessages(sessionId?: string): Conversation;
/**
 * Return the function that sends a text, the same one in each render. The text is kept until it is stored, also
 * over a reload; call it once for each text, and show what `useUnsent` returns.
 *
 * @example
 * const send = useSend()
 * <form action={(fields) => void send(String(fields.get('text')))}><input name="text" /></form>
 */
export declare function useSend(sessionId?: string): (text: string, options?: SendOptions) => Unsent;
/** Own texts that are not known to be stored, and what can be done with one that was refused. */
export interface UnsentTexts {
    /** In the order in which they were written. */
    unsent: readonly Unsent[];
    /** Send a refused text again. */
    retry: Chat['retry'];
    /** Take a text back; returns it, so that the page can put it into its box. */
    discard: Chat['discard'];
}
/**
 * Return own texts that are not known to be stored. A server renders none.
 *
 * @example
 * const { unsent, retry, discard } = useUnsent()
 * unsent.map(({ id, text, state, error }) =>
 *   <p key={id}>{text} {state === 'refused' && <>{error?.message} <button onClick={() => retry(id)}>Again</button></>}</p>)
 */
export declare function useUnsent(sessionId?: string): UnsentTexts;
/**
 * Return the number of unread messages of the other side: of a session, or of all.
 *
 * @example
 * const unread = useUnread()
 * useEffect(() => { document.title = unread ? `(${unread}) Chat` : 'Chat' }, [unread])
 */
export declare function useUnread(sessionId?: string): number;
/**
 * Mark what a conversation shows as read, whenever the component is mounted in a page that is visible.
 *
 * @example
 * const { messages } = useMessages()
 * useMarkRead() // beside the hook whose messages are shown
 */
export declare function useMarkRead(sessionId?: string): void;
/** Who is typing, and the function that tells the other side that this person is. */
export interface Typing {
    typists: readonly Typist[];
    /** Call it with each change of the text: the chat sends as little as it needs. */
    setTyping(typing: boolean): void;
}
/**
 * Return who is typing. A component that leaves the page ends the typing that it has announced.
 *
 * @example
 * const { typists, setTyping } = useTyping()
 * <input onChange={(event) => setTyping(event.target.value !== '')} />
 * {typists.length > 0 && <p>… is writing</p>}
 */
export declare function useTyping(sessionId?: string): Typing;
/**
 * Return the sessions that the chat knows: a player's own, or those of staff's queue.
 *
 * @example
 * const closed = useSessions().filter(({ status }) => status === 'closed')
 */
export declare function useSessions(): readonly Session[];
/**
 * Return a session, or `undefined` while the chat does not know it.
 *
 * @example
 * const session = useSession(id)
 * {session?.status === 'closed' && <Rating onRate={(score) => chat.rate(id, score)} />}
 */
export declare function useSession(sessionId: string): Session | undefined;
/**
 * Return which members of staff are there.
 *
 * @example
 * const online = useStaffOnline().some(({ status }) => status === 'online')
 */
export declare function useStaffOnline(): readonly StaffStatus[];
/**
 * Return whether the staff's desk is open, and when that changes; `undefined` until it is known.
 *
 * @example
 * const desk = useDesk()
 * {desk && !desk.open && <p>We open at {new Date(desk.opensAt!).toLocaleString()}.</p>}
 */
export declare function useDesk(): Desk | undefined;
