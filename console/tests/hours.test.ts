/** Opening hours: ranges as text, the form and what it sends, and the preview. */

import { expect, test } from 'vitest'
import { formOf, formatRanges, hoursOf, newForm, parseRanges, previewDays, todayIn, WEEKDAYS } from '../src/hours'
import type { Hours } from '../src/types'

test.each([
  ['', ''],
  ['9-18', '09:00–18:00'],
  ['13:00–18:30, 09:00-12:00', '09:00–12:00, 13:00–18:30'],
  ['18:00-02:00', '18:00–02:00'],
  ['24h', '00:00–24:00'],
  ['00:00-24:00', '00:00–24:00'],
])('%s is read as %s', (text, ranges) => {
  expect(formatRanges(parseRanges(text)!)).toBe(ranges)
})

test.each(['x', '9', '9-25', '24:00-25:00', '09:60-10:00', '9-10 11-12', '24-2', '9-10,9-11', '09:00-'])('%s is refused', (text) => {
  expect(parseRanges(text)).toBeNull()
})

const entry = (valid_from: string, weekday: number, opens: string | null, closes: string | null) => ({ weekday, opens, closes, valid_from })
const STORED: Hours = {
  name: 'desk', timezone: 'Europe/Malta',
  week: [
    entry('2026-01-01', 1, '08:00', '12:00'), entry('2026-06-01', 1, '13:00', '18:00'), entry('2026-06-01', 1, '09:00', '12:00'),
    entry('2026-06-01', 6, '18:00', '02:00'), entry('2026-12-02', 1, null, null),
  ],
  dates: [
    { day: '2026-01-01', label: 'Past', opens: null, closes: null },
    { day: '2026-12-01', label: 'Republic Day', opens: null, closes: null },
    { day: '2026-12-05', label: 'Long Saturday', opens: '10:00', closes: '04:00' },
  ],
}
const TODAY = '2026-11-28' // a Saturday

test('the form has the week of today, later ones and the special days to come', () => {
  const form = formOf(STORED, TODAY)
  expect(form.versions.map(({ validFrom }) => validFrom)).toEqual(['2026-06-01', '2026-12-02'])
  expect(form.versions[0]!.days).toEqual(['09:00–12:00, 13:00–18:00', '', '', '', '', '18:00–02:00', ''])
  expect(form.specialDays.map(({ day, ranges }) => [day, ranges])).toEqual([['2026-12-01', ''], ['2026-12-05', '10:00–04:00']])
})

test('the preview of 14 days follows versions and special days', () => {
  const days = previewDays(formOf(STORED, TODAY), TODAY, 14)
  const text = Object.fromEntries(days.map(({ day, ranges, special }) => [day.slice(5), `${special ?? ''} ${formatRanges(ranges!)}`.trim()]))
  expect(days.map(({ day }) => day).at(-1)).toBe('2026-12-11')
  expect(text).toMatchObject({
    '11-28': '18:00–02:00', '11-29': '', '11-30': '09:00–12:00, 13:00–18:00', '12-01': 'Republic Day', '12-02': '',
    '12-05': 'Long Saturday 10:00–04:00', '12-07': '',
  })
  expect(previewDays({ ...formOf(STORED, TODAY), versions: [] }, TODAY, 1)[0]!.ranges).toEqual([{ opens: '00:00', closes: '24:00' }])
})

test('a week that has applied before is left out if it is unchanged, and sent from today on if it was changed', () => {
  const form = formOf(STORED, TODAY)
  const same = hoursOf(form, form, TODAY) as Hours
  expect(same.week).toEqual([entry('2026-12-02', 1, null, null)])
  expect(same.dates.map(({ day, opens }) => [day, opens])).toEqual([['2026-12-01', null], ['2026-12-05', '10:00']])
  const changed = { ...form, versions: [{ ...form.versions[0]!, days: ['10-12', '', '', '', '', '', ''] }, form.versions[1]!] }
  expect((hoursOf(changed, form, TODAY) as Hours).week).toEqual([entry(TODAY, 1, '10:00', '12:00'), entry('2026-12-02', 1, null, null)])
})

test('what cannot be used is named', () => {
  const form = newForm('UTC', TODAY)
  expect(hoursOf({ ...form, versions: [{ validFrom: TODAY, days: WEEKDAYS.map(() => 'nine') }] }, undefined, TODAY)).toMatch(/^Monday/)
  expect(hoursOf({ ...form, versions: [form.versions[0]!, form.versions[0]!] }, undefined, TODAY)).toMatch(/Two weeks/)
  const special = { day: '2026-12-24', label: '', ranges: '' }
  expect(hoursOf({ ...form, specialDays: [special, special] }, undefined, TODAY)).toMatch(/twice/)
})

test('the day depends on the time zone', () => {
  const at = Date.parse('2026-11-28T23:30:00Z')
  expect([todayIn('UTC', at), todayIn('Europe/Malta', at), todayIn('no zone', at)]).toEqual(['2026-11-28', '2026-11-29', '2026-11-28'])
})
