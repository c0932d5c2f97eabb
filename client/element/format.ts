/** Times and sizes in the element's language; times are in the browser's time zone, those of opening in the house's. */

import type { Words } from './words'

/** A language that the browser knows; undefined, which is the browser's own, for an invalid tag. */
function known(language: string): string | undefined {
  try {
    return Intl.getCanonicalLocales(language)[0]
  } catch {
    return undefined
  }
}

const CLOCKS = new Map<string, Intl.DateTimeFormat>()

/** The time of day of an ISO time. */
export function clock(at: string, language: string): string {
  let format = CLOCKS.get(language)
  if (!format) CLOCKS.set(language, (format = new Intl.DateTimeFormat(known(language), { hour: '2-digit', minute: '2-digit' })))
  return format.format(new Date(at))
}

/** A key of the local day of an ISO time. */
export function dayKey(at: string | number): string {
  const date = new Date(at)
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

/** The name of a day: today, yesterday, or the date, with the year if it is another one. `now` is in milliseconds. */
export function dayName(at: string, now: number, language: string, words: Words): string {
  const key = dayKey(at)
  const before = new Date(now)
  before.setDate(before.getDate() - 1) // days of a change of clocks have not 24 hours
  if (key === dayKey(now)) return words.today
  if (key === dayKey(before.getTime())) return words.yesterday
  const year = new Date(at).getFullYear() === new Date(now).getFullYear() ? undefined : ('numeric' as const)
  return new Intl.DateTimeFormat(known(language), { weekday: 'long', day: 'numeric', month: 'long', year }).format(new Date(at))
}

/** Bytes in kB or MB, at least 1 kB. */
export function size(bytes: number, language: string): string {
  const large = bytes >= 999_500
  const value = large ? bytes / 1e6 : Math.max(1, bytes / 1000)
  const options = { style: 'unit', unit: large ? 'megabyte' : 'kilobyte', maximumFractionDigits: large ? 1 : 0 } as const
  return new Intl.NumberFormat(known(language), options).format(value)
}

const DAY_MS = 86_400_000

/** A time zone that the browser knows; undefined, which is the browser's own, for another one. */
function zone(name: string | null): string | undefined {
  try {
    return name ? new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone : undefined
  } catch {
    return undefined
  }
}

/** The local day of a time in a zone, in days since 1970. */
function dayIn(at: number, timeZone: string | undefined): number {
  const parts = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', { timeZone, year: 'numeric', month: 'numeric', day: 'numeric' }).formatToParts(at)
  const part = (name: string): number => Number(parts.find(({ type }) => type === name)!.value)
  return Date.UTC(part('year'), part('month') - 1, part('day')) / DAY_MS
}

/**
 * The day and the time of day of an ISO time in the house's time zone: "tomorrow", "09:00". The time names its zone where the
 * person's clock shows another one. `now` is in milliseconds.
 */
export function appointment(at: string, now: number, timezone: string | null, language: string): { day: string; time: string } {
  const timeZone = zone(timezone)
  const own = known(language)
  const when = new Date(at)
  const clockIn = (timeZone: string | undefined, timeZoneName?: 'short'): string =>
    new Intl.DateTimeFormat(own, { timeZone, hour: '2-digit', minute: '2-digit', timeZoneName }).format(when)
  const daysIn = (timeZone: string | undefined): number => dayIn(when.getTime(), timeZone) - dayIn(now, timeZone)
  const days = daysIn(timeZone)
  const isElsewhere = clockIn(timeZone) !== clockIn(undefined) || dayIn(when.getTime(), timeZone) !== dayIn(when.getTime(), undefined)
  // "Today" there can be tomorrow here.
  const day =
    days < 2 && days === daysIn(undefined)
      ? new Intl.RelativeTimeFormat(own, { numeric: 'auto' }).format(days, 'day')
      : new Intl.DateTimeFormat(own, { timeZone, weekday: 'long', ...(days > 6 && { day: 'numeric', month: 'long' }) }).format(when)
  return { day, time: clockIn(timeZone, isElsewhere ? 'short' : undefined) }
}
