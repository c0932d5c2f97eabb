/**
 * The link over Pusher: knows who the person is, keeps its channels subscribed, turns events into frames, and reads what no event
 * has brought.
 *
 * Pusher stores nothing: after each subscription, and from time to time, the core reads. pusher-js reconnects by itself; what it
 * does not do is done here: it asks again after a refused subscription, notices at once that a machine has slept, and comes back
 * after the server has closed its connection.
 */

// Also so that what both use is in one file of the package.
import { ChatError } from '../index.js'
import type { Attachment, Me, Message, PusherEvents, Session } from '../protocol.js'
import type { Link, TransportHost } from '../transport.js'
import { backoff, createTimers, withQuery } from '../util.js'
import { createChannels } from './channels.js'
import { createReader, isHint, type MessageEvent } from './events.js'
import type { PusherOptions } from './types.js'

/** Milliseconds. */
const PING_AFTER = 25_000
const PONG_WITHIN = 10_000
/** From a connection to all its subscriptions: pusher-js waits without an end for the answer to an authorization. */
const LIVE_WITHIN = 45_000
/** A connection that is not live after this time is accompanied by reads. */
const POLL_AFTER = 8000
const POLL_EVERY = 6000
const READ_EVERY = 60_000
/** Over which pages that come back spread their reads. */
const SPREAD = 2000
/** In which hints that there is something to read are collected. */
const COLLECT = 300
/** Timers that are late by more than this have slept, and the connection with them. */
const SLEPT = 120_000
/** Refusals one after the other. */
const MAX_REFUSALS = 5
/** Until a file is looked at again that is not examined yet, the first time; and how often. */
const FILE_AFTER = 2000
const FILE_TRIES = 6
/** Messages of which the rows of a player's sessions are read. */
const ROWS_OF = 30
const SETTLED: readonly Attachment['state'][] = ['ready', 'refused', 'gone']

/** A random part of a time, at least its half. */
const jitter = (ms: number): number => backoff(Infinity, ms)
const isRefusal = (status: number): boolean => status === 401 || status === 403

export function openLink(host: TransportHost, { pusher, channel, readEvery = READ_EVERY }: PusherOptions): Link {
  const ending = new AbortController()
  /** `join` again, `read`, `hint`, `watch` for a dead connection, and one for each file. */
  const timers = createTimers()
  let me: Me | undefined
  /** The token of which the server has said that it is `me`'s. */
  let known: string | undefined
  let reader = createReader(undefined)
  let live = false
  let wasLive = false
  let polling = false
  let failures = 0
  let refusals = 0
  let readFailures = 0
  let renew = false
  let readAt = 0
  let heardAt = 0
  let reading: Promise<void> | undefined
  let again = false
  /** True while the connection is closed here, to open it again. */
  let resetting = false

  const isOffline = (): boolean => globalThis.navigator?.onLine === false
  const isHidden = (): boolean => globalThis.document?.visibilityState === 'hidden'

  const report = (): void => {
    if (!ending.signal.aborted) host.state(live ? 'live' : isOffline() ? 'offline' : polling ? 'polling' : wasLive || failures ? 'reconnecting' : 'connecting')
  }

  const stop = (reason?: string): void => {
    if (ending.signal.aborted) return
    ending.abort()
    timers.clear()
    for (const [event, act] of CONNECTION) pusher.connection.unbind(event, act)
    channels.clear()
    if (reason) host.state('stopped', reason)
  }

  /** Find out who the person is, and subscribe. Returns false if the link has ended; raises ChatError. */
  const identify = async (): Promise<boolean> => {
    const token = await host.token(renew)
    if (ending.signal.aborted) return false
    if (!token) stop('signed_out')
    else if (token !== known || renew) await enter(token)
    return !ending.signal.aborted
  }

  const enter = async (token: string): Promise<void> => {
    const found = await host.request<Me>('GET', '/api/gre-chat/me')
    if (ending.signal.aborted) return
    if (!found.chatEnabled) return stop('chat_disabled')
    const other = me?.playerId !== found.playerId || me?.staffId !== found.staffId
    me = found
    known = token
    renew = false
    if (other) reader = createReader(me.playerId ?? undefined)
    const { role, playerId, staffId, expiresAt, displayName, chatEnabled, ratingEnabled = false } = me
    const person = { displayName, chatEnabled, ratingEnabled, playerId: (playerId ?? undefined)!, staffId: (staffId ?? undefined)! }
    host.frame({ type: 'authenticated', success: true, role, expiresAt, sessions: [], staffOnline: 0, ...person })
    channels.join(namesFor(me))
  }

  const namesFor = ({ playerId, staffId }: Me): readonly string[] => {
    if (channel) return typeof channel === 'string' ? [channel] : channel
    return staffId === null ? [`private-player-${playerId}`] : ['private-staff-portal', 'staff-portal']
  }

  /** The person, and the subscriptions that are missing. */
  const join = async (): Promise<void> => {
    timers.end('join')
    try {
      if (!(await identify())) return
      if (['initialized', 'disconnected'].includes(pusher.connection.state)) pusher.connect()
      else if (pusher.connection.state === 'connected') channels.subscribe()
    } catch (error) {
      failed(error)
    }
  }

  /** Something was refused, or not answered: again, later and later. */
  const failed = (error: unknown): void => {
    if (ending.signal.aborted) return
    const { status, code } = error instanceof ChatError ? error : { status: 0, code: '' }
    failures += 1
    if (code === 'signed_out') return stop('signed_out')
    const refused = isRefusal(status)
    if (refused) {
      refusals += 1
      renew = true
      if (refusals > MAX_REFUSALS) return stop(code === 'chat_disabled' ? code : 'token_rejected')
    }
    timers.start('join', refused && refusals < 2 ? 0 : backoff(failures, 30_000), () => void join())
    report()
  }

  const setLive = (now: boolean): void => {
    if (now) {
      failures = refusals = 0
      polling = false
      timers.end('join')
      // After a cut all pages come back together.
      readIn(wasLive ? Math.random() * SPREAD : 0)
      wasLive = true
    } else if (live) readIn(POLL_AFTER)
    live = now
    if (pusher.connection.state === 'connected') watch(now ? PING_AFTER : LIVE_WITHIN, now ? ping : reset)
    else timers.end('watch')
    report()
  }

  const readIn = (ms: number): void => timers.start('read', ms, () => void read())

  /** Now and then, while somebody looks. */
  const readLater = (): void => {
    if (readEvery) timers.start('read', jitter(readEvery), () => (isHidden() ? readLater() : void read()))
  }

  /** Read what no event has brought; while the connection is not live, instead of it. */
  const read = (): Promise<void> => {
    again = reading !== undefined
    reading ??= (async () => {
      let done = false
      do {
        again = false
        done = await readOnce()
      } while (again && done)
      reading = undefined
      if (ending.signal.aborted) return
      readFailures = done ? 0 : readFailures + 1
      polling = done && !live
      if (!done) readIn(backoff(readFailures + 1, 30_000))
      else if (!live) readIn(jitter(POLL_EVERY))
      else readLater()
      report()
    })()
    return reading
  }

  const readOnce = async (): Promise<boolean> => {
    const at = Date.now()
    try {
      if (!(await identify())) return true
      await readRows()
      const done = await host.missed()
      if (done) readAt = at
      return done
    } catch (error) {
      if (error instanceof ChatError && (error.code === 'signed_out' || isRefusal(error.status))) failed(error)
      return false
    }
  }

  /** The rows of a player's latest sessions. Those of staff's queue are read by the core. */
  const readRows = async (): Promise<void> => {
    if (me?.playerId == null || me.staffId !== null) return
    const { conversations } = await host.request<{ conversations: (Session & { chat_messages?: unknown })[] }>('GET', withQuery(`/api/chat-history/${me.playerId}`, { limit: ROWS_OF }))
    for (const { chat_messages: _, ...session } of conversations) host.frame(reader.session(session))
  }

  /** Read one message of which an event said only that it is there. */
  const readMessage = async ({ session_id, seq }: MessageEvent): Promise<Message | undefined> => {
    const query = { after_seq: seq - 1, limit: 1 }
    if (me!.staffId !== null) return (await host.request<{ messages: Message[] }>('GET', withQuery(`/api/gre-admin/messages/${session_id}`, query))).messages[0]
    return (await host.request<Message[]>('GET', withQuery(`/api/gre-chat/messages/${me!.playerId}`, { ...query, sessionId: session_id })))[0]
  }

  const hearMessage = async (event: MessageEvent): Promise<void> => {
    if (!isHint(event)) return host.frame({ type: 'chat_message', message: reader.message(event), replay: false })
    // Old messages come in crowds, and without a frame nobody rings.
    if (event.late || event.replayed) return hint()
    try {
      const message = await readMessage(event)
      if (ending.signal.aborted || !message) return
      host.frame({ type: 'chat_message', message, replay: false })
      if (message.attachments) followFiles(event, message.attachments)
    } catch {
      hint()
    }
  }

  const hint = (): void => {
    if (!timers.has('hint')) timers.start('hint', COLLECT, () => void read())
  }

  /** No event says that a file was examined. */
  const followFiles = (event: MessageEvent, files: readonly Attachment[], tries = 1): void => {
    if (tries > FILE_TRIES || files.every(({ state }) => SETTLED.includes(state))) return
    timers.start(`files of ${event.id}`, FILE_AFTER * tries, async () => {
      const found = (await readMessage(event).catch(() => undefined))?.attachments
      if (ending.signal.aborted) return
      for (const attachment of found ?? []) host.frame({ type: 'attachment_updated', sessionId: event.session_id, attachment })
      followFiles(event, found ?? files, tries + 1)
    })
  }

  const EVENTS: Record<string, (event: any) => void> = {
    'new-player-message': (event: MessageEvent) => void hearMessage(event),
    'new-staff-message': (event: MessageEvent) => void hearMessage(event),
    'session-updated': ({ session }: PusherEvents['session-updated']) => host.frame(reader.session(session)),
    'messages-read': (event: PusherEvents['messages-read']) => host.frame(reader.marks(event)),
    'session-note': ({ note, truncated }: PusherEvents['session-note']) => (truncated ? hint() : host.frame({ type: 'session_note', note })),
  }

  const channels = createChannels(pusher, EVENTS, {
    changed: (all) => all !== live && setLive(all),
    refused: ({ status = 0 }) => failed(new ChatError('', '', status)),
  })

  /** Call `then` after a delay; a call that is very late tells that the machine has slept. */
  const watch = (delay: number, then: () => void): void => {
    const due = Date.now() + delay
    timers.start('watch', delay, () => (Date.now() - due > SLEPT ? reset() : then()))
  }

  const ping = (within = PONG_WITHIN): void => {
    pusher.send_event('pusher:ping', {})
    watch(within, reset)
  }

  /** End a connection that is dead, and open another one. */
  const reset = (): void => {
    resetting = true
    pusher.disconnect()
    resetting = false
    pusher.connect()
  }

  const heard = (): void => {
    heardAt = Date.now()
    if (live) watch(PING_AFTER, ping)
  }

  const moved = (): void => {
    const { state } = pusher.connection
    if (state === 'connected') {
      watch(LIVE_WITHIN, reset)
      return
    }
    channels.lost()
    // The server has ended it, and pusher-js does not come back by itself: the person may have lost its right.
    if (state === 'disconnected' && !resetting) {
      renew = true
      failed(undefined)
    }
    report()
  }

  const CONNECTION: [string, () => void][] = [['state_change', moved], ['message', heard]]

  /** The network or the page's visibility has changed, or a person acts. */
  const wake = (): void => {
    report()
    // Whatever the browser says of the network: a connection that lives is the truth.
    if (live) {
      if (Date.now() - heardAt > PONG_WITHIN / 2) ping(PONG_WITHIN / 2)
      if (!isHidden() && Date.now() - readAt > READ_EVERY / 2) hint()
    } else if (!isOffline() && timers.has('join')) void join()
  }

  for (const name of ['online', 'offline', 'pageshow', 'visibilitychange']) globalThis.addEventListener?.(name, wake, { signal: ending.signal })
  for (const [event, act] of CONNECTION) pusher.connection.bind(event, act)
  readIn(POLL_AFTER)
  report()
  void join()

  return { send: () => false, close: () => stop(), wake }
}
