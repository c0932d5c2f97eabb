/** The list of sessions: however many there are, only those in sight are in the document. */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { number } from '../format'
import type { Filter } from '../queue'
import { Icon } from './icons'
import { SessionRow } from './SessionRow'

/** Pixels; style/desk.css has the same. */
const ROW = 64
/** Rows drawn beyond what is in sight, and how many come at once. */
const BEYOND = 8
const STEP = 4
const FILTERS: [Filter, string][] = [['open', 'Open'], ['mine', 'Mine'], ['closed', 'Closed']]
const SEARCH_AFTER = 200

export function QueueView({ desk, searchRef }: { desk: Desk; searchRef: RefObject<HTMLInputElement | null> }) {
  const { queue } = desk
  const scroller = useRef<HTMLDivElement>(null)
  const [range, setRange] = useState<[number, number]>([0, 20])
  const [text, setText] = useState(queue.search)
  const view = queue.view
  const openId = desk.open?.id

  const look = (): void => {
    const box = scroller.current
    if (!box) return
    const first = Math.max(0, Math.floor(box.scrollTop / ROW / STEP) * STEP - BEYOND)
    const end = Math.ceil((box.scrollTop + box.clientHeight) / ROW / STEP) * STEP + BEYOND
    setRange(([a, b]) => (a === first && b === end ? [a, b] : [first, end]))
    if (end >= queue.view.length && !queue.complete) void queue.more()
  }

  useLayoutEffect(() => {
    const box = scroller.current
    if (!box) return
    const watching = new ResizeObserver(look)
    watching.observe(box)
    return () => watching.disconnect()
  }, [])

  // For who measures: when the first rows were there.
  const some = view.length > 0
  useEffect(() => {
    if (some) performance.mark('gre:list')
  }, [some])

  // What the search asks for goes out when the typing rests; what it was emptied to, from elsewhere too.
  useEffect(() => {
    const wanted = text.trim()
    if (wanted === queue.search) return
    const timer = setTimeout(() => queue.show(queue.filter, wanted), SEARCH_AFTER)
    return () => clearTimeout(timer)
  }, [text])
  useEffect(() => {
    if (!queue.search) setText('')
  }, [queue.search])

  // Another list is shown from its top.
  useEffect(() => {
    if (scroller.current) scroller.current.scrollTop = 0
    look()
  }, [queue.filter, queue.search])

  // What the keyboard opened is brought into sight.
  useEffect(() => {
    const box = scroller.current
    const at = queue.view.findIndex((one) => one.id === openId)
    if (!box || at < 0) return
    if (at * ROW < box.scrollTop) box.scrollTop = at * ROW
    else if ((at + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (at + 1) * ROW - box.clientHeight
  }, [openId])

  const first = Math.min(range[0], Math.max(0, view.length - 1))
  const end = Math.min(range[1], view.length)
  const waiting = queue.waiting
  return (
    <section class="queue" id="queue" aria-label="Conversations">
      <div class="finder">
        <label class="search">
          <span class="unseen">Search a player by name or number</span>
          <Icon name="search" />
          <input
            ref={searchRef} type="search" data-testid="search" placeholder="Player's name or number" value={text}
            autocomplete="off" spellcheck={false} dir="auto" onInput={(event) => setText(event.currentTarget.value)}
          />
          <kbd aria-hidden="true" class="wide-only">/</kbd>
        </label>
        <div class="filters" role="group" aria-label="Which conversations">
          {FILTERS.map(([value, label]) => (
            <button
              key={value} type="button" data-testid={`filter-${value}`} aria-pressed={queue.filter === value}
              onClick={() => queue.show(value, queue.search)}
            >
              {label}{value === 'mine' && queue.mine > 0 && <> <b class="badge" data-testid="mine-count">{number(queue.mine)}</b></>}
            </button>
          ))}
          <span class="tally" data-testid="tally">
            {queue.filter === 'open' && queue.search === '' && waiting > 0 && <><b>{number(waiting)}</b> waiting · </>}
            {number(view.length)}{queue.complete ? '' : '+'}
          </span>
        </div>
      </div>
      {queue.error !== '' && (
        <div class="banner banner-warn" role="status" data-testid="queue-error">
          <span>{queue.error}</span>
          <button type="button" onClick={() => void queue.reload()}>Try again</button>
        </div>
      )}
      <div class="rows" ref={scroller} onScroll={look} data-testid="queue" tabIndex={-1}>
        {view.length > 0 && (
          <ul style={{ paddingTop: `${first * ROW}px`, paddingBottom: `${(view.length - end) * ROW}px` }}>
            {view.slice(first, end).map((one, n) => (
              <SessionRow key={one.id} desk={desk} session={one} place={first + n + 1} total={queue.complete ? view.length : -1} open={one.id === openId} />
            ))}
          </ul>
        )}
        {view.length === 0 && !queue.error && <Nothing desk={desk} />}
      </div>
    </section>
  )
}

function Nothing({ desk }: { desk: Desk }) {
  const { queue } = desk
  if (!queue.complete) return <p class="empty" role="status">Loading …</p>
  const where = queue.filter === 'closed' ? 'open' : 'closed'
  return (
    <div class="empty" data-testid="queue-empty">
      <p>
        {queue.search ? <>No {where === 'open' ? 'closed' : 'open'} conversation matches “<b dir="auto">{queue.search}</b>”.</> : queue.filter === 'mine' ? 'Nothing is assigned to you.' : queue.filter === 'closed' ? 'Nothing was closed yet.' : 'Nobody waits. New conversations appear here by themselves.'}
      </p>
      {queue.search !== '' && <button type="button" onClick={() => queue.show(where, queue.search)}>Look in {where} ones</button>}
    </div>
  )
}
