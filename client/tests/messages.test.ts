import { expect, test } from 'vitest'

import { open, pass, SAM, shown, unsent } from './support/page.js'

test('history is loaded, then live messages follow', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'player', 'one')
  daemon.store('s1', 'staff', 'two')
  expect(chat.messages().state).toBe('loading')
  await pass(100)
  expect(shown(chat)).toEqual(['one', 'two'])
  expect(chat.messages().state).toBe('complete')
  daemon.store('s1', 'staff', 'three')
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
})

test('a message that is sent twice is shown once', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  const { message } = daemon.store('s1', 'staff', 'one')
  daemon.socket.hear({ type: 'chat_message', message, replay: false })
  expect(shown(chat)).toEqual(['one'])
})

test('a message that comes early waits, and the state says so', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.loseMessage = ({ seq }) => seq === 2
  daemon.store('s1', 'staff', 'two')
  daemon.store('s1', 'staff', 'three')
  expect(shown(chat)).toEqual(['one'])
  expect(chat.messages().state).toBe('healing')
  // It comes after all.
  daemon.socket.hear({ type: 'chat_message', message: daemon.sessions.get('s1')!.messages[1]!, replay: false })
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
  expect(chat.messages().state).toBe('complete')
})

test('what does not come is read by REST, also after failures', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.loseMessage = ({ seq }) => seq === 2
  daemon.rest = 'fails'
  daemon.store('s1', 'staff', 'two')
  daemon.store('s1', 'staff', 'three')
  await pass(3000)
  expect(chat.messages().state).toBe('healing')
  expect(chat.messages().error?.code).toBe('unreachable')
  daemon.rest = 'works'
  await pass(5000)
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
  expect(chat.messages().state).toBe('complete')
})

test('a seq that the server does not have is no hole for ever', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.loseMessage = ({ seq }) => seq === 2
  daemon.store('s1', 'staff', 'deleted')
  daemon.store('s1', 'staff', 'three')
  daemon.sessions.get('s1')!.messages.splice(1, 1)
  await pass(2000)
  expect(shown(chat)).toEqual(['one', 'three'])
  expect(chat.messages().state).toBe('complete')
})

test('what was missed while the connection was lost is shown once and in order', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.socket.end(1006)
  expect(chat.status().connection).toBe('reconnecting')
  daemon.store('s1', 'staff', 'two')
  daemon.store('s2', 'staff', 'in a new session')
  await pass(3000)
  expect(chat.status().connection).toBe('live')
  expect(daemon.socket.sent[0]).toMatchObject({ type: 'authenticate', since: { s1: 1 } })
  expect(shown(chat)).toEqual(['one', 'two', 'in a new session'])
})

test('the sessions of a player are shown in the order of time, and older pages come before', async () => {
  const { chat, daemon } = open()
  for (let index = 1; index <= 130; index += 1) daemon.store(index <= 60 ? 's1' : 's2', 'staff', `m${index}`)
  daemon.store('s1', 'staff', 'reopened')
  chat.messages()
  await pass(100)
  expect(shown(chat)).toHaveLength(100)
  expect(shown(chat).at(-1)).toBe('reopened')
  expect(chat.messages().hasOlder).toBe(true)
  const older = chat.loadOlder()
  expect(chat.messages().loadingOlder).toBe(true)
  await pass(50)
  await older
  expect(shown(chat)).toEqual([...Array.from({ length: 130 }, (_, index) => `m${index + 1}`), 'reopened'])
  expect(chat.messages().hasOlder).toBe(false)
})

test('10,000 messages while away', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'm0')
  chat.messages()
  await pass(100)
  daemon.socket.end(1006)
  for (let index = 1; index <= 10_000; index += 1) daemon.store('s1', 'staff', `m${index}`)
  await pass(5000)
  expect(shown(chat)).toEqual(Array.from({ length: 10_001 }, (_, index) => `m${index}`))
  expect(chat.messages().state).toBe('complete')
})

test('a session of staff', async () => {
  const page = open({ getToken: () => SAM })
  const { chat, daemon } = page
  daemon.store('s1', 'player', 'one')
  daemon.store('s2', 'player', 'elsewhere')
  chat.messages('s1')
  await pass(100)
  expect(shown(chat, 's1')).toEqual(['one'])
  daemon.store('s2', 'player', 'two elsewhere')
  daemon.store('s1', 'player', 'two')
  expect(shown(chat, 's1')).toEqual(['one', 'two'])
  chat.staff.reply('s1', 'answer')
  expect(unsent(chat, 's1')).toEqual(['answer'])
  expect(unsent(chat, 's2')).toEqual([])
  await pass(100)
  expect(shown(chat, 's1')).toEqual(['one', 'two', 'answer'])
  expect(unsent(chat, 's1')).toEqual([])
})

test('a snapshot is the same object until something in it changes', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  daemon.store('s1', 'player', 'one')
  daemon.store('s2', 'player', 'one')
  chat.messages('s1')
  chat.messages('s2')
  chat.staff.queue()
  await pass(200)
  const before = { first: chat.messages('s1'), second: chat.messages('s2'), status: chat.status(), staff: chat.staffOnline(), typing: chat.typing('s1') }
  daemon.store('s2', 'player', 'two')
  expect(chat.messages('s1')).toBe(before.first)
  expect(chat.status()).toBe(before.status)
  expect(chat.staffOnline()).toBe(before.staff)
  expect(chat.typing('s1')).toBe(before.typing)
  expect(chat.messages('s2')).not.toBe(before.second)
  expect(before.second.messages).toHaveLength(1)
})

test('an unknown session fails, and is not asked for again and again', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  chat.messages('nowhere')
  await pass(60_000)
  expect(chat.messages('nowhere')).toMatchObject({ state: 'failed', error: { code: 'session_unknown' } })
  expect(daemon.calls.filter(({ line }) => line.endsWith('nowhere'))).toHaveLength(1)
})
