/** The health view: backlog, sinks, deliveries of the last hour, daemons and dead letters. */

import { useEffect, useState } from 'preact/hooks'
import { ApiError } from '../api'
import type { Desk } from '../desk'
import { number, span } from '../format'
import type { Operations, SinkState } from '../types'
import { DeadLetters } from './DeadLetters'
import { Plot } from './Plot'

/** Milliseconds. */
const POLL_INTERVAL = 5000

export function HealthView({ desk }: { desk: Desk }) {
  const [operations, setOperations] = useState<Operations>()
  const [error, setError] = useState('')
  useEffect(() => {
    let unmounted = false
    let timer: number | undefined
    const poll = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          const answer = await desk.api.operations()
          if (unmounted) return
          setOperations(answer)
          setError('')
        } catch (caught) {
          if (!unmounted) setError(caught instanceof ApiError ? caught.message : 'The figures could not be read.')
        }
      }
      if (!unmounted) timer = setTimeout(poll, POLL_INTERVAL)
    }
    void poll()
    return () => {
      unmounted = true
      clearTimeout(timer)
    }
  }, [desk])
  const oldest = operations?.oldest_age_seconds ?? 0
  return (
    <main class="health" id="main" data-testid="health" data-loaded={operations !== undefined} tabIndex={-1}>
      <h1>Health</h1>
      {error !== '' && <div class="banner banner-warn" role="alert">{error}</div>}
      {!operations && error === '' && <p class="empty" role="status">Loading …</p>}
      {operations && (
        <>
          <dl class="figures">
            <Figure id="backlog" label="Events that wait" value={number(operations.backlog)} state={operations.backlog > 1000 ? 'warn' : 'good'} />
            <Figure id="oldest-age" label="Oldest has waited" value={operations.backlog ? span(oldest * 1000) : '–'} state={oldest > 60 ? 'bad' : oldest > 10 ? 'warn' : 'good'} />
            <Figure id="dead-count" label="Dead letters" value={number(operations.dead)} state={operations.dead ? 'warn' : 'good'} />
            <Figure id="realtime-state" label="Realtime" value={operations.realtime_state ?? 'unknown'} state={operations.realtime_state === 'live' ? 'good' : 'warn'} />
          </dl>
          <section aria-labelledby="rate">
            <h2 id="rate">Delivered in the last hour</h2>
            <Plot points={operations.per_minute} />
          </section>
          <section aria-labelledby="sinks">
            <h2 id="sinks">Sinks</h2>
            <div class="table" tabIndex={0} role="region" aria-label="Table of sinks">
              <table>
                <thead><tr><th>Sink</th><th>State</th><th class="n">Pending</th><th class="n">Oldest</th><th class="n">Blocked</th><th class="n">Dead</th><th>Last error</th></tr></thead>
                <tbody>{operations.sinks.map((sink) => <Sink key={sink.name} sink={sink} />)}</tbody>
              </table>
            </div>
          </section>
          <section aria-labelledby="workers">
            <h2 id="workers">Daemons</h2>
            {operations.workers.length === 0 && <p class="quiet">None was seen lately.</p>}
            <ul class="workers">
              {operations.workers.map((worker) => (
                <li key={`${worker.host} ${worker.version}`} data-testid="worker"><b>{worker.host}</b> <span class="quiet">{worker.version}, seen {span(worker.seen_seconds * 1000)} ago</span></li>
              ))}
            </ul>
          </section>
          {desk.me?.role === 'admin' && <DeadLetters desk={desk} count={operations.dead} />}
        </>
      )}
    </main>
  )
}

function Figure({ id, label, value, state }: { id: string; label: string; value: string; state: 'good' | 'warn' | 'bad' }) {
  return (
    <div class={`figure figure-${state}`}>
      <dt>{label}</dt>
      <dd data-testid={id} data-state={state}>{value}</dd>
    </div>
  )
}

function Sink({ sink }: { sink: SinkState }) {
  const state = !sink.enabled ? 'off' : sink.breaker === 'open' ? 'failing' : sink.breaker === 'half-open' ? 'trying' : 'working'
  return (
    <tr data-testid="sink" data-sink={sink.name} data-state={state}>
      <th scope="row">{sink.name}</th>
      <td><span class={`chip chip-${state}`}>{state}</span></td>
      <td class="n">{number(sink.pending)}</td>
      <td class="n">{sink.pending && sink.oldest_age_seconds !== null ? span(sink.oldest_age_seconds * 1000) : '–'}</td>
      <td class="n">{number(sink.blocked)}</td>
      <td class="n">{number(sink.dead)}</td>
      <td class="why">{sink.last_error || '–'}</td>
    </tr>
  )
}
