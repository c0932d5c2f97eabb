/** Asks a player how its closed conversation was. The answer is kept in the browser until it is stored. */

import type { SupabaseClient } from '@supabase/supabase-js'
import type { Chat } from '../../client/src/api'
import type { ChatError } from '../../client/src/errors'
import type { Session } from '../../client/src/protocol'
import { getItem, parseJson, setItem } from '../src/storage'

type Score = 1 | 2 | 3 | 4 | 5

interface Draft {
  score: number | undefined
  comment: string
}

/** Milliseconds until it is asked again whether ratings are on. */
const ASK_AGAIN = 5000
const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T

export class Rating {
  private readonly form = element<HTMLFormElement>('rating')
  private readonly comment = element<HTMLTextAreaElement>('rating-comment')
  private readonly button = element<HTMLButtonElement>('rating-send')
  private readonly error = element('rating-error')
  private readonly thanks = element('rating-thanks')
  private session: Session | undefined
  private sending = false
  /** What was looked at last. */
  private seen = ''

  constructor(
    private readonly supabase: SupabaseClient,
    private readonly chat: Chat,
    private readonly playerId: number,
  ) {
    this.form.addEventListener('input', () => this.keep())
    this.form.addEventListener('submit', (event) => {
      event.preventDefault()
      void this.send()
    })
  }

  /** Ask, if the player's latest session is closed, has an answer of staff and no rating, and ratings are on. */
  async update(session: Session | undefined, answered: boolean): Promise<void> {
    const seen = JSON.stringify([session?.id, session?.cycle, session?.status, session?.rating, answered])
    if (seen === this.seen) return
    this.seen = seen
    if (!session || session.status !== 'closed' || session.rating || !answered) return this.hide(session)
    if (this.isShown(session)) return
    try {
      // Not `status().me`, which was read when the page was opened.
      const { data: me } = await this.supabase.rpc('gre_whoami').throwOnError()
      if (me.rating_enabled && seen === this.seen) this.ask(session)
    } catch {
      setTimeout(() => {
        if (seen === this.seen) this.seen = ''
        void this.update(session, answered)
      }, ASK_AGAIN)
    }
  }

  private isShown(session: Session): boolean {
    return this.session?.id === session.id && this.session.cycle === session.cycle
  }

  private get name(): string {
    return `gre-rating-${this.playerId}-${this.session?.id}-${this.session?.cycle}`
  }

  private ask(session: Session): void {
    this.session = session
    const draft = parseJson<Draft>(getItem(this.name, true))
    this.form.reset()
    this.comment.value = draft?.comment ?? ''
    for (const star of this.form.querySelectorAll<HTMLInputElement>('[name=score]')) star.checked = Number(star.value) === draft?.score
    this.error.textContent = ''
    this.thanks.textContent = ''
    this.form.hidden = false
  }

  private hide(latest: Session | undefined): void {
    if (this.sending) return
    if (this.session && latest && this.isShown(latest)) setItem(this.name, null, true)
    this.session = undefined
    this.form.hidden = true
    if (latest && !latest.rating) this.thanks.textContent = ''
  }

  private get score(): Score | undefined {
    const chosen = this.form.querySelector<HTMLInputElement>('[name=score]:checked')
    return chosen ? (Number(chosen.value) as Score) : undefined
  }

  private keep(): void {
    setItem(this.name, JSON.stringify({ score: this.score, comment: this.comment.value } satisfies Draft), true)
  }

  private async send(): Promise<void> {
    const session = this.session
    if (!session || this.sending || this.score === undefined) return
    const focused = this.form.contains(document.activeElement)
    this.sending = true
    this.button.disabled = true // and loses the focus
    this.error.textContent = ''
    // The same rating may be sent again after a lost answer.
    const error = await this.chat.rate(session.id, this.score, this.comment.value).then(() => undefined, (reason) => reason as ChatError)
    this.sending = false
    this.button.disabled = false
    const over = error?.status === 404 || error?.status === 409
    if (error && !over) {
      this.error.textContent = `Not sent: ${error.message || 'no answer'}. Please try again.`
      if (focused) this.button.focus()
      return
    }
    this.hide({ ...session, ...(!error && { rating: 1 }) })
    this.thanks.textContent = error ? `Not rated: ${error.message}.` : 'Thank you for your rating.'
    if (focused) this.thanks.focus()
  }
}
