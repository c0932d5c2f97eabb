/**
 * The smallest player's portal, as docs/portals.md shows it: insert into Supabase, listen on Pusher, read the history.
 *
 * It is here to try the project with, and to be read; the daemon knows nothing of it.
 */

import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import './style.css'

interface Config {
  supabaseUrl: string
  anonKey: string
  pusherKey: string
  pusherHost: string
  pusherPort: number
  pusherAuthUrl: string | null
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
}

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T
const list = element('messages')
const text = element<HTMLInputElement>('text')

const config = (await (await fetch('/try/config.json')).json()) as Config
element('who').textContent = `You are ${config.playerName}, player ${config.playerId}.`

const supabase = createClient(config.supabaseUrl, config.anonKey, { accessToken: async () => config.token })
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

// Receive: an event may come twice or before its predecessor, so it is only shown when everything before it was.
const upTo = new Map<string, number>()
const early = new Map<string, Map<number, Row>>()
const PAGE = 500
const SHOWN_AT_FIRST = 50
const CHANNEL = `private-player-${config.playerId}`
let refusals = 0
let looked = false
let again = false
let looking: Promise<void> | undefined

pusher
  .subscribe(CHANNEL)
  .bind('new-staff-message', (event: Row & { truncated?: boolean }) => {
    if (event.truncated) void catchUp()
    else take(event)
  })
  // Events come from now on, and Pusher keeps nothing for a page that was away.
  .bind('pusher:subscription_succeeded', () => {
    refusals = 0
    state('live', 'Live')
    void catchUp()
  })
  // pusher-js does not ask again by itself.
  .bind('pusher:subscription_error', () => {
    state('failed', 'May not listen')
    const pause = Math.min(30_000, 1000 * 2 ** refusals) * (0.5 + Math.random() / 2)
    refusals += 1
    setTimeout(() => pusher.subscribe(CHANNEL), pause)
    void catchUp()
  })
pusher.connection.bind('connecting', () => state('connecting', 'Connecting'))

function take(row: Row): void {
  const session = row.session_id ?? ''
  const seq = row.seq ?? 0
  let at = upTo.get(session)
  if (at === undefined) return void catchUp()
  const waiting = early.get(session) ?? new Map<number, Row>()
  early.set(session, waiting)
  if (seq > at) waiting.set(seq, row)
  for (let next; (next = waiting.get(at + 1)); ) {
    at += 1
    waiting.delete(at)
    upTo.set(session, at)
    show(next)
  }
  if (waiting.size) void catchUp()
}

function catchUp(): Promise<void> {
  again = true
  looking ??= look()
  return looking
}

async function look(): Promise<void> {
  for (let pause = 1000; again; ) {
    again = false
    try {
      await read()
      pause = 1000
    } catch (error) {
      again = true
      state('failed', error instanceof Error ? error.message : 'No answer')
      await new Promise((resolve) => setTimeout(resolve, pause))
      pause = Math.min(2 * pause, 30_000)
    }
  }
  looking = undefined
}

async function read(): Promise<void> {
  const { data: sessions } = await supabase
    .from('gre_chat_sessions')
    .select('id, last_seq')
    .eq('player_id', config.playerId)
    .order('updated_at', { ascending: false })
    .limit(20)
    .throwOnError()
  for (const { id, last_seq } of sessions.reverse()) {
    if (!upTo.has(id)) upTo.set(id, looked ? 0 : Math.max(0, last_seq - SHOWN_AT_FIRST))
    while (upTo.get(id)! < last_seq) {
      const { data: rows } = await supabase
        .from('gre_chat_messages')
        .select('id, session_id, seq, sender, sender_name, message, created_at')
        .eq('session_id', id)
        .gt('seq', upTo.get(id)!)
        .order('seq')
        .limit(PAGE)
        .throwOnError()
      if (!rows.length) break
      for (const row of rows) take(row as Row)
    }
  }
  looked = true
}

// Send: the id is chosen once, so that sending again never stores it twice.
element<HTMLFormElement>('form').addEventListener('submit', async (event) => {
  event.preventDefault()
  const message = text.value
  if (!message.trim()) return
  const row: Row = { id: crypto.randomUUID(), sender: 'player', sender_name: config.playerName, message }
  text.value = ''
  const shown = show(row, true)
  for (let pause = 1000; ; pause = Math.min(2 * pause, 30_000)) {
    const { error, status } = await supabase
      .from('gre_chat_messages')
      .upsert({ ...row, player_id: config.playerId }, { onConflict: 'id', ignoreDuplicates: true })
    if (!error) return void catchUp()
    state('failed', error.message)
    if (status >= 400 && status < 500 && status !== 401 && status !== 429) break
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
  shown.remove()
  text.value ||= message
})

/** Show a message at the end; what is not known to be stored yet stays below what is. */
function show(row: Row, pending = false): HTMLElement {
  const item = document.getElementById(row.id) ?? made(row)
  item.toggleAttribute('data-pending', pending)
  list.insertBefore(item, pending ? null : list.querySelector('[data-pending]'))
  list.scrollTop = list.scrollHeight
  return item
}

function made(row: Row): HTMLElement {
  const at = new Date(row.created_at ?? row.timestamp ?? Date.now())
  const item = document.createElement('article')
  item.id = row.id
  item.className = row.sender
  item.dataset['testid'] = 'try-message'
  item.dataset['sender'] = row.sender
  item.dataset['messageId'] = row.id
  item.append(part('b', row.sender === 'player' ? 'You' : (row.sender_name ?? row.sender)), part('p', row.message))
  item.append(part('time', at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })))
  return item
}

/** What people wrote is text, whatever it looks like. */
function part(kind: string, said: string): HTMLElement {
  const made = document.createElement(kind)
  made.dir = 'auto'
  made.textContent = said
  return made
}

function state(name: string, said: string): void {
  const label = element('state')
  label.dataset['state'] = name
  label.textContent = said
}
