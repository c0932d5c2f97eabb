/** The live figures: read again soon after a change that the socket reports, and at the latest after 15 seconds. */

import type { Desk } from '../desk'
import { Emitter } from '../emitter'
import type { LiveFigures } from './types'

/** Milliseconds. */
export const REFRESH = 15_000
/** Changes that come together are answered by one request. */
const DEBOUNCE = 800

export class Live extends Emitter {
  figures: LiveFigures | undefined
  error = ''
  private timer: number | undefined
  private stopped = false
  private loading = false
  /** True if something changed while the figures were being read. */
  private stale = false
  /** True while a change waits for its request. */
  private soon = false
  private seen = ''

  constructor(private readonly desk: Desk) {
    super()
  }

  /** Start; returns a function that stops it. */
  start(): () => void {
    this.seen = this.signature()
    const unsubscribe = this.desk.subscribe(() => this.notice())
    const onVisible = (): void => {
      if (!document.hidden) void this.load()
    }
    document.addEventListener('visibilitychange', onVisible)
    void this.load()
    return () => {
      this.stopped = true
      document.removeEventListener('visibilitychange', onVisible)
      unsubscribe()
      this.desk.scope.cancel(this.timer)
    }
  }

  /** For how long the longest has waited by now, in seconds; null if nobody waits. */
  longestWait(now: number): number | null {
    const { figures } = this
    if (!figures?.waiting || figures.longest_wait === null) return null
    return figures.longest_wait + Math.max(0, Math.floor((now - Date.parse(figures.at)) / 1000))
  }

  async load(): Promise<void> {
    if (this.loading) return void (this.stale = true)
    this.desk.scope.cancel(this.timer)
    this.loading = true
    this.stale = this.soon = false
    try {
      if (!document.hidden || !this.figures) {
        const figures = await this.desk.api.liveFigures()
        if (this.stopped) return
        this.figures = figures
        this.error = ''
      }
    } catch (error) {
      if (this.stopped) return
      this.error = this.desk.describe(error)
    } finally {
      this.loading = false
    }
    this.schedule(this.stale ? DEBOUNCE : REFRESH)
    this.emitChange()
  }

  /** The desk has changed: if that may change a figure, read them again soon. */
  private notice(): void {
    const signature = this.signature()
    if (signature === this.seen) return
    this.seen = signature
    if (this.loading) this.stale = true
    // Changes that never pause must not delay the answer for ever.
    else if (!this.soon) {
      this.soon = true
      this.schedule(DEBOUNCE)
    }
  }

  private schedule(delay: number): void {
    if (this.stopped) return
    this.desk.scope.cancel(this.timer)
    this.timer = this.desk.scope.schedule(delay, () => void this.load())
  }

  private signature(): string {
    const { queue, staff, connection } = this.desk
    return `${queue.revision} ${connection} ${[...staff.values()].map(({ status }) => status).join()}`
  }
}
