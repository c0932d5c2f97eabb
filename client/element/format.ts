/** Times and sizes in the element's language and the browser's time zone. */

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
