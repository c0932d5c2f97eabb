/**
 * A minimal player's portal without the daemon's API, as docs/client.md describes it: the client over the page's own supabase-js and
 * pusher-js. Files go through the daemon, where there is one.
 *
 * It serves for trials and as an example; the daemon does not depend on it.
 */

import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { createChat, type Status, type Transport, type Unsent } from '../../client/src/index'
import { pusherTransport } from '../../client/src/pusher/index'
import type { Attachment } from '../../client/src/protocol'
import { ApiError } from '../src/api'
import { isFilesText } from '../src/attachments'
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

/** Milliseconds after which a message with files has no answer any more. */
const TIMEOUT = 20_000

/** By id, the files of messages that are being sent. */
const chosenFiles = new Map<string, ChosenFile>()
const filesOf = (ids: readonly string[] = []): ChosenFile[] => ids.flatMap((id) => chosenFiles.get(id) ?? [])
/** The ids of the refused texts that wait in the list for their button. */
const refused = new Set<string>()
let fileFailed = false
/** Why the last message was refused, until the next one is sent. */
let refusal = ''

const overPusher = pusherTransport({ pusher, supabase })
const transport: Transport = {
  open: overPusher.open,
  async fetch(url, init) {
    const { attachmentIds } = url.endsWith('/send') ? (JSON.parse(init.body as string) as { attachmentIds?: string[] }) : {}
    if (!attachmentIds) return overPusher.fetch!(url, init)
    try {
      // The message waits for its files, whose uploads may take longer than a call.
      return await page.sendWith(filesOf(attachmentIds), async () => {
        const answer = await overPusher.fetch!(url, { ...init, signal: AbortSignal.timeout(TIMEOUT) })
        if (!answer.ok) throw answer
        return answer
      })
    } catch (error) {
      if (error instanceof Response) return error
      if (error instanceof ApiError) return new Response(JSON.stringify({ code: error.code, error: error.message }), { status: error.status || 503 })
      throw error
    }
  },
}
const chat = createChat({
  url: '',
  getToken: () => config.token,
  name: config.playerName,
  // Only this page has the bytes of files that are not stored: what is not sent ends with it.
  storage: null,
  transport,
})
const rating = new Rating(supabase, chat, config.playerId)

element<HTMLFormElement>('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const text = input.value
  if ((!text.trim() && !page.draft.length) || page.hasFailed) return
  input.value = ''
  element('form-error').textContent = ''
  const files = page.take()
  for (const file of files) chosenFiles.set(file.id, file)
  refusal = ''
  chat.send(text, { files: files.map(({ id }) => id) })
})
// Bytes that are not uploaded and messages that are not stored are in this page only.
addEventListener('beforeunload', (event) => {
  if (page.isUploading || list.querySelector('[data-pending]')) event.preventDefault()
})
page.start(element('file-buttons'), element('tray'), input)
chat.subscribe(update)
update()

/** Say why the draft cannot be sent. */
function updateForm(): void {
  if (page.hasFailed === fileFailed) return
  fileFailed = page.hasFailed
  element('form-error').textContent = page.hasFailed ? 'A file is not uploaded: retry or remove it, then send.' : ''
}

/** Return a refused text to the empty form; while another text is there, keep it in the list with a button. Then show all. */
function update(): void {
  for (const { id, text, files, state, error } of chat.messages().unsent) {
    if (state !== 'refused' || refused.has(id)) continue
    refusal = error?.message ?? ''
    if (input.value || page.draft.length || refused.size) refused.add(id)
    else {
      input.value = text
      page.put(filesOf(files))
      element('form-error').textContent = `Not sent: ${refusal}`
      chat.discard(id)
    }
  }
  render()
}

/** Show the messages, and below them what is not known to be stored. */
function render(): void {
  const { messages, unsent, error } = chat.messages()
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
  const [state, text] = describe(chat.status())
  const label = element('state')
  label.dataset['state'] = problem ? 'failed' : state
  label.textContent = problem || text
  const [latest] = chat.sessions()
  const writers = new Set(messages.flatMap(({ session_id, sender }) => (session_id === latest?.id ? [sender] : [])))
  void rating.update(latest, writers.has('player') && writers.has('staff'))
}

/** The connection's state and a label for it. */
function describe({ connection, reason }: Status): [state: string, label: string] {
  if (connection === 'live') return ['live', 'Live']
  if (connection === 'polling') return ['polling', 'Live, with delay']
  if (connection === 'offline') return ['failed', 'No network']
  return connection === 'stopped' ? ['failed', `Stopped: ${reason}`] : ['connecting', 'Connecting']
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

function showUnsent(unsent: Unsent): HTMLElement {
  const { id, text: message, createdAt: created_at, state, error } = unsent
  let item = document.getElementById(id)
  if (!item) {
    item = createItem({ id, sender: 'player', sender_name: config.playerName, message, created_at })
    page.showSending(item.querySelector<HTMLElement>('.row-files')!, filesOf(unsent.files))
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
    refusal = ''
    chat.retry(id)
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
