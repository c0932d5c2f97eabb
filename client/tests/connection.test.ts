import { expect, test, vi } from 'vitest'

import { ASHA, open, pass, shown } from './support/page.js'

test.each([1001, 1006, 1011, 1012, 1013, 4408])('after close code %i it comes back with since', async (code) => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.socket.end(code)
  expect(chat.status().connection).toBe('reconnecting')
  expect(daemon.sockets).toHaveLength(1)
  await pass(3000)
  expect(daemon.sockets).toHaveLength(2)
  expect(chat.status().connection).toBe('live')
  expect(daemon.socket.sent[0]).toMatchObject({ type: 'authenticate', since: { s1: 1 } })
})

test.each([
  [1009, 'defect'],
  [4400, 'defect'],
  [4403, 'chat_disabled'],
])('close code %i stops the chat: %s', async (code, reason) => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.socket.end(code)
  expect(chat.status()).toMatchObject({ connection: 'stopped', reason })
  await pass(600_000)
  expect(daemon.sockets).toHaveLength(1)
  chat.connect()
  await pass(100)
  expect(chat.status()).toMatchObject({ connection: 'live' })
  expect(chat.status().reason).toBeUndefined()
})

test('close code 4401: a renewed token is asked for', async () => {
  const page = open()
  const { chat, daemon, asked } = page
  await pass(100)
  asked.length = 0
  daemon.socket.end(4401)
  await pass(100)
  expect(asked[0]).toBe(true)
  expect(chat.status().connection).toBe('live')
})

test('a token that is refused again and again stops the chat after a few tries that take longer and longer', async () => {
  const page = open()
  page.daemon.persons.clear()
  const times: number[] = []
  page.chat.subscribe(() => {
    if (times.length < page.daemon.sockets.length) times.push(Date.now())
  })
  await pass(60_000)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'token_rejected' })
  expect(page.daemon.sockets.length).toBe(6)
  expect(times.at(-1)! - times.at(-2)!).toBeGreaterThan(2000)
})

test('close code 4429 waits for the time that the error names, or for half a minute, also when the page is looked at', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.socket.hear({ type: 'error', code: 'too_fast', error: 'too many frames', retryAfter: 7 })
  daemon.socket.end(4429)
  chat.send('wakes the connection')
  await pass(6900)
  expect(daemon.sockets).toHaveLength(1)
  await pass(200)
  expect(daemon.sockets).toHaveLength(2)
  daemon.socket.end(4429)
  await pass(20_000)
  expect(daemon.sockets).toHaveLength(2)
  await pass(10_000)
  expect(daemon.sockets).toHaveLength(3)
})

test('the pauses between tries grow to some seconds, and no further', async () => {
  const { daemon } = open()
  daemon.upgrades = 'refuse'
  daemon.rest = 'fails'
  await pass(120_000)
  const early = daemon.sockets.length
  expect(early).toBeGreaterThan(8)
  expect(early).toBeLessThan(20)
  daemon.upgrades = 'work'
  await pass(15_000)
  expect(daemon.live).toHaveLength(1)
})

test('nobody is signed in', async () => {
  const page = open({ getToken: () => null })
  await pass(100)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'signed_out' })
  expect(page.daemon.sockets).toHaveLength(0)
})

test('a page that cannot get a token tries again', async () => {
  let fails = true
  const { chat } = open({
    getToken: () => {
      if (fails) throw new Error('no network')
      return ASHA
    },
  })
  await pass(1000)
  expect(chat.status().connection).toBe('reconnecting')
  fails = false
  await pass(30_000)
  expect(chat.status().connection).toBe('live')
})

test('a slow token does not use up the time in which the server wants it', async () => {
  const { chat, daemon } = open({ getToken: () => new Promise((resolve) => setTimeout(() => resolve(null), 15_000)) })
  await pass(14_000)
  expect(daemon.sockets).toHaveLength(0)
  expect(chat.status().connection).toBe('connecting')
})

test('an expired token is renewed on the same connection', async () => {
  const page = open()
  const { daemon, asked } = page
  page.chat.messages()
  await pass(100)
  asked.length = 0
  page.token = `${ASHA} renewed`
  daemon.persons.set(page.token, daemon.persons.get(ASHA)!)
  const calls = daemon.calls.length
  daemon.socket.hear({ type: 'error', code: 'token_expired', error: 'the token has expired' })
  await pass(100)
  expect(asked).toEqual([true])
  expect(daemon.sockets).toHaveLength(1)
  expect(daemon.socket.sent.filter(({ type }) => type === 'authenticate')).toHaveLength(2)
  expect(daemon.calls).toHaveLength(calls) // nothing is read anew
  expect(page.chat.status().connection).toBe('live')
})

test('an expired token that is not renewed is not sent again on the same connection', async () => {
  const { chat, daemon } = open({ getToken: () => ASHA })
  await pass(100)
  const sent = daemon.socket.sent.length
  daemon.socket.hear({ type: 'error', code: 'token_expired', error: 'the token has expired' })
  await pass(1000)
  expect(daemon.socket.sent).toHaveLength(sent)
  daemon.socket.end(4401) // the server has waited for another one
  await pass(1000)
  expect(daemon.sockets).toHaveLength(2)
  expect(chat.status().connection).toBe('live')
})

test('a connection that is dead without a close is replaced', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.lose = () => true
  await pass(25_000)
  expect(daemon.sockets).toHaveLength(1)
  daemon.lose = () => false
  await pass(10_000)
  expect(daemon.sockets).toHaveLength(2)
  expect(chat.status().connection).toBe('live')
})

test('after an hour of sleep the connection is found dead within seconds, and what was missed is shown', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(5000)
  const { socket } = daemon
  socket.hear = () => {} // the network has forgotten it
  vi.setSystemTime(Date.now() + 3_600_000)
  daemon.store('s1', 'staff', 'two')
  // What is left of the time to the next sign of life, and the time for its answer.
  await pass(31_000)
  expect(daemon.sockets).toHaveLength(2)
  expect(chat.status().connection).toBe('live')
  expect(shown(chat)).toEqual(['one', 'two'])
})

test('a page that is looked at again asks for a sign of life at once', async () => {
  const page = new EventTarget()
  vi.stubGlobal('addEventListener', page.addEventListener.bind(page))
  const { chat, daemon } = open()
  await pass(1000)
  const { socket } = daemon
  socket.hear = () => {}
  page.dispatchEvent(new Event('visibilitychange'))
  await pass(4900)
  expect(daemon.sockets).toHaveLength(1)
  await pass(1000)
  expect(daemon.sockets).toHaveLength(2)
  expect(chat.status().connection).toBe('live')
  chat.close()
  page.dispatchEvent(new Event('online'))
  await pass(60_000)
  expect(daemon.sockets).toHaveLength(2)
})

test('without a network the state says so, and the connection comes back with it', async () => {
  const page = new EventTarget()
  vi.stubGlobal('addEventListener', page.addEventListener.bind(page))
  const { chat, daemon } = open()
  await pass(100)
  vi.stubGlobal('navigator', { onLine: false })
  daemon.upgrades = 'refuse'
  daemon.rest = 'fails'
  page.dispatchEvent(new Event('offline'))
  daemon.socket.end(1006)
  expect(chat.status().connection).toBe('offline')
  await pass(60_000)
  expect(chat.status().connection).toBe('offline')
  vi.stubGlobal('navigator', { onLine: true })
  daemon.upgrades = 'work'
  daemon.rest = 'works'
  page.dispatchEvent(new Event('online'))
  await pass(50)
  expect(chat.status().connection).toBe('live')
})

test('without listeners the connection is closed after 5 s, and not before', async () => {
  const { chat, daemon, leave } = open()
  await pass(100)
  leave()
  await pass(4000)
  const again = chat.subscribe(() => {})
  await pass(10_000)
  expect(chat.status().connection).toBe('live')
  again()
  await pass(5100)
  expect(chat.status().connection).toBe('idle')
  expect(daemon.sockets).toHaveLength(1)
  chat.subscribe(() => {})
  await pass(100)
  expect(chat.status().connection).toBe('live')
  expect(daemon.sockets).toHaveLength(2)
})

test('close ends everything', async () => {
  const { chat, daemon } = open()
  await pass(100)
  chat.close()
  expect(chat.status()).toMatchObject({ connection: 'stopped', reason: 'closed' })
  chat.connect()
  chat.subscribe(() => {})
  await pass(600_000)
  expect(daemon.sockets).toHaveLength(1)
  expect(vi.getTimerCount()).toBe(0)
})

test.each(['refuse', 'hang'] as const)('upgrades that a proxy does not pass (%s): REST is asked, until a socket can be had', async (upgrades) => {
  const { chat, daemon } = open()
  daemon.upgrades = upgrades
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(12_000)
  expect(chat.status().connection).toBe('polling')
  expect(shown(chat)).toEqual(['one'])
  daemon.store('s1', 'staff', 'two')
  await pass(8000)
  expect(shown(chat)).toEqual(['one', 'two'])
  expect(chat.unread()).toBe(2)
  chat.send('three')
  await pass(1000)
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
  chat.markRead()
  await pass(100)
  expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 3 }])
  daemon.upgrades = 'work'
  await pass(50_000)
  expect(chat.status().connection).toBe('live')
  daemon.store('s1', 'staff', 'four')
  expect(shown(chat)).toEqual(['one', 'two', 'three', 'four'])
  const calls = daemon.calls.length
  await pass(60_000)
  expect(daemon.calls).toHaveLength(calls)
})

test('no more than 500 sessions are named in since', async () => {
  const { chat, daemon } = open()
  for (let index = 0; index < 600; index += 1) daemon.store(`s${index}`, 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.socket.end(1006)
  await pass(3000)
  const { since } = daemon.socket.sent[0] as unknown as { since: Record<string, number> }
  expect(Object.keys(since)).toHaveLength(500)
  expect(since).toHaveProperty('s599')
})
