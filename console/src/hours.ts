/**
 * Opening hours as a form edits them: the ranges of a day as text, and the open times of the next days. Pure functions.
 *
 * A day is a text YYYY-MM-DD, a time HH:MM in the hours' time zone. A range that closes at or before its opening ends on
 * the next day (docs/rest.md).
 */

import type { Hours } from './types'

export interface Range {
  opens: string
  closes: string
}

/** A version of the week: it applies from a day until the next version. */
export interface WeekVersion {
  validFrom: string
  /** The ranges of Monday to Sunday, as text; empty: closed. */
  days: string[]
}

/** A single day, which replaces that of the week. */
export interface SpecialDay {
  day: string
  label: string
  /** Empty: closed. */
  ranges: string
}

export interface HoursForm {
  name: string
  timezone: string
  versions: WeekVersion[]
  specialDays: SpecialDay[]
}

export interface PreviewDay {
  day: string
  /** Null: the day's text is no list of ranges. */
  ranges: Range[] | null
  /** The label of a special day; undefined if the day is that of the week. */
  special: string | undefined
}

export const WEEKDAYS = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']
const ALL_DAY: Range = { opens: '00:00', closes: '24:00' }
const DAY_LENGTH = 86_400_000

/** Parse "09:00-12:00, 13-18"; "24h" is the whole day. Returns null if the text is something else. */
export function parseRanges(text: string): Range[] | null {
  if (!text.trim()) return []
  if (/^\s*24\s*h\s*$/i.test(text)) return [ALL_DAY]
  const ranges: Range[] = []
  for (const part of text.split(',')) {
    const match = /^\s*(\d{1,2})(?::(\d{2}))?\s*[-–]\s*(\d{1,2})(?::(\d{2}))?\s*$/.exec(part)
    if (!match) return null
    const opens = timeOf(match[1]!, match[2])
    const closes = timeOf(match[3]!, match[4])
    if (opens === null || closes === null || opens === '24:00' || ranges.some((range) => range.opens === opens)) return null
    ranges.push({ opens, closes })
  }
  return ranges.sort((a, b) => (a.opens < b.opens ? -1 : 1))
}

export function formatRanges(ranges: readonly Range[]): string {
  return ranges.map(({ opens, closes }) => `${opens}–${closes}`).join(', ')
}

/** The current day in a time zone; in UTC if the browser does not know the zone. */
export function todayIn(timezone: string, now: number): string {
  try {
    return new Intl.DateTimeFormat('en-CA', { timeZone: timezone, year: 'numeric', month: '2-digit', day: '2-digit' }).format(now)
  } catch {
    return new Date(now).toISOString().slice(0, 10)
  }
}

/** The form of stored hours: the week that applies today, later ones, and the special days from today on. */
export function formOf(hours: Hours, today: string): HoursForm {
  const starts = [...new Set(hours.week.map((entry) => entry.valid_from))].sort()
  const current = starts.filter((start) => start <= today).at(-1)
  const versions = starts.filter((start) => start === current || start > today).map((validFrom) => ({
    validFrom,
    days: WEEKDAYS.map((_, n) => textOf(hours.week.filter((entry) => entry.valid_from === validFrom && entry.weekday === n + 1))),
  }))
  const days = [...new Set(hours.dates.map((entry) => entry.day))].filter((day) => day >= today).sort()
  const specialDays = days.map((day) => {
    const entries = hours.dates.filter((entry) => entry.day === day)
    return { day, label: entries[0]?.label ?? '', ranges: textOf(entries) }
  })
  return { name: hours.name, timezone: hours.timezone, versions, specialDays }
}

/** The form of new hours. */
export function newForm(timezone: string, today: string): HoursForm {
  return { name: '', timezone, versions: [{ validFrom: today, days: WEEKDAYS.map((_, n) => (n < 5 ? '09:00–18:00' : '')) }], specialDays: [] }
}

/**
 * The hours of a form, to be sent. A week that has applied before today is sent from today on if it was changed, else
 * left out, since the server keeps it. Returns the reason as text if a field cannot be used.
 */
export function hoursOf(form: HoursForm, stored: HoursForm | undefined, today: string): Hours | string {
  const week: Hours['week'] = []
  const dates: Hours['dates'] = []
  const starts = new Set<string>()
  for (const { validFrom, days } of form.versions) {
    const before = stored?.versions.find((version) => version.validFrom === validFrom)
    if (!validFrom) return 'A week has no day from which it applies.'
    if (validFrom < today && before && before.days.join('|') === days.join('|')) continue
    const valid_from = validFrom < today ? today : validFrom
    if (starts.has(valid_from)) return `Two weeks apply from ${valid_from}.`
    starts.add(valid_from)
    let open = false
    for (const [n, text] of days.entries()) {
      const ranges = parseRanges(text)
      if (!ranges) return `${WEEKDAYS[n]}: write times as 09:00–18:00.`
      open ||= ranges.length > 0
      week.push(...ranges.map((range) => ({ weekday: n + 1, ...range, valid_from })))
    }
    // A week without any entry: one that says so.
    if (!open) week.push({ weekday: 1, opens: null, closes: null, valid_from })
  }
  const seen = new Set<string>()
  for (const { day, label, ranges: text } of form.specialDays) {
    const ranges = parseRanges(text)
    if (!day) return 'A special day has no date.'
    if (!ranges) return `${day}: write times as 09:00–18:00.`
    if (seen.has(day)) return `${day} is there twice.`
    seen.add(day)
    const entries = ranges.length ? ranges : [{ opens: null, closes: null }]
    dates.push(...entries.map((range) => ({ day, label: label || null, ...range })))
  }
  return { name: form.name, timezone: form.timezone, week, dates }
}

/** The open times of `count` days from `today` on, as the form says. */
export function previewDays(form: HoursForm, today: string, count: number): PreviewDay[] {
  const start = Date.parse(today)
  return Array.from({ length: count }, (_, n) => {
    const at = new Date(start + n * DAY_LENGTH)
    const day = at.toISOString().slice(0, 10)
    const special = form.specialDays.find((entry) => entry.day === day)
    if (special) return { day, ranges: parseRanges(special.ranges), special: special.label }
    const version = form.versions.filter(({ validFrom }) => validFrom <= day).sort((a, b) => (a.validFrom < b.validFrom ? -1 : 1)).at(-1)
    const text = version?.days[(at.getUTCDay() + 6) % 7]
    return { day, ranges: text === undefined ? [ALL_DAY] : parseRanges(text), special: undefined }
  })
}

function timeOf(hour: string, minute = '00'): string | null {
  const time = `${hour.padStart(2, '0')}:${minute}`
  return /^([01]\d|2[0-3]):[0-5]\d$|^24:00$/.test(time) ? time : null
}

function textOf(entries: readonly { opens: string | null; closes: string | null }[]): string {
  const ranges = entries.flatMap(({ opens, closes }) => (opens === null || closes === null ? [] : [{ opens, closes }]))
  return formatRanges(ranges.sort((a, b) => (a.opens < b.opens ? -1 : 1)))
}
