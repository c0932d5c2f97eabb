import { afterEach, expect, test, vi } from 'vitest'

import { ASHA, BINA, type Page, pass, shown, tokenOf, unsent } from './support/page.js'
import { connection, openOverPusher as open } from './support/pusher.js'

afterEach(() => vi.unstubAllGlobals())

const reads = ({ daemon }: Page): number => daemon.calls.filter(({ line }) => line.startsWith('GET /api/gre-chat/messages/')).length

test.each([[0], [429], [500], [503]])('a subscription that is answered with %i is tried again, later and later', async (status) => {
  const page = open()
  page.pusher.answers = Array.from({ length: 20 }, () => status)
  await pass(60_000)
  expect(page.pusher.asked).toBeGreaterThan(4)
  expect(page.pusher.asked).toBeLessThan(10)
  expect(connection(page.chat)).toBe('polling')
  page.daemon.store('s1', 'staff', 'read meanwhile')
  page.chat.messages()
  await pass(8000)
  expect(shown(page.chat)).toEqual(['read meanwhile'])
  page.pusher.answers = []
  await pass(40_000)
  expect(connection(page.chat)).toBe('live')
})

test('a 401 asks for a renewed token, and subscribes again at once', async () => {
  const page = open()
  page.pusher.answers = [401]
  await pass(500)
  expect(page.asked).toContain(true)
  expect(page.pusher.asked).toBe(2)
  expect(connection(page.chat)).toBe('live')
})

test.each([401, 403])('a subscription that is refused with %i again and again stops the chat', async (status) => {
  const page = open()
  page.pusher.answers = Array.from({ length: 20 }, () => status)
  await pass(120_000)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'token_rejected' })
  expect(page.pusher.asked).toBe(6)
  expect(page.pusher.channels.size).toBe(0)
  page.pusher.answers = []
  page.chat.connect()
  await pass(500)
  expect(connection(page.chat)).toBe('live')
})

test('a player whose chat is disabled meanwhile: the server ends the connection, and the chat stops', async () => {
  const page = open()
  await pass(200)
  vi.spyOn(globalThis, 'fetch').mockImplementation(async () => new Response(JSON.stringify({ role: 'player', playerId: 29, staffId: null, chatEnabled: false, expiresAt: null })))
  page.pusher.drop('disconnected')
  await pass(5000)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'chat_disabled' })
  expect(page.pusher.connections).toBe(1)
})

test('a connection that the server ended, and a right that is still there: it comes back', async () => {
  const page = open()
  await pass(200)
  page.pusher.drop('disconnected')
  await pass(5000)
  expect(page.pusher.connections).toBe(2)
  expect(connection(page.chat)).toBe('live')
})

test('an authorization that is never answered ends the connection, and another one is opened', async () => {
  const page = open()
  page.pusher.answers = ['hang']
  await pass(44_000)
  expect(connection(page.chat)).toBe('polling')
  await pass(5000)
  expect(page.pusher.connections).toBe(2)
  expect(connection(page.chat)).toBe('live')
})

test.each(['failed', 'unavailable'] as const)('no connection can be had (%s): texts go and come by REST', async (state) => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.pusher.reachable = false
  page.pusher.drop(state)
  await pass(10_000)
  expect(connection(page.chat)).toBe('polling')
  page.daemon.store('s1', 'staff', 'one')
  page.chat.send('two')
  await pass(10_000)
  expect(shown(page.chat)).toEqual(['one', 'two'])
  expect(unsent(page.chat)).toEqual([])
})

test('the server answers nothing: it says so, keeps what is written, and sends it at last', async () => {
  const page = open()
  page.daemon.rest = 'fails'
  page.chat.messages()
  page.chat.send('kept')
  await pass(60_000)
  expect(connection(page.chat)).toBe('reconnecting')
  expect(unsent(page.chat)).toEqual(['kept'])
  expect(page.daemon.calls.length).toBeLessThan(40)
  page.daemon.rest = 'works'
  await pass(40_000)
  expect(connection(page.chat)).toBe('live')
  expect(shown(page.chat)).toEqual(['kept'])
})

test('a dead connection is noticed, and at once after a sleep', async () => {
  const page = open({ readEvery: 0 })
  page.chat.messages()
  await pass(200)
  page.pusher.dead = true
  page.tell(page.daemon.store('s1', 'staff', 'one').message)
  await pass(40_000)
  expect(page.pusher.pings).toBeGreaterThan(0)
  expect(page.pusher.connections).toBe(2)
  expect(shown(page.chat)).toEqual(['one'])
  page.pusher.dead = true
  page.daemon.store('s1', 'staff', 'two')
  vi.setSystemTime(Date.now() + 3_600_000)
  await pass(30_000)
  expect(page.pusher.connections).toBe(3)
  expect(shown(page.chat)).toEqual(['one', 'two'])
})

test('a live connection that is quiet is kept', async () => {
  const page = open()
  await pass(600_000)
  expect(page.pusher.connections).toBe(1)
  expect(connection(page.chat)).toBe('live')
})

test.each([
  [undefined, ['of my phone'], 25],
  [0, [], 4],
])('it reads now and then what no event announces: readEvery %s', async (readEvery, texts, most) => {
  const page = open({ readEvery })
  page.chat.messages()
  await pass(1000)
  page.daemon.store('s1', 'player', 'of my phone')
  await pass(600_000)
  expect(shown(page.chat)).toEqual(texts)
  expect(reads(page)).toBeLessThan(most)
})

test('a hidden page does not read now and then, and does when it is looked at', async () => {
  const listeners: (() => void)[] = []
  const document = { visibilityState: 'hidden' }
  vi.stubGlobal('document', document)
  vi.stubGlobal('addEventListener', (_: string, listener: () => void) => void listeners.push(listener))
  const page = open()
  page.chat.messages()
  await pass(1000)
  const before = reads(page)
  page.daemon.store('s1', 'player', 'of my phone')
  await pass(600_000)
  expect(reads(page)).toBe(before)
  document.visibilityState = 'visible'
  for (const listener of listeners) listener()
  await pass(1000)
  expect(shown(page.chat)).toEqual(['of my phone'])
})

test('a person who acts ends the waiting time of a refused subscription', async () => {
  const page = open()
  page.chat.messages()
  page.pusher.answers = [500, 500, 500, 500, 500]
  await pass(7000)
  page.pusher.answers = []
  expect(connection(page.chat)).toBe('reconnecting')
  page.chat.send('wakes it')
  await pass(100)
  expect(connection(page.chat)).toBe('live')
  expect(shown(page.chat)).toEqual(['wakes it'])
})

test('nobody is signed in: the chat stops; so it does when the person signs out later', async () => {
  const page = open()
  page.token = null
  await pass(200)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'signed_out' })
  page.token = ASHA
  page.chat.connect()
  await pass(200)
  expect(connection(page.chat)).toBe('live')
  page.token = null
  await pass(70_000)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'signed_out' })
})

test("another person's token: the channels are the other person's, and texts of the first wait", async () => {
  const page = open()
  page.chat.messages()
  await pass(200)
  page.pusher.reachable = false
  page.daemon.rest = 'fails'
  page.pusher.drop()
  page.chat.send('of Asha')
  page.token = BINA
  page.daemon.rest = 'works'
  page.pusher.reachable = true
  await pass(15_000)
  expect([...page.pusher.channels.keys()]).toEqual(['private-player-30'])
  expect(page.chat.status().me?.playerId).toBe(30)
  expect(page.daemon.sessions.size).toBe(0)
  page.token = ASHA
  await pass(80_000)
  expect(page.daemon.sessions.get('s1')?.messages.map(({ message }) => message)).toEqual(['of Asha'])
})

test('a renewed token of the same person changes no subscription', async () => {
  const page = open()
  await pass(200)
  const renewed = tokenOf({ sub: 'a', app_metadata: { gre_role: 'player', player_id: 29 }, exp: 1 })
  page.daemon.persons.set(renewed, { role: 'player', playerId: 29 })
  page.token = renewed
  await pass(70_000)
  expect(page.pusher.asked).toBe(1)
  expect(connection(page.chat)).toBe('live')
})
