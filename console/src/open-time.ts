/**
 * The open time between two moments, from opening hours, as gre.open_ranges in sql/ has it, so that a goal is over here
 * when it is over in the reports.
 */

import { LocalTime } from './local-time'
import type { Hours } from './types'

/** A range of time, in milliseconds since 1970. */
type Span = [start: number, end: number]

const DAY = 86_400_000
/** Days that are looked at, at most: no goal is longer. */
const MAX_DAYS = 400

export class OpenTime {
  private readonly time: LocalTime
  /** By day (YYYY-MM-DD). */
  private readonly cache = new Map<string, Span[]>()

  /** Raises RangeError if the browser does not know the hours' time zone. */
  constructor(private readonly hours: Hours) {
    this.time = new LocalTime(hours.timezone)
  }

  isOpen(at: number): boolean {
    return this.between(at, at + 1) > 0
  }

  /** The open milliseconds between two moments. */
  between(from: number, to: number): number {
    let open = 0
    let counted = from
    for (const [start, end] of this.spans(Math.max(from, to - MAX_DAYS * DAY), to)) {
      // Ranges may overlap: the time up to `counted` is counted.
      const first = Math.max(start, counted)
      const last = Math.min(end, to)
      if (last > first) open += last - first
      counted = Math.max(counted, last)
    }
    return open
  }

  /** The ranges of all days that can have open time between two moments, by their starts. */
  private spans(from: number, to: number): Span[] {
    const spans: Span[] = []
    const lastDay = Math.floor(this.time.local(to) / DAY) * DAY
    // From the day before, whose ranges may end on the first day.
    for (let day = Math.floor(this.time.local(from) / DAY) * DAY - DAY; day <= lastDay; day += DAY) spans.push(...this.spansOf(day))
    return spans.sort(([a], [b]) => a - b)
  }

  /** The ranges of a day, which is given as its midnight in UTC. */
  private spansOf(midnight: number): Span[] {
    const date = new Date(midnight)
    const day = date.toISOString().slice(0, 10)
    const cached = this.cache.get(day)
    if (cached) return cached
    const spans = this.rangesOf(day, date.getUTCDay() || 7).flatMap(({ opens, closes }): Span[] => {
      if (opens === null || closes === null) return []
      const start = this.time.moment(midnight + millisecondsOf(opens))
      const end = this.time.moment(midnight + millisecondsOf(closes) + (millisecondsOf(closes) > millisecondsOf(opens) ? 0 : DAY))
      return [[Math.min(start, end), end]]
    })
    this.cache.set(day, spans)
    return spans
  }

  private rangesOf(day: string, weekday: number): { opens: string | null; closes: string | null }[] {
    const special = this.hours.dates.filter((entry) => entry.day === day)
    if (special.length) return special
    const version = this.hours.week.map((entry) => entry.valid_from).filter((start) => start <= day).sort().at(-1)
    if (version === undefined) return [{ opens: '00:00', closes: '24:00' }]
    return this.hours.week.filter((entry) => entry.valid_from === version && entry.weekday === weekday)
  }
}

/** A time HH:MM, up to 24:00, in milliseconds since midnight. */
function millisecondsOf(time: string): number {
  const [hours = 0, minutes = 0, seconds = 0] = time.split(':').map(Number)
  return ((hours * 60 + minutes) * 60 + seconds) * 1000
}
