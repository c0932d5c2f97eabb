/** Private notes: their order, gaps, their place between the messages, and that they never mix with replies. */

import { beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import type { Conversation } from '../src/conversation'
import { Drafts, storedForOthers } from '../src/drafts'
import { Notes } from '../src/notes'
import type { Files } from '../src/files'
import { kindOf, Outgoing, type OutgoingText } from '../src/outgoing'
import { describeRefusal } from '../src/refusals'
import { TaskScope } from '../src/scope'
import type { Message, Note, SessionEvent } from '../src/types'
import { rowsOf } from '../src/views/rows'

const AT = '2026-11-22T17:08:14.171Z'
const note = (n: number, afterSeq = 1, at = AT): Note =>
  ({ id: `n${n}`, session_id: 's', n, after_seq: afterSeq, staff_id: 's1', staff_name: 'Sam', text: `note ${n}`, created_at: at })
const message = (seq: number): Message => ({ id: `m${seq}`, seq, sender: 'player', timestamp: AT }) as Message
const apiError = (code: string, details = {}): ApiError => new ApiError(409, code, 'Refused.', 0, details)

beforeEach(() => {
  const items = new Map<string, string>()
  const storage = {
    getItem: (name: string) => items.get(name) ?? null,
    setItem: (name: string, value: string) => void (items.set(name, value), Object.assign(storage, { [name]: value })),
    removeItem: (name: string) => void (items.delete(name), delete (storage as Record<string, unknown>)[name]),
  }
  for (const name of ['getItem', 'setItem', 'removeItem']) Object.defineProperty(storage, name, { enumerable: false })
  vi.stubGlobal('sessionStorage', storage)
})

test('all pages are loaded, a known note is ignored, and a gap is loaded', async () => {
  const stored = [note(1), note(2), note(3)]
  const notes = vi.fn(async (_: string, afterN: number) => ({ notes: stored.filter(({ n }) => n > afterN).slice(0, 2), has_more: stored.length > afterN + 2 }))
  const list = new Notes('s', { notes } as unknown as Api, () => {})
  await list.load()
  expect(list.list.map(({ n }) => n)).toEqual([1, 2, 3])
  list.add(note(3))
  list.add(note(4))
  stored.push(note(4), note(5), note(6))
  list.add(note(6))
  await vi.waitFor(() => expect(list.list.map(({ n }) => n)).toEqual([1, 2, 3, 4, 5, 6]))
})

test('a note that arrives while notes are loaded is loaded too', async () => {
  const stored = [note(1), note(2), note(3)]
  const answers: (() => void)[] = []
  const notes = (_: string, afterN: number) => {
    const page = { notes: stored.filter(({ n }) => n > afterN), has_more: false }
    return new Promise<typeof page>((resolve) => answers.push(() => resolve(page)))
  }
  const list = new Notes('s', { notes } as unknown as Api, () => {})
  void list.load()
  // The server has read 1 to 3 before note 4 was stored; its frame overtakes that answer.
  stored.push(note(4))
  list.add(note(4))
  answers[0]!()
  await vi.waitFor(() => expect(answers.length).toBe(2))
  answers[1]!()
  await vi.waitFor(() => expect(list.list.map(({ n }) => n)).toEqual([1, 2, 3, 4]))
  expect(answers.length).toBe(2)
})

test('notes that could not be loaded are reported', async () => {
  let down = true
  const list = new Notes('s', {
    notes: async () => {
      if (down) throw new ApiError(503, 'unavailable', 'Not now.')
      return { notes: [note(1)], has_more: false }
    },
  } as unknown as Api, () => {})
  await list.load()
  expect(list.failed).toBe(true)
  down = false
  await list.load()
  expect([list.failed, list.list.length]).toEqual([false, 1])
})

test('a note is shown after the message that it follows, with events in the order of time; at one time the note is first', () => {
  const events = [
    { rev: 4, kind: 'transferred', at: '2026-11-22T17:08:15Z', after_seq: 6, staff_id: 's2', by_staff_id: 's1', data: { from: 's1' } } as SessionEvent,
  ]
  const list = [note(1, 3), note(2, 5), note(3, 6), note(4, 6, '2026-11-22T17:08:15Z'), note(5, 6, '2026-11-22T17:08:16Z')]
  const conversation = { messages: [message(5), message(6)], loaded: true, hasOlder: true, unreadFrom: 0, story: { events }, notes: { list } }
  const keys = (): string[] => rowsOf(conversation as unknown as Conversation, []).map(({ key }) => key).filter((key) => !key.startsWith('day'))
  expect(keys()).toEqual(['m5', 'n2', 'm6', 'n3', 'n4', 'event-4', 'n5'])
  // Older messages were deleted: their notes are still shown.
  conversation.hasOlder = false
  expect(keys()).toEqual(['n1', 'm5', 'n2', 'm6', 'n3', 'n4', 'event-4', 'n5'])
})

test('a note goes to the notes and a reply to the replies', async () => {
  const calls: unknown[][] = []
  const api = {
    now: () => 0,
    reply: async (session: string, { text, afterSeq }: OutgoingText) => (calls.push(['reply', session, text, afterSeq]), Promise.reject(apiError('session_moved', { by: 's2', seq: 9 }))),
    addNote: async (...args: unknown[]) => (calls.push(['note', args[0], args[2]]), Promise.reject(apiError('note_empty'))),
  } as unknown as Api
  const failed: string[][] = []
  const listener = {
    onMessage: () => {}, onNote: () => {}, onChange: () => {},
    onFailed: (text: OutgoingText, error: string) => void failed.push([kindOf(text), text.text, error]),
    describe: (error: unknown) => describeRefusal(error, (id) => ({ s2: 'Sue' })[id] ?? id),
  }
  const files = { sendWith: (_: string, __: unknown, send: () => unknown) => send(), drafts: { take: () => [] } } as unknown as Files
  const open = (): Outgoing => new Outgoing(api, new TaskScope(), 's1', new Drafts('s1'), files, listener)
  const outgoing = open()
  outgoing.resume('s1')
  outgoing.sendReply({ id: 's', contiguousSeq: 8 }, 'a reply', 'Asha')
  outgoing.sendNote('s', 'a note', 'Asha')
  await vi.waitFor(() => expect(outgoing.failed.length).toBe(2))
  expect(calls).toEqual([['reply', 's', 'a reply', 8], ['note', 's', 'a note']])
  expect(failed).toEqual([['reply', 'a reply', 'Sue has answered meanwhile: read, then send again.'], ['note', 'a note', 'Refused.']])
  // After a reload each is what it was, with the seq that its author had seen; reading further changes it.
  const restored = open()
  expect([restored.countOf('reply'), restored.countOf('note')]).toEqual([1, 1])
  const [reply] = restored.of('s')
  expect(reply).toMatchObject({ text: 'a reply', afterSeq: 8, data: { playerName: 'Asha' } })
  restored.resume('s1')
  restored.retry({ id: 's', contiguousSeq: 9 }, reply!)
  await vi.waitFor(() => expect(calls.at(-1)).toEqual(['reply', 's', 'a reply', 9]))
  expect(calls).toHaveLength(3)
  expect(storedForOthers('s2')).toEqual([{ staffId: 's1', replies: 1, notes: 1, drafts: 0 }])
  expect(storedForOthers('s1')).toEqual([])
})

test('drafts of a session are separate by kind', () => {
  const drafts = new Drafts('s1')
  drafts.set('s', 'a reply')
  drafts.set('s', 'a note', 'note')
  drafts.append('s', 'more')
  expect([drafts.get('s'), drafts.get('s', 'note'), drafts.get('s', 'hand-over'), drafts.count]).toEqual(['a reply\nmore', 'a note', '', 2])
  expect(new Drafts('s2').get('s', 'note')).toBe('')
  const unowned = new Drafts('')
  unowned.set('s', 'early', 'note')
  unowned.setOwner('s3')
  expect([unowned.get('s', 'note'), new Drafts('s3').get('s', 'note'), unowned.get('s')]).toEqual(['early', 'early', ''])
})

test.each([
  [apiError('session_taken', { by: 's2' }), 'Sue has this conversation now.'],
  [apiError('session_taken', { by: null }), 'A colleague has this conversation now.'],
  [apiError('session_closed'), 'Refused.'],
  [new Error('x'), 'That did not work.'],
])('%o', (error, text) => {
  expect(describeRefusal(error, (id) => ({ s2: 'Sue' })[id] ?? id)).toBe(text)
})
