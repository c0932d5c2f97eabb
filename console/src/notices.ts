/** What the page says by itself: a line that goes away again, and lines that are read out. It knows no chat. */

import type { Life } from './life'

export interface Toast {
  text: string
  kind: 'refusal' | 'unsent' | 'news'
  /** The conversation that it is about. */
  session: string | undefined
}

const SHOWN_FOR = 8000

export class Notices {
  toast: Toast | undefined
  announcement = ''
  private timer: number | undefined

  constructor(
    private readonly life: Life,
    private readonly changed: () => void,
  ) {}

  /** Show a line; one about a reply that is not sent stays until it is dismissed or sent. */
  show(kind: Toast['kind'], text: string, session?: string): void {
    this.life.clear(this.timer)
    this.toast = { kind, text, session }
    if (kind !== 'unsent') this.timer = this.life.after(SHOWN_FOR, () => this.dismiss())
    this.changed()
  }

  dismiss(): void {
    this.life.clear(this.timer)
    this.toast = undefined
    this.changed()
  }

  announce(text: string): void {
    this.announcement = text
    this.changed()
  }
}
