/** The chat: who the person is, what the frames mean, and the snapshots. */

import type { Chat, ChatOptions, Conversation, Person, SendOptions, Status, Unsent } from './api.js'
import type { Core } from './core.js'
import { createDesk } from './desk.js'
import { ChatError, unreachable } from './errors.js'
import { createFiles } from './files.js'
import { createTokens, type GivenPerson, keyOf, mergePerson, nameIn } from './identity.js'
import type { More } from './more.js'
import { createOutbox, type Draft } from './outbox.js'
import { readPage } from './pages.js'
import type { Me, Message, ServerFrame, Session } from './protocol.js'
import { type CallOptions, createRest } from './rest.js'
import { createSessions } from './sessions.js'
import { socketTransport } from './socket.js'
import { openStorage } from './storage.js'
import { createStore } from './store.js'
import { createTimeline, positionsOf, type Timeline } from './timeline.js'
import type { Link, LinkState } from './transport.js'
import { createTimers, loadOnce } from './util.js'

/** Milliseconds for which a connection without listeners is kept: StrictMode subscribes twice, and pages change. */
const LINGER = 5000
/** Milliseconds over which pages that come back spread their reads. */
const SPREAD = 2000
/** Conversations that are read again after a reconnection. */
const MAX_KEPT = 10

/** Make a chat. Nothing is connected before the first `subscribe` or `connect`. */
export function createChat(options: ChatOptions): Chat {
  const url = options.url.replace(/\/$/, '')
  const storage = openStorage(options.storage)
  const prefix = `gre-chat:${url}|`
  /** The calls that are running, and those that began before the connection was lost. */
  const calls = new Set<AbortController>()
  let earlier: AbortController[] | undefined
  const getToken = createTokens(options.getToken)

  let connection: Status['connection'] = 'idle'
  let reason: string | undefined
  let error: ChatError | undefined
  let me: Person | undefined
  /** The person whom the token names: known before the server says who it is. */
  let tokenName: string | undefined
  /** The last token of which the server has said that it is this person's. */
  let confirmed: string | null | undefined
  /** The last token of REST: that of a transport that asks for none itself. */
  let lastToken: string | null = null
  let link: Link | undefined
  let linkRun = 0
  let held = false
  const timers = createTimers()
  let polls = 0
  /** The one that was used last is the last. */
  const timelines = new Map<string, Timeline>()

  const { changed, read, subscribe } = createStore((used) => {
    timers.end('linger')
    if (used) open()
    else if (!held) timers.start('linger', LINGER, () => disconnect('idle'))
  })
  const isStaff = (): boolean => !!me && me.role !== 'player'
  const isUsable = (): boolean => connection === 'live' || connection === 'polling'
  /** The name under which texts are kept, and calls are made. */
  const author = (): string | undefined => (reason === 'signed_out' ? undefined : tokenName ?? (me && keyOf(me)))
  const apply = (row: Session): void => (desk.part ?? sessions).apply(row)
  const each = (act: (timeline: Timeline) => void): void => timelines.forEach(act)

  const rest = createRest(url, tokenFor, calls, options.transport)
  const core: Core = { rest, me: () => me, author, isStaff, isUsable, changed, link: (frame) => link?.send(frame) ?? false }
  /** For what is lost if the code cannot be loaded. */
  const later = (act: (part: More) => void): void => (loaded ? act(loaded) : void more().then(act, () => {}))
  const presence = (frame: ServerFrame): void => later((part) => part.frame(frame))
  const sessions = createSessions(core)
  let loaded: More | undefined
  const more = loadOnce(async () => (loaded = (await import('./more.js')).createMore(core, sessions, timelines, apply)), changed)
  const files = createFiles(more, () => (outbox.flush(), changed()))
  const outbox = createOutbox({
    storage, prefix, author, changed,
    ready(item) {
      const uploads = item.files.map((id) => files.uploads.get(id))
      for (const upload of uploads) if (upload?.state === 'failed') throw upload.error
      return !!me && isUsable() && !uploads.some((upload) => upload?.state === 'uploading')
    },
    async deliver(item) {
      const { id, text, files, sessionId, owner } = item
      if (isStaff()) {
        const message = await (await desk.load()).deliver(item)
        if (message) receive(message)
        return
      }
      // Not over the link: the token of each call is checked to be the author's, and the answer has the whole message.
      const body = { id, sessionId, message: text, attachmentIds: files.length ? files : undefined, playerId: me!.playerId, playerName: options.name, sender: 'player' }
      receive((await rest<{ message: Message }>('POST', '/api/gre-chat/send', body, { owner })).data.message)
    },
  })
  const desk = createDesk({
    ...core, sessions, read, presence,
    unsent: outbox.list,
    noteStored: outbox.forget,
  }, send)

  /** The token for a call of REST. If a token does not say that it is the owner's, the server is asked first. */
  async function tokenFor({ refused, owner, token: given }: CallOptions): Promise<string | null> {
    const token = (!refused && given) || (await getToken(!!refused))
    if (reason === 'closed') throw unreachable()
    lastToken = token
    if (!token || !owner) return token
    const name = nameIn(token)
    if (!name && token !== confirmed) await readMe(token)
    if (owner === (name ?? author())) return token
    disconnect('idle')
    open()
    throw unreachable()
  }

  async function readMe(given: string | null): Promise<void> {
    const { data, token } = await rest<Me>('GET', '/api/gre-chat/me', undefined, { token: given })
    identify({ ratingEnabled: false, ...data }, token)
  }

  /** A token that names another person ends what belongs to the one before. */
  function noteToken(token: string): void {
    const name = nameIn(token)
    if (name === tokenName) return
    if (tokenName) reset()
    tokenName = name
    if (name) outbox.adopt(name)
  }

  /** The server has said who the person of a token is. */
  function identify(given: GivenPerson, token: string | null): void {
    if (token) noteToken(token)
    const key = keyOf(given)
    if (me && keyOf(me) !== key) reset()
    if (!me && !tokenName) outbox.adopt(key)
    me = mergePerson(me, given)
    confirmed = token
    changed()
  }

  /** Forget everything of the person. Unsent texts stay in storage. */
  function reset(): void {
    // No answer for one person is shown to another, and no question of one asked again for another.
    calls.forEach((call) => call.abort())
    each((timeline) => timeline.close())
    for (const part of [timelines, sessions, files.uploads, loaded, desk.kept, desk.part]) part?.clear()
    me = confirmed = earlier = undefined
    changed()
  }

  function open(): void {
    if (link || connection === 'stopped') return
    outbox.load()
    const run = ++linkRun
    let token: string | null = null
    const isCurrent = (): boolean => run === linkRun
    setState('connecting')
    link = (options.transport ?? socketTransport).open({
      url,
      async token(refused) {
        token = await getToken(refused)
        if (!isCurrent()) return null
        if (token) noteToken(token)
        else outbox.hold()
        return token
      },
      since: () => sessions.since(positionsOf(timelines.values())),
      frame: (frame) => isCurrent() && hear(frame, token),
      state: (state, why) => isCurrent() && setState(state, why),
      missed: async () => isCurrent() && missed(),
      request: async (method, path, body) => (await rest(method, path, body)).data as never,
    })
  }

  function disconnect(state: Status['connection'], why?: string): void {
    linkRun += 1
    link?.close()
    link = undefined
    setState(state, why)
  }

  function setState(state: LinkState | 'idle', why?: string): void {
    if (state === connection && why === reason) return
    const was = isUsable()
    connection = state
    reason = why
    if (state === 'stopped') link = undefined
    if (!isUsable()) {
      if (was) earlier = [...calls]
    } else if (!was) {
      error = undefined
      // They may wait for answers on connections that died with the link, and are made again.
      earlier?.forEach((call) => (calls.delete(call), call.abort()))
      setTimeout(() => (outbox.hurry(), loaded?.marks.resend()))
      if (isStaff()) void (desk.part?.live() ?? desk.load().catch(() => {}))
    }
    changed()
  }

  /** Read again the conversations that were used last. Others are read anew when they are wanted. */
  async function refresh(): Promise<boolean> {
    for (const [id, timeline] of [...timelines].slice(0, -MAX_KEPT)) {
      timeline.close()
      timelines.delete(id)
    }
    const done = await Promise.all([desk.part?.refresh() ?? true, ...[...timelines.values()].map((timeline) => timeline.refresh())])
    return done.every(Boolean)
  }

  /** Without a socket: read all that may have changed. The row of a player's latest session is read now and then. */
  async function missed(): Promise<boolean> {
    try {
      // At least one call says whether the server answers.
      if (!me || !timelines.size) await readMe(null)
      const done = await refresh()
      if (!isStaff() && polls++ % 4 === 0) await (await more()).readRow()
      return done
    } catch {
      return false
    }
  }

  /** A message is stored, and comes from the transport or as an answer. */
  function receive(message: Message): void {
    sessions.count(message)
    loaded?.typing.wrote(message)
    outbox.stored(message.id)
    message.attachments?.forEach(({ id }) => files.uploads.delete(id))
    let waits = false
    each((timeline) => (waits = timeline.receive(message) || waits))
    if (!waits) outbox.forget(message.id)
  }

  function hear(frame: ServerFrame, token: string | null): void {
    // If it fails, the frame counts all the same.
    queueMicrotask(() => options.onFrame?.(frame))
    if ('session' in frame) apply(frame.session)
    switch (frame.type) {
      case 'authenticated': {
        const again = !!me
        identify(frame, token ?? lastToken)
        frame.sessions.forEach(apply)
        // Replays bring what was missed, but not who has read it.
        timers.start('read', again ? Math.random() * SPREAD : 0, () => void (refresh(), readMe(token).catch(() => {})))
        break
      }
      case 'chat_message':
        receive(frame.message)
        break
      case 'attachment_updated':
        each((timeline) => timeline.attachment(frame.sessionId, frame.attachment))
        break
      case 'messages_read': {
        const own = (frame.by === 'staff') !== isStaff()
        if (!own) sessions.note(frame.sessionId, frame.upToSeq)
        each((timeline) => timeline.read(frame.sessionId, frame.upToSeq, own))
        break
      }
      case 'typing':
      case 'staff_status':
        presence(frame)
        break
      case 'error':
        if (frame.code !== 'token_expired') error = new ChatError(frame.code, frame.error, 0, frame.retryAfter, frame.details)
        changed()
    }
    desk.part?.frame(frame)
  }

  function timelineOf(sessionId = ''): Timeline {
    const known = timelines.get(sessionId)
    if (known) {
      timelines.delete(sessionId)
      timelines.set(sessionId, known)
      return known
    }
    const isCurrent = (): boolean => timelines.get(sessionId) === own
    const own = createTimeline(sessionId || undefined, {
      page: (query) => readPage(core, desk, query),
      active: () => isUsable() && isCurrent(),
      isOwn: ({ sender }) => (sender === 'player') !== isStaff(),
      changed,
      shown(message) {
        if (!isCurrent()) return
        sessions.count(message)
        outbox.stored(message.id)
        outbox.forget(message.id)
      },
    })
    timelines.set(sessionId, own)
    if (isUsable()) void own.refresh()
    return own
  }

  /** A player's texts are shown among all messages, and in their session; those that have none yet in the open one. */
  function unsentOf(sessionId: string): Unsent[] {
    const isOpen = !isStaff() && sessions.rows.get(sessionId)?.status !== 'closed'
    return outbox.list().filter(({ note, sessionId: id = '' }) => !note && (id === sessionId || (isOpen && !(id && sessionId))))
  }

  function send(draft: Draft): Unsent {
    loaded?.typing.stop()
    const item = outbox.add(draft)
    if (reason === 'signed_out') outbox.hold()
    link?.wake()
    return item
  }

  return {
    subscribe,
    connect() {
      held = true
      timers.end('linger')
      if (connection === 'stopped' && reason !== 'closed') connection = 'idle'
      open()
    },
    close() {
      held = true // nothing opens it again
      disconnect('stopped', 'closed')
      reset()
      timers.clear()
      outbox.close()
    },
    status: () => read('status', (): Status => ({ connection, reason, me, error })),
    messages: (sessionId = '') =>
      read(`m${sessionId}`, (): Conversation => ({ ...timelineOf(sessionId).view(), unsent: read(`u${sessionId}`, () => unsentOf(sessionId)) })),
    sessions: () => read('sessions', sessions.list),
    unread: sessions.unread,
    typing: (sessionId) => read(`t${sessionId}`, () => loaded?.typing.list(sessionId) ?? []),
    desk: () => (loaded ? loaded.desk() : (later(changed) as undefined)),
    staffOnline: () => read('present', () => loaded?.present() ?? []),
    send: (text, { files = [], ...more }: SendOptions = {}) => send({ ...more, text, files }),
    retry: (id) => outbox.retry(id, positionsOf(timelines.values())),
    discard: outbox.discard,
    loadOlder: (sessionId) => timelineOf(sessionId).loadOlder(),
    markRead: (...given) => later(({ marks }) => marks.read(...given)),
    setTyping: (...given) => later(({ typing }) => typing.set(...given)),
    upload: files.upload,
    url: async (...given) => (await more()).url(...given),
    rate: async (...given) => (await more()).rate(...given),
    closeSession: async (...given) => (await more()).closeSession(...given),
    staff: desk.chat,
  }
}
