/**
 * One person's session of the console: timers and requests that belong to it end with it.
 *
 * Whoever signs in next gets another one, so that nothing which was begun for one person goes on for another.
 */

export class Life {
  private readonly controller = new AbortController()
  private readonly timers = new Set<number>()

  /** Aborted at the end. */
  get signal(): AbortSignal {
    return this.controller.signal
  }

  get over(): boolean {
    return this.controller.signal.aborted
  }

  /** Do something after so many milliseconds, unless the session has ended by then. */
  after(pause: number, action: () => void): number | undefined {
    if (this.over) return undefined
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      action()
    }, pause)
    this.timers.add(timer)
    return timer
  }

  clear(timer: number | undefined): void {
    if (timer === undefined) return
    clearTimeout(timer)
    this.timers.delete(timer)
  }

  /** Wait; never returns once the session has ended. */
  pause(time: number): Promise<void> {
    return new Promise((resolve) => this.after(time, resolve))
  }

  end(): void {
    this.controller.abort()
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
  }
}
