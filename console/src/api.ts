/** The client of REST: one method for each path that the console uses. Its only state is the server's clock. */

import type { Life } from './life'
import type { Answer, Body, PlayerId, Query } from './types'

const WITHIN = 15_000

/** A refusal, or no answer at all (status 0). `message` is the server's line, to be read by people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    text: string,
    readonly retryAfter = 0,
  ) {
    super(text)
  }

  /** Whether the same call may succeed later (after a 401, with a renewed token). */
  get transient(): boolean {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500
  }
}

export type QueueQuery = Query<'listQueue'>
export type SessionStatus = Body<'setSessionStatus'>['status']

export class Api {
  /** What to add to this machine's clock to have the server's, in milliseconds. */
  skew = 0

  constructor(
    private readonly token: () => string,
    private readonly denied: () => void,
    /** Nothing is asked for, and nothing comes back, after its end. */
    private readonly life: Life,
  ) {}

  /** The server's time, as far as its `Date` headers tell. */
  now(): number {
    return Date.now() + this.skew
  }

  queue(query: QueueQuery): Promise<Answer<'listQueue'>> {
    return this.call('GET', `/api/gre-admin/queue${search(query)}`)
  }

  messages(session: string, query: Query<'listSessionMessages'>): Promise<Answer<'listSessionMessages'>> {
    return this.call('GET', `/api/gre-admin/messages/${encodeURIComponent(session)}${search(query)}`)
  }

  reply(session: string, id: string, message: string): Promise<Answer<'sendReply'>> {
    const body: Body<'sendReply'> = { sessionId: session, id, message }
    return this.call('POST', '/api/gre-admin/reply', body)
  }

  /** `assigned` to `staffId` (the caller by default), `active` (nobody's, reopened), or `closed`. */
  setStatus(session: string, status: SessionStatus, staffId?: string): Promise<Answer<'setSessionStatus'>> {
    const body: Body<'setSessionStatus'> = staffId === undefined ? { status } : { status, staffId }
    return this.call('PUT', `/api/gre-admin/session/${encodeURIComponent(session)}/status`, body)
  }

  staff(): Promise<Answer<'listStaff'>> {
    return this.call('GET', '/api/gre-admin/staff')
  }

  player(id: PlayerId): Promise<Answer<'getPlayer'>> {
    return this.call('GET', `/api/gre-admin/player/${id}`)
  }

  enablePlayer(id: PlayerId, enabled: boolean): Promise<Answer<'enablePlayer'>> {
    const body: Body<'enablePlayer'> = { enabled }
    return this.call('POST', `/api/gre-chat/enable-player/${id}`, body)
  }

  operations(): Promise<Answer<'getOperations'>> {
    return this.call('GET', '/api/gre-admin/operations')
  }

  dead(cursor?: string): Promise<Answer<'listDeadLetters'>> {
    return this.call('GET', `/api/gre-admin/dead${search({ limit: 50, cursor })}`)
  }

  retryDead(ids: string[]): Promise<Answer<'retryDeadLetters'>> {
    const body: Body<'retryDeadLetters'> = { ids }
    return this.call('POST', '/api/gre-admin/dead/retry', body)
  }

  private async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    if (this.life.over) throw new ApiError(0, 'signed_out', 'You are signed out.')
    const headers: Record<string, string> = { Authorization: `Bearer ${this.token()}` }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    let answer: Response
    let said: unknown
    try {
      answer = await fetch(path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.any([this.life.signal, AbortSignal.timeout(WITHIN)]),
      })
      said = exactJson(await answer.text())
    } catch {
      throw new ApiError(0, 'unreachable', 'The server does not answer.')
    }
    const date = Date.parse(answer.headers.get('Date') ?? '')
    // The header counts whole seconds: half a second is its middle.
    if (!Number.isNaN(date)) this.skew = date + 500 - Date.now()
    if (answer.ok) return said as T
    const { code = 'unknown', error = 'The server refused.' } = (said ?? {}) as { code?: string; error?: string }
    if (answer.status === 401 && !this.life.over) this.denied()
    throw new ApiError(answer.status, code, sentence(error), Number(answer.headers.get('Retry-After')) || 0)
  }
}

/**
 * Read JSON without changing players' numbers: beyond 2^53 they would become another player's, so they stay text.
 *
 * (A quote inside of a JSON string has a backslash before it, so only names of fields are met.)
 */
export function exactJson(text: string): unknown {
  return JSON.parse(text.replace(/"(player_id|playerId)"(\s*:\s*)(\d{16,})/g, '"$1"$2"$3"'))
}

function search(query: object): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null)
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : ''
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith('.') ? '' : '.')
}
