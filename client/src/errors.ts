/** The one error that the client raises and reports. */

/** Codes that say nothing about the request although the server refused it: a later call may succeed. */
const TRANSIENT_CODES = new Set(['unavailable', 'read_only', 'too_fast', 'not_authenticated', 'token_expired', 'busy', 'unreachable'])

/** One line for people, a code for programs. */
export class ChatError extends Error {
  override readonly name = 'ChatError'

  constructor(
    readonly code: string,
    message: string,
    /** The HTTP status; 0 if there was no answer, or the answer came in a frame. */
    readonly status = 0,
    /** Seconds to wait before the next try, if the server said so. */
    readonly retryAfter?: number | undefined,
    readonly details?: Record<string, unknown> | undefined,
  ) {
    super(message)
  }

  /** True if the same call may succeed later (after a 401: with a renewed token). */
  get transient(): boolean {
    return TRANSIENT_CODES.has(this.code) || this.status === 401 || this.status === 429 || this.status >= 500
  }
}
