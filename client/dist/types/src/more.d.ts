/**
 * What is loaded when it is first used: files, who types and who is there, the opening hours, read marks, ratings, the end of a session.
 *
 * Files: their bytes go from the page to the storage, at an address that the daemon signs (docs/files.md). A file keeps its id
 * through all tries, so that a repeat makes no copy.
 */
import type { UploadOptions } from './api.js';
import type { Core } from './core.js';
import type { ServerFrame, Session, StaffStatus } from './protocol.js';
import type { Sessions } from './sessions.js';
import type { Timeline } from './timeline.js';
import { type Ending, type RunningUpload, type UploadState } from './upload.js';
export type More = ReturnType<typeof createMore>;
/** Promises are rejected with a ChatError. */
export declare function createMore(core: Core, sessions: Sessions, timelines: Map<string, Timeline>, apply: (row: Session) => void): {
    marks: {
        read(sessionId?: string, upTo?: number): void;
        resend: () => void;
        clear(): void;
    };
    typing: {
        apply({ sessionId, by, staffId, typing, for: purpose }: ServerFrame & {
            type: 'typing';
        }): void;
        wrote({ session_id, sender }: import("./protocol.js").Message): void;
        list: (sessionId?: string) => import("./api.js").Typist[];
        stop: () => void;
        set(typing: boolean, sessionId?: string): void;
        clear(): void;
    };
    /** Somebody types, or is there. */
    frame(frame: ServerFrame): void;
    desk: () => import("./api.js").Desk | undefined;
    present: () => StaffStatus[];
    /** What is of one person is not given to another, and not uploaded in another's name. */
    clear(): void;
    /** Make the upload of a file, which `run` starts. `set` changes the state that the page sees. `isOwn` is false if the person has changed since the page called. */
    upload(id: string, file: Blob & {
        name?: string;
    }, { name, ...options }: UploadOptions, set: (fields: UploadState) => void, ending: Ending, isOwn: boolean): RunningUpload;
    /** An address of a file. */
    url: (id: string, variant?: string) => Promise<string>;
    /** Read the row of a player's latest session. */
    readRow(): Promise<void>;
    rate: (sessionId: string, score: number, comment?: string) => Promise<Session>;
    closeSession(sessionId?: string): Promise<void>;
};
