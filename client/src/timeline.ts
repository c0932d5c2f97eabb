/**
 * The messages of one session, or of all sessions of a player: pages from REST, new messages from the transport.
 *
 * A message is shown once, and after all messages of its session with a lower seq. One that comes early waits; if the missing
 * ones do not come, REST is asked for them.
 */

import { ChatError } from './errors.js'
import type { Attachment, Message } from './protocol.js'
import { keep } from './store.js'
import { backoff, type Timer } from './util.js'

/** Messages per page. */
const PAGE = 100
/** Milliseconds in which a missing message may still come by itself. */
const GAP_DELAY = 1000
const STATES: readonly string[] = ['awaited', 'stored', 'ready', 'refused', 'gone', 'sent', 'delivered', 'read']

export interface PageQuery {
  limit: number
  before?: string | undefined
  after?: number
  sessionId?: string | undefined
  etag?: string | undefined
}

export interface Page {
  /** Ascending; undefined if nothing has changed since `etag`. */
  messages: readonly Message[] | undefined
  /** `before` of the page before; undefined at the beginning. */
  next?: string | undefined
  etag?: string | undefined
}

export interface TimelineOwner {
  /** Raises ChatError. */
  page(query: PageQuery): Promise<Page>
  isOwn(message: Message): boolean
  /** False while nothing can be read, or nobody wants it. */
  active(): boolean
  changed(): void
  /** This message is shown now. */
  shown(message: Message): void
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
  timer?: Timer
}

export type Timeline = ReturnType<typeof createTimeline>

export function createTimeline(sessionId: string | undefined, owner: TimelineOwner) {
  const runs = new Map<string, Run>()
  const files = new Map<string, Attachment>()
  let waiting: [Message, boolean][] = []
  let loaded = false
  let next: string | undefined
  let etag: string | undefined
  let error: ChatError | undefined
  let loadingOlder = false
  let refreshing: Promise<boolean> | undefined
  let again = false
  let failures = 0
  let retryTimer: Timer
  let merged: readonly Message[] | undefined = []
  let marks: unknown

  const changed = (): void => {
    merged = undefined
    owner.changed()
  }

  const runOf = (id: string, upTo: number | undefined): Run => {
    let run = runs.get(id)
    if (!run) runs.set(id, (run = { messages: [], upTo, early: new Map(), readUpTo: 0 }))
    return run
  }

  /** The message with the newest known states of its files and of itself: states go forwards only. */
  const newest = (message: Message, known?: Message): Message => {
    const status = known && STATES.indexOf(known.status) > STATES.indexOf(message.status) ? known.status : message.status
    const attachments = message.attachments?.map((file) => {
      const other = files.get(file.id)
      const late = other && STATES.indexOf(other.state) > STATES.indexOf(file.state)
      if (!late) files.set(file.id, file)
      return late ? { ...other, place: file.place } : file
    })
    return { ...message, status, ...(attachments && { attachments }) }
  }

  const noteRead = (run: Run, message: Message): void => {
    if (message.status === 'read' && owner.isOwn(message)) run.readUpTo = Math.max(run.readUpTo, message.seq)
  }

  const append = (run: Run, message: Message): void => {
    run.upTo = message.seq
    run.early.delete(message.seq)
    if (message.status !== 'read' && owner.isOwn(message) && message.seq <= run.readUpTo) message = { ...message, status: 'read' }
    run.messages.push(message)
    noteRead(run, message)
    owner.shown(message)
  }

  /** Show what has waited for its predecessors; ask for what does not come. */
  const drain = (run: Run): void => {
    if (run.upTo === undefined) return
    for (const seq of run.early.keys()) if (seq <= run.upTo) run.early.delete(seq)
    for (let message; (message = run.early.get(run.upTo + 1)); ) append(run, message)
    if (run.early.size) run.timer ??= setTimeout(() => void heal(run), GAP_DELAY)
    else clearTimeout(run.timer), (run.timer = undefined)
  }

  const put = (run: Run, received: Message): void => {
    const index = run.upTo === undefined ? -1 : received.seq <= run.upTo ? run.messages.findLastIndex(({ seq }) => seq <= received.seq) : -1
    const known = run.messages[index]
    const message = newest(received, known)
    if (known?.seq === message.seq) {
      run.messages[index] = message
      noteRead(run, message)
    } else if (run.upTo === undefined || message.seq > run.upTo) run.early.set(message.seq, message)
  }

  /** Fetch what is missing after the last message without a hole. What the server answers is all that there is. */
  const heal = async (run: Run, failed = 0): Promise<void> => {
    const id = [...run.early.values()][0]?.session_id
    if (!id || run.upTo === undefined || !owner.active()) return void (run.timer = undefined)
    try {
      const { messages = [] } = await owner.page({ limit: 200, after: run.upTo, sessionId: id })
      error = undefined
      for (const message of messages) if (message.seq > run.upTo) append(run, newest(message))
      // The server has no message in between: it was deleted.
      if (!messages.length && run.early.size) run.upTo = Math.min(...run.early.keys()) - 1
      run.timer = undefined
      drain(run)
      if (run.early.size && messages.length) clearTimeout(run.timer), void heal(run)
    } catch (reason) {
      error = reason as ChatError
      run.timer = setTimeout(() => void heal(run, failed + 1), backoff(failed + 2))
    }
    changed()
  }

  const receive = (message: Message, replay: boolean): void => {
    if (sessionId && sessionId !== message.session_id) return
    if (!loaded) return void waiting.push([message, replay])
    // A replay begins where `since` ends, or with the end of a long history.
    const run = runOf(message.session_id, replay || message.seq === 1 || sessionId ? message.seq - 1 : undefined)
    put(run, message)
    drain(run)
    if (run.upTo === undefined) void refresh()
    changed()
  }

  /** Insert a page that ends with the newest message, or one that ends where the known messages begin. */
  const insert = (messages: readonly Message[], older: boolean): void => {
    const bySession = new Map<string, Message[]>()
    for (const message of messages) bySession.set(message.session_id, [...(bySession.get(message.session_id) ?? []), message])
    for (const [id, list] of bySession) {
      list.sort((a, b) => a.seq - b.seq)
      const run = runOf(id, undefined)
      run.upTo ??= list[0]!.seq - 1
      const first = run.messages[0]?.seq ?? Infinity
      if (older && run.messages.length) {
        const before = list.filter(({ seq }) => seq < first).map((message) => newest(message))
        run.messages.unshift(...before)
        for (const message of before) noteRead(run, message), owner.shown(message)
      } else for (const message of list) put(run, message)
      drain(run)
    }
  }

  const isKnown = ({ session_id, seq }: Message): boolean => {
    const run = runs.get(session_id)
    return run?.upTo !== undefined && seq <= run.upTo && run.messages.length > 0
  }

  /** Read from the newest message back to one that is known. */
  const readNewest = async (): Promise<void> => {
    const found: (readonly Message[])[] = []
    let before: string | undefined
    let newTag: string | undefined
    do {
      const page = await owner.page({ limit: PAGE, before, sessionId, etag: before ? undefined : etag })
      if (!before) newTag = page.etag
      if (!page.messages) return
      found.unshift(page.messages)
      before = page.next
      if (!loaded) next = before
    } while (loaded && before && !found[0]!.some(isKnown))
    if (loaded && !runs.size) next = before
    etag = newTag
    insert(found.flat(), false)
    loaded = true
    if (sessionId) runOf(sessionId, 0)
    for (const [message, replay] of waiting.splice(0)) receive(message, replay)
  }

  /** Read the newest messages, since events may have been missed. Returns false if that failed; then it is tried again. */
  const refresh = (): Promise<boolean> => {
    clearTimeout(retryTimer)
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
        if (error.transient) retryTimer = setTimeout(() => owner.active() && void refresh(), backoff(failures + 1))
      }
      refreshing = undefined
      for (const run of runs.values()) {
        if (done && run.early.size) run.upTo ??= Math.min(...run.early.keys()) - 1
        drain(run)
      }
      changed()
      return done
    })()
    return refreshing
  }

  const merge = (): readonly Message[] => {
    const lists = [...runs.values()].map(({ messages }) => messages).filter((list) => list.length)
    if (lists.length < 2) return lists[0]?.slice() ?? []
    const result: Message[] = []
    const heads = lists.map((list) => ({ list, at: 0 }))
    const key = ({ list, at }: { list: Message[]; at: number }): string => list[at]!.created_at + list[at]!.session_id
    while (heads.length) {
      heads.sort((a, b) => (key(a) < key(b) ? -1 : 1))
      const [head, second] = heads as [(typeof heads)[0], (typeof heads)[0] | undefined]
      const limit = second && key(second)
      do result.push(head.list[head.at++]!)
      while (head.at < head.list.length && (limit === undefined || key(head) <= limit))
      if (head.at === head.list.length) heads.shift()
    }
    return result
  }

  return {
    receive,
    refresh,
    /** By session, the seq up to which everything is here. */
    positions: (): [string, number][] => [...runs].flatMap(([id, { upTo, messages }]) => (upTo && messages.length ? [[id, upTo]] : [])) as [string, number][],
    /** The early messages: they are stored, and not shown yet. */
    early: (): Message[] => [...[...runs.values()].flatMap(({ early }) => [...early.values()]), ...waiting.map(([message]) => message)],
    /** One side has read up to a seq: `own` is true if the messages are those of this side. */
    read(id: string, upTo: number, own: boolean): void {
      const run = runs.get(id)
      if (!run) return
      if (own) run.readUpTo = Math.max(run.readUpTo, upTo)
      run.messages = run.messages.map((message) =>
        message.seq <= upTo && message.status !== 'read' && owner.isOwn(message) === own ? { ...message, status: 'read' } : message,
      )
      changed()
    },
    /** By session, the last message of the other side up to a seq that is not marked as read. */
    lastUnread: (id?: string, upTo = Infinity): Message[] =>
      [...runs].flatMap(([session, { messages }]) => {
        const last = id && id !== session ? undefined : messages.findLast((message) => message.seq <= upTo && message.status !== 'read' && !owner.isOwn(message))
        return last ? [last] : []
      }),
    attachment(id: string, file: Attachment): void {
      const known = files.get(file.id)
      if (known && STATES.indexOf(known.state) > STATES.indexOf(file.state)) return
      files.set(file.id, file)
      const run = runs.get(id)
      if (!run) return
      run.messages = run.messages.map((message) => (message.attachments?.some((own) => own.id === file.id) ? newest(message) : message))
      changed()
    },
    async loadOlder(): Promise<void> {
      if (loadingOlder || !next) return
      loadingOlder = true
      owner.changed()
      try {
        const page = await owner.page({ limit: PAGE, before: next, sessionId })
        next = page.next
        insert(page.messages ?? [], true)
        error = undefined
      } catch (reason) {
        error = reason as ChatError
      }
      loadingOlder = false
      changed()
    },
    /** The snapshot's fields. */
    view() {
      const healing = [...runs.values()].some(({ early }) => early.size)
      return {
        messages: (merged ??= merge()),
        state: (!loaded ? (error ? 'failed' : 'loading') : healing ? 'healing' : 'complete') as 'loading' | 'complete' | 'healing' | 'failed',
        hasOlder: next !== undefined,
        loadingOlder,
        readUpTo: (marks = keep(marks, Object.fromEntries([...runs].filter(([, run]) => run.readUpTo).map(([id, run]) => [id, run.readUpTo])))) as Record<string, number>,
        ...(error && { error }),
      }
    },
    /** Stop all timers. */
    close(): void {
      clearTimeout(retryTimer)
      for (const run of runs.values()) clearTimeout(run.timer)
    },
  }
}
