/** The range of a report: presets, and days of a time zone as moments. Days are YYYY-MM-DD. */

import { LocalTime } from '../local-time'

export const PRESETS = [
  ['today', 'Today'], ['yesterday', 'Yesterday'], ['week', 'This week'], ['7d', 'Last 7 days'], ['30d', 'Last 30 days'],
  ['month', 'This month'], ['last-month', 'Last month'], ['custom', 'Other days'],
] as const

export type Preset = (typeof PRESETS)[number][0]

/** The first and the last day, both inclusive. */
export interface Days {
  from: string
  to: string
}

const DAY = 86_400_000

export function isDay(text: string | null): text is string {
  const midnight = Date.parse(`${text}T00:00:00Z`)
  return text !== null && /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(midnight) && dayOf(midnight) === text
}

/** True if the browser knows the time zone. */
export function isZone(zone: string | null): zone is string {
  if (!zone) return false
  try {
    return Boolean(new LocalTime(zone))
  } catch {
    return false
  }
}

/** The days of a preset at the moment `now`; `custom` are those of the last seven days. Weeks begin on Monday. */
export function daysOf(preset: Preset, zone: string, now: number): Days {
  const local = new Date(new LocalTime(zone).local(now))
  const today = Date.UTC(local.getUTCFullYear(), local.getUTCMonth(), local.getUTCDate())
  const month = (offset: number): number => Date.UTC(local.getUTCFullYear(), local.getUTCMonth() + offset, 1)
  const monday = today - ((local.getUTCDay() + 6) % 7) * DAY
  const days = (from: number, to: number): Days => ({ from: dayOf(from), to: dayOf(to) })
  switch (preset) {
    case 'today': return days(today, today)
    case 'yesterday': return days(today - DAY, today - DAY)
    case 'week': return days(monday, monday + 6 * DAY)
    case '30d': return days(today - 29 * DAY, today)
    case 'month': return days(month(0), month(1) - DAY)
    case 'last-month': return days(month(-1), month(0) - DAY)
    default: return days(today - 6 * DAY, today)
  }
}

/** The moments at which the first day begins and the last one ends, as ISO 8601. */
export function momentsOf({ from, to }: Days, zone: string): { from: string; to: string } {
  const time = new LocalTime(zone)
  const start = (day: string, later = 0): string => new Date(time.moment(Date.parse(`${day}T00:00:00Z`) + later)).toISOString()
  return { from: start(from), to: start(to, DAY) }
}

/** The time zones to choose from, with `zone` among them. */
export function zonesWith(zone: string): string[] {
  const known = typeof Intl.supportedValuesOf === 'function' ? Intl.supportedValuesOf('timeZone') : []
  return [...new Set(['UTC', zone, ...known])].sort()
}

export function browserZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
}

function dayOf(midnight: number): string {
  return new Date(midnight).toISOString().slice(0, 10)
}
