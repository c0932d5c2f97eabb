/** Hooks for files: those that are being uploaded for the next message, and addresses of those in messages. */
import type { Attachment, Chat, ChatError, Upload, UploadOptions } from '../src/index.js';
/** How far a file is. */
export interface UploadProgress {
    readonly id: string;
    readonly name: string;
    readonly state: Upload['state'];
    /** From 0 to 1. */
    readonly progress: number;
    readonly error?: ChatError;
}
/** The files of the next message. */
export interface Uploads {
    readonly uploads: readonly UploadProgress[];
    /** Whether one is not stored yet: wait with the message. */
    readonly busy: boolean;
    /** Begin to upload files, such as `input.files` or those of a paste. */
    add(files: Iterable<Blob & {
        name?: string;
    }>, options?: UploadOptions): void;
    /** Say in words what one shows, also after its upload: it is busy until the server has it. */
    describe(id: string, alt: string): void;
    /** Take one out; what is under way is ended. */
    remove(id: string): void;
    /** Return the ids of the stored files, for `files` of a message, and take them out. */
    take(): string[];
}
/**
 * Return the files of the next message. `sessionId` is for staff; a player's files are the player's own.
 *
 * @example
 * const { uploads, busy, add, take } = useUpload()
 * <input type="file" multiple onChange={(event) => add(event.target.files ?? [])} />
 * <button disabled={busy} onClick={() => send(text, { files: take() })}>Send</button>
 */
export declare function useUpload(sessionId?: string): Uploads;
/**
 * Return the address of a file of a message, or `undefined` until it is known and while the file cannot be fetched.
 * It is asked for again when the file's state changes.
 *
 * @example
 * const url = useFileUrl(attachment, 'thumb')
 * {url && <img src={url} alt={attachment.alt ?? attachment.name} width={attachment.width} height={attachment.height} />}
 */
export declare function useFileUrl(attachment: Pick<Attachment, 'id' | 'state'>, variant?: Parameters<Chat['url']>[1]): string | undefined;
