import { expect, test } from 'vitest'

import { ASHA, BINA, open, pass, shown } from './support/page.js'

test('a conversation that cannot be read at first is read later, and says so', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  daemon.rest = 'fails'
  chat.messages()
  await pass(500)
  expect(chat.messages()).toMatchObject({ state: 'failed', error: { code: 'unreachable' } })
  daemon.rest = 'works'
  await pass(5000)
  expect(chat.messages()).toMatchObject({ state: 'complete', error: undefined })
  expect(shown(chat)).toEqual(['one'])
})

test('a call of REST that is refused for its token is made again with a renewed one', async () => {
  const page = open({ getToken: (refused) => (refused ? page.token : `${page.token} old`) })
  const { daemon } = page
  page.chat.messages()
  await pass(5000)
  daemon.calls.length = 0
  page.chat.send('one')
  await pass(200)
  expect(shown(page.chat)).toEqual(['one'])
  expect(daemon.calls.filter(({ line }) => line.endsWith('/send')).map(({ token }) => token)).toEqual([`${ASHA} old`, ASHA])
})

test('the server’s Retry-After is kept', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.refusal = { status: 429, code: 'too_fast', retryAfter: 20 }
  chat.send('one')
  await pass(100)
  daemon.refusal = undefined
  await pass(19_000)
  expect(shown(chat)).toEqual([])
  await pass(2000)
  expect(shown(chat)).toEqual(['one'])
})

test('files beyond the day’s number fail at once', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.refusal = { status: 429, code: 'file_quota' }
  const upload = chat.upload(new File(['1'], 'a.txt'))
  await pass(500)
  expect(upload).toMatchObject({ state: 'failed', error: { code: 'file_quota' } })
})

test('another person’s token ends what is shown of the first, before the server has answered', async () => {
  const page = open()
  page.daemon.store('s1', 'staff', 'to Asha')
  page.chat.messages()
  await pass(100)
  page.token = BINA
  page.daemon.upgrades = 'hang'
  page.daemon.socket.end(1006)
  await pass(2000)
  expect(shown(page.chat)).toEqual([])
  expect(page.chat.status().me).toBeUndefined()
})

test('a call without an answer ends, and the text is sent again', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(5000)
  daemon.rest = 'hangs'
  chat.send('one')
  await pass(19_000)
  expect(chat.messages().unsent).toMatchObject([{ text: 'one', state: 'sending' }])
  daemon.rest = 'works'
  await pass(3000)
  expect(shown(chat)).toEqual(['one'])
})

test('after a sleep, what waits on dead connections is made again as soon as the page is live', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(5000)
  const before = daemon.socket
  daemon.lose = () => daemon.socket === before
  daemon.rest = 'hangs'
  for (const text of ['one', 'two', 'three']) {
    chat.send(text)
    await pass(1000)
  }
  expect(daemon.sockets).toHaveLength(1)
  daemon.rest = 'works'
  await pass(3000)
  expect(daemon.sockets).toHaveLength(2)
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
  expect(chat.messages().unsent).toEqual([])
})

test('after a lost connection, reads and read marks that wait on dead connections are made again, too', async () => {
  const { chat, daemon } = open()
  for (let n = 0; n < 150; n += 1) daemon.store('s1', 'staff', `${n}`)
  chat.messages()
  await pass(5000)
  daemon.rest = 'hangs'
  void chat.loadOlder()
  chat.markRead()
  const rated = chat.rate('s1', 5) // what changes something is made again by the page only
  const refused = expect(rated).rejects.toMatchObject({ code: 'unreachable', transient: true })
  await pass(1000)
  daemon.rest = 'works'
  daemon.calls.length = 0
  daemon.socket.end(1006)
  await pass(1000)
  expect(chat.status().connection).toBe('live')
  await refused
  expect(chat.messages()).toMatchObject({ loadingOlder: false, error: undefined })
  expect(shown(chat)).toHaveLength(150)
  expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 150 }])
  expect(daemon.calls.filter(({ line }) => line.endsWith('/rate'))).toEqual([])
})

test('what waits for one person on a dead connection is not asked again when the next one comes', async () => {
  const page = open()
  const { chat, daemon } = page
  for (const [token, playerId] of [['a', 29], ['b', 30]] as const) daemon.persons.set(token, { role: 'player', playerId })
  page.token = 'a' // it names nobody: the server says with the connection whose it is
  daemon.rest = 'hangs'
  chat.messages()
  await pass(1000)
  expect(daemon.calls.map(({ line }) => line).sort()).toEqual(['GET /api/gre-chat/me', 'GET /api/gre-chat/messages/29'])
  daemon.rest = 'works'
  daemon.calls.length = 0
  page.token = 'b'
  daemon.socket.end(1006)
  await pass(5000)
  expect(chat.status().me?.playerId).toBe(30)
  expect(daemon.calls.map(({ line, token }) => [line, token])).toEqual([['GET /api/gre-chat/me', 'b']])
})

test('a call that is made before the first connection, or while another is awaited, is not ended by it', async () => {
  const { chat, daemon } = open()
  daemon.delay = 3000
  const early = chat.url('a')
  await pass(6000)
  daemon.socket.end(1006)
  const meanwhile = chat.url('b')
  await pass(2000)
  expect(chat.status().connection).toBe('live')
  await pass(2000)
  expect(await early).toContain('/a/')
  expect(await meanwhile).toContain('/b/')
})

test('a chat that is closed calls nothing more', async () => {
  const page = open()
  const { chat, daemon } = page
  await pass(5000)
  const waits = expect(chat.url('a')).rejects.toMatchObject({ code: 'unreachable' })
  chat.close()
  await waits
  daemon.calls.length = 0
  await expect(chat.url('b')).rejects.toMatchObject({ code: 'unreachable' })
  page.leave()
  await pass(20_000)
  chat.subscribe(() => {})
  chat.connect()
  await pass(20_000)
  expect(daemon.calls).toEqual([])
  expect(daemon.sockets).toHaveLength(1)
  expect(chat.status()).toMatchObject({ connection: 'stopped', reason: 'closed' })
})
