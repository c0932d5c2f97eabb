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

export function createDesk(owner: StaffOwner, send: (draft: Draft) => Unsent) {
  /** What methods return until the code is here; of null the person's calls are kept until then. The others return a promise. */
  const early: Record<string, unknown> = { queue: LOADING, notes: LOADING, unsent: EMPTY, viewers: EMPTY, viewing: null, setStatus: null }
  const kept = new Set<(part: Part) => unknown>()

  const load: () => Promise<Part> = loadOnce(async () => {
    const part = (desk.part = (await import('./staff.js')).createStaff(owner))
    if (owner.isUsable()) void part.live()
    kept.forEach((call) => call(part))
    owner.changed()
    return part
  }, (error) => {
    if (error) early.queue = early.notes = { ...LOADING, state: 'failed', error }
    owner.changed() // Who shows a list reads it again, and the code with it.
  })

  const chat: Record<string, unknown> = {
    reply: (sessionId: string, text: string, { files = [], ...more }: Partial<Draft> = {}) => send({ ...more, sessionId, text, files }),
    addNote: (sessionId: string, text: string) => send({ sessionId, text, files: [], note: true }),
  }

  /** A method of the desk, called at once if the code is here, else as soon as it is. */
  const method = (name: string): Call => (...given) => {
    const call = (part: Part): unknown => (part.chat as Record<string, Call>)[name]!(...given)
    if (desk.part) return call(desk.part)
    const known = early[name]
    if (known === null) kept.add(call)
    const answer = load().then(known === null ? undefined : call)
    answer.catch(() => {}) // Who waits for the answer learns of a failure.
    return known === undefined ? answer : known
  }

  for (const name of [...Object.keys(early), 'loadMore', 'take', 'release', 'transfer', 'templates', 'render']) chat[name] = method(name)

  const desk: { part: Part | undefined; kept: Set<unknown>; load: () => Promise<Part>; chat: StaffChat } = {
    /** Undefined until the code is here. */
    part: undefined,
    kept: kept as Set<unknown>,
    load,
    chat: chat as never,
  }
  return desk
}
