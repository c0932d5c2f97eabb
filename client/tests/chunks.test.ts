/** Parts of the client that are loaded later, and cannot be: the page is older than the last deployment, or the network is away. */

import { expect, test, vi } from 'vitest'

import { open, pass, SAM, shown, tokenOf } from './support/page.js'

const KIM = tokenOf({ sub: 'k', app_metadata: { gre_role: 'staff', staff_id: 's2' } })
const cut = vi.hoisted(() => ({ more: false, staff: false }))
vi.mock('../src/more.js', async (load) => (await wrap(load, 'more')) as object)
vi.mock('../src/staff.js', async (load) => (await wrap(load, 'staff')) as object)

/** A module whose factory fails while it is cut, as an `import()` does. */
async function wrap(load: () => Promise<unknown>, name: 'more' | 'staff'): Promise<unknown> {
  const module = (await load()) as Record<string, (...given: unknown[]) => unknown>
  const make = name === 'more' ? 'createMore' : 'createStaff'
  return {
    ...module,
    [make](...given: unknown[]) {
      if (cut[name]) throw new TypeError('Failed to fetch dynamically imported module')
      return module[make]!(...given)
    },
  }
}

// So that they are there, or fail, within the time that a test lets pass.
await Promise.all([import('../src/more.js'), import('../src/staff.js')])

test('an upload whose code cannot be loaded has failed, and is tried again when the person wants', async () => {
  cut.more = true
  const { chat, daemon } = open()
  await pass(100)
  const upload = chat.upload(new File(['12345'], 'a.txt'))
  await pass(100)
  expect(upload).toMatchObject({ state: 'failed', error: { name: 'ChatError', code: 'unreachable', transient: true } })
  upload.retry()
  await pass(100)
  expect(upload.state).toBe('failed')
  cut.more = false
  await pass(5000)
  upload.retry()
  await pass(1000)
  expect(upload).toMatchObject({ state: 'stored', error: undefined })
  expect(await upload.done).toMatchObject({ id: upload.id, state: 'stored' })
  expect([...daemon.files.keys()]).toEqual([upload.id])
})

test('a cancelled upload whose code cannot be loaded is rejected with a ChatError', async () => {
  cut.more = true
  const { chat } = open()
  await pass(100)
  const upload = chat.upload(new File(['12345'], 'a.txt'))
  upload.cancel()
  const refused = expect(upload.done).rejects.toMatchObject({ name: 'ChatError', code: 'unreachable' })
  await pass(100)
  await refused
  for (const answer of [chat.url('f1'), chat.rate('s1', 5), chat.closeSession()]) await expect(answer).rejects.toMatchObject({ name: 'ChatError', code: 'unreachable' })
  chat.setTyping(true)
  chat.markRead()
  await pass(100)
  cut.more = false
})

test('a desk whose code cannot be loaded says so, and is there once it can be', async () => {
  cut.staff = true
  const { chat, daemon } = open({ getToken: () => SAM })
  daemon.store('s1', 'player', 'question')
  chat.subscribe(() => {
    chat.staff.queue()
    chat.messages('s1')
  })
  chat.staff.setStatus('online')
  await pass(500)
  expect(chat.staff.queue()).toMatchObject({ state: 'failed', error: { name: 'ChatError', code: 'unreachable' } })
  expect(chat.staff.queue()).toBe(chat.staff.queue())
  expect(chat.messages('s1')).toMatchObject({ state: 'failed', error: { code: 'unreachable' } })
  await expect(chat.staff.take('s1')).rejects.toMatchObject({ name: 'ChatError', code: 'unreachable' })
  cut.staff = false
  await pass(20_000)
  expect(chat.staff.queue()).toMatchObject({ state: 'complete', sessions: [{ id: 's1' }] })
  expect(shown(chat, 's1')).toEqual(['question'])
  expect(chat.staffOnline()).toMatchObject([{ staffId: 's1' }])
  expect(daemon.socket.sent.filter(({ type }) => type === 'set_status')).toMatchObject([{ status: 'online' }])
})

test('what a member of staff wanted of a desk that was never there is not done for the next person', async () => {
  cut.staff = true
  const page = open({ getToken: () => page.token })
  const { chat, daemon } = page
  page.token = SAM
  daemon.persons.set(KIM, { role: 'staff', staffId: 's2' })
  await pass(100)
  chat.staff.setStatus('away')
  chat.staff.viewing('s1', true)
  await pass(100)
  page.token = KIM
  daemon.socket.end(1006)
  await pass(5000)
  expect(chat.status().me).toMatchObject({ staffId: 's2' })
  chat.staff.setStatus('online')
  cut.staff = false
  await pass(5000)
  chat.staff.queue()
  await pass(1000)
  const sent = daemon.socket.sent.filter(({ type }) => type === 'set_status' || type === 'viewing')
  expect(sent).toMatchObject([{ status: 'online' }])
})
