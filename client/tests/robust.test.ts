/** What a page, a network or a server does by accident: no error without a catcher, no false state, no change without a change. */

import { expect, test, vi } from 'vitest'

import { open, pass, SAM, shown } from './support/page.js'

test('staff is a plain object: awaiting, printing and serializing it calls nothing', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  await pass(100)
  daemon.calls.length = 0
  expect(await chat.staff).toBe(chat.staff)
  expect(Object.keys(chat.staff).sort()).toEqual(
    ['addNote', 'loadMore', 'notes', 'queue', 'release', 'render', 'reply', 'setStatus', 'take', 'templates', 'transfer', 'unsent', 'viewers', 'viewing'],
  )
  for (const name of ['then', 'toJSON', 'inspect', '$$typeof', Symbol.toPrimitive, Symbol.iterator]) expect(Reflect.get(chat.staff, name)).toBeUndefined()
  expect(`${chat.staff} ${JSON.stringify(chat.staff)}`).toBe('[object Object] {}')
  await pass(100)
  expect(daemon.calls).toEqual([])
})

test('what is no frame is ignored', async () => {
  const frames: unknown[] = []
  const { chat, daemon } = open({ onFrame: (frame) => void frames.push(frame) })
  chat.messages()
  await pass(100)
  frames.length = 0
  for (const data of ['5', '"x"', 'null', '[]', 'true', '{}', '', 'no JSON', '{"type":null}']) daemon.socket.onmessage!({ data })
  await pass(100)
  expect(frames).toEqual([])
  expect(chat.status()).toMatchObject({ connection: 'live', error: undefined })
  daemon.store('s1', 'staff', 'one')
  expect(shown(chat)).toEqual(['one'])
})

test('while the socket lives, a browser that says it is offline is wrong; a dead one is found at once', async () => {
  const page = new EventTarget()
  vi.stubGlobal('addEventListener', page.addEventListener.bind(page))
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  vi.stubGlobal('navigator', { onLine: false })
  page.dispatchEvent(new Event('offline'))
  chat.send('over a network that the browser does not know')
  await pass(15_000)
  expect(chat.status().connection).toBe('live')
  expect(shown(chat)).toEqual(['over a network that the browser does not know'])
  daemon.lose = () => true
  page.dispatchEvent(new Event('offline'))
  await pass(5100)
  expect(chat.status().connection).toBe('offline')
})

test('repeated marks and messages change no snapshot', async () => {
  const { chat, daemon } = open()
  const { message } = daemon.store('s1', 'player', 'one')
  message.attachments = [{ id: 'f1', kind: 'image', type: 'image/png', name: 'a.png', alt: null, bytes: 5, width: 1, height: 1, preview: null, place: 0, state: 'ready' }]
  daemon.store('s1', 'staff', 'two')
  chat.messages()
  chat.messages('s1')
  await pass(2000)
  daemon.read({ role: 'staff', staffId: 's1' }, 's1', 2)
  chat.markRead()
  await pass(100)
  daemon.socket.hear({ type: 'session_updated', session: daemon.row('s1') })
  const before = { all: chat.messages(), ofSession: chat.messages('s1'), sessions: chat.sessions() }
  for (const by of ['staff', 'player']) daemon.socket.hear({ type: 'messages_read', sessionId: 's1', by, upToSeq: 2, timestamp: '' })
  for (const stored of daemon.sessions.get('s1')!.messages) daemon.socket.hear({ type: 'chat_message', message: { ...stored, status: 'sent' }, replay: true })
  daemon.socket.hear({ type: 'attachment_updated', sessionId: 's1', attachment: { ...message.attachments[0]!, state: 'stored' } })
  daemon.socket.hear({ type: 'session_updated', session: daemon.row('s1') })
  await pass(100)
  expect(chat.messages()).toBe(before.all)
  expect(chat.messages('s1')).toBe(before.ofSession)
  expect(chat.sessions()).toBe(before.sessions)
  // What does change is a new object, and the rest stays.
  daemon.store('s1', 'staff', 'three')
  expect(chat.messages()).not.toBe(before.all)
  expect(chat.messages().messages[0]).toBe(before.all.messages[0])
})

test('somebody who types on, or is online again, changes no snapshot', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  const typing = { type: 'typing', sessionId: 's1', by: 'staff', staffId: 's1', typing: true }
  const online = { type: 'staff_status', staffId: 's1', displayName: 'Sam', status: 'online' }
  await pass(100)
  for (const frame of [typing, online]) daemon.socket.hear(frame)
  await pass(3000)
  const before = [chat.typing(), chat.staffOnline()]
  expect(before).toMatchObject([[{ staffId: 's1' }], [{ staffId: 's1' }]])
  for (const frame of [typing, online]) daemon.socket.hear(frame)
  await pass(100)
  expect(chat.typing()).toBe(before[0])
  expect(chat.staffOnline()).toBe(before[1])
  await pass(5000)
  expect(chat.typing()).toEqual(before[0])
  await pass(2000)
  expect(chat.typing()).toEqual([])
})

test('a mark in one session does not change what is shown of another', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  daemon.store('s1', 'staff', 'one')
  daemon.store('s2', 'staff', 'two', {})
  chat.messages('s1')
  await pass(1000)
  const before = chat.messages('s1')
  daemon.socket.hear({ type: 'messages_read', sessionId: 's2', by: 'player', upToSeq: 1, timestamp: '' })
  await pass(100)
  expect(chat.messages('s1')).toBe(before)
  daemon.socket.hear({ type: 'messages_read', sessionId: 's1', by: 'player', upToSeq: 1, timestamp: '' })
  expect(chat.messages('s1').readUpTo).toEqual({ s1: 1 })
})
