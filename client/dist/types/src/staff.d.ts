/** What members of staff have beside: the queue, assignment, notes, templates, and who looks at a session. Loaded for staff only. */
import type { StaffChat } from './api.js';
import type { Message, Note, ServerFrame, Session } from './protocol.js';
import type { Core } from './core.js';
import type { Item } from './outbox.js';
import type { Sessions } from './sessions.js';
import type { Page, PageQuery } from './timeline.js';
export interface StaffOwner extends Core {
    sessions: Sessions;
    read<T extends object>(name: string, compute: () => T): T;
    /** Own texts that are not known to be stored, of all sessions. */
    unsent(): Item[];
    noteStored(id: string): void;
    /** Somebody of the staff is there, or has left. */
    presence(frame: ServerFrame & {
        type: 'staff_status';
    }): void;
}
export declare function createStaff(owner: StaffOwner): {
    chat: Omit<StaffChat, "addNote" | "reply">;
    apply: (row: Session) => void;
    /** Send a reply or a note. Raises ChatError. */
    deliver({ id, text, files, sessionId, playerId, afterSeq, templateId, owner: author, note }: Item): Promise<Message | undefined>;
    /** A page of messages of a session. Raises ChatError. */
    page({ limit, before, after_seq, sessionId }: PageQuery): Promise<Page>;
    refresh: () => Promise<boolean>;
    addNote(note: Note): void;
    frame(frame: ServerFrame): void;
    /** The connection is live: say again what the server forgets, and read who is there. */
    live(): Promise<void>;
    clear(): void;
};
