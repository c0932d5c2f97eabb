/** Who types, and that this person types. */

import type { Typist } from './api.js'
import type { Message, ServerFrame } from './protocol.js'
import { createTimers } from './util.js'

/** Milliseconds after which a sign that was not repeated ends. */
const FORGET_AFTER = 6000
/** Milliseconds between two signs. */
const SEND_EVERY = 3000

export function createTyping(send: (typing: boolean, sessionId: string | undefined) => void, changed: () => void) {
  const typists = new Map<string, Typist>()
  const timers = createTimers()
  let sentAt = 0
  let sentFor: string | undefined

  const forget = (name: string): void => {
    timers.end(name)
    if (typists.delete(name)) changed()
  }

  const stop = (): void => {
    if (sentAt) send(false, sentFor)
    sentAt = 0
  }

  return {
    /** Somebody types, or has stopped. */
    apply({ sessionId, by, staffId, typing, for: purpose }: ServerFrame & { type: 'typing' }): void {
      const note = purpose === 'note'
      const name = [sessionId, by, staffId, note].join()
      if (!typing) return forget(name)
      timers.start(name, FORGET_AFTER, () => forget(name))
      if (typists.has(name)) return
      typists.set(name, { sessionId, by, staffId, note })
      changed()
    },
    /** A message of this side has come: nobody of it types it any more. */
    wrote({ session_id, sender }: Message): void {
      for (const [name, typist] of typists) if (typist.sessionId === session_id && typist.by === sender && !typist.note) forget(name)
    },
    list: (sessionId?: string): Typist[] =>
      [...typists.values()].filter((typist) => !sessionId || typist.sessionId === sessionId),
    stop,
    set(typing: boolean, sessionId?: string): void {
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
