/** The one error that the client raises and reports. */
/** One line for people, a code for programs. */
export declare class ChatError extends Error {
    readonly code: string;
    /** The HTTP status; 0 if there was no answer, or the answer came in a frame. */
    readonly status: number;
    /** Seconds to wait before the next try, if the server said so. */
    readonly retryAfter?: number | undefined;
    readonly details?: Record<string, unknown> | undefined;
    readonly name = "ChatError";
    constructor(code: string, message: string, 
    /** The HTTP status; 0 if there was no answer, or the answer came in a frame. */
    status?: number, 
    /** Seconds to wait before the next try, if the server said so. */
    retryAfter?: number | undefined, details?: Record<string, unknown> | undefined);
    /** True if the same call may succeed later (after a 401: with a renewed token), or nothing is known of it. */
    get transient(): boolean;
}
/** Nothing is known of the call: it may be made again. */
export declare const unreachable: () => ChatError;
export declare const signedOut: () => ChatError;
