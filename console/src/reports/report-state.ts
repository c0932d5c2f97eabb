/**
 * The report that is shown, and the sessions of a cell: at most one request each, a newer question cancels the older one.
 *
 * It is kept per signed-in person while the page is open, so a report is still there on the way back from a conversation.
 */

import { type Api, ApiError } from '../api'
import type { Desk } from '../desk'
import { Emitter } from '../emitter'
import type { CellItem, CellQuery, Report, ReportQuery } from './types'

/** Milliseconds after which an answer counts as slow. */
const SLOW = 2000
/** Seconds until the next attempt, if the server is busy and does not say. */
const BUSY_DELAY = 2
/** How many times a busy server is asked again. */
const MAX_ATTEMPTS = 5

/** One request at a time, with another attempt while the server is busy. */
class Request<Query, Found> {
  state: 'idle' | 'loading' | 'done' | 'failed' = 'idle'
  error = ''
  slow = false
  /** True while the server has too many such requests, and the next attempt waits. */
  busy = false
  private controller = new AbortController()
  private slowTimer: number | undefined

  constructor(
    private readonly desk: Desk,
    private readonly send: (query: Query, signal: AbortSignal) => Promise<Found>,
    private readonly onChange: () => void,
  ) {}

  /** Ask; an earlier request ends. `onFound` gets the answer, unless a newer request was made. */
  async ask(query: Query, onFound: (found: Found) => void): Promise<void> {
    this.cancel()
    const { signal } = (this.controller = new AbortController())
    this.state = 'loading'
    this.error = ''
    this.slowTimer = this.desk.scope.schedule(SLOW, () => {
      this.slow = true
      this.onChange()
    })
    this.onChange()
    try {
      const found = await this.attempt(query, signal)
      if (signal.aborted) return
      this.end('done')
      onFound(found)
    } catch (error) {
      if (signal.aborted) return
      this.end('failed')
      this.error = this.desk.describe(error)
    }
    this.onChange()
  }

  cancel(): void {
    this.controller.abort()
    this.end('idle')
  }

  private end(state: 'idle' | 'done' | 'failed'): void {
    this.desk.scope.cancel(this.slowTimer)
    this.slow = this.busy = false
    this.state = state
  }

  private async attempt(query: Query, signal: AbortSignal): Promise<Found> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.send(query, signal)
      } catch (error) {
        const busy = error instanceof ApiError && (error.status === 503 || error.status === 429)
        if (signal.aborted || !busy || attempt === MAX_ATTEMPTS) throw error
        this.busy = true
        this.onChange()
        await this.desk.scope.sleep((error.retryAfter || BUSY_DELAY) * 1000)
        if (signal.aborted) throw error
      }
    }
  }
}

export class ReportState extends Emitter {
  /** The last answer, and its question. */
  report: Report | undefined
  query: ReportQuery | undefined
  /** When it was answered, by the server's clock, in milliseconds since 1970. */
  answeredAt = 0
  readonly request: Request<ReportQuery, Report>
  /** The sessions of a cell so far. */
  items: CellItem[] = []
  cellQuery: CellQuery | undefined
  hasMore = false
  readonly cellRequest: Request<CellQuery, { items: CellItem[]; next: string | null }>
  private asked = ''
  private cursor: string | undefined

  constructor(private readonly desk: Desk) {
    super()
    const { api }: { api: Api } = desk
    this.request = new Request(desk, (query, signal) => api.report(query, signal), this.emitChange)
    this.cellRequest = new Request(desk, (query, signal) => api.reportSessions(query, signal), this.emitChange)
  }

  /** Ask for a report, unless it is the one that is shown or asked for; with `again` in any case. */
  ask(query: ReportQuery, again = false): void {
    const question = JSON.stringify(query)
    if (!again && question === this.asked && this.request.state !== 'idle') return
    this.asked = question
    void this.request.ask(query, (report) => {
      this.report = report
      this.query = query
      this.answeredAt = this.desk.api.now()
    })
  }

  /** True if what is shown answers the last question. */
  get isCurrent(): boolean {
    return JSON.stringify(this.query) === this.asked
  }

  /** Stop waiting for the answer; what was shown before stays. */
  cancel(): void {
    this.request.cancel()
    this.emitChange()
  }

  /** List the sessions of a cell, unless they are listed already. */
  openCell(query: CellQuery): void {
    if (JSON.stringify(query) === JSON.stringify(this.cellQuery) && this.cellRequest.state !== 'failed') return
    this.cellQuery = query
    this.items = []
    this.cursor = undefined
    this.hasMore = false
    this.loadMore()
  }

  /** Load the next page of the cell's sessions, or after a failure the same one again. */
  loadMore(): void {
    const query = this.cellQuery
    if (!query) return
    void this.cellRequest.ask({ ...query, ...(this.cursor !== undefined && { cursor: this.cursor }) }, ({ items, next }) => {
      this.items = [...this.items, ...items]
      this.cursor = next ?? undefined
      this.hasMore = next !== null
    })
  }

  /** Forget the sessions of a cell: the next cell is read again. */
  closeCell(): void {
    this.cellRequest.cancel()
    this.cellQuery = undefined
  }
}

const states = new WeakMap<Desk, ReportState>()

/** The state of a signed-in person's reports. */
export function reportStateOf(desk: Desk): ReportState {
  const state = states.get(desk) ?? new ReportState(desk)
  states.set(desk, state)
  return state
}
