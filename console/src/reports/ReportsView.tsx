/** The view *Reports*: what is asked, the totals, and of one group of figures the chart and the table. */

import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks'
import type { Desk } from '../desk'
import { useChanges } from '../emitter'
import { clock, full } from '../format'
import { navigate } from '../route'
import { getItem, setItem } from '../storage'
import type { ViewProps } from '../views/LoadedView'
import { CellDialog } from './CellDialog'
import { Chart } from './Chart'
import { csvOf, saveFile } from './csv'
import { FigureTable } from './FigureTable'
import { GROUPS, type Group } from './figures'
import { type Cell, changeForm, queryOf, type ReportForm, readForm, reportHref } from './form'
import { FormFields } from './FormFields'
import { browserZone, isZone } from './range'
import { type ReportState, reportStateOf } from './report-state'
import './reports.css'
import { Totals } from './Totals'
import type { By, Report, ReportQuery } from './types'
import { RowNames } from './values'

/** The time zone that the user chose last. */
const ZONE_KEY = 'gre.reports.zone'
/** Milliseconds after which an answer is asked for again when the view is opened. */
const MAX_AGE = 60_000
const HEADINGS: Record<By, string> = { none: 'All', hour: 'Hour', day: 'Day', week: 'Week', month: 'Month', staff: 'Person' }

export function ReportsView({ desk, parameters }: ViewProps) {
  const state = reportStateOf(desk)
  useChanges(state)
  const now = desk.api.now()
  const form = useMemo(() => readForm(parameters, rememberedZone(), now), [parameters])
  const main = useRef<HTMLElement>(null)
  const opening = useRef(true)
  useLayoutEffect(() => main.current?.focus({ preventScroll: true }), [])
  useEffect(() => {
    // The address says everything, so that it can be sent.
    if (reportHref(form) !== `#reports?${parameters}`) navigate(reportHref(form), true)
    // On the way back from a conversation the report is still there.
    state.ask(queryOf(form, now), opening.current && now - state.answeredAt > MAX_AGE)
    opening.current = false
  }, [state, form])
  const change = (changes: Partial<ReportForm>): void => {
    if (changes.zone) setItem(ZONE_KEY, changes.zone, true)
    navigate(reportHref(changeForm(form, changes, desk.api.now())), true)
  }
  const { report, query, request } = state
  const group = GROUPS.find(({ id }) => id === form.group)!
  return (
    <main class="health reports" id="main" ref={main} tabIndex={-1} data-testid="reports" data-state={request.state} aria-busy={request.state === 'loading'}>
      <h1>Reports</h1>
      <FormFields form={form} now={now} onChange={change} />
      <Progress state={state} onRetry={() => state.ask(queryOf(form, desk.api.now()), true)} />
      {report && query && (
        <div class={`answer ${request.state === 'loading' ? 'is-old' : ''}`}>
          <WholeFrom report={report} />
          <Totals form={form} total={report.total} />
          <GroupPanel desk={desk} state={state} form={form} group={group} report={report} query={query} />
        </div>
      )}
    </main>
  )
}

function rememberedZone(): string {
  const stored = getItem(ZONE_KEY, true)
  return isZone(stored) ? stored : browserZone()
}

function Progress({ state, onRetry }: { state: ReportState; onRetry: () => void }) {
  const { request, report, answeredAt } = state
  return (
    <div class="row progress">
      <p role="status" class="quiet" data-testid="report-status">
        {request.state === 'loading' && (request.busy ? 'The server counts other reports: waiting …' : request.slow ? 'Counting … a long time takes longer.' : 'Counting …')}
        {request.state === 'idle' && 'Stopped.'}
        {request.state === 'done' && report && `As of ${clock(answeredAt)}`}
      </p>
      {request.state === 'loading' && <progress aria-label="The report is being made" />}
      {request.state === 'failed' && <p class="error" role="alert" data-testid="report-error">{request.error}</p>}
      {request.state === 'loading'
        ? <button type="button" class="plain" data-testid="report-stop" onClick={() => state.cancel()}>Stop</button>
        : <button type="button" class="plain" data-testid="report-again" onClick={onRetry}>{request.state === 'done' ? 'Refresh' : 'Try again'}</button>}
    </div>
  )
}

function WholeFrom({ report }: { report: Report }) {
  if (report.whole_from === null || Date.parse(report.whole_from) <= Date.parse(report.from)) return null
  return (
    <p class="banner banner-warn" role="note" data-testid="whole-from">
      The figures begin on {full(report.whole_from)}, when this server began to count. What was before is not in them.
    </p>
  )
}

interface PanelProps {
  desk: Desk
  state: ReportState
  form: ReportForm
  group: Group
  report: Report
  query: ReportQuery
}

function GroupPanel({ desk, state, form, group, report, query }: PanelProps) {
  const { by, timezone } = query
  const years = [report.from, Date.parse(report.to) - 1, state.answeredAt].map((at) => new Date(at).getFullYear())
  const withYear = new Set(years).size > 1
  const names = useMemo(() => new RowNames(by, timezone, (id) => desk.staffName(id), withYear), [by, timezone, withYear, desk.staff.size])
  // Hours and days that have not begun are no zeros.
  const rows = useMemo(() => report.rows.filter(({ start }) => by === 'none' || by === 'staff' || !start || Date.parse(start) <= state.answeredAt), [report])
  const drawn = useMemo(() => group.columns.filter(({ drawn: isDrawn }) => isDrawn), [group])
  const empty = rows.every((row) => group.columns.every((column) => !column.value(row)))
  const openCell = (cell: Cell | undefined, replace = false): void => navigate(reportHref({ ...form, cell }), replace)
  const { cell } = form
  useEffect(() => {
    // The answer may be of an earlier question, until the newer one is answered.
    if (cell && state.isCurrent) state.openCell({ ...query, ...(cell.key === undefined && { by: 'none' }), metric: cell.metric, ...(cell.key != null && { key: cell.key }) })
    else if (!cell) state.closeCell()
  }, [state, form, query])
  // The page is rendered again with each frame of the socket, and the table may be large.
  const table = useMemo(
    () => (
      <FigureTable
        key={`${group.id} ${by} ${query.from} ${query.to}`} group={group} rows={by === 'none' ? [] : rows} total={report.total} names={names} heading={HEADINGS[by]}
        onOpen={(row, metric) => openCell({ metric, key: row ? (row.key ?? null) : undefined })}
      />
    ),
    [form, group, query, rows, names],
  )
  const cellRow = cell && rows.find(({ key }) => key === cell.key)
  return (
    <section aria-labelledby="group-title" data-testid="report-group" data-group={group.id}>
      <div class="row spread">
        <h2 id="group-title">{group.title}</h2>
        <button
          type="button" data-testid="csv" title="Save this table as CSV"
          onClick={() => saveFile(`${group.id}-${form.preset === 'custom' ? `${form.days.from}-${form.days.to}` : form.preset}.csv`, 'text/csv;charset=utf-8', csvOf(group, report, by, (id) => desk.staffName(id)))}
        >
          Save as CSV
        </button>
      </div>
      <p class="quiet meaning">{group.meaning}</p>
      {empty && <p class="empty nothing" role="status" data-testid="report-empty">Nothing happened in this time.</p>}
      {!empty && by !== 'none' && rows.length > 0 && (
        <Chart title={group.title} columns={drawn} rows={rows} names={names} dots={by === 'staff'} onOpen={(row, metric) => openCell({ metric, key: row.key ?? null })} />
      )}
      {table}
      <dl class="meanings">
        {group.columns.map(({ id, label, meaning }) => <div key={id}><dt>{label}</dt><dd>{meaning}</dd></div>)}
      </dl>
      {form.inHours && <p class="quiet">Durations count the opening hours only, as they were then.</p>}
      {cell && <CellDialog desk={desk} state={state} metric={cell.metric} place={cellRow ? names.of(cellRow) : 'Total'} names={names} onClose={() => openCell(undefined, true)} />}
    </section>
  )
}
