/** The REST client: one method for each operation that the console uses. Its only state is the server's clock. */

import type { Item } from '../../client/src/outbox'
import { exactJson } from '../../client/src/util'
import type { CellItem, CellQuery, LiveFigures, Report, ReportQuery } from './reports/types'
import type { TaskScope } from './scope'
import type {
  Answer, AutoReply, Body, Hours, Note, Player, PlayerId, Query, SessionAssigned, Settings, Template,
} from './types'

/** Milliseconds. */
const TIMEOUT = 15_000
const REPORT_TIMEOUT = 90_000

/** An error response, or no response (status 0). `message` is the server's text, for users. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    text: string,
    readonly retryAfter = 0,
    /** For programs: who took the session, which seq. */
    readonly details: Record<string, unknown> = {},
  ) {
    super(text)
  }

  /** True if the same call may succeed later (after a 401: with a renewed token). */
  get transient(): boolean {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500
  }
}

interface Refusal {
  code?: string
  error?: string
  details?: Record<string, unknown>
}

export type QueueQuery = Query<'listQueue'>
export type Transfer = Omit<Body<'transferSession'>, 'sessionId'>
export type SessionStatus = Body<'setSessionStatus'>['status']

export class Api {
  /** The server's clock minus this machine's, in milliseconds. */
  clockSkew = 0

  constructor(
    private readonly token: () => string,
    private readonly onUnauthorized: () => void,
    /** Once it is closed, calls fail and pending requests are aborted. */
    private readonly scope: TaskScope,
    /** The daemon's address, for pages of another origin. */
    private readonly base = '',
  ) {}

  /** The server's time in milliseconds since 1970, from its `Date` headers. */
  now(): number {
    return Date.now() + this.clockSkew
  }

  /** Who the caller is. */
  me(): Promise<Answer<'getMe'>> {
    return this.call('GET', '/api/gre-chat/me')
  }

  queue(query: QueueQuery): Promise<Answer<'listQueue'>> {
    return this.call('GET', `/api/gre-admin/queue${queryString(query)}`)
  }

  messages(session: string, query: Query<'listSessionMessages'>): Promise<Answer<'listSessionMessages'>> {
    return this.call('GET', `/api/gre-admin/messages/${encodeURIComponent(session)}${queryString(query)}`)
  }

  events(session: string, query: Query<'listSessionEvents'>): Promise<Answer<'listSessionEvents'>> {
    return this.call('GET', `/api/gre-admin/events/${encodeURIComponent(session)}${queryString(query)}`)
  }

  /** Messages of all sessions, the newest first. */
  search(query: Query<'searchMessages'>): Promise<Answer<'searchMessages'>> {
    return this.call('GET', `/api/gre-admin/search${queryString(query)}`)
  }

  /** Refused (`session_moved`) if a colleague has written after the seq `afterSeq`, the last that the author has seen. */
  reply(session: string, { id, text, afterSeq, templateId, files }: Item): Promise<Answer<'sendReply'>> {
    const attachmentIds = files.length ? files : undefined
    return this.call('POST', '/api/gre-admin/reply', { sessionId: session, id, message: text, afterSeq, templateId, attachmentIds })
  }

  /** Announce a file, and get the address for its bytes; with the same id again after a failure. No address: the bytes are there. */
  beginAttachment(file: Body<'beginAttachment'>): Promise<Answer<'beginAttachment'>> {
    return this.call('POST', '/api/gre-chat/attachments', file)
  }

  attachment(id: string): Promise<Answer<'getAttachment'>> {
    return this.call('GET', `/api/gre-chat/attachments/${id}`)
  }

  /** Delete a file that was not sent. */
  dropAttachment(id: string): Promise<unknown> {
    return this.call('DELETE', `/api/gre-chat/attachments/${id}`)
  }

  /** Links of some minutes, by id. */
  attachmentLinks(ids: string[], variant: Body<'getAttachmentLinks'>['variant']): Promise<Answer<'getAttachmentLinks'>> {
    return this.call('POST', '/api/gre-chat/attachments/urls', { ids, variant })
  }

  /** Close a session, or reopen it (`active`). */
  setStatus(session: string, status: SessionStatus): Promise<Answer<'setSessionStatus'>> {
    const body: Body<'setSessionStatus'> = { status }
    return this.call('PUT', `/api/gre-admin/session/${encodeURIComponent(session)}/status`, body)
  }

  /** Assign a session to the caller, if it is nobody's or `fromStaffId`'s; else refused (`session_taken`). */
  take(session: string, fromStaffId: string | null): Promise<SessionAssigned> {
    return this.call('POST', '/api/gre-admin/take', { sessionId: session, fromStaffId })
  }

  release(session: string): Promise<SessionAssigned> {
    return this.call('POST', '/api/gre-admin/release', { sessionId: session })
  }

  /** Assign a session to a colleague, or with null to nobody, together with a note. */
  transfer(session: string, transfer: Transfer): Promise<SessionAssigned> {
    return this.call('POST', '/api/gre-admin/transfer', { sessionId: session, ...transfer })
  }

  notes(session: string, afterN: number): Promise<{ notes: Note[]; has_more: boolean }> {
    return this.call('GET', `/api/gre-admin/notes/${encodeURIComponent(session)}${queryString({ after_n: afterN })}`)
  }

  addNote(session: string, id: string, text: string): Promise<{ note: Note }> {
    return this.call('POST', '/api/gre-admin/notes', { sessionId: session, id, text })
  }

  settings(): Promise<{ settings: Settings }> {
    return this.call('GET', '/api/gre-admin/settings')
  }

  /** Change the given settings; the others stay. */
  changeSettings(changes: Partial<Settings>): Promise<{ settings: Settings }> {
    return this.call('PUT', '/api/gre-admin/settings', changes)
  }

  hours(): Promise<{ hours: Hours[] }> {
    return this.call('GET', '/api/gre-admin/hours')
  }

  /** Create opening hours, or replace the entries of those with this name. */
  saveHours(hours: Hours, isNew: boolean): Promise<{ hours: Hours }> {
    return isNew ? this.call('POST', '/api/gre-admin/hours', hours) : this.call('PUT', `/api/gre-admin/hours/${encodeURIComponent(hours.name)}`, hours)
  }

  deleteHours(name: string): Promise<unknown> {
    return this.call('DELETE', `/api/gre-admin/hours/${encodeURIComponent(name)}`)
  }

  templates(): Promise<Answer<'listTemplates'>> {
    return this.call('GET', '/api/gre-admin/templates')
  }

  /** Create a template, or with an id change one. */
  saveTemplate(template: Partial<Template>, id: string | undefined): Promise<Answer<'changeTemplate'>> {
    return id === undefined ? this.call('POST', '/api/gre-admin/templates', template) : this.call('PUT', `/api/gre-admin/templates/${id}`, template)
  }

  deleteTemplate(id: string): Promise<Answer<'deleteTemplate'>> {
    return this.call('DELETE', `/api/gre-admin/templates/${id}`)
  }

  /** The text of a template for a session. */
  renderTemplate(id: string, session: string): Promise<Answer<'renderTemplate'>> {
    return this.call('POST', `/api/gre-admin/templates/${id}/render`, { sessionId: session })
  }

  /** `now` is the answer that a new session's first message would get at this moment. */
  autoReplies(): Promise<Answer<'listAutoReplies'>> {
    return this.call('GET', '/api/gre-admin/auto-replies')
  }

  /** Create an auto-reply, or with an id change one. */
  saveAutoReply(rule: Partial<AutoReply>, id: string | undefined): Promise<Answer<'changeAutoReply'>> {
    return id === undefined ? this.call('POST', '/api/gre-admin/auto-replies', rule) : this.call('PUT', `/api/gre-admin/auto-replies/${id}`, rule)
  }

  deleteAutoReply(id: string): Promise<Answer<'deleteAutoReply'>> {
    return this.call('DELETE', `/api/gre-admin/auto-replies/${id}`)
  }

  staff(): Promise<Answer<'listStaff'>> {
    return this.call('GET', '/api/gre-admin/staff')
  }

  player(id: PlayerId): Promise<{ player: Player }> {
    return this.call('GET', `/api/gre-admin/player/${id}`)
  }

  /** Disable a player's chat: `until` a time, or until `unblock`. */
  block(id: PlayerId, until: string | undefined, reason: string | undefined): Promise<{ player: Player }> {
    return this.call('PUT', `/api/gre-admin/player/${id}/block`, { until, reason })
  }

  unblock(id: PlayerId): Promise<{ player: Player }> {
    return this.call('DELETE', `/api/gre-admin/player/${id}/block`)
  }

  liveFigures(): Promise<LiveFigures> {
    return this.call('GET', '/api/gre-admin/reports/live')
  }

  report(query: ReportQuery, signal: AbortSignal): Promise<Report> {
    return this.call('GET', `/api/gre-admin/reports${queryString(query)}`, undefined, { timeout: REPORT_TIMEOUT, signal })
  }

  /** The sessions of a cell of a report. */
  reportSessions(query: CellQuery, signal: AbortSignal): Promise<{ items: CellItem[]; next: string | null }> {
    return this.call('GET', `/api/gre-admin/reports/sessions${queryString(query)}`, undefined, { timeout: REPORT_TIMEOUT, signal })
  }

  operations(): Promise<Answer<'getOperations'>> {
    return this.call('GET', '/api/gre-admin/operations')
  }

  dead(cursor?: string): Promise<Answer<'listDeadLetters'>> {
    return this.call('GET', `/api/gre-admin/dead${queryString({ limit: 50, cursor })}`)
  }

  retryDead(ids: string[]): Promise<Answer<'retryDeadLetters'>> {
    const body: Body<'retryDeadLetters'> = { ids }
    return this.call('POST', '/api/gre-admin/dead/retry', body)
  }

  /** Call an operation. Raises ApiError. */
  async call<T>(method: string, path: string, body?: unknown, { timeout = TIMEOUT, signal = this.scope.signal } = {}): Promise<T> {
    if (this.scope.closed) throw new ApiError(0, 'signed_out', 'You are signed out.')
    const headers: Record<string, string> = { Authorization: `Bearer ${this.token()}` }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    let response: Response
    let content: unknown
    // Not AbortSignal.timeout: some engines forget a signal that only AbortSignal.any knows, and the call would wait for ever.
    const ending = new AbortController()
    const timer = setTimeout(() => ending.abort(), timeout)
    try {
      response = await fetch(this.base + path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.any([this.scope.signal, signal, ending.signal]),
      })
      content = exactJson(await response.text())
    } catch {
      throw new ApiError(0, 'unreachable', 'The server does not answer.')
    } finally {
      clearTimeout(timer)
    }
    const date = Date.parse(response.headers.get('Date') ?? '')
    // The header has whole seconds: half a second more is the expected value.
    if (!Number.isNaN(date)) this.clockSkew = date + 500 - Date.now()
    if (response.ok) return content as T
    const { code = 'unknown', error = 'The server refused.', details } = (content ?? {}) as Refusal
    if (response.status === 401 && !this.scope.closed) this.onUnauthorized()
    throw new ApiError(response.status, code, asSentence(error), Number(response.headers.get('Retry-After')) || 0, details ?? {})
  }
}

function queryString(query: object): string {
  const parameters = Object.entries(query).filter(([, value]) => value !== undefined && value !== null)
  return parameters.length ? `?${new URLSearchParams(parameters.map(([name, value]) => [name, String(value)]))}` : ''
}

function asSentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith('.') ? '' : '.')
}
