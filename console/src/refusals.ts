/** The texts of the server's refusals for the user. */

import { ApiError } from './api'

/** Describe an error in a sentence; a colleague that the refusal's details name is called by name. */
export function describeRefusal(error: unknown, staffName: (id: string) => string): string {
  if (!(error instanceof ApiError)) return 'That did not work.'
  const { by } = error.details
  const colleague = typeof by === 'string' ? staffName(by) : 'A colleague'
  switch (error.code) {
    case 'session_taken':
      return `${colleague} has this conversation now.`
    case 'session_moved':
      return `${colleague} has answered meanwhile: read, then send again.`
    default:
      return error.message
  }
}
