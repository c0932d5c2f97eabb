/** Figures as text: durations, counts, shares, and the names of buckets in the report's time zone. */

import { number } from '../format'
import type { Unit } from './figures'
import type { By, FigureRow } from './types'

export const NOTHING = '–'

const SCORE = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 2 })
const SHARE = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1 })

/** A duration of seconds in its largest two units: "45 s", "2 min 5 s", "3 h 20 min", "2 d 4 h". */
export function duration(seconds: number): string {
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const [size, unit, part, smaller] = whole < 3600 ? [60, 'min', 1, 's'] as const : whole < 172_800 ? [3600, 'h', 60, 'min'] as const : [86_400, 'd', 3600, 'h'] as const
  const rest = Math.floor((whole % size) / part)
  return `${number(Math.floor(whole / size))} ${unit}${rest ? ` ${rest} ${smaller}` : ''}`
}

export function valueText(value: number | null, unit: Unit): string {
  if (value === null) return NOTHING
  return { count: number, duration, score: SCORE.format, share: SHARE.format }[unit](value)
}

/** The names of a report's rows. */
export class RowNames {
  private readonly long: Intl.DateTimeFormat
  private readonly short: Intl.DateTimeFormat
  private readonly day: Intl.DateTimeFormat
  private readonly moment: Intl.DateTimeFormat

  constructor(
    private readonly by: By,
    timeZone: string,
    private readonly staffName: (id: string) => string,
    /** True if the rows are not all of the current year. */
    withYear: boolean,
  ) {
    const day = { weekday: 'short', day: 'numeric', month: 'short', year: withYear ? 'numeric' : undefined, timeZone } as const
    const hour = { hour: '2-digit', minute: '2-digit' } as const
    this.long = new Intl.DateTimeFormat(undefined, by === 'month' ? { month: 'long', year: 'numeric', timeZone } : by === 'hour' ? { ...day, ...hour } : day)
    this.day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', timeZone })
    this.short = by === 'month' ? new Intl.DateTimeFormat(undefined, { month: 'short', year: 'numeric', timeZone }) : by === 'hour' ? new Intl.DateTimeFormat(undefined, { ...hour, timeZone }) : this.day
    this.moment = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric', ...hour, timeZone })
  }

  /** For the table and the readout. */
  of({ key, start }: FigureRow): string {
    if (this.by === 'staff') return key == null ? 'Nobody' : this.staffName(key)
    if (!start) return 'Total'
    return `${this.by === 'week' ? 'From ' : ''}${this.long.format(new Date(start))}`
  }

  /** For the axis; of hours, the date at midnight. */
  shortOf(row: FigureRow): string {
    if (this.by === 'staff') return this.of(row)
    const at = new Date(row.start ?? 0)
    const text = this.short.format(at)
    return this.by === 'hour' && /^0?0\D|^12:00\sAM/.test(text) ? this.day.format(at) : text
  }

  /** A moment, in the report's time zone. */
  at(moment: string): string {
    return this.moment.format(new Date(moment))
  }
}
