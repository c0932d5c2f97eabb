import { expect, test, vi } from 'vitest'

import { ASHA, BINA, open, pass, shown } from './support/page.js'

/** The methods of the calls about files, in order. */
const attachmentCalls = ({ calls }: { calls: { line: string }[] }): string[] =>
  calls.filter(({ line }) => line.includes('/attachments')).map(({ line }) => line.split(' ')[0]!)

const photo = (): File => new File(['12345'], 'a.png', { type: 'image/png' })

test('a file is begun with an id, its bytes are put, and a message can name it', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  const upload = chat.upload(photo(), { alt: 'My table' })
  expect(upload).toMatchObject({ state: 'uploading', progress: 0 })
  let calls = 0
  upload.subscribe(() => (calls += 1))
  chat.send('look', { files: [upload.id] })
  await pass(10)
  expect(shown(chat)).toEqual([]) // the text waits for its file
  await pass(100)
  expect(upload).toMatchObject({ state: 'stored', progress: 1 })
  expect(calls).toBeGreaterThan(0)
  expect(await upload.done).toMatchObject({ id: upload.id, state: 'stored', name: 'a.png', bytes: 5, alt: 'My table' })
  expect(shown(chat)).toEqual(['look'])
  expect(daemon.calls.find(({ line }) => line.endsWith('/send'))!.body).toMatchObject({ attachmentIds: [upload.id] })
})

test('an upload whose answer is lost is asked for, and not repeated', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.storage = 'loses the answer'
  const upload = chat.upload(photo())
  await pass(5000)
  expect(upload.state).toBe('stored')
  expect([...daemon.files.keys()]).toEqual([upload.id])
  expect(attachmentCalls(daemon)).toEqual(['POST', 'GET'])
  expect(daemon.puts).toBe(1)
})

test('an interrupted upload is repeated at the same address: asking for one counts', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.storage = 'fails'
  const upload = chat.upload(photo())
  await pass(100)
  expect(upload).toMatchObject({ state: 'uploading', error: { code: 'upload_failed', transient: true } })
  daemon.storage = 'works'
  upload.retry() // at once, not after the delay
  await pass(100)
  expect(upload).toMatchObject({ state: 'stored', error: undefined })
  expect(attachmentCalls(daemon)).toEqual(['POST', 'GET'])
})

test('a stored file is described without another upload, and a text with it waits for that', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  const upload = chat.upload(photo())
  await pass(100)
  expect(upload.state).toBe('stored')
  upload.describe('My table')
  chat.send('look', { files: [upload.id] })
  await pass(5)
  expect(upload).toMatchObject({ state: 'uploading', progress: 1 })
  await pass(100)
  expect(upload.state).toBe('stored')
  expect(shown(chat)).toEqual(['look'])
  expect(daemon.puts).toBe(1)
  const lines = daemon.calls.filter(({ line }) => line.startsWith('POST')).map(({ line, body }) => [line.split('/').at(-1), body!.alt])
  expect(lines).toEqual([['attachments', undefined], ['attachments', 'My table'], ['send', undefined]])
})

test('what is said of a file during its upload, and again while that is announced, reaches the server last', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const upload = chat.upload(photo(), { alt: 'first' })
  await pass(8)
  upload.describe('second')
  await pass(22)
  upload.describe('third')
  await pass(200)
  expect(upload.state).toBe('stored')
  expect(daemon.files.get(upload.id)!.alt).toBe('third')
  upload.describe('')
  await pass(100)
  expect([daemon.files.get(upload.id)!.alt, daemon.puts]).toEqual(['', 1])
})

test('a description that the server does not take is tried again, and the bytes are not', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const upload = chat.upload(photo())
  await pass(100)
  daemon.refusal = { status: 400, code: 'bad_request' }
  upload.describe('x'.repeat(2000))
  await pass(100)
  expect(upload).toMatchObject({ state: 'failed', error: { code: 'bad_request' } })
  daemon.refusal = undefined
  upload.describe('short')
  await pass(100)
  expect(upload.state).toBe('stored')
  expect([daemon.files.get(upload.id)!.alt, daemon.puts]).toEqual(['short', 1])
})

test('a file is not uploaded in the name of the next person', async () => {
  const page = open()
  const { chat, daemon } = page
  await pass(100)
  daemon.storage = 'fails'
  const upload = chat.upload(photo())
  await pass(100)
  daemon.storage = 'works'
  const before = attachmentCalls(daemon).length
  page.token = BINA
  daemon.socket.end(1006)
  await pass(60_000)
  expect(chat.status().me?.playerId).toBe(30)
  upload.retry()
  upload.cancel()
  await pass(1000)
  expect([attachmentCalls(daemon).length, daemon.puts]).toEqual([before, 1])
  expect(upload).toMatchObject({ state: 'failed', error: { code: 'upload_ended', transient: false } })
  await expect(upload.done).rejects.toMatchObject({ code: 'upload_ended' })
})

test.each([[ASHA, BINA], ['a', 'b']])('with a token of the next person no file is uploaded, before the socket knows of it either', async (first, second) => {
  const page = open()
  const { chat, daemon } = page
  for (const [token, playerId] of [[first, 29], [second, 30]] as const) daemon.persons.set(token, { role: 'player', playerId })
  page.token = first
  chat.messages()
  await pass(100)
  page.token = second
  const upload = chat.upload(photo())
  await pass(60_000)
  expect([chat.status().me?.playerId, attachmentCalls(daemon), daemon.puts]).toEqual([30, [], 0])
  await expect(upload.done).rejects.toMatchObject({ code: 'upload_ended' })
})

test('with the chat its uploads end, and say so', async () => {
  const { chat } = open()
  await pass(100)
  const upload = chat.upload(photo())
  chat.close()
  await pass(100)
  await expect(upload.done).rejects.toMatchObject({ code: 'upload_ended' })
})

test('an upload that does not succeed fails, and is tried again when the person wants it', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.storage = 'fails'
  const upload = chat.upload(photo())
  chat.send('look', { files: [upload.id] })
  await pass(60_000)
  expect(upload).toMatchObject({ state: 'failed', error: { transient: true } })
  expect(chat.messages().unsent).toMatchObject([{ text: 'look', state: 'refused' }])
  daemon.storage = 'works'
  upload.retry()
  await pass(1000)
  expect(upload).toMatchObject({ state: 'stored', error: undefined })
  chat.retry(chat.messages().unsent[0]!.id)
  await pass(100)
  expect(shown(chat)).toEqual(['look'])
})

test('a file that the storage refuses fails at once', async () => {
  const { chat, daemon } = open()
  await pass(100)
  daemon.storage = 'refuses'
  const upload = chat.upload(photo())
  await pass(1000)
  expect(upload).toMatchObject({ state: 'failed', error: { code: 'file_refused', transient: false } })
  await expect(upload.done).rejects.toMatchObject({ code: 'file_refused' })
  expect(daemon.calls.filter(({ line }) => line === 'POST /api/gre-chat/attachments')).toHaveLength(1)
})

test('a cancelled upload is deleted', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const upload = chat.upload(photo())
  await pass(4)
  upload.cancel()
  await pass(1000)
  await expect(upload.done).rejects.toMatchObject({ code: 'cancelled' })
  expect(daemon.calls.map(({ line }) => line)).toContain(`DELETE /api/gre-chat/attachments/${upload.id}`)
})

test('addresses are asked for together, and kept until shortly before they end', async () => {
  const { chat, daemon } = open()
  await pass(100)
  const urls = Promise.all([chat.url('f1', 'thumb'), chat.url('f2', 'thumb'), chat.url('f1', 'view')])
  await pass(100)
  expect(await urls).toEqual(['http://storage.test/f1/thumb/1', 'http://storage.test/f2/thumb/1', 'http://storage.test/f1/view/2'])
  const again = chat.url('f1', 'thumb')
  await pass(100)
  expect(await again).toBe('http://storage.test/f1/thumb/1')
  const asked = (): number => daemon.calls.filter(({ line }) => line.endsWith('/urls')).length
  expect(asked()).toBe(2)
  await pass(275_000)
  const late = chat.url('f1', 'thumb')
  await pass(100)
  expect(await late).toBe('http://storage.test/f1/thumb/3')
  const missing = expect(chat.url('gone')).rejects.toMatchObject({ code: 'attachment_gone', status: 404 })
  await pass(100)
  await missing
})

test('the bytes of a file that was sent are let go', async () => {
  const [v8, vm] = await Promise.all(['node:v8', 'node:vm'].map((name) => import(/* @vite-ignore */ name)))
  v8.setFlagsFromString('--expose-gc')
  const collect = vm.runInNewContext('gc') as () => void
  const { chat, daemon } = open()
  chat.messages()
  await pass(100)
  const send = (): [string, WeakRef<File>] => {
    const file = photo()
    const { id } = chat.upload(file)
    chat.send('look', { files: [id] })
    return [id, new WeakRef(file)]
  }
  const [id, file] = send()
  await pass(1000)
  const [stored] = daemon.sessions.get('s1')!.messages
  daemon.socket.hear({ type: 'chat_message', message: { ...stored!, attachments: [{ ...daemon.files.get(id)!, place: 0 }] } })
  await pass(100)
  expect(chat.messages().messages).toMatchObject([{ message: 'look', attachments: [{ id }] }])
  await vi.waitFor(() => {
    collect()
    expect(file.deref()).toBeUndefined()
  }, 30_000)
})
