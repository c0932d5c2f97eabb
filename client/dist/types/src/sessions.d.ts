/** The rows of the known sessions, the numbers of unread messages, and the read marks that the server does not have yet. */
import type { Core } from './core.js';
import type { Message, QueuedSession, Session } from './protocol.js';
export type Sessions = ReturnType<typeof createSessions>;
export declare function createSessions({ rest, isStaff, isUsable, changed }: Core): {
    rows: Map<string, QueuedSession>;
    list: () => QueuedSession[];
    /** This side has read up to a seq, on whatever page. */
    note: (id: string, upTo: number) => void;
    /** Keep a row of the server, unless a newer one is known. */
    apply(row: Session | QueuedSession): void;
    /** Count a new message. */
    count({ session_id, seq, message, created_at, sender }: Message): void;
    /** The person has read up to a seq. */
    mark(id: string, upTo: number): void;
    /** The connection is back. */
    resend: () => void;
    unread(id?: string): number;
    /** The positions for `since`, of which `exact` are of shown messages; undefined without sessions. */
    since(exact: Map<string, number>): Record<string, number> | undefined;
    clear: () => void;
};
