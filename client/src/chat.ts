/** The chat: who the person is, what the frames mean, and the snapshots. */

import type { Chat, ChatOptions, Conversation, Person, SendOptions, Status, Unsent } from './api.js'
import { ChatError } from './errors.js'
import { createDesk } from './desk.js'
import { createFiles } from './files.js'
import { createTokens, keyOf, nameIn } from './identity.js'
import { createOutbox, type Draft } from './outbox.js'
import type { Me, Message, ServerFrame, Session, StaffStatus } from './protocol.js'
import { createMarks } from './marks.js'
import { createPages } from './pages.js'
import { createRest } from './rest.js'
import { createSender } from './sending.js'
import { createSessions } from './sessions.js'
import { socketTransport } from './socket.js'
import { defaultStorage, memoryStorage } from './storage.js'
import { createStore } from './store.js'
import { createTimeline, type Timeline } from './timeline.js'
import type { Link, LinkState, TransportHost } from './transport.js'
import { createTyping } from './typing.js'
import type { Timer } from './util.js'

/** Milliseconds for which a connection without listeners is kept: StrictMode subscribes twice, and pages change. */
const LINGER = 5000
/** Milliseconds over which pages that come back spread their reads. */
const SPREAD = 2000

/** Make a chat. Nothing is connected before the first `subscribe` or `connect`. */
export function createChat(options: ChatOptions): Chat {
  const url = options.url.replace(/\/$/, '')
  const storage = options.storage === undefined ? defaultStorage() : (options.storage ?? memoryStorage())
  const prefix = `gre-chat:${url}|`
  const ending = new AbortController()
  const transport = options.transport ?? socketTransport()
  const askToken = createTokens((refused) => options.getToken(refused))

  let connection: Status['connection'] = 'idle'
  let reason: string | undefined
  let error: ChatError | undefined
  let me: Person | undefined
  /** The person of the last token: the name under which texts are kept until the server says who it is. */
  let tokenName: string | undefined
  let provisional: string | undefined
  /** The last opaque token that the server has confirmed to be `me`'s. */
  let confirmed: string | undefined
  let link: Link | undefined
  let linkRun = 0
  let held = false
  let lingerTimer: Timer
  let spreadTimer: Timer
  let polls = 0
  const timelines = new Map<string, Timeline>()
  const present = new Map<string, StaffStatus>()

  const store = createStore((used) => {
    clearTimeout(lingerTimer)
    if (used) open()
    else lingerTimer = setTimeout(() => !held && disconnect(), LINGER)
  })
  const { changed, read } = store
  const isStaff = (): boolean => me !== undefined && me.role !== 'player'
  const isUsable = (): boolean => connection === 'live' || connection === 'polling'
  const author = (): string | undefined => (me ? keyOf(me) : provisional)
  const sendFrame: Link['send'] = (frame) => link?.send(frame) ?? false

  const rest = createRest(url, callToken, ending.signal)
  const sessions = createSessions(isStaff, changed)
  const files = createFiles(rest, () => (outbox.flush(), changed()))
  const sender = createSender({ options, rest, me: () => me, link: sendFrame, onMessage, onNote: (note) => staff.addNote(note) })
  const outbox = createOutbox({
    storage, prefix, author, changed,
    ready({ files: ids }) {
      const states = ids.map((id) => files.uploads.get(id)).filter((upload) => upload !== undefined)
      const failed = states.find((upload) => upload.state === 'failed')
      if (failed) throw failed.error
      return me !== undefined && isUsable() && states.every((upload) => upload.state === 'stored')
    },
    deliver: (item) => sender.deliver(item),
  })
  const typing = createTyping((typing, sessionId) => sendFrame({ type: 'typing', typing, ...(sessionId && { sessionId }) }), changed)
  const staff = createDesk({
    rest, sessions, read, changed, link: sendFrame, active: isUsable,
    me: () => me?.staffId,
    unsent: (id) => outbox.list().filter((item) => item.note && item.sessionId === id),
    noteStored: (id) => outbox.shown(id),
    setStaffOnline(list) {
      for (const { staffId, displayName, status } of list) present.set(staffId, { staffId, displayName, status })
      changed()
    },
  }, send)
  const marks = createMarks({ rest, sessions, isUsable, link: sendFrame })
  const pages = createPages(rest, () => me, (row) => staff.apply(row))

  /** The token for a call of REST. `owner`: the person in whose name it is made. */
  async function callToken(refused: boolean, owner?: string): Promise<string | null> {
    const token = await askToken(refused)
    if (token === null) return null
    const known = me
    noteToken(token)
    if (known && !me) reconnect()
    else if (owner !== undefined && me && tokenName === undefined && token !== confirmed) {
      // An opaque token tells nothing about its person: ask the server before something is sent with it.
      const { data } = await createRest(url, async () => token, ending.signal)<Me>('GET', '/api/gre-chat/me')
      const before = author()
      identify(data, token)
      if (author() !== before) reconnect()
    }
    if (owner !== undefined && owner !== author()) throw new ChatError('unreachable', 'Another person has signed in.')
    return token
  }

  /** A token that names another person ends what belongs to the one before. */
  function noteToken(token: string): void {
    const name = nameIn(token)
    if (name === tokenName) return
    if (me && tokenName !== undefined) reset()
    tokenName = name
    if (me || name === undefined) return
    provisional = storage.getItem(`${prefix}who|${name}`) ?? name
    outbox.adopt(undefined, provisional)
  }

  /** The server has said who the person of a token is. */
  function identify(person: Person | (Omit<Me, 'ratingEnabled'> & Pick<Person, 'ratingEnabled'>), token: string): void {
    const { role, playerId, staffId, ...more } = person
    const known: Person = { role, ...(playerId != null && { playerId }), ...(staffId != null && { staffId }) }
    const key = keyOf(known)
    if (me && keyOf(me) !== key) reset()
    const { displayName, chatEnabled, ratingEnabled } = { ...me, ...more }
    const isNew = !me
    me = { ...known, ...(displayName !== undefined && { displayName }), ...(chatEnabled !== undefined && { chatEnabled }), ...(ratingEnabled !== undefined && { ratingEnabled }) }
    confirmed = token
    if (isNew) {
      outbox.adopt(provisional?.startsWith('token:') ? provisional : undefined, key)
      try {
        if (tokenName) storage.setItem(`${prefix}who|${tokenName}`, key)
      } catch {
        // Storage is full: known again after the next connection.
      }
    }
    changed()
  }

  async function readMe(): Promise<void> {
    let token = ''
    const { data } = await createRest(url, async (refused) => (token = (await callToken(refused)) ?? '') || null, ending.signal)<Me>('GET', '/api/gre-chat/me')
    identify({ ratingEnabled: false, ...data }, token)
  }

  /** Forget everything of the person. Unsent texts stay in storage. */
  function reset(): void {
    for (const timeline of timelines.values()) timeline.close()
    timelines.clear()
    present.clear()
    for (const part of [sessions, typing, staff, files, marks]) part.clear()
    sender.lost()
    me = provisional = confirmed = undefined
    changed()
  }

  function open(): void {
    if (ending.signal.aborted || link || connection === 'stopped') return
    const run = ++linkRun
    let token = ''
    const current = <T extends unknown[]>(act: (...given: T) => void) => (...given: T): void => {
      if (run === linkRun) act(...given)
    }
    const host: TransportHost = {
      url,
      async token(refused) {
        token = (await askToken(refused)) ?? ''
        if (run !== linkRun) return null
        if (token) noteToken(token)
        else outbox.hold()
        return token || null
      },
      since: () => sessions.since(positions()),
      frame: current((frame: ServerFrame) => (frame.type === 'authenticated' ? enter(frame, token) : hear(frame))),
      state: current(setState),
      missed: async () => run === linkRun && missed(),
      request: async <T>(method: string, path: string, body?: unknown) => (await rest<T>(method, path, body)).data,
    }
    setState('connecting')
    link = transport.open(host)
  }

  function disconnect(next: Status['connection'] = 'idle', why?: string): void {
    linkRun += 1
    link?.close()
    link = undefined
    setState(next, why)
  }

  function reconnect(): void {
    disconnect()
    open()
  }

  function setState(state: LinkState | 'idle', why?: string): void {
    if (state === connection && why === reason) return
    const was = isUsable()
    connection = state
    reason = why
    if (state === 'stopped') link = undefined
    if (!isUsable()) sender.lost()
    else if (!was) {
      error = undefined
      outbox.hurry()
      marks.resend()
      if (isStaff() && state === 'live') staff.live()
    }
    changed()
  }

  function positions(): Map<string, number> {
    const found = new Map<string, number>()
    for (const timeline of timelines.values()) for (const [id, upTo] of timeline.positions()) found.set(id, Math.min(upTo, found.get(id) ?? upTo))
    return found
  }

  function enter(frame: ServerFrame & { type: 'authenticated' }, token: string): void {
    options.onFrame?.(frame)
    const again = me !== undefined
    identify(frame, token)
    for (const row of frame.sessions) staff.apply(row)
    // Replays bring what was missed, but not who has read it.
    clearTimeout(spreadTimer)
    spreadTimer = setTimeout(() => void (refresh(), readMe().catch(() => {})), again ? Math.random() * SPREAD : 0)
  }

  async function refresh(): Promise<boolean> {
    const done = await Promise.all([isStaff() ? staff.refresh() : true, ...[...timelines.values()].map((timeline) => timeline.refresh())])
    return done.every(Boolean)
  }

  /** Without a socket: read all that may have changed. Rows of a player's sessions are read now and then. */
  async function missed(): Promise<boolean> {
    try {
      if (!me) await readMe()
      const done = await refresh()
      if (!isStaff() && polls++ % 4 === 0) await pages.rows()
      return done
    } catch {
      return false
    }
  }

  function onMessage(message: Message, replay = false): void {
    sessions.count(message)
    typing.wrote(message.session_id, message.sender === 'player' ? 'player' : 'staff')
    outbox.stored(message.id)
    sender.stored(message.id)
    for (const { id } of message.attachments ?? []) files.uploads.delete(id)
    let waits = false
    for (const timeline of timelines.values()) {
      timeline.receive(message, replay)
      waits ||= timeline.early().some(({ id }) => id === message.id)
    }
    if (!waits) outbox.shown(message.id)
  }

  function hear(frame: ServerFrame): void {
    options.onFrame?.(frame)
    sender.frame(frame)
    staff.frame(frame)
    switch (frame.type) {
      case 'chat_message':
        return onMessage(frame.message, frame.replay)
      case 'attachment_updated':
        for (const timeline of timelines.values()) timeline.attachment(frame.sessionId, frame.attachment)
        return
      case 'session_updated':
      case 'session_rated':
        return staff.apply(frame.session)
      case 'messages_read': {
        const bySelf = (frame.by === 'staff') === isStaff()
        if (bySelf) marks.confirm(frame.sessionId, frame.upToSeq)
        for (const timeline of timelines.values()) timeline.read(frame.sessionId, frame.upToSeq, !bySelf)
        return
      }
      case 'typing':
        return typing.apply({ ...frame, note: frame.for === 'note' }, frame.typing)
      case 'staff_status':
        present.set(frame.staffId, { staffId: frame.staffId, displayName: frame.displayName, status: frame.status })
        return changed()
      case 'error':
        if (frame.clientId || frame.code === 'token_expired') return
        error = new ChatError(frame.code, frame.error, 0, frame.retryAfter, frame.details)
        changed()
    }
  }

  function timelineOf(sessionId: string | undefined): Timeline {
    const name = sessionId ?? ''
    let timeline = timelines.get(name)
    if (!timeline) {
      const own = createTimeline(sessionId, {
        page: pages.page,
        active: () => isUsable() && timelines.get(name) === own,
        isOwn: ({ sender }) => (sender === 'player') !== isStaff(),
        changed: () => timelines.get(name) === own && changed(),
        shown(message) {
          if (timelines.get(name) !== own) return
          sessions.count(message)
          outbox.stored(message.id)
          sender.stored(message.id)
          outbox.shown(message.id)
        },
      })
      timelines.set(name, (timeline = own))
      if (isUsable()) void own.refresh()
    }
    return timeline
  }

  function unsentOf(sessionId: string | undefined): Unsent[] {
    const row = sessions.rows.get(sessionId ?? '')
    return outbox.list().filter((item) => {
      if (item.note) return false
      if (item.sessionId !== undefined || sessionId === undefined) return sessionId === undefined ? !isStaff() : item.sessionId === sessionId
      return row?.status !== 'closed' && (!isStaff() || String(item.playerId) === String(row?.player_id))
    })
  }

  function send(draft: Draft): Unsent {
    typing.stop()
    const item = outbox.add(draft)
    if (reason === 'signed_out') outbox.hold()
    if (!isUsable()) link?.wake()
    return item
  }

  return {
    subscribe: store.subscribe,
    connect() {
      held = true
      if (connection === 'stopped' && reason !== 'closed') connection = 'idle'
      open()
    },
    close() {
      ending.abort()
      clearTimeout(lingerTimer)
      clearTimeout(spreadTimer)
      disconnect('stopped', 'closed')
      outbox.close()
      for (const part of [...timelines.values()]) part.close()
      typing.clear()
      staff.clear()
    },
    status: () => read('status', (): Status => ({ connection, ...(reason && { reason }), ...(me && { me }), ...(error && { error }) })),
    messages: (sessionId) =>
      read(`messages ${sessionId ?? ''}`, (): Conversation => {
        const view = timelineOf(sessionId).view()
        return { ...view, unsent: read(`unsent ${sessionId ?? ''}`, () => unsentOf(sessionId)) }
      }),
    sessions: () => read('sessions', sessions.list),
    unread: sessions.unread,
    typing: (sessionId) => read(`typing ${sessionId ?? ''}`, () => typing.list(sessionId)),
    staffOnline: () => read('present', () => [...present.values()].filter(({ status }) => status !== 'offline')),
    send: (text, given: SendOptions = {}) => send({ ...given, text, files: given.files ?? [] }),
    retry: (id) => outbox.retry(id, positions().get(outbox.get(id)?.sessionId ?? '')),
    discard: outbox.discard,
    loadOlder: (sessionId) => timelineOf(sessionId).loadOlder(),
    markRead(sessionId, upToSeq) {
      const found = [...timelines.values()].flatMap((timeline) => timeline.lastUnread(sessionId, upToSeq))
      for (const { session_id, seq } of found) marks.set(session_id, seq)
      if (!found.length && sessionId && upToSeq && sessions.unread(sessionId)) marks.set(sessionId, upToSeq)
    },
    setTyping: (now, sessionId) => typing.set(now, sessionId),
    upload: files.upload,
    url: files.url,
    async rate(sessionId, score, comment) {
      const { data } = await rest<{ session: Session }>('POST', '/api/gre-chat/rate', { sessionId, score, comment })
      sessions.apply(data.session)
      return data.session
    },
    async closeSession(sessionId) {
      const { data } = isStaff()
        ? await rest<{ session: Session | null }>('PUT', `/api/gre-admin/session/${sessionId}/status`, { status: 'closed' })
        : await rest<{ session: Session | null }>('POST', `/api/gre-chat/close-session/${me?.playerId}`)
      if (data.session) sessions.apply(data.session)
    },
    staff: staff.chat,
  }
}
