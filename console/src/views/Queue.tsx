/** The list of sessions, with virtual scrolling: only rows near the visible ones are in the document. */

import type { RefObject } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { number } from '../format'
import type { Filter } from '../queue'
import { navigate, SEARCH_HREF, sessionHref } from '../route'
import { Icon } from './icons'
import { SessionRow } from './SessionRow'

/** Pixels, as in style/desk.css. */
const ROW_HEIGHT = 64
/** Rows rendered above and below the visible ones, and the step by which the rendered range moves. */
const EXTRA_ROWS = 8
const STEP = 4
/** *Waiting* is shown while it is chosen: the Live view leads to it. */
const FILTERS: [Filter, string][] = [['open', 'Open'], ['waiting', 'Waiting'], ['mine', 'Mine'], ['unassigned', 'Unassigned'], ['closed', 'Closed']]
/** Milliseconds after the last input. */
const SEARCH_DELAY = 200

export function QueueView({ desk, searchRef }: { desk: Desk; searchRef: RefObject<HTMLInputElement | null> }) {
  const { queue } = desk
  const scroller = useRef<HTMLDivElement>(null)
  const [range, setRange] = useState<[number, number]>([0, 20])
  const [text, setText] = useState(queue.search)
  const [taking, setTaking] = useState(false)
  const visible = queue.visible
  const openId = desk.conversation?.id

  const updateRange = (): void => {
    const box = scroller.current
    if (!box) return
    const first = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT / STEP) * STEP - EXTRA_ROWS)
    const end = Math.ceil((box.scrollTop + box.clientHeight) / ROW_HEIGHT / STEP) * STEP + EXTRA_ROWS
    setRange(([a, b]) => (a === first && b === end ? [a, b] : [first, end]))
    if (end >= queue.visible.length && !queue.complete) void queue.loadMore()
  }

  useLayoutEffect(() => {
    const box = scroller.current
    if (!box) return
    const observer = new ResizeObserver(updateRange)
    observer.observe(box)
    return () => observer.disconnect()
  }, [])

  // For measurements: the time of the first rows.
  const hasRows = visible.length > 0
  useEffect(() => {
    if (hasRows) performance.mark('gre:list')
  }, [hasRows])

  // Search when the user pauses. A search that was cleared elsewhere clears the field.
  useEffect(() => {
    const search = text.trim()
    if (search === queue.search) return
    const timer = setTimeout(() => queue.setFilter(queue.filter, search), SEARCH_DELAY)
    return () => clearTimeout(timer)
  }, [text])
  useEffect(() => {
    if (!queue.search) setText('')
  }, [queue.search])

  // Another filter or search starts at the top.
  useEffect(() => {
    if (scroller.current) scroller.current.scrollTop = 0
    updateRange()
  }, [queue.filter, queue.search])

  // Scroll to the session that the keyboard opened.
  useEffect(() => {
    const box = scroller.current
    const index = queue.visible.findIndex((session) => session.id === openId)
    if (!box || index < 0) return
    if (index * ROW_HEIGHT < box.scrollTop) box.scrollTop = index * ROW_HEIGHT
    else if ((index + 1) * ROW_HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = (index + 1) * ROW_HEIGHT - box.clientHeight
  }, [openId])

  const takeNext = async (): Promise<void> => {
    if (taking) return
    setTaking(true)
    const taken = await desk.actions.takeNext()
    setTaking(false)
    if (taken !== undefined) navigate(sessionHref(taken))
  }

  const searched = text.trim()
  const searchMessages = (): void => {
    void desk.messageSearch.startWith(searched)
    navigate(SEARCH_HREF)
  }

  const first = Math.min(range[0], Math.max(0, visible.length - 1))
  const end = Math.min(range[1], visible.length)
  const waiting = queue.waitingCount
  return (
    <section class="queue" id="queue" aria-label="Conversations">
      <div class="finder">
        <label class="search">
          <span class="visually-hidden">Search a player by name or number</span>
          <Icon name="search" />
          <input
            ref={searchRef} type="search" data-testid="search" placeholder="Player's name or number" value={text}
            autocomplete="off" spellcheck={false} dir="auto" onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === 'Enter' && !event.isComposing && searched) searchMessages()
            }}
          />
          <kbd aria-hidden="true" class="wide-only">/</kbd>
        </label>
        <div class="filters" role="group" aria-label="Which conversations">
          {FILTERS.filter(([value]) => value !== 'waiting' || queue.filter === value).map(([value, label]) => (
            <button
              key={value} type="button" data-testid={`filter-${value}`} aria-pressed={queue.filter === value}
              onClick={() => queue.setFilter(value, queue.search)}
            >
              {label}{value === 'mine' && queue.mineCount > 0 && <> <b class="badge" data-testid="mine-count">{number(queue.mineCount)}</b></>}
            </button>
          ))}
        </div>
        <div class="row spread">
          <button type="button" class="primary" data-testid="take-next" aria-disabled={taking} onClick={() => void takeNext()}>Take next</button>
          <span class="tally" data-testid="tally">
            {queue.filter === 'open' && queue.search === '' && waiting > 0 && <><b>{number(waiting)}</b> waiting · </>}
            {number(visible.length)}{queue.complete ? '' : '+'}
          </span>
        </div>
      </div>
      {queue.error !== '' && (
        <div class="banner banner-warn" role="status" data-testid="queue-error">
          <span>{queue.error}</span>
          <button type="button" onClick={() => void queue.reload()}>Try again</button>
        </div>
      )}
      <div class="rows" ref={scroller} onScroll={updateRange} data-testid="queue" tabIndex={-1}>
        {visible.length > 0 && (
          <ul style={{ paddingTop: `${first * ROW_HEIGHT}px`, paddingBottom: `${(visible.length - end) * ROW_HEIGHT}px` }}>
            {visible.slice(first, end).map((session, n) => (
              <SessionRow key={session.id} desk={desk} session={session} position={first + n + 1} total={queue.complete ? visible.length : -1} isOpen={session.id === openId} />
            ))}
          </ul>
        )}
        {visible.length === 0 && !queue.error && <EmptyQueue desk={desk} />}
      </div>
      {searched !== '' && (
        <button type="button" class="search-all" data-testid="search-messages" onClick={searchMessages}>
          <span>Search all messages for “<b dir="auto">{searched}</b>”</span> <kbd aria-hidden="true" class="wide-only">Enter</kbd>
        </button>
      )}
    </section>
  )
}

function EmptyQueue({ desk }: { desk: Desk }) {
  const { queue } = desk
  if (!queue.complete) return <p class="empty" role="status">Loading …</p>
  const otherFilter = queue.filter === 'closed' ? 'open' : 'closed'
  return (
    <div class="empty" data-testid="queue-empty">
      <p>
        {queue.search ? <>No {otherFilter === 'open' ? 'closed' : 'open'} conversation matches “<b dir="auto">{queue.search}</b>”.</> : queue.filter === 'waiting' ? 'Nobody waits for an answer.' : queue.filter === 'mine' ? 'Nothing is assigned to you.' : queue.filter === 'unassigned' ? 'Every open conversation is assigned.' : queue.filter === 'closed' ? 'Nothing was closed yet.' : 'Nobody waits. New conversations appear here by themselves.'}
      </p>
      {queue.search !== '' && <button type="button" onClick={() => queue.setFilter(otherFilter, queue.search)}>Look in {otherFilter} ones</button>}
    </div>
  )
}
