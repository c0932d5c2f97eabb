/** Dead letters, and retrying them. For admins; message text is never shown. */

import { useEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { full, number, span } from '../format'
import { sessionHref } from '../route'
import type { DeadLetter } from '../types'

const MAX_RETRY = 100

export function DeadLetters({ desk, count }: { desk: Desk; count: number }) {
  const [deadLetters, setDeadLetters] = useState<DeadLetter[]>([])
  const [next, setNext] = useState<string | null>(null)
  const [busy, setBusy] = useState(false)
  const [result, setResult] = useState('')

  const load = (cursor?: string): Promise<boolean> =>
    desk.actions.attempt(async () => {
      const page = await desk.api.dead(cursor)
      setDeadLetters((old) => (cursor ? [...old, ...page.dead] : page.dead))
      setNext(page.next)
    })
  useEffect(() => void load(), [desk, count])

  const retry = async (ids: string[]): Promise<void> => {
    setBusy(true)
    await desk.actions.attempt(async () => {
      const retried = await desk.api.retryDead(ids)
      setResult(`${number(retried.count)} ${retried.count === 1 ? 'goes' : 'go'} out again.`)
      setDeadLetters((old) => old.filter(({ id }) => !ids.includes(id)))
    })
    setBusy(false)
  }

  return (
    <section aria-labelledby="dead" data-testid="dead-letters">
      <div class="row spread">
        <h2 id="dead">Dead letters</h2>
        {deadLetters.length > 0 && (
          <button type="button" data-testid="dead-retry-all" disabled={busy} onClick={() => void retry(deadLetters.slice(0, MAX_RETRY).map(({ id }) => id))}>
            Retry {deadLetters.length > MAX_RETRY ? `the first ${MAX_RETRY}` : `all ${deadLetters.length}`}
          </button>
        )}
      </div>
      <p role="status" class="quiet">{result || (deadLetters.length ? '' : 'None: no service has refused an event for good.')}</p>
      {deadLetters.length > 0 && (
        <div class="table" tabIndex={0} role="region" aria-label="Table of dead letters">
          <table>
            <thead><tr><th>Age</th><th>Sink</th><th>Event</th><th class="n">Tries</th><th>Refused because</th><th><span class="visually-hidden">Do</span></th></tr></thead>
            <tbody>
              {deadLetters.map((letter) => (
                <tr key={letter.id} data-testid="dead-row" data-id={letter.id}>
                  <td title={full(letter.created_at)}>{span(desk.api.now() - Date.parse(letter.created_at))}</td>
                  <td>{letter.sink}</td>
                  <td>{letter.sessionId ? <a href={sessionHref(letter.sessionId)}>{letter.event}</a> : letter.event}</td>
                  <td class="n">{letter.attempts}</td>
                  <td class="why">{letter.error ?? '–'}</td>
                  <td class="n"><button type="button" data-testid="dead-retry" disabled={busy} onClick={() => void retry([letter.id])}>Retry</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {next && <button type="button" onClick={() => void load(next)}>More</button>}
    </section>
  )
}
