/** Small helpers without state. */
import { type ChatError } from './errors.js';
export type Timer = ReturnType<typeof setTimeout> | undefined;
export type Timers = ReturnType<typeof createTimers>;
/** Timers by name. Starting one ends another of its name. */
export declare function createTimers(): {
    has: (name: string) => boolean;
    end: (name: string) => void;
    start(name: string, ms: number, then: () => void): void;
    clear: () => void;
};
/** A random part of a delay, between a half and all of it, so that pages do not come back together. */
export declare const jitter: (ms: number) => number;
/** The delay before the try that follows `failures` failures, in milliseconds. */
export declare const backoff: (failures: number, max?: number) => number;
/** A random UUID (version 4, 120 random bits). `crypto.randomUUID` is missing on pages that come over plain HTTP. */
export declare const uuid: () => string;
/** Parse JSON; players' ids of 16 digits and more stay text, since numbers beyond 2^53 are not exact. */
export declare const exactJson: (text: string) => unknown;
/** `path?name=value…`, without what is undefined. */
export declare const withQuery: (path: string, query: object) => string;
/**
 * Load a part of the client once. Raises ChatError `unreachable` if it cannot be fetched, as on a page that is older than the last
 * deployment. `note` is called with this error, and without one when the next call tries again.
 */
export declare function loadOnce<T>(load: () => Promise<T>, note: (error?: ChatError) => void): () => Promise<T>;
