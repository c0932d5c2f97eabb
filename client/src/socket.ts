/**
 * The default transport: the daemon's /ws (docs/websocket.md), and REST while no socket can be had.
 *
 * It authenticates, reconnects with backoff, and passes frames on without interpreting them, except for those of its own state.
 */

import type { ClientFrame, ServerFrame } from './protocol.js'
import type { Link, Transport, TransportHost } from './transport.js'
import { backoff, createTimers, exactJson, jitter } from './util.js'

/** Milliseconds. */
const PING_AFTER = 20_000
const PONG_WITHIN = 10_000
/** From the opening of a socket to `authenticated`: the server lets a handshake wait for 30 s while many come back at once. */
const LIVE_WITHIN = 45_000
/** A connection that is not live after this time is accompanied by REST. */
const POLL_AFTER = 8000
/** Between two reads of REST, at most; without a change the answer is a 304. */
const POLL_EVERY = 6000
/**
 * Between two tries of a socket while REST works; after close code 4429 without another time. A connection of this age counts as
 * one that works: after those that end earlier the next comes later and later.
 */
const LONG = 30_000
/** Tokens that may be refused one after the other. */
const MAX_REFUSALS = 5

export const socketTransport: Transport = { open: openLink }

function openLink(host: TransportHost): Link {
  let socket: WebSocket | undefined
  let used: string | undefined
  /** The time of `authenticated`; 0 before. */
  let live = 0
  let polling = false
  /** The number of the present try: what belongs to an earlier one is ignored. */
  let attempt = 0
  let failures = 0
  let refusals = 0
  let retryAfter = 0
  let polls = 0
  /** The number of the running poll, 0 without one. */
  let pollRun = 0
  /** `connect` again, `watch` for a dead connection, `poll` REST. */
  const timers = createTimers()

  const ending = new AbortController()
  const isOffline = (): boolean => globalThis.navigator?.onLine === false

  const report = (): void =>
    host.state(polling ? 'polling' : live ? 'live' : isOffline() ? 'offline' : failures ? 'reconnecting' : 'connecting')

  const transmit = (frame: ClientFrame): boolean => {
    if (socket?.readyState !== 1) return false
    socket.send(JSON.stringify(frame))
    return true
  }

  const drop = (): void => {
    timers.end('watch')
    timers.end('pong')
    timers.end('connect')
    attempt += 1
    live = 0
    if (!socket) return
    // `onerror` stays: a socket that is closed while it is being opened has an error, which would end a process of Node.js.
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close()
    socket = undefined
  }

  const stop = (reason?: string): void => {
    drop()
    timers.clear()
    ending.abort()
    if (reason) host.state('stopped', reason)
  }

  const watch = (delay: number, then: () => void): void => timers.start('watch', delay, then)

  /** Ask for a sign of life: a connection may be dead without a close, as after sleep. */
  const ping = (within = PONG_WITHIN): void => {
    transmit({ type: 'ping' })
    timers.start('pong', within, () => lost(1006))
  }

  const lost = (code: number): void => {
    if (live && Date.now() - live > LONG) failures = refusals = 0
    drop()
    const refused = code === 4401
    if (refused) refusals += 1
    const reason = code === 4403 ? 'chat_disabled' : code === 1009 || code === 4400 ? 'defect' : refusals > MAX_REFUSALS ? 'token_rejected' : ''
    if (reason) return stop(reason)
    failures += 1
    // A refused token is renewed at once; if that one is refused, too, later and later.
    let delay = refused && refusals < 2 ? 0 : backoff(failures, polling ? LONG : undefined)
    if (code === 4429) delay = retryAfter ? retryAfter * 1000 : jitter(LONG)
    // All clients of a daemon that restarts come back.
    if (code === 1012 || code === 1013) delay += Math.random() * 1500
    // Nothing shortens the time that the server has asked for.
    timers.start(code === 4429 ? 'wait' : 'connect', delay, () => connect(refused))
    report()
    if (failures > 1 && !pollRun) void poll()
  }

  /** Get a token, and use it unless the connection is another one by then. */
  const withToken = async (refused: boolean, use: (token: string) => void): Promise<void> => {
    const own = attempt
    try {
      const token = await host.token(refused)
      if (own !== attempt) return
      if (!token) stop('signed_out')
      // The server would take an expired token again while it allows for clocks that differ, and refuse it at once.
      else if (!live || token !== used) use((used = token))
    } catch {
      // The server ends a live connection that gets no token.
      if (own === attempt && !live) lost(1006)
    }
  }

  const connect = (refused = false): void => {
    drop()
    report()
    watch(LIVE_WITHIN, () => lost(1006))
    if (!pollRun && !timers.has('poll')) timers.start('poll', POLL_AFTER, poll)
    void withToken(refused, (token) => {
      socket = new WebSocket(new URL(`${host.url}/ws`, globalThis.location?.href).href.replace(/^http/, 'ws'))
      socket.onopen = () => transmit({ type: 'authenticate', token, since: host.since()! })
      socket.onmessage = ({ data }) => hear(data)
      socket.onclose = ({ code }) => lost(code)
      socket.onerror = () => {} // a close follows
    })
  }

  const hear = (data: unknown): void => {
    timers.end('pong')
    if (live) watch(PING_AFTER, ping)
    let frame: ServerFrame | null = null
    try {
      frame = exactJson(String(data)) as ServerFrame | null
    } catch {
      // Not of the daemon, as all that is no object with a type.
    }
    if (!frame?.type) return
    if (frame.type === 'authenticated') {
      const first = !live
      live ||= Date.now()
      polling = false
      pollRun = retryAfter = 0
      timers.end('poll')
      watch(PING_AFTER, ping)
      // The answer to a renewal tells nothing new.
      if (first) host.frame(frame)
      return report()
    }
    if (frame.type === 'error') {
      retryAfter = frame.retryAfter ?? 0
      // The server takes another one for 10 s.
      if (frame.code === 'token_expired') void withToken(true, (token) => transmit({ type: 'authenticate', token }))
    }
    host.frame(frame)
  }

  /** Read by REST what a socket would have brought. */
  const poll = async (): Promise<void> => {
    const own = (pollRun = ++polls)
    const done = await host.missed()
    if (ending.signal.aborted || own !== pollRun) return
    polling = done
    report()
    timers.start('poll', done ? jitter(POLL_EVERY) : backoff(failures + 2, LONG), poll)
  }

  /** The network or the page's visibility has changed, or a person acts. */
  const wake = (): void => {
    report()
    // Whatever the browser says of the network: a connection that lives is the truth.
    if (live) timers.has('pong') || ping(PONG_WITHIN / 2)
    else if (!isOffline() && timers.has('connect')) connect()
  }

  for (const name of ['online', 'offline', 'pageshow', 'visibilitychange']) globalThis.addEventListener?.(name, wake, { signal: ending.signal })
  connect()

  return { send: (frame) => !!live && transmit(frame), close: stop, wake }
}
