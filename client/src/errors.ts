/** The one error that the client raises and reports. */

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

  /** True if the same call may succeed later (after a 401: with a renewed token), or nothing is known of it. */
  get transient(): boolean {
    return !this.status || this.status === 401 || this.status === 429 || this.status >= 500
  }
}

/** Nothing is known of the call: it may be made again. */
export const unreachable = (): ChatError => new ChatError('unreachable', 'The server does not answer.')

export const signedOut = (): ChatError => new ChatError('signed_out', 'Not signed in.')
