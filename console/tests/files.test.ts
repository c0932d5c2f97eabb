/** Files: uploads, the files of drafts, links, and what is known of the files of messages. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { fileSize, frameOf, isFilesText, newerAttachment, picturesOf, previewColours, stateInWords, typeName } from '../src/attachments'
import { Conversation } from '../src/conversation'
import { DraftFiles, MAX_FILES } from '../src/draft-files'
import { Drafts } from '../src/drafts'
import { FileLinks } from '../src/file-links'
import { Outgoing } from '../src/outgoing'
import { Files } from '../src/files'
import { TaskScope } from '../src/scope'
import type { Attachment, Message } from '../src/types'
import { interrupted, type Put, storageRefusal } from '../../client/src/put'
import { MAX_BYTES } from '../../client/src/upload'
import { Uploads } from '../src/uploads'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const photo = (name = 'table.jpg', bytes = 4): File => new File([new Uint8Array(bytes)], name, { type: 'image/jpeg' })

const attachment = (id: string, fields: Partial<Attachment> = {}): Attachment => ({
  id, kind: 'image', type: 'image/jpeg', name: `${id}.jpg`, alt: null, bytes: 4, width: 400, height: 300, preview: null, place: 0, state: 'ready', ...fields,
})

/** A server with one bucket: `stored` has the ids of the files whose bytes it has. */
function server() {
  const stored = new Set<string>()
  const alts = new Map<string, string>()
  const calls: string[] = []
  const begun: Record<string, unknown>[] = []
  const puts: string[] = []
  let expiresAt = '2100-01-01T00:00:00Z'
  const failures: Error[] = []
  const api = {
    now: () => Date.now(),
    beginAttachment: async (file: { id: string }) => {
      calls.push('begin')
      begun.push(file)
      const failure = failures.shift()
      if (failure) throw failure
      const upload = stored.has(file.id) ? null : { url: `/${file.id}/${begun.length}`, method: 'PUT', headers: {}, expiresAt }
      return { attachment: { id: file.id }, upload }
    },
    attachment: async (id: string) => {
      calls.push('get')
      return { attachment: attachment(id, { alt: alts.get(id) ?? null, state: stored.has(id) ? 'stored' : 'awaited' }) }
    },
    dropAttachment: async (id: string) => void calls.push(`drop ${id}`),
  }
  let transport: Put = async ({ url }) => {
    calls.push('put')
    puts.push(url)
    stored.add(url.split('/')[1]!)
  }
  const scope = new TaskScope()
  const changes = vi.fn()
  const owner = { targetOf: (sessionId: string) => ({ sessionId }), describe: (error: unknown) => (error as Error).message, onChange: changes }
  const uploads = new Uploads(api as unknown as Api, scope, (...args) => transport(...args), owner)
  return {
    api, stored, alts, calls, begun, puts, failures, uploads, scope, owner, changes,
    expire: () => void (expiresAt = '2000-01-01T00:00:00Z'),
    setTransport: (other: Put) => void (transport = other),
    /** The next upload fails with this error; the ones after it succeed. */
    failOnce: (error: Error, storeFirst = false) => {
      const working = transport
      transport = async (address, ...rest) => {
        transport = working
        calls.push('put')
        if (storeFirst) stored.add(address.url.split('/')[1]!)
        void rest
        throw error
      }
    },
  }
}

const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0)

test('a file is announced for its session, and its bytes are sent with progress', async () => {
  const { uploads, begun, calls, setTransport } = server()
  let end = (): void => {}
  setTransport((_, __, onProgress) => new Promise((resolve) => {
    onProgress(0.25)
    end = resolve
  }))
  const chosen = uploads.add('s', photo())
  await settle()
  expect(begun).toEqual([{ id: chosen.id, name: 'table.jpg', type: 'image/jpeg', bytes: 4, alt: '', sessionId: 's' }])
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'uploading', progress: 0.25 })
  end()
  await settle()
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'stored', progress: 1 })
  expect(calls).toEqual(['begin'])
})

test('an interrupted upload is tried again with the same id and address, after asking whether the bytes are there', async () => {
  const { uploads, calls, begun, puts, failOnce } = server()
  failOnce(interrupted())
  const chosen = uploads.add('s', photo())
  await settle()
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'failed', transient: true, error: 'The upload was interrupted.' })
  await vi.advanceTimersByTimeAsync(1000)
  expect(uploads.statusOf(chosen).state).toBe('stored')
  // A second announcement would count in the person's quota.
  expect(calls).toEqual(['begin', 'put', 'get', 'put'])
  expect(begun).toHaveLength(1)
  expect(puts).toEqual([`/${chosen.id}/1`])
})

test('an upload whose answer was lost is not repeated', async () => {
  const { uploads, calls, failOnce } = server()
  failOnce(interrupted(), true)
  const chosen = uploads.add('s', photo())
  await vi.advanceTimersByTimeAsync(1000)
  expect(uploads.statusOf(chosen).state).toBe('stored')
  expect(calls).toEqual(['begin', 'put', 'get'])
})

test('an address that has ended is asked for again, with the same id', async () => {
  const { uploads, begun, expire, failOnce } = server()
  expire()
  failOnce(interrupted())
  const chosen = uploads.add('s', photo())
  await vi.advanceTimersByTimeAsync(1000)
  expect(uploads.statusOf(chosen).state).toBe('stored')
  expect(begun.map(({ id }) => id)).toEqual([chosen.id, chosen.id])
})

test.each([
  [storageRefusal(413), 'The file is too large for this chat.'],
  [storageRefusal(415), 'Files of this type or size are not taken.'],
])('a refusal of the storage is final and said in words: %s', async (error, text) => {
  const { uploads, calls, failOnce } = server()
  failOnce(error)
  const chosen = uploads.add('s', photo())
  await vi.advanceTimersByTimeAsync(60_000)
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'failed', transient: false, error: text })
  expect(calls).toEqual(['begin', 'put'])
})

test('a refusal because the bytes are there is a success', async () => {
  const { uploads, calls, failOnce } = server()
  failOnce(storageRefusal(409), true)
  const chosen = uploads.add('s', photo())
  await settle()
  expect(uploads.statusOf(chosen).state).toBe('stored')
  expect(calls).toEqual(['begin', 'put', 'get'])
})

test('a file above the limit is refused without a request', async () => {
  const { uploads, calls } = server()
  const large = Object.defineProperty(photo(), 'size', { value: MAX_BYTES + 1 })
  const chosen = uploads.add('s', large)
  await settle()
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'failed', transient: false, error: 'The file is larger than 25 MB.' })
  expect(calls).toEqual([])
})

test('a used-up quota is not tried again by itself, but by the user', async () => {
  const { uploads, calls, failures } = server()
  failures.push(new ApiError(429, 'file_quota', 'Too many files today.'))
  const chosen = uploads.add('s', photo())
  await vi.advanceTimersByTimeAsync(60_000)
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'failed', transient: false, error: 'Too many files today.' })
  expect(calls).toEqual(['begin'])
  uploads.retry(chosen)
  await settle()
  expect(uploads.statusOf(chosen).state).toBe('stored')
})

test('bytes are only in this page until they are stored, or the file is given up', async () => {
  const { uploads, failOnce } = server()
  expect(uploads.isUploading).toBe(false)
  const chosen = uploads.add('s', photo())
  expect(uploads.isUploading).toBe(true)
  await settle()
  expect(uploads.isUploading).toBe(false)
  failOnce(storageRefusal(415))
  const refused = uploads.add('s', photo())
  await settle()
  expect(uploads.isUploading).toBe(true)
  uploads.cancel(refused)
  uploads.adopt('s', { ...chosen, id: 'earlier' })
  expect(uploads.isUploading).toBe(false)
})

test('a cancelled upload is stopped and deleted on the server', async () => {
  const { uploads, calls, setTransport } = server()
  setTransport((_, __, ___, signal) => new Promise((__, reject) => signal.addEventListener('abort', () => reject(interrupted()))))
  const chosen = uploads.add('s', photo())
  await settle()
  uploads.cancel(chosen)
  await settle()
  expect(calls).toEqual(['begin', `drop ${chosen.id}`])
})

test('after a reload the server is asked for the file; without its bytes it cannot go on', async () => {
  const { uploads, stored, calls } = server()
  stored.add('a')
  const chosen = (id: string) => ({ id, name: 'x.jpg', type: 'image/jpeg', bytes: 4, alt: '' })
  uploads.adopt('s', chosen('a'))
  uploads.adopt('s', chosen('b'))
  await settle()
  expect(uploads.statusOf(chosen('a')).state).toBe('stored')
  expect(uploads.statusOf(chosen('b'))).toMatchObject({ state: 'failed', transient: false })
  expect(uploads.statusOf(chosen('b')).error).toContain('choose it again')
  expect(calls).toEqual(['get', 'get'])
})

test('an alt text that was written during the upload is announced before the message is sent', async () => {
  const { uploads, begun } = server()
  const chosen = uploads.add('s', photo())
  await settle()
  await uploads.whenStored('s', [{ ...chosen, alt: 'Table 4' }])
  await uploads.whenStored('s', [{ ...chosen, alt: 'Table 4' }])
  await uploads.whenStored('s', [{ ...chosen, alt: '' }])
  expect(begun.map(({ alt }) => alt)).toEqual(['', 'Table 4', ''])
})

test('an alt text that was cleared after a reload is cleared on the server before the message is sent', async () => {
  const { uploads, stored, begun, alts } = server()
  stored.add('a').add('b')
  alts.set('a', 'Table 4').set('b', 'Table 5')
  const chosen = (id: string, alt: string) => ({ id, name: 'x.jpg', type: 'image/jpeg', bytes: 4, alt })
  await uploads.whenStored('s', [chosen('a', ''), chosen('b', 'Table 5')])
  expect(begun).toMatchObject([{ id: 'a', alt: '' }])
})

test('who waits for a failed upload gets its reason', async () => {
  const { uploads, failures } = server()
  failures.push(new ApiError(503, 'files_off', 'This chat takes no files.'), new ApiError(503, 'files_off', 'This chat takes no files.'))
  const chosen = uploads.add('s', photo())
  await settle()
  await expect(uploads.whenStored('s', [chosen])).rejects.toMatchObject({ code: 'files_off', transient: false })
})

test('the files of a draft are of its session and author, and survive a reload', async () => {
  const { uploads, api, scope, owner } = server()
  const drafts = new Drafts('s1')
  const files = new DraftFiles(drafts, uploads, () => {})
  expect(files.add('a', [photo('one.jpg'), photo('two.jpg')])).toBe(0)
  expect(files.of('b')).toEqual([])
  await settle()
  const other = new Uploads(api as unknown as Api, scope, async () => {}, owner)
  const reloaded = new DraftFiles(new Drafts('s1'), other, () => {})
  expect(reloaded.of('a').map(({ name }) => name)).toEqual(['one.jpg', 'two.jpg'])
  await settle()
  expect(reloaded.hasFailed('a')).toBe(false)
  expect(new DraftFiles(new Drafts('s2'), other, () => {}).of('a')).toEqual([])
  files.discard('a')
  expect(new Drafts('s1').get('a', 'files')).toBe('')
})

test('a draft has at most five files', async () => {
  const { uploads } = server()
  const files = new DraftFiles(new Drafts('s3'), uploads, () => {})
  expect(files.add('a', Array.from({ length: 4 }, () => photo()))).toBe(0)
  expect(files.add('a', [photo(), photo(), photo()])).toBe(2)
  expect(files.of('a')).toHaveLength(MAX_FILES)
  files.discard('a')
})

test('files that were chosen before the author was known are kept', async () => {
  const { uploads } = server()
  const drafts = new Drafts('')
  const files = new DraftFiles(drafts, uploads, () => {})
  files.add('a', [photo('early.jpg')])
  drafts.setOwner('s4')
  expect(files.of('a').map(({ name }) => name)).toEqual(['early.jpg'])
  files.discard('a')
})

test('the files of another author stay theirs when the server reports another staff id', async () => {
  const { uploads } = server()
  const drafts = new Drafts('s6')
  const files = new DraftFiles(drafts, uploads, () => {})
  files.add('a', [photo('mine.jpg')])
  drafts.setOwner('s7')
  expect(files.of('a')).toEqual([])
  expect(new Drafts('s7').get('a', 'files')).toBe('')
  drafts.setOwner('s6')
  expect(files.of('a').map(({ name }) => name)).toEqual(['mine.jpg'])
  files.discard('a')
})

test('a file that is stored is not lost when the announcement of its alt text fails after a reload', async () => {
  const { uploads, stored, failures, begun } = server()
  stored.add('a')
  const chosen = { id: 'a', name: 'x.jpg', type: 'image/jpeg', bytes: 4, alt: 'Table 4' }
  failures.push(new ApiError(503, 'storage_unavailable', 'Try again.'))
  await expect(uploads.whenStored('s', [chosen])).rejects.toMatchObject({ code: 'storage_unavailable', transient: true })
  await uploads.whenStored('s', [chosen])
  expect(begun.map(({ alt }) => alt)).toEqual(['Table 4', 'Table 4'])
  expect(uploads.statusOf(chosen).state).toBe('stored')
})

test('a file that cannot be read, such as a folder, is not tried for ever', async () => {
  const { uploads, calls, setTransport } = server()
  setTransport(async () => {
    calls.push('put')
    throw interrupted()
  })
  const folder = Object.defineProperty(photo('holiday'), 'slice', { value: () => ({ arrayBuffer: () => Promise.reject(new Error('NotReadableError')) }) })
  const chosen = uploads.add('s', folder)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(uploads.statusOf(chosen)).toMatchObject({ state: 'failed', transient: false })
  expect(uploads.statusOf(chosen).error).toContain('cannot be read')
  expect(calls).toEqual(['begin', 'put'])
  await expect(uploads.whenStored('s', [chosen])).rejects.toMatchObject({ code: 'file_unreadable', transient: false })
})

test('of a file that nobody has asked for yet no upload is shown', () => {
  const { uploads } = server()
  expect(uploads.statusOf({ id: 'a', name: 'x.jpg', type: 'image/jpeg', bytes: 4, alt: '' }).state).toBe('unknown')
})

function outgoingWith({ api, scope, owner }: ReturnType<typeof server>, reply: (session: string, sent: { text: string; files: readonly string[] }) => Promise<unknown>) {
  const drafts = new Drafts('s5')
  const files = new Files(api as unknown as Api, scope, drafts, owner)
  const failed = vi.fn()
  const listener = { onMessage: () => {}, onNote: () => {}, onFailed: failed, onChange: () => {}, describe: (error: unknown) => (error as Error).message }
  const outgoing = new Outgoing({ ...api, reply } as unknown as Api, scope, 's5', drafts, files, listener)
  outgoing.resume('s5')
  return { files, drafts, failed, outgoing }
}

test('a reply waits for its files, names them in their order, and leaves the draft at once', async () => {
  const found = server()
  const sent: unknown[] = []
  const { files, outgoing } = outgoingWith(found, async (session, { text, files: list }) => (sent.push([session, text, list]), { message: {} }))
  let end = (): void => {}
  // Node has no XMLHttpRequest: the files' own transport is replaced.
  Object.assign(files.uploads, { transport: () => new Promise<void>((resolve) => (end = resolve)) })
  files.drafts.add('s', [photo('one.jpg')])
  const ids = files.drafts.of('s').map(({ id }) => id)
  outgoing.sendReply({ id: 's', contiguousSeq: 1 } as Conversation, 'look', 'Asha')
  expect(files.drafts.of('s')).toEqual([])
  await settle()
  expect(sent).toEqual([])
  end()
  await settle()
  expect(sent).toEqual([['s', 'look', ids]])
})

test('a reply that is discarded while its file is uploaded is not sent', async () => {
  const sent: string[] = []
  const { files, outgoing } = outgoingWith(server(), async (_, { text }) => (sent.push(text), { message: {} }))
  const transport: Put = (_, __, ___, signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(interrupted())))
  Object.assign(files.uploads, { transport })
  files.drafts.add('s', [photo('one.jpg')])
  outgoing.sendReply({ id: 's', contiguousSeq: 1 } as Conversation, 'look', 'Asha')
  await settle()
  const [reply] = outgoing.of('s')
  expect(reply).toMatchObject({ text: 'look', state: 'sending' })
  outgoing.drop(reply!)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(sent).toEqual([])
  expect(outgoing.count).toBe(0)
})

test('the bytes of files are let go when the socket says that their reply is stored, though no answer came', async () => {
  const { files, outgoing } = outgoingWith(server(), () => new Promise(() => {}))
  Object.assign(files.uploads, { transport: async () => {} })
  files.drafts.add('s', [photo('one.jpg')])
  const [file] = files.drafts.of('s')
  outgoing.sendReply({ id: 's', contiguousSeq: 1 } as Conversation, 'look', 'Asha')
  await settle()
  expect(files.uploads.fileOf(file!)).toBeDefined()
  outgoing.confirm({ id: outgoing.of('s')[0]!.id, attachments: [attachment(file!.id)] })
  expect(outgoing.count).toBe(0)
  expect(files.uploads.fileOf(file!)).toBeUndefined()
})

test('a reply whose file was refused goes back into the draft with its text and its file', async () => {
  const found = server()
  const { files, drafts, outgoing, failed } = outgoingWith(found, async () => ({ message: {} }))
  Object.assign(files.uploads, { transport: async () => Promise.reject(storageRefusal(415)) })
  files.drafts.add('s', [photo('one.jpg')])
  const [file] = files.drafts.of('s')
  outgoing.sendReply({ id: 's', contiguousSeq: 1 } as Conversation, 'look', 'Asha')
  await vi.waitFor(() => expect(failed).toHaveBeenCalled())
  await vi.waitFor(() => expect(outgoing.failed).toHaveLength(1))
  const [reply] = outgoing.of('s')
  expect(reply).toMatchObject({ state: 'refused', error: { message: 'Files of this type or size are not taken.' } })
  outgoing.edit(reply!)
  expect([drafts.get('s'), files.drafts.of('s')]).toEqual(['look', [file]])
  expect(files.drafts.hasFailed('s')).toBe(true)
  drafts.discard()
})

test('links are asked for together, by variant, and again when they have ended', async () => {
  const asked: unknown[] = []
  let n = 0
  const api = {
    now: () => Date.now(),
    attachmentLinks: async (ids: string[], variant: string) => {
      asked.push([variant, ids])
      n += 1
      return { urls: Object.fromEntries(ids.map((id) => [id, id === 'none' ? { code: 'attachment_not_found' } : { url: `/${variant}/${id}/${n}`, expiresAt: new Date(Date.now() + 300_000).toISOString() }])) }
    },
  }
  const links = new FileLinks(api as unknown as Api, new TaskScope())
  const changed = vi.fn()
  links.subscribe(changed)
  for (const id of ['a', 'b', 'none', 'a']) expect(links.get(id, 'thumb')).toEqual({ error: '' })
  links.get('a', 'file')
  await vi.advanceTimersByTimeAsync(50)
  expect(asked).toEqual([['thumb', ['a', 'b', 'none']], ['file', ['a']]])
  expect(links.get('a', 'thumb').url).toBe('/thumb/a/1')
  expect(links.get('none', 'thumb').error).not.toBe('')
  changed.mockClear()
  await vi.advanceTimersByTimeAsync(271_000)
  // It has ended: whoever shows it is told, and asks again.
  expect(changed).toHaveBeenCalled()
  links.get('a', 'thumb')
  await vi.advanceTimersByTimeAsync(50)
  expect(links.get('a', 'thumb').url).toBe('/thumb/a/3')
})

test('more than 100 links are asked for in several requests; a failed one is repeated', async () => {
  const sizes: number[] = []
  const api = {
    now: () => Date.now(),
    attachmentLinks: async (ids: string[]) => {
      sizes.push(ids.length)
      throw new ApiError(503, 'storage_unavailable', 'No.')
    },
  }
  const links = new FileLinks(api as unknown as Api, new TaskScope())
  for (let n = 0; n < 120; n += 1) links.get(`f${n}`, 'view')
  await vi.advanceTimersByTimeAsync(50)
  expect(sizes).toEqual([100, 20])
  expect(links.get('f0', 'view').error).toBe('No.')
  await vi.advanceTimersByTimeAsync(5000)
  links.get('f0', 'view')
  await vi.advanceTimersByTimeAsync(50)
  expect(sizes).toEqual([100, 20, 1])
})

test('a changed file changes its message in place, and its state never goes back', async () => {
  let page: Message[] = []
  const none = async (): Promise<unknown> => ({ notes: [], events: [], has_more: false })
  const api = { messages: async () => ({ session: {}, messages: page, has_more: false }), notes: none, events: none }
  const conversation = new Conversation('s', api as unknown as Api, new TaskScope(), () => {}, () => {}, () => {})
  const read = (...messages: Message[]): Promise<void> => ((page = messages), conversation.refresh())
  const message = (seq: number, file: Attachment): Message => ({ id: `m${seq}`, seq, session_id: 's', sender: 'player', status: 'sent', message: '📷 Photo', attachments: [file] }) as Message
  const stored = attachment('a', { state: 'stored', width: null, height: null, place: 2 })
  const states = (): unknown => conversation.messages.map(({ attachments }) => attachments?.map(({ state, place }) => [state, place]))
  await read(message(1, stored))
  conversation.applyAttachment(attachment('a', { place: 2 }))
  expect(states()).toEqual([[['ready', 2]]])
  // A page that was read before the change.
  await read(message(1, stored))
  expect(states()).toEqual([[['ready', 2]]])
  // The change overtakes the message.
  conversation.applyAttachment(attachment('b', { state: 'refused', refused: 'virus' }))
  conversation.receive(message(2, attachment('b', { state: 'stored' })))
  expect(states()).toEqual([[['ready', 2]], [['refused', 0]]])
  // A change that was missed comes with the next page.
  await read(message(1, attachment('a', { state: 'gone', place: 2 })))
  expect(states()).toEqual([[['gone', 2]], [['refused', 0]]])
  expect(newerAttachment(attachment('a'), stored).state).toBe('ready')
})

test('the place of a picture has its proportions, at most 320 by 200 pixels', () => {
  const size = (width: number | null, height: number | null): number[] => Object.values(frameOf({ width, height }))
  expect(size(4000, 3000)).toEqual([267, 200])
  expect(size(3000, 4000)).toEqual([150, 200])
  expect(size(4000, 1000)).toEqual([320, 80])
  expect(size(100, 80)).toEqual([100, 80])
  expect(size(10, 10_000)).toEqual([44, 200])
  // Until its size is known: most photos then stay where they are.
  expect(size(null, null)).toEqual(size(4000, 3000))
})

test('files in words', () => {
  expect([0, 812, 1500, 6_000_000, 26_214_400].map(fileSize)).toEqual(['0 B', '812 B', '1.5 kB', '6.0 MB', '26 MB'])
  expect(typeName({ name: 'menu.pdf', type: 'application/pdf' })).toBe('PDF')
  expect(typeName({ name: 'README', type: 'text/plain' })).toBe('text/plain')
  expect(stateInWords(attachment('a'))).toBe('')
  expect(stateInWords(attachment('a', { state: 'refused', refused: 'virus' }))).toBe('Refused: a virus was found in it.')
  expect(stateInWords(attachment('a', { state: 'refused', refused: 'a new code' }))).toBe('Refused: it cannot be shown.')
  expect(stateInWords(attachment('a', { state: 'gone' }))).toBe('Deleted.')
  const files = [attachment('a')]
  expect(['📷 Photo', '📎 3 files', 'Photo', '📷 Photo of me'].map((message) => isFilesText({ message, attachments: files }))).toEqual([true, true, false, false])
  expect(isFilesText({ message: '📷 Photo' } as Message)).toBe(false)
})

test('previews and pictures', () => {
  expect(previewColours('abc'.repeat(12))).toEqual(Array(12).fill('#abc'))
  for (const wrong of [null, '', 'abc', 'x'.repeat(36), `${'abc'.repeat(12)}0`]) expect(previewColours(wrong)).toEqual([])
  const messages = [{ attachments: [attachment('a'), attachment('b', { kind: 'file' })] }, {}, { attachments: [attachment('c', { state: 'stored' }), attachment('d')] }]
  expect(picturesOf(messages as Message[]).map(({ id }) => id)).toEqual(['a', 'd'])
})
