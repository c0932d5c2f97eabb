/** The search of messages in all conversations: the form, and the messages found, each a link to its place. */

import type { RefObject } from 'preact'
import { useLayoutEffect, useRef } from 'preact/hooks'
import type { Desk } from '../desk'
import { clock, day, full, number } from '../format'
import { excerptOf, markWords } from '../found-text'
import type { MessageSearch } from '../message-search'
import { sessionHref } from '../route'
import type { FoundMessage } from '../types'

const LAST_DAY = '9999-12-31'

export function SearchView({ desk, fieldRef }: { desk: Desk; fieldRef: RefObject<HTMLInputElement | null> }) {
  const { messageSearch: search } = desk
  const main = useRef<HTMLElement>(null)
  useLayoutEffect(() => {
    // Back from a conversation: where the user left the list.
    if (main.current) main.current.scrollTop = search.scrollTop
    if (search.state === 'idle') fieldRef.current?.focus()
    else main.current?.focus({ preventScroll: true })
  }, [])
  const { state, results } = search
  return (
    <main
      class="health find" id="main" ref={main} tabIndex={-1} data-testid="message-search" data-state={state}
      aria-busy={state === 'loading'} onScroll={(event) => (search.scrollTop = event.currentTarget.scrollTop)}
    >
      <h1>Search messages</h1>
      <SearchFields desk={desk} search={search} fieldRef={fieldRef} />
      <p role="status" class="quiet" data-testid="search-status">{statusOf(search)}</p>
      {results.length > 0 && (
        <ol class="found" aria-label="Messages found">
          {results.map((message) => <Found key={message.id} desk={desk} message={message} words={search.words} />)}
        </ol>
      )}
      {state === 'failed' && <p class="error" role="alert" data-testid="search-error">{search.error}</p>}
      {(state === 'failed' ? search.canRetry : search.hasMore) && (
        <button type="button" data-testid="search-more" aria-disabled={state === 'loading'} onClick={() => void search.loadMore()}>
          {state === 'failed' ? 'Try again' : search.lastPageSize ? 'More' : 'Search on'}
        </button>
      )}
    </main>
  )
}

function statusOf({ state, results, hasMore, lastPageSize }: MessageSearch): string {
  if (state === 'idle') return 'Each word must be in the text of a message. Open and closed conversations are searched, private notes are not.'
  if (state === 'loading') return 'Searching …'
  if (state === 'failed') return ''
  const count = `${number(results.length)} ${results.length === 1 ? 'message' : 'messages'} found`
  if (!hasMore) return results.length ? `${count}, the newest first.` : 'Nothing found.'
  if (lastPageSize) return `${count} so far, the newest first.`
  return `${results.length ? `${count} so far, but no further one` : 'Nothing found so far'}: the server stops each search after a second. Older messages are not searched yet.`
}

interface FieldsProps {
  desk: Desk
  search: MessageSearch
  fieldRef: RefObject<HTMLInputElement | null>
}

function SearchFields({ desk, search, fieldRef }: FieldsProps) {
  const { form } = search
  const staff = [...desk.staff.keys()].map((id) => ({ id, name: desk.staffName(id) })).sort((a, b) => a.name.localeCompare(b.name))
  const submit = (event: Event): void => {
    event.preventDefault()
    void search.start()
  }
  return (
    <form role="search" class="fields" aria-label="Search messages" onSubmit={submit}>
      <label>Words
        <input
          ref={fieldRef} type="search" data-testid="search-words" value={form.text} maxLength={200} dir="auto" autocomplete="off" spellcheck={false}
          onInput={(event) => search.change({ text: event.currentTarget.value })}
        />
      </label>
      <div class="columns">
        <label>Player's number
          <input data-testid="search-player" value={form.player} inputMode="numeric" autocomplete="off" placeholder="any" onInput={(event) => search.change({ player: event.currentTarget.value })} />
        </label>
        <label>Written by
          <select data-testid="search-author" value={form.staffId} onChange={(event) => search.change({ staffId: event.currentTarget.value })}>
            <option value="">anybody</option>
            {staff.map(({ id, name }) => <option key={id} value={id}>{name}</option>)}
          </select>
        </label>
        <label>From
          <input type="date" data-testid="search-from" value={form.from} max={LAST_DAY} onInput={(event) => search.change({ from: event.currentTarget.value })} />
        </label>
        <label>To, inclusive
          <input type="date" data-testid="search-to" value={form.to} max={LAST_DAY} onInput={(event) => search.change({ to: event.currentTarget.value })} />
        </label>
      </div>
      <div class="row"><button type="submit" class="primary" data-testid="search-start">Search</button></div>
    </form>
  )
}

function Found({ desk, message, words }: { desk: Desk; message: FoundMessage; words: string }) {
  const session = desk.queue.sessions.get(message.session_id) ?? message.session
  const player = session.player_name || `Player ${message.player_id}`
  return (
    <li>
      <a
        class="found-message" href={sessionHref(message.session_id, message.seq)} data-testid="found-message"
        data-message-id={message.id} data-session-id={message.session_id} data-seq={message.seq}
      >
        <span class="who">
          <span class="name" dir="auto">{player}</span>
          <span class="number">#{message.player_id}</span>
          {session.status === 'closed' && <span class="badge">closed</span>}
        </span>
        <time class="when" dateTime={message.timestamp} title={full(message.timestamp)}>{day(message.timestamp, desk.api.now())}, {clock(message.timestamp)}</time>
        <span class="said">
          <span class="number" dir="auto">{authorOf(message, player)}:</span>{' '}
          <span dir="auto" data-testid="found-text">
            {markWords(excerptOf(message.message, words), words).map(({ text, marked }, n) => (marked ? <mark key={n}>{text}</mark> : text))}
          </span>
        </span>
      </a>
    </li>
  )
}

function authorOf({ sender, sender_name: name }: FoundMessage, player: string): string {
  return name || { player, staff: 'Staff', system: 'System' }[sender]
}
