/**
 * The texts that are not known to be stored. Each keeps its id through all tries, so that a repeat stores nothing twice. Those of
 * one session are sent one after the other; one that was refused does not hold up the next.
 *
 * They are kept in storage under the name of their author, and are sent only while that person is signed in. One that was written
 * before anything was known of its author is kept without a name: the first person of the same page is its author. After a reload
 * it may be anybody's, and is offered to whoever is there, refused.
 */
import type { Unsent } from './api.js';
import type { Kept } from './storage.js';
export interface Item extends Unsent {
    /** The author; undefined until something is known of the person. */
    owner: string | undefined;
    failures: number;
    afterSeq?: number | undefined;
    templateId?: string | undefined;
    /** Stored by the server, and not shown among the messages yet. */
    stored?: boolean;
}
export type Draft = Pick<Item, 'text' | 'files'> & Partial<Pick<Item, 'sessionId' | 'playerId' | 'note' | 'afterSeq' | 'templateId' | 'data'>>;
export interface OutboxOwner {
    storage: Kept;
    /** Names in storage begin with it. */
    prefix: string;
    /** The author of what is written now. */
    author(): string | undefined;
    /** True if the item can be sent now; raises ChatError if it never can. */
    ready(item: Item): boolean;
    /** Send, and tell `stored`. Raises ChatError. */
    deliver(item: Item): Promise<void>;
    changed(): void;
}
export declare function createOutbox({ storage, prefix, author, ready, deliver, changed }: OutboxOwner): {
    flush: () => void;
    load: (owner?: string) => void;
    list: () => Item[];
    add(draft: Draft): Item;
    retry(id: string, positions: Map<string, number>): void;
    discard(id: string): Item | undefined;
    /** The server has stored it; it is shown until `forget`. */
    stored(id: string): void;
    /** Remove it, whatever its state: it is shown among the messages, or given up. */
    forget(id: string): void;
    /** The person is known. Texts that wait for an author are that person's; those of others wait for them. */
    adopt(owner: string): void;
    /** Nobody is signed in: texts without an author are sent only if somebody says so. */
    hold(): void;
    /** The connection is back: end all waiting times. */
    hurry(): void;
    close: () => void;
};
