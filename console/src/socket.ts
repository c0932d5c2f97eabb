/** The live door: one WebSocket that comes back by itself and asks for what it missed. It knows no chat. */

import { exactJson } from './api'
import type { Frame } from './types'

export type Link = 'connecting' | 'live' | 'reconnecting' | 'offline' | 'stopped'

const PING_EVERY = 20_000
const PONG_WITHIN = 10_000
const LONGEST_PAUSE = 15_000
const AFTER_LIMIT = 30_000
/** 4400 and 1009 are our own mistakes, 4403 says that this person may not listen any more. */
const FINAL = new Set([1009, 4400, 4403])
const TYPES = new Set([
  'authenticated', 'chat_message', 'typing', 'messages_read', 'session_updated', 'staff_status', 'error', 'pong',
])

export interface Ears {
  token(): string
  /** Up to which seq everything is here, by session; undefined before the first look. */
  since(): Record<string, number> | undefined
  frame(frame: Frame): void
  link(state: Link): void
  /** The token is not (or no longer) good. */
  denied(): void
}

export class LiveSocket {
  private ws: WebSocket | undefined
  private state: Link = 'connecting'
  private failures = 0
  private reconnect: number | undefined
  private ping: number | undefined
  private overdue: number | undefined

  constructor(
    private readonly url: string,
    private readonly ears: Ears,
  ) {}

  start(): void {
    addEventListener('online', this.hurry)
    addEventListener('offline', this.hurry)
    document.addEventListener('visibilitychange', this.hurry)
    this.open()
  }

  stop(): void {
    removeEventListener('online', this.hurry)
    removeEventListener('offline', this.hurry)
    document.removeEventListener('visibilitychange', this.hurry)
    clearTimeout(this.reconnect)
    this.drop()
    this.become('stopped')
  }

  /** Send, if the connection is live; whether it was. */
  send(frame: object): boolean {
    if (this.state !== 'live' || this.ws?.readyState !== WebSocket.OPEN) return false
    this.ws.send(JSON.stringify(frame))
    return true
  }

  /** Say who we are again, with a new token. */
  authenticate(): void {
    if (this.ws?.readyState === WebSocket.OPEN) {
      this.ws.send(JSON.stringify({ type: 'authenticate', token: this.ears.token() }))
    } else this.open()
  }

  private open(): void {
    clearTimeout(this.reconnect)
    this.drop()
    this.become(this.failures === 0 && this.state === 'connecting' ? 'connecting' : 'reconnecting')
    const ws = new WebSocket(this.url)
    this.ws = ws
    ws.onopen = () => {
      const since = this.ears.since()
      ws.send(JSON.stringify({ type: 'authenticate', token: this.ears.token(), ...(since && { since }) }))
    }
    ws.onmessage = ({ data }) => this.hear(data)
    ws.onclose = ({ code }) => this.closed(code)
    this.watch()
  }

  private hear(data: unknown): void {
    this.watch()
    let frame: Frame
    try {
      frame = exactJson(String(data)) as Frame
    } catch {
      return
    }
    if (!frame || !TYPES.has(frame.type)) return
    if (frame.type === 'authenticated') {
      this.failures = 0
      this.become('live')
    }
    this.ears.frame(frame)
  }

  /** A connection may be dead without a close: ask for a sign of life when there is none. */
  private watch(after = PING_EVERY): void {
    clearTimeout(this.ping)
    clearTimeout(this.overdue)
    this.ping = setTimeout(() => {
      if (this.ws?.readyState === WebSocket.OPEN) this.ws.send('{"type":"ping"}')
      this.overdue = setTimeout(() => this.closed(1006), PONG_WITHIN)
    }, after)
  }

  private drop(): void {
    clearTimeout(this.ping)
    clearTimeout(this.overdue)
    if (!this.ws) return
    this.ws.onopen = this.ws.onmessage = this.ws.onclose = null
    this.ws.close()
    this.ws = undefined
  }

  private closed(code: number): void {
    this.drop()
    if (FINAL.has(code)) return this.become('stopped')
    if (code === 4401) {
      this.become('reconnecting')
      return this.ears.denied()
    }
    this.failures += 1
    const longest = Math.min(LONGEST_PAUSE, 500 * 2 ** (this.failures - 1))
    const pause = code === 4429 ? AFTER_LIMIT : longest * (0.5 + Math.random() / 2)
    this.become(navigator.onLine ? 'reconnecting' : 'offline')
    this.reconnect = setTimeout(() => this.open(), pause)
  }

  /** The network or the reader came back: do not wait out the pause. */
  private readonly hurry = (): void => {
    if (this.state === 'offline' && navigator.onLine) this.open()
    else if (this.state === 'reconnecting' && navigator.onLine && !document.hidden && !this.ws) this.open()
    else if (!navigator.onLine && this.state !== 'stopped') this.become('offline')
    else if (this.state === 'live') this.watch(0)
  }

  private become(state: Link): void {
    if (state === this.state && state !== 'connecting') return
    this.state = state
    this.ears.link(state)
  }
}
