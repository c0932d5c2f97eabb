/** What members of staff have beside: the queue, assignment, notes, templates, and who looks at a session. Loaded for staff only. */

import type { Notes, Queue, QueueFilter, StaffChat, Unsent } from './api.js'
import { ChatError } from './errors.js'
import type { Message, Note, PlayerId, QueuedSession, ServerFrame, Session, StaffStatus, Viewer } from './protocol.js'
import type { Core } from './core.js'
import type { Item } from './outbox.js'
import type { Sessions } from './sessions.js'
import type { Page, PageQuery } from './timeline.js'
import type { Timer } from './util.js'
import { backoff, createTimers, uuid, withQuery } from './util.js'

const ADMIN = '/api/gre-admin'
/** Sessions per page of the queue. */
const PAGE = 100
/** Milliseconds: a sign that somebody looks at a session is forgotten after 15 s. */
const VIEW_EVERY = 7000
/** Milliseconds in which sessions whose place in the queue is unknown are collected. */
const COLLECT = 100
/** Sessions whose notes are read again after a reconnection. */
const MAX_KEPT = 10
/** More players than this are read as a list. */
const MAX_SINGLE = 20

export interface StaffOwner extends Core {
  sessions: Sessions
  read<T extends object>(name: string, compute: () => T): T
  /** Own texts that are not known to be stored, of all sessions. */
  unsent(): Item[]
  noteStored(id: string): void
  /** Somebody of the staff is there, or has left. */
  presence(frame: ServerFrame & { type: 'staff_status' }): void
}

interface List {
  filter: QueueFilter
  cursor: string | null | undefined
  loaded: number
  running: Promise<void> | undefined
  error: ChatError | undefined
  failures: number
}

interface NoteList {
  byN: Map<number, Note>
  state: Notes['state']
  error?: ChatError
  failures: number
}

export function createStaff(owner: StaffOwner) {
  const { rest, sessions } = owner
  const { rows } = sessions
  const lists = new Map<string, List>()
  /** The one that was used last is the last. */
  const notes = new Map<string, NoteList>()
  const viewers = new Map<string, readonly Viewer[]>()
  const viewed = new Set<string>()
  const unplaced = new Set<PlayerId>()
  /** For what is read again after a failure. */
  const timers = createTimers()
  let viewTimer: Timer
  let placeTimer: Timer
  let status: StaffStatus['status'] | undefined

  const queuePath = (query: Record<string, string | number | undefined>): string => withQuery(`${ADMIN}/queue`, query)

  const call = async <T>(method: string, path: string, body?: object): Promise<T> => (await rest<T>(method, ADMIN + path, body)).data

  /** Read again what could not be read and may be later; the next connection reads all the same. */
  const tryAgain = (name: string, reason: unknown, failures: number, read: () => void): void => {
    const { transient, retryAfter } = reason as ChatError
    if (transient) timers.start(name, retryAfter ? retryAfter * 1000 : backoff(failures + 1), () => owner.isUsable() && read())
  }

  const matches = ({ status: wanted, assigned }: QueueFilter, row: QueuedSession): boolean =>
    (!wanted || row.status === wanted) &&
    (!assigned || row.assigned_staff_id === (assigned === 'me' ? owner.me()?.staffId : null)) &&
    (row.status === 'closed' || row.waiting_since !== undefined)

  const apply = (row: Session): void => {
    sessions.apply(row)
    // Only the queue tells since when a player waits.
    const known = rows.get(row.id)!
    if (lists.size && known.status === 'active' && known.waiting_since === undefined) place(known.player_id)
  }

  /** A new message changes since when its player waits. */
  const answered = ({ session_id, sender, created_at }: Message): void => {
    const row = rows.get(session_id)
    if (!row || row.waiting_since === undefined) return
    const waits = sender === 'staff' ? null : (row.waiting_since ?? (sender === 'player' ? created_at : null))
    rows.set(session_id, { ...row, waiting_since: waits, replied: row.replied || sender === 'staff' })
  }

  const place = (player: PlayerId): void => {
    unplaced.add(player)
    placeTimer ??= setTimeout(async () => {
      placeTimer = undefined
      const players = [...unplaced]
      unplaced.clear()
      if (players.length > MAX_SINGLE) return void refresh()
      for (const id of players) {
        try {
          const { data } = await rest<{ sessions: QueuedSession[] }>('GET', queuePath({ player: String(id), limit: 10 }))
          data.sessions.forEach((row) => rows.set(row.id, { ...rows.get(row.id), ...row }))
          owner.changed()
        } catch (error) {
          tryAgain(`place ${id}`, error, 3, () => place(id))
        }
      }
    }, COLLECT)
  }

  const load = (list: List, restart: boolean): Promise<void> => {
    list.running ??= (async () => {
      const before = new Map(rows)
      const received = new Set<string>()
      try {
        let cursor = restart ? undefined : list.cursor
        // A list that is read again is read as far as it was.
        do {
          const { data } = await rest<{ sessions: QueuedSession[]; next: string | null }>('GET', queuePath({ ...list.filter, limit: PAGE, cursor: cursor ?? undefined }))
          for (const row of data.sessions) received.add(row.id), sessions.apply(row)
          cursor = data.next
        } while (restart && cursor && received.size < list.loaded)
        list.cursor = cursor
        list.loaded = restart ? received.size : list.loaded + received.size
        list.error = undefined
        list.failures = 0
        // What the list does not have any more, and has not changed meanwhile, is gone.
        if (restart) for (const [id, row] of before) if (!received.has(id) && rows.get(id) === row && matches(list.filter, row)) rows.delete(id)
      } catch (error) {
        list.error = error as ChatError
        list.failures += 1
        tryAgain(`queue ${nameOf(list.filter)}`, error, list.failures, () => void load(list, restart))
      }
      list.running = undefined
      owner.changed()
    })()
    return list.running
  }

  const nameOf = (filter: QueueFilter): string => JSON.stringify([filter.status, filter.assigned])

  const listOf = (filter: QueueFilter): List => {
    const name = nameOf(filter)
    let list = lists.get(name)
    if (!list) {
      lists.set(name, (list = { filter, cursor: undefined, loaded: 0, running: undefined, error: undefined, failures: 0 }))
      if (owner.isUsable()) void load(list, true)
    }
    return list
  }

  const loadNotes = async (id: string, list: NoteList): Promise<void> => {
    try {
      for (let more = true; more; ) {
        let after = 0
        while (list.byN.has(after + 1)) after += 1
        const page = await call<{ notes: Note[]; has_more: boolean }>('GET', withQuery(`/notes/${id}`, { after_n: after || undefined }))
        for (const note of page.notes) list.byN.set(note.n, note), owner.noteStored(note.id)
        more = page.has_more && page.notes.length > 0
      }
      list.state = 'complete'
      list.failures = 0
      delete list.error
    } catch (error) {
      if (list.state === 'loading') list.state = 'failed'
      list.error = error as ChatError
      list.failures += 1
      tryAgain(`notes ${id}`, error, list.failures, () => notes.get(id) === list && void loadNotes(id, list))
    }
    owner.changed()
  }

  const notesOf = (id: string): NoteList => {
    let list = notes.get(id)
    if (list) notes.delete(id), notes.set(id, list)
    else {
      notes.set(id, (list = { byN: new Map(), state: 'loading', failures: 0 }))
      if (owner.isUsable()) void loadNotes(id, list)
    }
    return list
  }

  /** Read again what may have changed. */
  const refresh = async (): Promise<boolean> => {
    for (const id of [...notes.keys()].slice(0, -MAX_KEPT)) notes.delete(id)
    for (const [id, list] of [...notes]) void loadNotes(id, list)
    await Promise.all([...lists.values()].map((list) => load(list, true)))
    return [...lists.values()].every(({ error }) => !error)
  }

  const assign = async (path: string, body: object): Promise<Session> => {
    const { session } = await call<{ session: Session }>('POST', path, body)
    apply(session)
    return session
  }

  const view = (): void => {
    clearInterval(viewTimer)
    for (const sessionId of viewed) owner.link({ type: 'viewing', sessionId, viewing: true })
    if (viewed.size) viewTimer = setInterval(view, VIEW_EVERY)
  }

  const readStaff = async (): Promise<void> => {
    try {
      const { staff } = await call<{ staff: StaffStatus[] }>('GET', '/staff')
      for (const member of staff) owner.presence({ type: 'staff_status', ...member })
    } catch (error) {
      tryAgain('staff', error, 3, () => void readStaff())
    }
  }

  const chat: Omit<StaffChat, 'reply' | 'addNote'> = {
    queue: (filter = {}) =>
      owner.read(`queue ${filter.status} ${filter.assigned}`, (): Queue => {
        const { cursor, error } = listOf(filter)
        const found = [...rows.values()].filter((row) => matches(filter, row)).sort(byUrgency)
        const state = cursor !== undefined ? 'complete' : error ? 'failed' : 'loading'
        const known = owner.read(`rows ${filter.status} ${filter.assigned}`, () => found)
        return { sessions: known, state, hasMore: !!cursor, ...(error && { error }) }
      }),
    loadMore: async (filter = {}) => {
      const list = listOf(filter)
      await list.running
      if (list.cursor) await load(list, false)
    },
    take: (sessionId, fromStaffId) => assign('/take', { sessionId, fromStaffId }),
    release: (sessionId) => assign('/release', { sessionId }),
    transfer: (sessionId, toStaffId, { note, afterSeq } = {}) => assign('/transfer', { sessionId, toStaffId, note, noteId: note && uuid(), afterSeq }),
    notes: (sessionId) =>
      owner.read(`notes ${sessionId}`, (): Notes => {
        const { byN, state, error } = notesOf(sessionId)
        const sorted = owner.read(`n ${sessionId}`, () => [...byN.values()].sort((a, b) => a.n - b.n))
        const unsent = owner.read(`u ${sessionId}`, () => owner.unsent().filter((item) => item.note && item.sessionId === sessionId))
        return { notes: sorted, unsent, state, ...(error && { error }) }
      }),
    unsent: () => owner.read('unsent', (): readonly Unsent[] => owner.unsent()),
    templates: async () => (await call<{ templates: Awaited<ReturnType<StaffChat['templates']>> }>('GET', '/templates')).templates,
    render: (templateId, sessionId) => call('POST', `/templates/${templateId}/render`, { sessionId }),
    viewing(sessionId, viewing) {
      if (viewing) viewed.add(sessionId)
      else if (viewed.delete(sessionId)) owner.link({ type: 'viewing', sessionId, viewing })
      view()
    },
    viewers: (sessionId) => viewers.get(sessionId) ?? NOBODY,
    setStatus(wanted) {
      status = wanted
      owner.link({ type: 'set_status', status: wanted })
    },
  }

  return {
    chat,
    apply,
    /** Send a reply or a note. Raises ChatError. */
    async deliver({ id, text, files, sessionId, playerId, afterSeq, templateId, owner: author, note }: Item): Promise<Message | undefined> {
      const [path, body] = note
        ? ['/notes', { id, sessionId, text }]
        : ['/reply', { id, sessionId, message: text, attachmentIds: files.length ? files : undefined, playerId, afterSeq, templateId }]
      const { data } = await rest<{ message?: Message; note?: Note }>('POST', ADMIN + path, body, { owner: author })
      if (data.note) this.addNote(data.note)
      return data.message
    },
    /** A page of messages of a session. Raises ChatError. */
    async page({ limit, before, after_seq, sessionId }: PageQuery): Promise<Page> {
      if (!sessionId) return { messages: [] }
      const query = { limit, before_seq: before, after_seq }
      const { messages, session, has_more } = await call<{ messages: Message[]; session: Session; has_more: boolean }>('GET', withQuery(`/messages/${sessionId}`, query))
      apply(session)
      return { messages, next: has_more && messages[0] ? String(messages[0].seq) : undefined }
    },
    refresh,
    addNote(note: Note): void {
      notes.get(note.session_id)?.byN.set(note.n, note)
      owner.noteStored(note.id)
      owner.changed()
    },
    frame(frame: ServerFrame): void {
      if (frame.type === 'session_note') this.addNote(frame.note)
      if (frame.type === 'chat_message') answered(frame.message)
      if (frame.type === 'session_viewers') {
        if (JSON.stringify(viewers.get(frame.sessionId)) === JSON.stringify(frame.viewers)) return
        viewers.set(frame.sessionId, frame.viewers)
        owner.changed()
      }
    },
    /** The connection is live: say again what the server forgets, and read who is there. */
    async live(): Promise<void> {
      if (status) owner.link({ type: 'set_status', status })
      view()
      await readStaff()
    },
    clear(): void {
      for (const map of [lists, notes, viewers]) map.clear()
      unplaced.clear()
      viewed.clear()
      timers.clear()
      clearInterval(viewTimer)
      clearTimeout(placeTimer)
      placeTimer = status = undefined
    },
  }
}

const NOBODY: readonly Viewer[] = []

/** The longest wait first, then answered sessions, then closed ones, of both the latest first. */
function byUrgency(a: QueuedSession, b: QueuedSession): number {
  const rank = (row: QueuedSession): number => (row.status === 'closed' ? 2 : row.waiting_since ? 0 : 1)
  const at = (row: QueuedSession): string => row.last_message_at ?? row.created_at
  const later = at(a) < at(b) || (at(a) === at(b) && a.id < b.id) ? 1 : -1
  return rank(a) - rank(b) || (a.waiting_since && b.waiting_since && a.waiting_since !== b.waiting_since ? (a.waiting_since < b.waiting_since ? -1 : 1) : later)
}
