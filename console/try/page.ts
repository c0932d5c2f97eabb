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

// Receive: an event may come twice, and one whose text was cut is fetched.
pusher
  .subscribe(`private-player-${config.playerId}`)
  .bind('new-staff-message', async (event: Row & { truncated?: boolean }) => {
    if (event.truncated) {
      const { data } = await supabase.from('gre_chat_messages').select('message').eq('id', event.id).single()
      event.message = String(data?.message ?? event.message)
    }
    show(event)
  })
  .bind('pusher:subscription_succeeded', () => state('live', 'Live'))
  .bind('pusher:subscription_error', () => state('failed', 'May not listen'))
pusher.connection.bind('connecting', () => state('connecting', 'Connecting'))
// Pusher keeps nothing for a page that was away.
pusher.connection.bind('connected', () => void catchUp())

async function catchUp(): Promise<void> {
  const { data, error } = await supabase
    .from('gre_chat_messages')
    .select('id, seq, sender, sender_name, message, created_at')
    .eq('player_id', config.playerId)
    .order('created_at', { ascending: false })
    .order('seq', { ascending: false })
    .limit(50)
  if (error) state('failed', error.message)
  for (const row of (data ?? []).reverse()) show(row as Row)
}

// Send: the id is chosen once, so that sending again never stores it twice.
element<HTMLFormElement>('form').addEventListener('submit', async (event) => {
  event.preventDefault()
  const message = text.value
  if (!message.trim()) return
  const row: Row = { id: crypto.randomUUID(), sender: 'player', sender_name: config.playerName, message }
  text.value = ''
  const shown = show(row)
  const { error } = await supabase
    .from('gre_chat_messages')
    .upsert({ ...row, player_id: config.playerId }, { onConflict: 'id', ignoreDuplicates: true })
  if (!error) return
  shown?.remove()
  text.value ||= message
  state('failed', error.message)
})

function show(row: Row): HTMLElement | undefined {
  if (document.getElementById(row.id)) return undefined
  const at = new Date(row.created_at ?? row.timestamp ?? Date.now())
  const item = document.createElement('article')
  item.id = row.id
  item.className = row.sender
  item.dataset['testid'] = 'try-message'
  item.dataset['sender'] = row.sender
  item.dataset['messageId'] = row.id
  item.append(part('b', row.sender === 'player' ? 'You' : (row.sender_name ?? row.sender)), part('p', row.message))
  item.append(part('time', at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })))
  list.append(item)
  list.scrollTop = list.scrollHeight
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
