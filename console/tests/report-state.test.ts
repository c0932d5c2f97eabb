/** The state of the reports: a newer question cancels the older one, a busy server is asked again; the live figures. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ApiError } from '../src/api'
import type { Desk } from '../src/desk'
import { Emitter } from '../src/emitter'
import { Live } from '../src/reports/live'
import { ReportState } from '../src/reports/report-state'
import type { CellItem, LiveFigures, Report, ReportQuery } from '../src/reports/types'
import { TaskScope } from '../src/scope'

interface Asked<Query, Found> {
  query: Query
  signal: AbortSignal
  answer: (found: Found) => void
  refuse: (error: Error) => void
}

function endpoint<Query, Found>() {
  const asked: Asked<Query, Found>[] = []
  const call = (query: Query, signal: AbortSignal): Promise<Found> =>
    new Promise((answer, refuse) => {
      asked.push({ query, signal, answer, refuse })
      signal?.addEventListener('abort', () => refuse(new ApiError(0, 'unreachable', 'The server does not answer.')))
    })
  return { asked, call }
}

class FakeDesk extends Emitter {
  scope = new TaskScope()
  queue = { revision: 0 }
  staff = new Map()
  connection = 'live'
  reports = endpoint<ReportQuery, Report>()
  cells = endpoint<{ cursor?: string }, { items: CellItem[]; next: string | null }>()
  live = endpoint<undefined, LiveFigures>()
  api = { report: this.reports.call, reportSessions: this.cells.call, liveFigures: this.live.call, now: () => Date.now() }
  describe = (error: Error): string => error.message
}

const query = (by: ReportQuery['by']): ReportQuery => ({ from: 'a', to: 'b', timezone: 'UTC', by, in_hours: false })
const report = (timezone: string) => ({ timezone }) as Report
const flush = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0)
let desk: FakeDesk
let state: ReportState

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('document', Object.assign(new EventTarget(), { hidden: false }))
  desk = new FakeDesk()
  state = new ReportState(desk as unknown as Desk)
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

test('a newer question cancels the older one, and its answer is shown', async () => {
  const { asked } = desk.reports
  state.ask(query('day'))
  state.ask(query('day'))
  expect(asked).toHaveLength(1)
  state.ask(query('week'))
  expect([asked[0]!.signal.aborted, asked[1]!.signal.aborted]).toEqual([true, false])
  await flush()
  expect(state.request.state).toBe('loading')
  asked[1]!.answer(report('week'))
  await flush()
  expect([state.request.state, state.report?.timezone, state.query?.by, state.isCurrent]).toEqual(['done', 'week', 'week', true])
  // Of the answer that comes too late, nothing is shown.
  asked[0]!.answer(report('day'))
  await flush()
  expect(state.report?.timezone).toBe('week')
  state.ask(query('day'))
  expect([state.report?.timezone, state.isCurrent]).toEqual(['week', false])
})

test('a refusal is shown, and the same question asks again', async () => {
  state.ask(query('hour'))
  desk.reports.asked[0]!.refuse(new ApiError(400, 'report_too_large', 'Too many rows.'))
  await flush()
  expect([state.request.state, state.request.error]).toEqual(['failed', 'Too many rows.'])
  state.ask(query('hour'), true)
  expect([state.request.state, desk.reports.asked.length]).toEqual(['loading', 2])
})

test('a slow answer is said to be slow, and can be stopped', async () => {
  state.ask(query('day'))
  expect(state.request.slow).toBe(false)
  await vi.advanceTimersByTimeAsync(3000)
  expect(state.request.slow).toBe(true)
  state.cancel()
  await flush()
  expect([state.request.state, state.request.slow, desk.reports.asked[0]!.signal.aborted]).toEqual(['idle', false, true])
})

test('a busy server is asked again when it says, but not for ever', async () => {
  const { asked } = desk.reports
  state.ask(query('day'))
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    asked[attempt - 1]!.refuse(new ApiError(503, 'busy', 'Busy.', 5))
    await flush()
    expect([asked.length, state.request.busy]).toEqual([attempt, attempt < 5])
    await vi.advanceTimersByTimeAsync(4999)
    expect(asked).toHaveLength(attempt)
    await vi.advanceTimersByTimeAsync(1)
  }
  expect([asked.length, state.request.state]).toEqual([5, 'failed'])
})

test('the sessions of a cell are loaded page by page', async () => {
  const { asked } = desk.cells
  const item = (id: string) => ({ session_id: id }) as CellItem
  state.openCell({ ...query('day'), metric: 'missed', key: 'x' })
  asked[0]!.answer({ items: [item('a')], next: 'more' })
  await flush()
  state.loadMore()
  expect(asked[1]!.query.cursor).toBe('more')
  asked[1]!.refuse(new ApiError(0, 'unreachable', 'No answer.'))
  await flush()
  expect([state.cellRequest.error, state.items.length]).toEqual(['No answer.', 1])
  state.loadMore()
  asked[2]!.answer({ items: [item('b')], next: null })
  await flush()
  expect([state.items.map(({ session_id: id }) => id), state.hasMore]).toEqual([['a', 'b'], false])
  // The same cell again is still there; another one is read.
  state.openCell({ ...query('day'), metric: 'missed', key: 'x' })
  expect([asked.length, state.items.length]).toEqual([3, 2])
  state.openCell({ ...query('day'), metric: 'missed', key: 'y' })
  expect([asked.length, state.items.length]).toEqual([4, 0])
})

const figures = (longest: number | null): LiveFigures => ({ success: true, at: new Date().toISOString(), staff: [], open: 0, waiting: longest === null ? 0 : 1, unassigned: 0, longest_wait: longest })

test('live figures: read soon after a change, many changes once, and after 15 seconds', async () => {
  const { asked } = desk.live
  const live = new Live(desk as unknown as Desk)
  const stop = live.start()
  asked[0]!.answer(figures(10))
  await flush()
  expect(live.longestWait(Date.now())).toBe(10)
  await vi.advanceTimersByTimeAsync(5000)
  expect([live.longestWait(Date.now()), asked.length]).toEqual([15, 1])
  // The clock of the page and typing change nothing that is counted.
  desk.emitChange()
  await vi.advanceTimersByTimeAsync(1000)
  expect(asked).toHaveLength(1)
  // Changes that do not pause.
  for (let n = 0; n < 9; n += 1) {
    desk.queue.revision += 1
    desk.emitChange()
    await vi.advanceTimersByTimeAsync(100)
  }
  expect(asked).toHaveLength(2)
  // A change while the answer is on its way.
  desk.queue.revision += 1
  desk.emitChange()
  asked[1]!.answer(figures(null))
  await vi.advanceTimersByTimeAsync(1000)
  expect([asked.length, live.longestWait(Date.now())]).toEqual([3, null])
  asked[2]!.refuse(new ApiError(500, 'x', 'Broken.'))
  await vi.advanceTimersByTimeAsync(14_999)
  expect([asked.length, live.error, live.figures !== undefined]).toEqual([3, 'Broken.', true])
  await vi.advanceTimersByTimeAsync(1)
  expect(asked).toHaveLength(4)
  stop()
  asked[3]!.answer(figures(3))
  await vi.advanceTimersByTimeAsync(60_000)
  expect([asked.length, live.figures?.longest_wait]).toEqual([4, null])
})
