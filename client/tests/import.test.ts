import { expect, test } from 'vitest'

test('nothing of a browser is used at import, and nothing is connected before somebody subscribes', async () => {
  for (const name of ['window', 'document', 'localStorage', 'location']) expect(name in globalThis && globalThis[name as 'window'] !== undefined).toBe(false)
  const { createChat } = await import('../src/index.js')
  const chat = createChat({ url: 'http://chat.test', getToken: () => null })
  expect(chat.status()).toEqual({ connection: 'idle' })
  expect(chat.messages()).toMatchObject({ messages: [], unsent: [], state: 'loading' })
  expect(chat.staff.queue()).toMatchObject({ sessions: [], state: 'loading' })
})
