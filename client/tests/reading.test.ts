import { expect, test, vi } from 'vitest'

import type { Attachment } from '../src/index.js'
import { open, pass, SAM, shown } from './support/page.js'

test('unread messages are counted live, and marked when the page says so', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  expect(chat.unread()).toBe(1)
  daemon.store('s1', 'staff', 'two')
  daemon.store('s1', 'player', 'from another tab')
  expect(chat.unread()).toBe(2)
  expect(chat.unread('s1')).toBe(2)
  expect(chat.unread('s2')).toBe(0)
  chat.markRead('s1', 1)
  await pass(100)
  expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 1 }])
  chat.markRead()
  expect(chat.unread()).toBe(0)
  await pass(100)
  expect(daemon.marks.at(-1)).toEqual({ sessionId: 's1', upToSeq: 3 })
  daemon.store('s1', 'player', 'mine')
  expect(chat.unread()).toBe(0)
  daemon.store('s1', 'staff', 'four')
  expect(chat.unread()).toBe(1)
  chat.markRead()
  await pass(100)
  const { length } = daemon.marks
  chat.markRead()
  chat.markRead()
  await pass(100)
  expect(daemon.marks).toHaveLength(length)
})

test('a mark that the server does not get is sent again after a reconnection', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.rest = 'fails'
  chat.markRead()
  await pass(100)
  expect(daemon.marks).toEqual([])
  expect(chat.unread()).toBe(0)
  daemon.rest = 'works'
  daemon.socket.end(1006)
  await pass(3000)
  expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 1 }])
})

test('a mark that the server refuses for a while is sent again every 20 s, also after several connections', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  const tries = (): number => daemon.calls.filter(({ line }) => line === 'POST /api/gre-chat/read/s1').length
  daemon.rest = 'unavailable'
  chat.markRead()
  await pass(100)
  for (let n = 1; n <= 3; n += 1) {
    daemon.socket.end(1006)
    await pass(3000)
    expect(tries()).toBe(1 + n)
  }
  await pass(60_000)
  expect(tries()).toBe(4 + 3)
})

test('the other side’s mark is shown, also one that was set while the connection was lost', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'player', 'one')
  daemon.store('s1', 'player', 'two')
  chat.messages()
  await pass(100)
  expect(chat.messages().readUpTo).toEqual({})
  daemon.read({ role: 'staff', staffId: 's1' }, 's1', 1)
  expect(chat.messages().readUpTo).toEqual({ s1: 1 })
  expect(chat.messages().messages.map(({ status }) => status)).toEqual(['read', 'sent'])
  daemon.socket.end(1006)
  daemon.read({ role: 'staff', staffId: 's1' }, 's1', 2)
  await pass(6000)
  expect(chat.messages().readUpTo).toEqual({ s1: 2 })
})

test('a row that was read before a message does not hide it', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  await pass(100)
  const early = daemon.row('s1')
  daemon.store('s1', 'staff', 'two')
  expect(chat.unread()).toBe(2)
  daemon.socket.hear({ type: 'session_updated', session: { ...early, rev: 100, assigned_staff_id: 's1' } })
  expect(chat.unread()).toBe(2)
  expect(chat.sessions()).toMatchObject([{ id: 's1', last_seq: 2, assigned_staff_id: 's1' }])
  daemon.socket.hear({ type: 'session_updated', session: { ...early, status: 'closed' } })
  expect(chat.sessions()).toMatchObject([{ status: 'active' }])
})

test('states of files go forwards only', async () => {
  const { chat, daemon } = open()
  const file: Attachment = {
    id: 'f1', kind: 'image', type: 'image/png', name: 'a.png', alt: null, bytes: 5, width: null, height: null, preview: null, place: 0, state: 'stored',
  }
  const { message } = daemon.store('s1', 'staff', 'photo')
  message.attachments = [file]
  chat.messages()
  await pass(100)
  daemon.socket.hear({ type: 'attachment_updated', sessionId: 's1', attachment: { ...file, place: null, state: 'ready', width: 9 } })
  expect(chat.messages().messages[0]!.attachments).toMatchObject([{ state: 'ready', width: 9 }])
  daemon.socket.hear({ type: 'attachment_updated', sessionId: 's1', attachment: file })
  daemon.socket.hear({ type: 'chat_message', message, replay: true })
  expect(chat.messages().messages[0]!.attachments).toMatchObject([{ state: 'ready', width: 9 }])
})

test('a file of a session that is not shown changes nothing', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages('s1')
  await pass(2000)
  const listener = vi.fn()
  chat.subscribe(listener)
  const attachment = { id: 'f1', kind: 'file', type: 'text/plain', name: 'a.txt', alt: null, bytes: 5, width: null, height: null, preview: null, place: 0, state: 'ready' }
  daemon.socket.hear({ type: 'attachment_updated', sessionId: 's2', attachment })
  await pass(100)
  expect(listener).not.toHaveBeenCalled()
  daemon.socket.hear({ type: 'attachment_updated', sessionId: 's1', attachment })
  await pass(100)
  expect(listener).toHaveBeenCalledOnce()
})

test('who types is forgotten after 6 s, or when the message comes', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  await pass(100)
  const frame = { type: 'typing', sessionId: 's1', playerId: 29, by: 'staff', typing: true }
  daemon.socket.hear(frame)
  await pass(100)
  expect(chat.typing('s1')).toMatchObject([{ by: 'staff', sessionId: 's1' }])
  expect(chat.typing()).toHaveLength(1)
  expect(chat.typing('s2')).toEqual([])
  await pass(5800)
  expect(chat.typing()).toHaveLength(1)
  await pass(200)
  expect(chat.typing()).toEqual([])
  daemon.socket.hear(frame)
  await pass(10)
  daemon.store('s1', 'staff', 'two')
  expect(chat.typing()).toEqual([])
  daemon.socket.hear(frame)
  daemon.socket.hear({ ...frame, typing: false })
  await pass(10)
  expect(chat.typing()).toEqual([])
})

test('own typing is sent at most every 3 s, and its end once', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const sent = (): unknown[] => daemon.socket.sent.filter(({ type }) => type === 'typing').map(({ typing }) => typing)
  chat.setTyping(true)
  await pass(10)
  for (let key = 0; key < 20; key += 1) {
    chat.setTyping(true)
    await pass(100)
  }
  expect(sent()).toEqual([true])
  await pass(1500)
  chat.setTyping(true)
  await pass(10)
  expect(sent()).toEqual([true, true])
  chat.send('done')
  chat.setTyping(false)
  await pass(10)
  expect(sent()).toEqual([true, true, false])
})

test('listeners are called once for all changes of a moment, and one that fails keeps no other from it', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  let calls = 0
  const failures: unknown[] = []
  const queue = globalThis.queueMicrotask
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((act) =>
    queue(() => {
      try {
        act()
      } catch (error) {
        failures.push(error)
      }
    }),
  )
  const leave = chat.subscribe(() => {
    throw new Error('a page fails')
  })
  chat.subscribe(() => (calls += 1))
  daemon.store('s1', 'staff', 'one')
  daemon.store('s1', 'staff', 'two')
  await pass(0)
  leave()
  expect(calls).toBe(1)
  expect(failures).toMatchObject([{ message: 'a page fails' }])
})

test('ids of players beyond 2^53 are exact', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const text = JSON.stringify({ type: 'session_updated', session: { ...daemon.open('s9'), messages: undefined, rev: 9 } }).replace('"player_id":29', '"player_id":9007199254740993')
  daemon.socket.onmessage!({ data: text })
  expect(chat.sessions()).toMatchObject([{ id: 's9', player_id: '9007199254740993' }])
})

test('frames that are no frames, and types of later versions, are ignored', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.socket.onmessage!({ data: '{' })
  daemon.socket.hear({ type: 'of_next_year' })
  daemon.store('s1', 'staff', 'one')
  expect(shown(chat)).toEqual(['one'])
})

test('a rating and the end of a session answer with the row, which is kept', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  await pass(100)
  const closed = chat.closeSession()
  await pass(50)
  await closed
  expect(chat.sessions()).toMatchObject([{ id: 's1', status: 'closed' }])
  const rated = chat.rate('s1', 5, 'good')
  await pass(50)
  expect(await rated).toMatchObject({ id: 's1', rating: 5 })
  expect(chat.sessions()).toMatchObject([{ rating: 5 }])
  const again = chat.rate('s1', 4)
  const refused = expect(again).rejects.toMatchObject({ name: 'ChatError', code: 'already_rated', status: 409, transient: false })
  await pass(50)
  await refused
})

test('who of the staff is there', async () => {
  const page = open({ getToken: () => SAM })
  await pass(100)
  expect(page.chat.staffOnline()).toMatchObject([{ staffId: 's1', displayName: 'Sam', status: 'online' }])
  page.daemon.socket.hear({ type: 'staff_status', staffId: 's2', displayName: 'Kim', status: 'away' })
  page.daemon.socket.hear({ type: 'staff_status', staffId: 's1', displayName: 'Sam', status: 'offline' })
  expect(page.chat.staffOnline()).toMatchObject([{ staffId: 's2', status: 'away' }])
})
