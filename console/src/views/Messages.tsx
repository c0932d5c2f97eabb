/**
 * The messages of a conversation: only those near what is in sight are in the document, however many were loaded.
 *
 * The place that is looked at is a row and its distance from the top, not a number of pixels: so rows may come, go
 * and be measured above it without a jump. At the end, it stays at the end.
 */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Conversation } from '../conversation'
import type { Desk } from '../desk'
import { measure, offsets, rowAt, rowsBetween } from '../window'
import { Icon } from './icons'
import { MessageRow } from './MessageRow'
import { rowsOf } from './rows'

const GUESS = 60
/** Pixels beyond what is in sight that are drawn, that must be there before drawing again, and at which older pages load. */
const DRAWN = 900
const NEEDED = 300
const LOAD = 2500
const NEAR_END = 48
/** Pixels above the first unread message when a conversation is opened there. */
const START = 40

interface Given {
  desk: Desk
  open: Conversation
  name: string
}

export function Messages({ desk, open, name }: Given) {
  const box = useRef<HTMLDivElement>(null)
  const list = useRef<HTMLDivElement>(null)
  const heights = useRef(new Map<string, number>()).current
  const place = useRef<{ key: string; above: number } | undefined>(undefined)
  // Once it is known what is unread, the first of it is what one begins with.
  const begun = useRef(false)
  /** Whether what is in sight is what belongs there. */
  const settled = useRef(false)
  // (As it was when this was drawn: until then the end is in sight.)
  const { ready } = open
  if (ready && !begun.current) {
    begun.current = true
    if (open.unreadFrom) place.current = { key: 'unread', above: START }
  }
  const [, draw] = useState(0)
  const [width, setWidth] = useState(0)
  const again = (): void => draw((n) => n + 1)

  const waiting = desk.outbox.of(open.id)
  // What one has just sent is what one looks at.
  const sent = useRef(waiting.length)
  if (waiting.length > sent.current) place.current = undefined
  sent.current = waiting.length
  const today = new Date(desk.api.now()).toDateString()
  const rows = useMemo(() => rowsOf(open, waiting), [open, open.version, open.unreadFrom, waiting, today])
  const keys = useMemo(() => rows.map((row) => row.key), [rows])
  const places = useMemo(() => new Map(keys.map((key, n) => [key, n])), [keys])
  // Made anew when rows come or go; what is measured later is put right in it.
  const where = useMemo(() => offsets(keys, heights, GUESS), [keys, width])
  const total = where[rows.length] ?? 0
  const sight = box.current?.clientHeight ?? 800
  const index = (place.current && places.get(place.current.key)) ?? -1
  // Without a place, or when its row is gone: the end.
  const top = index < 0 ? total - sight : where[index]! - place.current!.above
  const [first, end] = rowsBetween(where, top - DRAWN, top + sight + DRAWN)
  const now = useRef({ where, keys, first, end })
  now.current = { where, keys, first, end }

  const scrolled = (): void => {
    const { current } = box
    if (!current) return
    const { where: at, keys: names, first: from, end: to } = now.current
    const { scrollTop, clientHeight, scrollHeight } = current
    const wasAtEnd = place.current === undefined
    if (scrollHeight - scrollTop - clientHeight < NEAR_END) place.current = undefined
    else {
      // A day's row moves up when older messages of that day come: it is no place to hold on to.
      let row = rowAt(at, scrollTop)
      while (names[row]?.startsWith('day-')) row += 1
      const key = names[row]
      place.current = key === undefined ? undefined : { key, above: at[row]! - scrollTop }
    }
    const [needFrom, needTo] = rowsBetween(at, scrollTop - NEEDED, scrollTop + clientHeight + NEEDED)
    if (needFrom < from || needTo > to || wasAtEnd !== (place.current === undefined)) again()
    if (scrollTop < LOAD) void open.older()
  }

  useLayoutEffect(() => {
    const { current } = box
    if (!current || !list.current) return
    const found = Array.from(list.current.children, (row) => row.getBoundingClientRect().height)
    found.forEach((height, n) => heights.set(keys[first + n]!, height))
    const measured = measure(where, first, found)
    const to = index < 0 ? current.scrollHeight : where[index]! - place.current!.above
    // (While the guesses are still in the spacers, the next drawing puts it right.)
    settled.current = !measured
    if (measured) again()
    else if (Math.abs(current.scrollTop - to) >= 1) current.scrollTop = to
  })

  useEffect(() => {
    const { current } = box
    if (!current) return
    const watching = new ResizeObserver(() => {
      setWidth((old) => {
        if (old !== current.clientWidth) heights.clear()
        return current.clientWidth
      })
      again()
    })
    watching.observe(current)
    return () => watching.disconnect()
  }, [])

  // Near the top after a page has come, or too short to scroll: the next one is asked for all the same.
  useEffect(() => {
    if (open.loaded && top < LOAD) void open.older()
  }, [open.version, width])

  const atEnd = place.current === undefined
  useEffect(() => {
    // What has been in sight is read, and no more than that.
    const look = (): void => {
      const { current } = box
      if (!current || !ready || !settled.current || document.hidden || !document.hasFocus()) return
      const { where: at, first: from } = now.current
      const bottom = current.scrollTop + current.clientHeight
      for (let row = rowAt(at, bottom); row >= from; row -= 1) {
        const item = rows[row]
        // (Of a message that is higher than the box, its beginning will do.)
        const shown = at[row + 1]! <= bottom + 4 || at[row]! <= current.scrollTop
        if (item?.kind === 'message' && shown) return desk.seen(item.message.seq)
      }
    }
    look()
    addEventListener('focus', look)
    document.addEventListener('visibilitychange', look)
    return () => {
      removeEventListener('focus', look)
      document.removeEventListener('visibilitychange', look)
    }
  })

  return (
    <div class="history">
      <div
        class="messages" ref={box} onScroll={scrolled} role="log" aria-live="off" aria-label={`Conversation with ${name}`} tabIndex={0}
        data-testid="messages" data-loaded={open.messages.length} data-older={open.hasOlder} aria-busy={open.loading}
      >
        <div ref={list} style={{ paddingTop: `${where[first] ?? 0}px`, paddingBottom: `${total - (where[end] ?? total)}px` }}>
          {rows.slice(first, end).map((row) => (
            <div class="slot" key={row.key}>
              <MessageRow desk={desk} row={row} session={open.id} />
            </div>
          ))}
        </div>
        {!open.loaded && !open.error && <p class="empty" role="status">Loading …</p>}
        {open.loaded && rows.length === 0 && <p class="empty quiet">No message yet.</p>}
      </div>
      {!atEnd && (
        <button
          type="button" class="latest" data-testid="jump-latest" aria-label="To the latest message"
          onClick={() => { place.current = undefined; again() }}
        >
          <Icon name="down" />
        </button>
      )}
    </div>
  )
}
