/** Local times of a time zone and moments. Local times become moments as PostgreSQL does it (`at time zone`). */

const DAY = 86_400_000

export class LocalTime {
  private readonly format: Intl.DateTimeFormat

  /** Raises RangeError if the browser does not know the time zone. */
  constructor(zone: string) {
    this.format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric',
    })
  }

  /** A moment as local time, as if that were UTC. Both are in milliseconds since 1970. */
  local(at: number): number {
    const parts = Object.fromEntries(this.format.formatToParts(at).map(({ type, value }) => [type, Number(value)]))
    return Date.UTC(parts.year!, parts.month! - 1, parts.day, parts.hour, parts.minute, parts.second)
  }

  /** The moment of a local time, given as if it were UTC: of two the later one, of a skipped hour as before the change. */
  moment(local: number): number {
    const before = local - (this.local(local - DAY) - (local - DAY))
    const after = local - (this.local(local + DAY) - (local + DAY))
    return this.local(after) === local ? after : before
  }
}
