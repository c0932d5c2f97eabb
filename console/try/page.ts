/**
 * A minimal player's portal without the daemon's API, as docs/portals.md describes it: insert into Supabase, subscribe to Pusher,
 * read the history. The order of messages and what is not sent yet are the client's timeline and outbox (client/src).
 *
 * It serves for trials and as an example; the daemon does not depend on it.
 */

import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { ChatError, unreachable } from '../../client/src/errors'
import { createOutbox, type Item } from '../../client/src/outbox'
import type { Attachment, Message } from '../../client/src/protocol'
import { openStorage } from '../../client/src/storage'
import { createTimeline } from '../../client/src/timeline'
import { ApiError } from '../src/api'
import { isFilesText } from '../src/attachments'
import type { ChosenFile } from '../src/uploads'
import { PlayerFiles } from './files'
import { History, TIMEOUT } from './history'
import { Rating, type SessionRow } from './rating'
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

/** A message as the page shows it. */
interface Row {
  id: string
  sender: string
  sender_name: string | null
  message: string
  created_at: string
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

/** The number of latest messages of each session that are shown when the page opens. */
const INITIAL_MESSAGES = 50
/** Milliseconds until what failed after a read is tried again. */
const READ_AGAIN = 5000
const CHANNEL = `private-player-${config.playerId}`
const history = new History(supabase, config.playerId)
const rating = new Rating(supabase, config.playerId)
let subscriptionFailures = 0
let connection: [state: string, text: string] = ['connecting', 'Connecting']
/** Why the last message was refused; empty once another one is stored. */
let refusal = ''

// Receive: an event may arrive twice, out of order, or not at all. The timeline shows each message once and in order, and asks
// for what is missing.
const timeline = createTimeline('', {
  page: ({ sessionId, after_seq = 0 }) => (sessionId ? history.messages(sessionId, after_seq) : readMissed()).then((messages) => ({ messages })),
  isOwn: ({ sender }) => sender === 'player',
  active: () => true,
  changed: () => update(),
  shown: ({ id }) => outbox.get(id)?.stored && outbox.forget(id),
})

pusher
  .subscribe(CHANNEL)
  .bind('new-staff-message', (event: Message & { truncated?: boolean }) => {
    if (event.truncated) void timeline.refresh()
    else timeline.receive({ ...event, created_at: event.created_at ?? event.timestamp })
  })
  .bind('session-updated', () => void timeline.refresh())
  // Pusher does not store events: read what was missed before the subscription.
  .bind('pusher:subscription_succeeded', () => {
    subscriptionFailures = 0
    showConnection('live', 'Live')
    void timeline.refresh()
  })
  // pusher-js does not retry a failed subscription.
  .bind('pusher:subscription_error', () => {
    showConnection('failed', 'May not listen')
    const delay = Math.min(30_000, 1000 * 2 ** subscriptionFailures) * (0.5 + Math.random() / 2)
    subscriptionFailures += 1
    setTimeout(() => pusher.subscribe(CHANNEL), delay)
    void timeline.refresh()
  })
pusher.connection.bind('connecting', () => showConnection('connecting', 'Connecting'))

/** Read the messages after those that are here, of each session; at first its latest ones. */
async function readMissed(): Promise<Message[]> {
  const sessions = await history.sessions()
  const isFirst = ['loading', 'failed'].includes(timeline.view().state)
  const positions = new Map(timeline.positions())
  const found: Message[] = []
  for (const { id, last_seq } of sessions) {
    const from = positions.get(id) ?? (isFirst ? Math.max(0, last_seq - INITIAL_MESSAGES) : 0)
    if (from < last_seq) found.push(...(await history.messages(id, from)))
  }
  // Once they are shown.
  setTimeout(() => void updateRating(sessions[0]))
  return found
}

async function updateRating(latest: SessionRow | undefined): Promise<void> {
  const writers = new Set(timeline.view().messages.flatMap(({ session_id, sender }) => (session_id === latest?.id ? [sender] : [])))
  try {
    await rating.update(latest, writers.has('player') && writers.has('staff'))
  } catch {
    setTimeout(() => void timeline.refresh(), READ_AGAIN)
  }
}

// Send: the outbox sends one message after the other, in the order in which they were typed. It chooses the id once, so a retry
// never stores a message twice.
/** By id, the files of messages that are being sent. */
const chosenFiles = new Map<string, ChosenFile>()
const filesOf = ({ files }: Item): ChosenFile[] => files.flatMap((id) => chosenFiles.get(id) ?? [])
/** The ids of the refused texts that wait in the list for their button. */
const refused = new Set<string>()
let fileFailed = false

const outbox = createOutbox({
  // Only this page has the bytes of files that are not stored: what is not sent ends with it.
  storage: openStorage(null),
  prefix: '',
  author: () => `player:${config.playerId}`,
  ready: () => true,
  deliver,
  changed: () => update(),
})

element<HTMLFormElement>('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const text = input.value
  if ((!text.trim() && !page.draft.length) || page.hasFailed) return
  input.value = ''
  element('form-error').textContent = ''
  const files = page.take()
  for (const file of files) chosenFiles.set(file.id, file)
  outbox.add({ text, files: files.map(({ id }) => id) })
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

/** Store a message once its files are stored. Raises ChatError. */
async function deliver(item: Item): Promise<void> {
  const { id, text, files } = item
  const row = { id, sender: 'player', sender_name: config.playerName, message: text, player_id: config.playerId, ...(files.length && { attachment_ids: files }) }
  try {
    await page.sendWith(filesOf(item), async () => {
      const { error, status } = await supabase
        .from('gre_chat_messages')
        .upsert(row, { onConflict: 'id', ignoreDuplicates: true })
        .abortSignal(AbortSignal.timeout(TIMEOUT))
      if (error) throw new ChatError(error.code, error.message, status < 400 ? 0 : status)
    })
  } catch (error) {
    if (error instanceof ApiError) throw new ChatError(error.code, error.message, error.status)
    throw error instanceof ChatError ? error : unreachable()
  }
  refusal = ''
  outbox.stored(id)
  if (timeline.view().messages.some((message) => message.id === id)) outbox.forget(id)
  else void timeline.refresh()
}

/** Return a refused text to the empty form; while another text is there, keep it in the list with a button. Then show all. */
function update(): void {
  for (const item of outbox.list()) {
    if (item.state !== 'refused' || refused.has(item.id)) continue
    refusal = item.error?.message ?? ''
    if (input.value || page.draft.length || refused.size) refused.add(item.id)
    else {
      input.value = item.text
      page.put(filesOf(item))
      element('form-error').textContent = `Not sent: ${item.error?.message}`
      outbox.discard(item.id) // which calls this again
      return
    }
  }
  render()
}

/** Show the messages, and below them what is not known to be stored. */
function render(): void {
  const { messages, error } = timeline.view()
  const stored = new Set(messages.map(({ id }) => id))
  const unsent = outbox.list().filter(({ id }) => !stored.has(id))
  const count = list.childElementCount
  let place = list.firstElementChild
  for (const item of [...messages.map(showStored), ...unsent.map(showUnsent)]) {
    if (item === place) place = place.nextElementSibling
    else list.insertBefore(item, place)
  }
  for (let next; place; place = next) {
    next = place.nextElementSibling
    place.remove()
  }
  if (list.childElementCount !== count) list.scrollTop = list.scrollHeight
  // The state of an upload is shown beside its file.
  const failure = error ?? unsent.find((item) => item.state === 'waiting' && item.error && !item.files.length)?.error
  const problem = failure?.message ?? refusal
  const label = element('state')
  label.dataset['state'] = problem ? 'failed' : connection[0]
  label.textContent = problem || connection[1]
}

/** Show the connection's state and a label for it. */
function showConnection(state: string, text: string): void {
  connection = [state, text]
  refusal = ''
  render()
}

function showStored(row: Row): HTMLElement {
  const item = document.getElementById(row.id) ?? createItem(row)
  for (const name of ['data-pending', 'data-refused']) item.removeAttribute(name)
  const ids = row.attachments?.map(({ id }) => id) ?? []
  if (!ids.length) return item
  // In place of the files that were being sent.
  item.querySelector<HTMLElement>(':scope > p')!.hidden = isFilesText({ message: row.message, attachments: row.attachments as Attachment[] }) || row.message === ''
  page.show(item.querySelector<HTMLElement>('.row-files')!, ids)
  return item
}

function showUnsent(unsent: Item): HTMLElement {
  const { id, text: message, createdAt: created_at, state, error } = unsent
  let item = document.getElementById(id)
  if (!item) {
    item = createItem({ id, sender: 'player', sender_name: config.playerName, message, created_at })
    page.showSending(item.querySelector<HTMLElement>('.row-files')!, filesOf(unsent))
  }
  item.toggleAttribute('data-pending', true)
  if (item.toggleAttribute('data-refused', state === 'refused') === (item.querySelector(':scope > button') !== null)) return item
  if (state !== 'refused') {
    for (const part of item.querySelectorAll(':scope > small, :scope > button')) part.remove()
    return item
  }
  const button = createText('button', 'Send again')
  button.addEventListener('click', () => {
    refused.delete(id)
    outbox.retry(id, new Map())
  })
  item.append(createText('small', `Not sent: ${error?.message}`), button)
  return item
}

function createItem(row: Row): HTMLElement {
  const at = new Date(row.created_at)
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

/** Create an element with a text. Users' text is never rendered as HTML. */
function createText(tag: string, content: string): HTMLElement {
  const created = document.createElement(tag)
  created.dir = 'auto'
  created.textContent = content
  return created
}
