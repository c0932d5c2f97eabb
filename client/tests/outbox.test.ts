import { expect, test } from 'vitest'

import type { Daemon } from './support/daemon.js'
import { ASHA, BINA, open, pass, SAM, shown, unsent } from './support/page.js'

const sends = (daemon: Daemon) => daemon.calls.filter(({ line }) => line === 'POST /api/gre-chat/send').map(({ body }) => body)

test('a text is shown at once, sent with an id of its own, and stored once', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  const { id } = chat.send('hello')
  expect(unsent(chat)).toEqual(['hello'])
  await pass(50)
  expect(unsent(chat)).toEqual([])
  expect(chat.messages().messages).toMatchObject([{ id, seq: 1, message: 'hello', sender: 'player', sender_name: 'Asha' }])
  expect(sends(daemon)).toMatchObject([{ id, message: 'hello', playerId: 29, sender: 'player' }])
})

test('texts of one session are sent one after the other', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  chat.send('one')
  chat.send('two')
  chat.send('three')
  await pass(2)
  expect(sends(daemon)).toHaveLength(1)
  await pass(100)
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
})

test('a lost answer stores nothing twice, and loses nothing', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.loseAnswers = true
  daemon.loseMessage = () => true
  chat.send('one')
  chat.send('two')
  await pass(30)
  expect(daemon.sessions.get('s1')!.messages).toHaveLength(1)
  expect(chat.messages().unsent).toMatchObject([{ text: 'one', state: 'waiting', error: { code: 'unreachable' } }, { text: 'two', state: 'waiting' }])
  daemon.loseAnswers = false
  daemon.loseMessage = () => false
  await pass(5000)
  expect(daemon.sessions.get('s1')!.messages.map(({ message }) => message)).toEqual(['one', 'two'])
  expect(shown(chat)).toEqual(['one', 'two'])
  expect(unsent(chat)).toEqual([])
})

test('a text whose answer is lost is stored for the page as soon as it comes from the socket', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.loseAnswers = true
  chat.send('one')
  await pass(30)
  expect(shown(chat)).toEqual(['one'])
  expect(unsent(chat)).toEqual([])
  await pass(60_000)
  expect(sends(daemon)).toHaveLength(1)
})

test('an answer that comes before an earlier message: the text stays visible', async () => {
  const { chat, daemon } = open()
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  await pass(100)
  daemon.loseMessage = ({ message }) => message === 'two'
  daemon.store('s1', 'staff', 'two')
  chat.send('mine')
  await pass(50)
  expect(chat.messages().state).toBe('healing')
  expect(shown(chat)).toEqual(['one'])
  expect(unsent(chat)).toEqual(['mine'])
  await pass(2000)
  expect(shown(chat)).toEqual(['one', 'two', 'mine'])
  expect(unsent(chat)).toEqual([])
})

test('a refused text waits for the person, and does not hold up the next', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  daemon.store('s1', 'player', 'question')
  chat.messages('s1')
  await pass(100)
  const { id } = chat.staff.reply('s1', '')
  chat.staff.reply('s1', 'two')
  await pass(100)
  expect(chat.messages('s1').unsent).toMatchObject([{ id, state: 'refused', error: { code: 'message_empty' } }])
  expect(shown(chat, 's1')).toEqual(['question', 'two'])
  expect(chat.discard(id)?.id).toBe(id)
  expect(unsent(chat, 's1')).toEqual([])
})

test('a passing failure is tried again, after the time that the server names', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  daemon.store('s1', 'player', 'question')
  chat.messages('s1')
  await pass(100)
  daemon.rest = 'unavailable'
  chat.staff.reply('s1', 'one')
  await pass(5000)
  expect(chat.messages('s1').unsent).toMatchObject([{ state: 'waiting', error: { code: 'unavailable' } }])
  const tries = daemon.calls.filter(({ line }) => line.endsWith('reply')).length
  expect(tries).toBeGreaterThan(2)
  expect(tries).toBeLessThan(7)
  daemon.rest = 'works'
  await pass(2000)
  expect(shown(chat, 's1')).toEqual(['question', 'one'])
})

test('a refused text is sent again when the person wants it', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.refusal = { status: 403, code: 'chat_disabled' }
  const { id } = chat.send('one')
  await pass(100)
  expect(chat.messages().unsent).toMatchObject([{ id, state: 'refused', error: { code: 'chat_disabled', status: 403 } }])
  daemon.refusal = undefined
  await pass(60_000)
  expect(shown(chat)).toEqual([])
  chat.retry(id)
  await pass(100)
  expect(shown(chat)).toEqual(['one'])
})

test('while a text is tried again, its last failure is known', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.rest = 'unavailable'
  chat.send('one')
  await pass(100)
  expect(chat.messages().unsent).toMatchObject([{ state: 'waiting', failures: 1, error: { code: 'unavailable' } }])
  daemon.rest = 'hangs'
  await pass(1000)
  expect(chat.messages().unsent).toMatchObject([{ state: 'sending', failures: 1, error: { code: 'unavailable' } }])
})

test('a text that waits for its next try can be taken back: the next one is sent at once', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.rest = 'unavailable'
  const { id } = chat.send('one')
  chat.send('two')
  await pass(20_000)
  daemon.rest = 'works'
  expect(chat.discard(id)?.text).toBe('one')
  await pass(50)
  expect(shown(chat)).toEqual(['two'])
})

test('a text that waits for its next try is sent at once when the person wants it', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  daemon.rest = 'unavailable'
  const { id } = chat.send('one')
  await pass(20_000)
  expect(chat.messages().unsent).toMatchObject([{ id, state: 'waiting' }])
  const tries = sends(daemon).length
  daemon.rest = 'works'
  chat.retry(id)
  expect(chat.messages().unsent).toMatchObject([{ id, state: 'sending', failures: 0, error: undefined }])
  await pass(50)
  expect(sends(daemon)).toHaveLength(tries + 1)
  expect(shown(chat)).toEqual(['one'])
})

test('what the page has kept with a text is there after a reload, and is not sent', async () => {
  const page = open()
  page.chat.messages()
  await pass(100)
  page.daemon.refusal = { status: 403, code: 'chat_disabled' }
  page.chat.send('one', { data: { to: 'Asha' } })
  await pass(100)
  expect(sends(page.daemon)[0]).not.toHaveProperty('data')
  page.reload()
  page.chat.messages()
  await pass(100)
  expect(page.chat.messages().unsent).toMatchObject([{ text: 'one', state: 'refused', data: { to: 'Asha' } }])
})

test('a reload keeps unsent texts and their order; they are sent once', async () => {
  const page = open()
  page.daemon.upgrades = 'hang'
  page.daemon.rest = 'fails'
  page.chat.messages()
  page.chat.send('one')
  page.chat.send('two')
  await pass(100)
  page.reload()
  page.chat.messages()
  await pass(100)
  expect(unsent(page.chat)).toEqual(['one', 'two']) // before the server has said who it is
  page.daemon.upgrades = 'work'
  page.daemon.rest = 'works'
  await pass(60_000)
  expect(shown(page.chat)).toEqual(['one', 'two'])
  expect(page.storage.length).toBe(0)
})

test('a refused text is refused after a reload, too', async () => {
  const page = open({ getToken: () => SAM })
  page.daemon.store('s1', 'player', 'question')
  await pass(100)
  page.chat.staff.reply('s1', '')
  await pass(100)
  page.reload()
  page.chat.messages('s1')
  await pass(100)
  expect(page.chat.messages('s1').unsent).toMatchObject([{ state: 'refused', error: { code: 'message_empty' } }])
})

test('texts are never sent as somebody else, and wait for their author', async () => {
  const page = open()
  page.chat.messages()
  await pass(100)
  page.daemon.upgrades = 'refuse'
  page.daemon.rest = 'fails'
  page.daemon.socket.end(1006)
  page.chat.send('of Asha')
  await pass(100)
  page.token = BINA
  page.daemon.upgrades = 'work'
  page.daemon.rest = 'works'
  await pass(20_000)
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
  expect(unsent(page.chat)).toEqual([])
  page.chat.send('of Bina')
  await pass(100)
  expect([...page.daemon.sessions.values()].flatMap(({ messages }) => messages)).toMatchObject([{ message: 'of Bina', player_id: 30 }])
  page.token = ASHA
  page.reload()
  page.chat.messages()
  await pass(1000)
  expect(shown(page.chat)).toEqual(['of Asha'])
})

test('a call of REST with another person’s token sends nothing of the first, and the chat becomes the other’s', async () => {
  const page = open({ name: 'Asha' })
  page.daemon.displayName = null // names go by REST only
  page.daemon.store('s1', 'staff', 'to Asha')
  page.chat.messages()
  await pass(100)
  page.token = BINA
  page.chat.send('of Asha')
  await pass(1000)
  expect(page.daemon.calls.filter(({ line, token }) => line.endsWith('send') && token === BINA)).toEqual([])
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
  expect(shown(page.chat)).toEqual([])
  expect(page.chat.sessions()).toEqual([])
  page.token = ASHA
  page.reload()
  page.chat.messages()
  await pass(1000)
  expect(shown(page.chat)).toEqual(['to Asha', 'of Asha'])
})

test('opaque tokens: the server is asked who it is before something is sent by REST', async () => {
  const page = open({ name: 'Asha' })
  page.daemon.displayName = null
  page.daemon.persons.set('opaque-1', { role: 'player', playerId: 29 }).set('opaque-2', { role: 'player', playerId: 29 }).set('opaque-3', { role: 'player', playerId: 30 })
  page.token = 'opaque-1'
  page.reload()
  page.chat.messages()
  await pass(100)
  page.token = 'opaque-2'
  page.chat.send('one')
  await pass(1000)
  expect(shown(page.chat)).toEqual(['one'])
  page.token = 'opaque-3'
  page.chat.send('two')
  await pass(1000)
  expect(page.daemon.calls.filter(({ line, token }) => line.endsWith('send') && token === 'opaque-3')).toEqual([])
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
})

test('what was written while nobody is signed in is sent only if somebody says so', async () => {
  const page = open({ getToken: () => page.token })
  page.token = null
  page.reload()
  page.chat.messages()
  await pass(100)
  const { id } = page.chat.send('whose?')
  page.token = BINA
  page.chat.connect()
  await pass(1000)
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
  expect(page.chat.messages().unsent).toMatchObject([{ id, state: 'refused', error: { code: 'signed_out' } }])
  page.chat.retry(id)
  await pass(100)
  expect(shown(page.chat)).toEqual(['whose?'])
})

test('two tabs: what one takes back, the other does not send; what one has, the other does not lose', async () => {
  const page = open()
  page.daemon.upgrades = 'hang'
  page.daemon.rest = 'fails'
  await pass(100)
  const one = page.chat.send('taken back')
  page.chat.send('kept')
  const first = page.chat
  const second = open({ storage: page.storage })
  second.daemon.upgrades = 'hang'
  second.daemon.rest = 'fails'
  second.chat.messages()
  await pass(100)
  second.chat.send('of the second')
  expect(unsent(second.chat)).toEqual(['taken back', 'kept', 'of the second'])
  first.discard(one.id)
  first.close()
  second.daemon.upgrades = 'work'
  second.daemon.rest = 'works'
  await pass(60_000)
  expect(shown(second.chat)).toEqual(['kept', 'of the second'])
  expect(unsent(second.chat)).toEqual([])
})

test('a storage that refuses: texts are sent all the same', async () => {
  const { chat } = open({
    storage: {
      length: 0,
      key: () => null,
      getItem: () => null,
      setItem() {
        throw new Error('full')
      },
      removeItem() {
        throw new Error('forbidden')
      },
    },
  })
  chat.messages()
  await pass(100)
  chat.send('one')
  await pass(100)
  expect(shown(chat)).toEqual(['one'])
})

test('what was changed in storage to something that has no time does not keep new texts from being sent', async () => {
  const page = open()
  page.daemon.rest = 'fails'
  page.chat.messages()
  await pass(100)
  page.chat.send('kept')
  const name = page.storage.key(0)!
  const { createdAt: _, ...rest } = JSON.parse(page.storage.getItem(name)!) as Record<string, unknown>
  page.reload()
  page.chat.close()
  page.storage.setItem(name, JSON.stringify(rest))
  page.daemon.rest = 'works'
  page.reload()
  page.chat.messages()
  await pass(1000)
  page.chat.send('new')
  await pass(1000)
  expect(shown(page.chat).sort()).toEqual(['kept', 'new'])
})
