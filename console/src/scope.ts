/**
 * The timers and requests of one signed-in person, which end together at the sign-out.
 *
 * The next person gets a new scope, so nothing that was started for one person continues for another.
 */

export class TaskScope {
  private readonly controller = new AbortController()
  private readonly timers = new Set<number>()

  /** Aborted when the scope is closed. */
  get signal(): AbortSignal {
    return this.controller.signal
  }

  get closed(): boolean {
    return this.controller.signal.aborted
  }

  /** Call `action` after `delay` milliseconds, unless the scope is closed by then. */
  schedule(delay: number, action: () => void): number | undefined {
    if (this.closed) return undefined
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      action()
    }, delay)
    this.timers.add(timer)
    return timer
  }

  cancel(timer: number | undefined): void {
    if (timer === undefined) return
    clearTimeout(timer)
    this.timers.delete(timer)
  }

  /** Wait for `delay` milliseconds; the promise stays pending if the scope is closed. */
  sleep(delay: number): Promise<void> {
    return new Promise((resolve) => this.schedule(delay, resolve))
  }

  /** Cancel all timers and abort all requests. */
  close(): void {
    this.controller.abort()
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
  }
}
