/**
 * The messages of a conversation, with virtual scrolling: only rows near the visible ones are in the document.
 *
 * The scroll position is an anchor (a row and its distance from the top), not a number of pixels, so rows above it may
 * be added, removed and measured without a jump. Without an anchor the view stays at the end.
 */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Conversation } from '../conversation'
import type { Desk } from '../desk'
import type { TextKind } from '../outgoing'
import { applyHeights, rowAt, rowOffsets, rowsBetween } from '../virtual-list'
import { Icon } from './icons'
import { MessageRow } from './MessageRow'
import { rowsOf } from './rows'

/** The height of a row before it is measured, in pixels like all constants here. */
const DEFAULT_HEIGHT = 60
/** Rows within this distance of the visible ones are rendered. */
const RENDER_MARGIN = 900
/** Rows within this distance that are not rendered cause a rendering. */
const RERENDER_MARGIN = 300
/** Below this distance from the top, older messages are loaded. */
const LOAD_MARGIN = 2500
/** Within this distance, the view counts as scrolled to the end. */
const END_MARGIN = 48
/** Space above the message at which a conversation is opened. */
const UNREAD_MARGIN = 40

interface Props {
  desk: Desk
  conversation: Conversation
  name: string
  /** The user wants to edit a failed text: it is in its draft. */
  onEdit: (kind: TextKind) => void
  /** The user wants to see a picture. */
  onOpen: (attachment: string) => void
}

export function Messages({ desk, conversation, name, onEdit, onOpen }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const list = useRef<HTMLDivElement>(null)
  const heights = useRef(new Map<string, number>()).current
  const anchor = useRef<{ key: string; above: number } | undefined>(undefined)
  /** For what the view was positioned: the target, or the first unread message once it is known. */
  const positioned = useRef<object | undefined>(undefined)
  /** True if the visible rows are at their final position. */
  const inPlace = useRef(false)
  /** The scroll position for which `anchor` was determined; another one is the user's, whose event has not come yet. */
  const knownTop = useRef(0)
  const rendered = useRef({ offsets: new Float64Array(1) as Float64Array, keys: [] as string[], first: 0, end: 0 })

  const readAnchor = (element: HTMLDivElement): void => {
    const { offsets: current, keys: currentKeys } = rendered.current
    const { scrollTop, clientHeight, scrollHeight } = element
    knownTop.current = scrollTop
    if (scrollHeight - scrollTop - clientHeight < END_MARGIN) anchor.current = undefined
    else {
      // A day's row moves up when older messages of that day are loaded: it cannot be the anchor.
      let row = rowAt(current, scrollTop)
      while (currentKeys[row]?.startsWith('day-')) row += 1
      const key = currentKeys[row]
      anchor.current = key === undefined ? undefined : { key, above: current[row]! - scrollTop }
    }
  }
  // Events of scrolling come with the next frame: a rendering before it would put the view back.
  if (box.current && Math.abs(box.current.scrollTop - knownTop.current) >= 1) readAnchor(box.current)
  // The value of this rendering: before it is true, the end is visible.
  const { unreadKnown, target } = conversation
  if (unreadKnown && positioned.current !== (target ?? conversation)) {
    positioned.current = target ?? conversation
    const key = target?.message.id ?? (conversation.unreadFrom ? 'unread' : undefined)
    if (key !== undefined) anchor.current = { key, above: UNREAD_MARGIN }
  }
  const [, setRevision] = useState(0)
  const [width, setWidth] = useState(0)
  const rerender = (): void => setRevision((n) => n + 1)

  const unsent = desk.outgoing.of(conversation.id)
  // Scroll to the end when the user sends a reply or a note.
  const unsentCount = useRef(unsent.length)
  if (unsent.length > unsentCount.current) anchor.current = undefined
  unsentCount.current = unsent.length
  const today = new Date(desk.api.now()).toDateString()
  const rows = useMemo(() => rowsOf(conversation, unsent), [conversation, conversation.version, conversation.unreadFrom, unsent, today])
  const keys = useMemo(() => rows.map((row) => row.key), [rows])
  const indexByKey = useMemo(() => new Map(keys.map((key, n) => [key, n])), [keys])
  // Recomputed when rows are added or removed; measured heights are applied to it in place.
  const offsets = useMemo(() => rowOffsets(keys, heights, DEFAULT_HEIGHT), [keys, width])
  const total = offsets[rows.length] ?? 0
  const viewHeight = box.current?.clientHeight ?? 800
  const anchorIndex = (anchor.current && indexByKey.get(anchor.current.key)) ?? -1
  // Without an anchor, or if its row was removed: the end.
  const top = anchorIndex < 0 ? total - viewHeight : offsets[anchorIndex]! - anchor.current!.above
  const [first, end] = rowsBetween(offsets, top - RENDER_MARGIN, top + viewHeight + RENDER_MARGIN)
  rendered.current = { offsets, keys, first, end }

  const onScroll = (): void => {
    const { current: element } = box
    if (!element) return
    const { offsets: current, first: renderedFirst, end: renderedEnd } = rendered.current
    const { scrollTop, clientHeight } = element
    const wasAtEnd = anchor.current === undefined
    readAnchor(element)
    const [needFrom, needTo] = rowsBetween(current, scrollTop - RERENDER_MARGIN, scrollTop + clientHeight + RERENDER_MARGIN)
    if (needFrom < renderedFirst || needTo > renderedEnd || wasAtEnd !== (anchor.current === undefined)) rerender()
    if (scrollTop < LOAD_MARGIN) void conversation.loadOlder()
  }

  useLayoutEffect(() => {
    const { current } = box
    if (!current || !list.current) return
    const measured = Array.from(list.current.children, (row) => row.getBoundingClientRect().height)
    measured.forEach((height, n) => heights.set(keys[first + n]!, height))
    const changed = applyHeights(offsets, first, measured)
    const target = anchorIndex < 0 ? current.scrollHeight : offsets[anchorIndex]! - anchor.current!.above
    // The spacers still have the old heights: the next rendering corrects them.
    inPlace.current = !changed
    if (changed) rerender()
    else if (Math.abs(current.scrollTop - target) >= 1) current.scrollTop = target
    knownTop.current = current.scrollTop
  })

  useEffect(() => {
    const { current } = box
    if (!current) return
    const observer = new ResizeObserver(() => {
      setWidth((old) => {
        if (old !== current.clientWidth) heights.clear()
        return current.clientWidth
      })
      rerender()
    })
    observer.observe(current)
    return () => observer.disconnect()
  }, [])

  // Load the next page also without a scroll event: near the top, or if the list is too short to scroll.
  useEffect(() => {
    if (conversation.loaded && top < LOAD_MARGIN) void conversation.loadOlder()
  }, [conversation.version, width])

  const atEnd = anchor.current === undefined
  useEffect(() => {
    // Only messages that were visible are marked as read.
    const markVisible = (): void => {
      const { current: element } = box
      if (!element || !unreadKnown || !inPlace.current || document.hidden || !document.hasFocus()) return
      const { offsets: current, first: renderedFirst } = rendered.current
      const bottom = element.scrollTop + element.clientHeight
      for (let index = rowAt(current, bottom); index >= renderedFirst; index -= 1) {
        const row = rows[index]
        // Of a message that is higher than the view, the beginning is enough.
        const visible = current[index + 1]! <= bottom + 4 || current[index]! <= element.scrollTop
        if (row?.kind === 'message' && visible) return desk.markSeen(row.message.seq)
      }
    }
    markVisible()
    addEventListener('focus', markVisible)
    document.addEventListener('visibilitychange', markVisible)
    return () => {
      removeEventListener('focus', markVisible)
      document.removeEventListener('visibilitychange', markVisible)
    }
  })

  return (
    <div class="history">
      <div
        class="messages" ref={box} onScroll={onScroll} role="log" aria-live="off" aria-label={`Conversation with ${name}`} tabIndex={0}
        data-testid="messages" data-loaded={conversation.messages.length} data-older={conversation.hasOlder} aria-busy={conversation.loading}
      >
        <div ref={list} style={{ paddingTop: `${offsets[first] ?? 0}px`, paddingBottom: `${total - (offsets[end] ?? total)}px` }}>
          {rows.slice(first, end).map((row) => (
            <div class="slot" key={row.key}>
              <MessageRow desk={desk} row={row} conversation={conversation} onEdit={onEdit} onOpen={onOpen} />
            </div>
          ))}
        </div>
        {!conversation.loaded && !conversation.error && <p class="empty" role="status">Loading …</p>}
        {conversation.loaded && rows.length === 0 && <p class="empty quiet">No message yet.</p>}
      </div>
      {!atEnd && (
        <button
          type="button" class="latest" data-testid="jump-latest" aria-label="To the latest message"
          onClick={() => { anchor.current = undefined; rerender() }}
        >
          <Icon name="down" />
        </button>
      )}
    </div>
  )
}
