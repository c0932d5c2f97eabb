/** The message that is being written: it is sent when its files are stored, and comes back when it was refused. */

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Draft, MAX_BYTES, MAX_FILES } from '../element/draft'
import type { Attachment, Chat, Person, SendOptions, Unsent, Upload, UploadOptions } from '../src/index'
import { memoryStorage } from './support/page'

/** An upload that the test ends. */
class FakeUpload implements Upload {
  state: Upload['state'] = 'uploading'
  progress = 0
  cancelled = false
  readonly done: Promise<Attachment>
  private listeners = new Set<() => void>()
  private settle!: [(file: Attachment) => void, (error: Error) => void]

  constructor(
    readonly id: string,
    readonly options: UploadOptions,
  ) {
    this.done = new Promise((...settle) => (this.settle = settle))
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  readonly texts: string[] = []

  describe(alt: string): void {
    this.texts.push(alt)
    this.retry()
  }

  end(state: 'stored' | 'failed'): void {
    this.state = state
    this.progress = 1
    for (const listener of this.listeners) listener()
    if (state === 'stored') this.settle[0]({ id: this.id } as Attachment)
    else this.settle[1](new Error('refused'))
  }

  retry(): void {
    this.state = 'uploading'
    for (const listener of this.listeners) listener()
  }

  cancel(): void {
    this.cancelled = true
    this.end('failed')
  }
}

let sent: [string, SendOptions][]
let uploads: FakeUpload[]
let refused: Unsent[]
let typing: boolean[]
let changes: number
let draft: Draft
let chat: Chat

beforeEach(() => {
  sent = []
  uploads = []
  refused = []
  typing = []
  changes = 0
  const fake = {
    send: (text: string, options: SendOptions) => void sent.push([text, options]),
    upload: (_: Blob, options: UploadOptions) => {
      uploads.push(new FakeUpload(`f${uploads.length}`, options))
      return uploads.at(-1)
    },
    discard: (id: string) => refused.find((item) => item.id === id),
    setTyping: (on: boolean) => void typing.push(on),
  }
  chat = fake as unknown as Chat
  draft = new Draft(chat, () => (changes += 1))
})

const file = (name: string, bytes = 3, type = 'text/plain') => new File([new Uint8Array(bytes)], name, { type })
const states = () => draft.files.map(({ state }) => state)

describe('sending', () => {
  test('a text is sent at once, trimmed, and the field is empty', async () => {
    draft.text = ' Hello\n'
    expect(await draft.send()).toBe(true)
    expect(sent).toEqual([['Hello', { files: [] }]])
    expect(draft.isEmpty).toBe(true)
    expect(typing).toEqual([false])
  })

  test('nothing is sent if there is nothing', async () => {
    draft.text = '  \n '
    expect(await draft.send()).toBe(false)
    expect(sent).toEqual([])
    expect(draft.text).toBe('  \n ')
  })

  test('a message waits for its files; what is written meanwhile goes with it', async () => {
    draft.text = 'My table'
    draft.add([file('a.txt'), file('b.txt')])
    const sending = draft.send()
    expect(draft.waiting).toBe(true)
    uploads[0]!.end('stored')
    await Promise.resolve()
    expect(sent).toEqual([])
    expect(draft.text).toBe('My table')
    draft.text = 'My table, by the window'
    uploads[1]!.end('stored')
    expect(await sending).toBe(true)
    expect(sent).toEqual([['My table, by the window', { files: ['f0', 'f1'] }]])
    expect(draft.files).toEqual([])
  })

  test('a file that is added while the message waits is waited for, too', async () => {
    draft.add([file('a.txt')])
    const sending = draft.send()
    draft.add([file('b.txt')])
    uploads[0]!.end('stored')
    await Promise.resolve()
    uploads[1]!.end('stored')
    expect(await sending).toBe(true)
    expect(sent).toEqual([['', { files: ['f0', 'f1'] }]])
  })

  test('a file that fails keeps the message; after another try or without the file it is sent', async () => {
    draft.text = 'Hello'
    draft.add([file('a.txt')])
    const sending = draft.send()
    uploads[0]!.end('failed')
    expect(await sending).toBe(false)
    expect(sent).toEqual([])
    expect([draft.text, states()]).toEqual(['Hello', ['failed']])
    draft.retry('f0')
    expect(states()).toEqual(['uploading'])
    draft.remove('f0')
    expect(await draft.send()).toBe(true)
    expect(sent).toEqual([['Hello', { files: [] }]])
  })

  test('a description that is being stored is waited for', async () => {
    draft.add([file('a.jpg', 3, 'image/jpeg')])
    uploads[0]!.end('stored')
    draft.describe('f0', ' My table ')
    draft.describe('f0', 'My table')
    expect(uploads.map(({ texts, cancelled }) => [texts, cancelled])).toEqual([[['My table'], false]])
    expect(draft.files).toMatchObject([{ id: 'f0', alt: 'My table', state: 'uploading' }])
    const sending = draft.send()
    await Promise.resolve()
    expect(sent).toEqual([])
    uploads[0]!.end('stored')
    expect(await sending).toBe(true)
    expect(sent).toEqual([['', { files: ['f0'] }]])
  })

  test('a second press while it waits does not send it twice', async () => {
    draft.text = 'Hello'
    draft.add([file('a.txt')])
    const first = draft.send()
    expect(await draft.send()).toBe(false)
    uploads[0]!.end('stored')
    await first
    expect(sent).toHaveLength(1)
  })
})

describe('files', () => {
  test('too many and too large ones are not taken, and the reason is given', () => {
    const large = Object.defineProperty(file('film.mov'), 'size', { value: MAX_BYTES + 1 })
    expect(draft.add([large])).toEqual({ kind: 'large', name: 'film.mov' })
    expect(draft.files).toEqual([])
    expect(draft.add(Array.from({ length: MAX_FILES + 1 }, (_, n) => file(`${n}.txt`)))).toEqual({ kind: 'many' })
    expect(draft.files).toHaveLength(MAX_FILES)
  })

  test('a picture is one, and the progress of an upload is told', () => {
    draft.add([file('a.jpg', 3, 'image/jpeg'), file('b.txt')])
    expect(draft.files.map(({ picture }) => picture)).toEqual([true, false])
    const before = changes
    uploads[1]!.progress = 0.5
    uploads[1]!.retry()
    expect(draft.files[1]).toMatchObject({ progress: 0.5 })
    expect(changes).toBeGreaterThan(before)
  })
})

test('a refused text comes back with its files, before what is written', () => {
  refused.push({ id: 'u1', text: 'Old', files: ['f9'], createdAt: '2026-11-22T17:00:00.000Z', state: 'refused' })
  draft.text = 'New'
  draft.restore('u1')
  expect(draft.text).toBe('Old\nNew')
  expect(draft.files).toMatchObject([{ id: 'f9', state: 'stored' }])
  draft.restore('gone')
  expect(draft.text).toBe('Old\nNew')
})

describe('after a reload', () => {
  const ASHA: Person = { role: 'player', playerId: 29 }
  const BINA: Person = { role: 'player', playerId: 30 }
  let storage: ReturnType<typeof memoryStorage>

  /** The same tab, loaded again. */
  const reload = (person?: Person, url?: string): Draft => {
    draft = new Draft(chat, () => (changes += 1), url)
    draft.belongTo(person)
    return draft
  }

  beforeEach(() => {
    storage = memoryStorage()
    vi.stubGlobal('sessionStorage', storage)
  })
  afterEach(() => {
    vi.unstubAllGlobals()
    vi.useRealTimers()
  })

  test('the text and what was uploaded are there again, and sent with each other', async () => {
    draft.belongTo(ASHA)
    draft.write('Look at')
    draft.add([file('a.png', 3, 'image/png'), file('b.txt')])
    uploads[0]!.end('stored')
    reload(ASHA)
    expect(draft.text).toBe('Look at')
    expect(draft.files).toMatchObject([{ id: 'f0', name: 'a.png', bytes: 3, state: 'stored' }])
    expect(await draft.send()).toBe(true)
    expect(sent).toEqual([['Look at', { files: ['f0'] }]])
    expect(reload(ASHA).isEmpty).toBe(true)
    expect(storage.length).toBe(0)
  })

  test('it is the same person of the same daemon who sees it', () => {
    draft.belongTo(ASHA)
    draft.write('A secret')
    expect(reload(BINA).text).toBe('')
    draft.write("Bina's")
    expect(reload({ role: 'staff', staffId: '29' }).text).toBe('')
    expect(reload(ASHA, 'https://other.example').text).toBe('')
    expect(reload(undefined).text).toBe('')
    expect(reload(ASHA).text).toBe('A secret')
    expect(reload(BINA).text).toBe("Bina's")
  })

  test('another person on the same page finds an empty field, also before it is known who that is', () => {
    draft.belongTo(ASHA)
    draft.write('A secret')
    draft.add([file('a.txt')])
    uploads[0]!.end('stored')
    draft.belongTo(undefined)
    expect([draft.text, draft.files]).toEqual(['', []])
    draft.write('Hello')
    draft.belongTo(BINA)
    expect(draft.text).toBe('Hello')
    draft.belongTo(ASHA)
    expect(draft.text).toBe('A secret')
    expect(draft.files).toHaveLength(1)
    expect(reload(BINA).text).toBe('Hello')
  })

  test('what is written before the server has said by whom follows what was kept', () => {
    draft.belongTo(ASHA)
    draft.write('Is table 4')
    reload(undefined).write('open?')
    draft.belongTo(ASHA)
    expect(draft.text).toBe('Is table 4\nopen?')
    expect(reload(ASHA).text).toBe('Is table 4\nopen?')
  })

  test('a message that waits for its files is not sent for the next person', async () => {
    draft.belongTo(BINA)
    draft.write("Bina's")
    draft.belongTo(ASHA)
    draft.write("Asha's")
    draft.add([file('a.txt')])
    const sending = draft.send()
    draft.belongTo(BINA)
    expect(await sending).toBe(false)
    expect(sent).toEqual([])
    expect(draft.text).toBe("Bina's")
  })

  test('a message that waits for its files before the server has said whose it is is sent for that person only', async () => {
    for (const [next, kept, isSent] of [[ASHA, '', true], [BINA, 'before', false]] as const) {
      draft.belongTo(next)
      draft.write(kept)
      reload(undefined).write('Look')
      draft.add([file('a.txt')])
      const sending = draft.send()
      draft.belongTo(next)
      uploads.at(-1)!.end('stored')
      expect(await sending).toBe(isSent)
    }
    expect(sent).toEqual([['Look', { files: ['f0'] }]])
    // What the person had written before is not sent unasked.
    expect(draft.text).toBe('before\nLook')
    const gone = reload(undefined)
    gone.add([file('b.txt')])
    const sending = gone.send()
    gone.belongTo(ASHA)
    gone.belongTo(undefined)
    gone.write('Another one')
    gone.belongTo({ ...ASHA, playerId: 31 })
    expect(await sending).toBe(false)
    expect(sent).toHaveLength(1)
  })

  test('files that the server has deleted by then are left out', () => {
    vi.useFakeTimers({ now: Date.parse('2026-11-29T13:00:00Z') })
    draft.belongTo(ASHA)
    draft.write('Look')
    draft.add([file('a.txt')])
    uploads[0]!.end('stored')
    vi.setSystemTime(Date.parse('2026-11-30T12:00:00Z'))
    expect(reload(ASHA).files).toEqual([])
    expect(draft.text).toBe('Look')
  })

  test('a browser that keeps nothing, or something else, breaks nothing', () => {
    for (const broken of [undefined, { getItem: () => '{"text":1}', setItem: () => { throw new Error('full') }, removeItem: () => {} }, { ...storage, getItem: () => 'nonsense' }]) {
      vi.stubGlobal('sessionStorage', broken)
      reload(ASHA).write('Hello')
      expect(draft.text).toContain('Hello')
    }
  })
})
