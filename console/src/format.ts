/** Words for times and numbers, in the reader's own language and time zone where that says more than English. */

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const DAY_YEAR = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' })
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })
const NUMBER = new Intl.NumberFormat()

export const clock = (at: string | number): string => CLOCK.format(new Date(at))
export const full = (at: string | number): string => FULL.format(new Date(at))
export const number = (value: number): string => NUMBER.format(value)

/** A key that is the same for all times of one day, here. */
export function dayKey(at: string | number): string {
  const date = new Date(at)
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

export function day(at: string | number, now: number): string {
  if (dayKey(at) === dayKey(now)) return 'Today'
  if (dayKey(at) === dayKey(now - 86_400_000)) return 'Yesterday'
  return (new Date(at).getFullYear() === new Date(now).getFullYear() ? DAY : DAY_YEAR).format(new Date(at))
}

/** For a list: the time today, the date before. */
export function brief(at: string, now: number): string {
  return dayKey(at) === dayKey(now) ? clock(at) : SHORT_DAY.format(new Date(at))
}

/** How long, in its largest unit or two: "now", "45 s", "12 min", "2 h 5 min", "3 d". */
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
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]]
  return letters.map((word) => [...(word ?? '')][0] ?? '').join('').toUpperCase() || '?'
}
