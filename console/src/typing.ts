/** The name of who types in a session. Who does is the client's (client/src/typing.ts). */

import type { Desk } from './desk'

/** Undefined if nobody types; the player has no name here. */
export function typistIn(desk: Desk, sessionId: string): { name: string } | undefined {
  const [typist] = desk.typing.list(sessionId)
  if (typist?.by === 'staff') return { name: desk.staffName(typist.staffId ?? '') || 'A colleague' }
  return typist && { name: '' }
}
