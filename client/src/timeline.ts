/**
 * The messages of one session, or of all sessions of a player: pages from REST, new messages from the transport.
 *
 * A message is shown once, and after all messages of its session with a lower seq. One that comes early waits; if the missing
 * ones do not come, REST is asked for them.
 */

import { ChatError } from './errors.js'
import type { Attachment, Message } from './protocol.js'
import { keep } from './store.js'
import { backoff, createTimers } from './util.js'

/** Messages per page. */
const PAGE = 100
/** The server's limit, for what is missing. */
const MAX_PAGE = 500
/** Milliseconds in which a missing message may still come by itself. */
const GAP_DELAY = 1000
const STATES: readonly string[] = ['awaited', 'stored', 'ready', 'refused', 'gone', 'sent', 'delivered', 'read']
/** True if a state of a file or of a message comes after another one. */
export const isLater = (state: string, other: string): boolean => STATES.indexOf(state) > STATES.indexOf(other)

export interface PageQuery {
  limit: number
  before?: string | null | undefined
  after_seq?: number
  sessionId?: string | undefined
  etag?: string | null | undefined
}

export interface Page {
  /** Ascending; undefined if nothing has changed since `etag`. */
  messages: readonly Message[] | undefined
  /** `before` of the page before; undefined at the beginning. */
  next?: string | null | undefined
  etag?: string | null | undefined
}

export interface TimelineOwner {
  /** Raises ChatError. */
  page(query: PageQuery): Promise<Page>
  isOwn(message: Message): boolean
  /** False while nothing can be read, or nobody wants it. */
  active(): boolean
  changed(): void
  /** This message is shown now. */
  shown(message: Message): unknown
}

/** The messages of one session. */
interface Run {
  /** Ascending, without a hole. */
  messages: Message[]
  /** The seq up to which everything is here, from the first of `messages` on; undefined until a page has said where it begins. */
  upTo: number | undefined
  /** What came before its predecessors, by seq. */
  early: Map<number, Message>
  readUpTo: number
}

export type Timeline = ReturnType<typeof createTimeline>

export function createTimeline(sessionId: string | undefined, owner: TimelineOwner) {
  const runs = new Map<string, Run>()
  const files = new Map<string, Attachment>()
  /** By session for what is missing there, and one for the newest page. */
  const timers = createTimers()
  const waiting: Message[] = []
  let loaded = false
  let next: string | null | undefined
  let etag: string | null | undefined
  let error: ChatError | undefined
  let loadingOlder = false
  let refreshing: Promise<boolean> | undefined
  let again = false
  let failures = 0
  let merged: readonly Message[] = []
  let stale = false
  let marks: Record<string, number> = {}

  const changed = (): void => {
    stale = true
    owner.changed()
  }

  const runOf = (id: string): Run => {
    let run = runs.get(id)
    if (!run) runs.set(id, (run = { messages: [], upTo: undefined, early: new Map(), readUpTo: 0 }))
    return run
  }

  /** The state of a file that comes later; its place is of the message. */
  const noteFile = (file: Attachment): Attachment => {
    const known = files.get(file.id)
    const best = known && isLater(known.state, file.state) ? { ...known, place: file.place } : file
    files.set(file.id, best)
    return best
  }

  /** The message with the newest known states of its files and of itself: states go forwards only. The known one if that is nothing new. */
  const newest = (message: Message, known = message): Message => {
    const fresh = {
      ...message,
      ...(isLater(known.status, message.status) && { status: known.status }),
      ...(message.attachments && { attachments: message.attachments.map(noteFile) }),
    }
    return JSON.stringify(fresh) === JSON.stringify(known) ? known : fresh
  }

  const change = (run: Run, act: (message: Message) => Message): void => {
    run.messages = run.messages.map(act)
    changed()
  }

  const append = (run: Run, message: Message): void => {
    run.upTo = message.seq
    run.messages.push(newest(message))
    owner.shown(message)
  }

  /** Show what has waited for its predecessors; ask for what does not come. */
  const drain = (id: string, run: Run): void => {
    const { early } = run
    for (let message; (message = early.get(run.upTo! + 1)); ) append(run, message)
    for (const seq of early.keys()) if (seq <= run.upTo!) early.delete(seq)
    if (!early.size) timers.end(id)
    else if (run.upTo !== undefined && !timers.has(id)) timers.start(id, GAP_DELAY, () => void heal(id, run))
  }

  const put = (run: Run, message: Message): void => {
    const { messages, upTo } = run
    if (upTo === undefined || message.seq > upTo) run.early.set(message.seq, message)
    else {
      const index = messages.findLastIndex(({ seq }) => seq === message.seq)
      if (index >= 0) messages[index] = newest(message, messages[index])
    }
    drain(message.session_id, run)
  }

  /** Fetch what is missing after the last message without a hole. What the server answers is all that there is. */
  const heal = async (id: string, run: Run): Promise<void> => {
    if (!run.early.size || !owner.active()) return
    try {
      const messages = (await owner.page({ limit: MAX_PAGE, after_seq: run.upTo!, sessionId: id })).messages!
      error = undefined
      failures = 0
      for (const message of messages) if (message.seq > run.upTo!) append(run, message)
      // The server has no message in between: it was deleted.
      if (!messages.length && run.early.size) run.upTo = Math.min(...run.early.keys()) - 1
      drain(id, run)
    } catch (reason) {
      error = reason as ChatError
      failures += 1
      timers.start(id, backoff(failures + 1), () => void heal(id, run))
    }
    changed()
  }

  /** Take a message of the transport. Returns true if it is kept, and not shown yet. */
  const receive = (message: Message): boolean => {
    if (sessionId && sessionId !== message.session_id) return false
    if (!loaded) return !!waiting.push(message)
    const run = runOf(message.session_id)
    if (message.seq === 1) run.upTo ??= 0
    put(run, message)
    // A replay of a session may begin in its middle: pages say what is before.
    if (run.upTo === undefined) void refresh()
    changed()
    return run.early.has(message.seq)
  }

  /** Insert a page that ends with the newest message, or one that ends where the known messages begin. */
  const insert = (page: readonly Message[], older?: boolean): void => {
    const sorted = [...page].sort((a, b) => a.seq - b.seq)
    for (const message of older ? sorted.reverse() : sorted) {
      const run = runOf(message.session_id)
      run.upTo ??= message.seq - 1
      if (older && message.seq < (run.messages[0]?.seq ?? 0)) {
        run.messages.unshift(newest(message))
        owner.shown(message)
      } else if (loaded) put(run, message)
      // What the first page does not have between two messages was deleted.
      else append(run, message)
    }
  }

  const isKnown = ({ session_id, seq }: Message): boolean => runs.get(session_id)?.messages.at(-1)?.seq! >= seq

  /** Read from the newest message back to one that is known. */
  const readNewest = async (): Promise<void> => {
    const found: (readonly Message[])[] = []
    let before: string | null | undefined
    let newTag: string | null | undefined
    do {
      const page = await owner.page({ limit: PAGE, before, sessionId, etag: before ? undefined : etag })
      newTag ??= page.etag
      if (!page.messages) return
      found.unshift(page.messages)
      before = page.next
      if (!loaded) next = before
    } while (loaded && before && !found[0]!.some(isKnown))
    if (loaded && !runs.size) next = before
    etag = newTag
    insert(found.flat())
    loaded = true
    if (sessionId) runOf(sessionId).upTo ??= 0
    for (const message of waiting.splice(0)) receive(message)
  }

  /** Read the newest messages, since events may have been missed. Returns false if that failed; then it is tried again. */
  const refresh = (): Promise<boolean> => {
    timers.end('')
    again = refreshing !== undefined
    refreshing ??= (async () => {
      let done = false
      try {
        do {
          again = false
          await readNewest()
        } while (again)
        error = undefined
        failures = 0
        done = true
      } catch (reason) {
        error = reason as ChatError
        failures += 1
        if (error.transient) timers.start('', backoff(failures + 1), () => owner.active() && void refresh())
      }
      refreshing = undefined
      for (const [id, run] of runs) {
        if (done && run.early.size) run.upTo ??= Math.min(...run.early.keys()) - 1
        drain(id, run)
      }
      changed()
      return done
    })()
    return refreshing
  }

  /** All sessions in the order of time, and each in the order of seq, whatever the clocks say. */
  const merge = (): readonly Message[] => {
    const keyed: [string, Message][] = []
    const read: Record<string, number> = {}
    for (const [id, { messages, readUpTo }] of runs) {
      let at = ''
      if (readUpTo) read[id] = readUpTo
      for (const message of messages) {
        if (message.created_at > at) at = message.created_at
        if (message.status === 'read' && message.seq > (read[id] ?? 0) && owner.isOwn(message)) read[id] = message.seq
        keyed.push([at + id, message])
      }
    }
    marks = keep(marks, read)
    if (runs.size > 1) keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    return keyed.map(([, message]) => message)
  }

  return {
    receive,
    refresh,
    /** Note by session the seq up to which everything is here; the lowest, if another timeline has noted one. */
    position(found: Map<string, number>): void {
      for (const [id, { messages, upTo }] of runs) if (messages.length) found.set(id, Math.min(upTo!, found.get(id) ?? upTo!))
    },
    /** One side has read up to a seq: `own` is true if the messages are those of this side. */
    read(id: string, upTo: number, own: boolean): void {
      if (sessionId && sessionId !== id) return
      const run = runOf(id)
      if (own) run.readUpTo = Math.max(run.readUpTo, upTo)
      change(run, (message) => (message.seq <= upTo && message.status !== 'read' && owner.isOwn(message) === own ? { ...message, status: 'read' } : message))
    },
    attachment(id: string, file: Attachment): void {
      if (sessionId && sessionId !== id) return
      noteFile(file)
      change(runOf(id), (message) => (message.attachments?.some((own) => own.id === file.id) ? newest(message) : message))
    },
    async loadOlder(limit = PAGE): Promise<void> {
      if (loadingOlder || !next) return
      loadingOlder = true
      owner.changed()
      try {
        const page = await owner.page({ limit, before: next, sessionId })
        next = page.next
        insert(page.messages!, true)
        error = undefined
      } catch (reason) {
        error = reason as ChatError
      }
      loadingOlder = false
      changed()
    },
    /** The snapshot's fields. */
    view() {
      if (stale) merged = keep(merged, merge())
      stale = false
      const healing = [...runs.values()].some(({ early }) => early.size)
      return {
        messages: merged,
        state: (!loaded ? (error ? 'failed' : 'loading') : healing ? 'healing' : 'complete') as 'loading' | 'complete' | 'healing' | 'failed',
        hasOlder: !!next,
        loadingOlder,
        readUpTo: marks,
        error,
      }
    },
    close: timers.clear,
  }
}

/** By session, the seq up to which everything is here. */
export function positionsOf(timelines: Iterable<Timeline>): Map<string, number> {
  const found = new Map<string, number>()
  for (const timeline of timelines) timeline.position(found)
  return found
}
