/**
 * A minimal player's portal, as docs/portals.md describes it: insert into Supabase, subscribe to Pusher, read the history.
 *
 * It serves for trials and as an example; the daemon does not depend on it.
 */

import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { isFilesText } from '../src/attachments'
import { ApiError } from '../src/api'
import type { Attachment } from '../src/types'
import type { ChosenFile } from '../src/uploads'
import { PlayerFiles } from './files'
import { Rating } from './rating'
import './style.css'

interface Config {
  supabaseUrl: string
  anonKey: string
  pusherKey: string
  pusherHost: string
  pusherPort: number
  pusherAuthUrl: string | null
  bridgeUrl: string | null
  playerId: number
  playerName: string
  token: string
}

interface Row {
  id: string
  sender: string
  sender_name: string | null
  message: string
  session_id?: string
  seq?: number
  created_at?: string
  timestamp?: string
  attachment_ids?: string[]
  /** In events: ids and kinds only. */
  attachments?: { id: string }[]
}

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T
const list = element('messages')
const input = element<HTMLInputElement>('text')

const config = (await (await fetch('/try/config.json')).json()) as Config
element('who').textContent = `You are ${config.playerName}, player ${config.playerId}.`

const supabase = createClient(config.supabaseUrl, config.anonKey, { accessToken: async () => config.token })
const page = new PlayerFiles({
  supabase,
  playerId: config.playerId,
  bridgeUrl: config.bridgeUrl,
  token: config.token,
  onChange: () => updateForm(),
  showError: (text) => (element('form-error').textContent = text),
})
const pusher = new Pusher(config.pusherKey, {
  cluster: 'mt1',
  wsHost: config.pusherHost,
  wsPort: config.pusherPort,
  forceTLS: false,
  enabledTransports: ['ws'],
  disableStats: true,
  ...(config.pusherAuthUrl && {
    channelAuthorization: {
      endpoint: config.pusherAuthUrl,
      transport: 'ajax' as const,
      headersProvider: () => ({ Authorization: `Bearer ${config.token}` }),
    },
  }),
})

// Receive: an event may arrive twice or out of order, so a message is shown after all messages before it.
/** By session id, the last seq that is shown. */
const shownSeq = new Map<string, number>()
/** By session id and seq, messages that arrived before their predecessor. */
const pendingRows = new Map<string, Map<number, Row>>()
const PAGE = 500
/** The number of latest messages of each session that are shown when the page opens. */
const INITIAL_MESSAGES = 50
const CHANNEL = `private-player-${config.playerId}`
/** By session id, who has written there. */
const senders = new Map<string, Set<string>>()
const rating = new Rating(supabase, config.playerId)
let subscriptionFailures = 0
let loadedOnce = false
let loadRequested = false
let loading: Promise<void> | undefined

pusher
  .subscribe(CHANNEL)
  .bind('new-staff-message', (event: Row & { truncated?: boolean }) => {
    if (event.truncated) void catchUp()
    else receive(event)
  })
  .bind('session-updated', () => void catchUp())
  // Pusher does not store events: read what was missed before the subscription.
  .bind('pusher:subscription_succeeded', () => {
    subscriptionFailures = 0
    showState('live', 'Live')
    void catchUp()
  })
  // pusher-js does not retry a failed subscription.
  .bind('pusher:subscription_error', () => {
    showState('failed', 'May not listen')
    const delay = Math.min(30_000, 1000 * 2 ** subscriptionFailures) * (0.5 + Math.random() / 2)
    subscriptionFailures += 1
    setTimeout(() => pusher.subscribe(CHANNEL), delay)
    void catchUp()
  })
pusher.connection.bind('connecting', () => showState('connecting', 'Connecting'))

function receive(row: Row): void {
  const session = row.session_id ?? ''
  const seq = row.seq ?? 0
  let shown = shownSeq.get(session)
  if (shown === undefined) return void catchUp()
  const waiting = pendingRows.get(session) ?? new Map<number, Row>()
  pendingRows.set(session, waiting)
  if (seq > shown) waiting.set(seq, row)
  for (let next; (next = waiting.get(shown + 1)); ) {
    shown += 1
    waiting.delete(shown)
    shownSeq.set(session, shown)
    senders.set(session, (senders.get(session) ?? new Set()).add(next.sender))
    show(next)
  }
  if (waiting.size) void catchUp()
}

/** Read the missed messages; calls while a read is running cause one more read. */
function catchUp(): Promise<void> {
  loadRequested = true
  loading ??= loadWithRetry()
  return loading
}

async function loadWithRetry(): Promise<void> {
  for (let delay = 1000; loadRequested; ) {
    loadRequested = false
    try {
      await loadMissing()
      delay = 1000
    } catch (error) {
      loadRequested = true
      showState('failed', error instanceof Error ? error.message : 'No answer')
      await new Promise((resolve) => setTimeout(resolve, delay))
      delay = Math.min(2 * delay, 30_000)
    }
  }
  loading = undefined
}

async function loadMissing(): Promise<void> {
  const { data: sessions } = await supabase
    .from('gre_chat_sessions')
    .select('id, last_seq, status, cycle, rating')
    .eq('player_id', config.playerId)
    .order('updated_at', { ascending: false })
    .limit(20)
    .throwOnError()
  for (const { id, last_seq } of sessions.reverse()) {
    if (!shownSeq.has(id)) shownSeq.set(id, loadedOnce ? 0 : Math.max(0, last_seq - INITIAL_MESSAGES))
    while (shownSeq.get(id)! < last_seq) {
      const { data: rows } = await supabase
        .from('gre_chat_messages')
        .select('id, session_id, seq, sender, sender_name, message, created_at, attachment_ids')
        .eq('session_id', id)
        .gt('seq', shownSeq.get(id)!)
        .order('seq')
        .limit(PAGE)
        .throwOnError()
      if (!rows.length) break
      for (const row of rows) receive(row as Row)
    }
  }
  loadedOnce = true
  const latest = sessions.at(-1)
  const writers = latest && senders.get(latest.id)
  await rating.update(latest, Boolean(writers?.has('player') && writers.has('staff')))
}

// Send: one message after the other, in the order in which they were typed. The page chooses the id once, so a retry
// never stores a message twice.
/** Milliseconds after which a request without a response counts as failed. */
const TIMEOUT = 15_000
let fileFailed = false
/** Settled when no message is being sent. */
let sending = Promise.resolve()

element<HTMLFormElement>('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const message = input.value
  if ((!message.trim() && !page.draft.length) || page.hasFailed) return
  input.value = ''
  element('form-error').textContent = ''
  enqueue({ id: crypto.randomUUID(), sender: 'player', sender_name: config.playerName, message }, page.take())
})
// Bytes that are not uploaded and messages that are not stored are in this page only.
addEventListener('beforeunload', (event) => {
  if (page.isUploading || list.querySelector('[data-pending]')) event.preventDefault()
})
page.start(element('file-buttons'), element('tray'), input)

/** Say why the draft cannot be sent. */
function updateForm(): void {
  if (page.hasFailed === fileFailed) return
  fileFailed = page.hasFailed
  element('form-error').textContent = page.hasFailed ? 'A file is not uploaded: retry or remove it, then send.' : ''
}

function enqueue(row: Row, files: readonly ChosenFile[]): void {
  const item = show(row, true)
  page.showSending(item.querySelector<HTMLElement>('.row-files')!, files)
  sending = sending.then(() => send(row, files))
}

/** Send until the message is stored or refused. */
async function send(row: Row, files: readonly ChosenFile[]): Promise<void> {
  const stored = { ...row, player_id: config.playerId, ...(files.length && { attachment_ids: files.map(({ id }) => id) }) }
  for (let delay = 1000; ; delay = Math.min(2 * delay, 30_000)) {
    try {
      const { error } = await page.sendWith(files, async () => {
        const answer = await supabase
          .from('gre_chat_messages')
          .upsert(stored, { onConflict: 'id', ignoreDuplicates: true })
          .abortSignal(AbortSignal.timeout(TIMEOUT))
        if (answer.error && isPassing(answer.status)) throw answer.error
        return answer
      })
      if (!error) return void catchUp()
      showState('failed', error.message)
      return showRefusal(row, files, error.message)
    } catch (error) {
      if (error instanceof ApiError && !error.transient) return showRefusal(row, files, error.message)
      // The state of an upload is shown beside its file.
      if (!(error instanceof ApiError)) showState('failed', error instanceof Error ? error.message : 'No answer')
    }
    await new Promise((resolve) => setTimeout(resolve, delay))
  }
}

function isPassing(status: number): boolean {
  return status < 400 || status >= 500 || status === 401 || status === 429
}

/** Return a refused text and its files to the empty form; while another text is there, keep it in the list with a button. */
function showRefusal(row: Row, files: readonly ChosenFile[], reason: string): void {
  const item = element(row.id)
  if (!input.value && !page.draft.length && !list.querySelector('[data-refused]')) {
    item.remove()
    input.value = row.message
    page.put(files)
    element('form-error').textContent = `Not sent: ${reason}`
    return
  }
  const button = createText('button', 'Send again')
  button.addEventListener('click', () => {
    item.remove()
    enqueue(row, files)
  })
  item.toggleAttribute('data-refused', true)
  item.append(createText('small', `Not sent: ${reason}`), button)
}

/** Append a message; messages that are not confirmed as stored stay below the others. */
function show(row: Row, pending = false): HTMLElement {
  const item = document.getElementById(row.id) ?? createItem(row)
  item.toggleAttribute('data-pending', pending)
  const ids = row.attachment_ids ?? row.attachments?.map(({ id }) => id) ?? []
  if (!pending) showFiles(item, row, ids)
  list.insertBefore(item, pending ? null : list.querySelector('[data-pending]'))
  list.scrollTop = list.scrollHeight
  return item
}

function createItem(row: Row): HTMLElement {
  const at = new Date(row.created_at ?? row.timestamp ?? Date.now())
  const item = document.createElement('article')
  item.id = row.id
  item.className = row.sender
  item.dataset['testid'] = 'try-message'
  item.dataset['sender'] = row.sender
  item.dataset['messageId'] = row.id
  item.append(createText('b', row.sender === 'player' ? 'You' : (row.sender_name ?? row.sender)), createText('p', row.message))
  const files = document.createElement('div')
  files.className = 'row-files'
  item.insertBefore(files, item.lastChild)
  item.append(createText('time', at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })))
  return item
}

/** Replace the files that were being sent by those that are stored. */
function showFiles(item: HTMLElement, row: Row, ids: string[]): void {
  if (!ids.length) return
  const attachments = ids.map((id) => ({ id }) as Attachment)
  item.querySelector<HTMLElement>(':scope > p')!.hidden = isFilesText({ message: row.message, attachments }) || row.message === ''
  page.show(item.querySelector<HTMLElement>('.row-files')!, ids)
}

/** Create an element with a text. Users' text is never rendered as HTML. */
function createText(tag: string, content: string): HTMLElement {
  const created = document.createElement(tag)
  created.dir = 'auto'
  created.textContent = content
  return created
}

/** Show the connection's state and a label for it. */
function showState(state: string, text: string): void {
  const label = element('state')
  label.dataset['state'] = state
  label.textContent = text
}
