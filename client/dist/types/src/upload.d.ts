/**
 * The upload of one file: its bytes go from the page to the storage, at an address that the daemon signs (docs/files.md).
 *
 * A file keeps its id through all tries, so that a repeat makes no copy. After an upload without an answer the daemon is asked
 * whether the bytes are there before they are sent again, and an address is used as long as it is valid: asking for one counts.
 */
import type { Upload } from './api.js';
import { ChatError } from './errors.js';
import type { Attachment } from './protocol.js';
import type { Address, Put } from './put.js';
/** What the daemon is told of a file. */
export interface FileInfo {
    id: string;
    name: string;
    type: string;
    bytes: number;
    alt?: string | undefined;
    sessionId?: string | undefined;
    playerId?: string | number | undefined;
}
/** The calls that an upload makes. They raise a ChatError. */
export interface UploadServer {
    /** Announce a file, or its new alt text. No address: the bytes are there. */
    begin(file: FileInfo): Promise<{
        attachment: Attachment;
        upload: Address | null;
    }>;
    read(id: string): Promise<{
        attachment: Attachment;
    }>;
    drop(id: string): Promise<unknown>;
    put: Put;
    /** The daemon's time, as well as it is known, in milliseconds since 1970. */
    now(): number;
}
export type UploadState = Partial<Pick<Upload, 'state' | 'progress' | 'error'>>;
export type RunningUpload = ReturnType<typeof createUpload>;
/** Bytes: the daemon's limit. */
export declare const MAX_BYTES = 26214400;
/** True if another try soon may succeed. */
export declare const isPassing: ({ transient, code }: Pick<ChatError, 'transient' | 'code'>) => boolean;
/** Called with the file, once its bytes are stored, and with the error, if it fails finally or is cancelled. */
export type Ending = [(file: Attachment) => void, (error: ChatError) => void];
/**
 * Make an upload; `run` or `settle` starts it. `set` changes the state that the page sees: with `uploading` and an error it waits
 * for another try. Without `bytes` it is one of an earlier visit of the page, whose bytes the daemon may have.
 */
export declare function createUpload(server: UploadServer, file: FileInfo, bytes: Blob | undefined, set: (fields: UploadState) => void, [resolve, reject]?: Ending): {
    run: (text?: unknown) => Promise<void>;
    stop: () => void;
    /** Aborted at its end: `stop`, for who does not keep the file. */
    controller: AbortController;
    /** Make one attempt, unless everything is stored. Raises ChatError: the upload's failure. */
    settle(): Promise<void>;
    /** End it, and delete what the daemon has of it. If that fails, it deletes the file after a day. */
    cancel(): Promise<void>;
};
