/** The desk of a member of staff, whose code is loaded when it is first used, or when the person is known to be staff. */

import type { StaffChat, Unsent } from './api.js'
import type { Draft } from './outbox.js'
import type { createStaff, StaffOwner } from './staff.js'
import { loadOnce } from './util.js'

type Part = ReturnType<typeof createStaff>
export type Desk = ReturnType<typeof createDesk>
type Call = (...given: unknown[]) => unknown

const EMPTY: readonly never[] = []
/** What queue and notes are until the code is here. */
const LOADING = { sessions: EMPTY, notes: EMPTY, unsent: EMPTY, state: 'loading', hasMore: false }
/** The methods whose code is loaded later. */
const METHODS = 'queue loadMore take release transfer unsent notes templates render viewing viewers setStatus'.split(' ')
const EARLY: Record<string, unknown> = { queue: LOADING, notes: LOADING, unsent: EMPTY, viewers: EMPTY }

export function createDesk(owner: StaffOwner, send: (draft: Draft) => Unsent) {
  const load: () => Promise<Part> = loadOnce(async () => {
    const { createStaff } = await import('./staff.js')
    desk.part = createStaff(owner)
    owner.changed()
    return desk.part
  })

  const chat: Record<string, unknown> = {
    reply: (sessionId: string, text: string, { files = [], ...more }: Partial<Draft> = {}) => send({ ...more, sessionId, text, files }),
    addNote: (sessionId: string, text: string) => send({ sessionId, text, files: [], note: true }),
  }

  /** A method of the desk, called at once if the code is here, else as soon as it is. */
  const method = (name: string): Call => (...given) => {
    const call = (part: Part): unknown => (part.chat as Record<string, Call>)[name]!(...given)
    if (desk.part) return call(desk.part)
    const answer = load().then(call)
    answer.catch(() => {}) // Who waits for the answer learns of a failure; a snapshot is loaded with its next use.
    return EARLY[name] ?? answer
  }

  for (const name of METHODS) chat[name] = method(name)

  const desk: { part: Part | undefined; load: () => Promise<Part>; chat: StaffChat } = {
    /** Undefined until the code is here. */
    part: undefined,
    load,
    chat: chat as never,
  }
  return desk
}
