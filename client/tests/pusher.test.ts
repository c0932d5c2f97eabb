import { expect, test } from 'vitest'

import { createChat } from '../src/index.js'
import { pusherTransport } from '../src/pusher/index.js'
import { ASHA, BINA, open as openPage, pass, SAM, shown, unsent } from './support/page.js'
import { connection, eventOf, FakePusher, MINE, openOverPusher as open } from './support/pusher.js'

test('an event is shown as it comes; it is live after the subscription, and not before', async () => {
  const page = open()
  page.daemon.store('s1', 'player', 'one')
  page.chat.messages()
  expect(connection(page.chat)).toBe('connecting')
  await pass(200)
  expect(connection(page.chat)).toBe('live')
  expect(page.chat.status().me).toMatchObject({ role: 'player', playerId: 29, displayName: 'Asha' })
  const calls = page.daemon.calls.length
  page.tell(page.daemon.store('s1', 'staff', 'two').message)
  expect(shown(page.chat)).toEqual(['one', 'two'])
  expect(page.chat.messages().messages[1]).toEqual(page.daemon.sessions.get('s1')!.messages[1])
  expect(page.chat.unread()).toBe(1)
  expect(page.daemon.calls).toHaveLength(calls)
})

test('an own text goes by REST, and is shown once; a hole is healed from the table', async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.chat.send('mine')
  await pass(100)
  expect(shown(page.chat)).toEqual(['mine'])
  expect(unsent(page.chat)).toEqual([])
  page.daemon.store('s1', 'player', 'of my phone')
  page.tell(page.daemon.store('s1', 'staff', 'answer').message)
  expect(page.chat.messages().state).toBe('healing')
  await pass(2000)
  expect(shown(page.chat)).toEqual(['mine', 'of my phone', 'answer'])
  page.tell(page.daemon.sessions.get('s1')!.messages[2]!)
  expect(shown(page.chat)).toHaveLength(3)
})

test('a cut text is read from the table; one that is late or sent again is shown without a frame', async () => {
  const page = open()
  const frames: string[] = []
  page.chat.close()
  const chat = page.reload({ onFrame: (frame) => void frames.push(frame.type === 'chat_message' ? frame.message.message : '') })
  chat.messages()
  await pass(200)
  const whole = page.daemon.store('s1', 'staff', 'a long text').message
  page.pusher.announce(MINE, 'new-staff-message', { ...eventOf(whole), message: 'a lo', truncated: true })
  await pass(100)
  expect(shown(chat)).toEqual(['a long text'])
  for (const mark of [{ late: true as const }, { replayed: true as const }]) {
    const old = page.daemon.store('s1', 'staff', Object.keys(mark)[0]!).message
    page.pusher.announce(MINE, 'new-staff-message', { ...eventOf(old), ...mark })
  }
  await pass(1000)
  expect(shown(chat)).toEqual(['a long text', 'late', 'replayed'])
  expect(frames.filter(Boolean)).toEqual(['a long text'])
})

test('the files of a message are read, and looked at again until they are examined', async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  const { message } = page.daemon.store('s1', 'staff', 'a photo')
  const file = { id: 'f1', kind: 'image', type: 'image/png', name: 'a.png', alt: null, bytes: 9, width: null, height: null, preview: null, place: 1, state: 'stored' } as const
  const set = (state: 'stored' | 'ready'): void => void (page.daemon.sessions.get('s1')!.messages[0] = { ...message, attachments: [{ ...file, state }] })
  set('stored')
  page.pusher.announce(MINE, 'new-staff-message', { ...eventOf(message), attachments: [{ id: 'f1', kind: 'image' }] })
  await pass(100)
  expect(page.chat.messages().messages[0]!.attachments).toMatchObject([{ name: 'a.png', state: 'stored' }])
  set('ready')
  await pass(3000)
  expect(page.chat.messages().messages[0]!.attachments![0]!.state).toBe('ready')
  const calls = page.daemon.calls.length
  await pass(20_000)
  expect(page.daemon.calls).toHaveLength(calls)
})

test('sessions and read marks', async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.chat.send('mine')
  await pass(100)
  page.daemon.sessions.get('s1')!.status = 'closed'
  page.daemon.sessions.get('s1')!.rev += 1
  page.pusher.announce(MINE, 'session-updated', { session: page.daemon.row('s1') })
  expect(page.chat.sessions()[0]).toMatchObject({ id: 's1', status: 'closed' })
  page.pusher.announce(MINE, 'messages-read', { session_id: 's1', by: 'staff', up_to_seq: 1, timestamp: null })
  expect(page.chat.messages().readUpTo).toEqual({ s1: 1 })
})

test('after each subscription it reads what was missed', async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.pusher.drop()
  expect(connection(page.chat)).toBe('reconnecting')
  page.tell(page.daemon.store('s1', 'staff', 'missed').message)
  expect(shown(page.chat)).toEqual([])
  await pass(5000)
  expect(connection(page.chat)).toBe('live')
  expect(shown(page.chat)).toEqual(['missed'])
})

test('staff hear both channels: players, colleagues, notes', async () => {
  const page = open({ token: SAM })
  page.daemon.open('s1')
  page.chat.messages('s1')
  page.chat.staff.queue()
  page.chat.staff.notes('s1')
  await pass(500)
  expect([...page.pusher.channels.keys()]).toEqual(['private-staff-portal', 'staff-portal'])
  const question = page.daemon.store('s1', 'player', 'question').message
  page.pusher.announce('staff-portal', 'new-player-message', eventOf(question))
  page.pusher.announce('private-staff-portal', 'new-player-message', eventOf(question))
  page.pusher.announce('private-staff-portal', 'new-staff-message', eventOf(page.daemon.store('s1', 'staff', 'answer').message))
  expect(shown(page.chat, 's1')).toEqual(['question', 'answer'])
  page.pusher.announce('private-staff-portal', 'session-note', { note: page.daemon.note('s1', 'a note') })
  expect(page.chat.staff.notes('s1').notes.map(({ text }) => text)).toEqual(['a note'])
  page.chat.staff.reply('s1', 'mine')
  await pass(100)
  expect(shown(page.chat, 's1')).toEqual(['question', 'answer', 'mine'])
})

test('channels of the options', async () => {
  const page = open({ token: SAM, channel: 'private-staff-portal' })
  await pass(200)
  expect([...page.pusher.channels.keys()]).toEqual(['private-staff-portal'])
})

test("a closed chat leaves its channels, unless the page or another chat uses them, and nothing of pusher-js's", async () => {
  const pusher = new FakePusher()
  const before = pusher.subscribe('private-player-30')
  const page = openPage({ transport: pusherTransport({ pusher }) })
  const options = { url: 'http://chat.test', storage: null, transport: pusherTransport({ pusher }) }
  const second = createChat({ ...options, getToken: () => ASHA })
  const other = createChat({ ...options, getToken: () => BINA })
  for (const chat of [second, other]) chat.connect()
  await pass(200)
  expect([page.chat, second, other].map(connection)).toEqual(['live', 'live', 'live'])
  page.chat.close()
  expect(pusher.channel(MINE)!.subscribed).toBe(true)
  second.close()
  other.close()
  expect([...pusher.channels.keys()]).toEqual(['private-player-30'])
  expect(before.listeners + pusher.connection.listeners).toBe(0)
  expect(pusher.connection.state).toBe('connected')
})

test('typing is not sent; asking for it breaks nothing', async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.chat.setTyping(true)
  await pass(100)
  expect(page.chat.typing()).toEqual([])
  expect(connection(page.chat)).toBe('live')
})
