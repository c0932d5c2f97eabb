/** The sessions of a cell, in a dialog; each is a link to its conversation. */

import { useLayoutEffect, useRef } from 'preact/hooks'
import type { Desk } from '../desk'
import { number } from '../format'
import { sessionHref } from '../route'
import { metricLabel } from './figures'
import type { ReportState } from './report-state'
import type { CellItem, Metric } from './types'
import { duration, type RowNames } from './values'

interface Props {
  desk: Desk
  state: ReportState
  metric: Metric
  /** The name of the row. */
  place: string
  names: RowNames
  onClose: () => void
}

const DURATIONS: Metric[] = ['first_reply', 'reply', 'time_to_close', 'handle', 'within_goal']

export function CellDialog({ desk, state, metric, place, names, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  useLayoutEffect(() => {
    const element = dialog.current
    const close = (): void => closed.current()
    element?.showModal()
    element?.addEventListener('close', close)
    return () => {
      // Removed because another view was opened: that is no wish of the user to stay here.
      element?.removeEventListener('close', close)
      element?.close()
    }
  }, [])
  const closed = useRef(onClose)
  closed.current = onClose
  const { cellRequest: request, items } = state
  return (
    <dialog ref={dialog} class="cell-dialog" aria-labelledby="cell-title" data-testid="cell-sessions" data-state={request.state}>
      <h2 id="cell-title">{metricLabel(metric)}</h2>
      <p class="quiet">{place}</p>
      {items.length > 0 && (
        <ol class="cell-items" aria-label="Conversations">
          {items.map((item, n) => <Item key={`${item.session_id} ${item.at} ${n}`} desk={desk} item={item} metric={metric} names={names} />)}
        </ol>
      )}
      <p role="status" class="quiet" data-testid="cell-status">
        {request.state === 'loading' ? 'Loading …' : request.state === 'failed' ? '' : `${number(items.length)}${state.hasMore ? ' so far' : ''}`}
      </p>
      {request.state === 'failed' && <p class="error" role="alert">{request.error}</p>}
      <div class="row choices">
        {(state.hasMore || request.state === 'failed') && (
          <button type="button" data-testid="cell-more" aria-disabled={request.state === 'loading'} onClick={() => { if (request.state !== 'loading') state.loadMore() }}>
            {request.state === 'failed' ? 'Try again' : 'More'}
          </button>
        )}
        <button type="button" class="primary" onClick={() => dialog.current?.close()}>Close</button>
      </div>
    </dialog>
  )
}

function Item({ desk, item, metric, names }: { desk: Desk; item: CellItem; metric: Metric; names: RowNames }) {
  const player = desk.playerName(item.session_id)
  const { value, count, staff_id: staff } = item
  const figure = value !== null && DURATIONS.includes(metric) ? duration(value) : metric === 'rating' && value !== null ? `${number(value)} of 5` : count !== null && metric.startsWith('messages') ? `${number(count)} ${count === 1 ? 'message' : 'messages'}` : ''
  return (
    <li>
      <a class="cell-item" href={sessionHref(item.session_id)} data-testid="cell-session" data-session-id={item.session_id}>
        <span>{names.at(item.at)}</span>
        <b>{figure}</b>
        <span class="quiet" dir="auto">{[player, staff && desk.staffName(staff)].filter(Boolean).join(' · ')}</span>
      </a>
    </li>
  )
}
