/** The bytes of one file on their way to Supabase Storage. */
import { ChatError } from './errors.js';
/** Where the bytes go: signed by the daemon, for one file and a limited time. It is kept in memory only. */
export interface Address {
    url: string;
    method: string;
    headers: Record<string, string>;
    expiresAt: string | null;
}
/** Send a file; `onProgress` gets the share that was sent, from 0 to 1. Raises ChatError: with status 0 nothing is known of the upload. */
export type Put = (address: Address, file: Blob, onProgress: (share: number) => void, signal: AbortSignal) => Promise<void>;
export declare const interrupted: () => ChatError;
/** Storage has answered with a status that it does not take the file. */
export declare function storageRefusal(status: number): ChatError;
export declare const put: Put;
