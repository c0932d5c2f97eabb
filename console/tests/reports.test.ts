/** Reports: days of time zones as moments, the form in the address, figures as text, CSV. */

import { expect, test } from 'vitest'
import { csvOf } from '../src/reports/csv'
import { countOf, GROUPS, isMetric, metricLabel } from '../src/reports/figures'
import { changeForm, queryOf, type ReportForm, readForm, reportHref } from '../src/reports/form'
import { daysOf, isDay, isZone, momentsOf, zonesWith } from '../src/reports/range'
import type { FigureRow, Metric, Report, Spread } from '../src/reports/types'
import { duration, RowNames, valueText } from '../src/reports/values'

/** A Wednesday; in Auckland it is Thursday already. */
const NOW = Date.parse('2026-11-25T12:30:00Z')
const HOUR = 3_600_000

const spread = (n: number, value: number | null): Spread => ({ n, mean: value, median: value, p90: value, max: value })
const row = (changes: Partial<FigureRow> = {}): FigureRow => ({
  key: null, sessions_opened: 1, sessions_closed: 2, closed_idle: 3, missed: 4, dropped: 5, transfers: 6, messages: { player: 7, staff: 8, auto: 9 }, players: 10,
  first_reply: spread(11, 61), reply: spread(12, 62), time_to_close: spread(13, 63), handle: spread(0, null),
  rating: { asked: 14, answered: 15, mean: 4.333, good_share: 0.8 }, within_goal: { n: 16, met: 12 }, ...changes,
})
const report = (rows: FigureRow[], total = row()): Report => ({ success: true, by: 'day', basis: null, in_hours: false, timezone: 'UTC', from: '2026-11-01T00:00:00Z', to: '2026-11-03T00:00:00Z', whole_from: null, rows, total })
const group = (id: string) => GROUPS.find((item) => item.id === id)!

test.each([
  ['today', 'UTC', '2026-11-25', '2026-11-25'],
  ['today', 'Pacific/Auckland', '2026-11-26', '2026-11-26'],
  ['yesterday', 'UTC', '2026-11-24', '2026-11-24'],
  ['week', 'UTC', '2026-11-23', '2026-11-29'],
  ['7d', 'UTC', '2026-11-19', '2026-11-25'],
  ['30d', 'UTC', '2026-10-27', '2026-11-25'],
  ['month', 'UTC', '2026-11-01', '2026-11-30'],
  ['last-month', 'UTC', '2026-10-01', '2026-10-31'],
] as const)('%s in %s is %s to %s', (preset, zone, from, to) => {
  expect(daysOf(preset, zone, NOW)).toEqual({ from, to })
})

test('a week begins on Monday, also seen from a Sunday', () => {
  expect(daysOf('week', 'UTC', Date.parse('2026-11-29T23:00:00Z'))).toEqual({ from: '2026-11-23', to: '2026-11-29' })
})

test.each([
  ['Europe/Malta', '2026-03-29', 23],
  ['Europe/Malta', '2026-10-25', 25],
  ['Australia/Lord_Howe', '2026-04-05', 24.5],
  ['Australia/Lord_Howe', '2026-10-04', 23.5],
  ['America/Sao_Paulo', '2018-11-04', 23],
  ['UTC', '2026-10-25', 24],
])('in %s the day %s has %s hours', (zone, day, hours) => {
  const { from, to } = momentsOf({ from: day, to: day }, zone)
  expect((Date.parse(to) - Date.parse(from)) / HOUR).toBe(hours)
})

test('days of a zone are moments', () => {
  expect(momentsOf({ from: '2026-11-01', to: '2026-11-30' }, 'Europe/Malta')).toEqual({ from: '2026-10-31T23:00:00.000Z', to: '2026-11-30T23:00:00.000Z' })
})

test.each(['2026-02-29', '2026-13-01', '26-01-01', '', 'x', '2026-1-1'])('%s is no day', (text) => expect(isDay(text)).toBe(false))

test('zones: the browser’s, with the chosen one', () => {
  expect([isZone('Europe/Malta'), isZone('Mars/Base'), isZone('')]).toEqual([true, false, false])
  expect(zonesWith('Etc/GMT+3')).toEqual(expect.arrayContaining(['UTC', 'Etc/GMT+3', 'Europe/Malta']))
})

const form = (changes: Partial<ReportForm> = {}): ReportForm => ({ ...readForm('', 'Europe/Malta', NOW), ...changes })
const again = (asked: ReportForm): ReportForm => readForm(reportHref(asked).replace('#reports?', ''), 'UTC', NOW)

test('a link has the whole form', () => {
  const asked = form({
    preset: 'custom', days: { from: '2026-10-01', to: '2026-10-31' }, by: 'staff', basis: 'closed', inHours: true, group: 'reply', cell: { metric: 'missed', key: 's1' },
  })
  expect(again(asked)).toEqual(asked)
  // Of the total, and of nobody.
  expect(again({ ...asked, cell: { metric: 'reply', key: undefined } }).cell).toEqual({ metric: 'reply', key: undefined })
  expect(again({ ...asked, cell: { metric: 'reply', key: null } }).cell).toEqual({ metric: 'reply', key: null })
  expect(queryOf(asked, NOW)).toEqual({ from: '2026-09-30T22:00:00.000Z', to: '2026-10-31T23:00:00.000Z', timezone: 'Europe/Malta', by: 'staff', basis: 'closed', in_hours: true })
})

test('what is invalid in a link has its default', () => {
  const text = 'range=century&zone=Mars/Base&by=minute&basis=now&show=everything&metric=constructor&from=2026-02-30&to=x'
  expect(readForm(text, 'Europe/Malta', NOW)).toEqual(form())
  expect(form()).toMatchObject({ preset: '7d', zone: 'Europe/Malta', by: 'day', basis: '', inHours: false, group: 'conversations', cell: undefined })
  // An empty range, too.
  expect(readForm('range=custom&from=2026-11-03&to=2026-11-01', 'UTC', NOW).days).toEqual({ from: '2026-11-19', to: '2026-11-25' })
})

test('a single day is divided into hours, more days into days', () => {
  expect(changeForm(form(), { preset: 'today' }, NOW)).toMatchObject({ preset: 'today', by: 'hour' })
  expect(changeForm(form({ preset: 'today', by: 'hour' }), { preset: '30d' }, NOW).by).toBe('day')
  expect(changeForm(form({ by: 'staff' }), { preset: 'today' }, NOW).by).toBe('staff')
  // Other days begin with those that were shown; a change closes the list of a cell.
  const other = changeForm(form({ preset: 'last-month', cell: { metric: 'missed', key: undefined } }), { preset: 'custom' }, NOW)
  expect(other).toMatchObject({ preset: 'custom', days: { from: '2026-10-01', to: '2026-10-31' }, cell: undefined })
})

test.each([
  [0, '0 s'], [59.4, '59 s'], [59.6, '1 min'], [60, '1 min'], [125, '2 min 5 s'], [3600, '1 h'], [3660, '1 h 1 min'], [86_400, '24 h'], [200_000, '2 d 7 h'],
])('%s seconds are %s', (seconds, text) => expect(duration(seconds)).toBe(text))

test('nothing is no zero', () => {
  expect(valueText(null, 'duration')).toBe('–')
  expect(valueText(0, 'duration')).toBe('0 s')
  expect(valueText(0.5, 'share').replace(/\s/, '')).toBe('50%')
})

test('every metric has a name, and its number is that of its column', () => {
  for (const { columns } of GROUPS) {
    for (const column of columns) {
      expect(isMetric(column.metric)).toBe(true)
      expect(metricLabel(column.metric)).not.toBe('')
      if (column.unit === 'count' && column.id !== 'goal_met') expect(column.value(row())).toBe(countOf(column.metric, row()))
    }
  }
  const numbers = new Set(GROUPS.flatMap(({ columns }) => columns.map(({ metric }) => countOf(metric as Metric, row({ handle: spread(17, 1) })))))
  // Each of the row's different numbers.
  expect([...numbers].sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17])
  expect(group('goal').columns[0]!.value(row())).toBe(0.75)
  expect(group('goal').columns[0]!.value(row({ within_goal: { n: 0, met: 0 } }))).toBeNull()
})

test('rows have names', () => {
  const day = new RowNames('day', 'Pacific/Auckland', String, false)
  expect(day.of(row({ key: 'x', start: '2026-11-24T11:00:00Z' }))).toMatch(/25/)
  const staff = new RowNames('staff', 'UTC', (id) => `name of ${id}`, false)
  expect([staff.of(row({ key: 's1' })), staff.of(row())]).toEqual(['name of s1', 'Nobody'])
})

test('a table as CSV: numbers as they are, formulas harmless', () => {
  const start = '2026-11-01T00:00:00.000Z'
  const rows = [row({ key: start, start, end: '2026-11-02T00:00:00.000Z', reply: spread(2, 90.5) }), row({ key: 'x', start: '2026-11-02T00:00:00.000Z', end: '2026-11-03T00:00:00.000Z', reply: spread(0, null) })]
  expect(csvOf(group('reply'), report(rows), 'day', String)).toBe(
    '\ufefffrom,to,median_seconds,mean_seconds,p90_seconds,max_seconds,n\r\n' +
      '2026-11-01T00:00:00.000Z,2026-11-02T00:00:00.000Z,90.5,90.5,90.5,90.5,2\r\n2026-11-02T00:00:00.000Z,2026-11-03T00:00:00.000Z,,,,,0\r\n',
  )
  const names: Record<string, string> = { a: '=HYPERLINK("http://x")', b: '@SUM(1)', c: 'Ann, "the" boss', d: '-1+1', e: '\ttab', f: 'Zoë\nX' }
  const lines = csvOf(group('goal'), report([...Object.keys(names).map((key) => row({ key })), row()]), 'staff', (id) => names[id]!).split('\r\n')
  expect(lines.slice(1, -1)).toEqual([
    'a,"\'=HYPERLINK(""http://x"")",0.75,12,16', "b,'@SUM(1),0.75,12,16", 'c,"Ann, ""the"" boss",0.75,12,16', "d,'-1+1,0.75,12,16", "e,'\ttab,0.75,12,16", 'f,"Zoë\nX",0.75,12,16', ',,0.75,12,16',
  ])
  expect(csvOf(group('goal'), report([]), 'none', String)).toBe('\ufeffgoal_share,goal_met,within_goal\r\n0.75,12,16\r\n')
})
