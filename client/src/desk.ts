/** The desk of a member of staff, whose code is loaded when it is first used, or when the person is known to be staff. */

import type { Notes, Queue, QueueFilter, StaffChat, Unsent } from './api.js'
import type { Draft } from './outbox.js'
import type { Note, ServerFrame, Session, Viewer } from './protocol.js'
import type { createStaff, StaffOwner } from './staff.js'
import { later } from './util.js'

const EMPTY: readonly never[] = []
const NO_QUEUE: Queue = { state: 'loading', sessions: EMPTY, hasMore: false }
const NO_NOTES: Notes = { state: 'loading', notes: EMPTY, unsent: EMPTY }

export function createDesk(owner: StaffOwner, send: (draft: Draft) => Unsent) {
  let part: ReturnType<typeof createStaff> | undefined
  const load = later(async () => {
    const { createStaff } = await import('./staff.js')
    part = createStaff(owner)
    owner.changed()
    return part
  })
  type Part = NonNullable<typeof part>
  /** Once the code is here. A failure shows: the state stays `loading`, and the next use tries again. */
  const soon = (act: (part: Part) => void): void => void load().then(act, () => {})
  const now = <T>(none: T, view: (chat: Part['chat']) => T): T => {
    if (!part) soon(() => {})
    return part ? view(part.chat) : none
  }
  const call =
    <Name extends 'loadMore' | 'take' | 'release' | 'transfer' | 'templates' | 'render'>(name: Name) =>
    async (...given: unknown[]) =>
      ((await load()).chat[name] as (...given: unknown[]) => unknown)(...given)

  const chat = {
    queue: (filter?: QueueFilter) => now(NO_QUEUE, (part) => part.queue(filter)),
    notes: (id: string) => now(NO_NOTES, (part) => part.notes(id)),
    viewers: (id: string) => now<readonly Viewer[]>(EMPTY, (part) => part.viewers(id)),
    reply: (sessionId: string, text: string, options = {}) => send({ files: [], ...options, sessionId, text }),
    addNote: (sessionId: string, text: string) => send({ files: [], sessionId, text, note: true }),
    viewing: (...given: [string, boolean]) => soon((part) => part.chat.viewing(...given)),
    setStatus: (status: 'online' | 'away' | 'offline') => soon((part) => part.chat.setStatus(status)),
    ...Object.fromEntries((['loadMore', 'take', 'release', 'transfer', 'templates', 'render'] as const).map((name) => [name, call(name)])),
  } as unknown as StaffChat

  return {
    chat,
    apply: (row: Session): void => (part ? part.apply(row) : owner.sessions.apply(row)),
    /** A note is stored. */
    addNote: (note: Note): void => (part ? part.addNote(note) : owner.noteStored(note.id)),
    frame: (frame: ServerFrame): void => part?.frame(frame),
    refresh: (): Promise<boolean> | true => part?.refresh() ?? true,
    live: (): void => soon((part) => part.live()),
    clear: (): void => part?.clear(),
  }
}
