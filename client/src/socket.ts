/**
 * The default transport: the daemon's /ws (docs/websocket.md), and REST while no socket can be had.
 *
 * It authenticates, reconnects with backoff, and passes frames on without interpreting them, except for those of its own state.
 */

import type { ClientFrame, ServerFrame } from './protocol.js'
import type { Link, Transport, TransportHost } from './transport.js'
import { backoff, exactJson, jitter, type Timer } from './util.js'

/** Milliseconds. */
const PING_AFTER = 20_000
const PONG_WITHIN = 10_000
/** From the opening of a socket to `authenticated`: the server lets a handshake wait for 30 s while many come back at once. */
const LIVE_WITHIN = 45_000
/** A connection that is not live after this time is accompanied by REST. */
const POLL_AFTER = 8000
/** Between two reads of REST; longer while nothing changes is not needed, since an unchanged answer is a 304. */
const POLL_EVERY = 4000
const POLL_HIDDEN = 30_000
/** Between two tries of a socket while REST works. */
const RETRY_WHILE_POLLING = 30_000
/** After close code 4429 without another time. */
const RATE_LIMITED = 30_000
/** Timers that are late by more than this have slept, and the connection with them. Background tabs are late by a minute at most. */
const SLEPT = 120_000
/** Tokens that may be refused one after the other. */
const MAX_REFUSALS = 5

export function socketTransport(): Transport {
  return { open: (host) => openLink(host) }
}

function openLink(host: TransportHost): Link {
  let socket: WebSocket | undefined
  let live = false
  let stopped = false
  let polling = false
  /** The number of the present try: what belongs to an earlier one is ignored. */
  let attempt = 0
  let failures = 0
  let refusals = 0
  let retryAfter: number | undefined
  let notBefore = 0
  let pollFailures = 0
  let pollRun = 0
  let reconnectTimer: Timer
  let watchTimer: Timer
  let pollTimer: Timer

  const page = (): Document | undefined => globalThis.document
  const isOffline = (): boolean => globalThis.navigator?.onLine === false

  const report = (): void =>
    host.state(live ? (isOffline() ? 'offline' : 'live') : polling ? 'polling' : isOffline() ? 'offline' : failures ? 'reconnecting' : 'connecting')

  const drop = (): void => {
    clearTimeout(watchTimer)
    clearTimeout(reconnectTimer)
    reconnectTimer = undefined
    attempt += 1
    live = false
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null
    // Also while it is being opened, where browsers write a warning.
    socket.close()
    socket = undefined
  }

  const stop = (reason?: string): void => {
    drop()
    clearTimeout(pollTimer)
    pollTimer = undefined
    stopped = true
    listen('remove')
    if (reason) host.state('stopped', reason)
  }

  /** Call `then` after a delay; a call that is very late tells that the machine has slept. */
  const watch = (delay: number, then: () => void): void => {
    clearTimeout(watchTimer)
    const due = Date.now() + delay
    watchTimer = setTimeout(() => (Date.now() - due > SLEPT ? lost(1006, true) : then()), delay)
  }

  const ping = (within = PONG_WITHIN): void => {
    if (socket?.readyState === 1) socket.send('{"type":"ping"}')
    watch(within, () => lost(1006))
  }

  const schedule = (delay: number, refused: boolean): void => {
    reconnectTimer = setTimeout(() => void connect(refused), delay)
    report()
    if (failures > 1) startPolling(0)
  }

  const lost = (code: number, atOnce = false): void => {
    drop()
    if (code === 1009 || code === 4400) return stop('defect')
    if (code === 4403) return stop('chat_disabled')
    failures += 1
    notBefore = 0
    if (code === 4401) {
      refusals += 1
      if (refusals > MAX_REFUSALS) return stop('token_rejected')
      return schedule(refusals > 1 ? backoff(refusals) : 0, true)
    }
    let delay = atOnce ? 0 : backoff(failures, polling ? RETRY_WHILE_POLLING : undefined)
    if (code === 4429) notBefore = Date.now() + (delay = retryAfter ? retryAfter * 1000 : jitter(RATE_LIMITED))
    // All clients of a daemon that restarts come back.
    else if (code === 1012 || code === 1013) delay += Math.random() * 1500
    schedule(delay, false)
  }

  const connect = async (refused = false): Promise<void> => {
    drop()
    const own = attempt
    report()
    watch(LIVE_WITHIN, () => lost(1006))
    if (!polling && !pollTimer) startPolling(POLL_AFTER)
    try {
      const token = await host.token(refused)
      if (own !== attempt) return
      if (token === null) return stop('signed_out')
      const opened = new WebSocket(new URL(`${host.url}/ws`, globalThis.location?.href).href.replace(/^http/, 'ws'))
      socket = opened
      opened.onopen = () => {
        const since = host.since()
        opened.send(JSON.stringify({ type: 'authenticate', token, ...(since && { since }) } satisfies ClientFrame))
      }
      opened.onmessage = ({ data }) => hear(data)
      opened.onclose = ({ code }) => lost(code)
      opened.onerror = () => {} // a close follows
    } catch {
      if (own === attempt) lost(1006)
    }
  }

  const hear = (data: unknown): void => {
    if (live) watch(PING_AFTER, ping)
    let frame: ServerFrame
    try {
      frame = exactJson(String(data)) as ServerFrame
    } catch {
      return
    }
    if (frame?.type === 'authenticated') {
      const first = !live
      live = true
      polling = false
      failures = refusals = pollFailures = 0
      retryAfter = undefined
      clearTimeout(pollTimer)
      pollTimer = undefined
      watch(PING_AFTER, ping)
      // The answer to a renewal tells nothing new.
      if (first) host.frame(frame)
      return report()
    }
    if (frame?.type === 'error') {
      retryAfter = frame.retryAfter
      if (frame.code === 'token_expired' && !frame.clientId) void renew()
    }
    if (frame && typeof frame === 'object') host.frame(frame)
  }

  /** The token has expired: the server takes another one for 10 s. */
  const renew = async (): Promise<void> => {
    const own = attempt
    try {
      const token = await host.token(true)
      if (own !== attempt) return
      if (token === null) stop('signed_out')
      else socket?.send(JSON.stringify({ type: 'authenticate', token } satisfies ClientFrame))
    } catch {
      // The server closes with 4401.
    }
  }

  const startPolling = (delay: number): void => {
    pollTimer ??= setTimeout(() => void poll(), delay)
  }

  /** Read by REST what a socket would have brought. */
  const poll = async (): Promise<void> => {
    const own = ++pollRun
    const done = await host.missed()
    if (stopped || live || own !== pollRun) return
    polling = done
    pollFailures = done ? 0 : pollFailures + 1
    report()
    pollTimer = setTimeout(() => void poll(), done ? jitter(page()?.hidden ? POLL_HIDDEN : POLL_EVERY * 1.5) : backoff(pollFailures + 2, 30_000))
  }

  /** The network or the page's visibility has changed, or a person acts. */
  const wake = (): void => {
    if (stopped) return
    if (live) {
      report()
      if (!isOffline()) ping(PONG_WITHIN / 2)
    } else if (reconnectTimer && !isOffline() && !page()?.hidden && Date.now() >= notBefore) void connect()
    else report()
  }

  const listen = (action: 'add' | 'remove'): void => {
    const method = `${action}EventListener` as const
    for (const name of ['online', 'offline', 'pageshow']) globalThis[method]?.(name, wake)
    page()?.[method]('visibilitychange', wake)
  }

  listen('add')
  void connect()

  return {
    send(frame) {
      if (!live || socket?.readyState !== 1) return false
      socket.send(JSON.stringify(frame))
      return true
    },
    close: () => stop(),
    wake,
  }
}
