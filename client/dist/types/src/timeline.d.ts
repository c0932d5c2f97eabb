/**
 * The messages of one session, or of all sessions of a player: pages from REST, new messages from the transport.
 *
 * A message is shown once, and after all messages of its session with a lower seq. One that comes early waits; if the missing
 * ones do not come, REST is asked for them.
 */
import { ChatError } from './errors.js';
import type { Attachment, Message } from './protocol.js';
/** True if a state of a file or of a message comes after another one. */
export declare const isLater: (state: string, other: string) => boolean;
export interface PageQuery {
    limit: number;
    before?: string | null | undefined;
    after_seq?: number;
    sessionId?: string | undefined;
    etag?: string | null | undefined;
}
export interface Page {
    /** Ascending; undefined if nothing has changed since `etag`. */
    messages: readonly Message[] | undefined;
    /** `before` of the page before; undefined at the beginning. */
    next?: string | null | undefined;
    etag?: string | null | undefined;
}
export interface TimelineOwner {
    /** Raises ChatError. */
    page(query: PageQuery): Promise<Page>;
    isOwn(message: Message): boolean;
    /** False while nothing can be read, or nobody wants it. */
    active(): boolean;
    changed(): void;
    /** This message is shown now. */
    shown(message: Message): unknown;
}
export type Timeline = ReturnType<typeof createTimeline>;
export declare function createTimeline(sessionId: string | undefined, owner: TimelineOwner): {
    receive: (message: Message) => boolean;
    refresh: () => Promise<boolean>;
    /** Note by session the seq up to which everything is here; the lowest, if another timeline has noted one. */
    position(found: Map<string, number>): void;
    /** One side has read up to a seq: `own` is true if the messages are those of this side. */
    read(id: string, upTo: number, own: boolean): void;
    attachment(id: string, file: Attachment): void;
    loadOlder(limit?: number): Promise<void>;
    /** The snapshot's fields. */
    view(): {
        messages: readonly Message[];
        state: 'loading' | 'complete' | 'healing' | 'failed';
        hasOlder: boolean;
        loadingOlder: boolean;
        readUpTo: Record<string, number>;
        error: ChatError | undefined;
    };
    close: () => void;
};
/** By session, the seq up to which everything is here. */
export declare function positionsOf(timelines: Iterable<Timeline>): Map<string, number>;
