/** How hooks read the chat: its snapshots are the state, and no hook keeps a copy. */
import type { Chat, Conversation, Notes, Queue, Status } from '../src/index.js';
/**
 * Return a snapshot of the chat; render again when it is another object.
 *
 * @param read Returns the same object until something in it changes, as all snapshots of `Chat` do.
 * @param before What a server renders, and a browser until it has taken over the server's page.
 */
export declare function useSnapshot<T>(read: (chat: Chat) => T, before: T): T;
export declare const NOTHING: readonly never[];
export declare const NO_STATUS: Status;
export declare const NO_CONVERSATION: Conversation;
export declare const NO_QUEUE: Queue;
export declare const NO_NOTES: Notes;
