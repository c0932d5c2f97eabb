/** Asks a player how its closed conversation was. The answer is kept in the browser until it is stored. */

import type { SupabaseClient } from '@supabase/supabase-js'
import { getItem, parseJson, setItem } from '../src/storage'

/** A session as the page reads it. */
export interface SessionRow {
  id: string
  status: string
  cycle: number
  rating: number | null
}

interface Draft {
  score: number | undefined
  comment: string
}

/** Milliseconds after which a request without a response counts as failed. */
const TIMEOUT = 15_000
const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T

export class Rating {
  private readonly form = element<HTMLFormElement>('rating')
  private readonly comment = element<HTMLTextAreaElement>('rating-comment')
  private readonly button = element<HTMLButtonElement>('rating-send')
  private readonly error = element('rating-error')
  private readonly thanks = element('rating-thanks')
  private session: SessionRow | undefined
  private sending = false

  constructor(
    private readonly supabase: SupabaseClient,
    private readonly playerId: number,
  ) {
    this.form.addEventListener('input', () => this.keep())
    this.form.addEventListener('submit', (event) => {
      event.preventDefault()
      void this.send()
    })
  }

  /** Ask, if the player's latest session is closed, has an answer of staff and no rating, and ratings are on. */
  async update(session: SessionRow | undefined, answered: boolean): Promise<void> {
    if (!session || session.status !== 'closed' || session.rating !== null || !answered) return this.hide(session)
    if (this.isShown(session)) return
    const { data: me } = await this.supabase.rpc('gre_whoami').throwOnError()
    if (me.rating_enabled) this.ask(session)
  }

  private isShown(session: SessionRow): boolean {
    return this.session?.id === session.id && this.session.cycle === session.cycle
  }

  private get name(): string {
    return `gre-rating-${this.playerId}-${this.session?.id}-${this.session?.cycle}`
  }

  private ask(session: SessionRow): void {
    this.session = session
    const draft = parseJson<Draft>(getItem(this.name, true))
    this.form.reset()
    this.comment.value = draft?.comment ?? ''
    for (const star of this.form.querySelectorAll<HTMLInputElement>('[name=score]')) star.checked = Number(star.value) === draft?.score
    this.error.textContent = ''
    this.thanks.textContent = ''
    this.form.hidden = false
  }

  private hide(latest: SessionRow | undefined): void {
    if (this.sending) return
    if (this.session && latest && this.isShown(latest)) setItem(this.name, null, true)
    this.session = undefined
    this.form.hidden = true
    if (latest && latest.rating === null) this.thanks.textContent = ''
  }

  private get score(): number | undefined {
    const chosen = this.form.querySelector<HTMLInputElement>('[name=score]:checked')
    return chosen ? Number(chosen.value) : undefined
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
    const { error, status } = await this.supabase
      .rpc('gre_rate_session', { p_session_id: session.id, p_score: this.score, p_comment: this.comment.value })
      .abortSignal(AbortSignal.timeout(TIMEOUT))
    this.sending = false
    this.button.disabled = false
    const over = status === 404 || status === 409
    if (error && !over) {
      this.error.textContent = `Not sent: ${error.message || 'no answer'}. Please try again.`
      if (focused) this.button.focus()
      return
    }
    this.hide({ ...session, rating: error ? null : 1 })
    this.thanks.textContent = error ? `Not rated: ${error.message}.` : 'Thank you for your rating.'
    if (focused) this.thanks.focus()
  }
}
