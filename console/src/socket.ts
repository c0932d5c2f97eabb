/**
 * The connection to `/ws`: authenticates, reconnects with backoff, and asks for missed messages (docs/websocket.md).
 *
 * It passes frames on without interpreting them.
 */

import { exactJson } from './api'
import type { Frame } from './types'

export type ConnectionState = 'connecting' | 'live' | 'reconnecting' | 'offline' | 'stopped'

/** Milliseconds, like the constants below. */
const PING_INTERVAL = 20_000
const PONG_TIMEOUT = 10_000
const MAX_RECONNECT_DELAY = 15_000
/** Delay after close code 4429. */
const RATE_LIMITED_DELAY = 30_000
/** No reconnection after these: 1009 and 4400 report a defect of this client, 4403 that the user lost access. */
const FINAL_CLOSE_CODES = new Set([1009, 4400, 4403])
/** Frames of other types are ignored. */
const FRAME_TYPES = new Set([
  'authenticated', 'chat_message', 'typing', 'messages_read', 'session_updated', 'staff_status', 'session_event', 'session_note',
  'session_viewers', 'attachment_updated', 'error', 'pong',
])

/** What the connection needs from its owner, and reports to it. */
export interface SocketHandlers {
  token(): string
  /** By session id, the seq up to which all messages are loaded; undefined before sessions are loaded. */
  since(): Record<string, number> | undefined
  onFrame(frame: Frame): void
  onState(state: ConnectionState): void
  /** The token is invalid or has expired. */
  onTokenRejected(): void
}

export class LiveSocket {
  private ws: WebSocket | undefined
  private state: ConnectionState = 'connecting'
  private failures = 0
  private reconnectTimer: number | undefined
  private pingTimer: number | undefined
  private pongTimer: number | undefined

  constructor(
    private readonly url: string,
    private readonly handlers: SocketHandlers,
  ) {}

  start(): void {
    addEventListener('online', this.checkConnection)
    addEventListener('offline', this.checkConnection)
    document.addEventListener('visibilitychange', this.checkConnection)
    this.open()
  }

  stop(): void {
    removeEventListener('online', this.checkConnection)
    removeEventListener('offline', this.checkConnection)
    document.removeEventListener('visibilitychange', this.checkConnection)
    clearTimeout(this.reconnectTimer)
    this.discardSocket()
    this.setState('stopped')
  }

  /** Send a frame if the connection is live; return false if it is not. */
  send(frame: object): boolean {
    if (this.state !== 'live' || this.ws?.readyState !== WebSocket.OPEN) return false
    this.ws.send(JSON.stringify(frame))
    return true
  }

  /** Authenticate again, with a renewed token. */
  authenticate(): void {
    if (this.ws?.readyState === WebSocket.OPEN) {
      this.ws.send(JSON.stringify({ type: 'authenticate', token: this.handlers.token() }))
    } else this.open()
  }

  private open(): void {
    clearTimeout(this.reconnectTimer)
    this.discardSocket()
    this.setState(this.failures === 0 && this.state === 'connecting' ? 'connecting' : 'reconnecting')
    const ws = new WebSocket(this.url)
    this.ws = ws
    ws.onopen = () => {
      const since = this.handlers.since()
      ws.send(JSON.stringify({ type: 'authenticate', token: this.handlers.token(), ...(since && { since }) }))
    }
    ws.onmessage = ({ data }) => this.handleMessage(data)
    ws.onclose = ({ code }) => this.handleClose(code)
    this.schedulePing()
  }

  private handleMessage(data: unknown): void {
    this.schedulePing()
    let frame: Frame
    try {
      frame = exactJson(String(data)) as Frame
    } catch {
      return
    }
    if (!frame || !FRAME_TYPES.has(frame.type)) return
    if (frame.type === 'authenticated') {
      this.failures = 0
      this.setState('live')
    }
    this.handlers.onFrame(frame)
  }

  /** Send a ping when no frame arrives for `delay` milliseconds; without a frame after it, the connection is dead. */
  private schedulePing(delay = PING_INTERVAL): void {
    clearTimeout(this.pingTimer)
    clearTimeout(this.pongTimer)
    this.pingTimer = setTimeout(() => {
      if (this.ws?.readyState === WebSocket.OPEN) this.ws.send('{"type":"ping"}')
      this.pongTimer = setTimeout(() => this.handleClose(1006), PONG_TIMEOUT)
    }, delay)
  }

  private discardSocket(): void {
    clearTimeout(this.pingTimer)
    clearTimeout(this.pongTimer)
    if (!this.ws) return
    this.ws.onopen = this.ws.onmessage = this.ws.onclose = null
    this.ws.close()
    this.ws = undefined
  }

  private handleClose(code: number): void {
    this.discardSocket()
    if (FINAL_CLOSE_CODES.has(code)) return this.setState('stopped')
    if (code === 4401) {
      this.setState('reconnecting')
      return this.handlers.onTokenRejected()
    }
    this.failures += 1
    const maxDelay = Math.min(MAX_RECONNECT_DELAY, 500 * 2 ** (this.failures - 1))
    const delay = code === 4429 ? RATE_LIMITED_DELAY : maxDelay * (0.5 + Math.random() / 2)
    this.setState(navigator.onLine ? 'reconnecting' : 'offline')
    this.reconnectTimer = setTimeout(() => this.open(), delay)
  }

  /** The network or the page's visibility changed: reconnect or ping at once. */
  private readonly checkConnection = (): void => {
    if (this.state === 'offline' && navigator.onLine) this.open()
    else if (this.state === 'reconnecting' && navigator.onLine && !document.hidden && !this.ws) this.open()
    else if (!navigator.onLine && this.state !== 'stopped') this.setState('offline')
    else if (this.state === 'live') this.schedulePing(0)
  }

  private setState(state: ConnectionState): void {
    if (state === this.state && state !== 'connecting') return
    this.state = state
    this.handlers.onState(state)
  }
}
