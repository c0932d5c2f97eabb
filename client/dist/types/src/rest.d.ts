/** Calls of the daemon's REST API with the person's token. */
import type { Transport } from './transport.js';
export interface Answer<T> {
    /** Undefined for 304: nothing changed since `etag`. */
    data: T;
    headers: Headers;
    /** The token with which it was read. */
    token: string;
}
export interface CallOptions {
    etag?: string | null | undefined;
    /** The person in whose name the call is made: with a token of somebody else it fails, and nothing is sent. */
    owner?: string | undefined;
    /** A token to be used instead of the page's. */
    token?: string | null;
    /** True for the second try, after a 401. */
    refused?: boolean;
}
export interface Rest {
    /** Raises ChatError. After a 401 it is tried once more, with a renewed token. */
    <T>(method: string, path: string, body?: object, options?: CallOptions): Promise<Answer<T>>;
}
/** `getToken` returns the token for a call; null: nobody is signed in. `calls` are those that are running: one that is aborted fails with `unreachable`. One that reads is made again if it is removed before. */
export declare function createRest(url: string, getToken: (options: CallOptions) => Promise<string | null>, calls: Set<AbortController>, transport?: Transport): Rest;
