/** What a page, a proxy or a server does that none should do: nothing is lost, shown to others, or tried again without end. */

import { expect, test, vi } from 'vitest'

import { ASHA, BINA, open, pass, SAM, shown, tokenOf, unsent } from './support/page.js'

/** Answer the next calls whose line ends like this with what a proxy says. */
function proxy(line: string, answer: () => Response | Promise<Response>): () => void {
  const { fetch } = globalThis
  globalThis.fetch = async (url, init) => (`${init!.method} ${new URL(String(url)).pathname}`.includes(line) ? answer() : fetch(url, init))
  return () => void (globalThis.fetch = fetch)
}

test.each([
  ['without a body', ''],
  ['null', 'null'],
  ['a page', '<html>Bad gateway</html>'],
  ['another JSON', '{"message":"no upstream"}'],
])('a proxy that answers 502 (%s): the text is tried again', async (_, body) => {
  const { chat } = open()
  chat.messages()
  await pass(100)
  const works = proxy('/send', () => new Response(body, { status: 502 }))
  chat.send('one')
  await pass(100)
  expect(chat.messages().unsent).toMatchObject([{ state: 'waiting' }])
  expect(chat.messages().unsent[0]!.error!.message).not.toBe('')
  works()
  await pass(5000)
  expect(shown(chat)).toEqual(['one'])
})

test('a proxy that refuses a text with a page of its own: the text is refused, and does not hold up the next', async () => {
  const { chat } = open()
  chat.messages()
  await pass(100)
  const works = proxy('/send', () => new Response('<html>Forbidden</html>', { status: 403 }))
  const { id } = chat.send("'; drop table")
  await pass(100)
  expect(chat.messages().unsent).toMatchObject([{ id, state: 'refused', error: { status: 403, transient: false } }])
  works()
  chat.send('two')
  await pass(100)
  expect(shown(chat)).toEqual(['two'])
})

test.each([1011, 4401])('a server that takes each connection and ends it at once (%i) is asked more and more rarely', async (code) => {
  const { daemon } = open()
  const watch = setInterval(() => daemon.live.forEach((socket) => socket.end(code)), 10)
  await pass(120_000)
  clearInterval(watch)
  expect(daemon.sockets.length).toBeLessThan(40)
})

test('a slow answer for one person that comes when another is signed in is not shown', async () => {
  const page = open()
  page.daemon.store('s1', 'staff', 'to Asha')
  page.chat.messages()
  await pass(100)
  const { fetch } = globalThis
  globalThis.fetch = async (url, init) => {
    const answer = await fetch(url, init)
    if (String(url).endsWith('/send')) await new Promise((later) => setTimeout(later, 5000))
    init!.signal!.throwIfAborted()
    return answer
  }
  page.chat.subscribe(() => void page.chat.messages())
  page.chat.send('of Asha')
  await pass(50)
  page.token = BINA
  page.daemon.socket.end(4401)
  await pass(10_000)
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
  expect(shown(page.chat)).toEqual([])
})

test('a page whose onFrame fails still has its chat', async () => {
  const failures: unknown[] = []
  const note = (error: unknown): void => void failures.push(error)
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((act) => void Promise.resolve().then(act).catch(note))
  const { chat, daemon } = open({
    onFrame() {
      throw new Error('no sound')
    },
  })
  chat.messages()
  await pass(100)
  expect(chat.status().connection).toBe('live')
  daemon.store('s1', 'staff', 'one')
  expect(shown(chat)).toEqual(['one'])
})

test('what is written after a person has signed out is not that person’s', async () => {
  const page = open()
  page.chat.messages()
  await pass(100)
  page.token = null
  page.daemon.socket.end(4401)
  await pass(1000)
  expect(page.chat.status()).toMatchObject({ connection: 'stopped', reason: 'signed_out' })
  const { id } = page.chat.send('whose?')
  await pass(100)
  page.token = ASHA
  page.chat.connect()
  await pass(1000)
  expect(page.chat.status().connection).toBe('live')
  expect(shown(page.chat)).toEqual([])
  expect(page.chat.messages().unsent).toMatchObject([{ id, state: 'refused', error: { code: 'signed_out' } }])
  page.chat.retry(id)
  await pass(100)
  expect(shown(page.chat)).toEqual(['whose?'])
})

test('a new session with more messages than a replay brings has no hole at its beginning', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'old')
  chat.messages()
  await pass(100)
  daemon.socket.end(1006)
  daemon.sessions.get('s1')!.status = 'closed'
  daemon.loseMessage = ({ session_id, seq }) => session_id === 's2' && seq <= 130
  for (let index = 1; index <= 330; index += 1) daemon.store('s2', 'staff', `m${index}`)
  await pass(6000)
  expect(shown(chat)).toEqual(['old', ...Array.from({ length: 330 }, (_, index) => `m${index + 1}`)])
})

test('members of staff who have seen many sessions do not read all of them after each reconnection', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  for (let index = 0; index < 100; index += 1) daemon.store(`s${index}`, 'player', 'one')
  await pass(100)
  for (let index = 0; index < 100; index += 1) {
    chat.messages(`s${index}`)
    chat.staff.notes(`s${index}`)
  }
  await pass(200)
  daemon.calls.length = 0
  chat.subscribe(() => {
    chat.messages('s99')
    chat.staff.notes('s99')
  })
  daemon.socket.end(1006)
  await pass(10_000)
  expect(chat.status().connection).toBe('live')
  expect(daemon.calls.length).toBeLessThan(30)
})

test('two tabs: what the second takes back, the first does not send', async () => {
  const page = open()
  page.daemon.upgrades = 'hang'
  page.daemon.rest = 'fails'
  await pass(100)
  const { id } = page.chat.send('taken back')
  const second = open({ storage: page.storage })
  second.daemon.upgrades = 'hang'
  second.daemon.rest = 'fails'
  second.chat.messages()
  await pass(100)
  expect(second.chat.discard(id)?.text).toBe('taken back')
  second.chat.close()
  second.daemon.upgrades = 'work'
  second.daemon.rest = 'works'
  page.chat.messages()
  await pass(60_000)
  expect(unsent(page.chat)).toEqual([])
  expect(shown(page.chat)).toEqual([])
})

test('players whose ids differ in the last of many digits are not taken for each other', async () => {
  const token = (id: string): string => tokenOf({}).replace(/\..*\./, `.${btoa(`{"app_metadata":{"player_id":${id}}}`)}.`)
  const [one, two] = [token('9007199254740993'), token('9007199254740992')]
  const page = open({ getToken: () => page.token })
  page.daemon.persons.set(one, { role: 'player', playerId: '9007199254740993' }).set(two, { role: 'player', playerId: '9007199254740992' })
  page.token = one
  page.reload()
  page.chat.messages()
  await pass(100)
  page.daemon.upgrades = 'refuse'
  page.daemon.rest = 'fails'
  page.daemon.socket.end(1006)
  page.chat.send('of the first')
  await pass(100)
  page.token = two
  page.daemon.upgrades = 'work'
  page.daemon.rest = 'works'
  await pass(20_000)
  expect(page.daemon.calls.filter(({ line, token: used }) => line.endsWith('send') && used === two)).toEqual([])
  expect(unsent(page.chat)).toEqual([])
})

test('a wait that the server names is kept, however long', async () => {
  const { chat } = open()
  chat.messages()
  await pass(100)
  let calls = 0
  proxy('/send', () => (calls += 1, new Response('{"code":"too_fast","error":"wait"}', { status: 429, headers: { 'Retry-After': '9999999' } })))
  chat.send('one')
  await pass(60_000)
  expect(calls).toBe(1)
})

test('a read mark that the server cannot take is sent again on the same connection', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.rest = 'unavailable'
  chat.markRead()
  await pass(60_000)
  expect(daemon.marks).toEqual([])
  expect(daemon.calls.filter(({ line }) => line.includes('/read/')).length).toBeLessThan(6)
  daemon.rest = 'works'
  await pass(60_000)
  expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 1 }])
})

test('the clock jumps back: the order of writing stays', async () => {
  const page = open()
  page.daemon.upgrades = 'hang'
  page.daemon.rest = 'fails'
  await pass(100)
  page.chat.send('one')
  vi.setSystemTime(Date.now() - 3_600_000)
  page.reload()
  await pass(100)
  page.chat.send('two')
  page.reload()
  page.chat.messages()
  await pass(100)
  expect(unsent(page.chat)).toEqual(['one', 'two'])
})
