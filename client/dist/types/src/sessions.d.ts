/** The rows of the known sessions, the numbers of unread messages, and how far this side has read. */
import type { Core } from './core.js';
import type { Message, QueuedSession, Session } from './protocol.js';
export type Sessions = ReturnType<typeof createSessions>;
export declare function createSessions({ isStaff, changed }: Core): {
    rows: Map<string, QueuedSession>;
    list: () => QueuedSession[];
    /** This side has read up to a seq, on whatever page. */
    note: (id: string, upTo: number) => void;
    /** Keep a row of the server, unless a newer one is known. */
    apply(row: Session | QueuedSession): void;
    /** Count a new message. */
    count({ session_id, seq, message, created_at, sender }: Message): void;
    markOf: (id: string) => number;
    unread(id?: string): number;
    /** The positions for `since`, of which `exact` are of shown messages; undefined without sessions. */
    since(exact: Map<string, number>): Record<string, number> | undefined;
    clear: () => void;
};
