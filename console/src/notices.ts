/** Notices of the page: one toast, and announcements for screen readers. */

import type { TaskScope } from './scope'

export interface Toast {
  text: string
  kind: 'refusal' | 'unsent' | 'news'
  /** The id of the session to link to. */
  session: string | undefined
}

/** Milliseconds. */
const TOAST_DURATION = 8000

export class Notices {
  toast: Toast | undefined
  announcement = ''
  private timer: number | undefined

  constructor(
    private readonly scope: TaskScope,
    private readonly onChange: () => void,
  ) {}

  /** Show a toast; one of kind `unsent` stays until it is dismissed. */
  show(kind: Toast['kind'], text: string, session?: string): void {
    this.scope.cancel(this.timer)
    this.toast = { kind, text, session }
    if (kind !== 'unsent') this.timer = this.scope.schedule(TOAST_DURATION, () => this.dismiss())
    this.onChange()
  }

  dismiss(): void {
    this.scope.cancel(this.timer)
    this.toast = undefined
    this.onChange()
  }

  announce(text: string): void {
    this.announcement = text
    this.onChange()
  }
}
