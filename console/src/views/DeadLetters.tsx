/** Events that a service refused for good, and trying them again. For admins; there is never a message's text in it. */

import { useEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { full, number, span } from '../format'
import { sessionHref } from '../route'
import type { DeadLetter } from '../types'

const AT_ONCE = 100

export function DeadLetters({ desk, count }: { desk: Desk; count: number }) {
  const [letters, setLetters] = useState<DeadLetter[]>([])
  const [next, setNext] = useState<string | null>(null)
  const [busy, setBusy] = useState(false)
  const [said, setSaid] = useState('')

  const read = (cursor?: string): Promise<void> =>
    desk.actions.attempt(async () => {
      const page = await desk.api.dead(cursor)
      setLetters((old) => (cursor ? [...old, ...page.dead] : page.dead))
      setNext(page.next)
    })
  useEffect(() => void read(), [desk, count])

  const retry = async (ids: string[]): Promise<void> => {
    setBusy(true)
    await desk.actions.attempt(async () => {
      const done = await desk.api.retryDead(ids)
      setSaid(`${number(done.count)} ${done.count === 1 ? 'goes' : 'go'} out again.`)
      setLetters((old) => old.filter(({ id }) => !ids.includes(id)))
    })
    setBusy(false)
  }

  return (
    <section aria-labelledby="dead" data-testid="dead-letters">
      <div class="row spread">
        <h2 id="dead">Dead letters</h2>
        {letters.length > 0 && (
          <button type="button" data-testid="dead-retry-all" disabled={busy} onClick={() => void retry(letters.slice(0, AT_ONCE).map(({ id }) => id))}>
            Retry {letters.length > AT_ONCE ? `the first ${AT_ONCE}` : `all ${letters.length}`}
          </button>
        )}
      </div>
      <p role="status" class="quiet">{said || (letters.length ? '' : 'None: no service has refused an event for good.')}</p>
      {letters.length > 0 && (
        <div class="table" tabIndex={0} role="region" aria-label="Table of dead letters">
          <table>
            <thead><tr><th>Age</th><th>Sink</th><th>Event</th><th class="n">Tries</th><th>Refused because</th><th><span class="unseen">Do</span></th></tr></thead>
            <tbody>
              {letters.map((one) => (
                <tr key={one.id} data-testid="dead-row" data-id={one.id}>
                  <td title={full(one.created_at)}>{span(desk.api.now() - Date.parse(one.created_at))}</td>
                  <td>{one.sink}</td>
                  <td>{one.sessionId ? <a href={sessionHref(one.sessionId)}>{one.event}</a> : one.event}</td>
                  <td class="n">{one.attempts}</td>
                  <td class="why">{one.error ?? '–'}</td>
                  <td class="n"><button type="button" data-testid="dead-retry" disabled={busy} onClick={() => void retry([one.id])}>Retry</button></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {next && <button type="button" onClick={() => void read(next)}>More</button>}
    </section>
  )
}
