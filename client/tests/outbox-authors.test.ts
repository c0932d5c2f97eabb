/** Texts that are written before anything is known of their author: not lost, and never sent as somebody else. */

import { expect, test } from 'vitest'

import type { ChatOptions } from '../src/index.js'
import type { Daemon } from './support/daemon.js'
import { ASHA, BINA, memoryStorage, open, pass, shown, unsent } from './support/page.js'

const sends = (daemon: Daemon) => daemon.calls.filter(({ line }) => line === 'POST /api/gre-chat/send')

/** A page whose `getToken` has not answered yet. */
function unknown(options: Partial<ChatOptions> = {}) {
  let tell!: (token: string | null) => void
  const token = new Promise<string | null>((resolve) => (tell = resolve))
  const page = open({ ...options, getToken: () => token })
  page.chat.messages()
  return { ...page, page, tell }
}

test('a text that is written before any token is known is sent as the first person of the same page', async () => {
  const { page, chat, tell } = unknown()
  await pass(100)
  chat.send('early')
  await pass(100)
  expect(unsent(chat)).toEqual(['early'])
  expect(page.storage.length).toBe(1)
  tell(ASHA)
  await pass(1000)
  expect(shown(chat)).toEqual(['early'])
  expect(page.storage.length).toBe(0)
})

test.each([ASHA, BINA])('a reload keeps a text that was written before any token was known, and sends it to nobody unasked', async (token) => {
  const { page, chat } = unknown()
  await pass(100)
  const { id } = chat.send('early')
  await pass(100)
  page.reload({ getToken: () => token })
  page.chat.messages()
  await pass(60_000)
  expect(page.chat.status().connection).toBe('live')
  expect(sends(page.daemon)).toEqual([])
  expect(page.chat.messages().unsent).toMatchObject([{ id, text: 'early', state: 'refused', error: { code: 'signed_out' } }])
  page.chat.send('later')
  await pass(100)
  expect(shown(page.chat)).toEqual(['later'])
  page.chat.retry(id)
  await pass(100)
  expect(shown(page.chat)).toEqual(['later', 'early'])
  expect(page.storage.length).toBe(0)
})

test('a text that was written before any token was known is offered after a reload without a token, too, and taken back', async () => {
  const { page, chat } = unknown()
  await pass(100)
  const { id } = chat.send('early')
  page.reload({ getToken: () => new Promise(() => {}) })
  page.chat.messages()
  await pass(100)
  expect(unsent(page.chat)).toEqual(['early'])
  expect(page.chat.discard(id)?.text).toBe('early')
  expect(page.storage.length).toBe(0)
})

test('what one tab takes back of a text without an author, the tab that has it does not send', async () => {
  const { page, chat, tell } = unknown()
  await pass(100)
  const { id } = chat.send('early')
  chat.send('kept')
  const second = open({ storage: page.storage, getToken: () => BINA })
  second.chat.messages()
  await pass(100)
  expect(unsent(second.chat)).toEqual(['early', 'kept'])
  second.chat.discard(id)
  second.chat.close()
  tell(ASHA)
  await pass(60_000)
  expect(unsent(chat)).toEqual([])
  expect([...page.daemon.sessions.values(), ...second.daemon.sessions.values()].flatMap(({ messages }) => messages.map(({ message }) => message))).toEqual(['kept'])
})

test('what was written while nobody is signed in survives a reload, and belongs to nobody', async () => {
  const page = open({ getToken: () => page.token })
  page.token = null
  page.reload()
  page.chat.messages()
  await pass(100)
  page.chat.send('whose?')
  page.token = BINA
  page.reload()
  page.chat.messages()
  await pass(1000)
  expect(page.chat.messages().unsent).toMatchObject([{ text: 'whose?', state: 'refused' }])
  page.token = ASHA
  page.reload()
  page.chat.messages()
  await pass(1000)
  expect(page.chat.messages().unsent).toMatchObject([{ text: 'whose?', state: 'refused' }])
  expect(sends(page.daemon)).toEqual([])
})

test('a full storage has no room for the name of an author: the text is sent all the same', async () => {
  let full = false
  const storage = memoryStorage()
  const { setItem } = storage
  storage.setItem = (name, value) => {
    if (full) throw new Error('QuotaExceededError')
    setItem(name, value)
  }
  const { page, chat, tell } = unknown({ storage })
  await pass(100)
  chat.send('as the first person')
  await pass(100)
  full = true
  tell(ASHA)
  await pass(1000)
  expect(shown(chat)).toEqual(['as the first person'])
  full = false
  page.reload({ getToken: () => new Promise(() => {}) })
  page.chat.messages()
  await pass(100)
  const { id } = page.chat.send('as who says so')
  page.reload({ getToken: () => ASHA })
  page.chat.messages()
  await pass(1000)
  full = true
  page.chat.retry(id)
  await pass(1000)
  expect(shown(page.chat)).toEqual(['as the first person', 'as who says so'])
})

test('what another tab has taken back does not come again when nobody is signed in', async () => {
  const { page, chat, tell } = unknown()
  await pass(100)
  const { id } = chat.send('early')
  const second = open({ storage: page.storage, getToken: () => ASHA })
  second.chat.messages()
  await pass(500)
  expect(second.chat.discard(id)?.text).toBe('early')
  tell(null)
  await pass(500)
  expect(unsent(chat)).toEqual([])
  expect(page.storage.length).toBe(0)
})
