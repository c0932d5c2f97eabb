/** Times and numbers as text: dates and numbers in the browser's language and time zone, the rest in English. */

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const DAY_YEAR = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' })
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })
const NUMBER = new Intl.NumberFormat()

export const clock = (at: string | number): string => CLOCK.format(new Date(at))
export const full = (at: string | number): string => FULL.format(new Date(at))
export const number = (value: number): string => NUMBER.format(value)

/** A key of the local day. */
export function dayKey(at: string | number): string {
  const date = new Date(at)
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

export function day(at: string | number, now: number): string {
  if (dayKey(at) === dayKey(now)) return 'Today'
  if (dayKey(at) === dayKey(now - 86_400_000)) return 'Yesterday'
  return (new Date(at).getFullYear() === new Date(now).getFullYear() ? DAY : DAY_YEAR).format(new Date(at))
}

/** For a list: the time if it is today, else the date. */
export function brief(at: string, now: number): string {
  return dayKey(at) === dayKey(now) ? clock(at) : SHORT_DAY.format(new Date(at))
}

/** A duration in its largest one or two units: "45 s", "12 min", "2 h 5 min", "3 d". */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000))
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`
  return `${Math.floor(hours / 24)} d`
}

export function initials(name: string): string {
  const words = name.trim().split(/\s+/)
  const parts = words.length > 1 ? [words[0], words.at(-1)] : [words[0]]
  return parts.map((word) => [...(word ?? '')][0] ?? '').join('').toUpperCase() || '?'
}
