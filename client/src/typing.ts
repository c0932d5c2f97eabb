/** Who types, and that this person types. */

import type { Typist } from './api.js'
import type { Timer } from './util.js'

/** Milliseconds after which a sign that was not repeated ends. */
const FORGET_AFTER = 6000
/** Milliseconds between two signs. */
const SEND_EVERY = 3000

export function createTyping(send: (typing: boolean, sessionId: string | undefined) => void, changed: () => void) {
  const typists = new Map<string, { typist: Typist; timer: Timer }>()
  let sentAt = 0
  let sentFor: string | undefined

  const forget = (name: string): void => {
    clearTimeout(typists.get(name)?.timer)
    if (typists.delete(name)) changed()
  }

  const stop = (): void => {
    if (sentAt) send(false, sentFor)
    sentAt = 0
  }

  return {
    /** Somebody types, or has stopped. */
    apply({ sessionId, by, staffId, note }: Typist, typing: boolean): void {
      const name = JSON.stringify([sessionId, by, staffId, note])
      forget(name)
      if (!typing) return
      const timer = setTimeout(() => forget(name), FORGET_AFTER)
      typists.set(name, { typist: { sessionId, by, ...(staffId !== undefined && { staffId }), ...(note && { note }) }, timer })
      changed()
    },
    /** A message of this side has come: nobody of it types it any more. */
    wrote(sessionId: string, side: 'player' | 'staff'): void {
      for (const [name, { typist }] of typists) if (typist.sessionId === sessionId && typist.by === side && !typist.note) forget(name)
    },
    list: (sessionId?: string): Typist[] =>
      [...typists.values()].map(({ typist }) => typist).filter((typist) => sessionId === undefined || typist.sessionId === sessionId),
    stop,
    set(typing: boolean, sessionId: string | undefined): void {
      if (sessionId !== sentFor) stop()
      sentFor = sessionId
      if (!typing) return stop()
      if (sentAt && Date.now() - sentAt < SEND_EVERY) return
      sentAt = Date.now()
      send(true, sessionId)
    },
    clear(): void {
      for (const name of [...typists.keys()]) forget(name)
      sentAt = 0
    },
  }
}
