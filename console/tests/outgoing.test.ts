/** Unsent replies: sent in order, by their author only, and never lost. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { Drafts, storedForOthers } from '../src/drafts'
import type { Files } from '../src/files'
import { Outgoing, type OutgoingText } from '../src/outgoing'
import { TaskScope } from '../src/scope'
import { getItem, itemNames, setItem } from '../src/storage'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  for (const name of itemNames('')) setItem(name, null)
})

const away = (): ApiError => new ApiError(503, 'unavailable', 'Not now.')

/** A page whose server answers with what `reply` does; the server has said that the user is `identified`. */
function page(reply: (text: OutgoingText) => Promise<unknown>, { owner = 's1', identified }: { owner?: string; identified?: string } = {}) {
  const failed: OutgoingText[] = []
  const scope = new TaskScope()
  const listener = {
    onMessage: () => {}, onNote: () => {}, onChange: () => {},
    onFailed: (text: OutgoingText) => void failed.push(text),
    describe: (error: unknown) => (error as Error).message,
  }
  const files = {
    drafts: { take: () => [] },
    uploads: { forget: () => {} },
    sendWith: (_: string, __: unknown, send: () => unknown) => send(),
  } as unknown as Files
  const api = { now: () => 0, reply: (_: string, text: OutgoingText) => reply(text), addNote: (_: string, id: string, text: string) => reply({ id, text } as OutgoingText) }
  const outgoing = new Outgoing(api as unknown as Api, scope, owner, new Drafts(owner), files, listener)
  if (identified !== '') outgoing.resume(identified ?? owner)
  const send = (text: string, id = 's'): void => outgoing.sendReply({ id, contiguousSeq: 1 }, text, 'Asha')
  return { outgoing, send, failed, scope }
}

test('a reply without a response is sent again with the same id, before the next reply', async () => {
  const sent: string[][] = []
  const { outgoing, send } = page(async ({ id, text }) => {
    sent.push([id, text])
    if (sent.length < 4) throw new ApiError(0, 'unreachable', 'No answer.')
    return { message: {} }
  })
  send('first')
  send('second')
  await vi.advanceTimersByTimeAsync(400)
  expect(sent.map(([, text]) => text)).toEqual(['first'])
  // At most 1, 2 and 4 s after each other.
  await vi.advanceTimersByTimeAsync(7000)
  expect(sent.map(([, text]) => text)).toEqual(['first', 'first', 'first', 'first', 'second'])
  expect(new Set(sent.map(([id]) => id)).size).toBe(2)
  expect(outgoing.count).toBe(0)
})

test('no reply is sent before an earlier one that is retried automatically', async () => {
  const sent: string[] = []
  let reachable = false
  const { outgoing, send, failed } = page(async ({ text }) => {
    if (!reachable) throw away()
    sent.push(text)
    return { message: {} }
  })
  send('first')
  send('second')
  await vi.advanceTimersByTimeAsync(20_000)
  expect(failed.map(({ text }) => text)).toEqual(['first'])
  expect(outgoing.failed).toMatchObject([{ text: 'first', state: 'waiting', error: { message: 'Not now.' } }])
  await vi.advanceTimersByTimeAsync(60_000)
  expect(failed).toHaveLength(1)
  reachable = true
  await vi.advanceTimersByTimeAsync(15_000)
  expect(sent).toEqual(['first', 'second'])
})

test('the next reply is sent when the earlier one is refused, or discarded by the user', async () => {
  const sent: string[] = []
  let error = away()
  const { outgoing, send, failed } = page(async ({ text }) => {
    if (text === 'first') throw error
    sent.push(text)
    return { message: {} }
  })
  send('first')
  send('second')
  await vi.advanceTimersByTimeAsync(20_000)
  expect(sent).toEqual([])
  outgoing.drop(failed[0]!)
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['second'])
  error = new ApiError(403, 'not_allowed', 'No.')
  send('first')
  send('third')
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['second', 'third'])
  expect(outgoing.failed).toHaveLength(1)
})

test('a reply that is discarded while it is sent is not overtaken by the next', async () => {
  const sent: string[] = []
  const ends: ((error: ApiError) => void)[] = []
  const { outgoing, send, failed } = page(({ text }) => {
    sent.push(text)
    return new Promise((_, reject) => ends.push(reject))
  })
  send('first')
  send('second')
  send('to another', 's2')
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['first', 'to another'])
  outgoing.drop(outgoing.of('s')[0]!)
  await vi.advanceTimersByTimeAsync(1000)
  expect(sent).toEqual(['first', 'to another'])
  expect(outgoing.of('s').map(({ text }) => text)).toEqual(['second'])
  ends[0]!(away())
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['first', 'to another', 'second'])
  expect(failed).toEqual([])
})

test('a rejected reply fails at once and stays until it is removed', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(409, 'session_closed', 'Closed.')))
  const { outgoing, send, failed } = page(reply)
  send('text')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
  expect(failed).toHaveLength(1)
  expect(outgoing.failed).toMatchObject([{ state: 'refused', error: { message: 'Closed.' } }])
  outgoing.drop(failed[0]!)
  expect([outgoing.count, outgoing.failed.length]).toEqual([0, 0])
})

test('nothing is sent after the sign-out', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(0, 'unreachable', 'No answer.')))
  const { send, scope } = page(reply)
  send('text')
  await vi.advanceTimersByTimeAsync(100)
  scope.close()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
})

test('a request that ends with the sign-out is not repeated, and its reply is sent after the next sign-in', async () => {
  let end = (_: ApiError): void => {}
  const reply = vi.fn(() => new Promise((_, reject) => (end = reject)))
  const { send, scope } = page(reply)
  send('text')
  await vi.advanceTimersByTimeAsync(0)
  scope.close()
  end(new ApiError(0, 'signed_out', 'You are signed out.'))
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
  const sent: string[] = []
  page(async ({ text }) => (sent.push(text), { message: {} }))
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['text'])
  expect(itemNames('')).toEqual([])
})

test('what is discarded at the sign-out is not sent', async () => {
  const sent: string[] = []
  const { outgoing, send } = page(({ text }) => (sent.push(text), Promise.reject(away())))
  send('first')
  send('second')
  await vi.advanceTimersByTimeAsync(0)
  outgoing.discard()
  expect(outgoing.count).toBe(0)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(sent).toEqual(['first'])
  expect(itemNames('')).toEqual([])
})

test('nothing is sent before the server has said who the user is, and then only what is theirs', async () => {
  const sent: string[] = []
  const reply = async ({ text }: OutgoingText): Promise<unknown> => (sent.push(text), { message: {} })
  const early = page(reply, { owner: '', identified: '' })
  early.send('early')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(sent).toEqual([])
  expect(early.outgoing.of('s')).toMatchObject([{ text: 'early' }])
  early.outgoing.resume('s1')
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['early'])
  const other = page(reply, { identified: '' })
  other.send('of s1')
  other.outgoing.resume('s2')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(sent).toEqual(['early'])
  expect(other.outgoing.count).toBe(0)
  expect(storedForOthers('s2')).toEqual([{ staffId: 's1', replies: 1, notes: 0, drafts: 0 }])
  other.outgoing.resume('s1')
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['early', 'of s1'])
})

test('a text that was written before the server had said who the user is survives a reload, and is sent only if somebody says so', async () => {
  const sent: string[] = []
  const reply = async ({ text }: OutgoingText): Promise<unknown> => (sent.push(text), { message: {} })
  const { send, scope } = page(reply, { owner: '', identified: '' })
  send('whose?')
  scope.close()
  const { outgoing } = page(reply, { owner: '', identified: 's2' })
  await vi.advanceTimersByTimeAsync(60_000)
  expect(sent).toEqual([])
  expect(storedForOthers('s2')).toEqual([])
  expect(outgoing.failed).toMatchObject([{ text: 'whose?', state: 'refused' }])
  outgoing.retry({ id: 's', contiguousSeq: 2 }, outgoing.of('s')[0]!)
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['whose?'])
  expect(itemNames('')).toEqual([])
})

test('texts that an earlier version of the page has kept in the tab are sent in their order, by their author', async () => {
  const at = Date.parse('2026-11-29T12:00:00Z')
  const text = (id: string, more = {}): object => ({ id, text: `text ${id}`, playerName: 'Asha', createdAt: at, state: 'sending', error: '', transient: false, afterSeq: 7, ...more })
  const refused = text('r', { state: 'failed', error: 'Closed.', files: [{ id: 'f', name: 'a.jpg', type: 'image/jpeg', bytes: 4, alt: '' }] })
  setItem('gre.replies.s%201', JSON.stringify({ s: [text('b'), text('a', { createdAt: at - 1, state: 'failed', transient: true, error: 'Not now.' })], s2: [refused] }))
  setItem('gre.notes.s%201', JSON.stringify({ s: [text('n', { afterSeq: undefined })] }))
  setItem('gre.replies.s2', JSON.stringify({ s: [text('x')] }))
  setItem('gre.notes.s3', 'not JSON')
  setItem('gre.notes.s4', JSON.stringify({ s: [{ id: 'y', text: 'without a time' }] }))
  const sent: unknown[] = []
  const { outgoing } = page(async ({ id, afterSeq }) => (sent.push([id, afterSeq]), { message: {} }), { owner: 's 1' })
  expect(outgoing.of('s2')).toMatchObject([{ id: 'r', state: 'refused', error: { message: 'Closed.' }, files: ['f'], data: { at, playerName: 'Asha', files: [{ name: 'a.jpg' }] } }])
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual([['b', 7], ['n', undefined], ['a', 7]])
  expect(outgoing.count).toBe(1)
  expect(storedForOthers('s 1')).toEqual([{ staffId: 's2', replies: 1, notes: 0, drafts: 0 }])
  expect(getItem('gre.notes.s3')).toBe('not JSON')
  expect(getItem('gre.notes.s4')).toContain('without a time')
  expect(itemNames('gre.replies.')).toEqual([])
})
