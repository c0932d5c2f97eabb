/** @jsxImportSource preact */
/** Asks the player how a closed conversation was. What was chosen stays until it is stored. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { ChatError, Session } from '../../src/index'
import { usePanel } from '../context'
import { fill } from '../words'

const SCORES = [1, 2, 3, 4, 5] as const
type Score = (typeof SCORES)[number]
/** Codes that say that no rating is wanted any more. */
const OVER = ['already_rated', 'rating_off', 'session_open', 'session_unknown']

/** `session` is the one to rate, if there is one; `closed`: the latest session is closed. */
export function Rating({ session, closed }: { session: Session | undefined; closed: boolean }) {
  const { chat, words } = usePanel()
  // Each belongs to one closed conversation, by `key`.
  const [chosen, setChosen] = useState<{ key: string; score: Score }>()
  const [failed, setFailed] = useState('')
  const sending = useRef(false)
  const [dismissed, setDismissed] = useState('')
  const [thanked, setThanked] = useState('')
  const comment = useRef<HTMLTextAreaElement>(null)
  const thanks = useRef<HTMLParagraphElement>(null)
  const key = session && `${session.id} ${session.cycle ?? 1}`
  const score = chosen && chosen.key === key ? chosen.score : undefined
  useEffect(() => {
    if (thanked) thanks.current?.focus()
  }, [thanked])
  const send = async (): Promise<void> => {
    if (!session || !key || !score || sending.current) return
    sending.current = true
    setFailed('')
    try {
      await chat.rate(session.id, score, comment.current?.value.trim() || undefined)
      setThanked(key)
    } catch (error) {
      if (OVER.includes((error as ChatError).code)) setDismissed(key)
      else setFailed(key)
    }
    sending.current = false
  }
  if (thanked && closed && (!key || key === thanked)) return <p ref={thanks} class="hint" part="thanks" role="status" tabIndex={-1}>{words.thanks}</p>
  if (!key || key === dismissed) return null
  return (
    <form
      class="rating" part="rating"
      onSubmit={(event) => {
        event.preventDefault()
        void send()
      }}
    >
      <fieldset>
        <legend>{words.rate}</legend>
        <div class="stars">
          {SCORES.map((value) => (
            <label key={value} data-on={score !== undefined && value <= score}>
              <input type="radio" name="score" value={value} checked={score === value} aria-label={fill(words.stars, { n: value })} onChange={() => setChosen({ key, score: value })} />
              <span aria-hidden="true">★</span>
            </label>
          ))}
        </div>
      </fieldset>
      {score !== undefined && <textarea ref={comment} part="input" rows={2} maxLength={1000} dir="auto" aria-label={words.comment} placeholder={words.comment} />}
      {failed === key && <p class="meta error" role="alert">{words.rateFailed}</p>}
      <p class="actions">
        <button type="submit" part="action" aria-disabled={score === undefined}>{words.sendRating}</button>
        <button type="button" part="action" onClick={() => setDismissed(key)}>{words.notNow}</button>
      </p>
    </form>
  )
}
