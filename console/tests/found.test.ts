/** The search of messages: words marked, excerpts, what is asked for, and the pages. */

import { expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { excerptOf, markWords } from '../src/found-text'
import { MessageSearch } from '../src/message-search'
import type { FoundMessage } from '../src/types'

const marked = (text: string, query: string): string => markWords(text, query).map((part) => (part.marked ? `[${part.text}]` : part.text)).join('')

test.each([
  ['Where is my refund?', 'refund', 'Where is my [refund]?'],
  ['REFUND refunds', 'Refund', '[REFUND] [refund]s'],
  ['The refund is late', 'late refund', 'The [refund] is [late]'],
  ['refunded', 'ref refund', '[refund]ed'],
  ['50% (of *it*) a.b \\d [x]', '50% (of *it*) a.b \\d [x]', '[50%] [(of] [*it*)] [a.b] [\\d] [[x]]'],
  ['aab a.b', 'a.b', 'aab [a.b]'],
  ['İstanbul ÇAY çay', 'çay', 'İstanbul [ÇAY] [çay]'],
  ['牌桌几点开？', '几点', '牌桌[几点]开？'],
  ['<b>refund</b>', '<b>', '[<b>]refund</b>'],
  ['nothing', 'refund', 'nothing'],
  ['nothing', '  ', 'nothing'],
  ['', 'refund', ''],
])('in %j the words %j are marked', (text, query, expected) => {
  expect(marked(text, query)).toBe(expected)
  expect(markWords(text, query).map((part) => part.text).join('')).toBe(text)
})

test('of a long text the part around the first word is shown', () => {
  const words = 'lorem ipsum '.repeat(100)
  expect(excerptOf('short refund', 'refund')).toBe('short refund')
  for (const before of ['', words, '💠'.repeat(500)]) {
    const excerpt = excerptOf(`${before}The Refund is late. ${words}`, 'refund')
    expect(excerpt).toContain('Refund is late.')
    expect(excerpt.length).toBeLessThan(350)
    expect(excerpt.endsWith(' …')).toBe(true)
    expect(excerpt.startsWith('… ')).toBe(before !== '')
    // No half of a character.
    expect(excerpt).not.toMatch(/^… [\uDC00-\uDFFF]|[\uD800-\uDBFF] …$/)
  }
  expect(excerptOf(`${words}at the very end: refund`, 'refund').endsWith('end: refund')).toBe(true)
})

const found = (id: string): FoundMessage => ({ id }) as FoundMessage
const searchWith = (search: Api['search'] | ReturnType<typeof vi.fn>) =>
  new MessageSearch({ search } as unknown as Api, (error) => (error as ApiError).message, () => {})

test('a search is sent when it is started, with its filters, and pages are appended', async () => {
  const pages = [
    { messages: [found('a'), found('b')], next: 'two' },
    { messages: [], next: 'three' },
    { messages: [found('b'), found('c')], next: null },
  ]
  const request = vi.fn(async () => pages.shift())
  const search = searchWith(request)
  search.change({ text: ' refund late ', player: '#29', staffId: 's1', from: '2026-11-01', to: '2026-11-30' })
  expect([request.mock.calls.length, search.state]).toEqual([0, 'idle'])
  await search.start()
  const query = {
    q: 'refund late', player: '29', staff: 's1',
    // The last day is included.
    from: new Date(2026, 10, 1).toISOString(), to: new Date(2026, 11, 1).toISOString(),
  }
  expect([search.state, search.words, search.hasMore]).toEqual(['done', 'refund late', true])
  await search.loadMore()
  expect([search.lastPageSize, search.hasMore]).toEqual([0, true])
  await search.loadMore()
  expect([search.results.map(({ id }) => id), search.hasMore]).toEqual([['a', 'b', 'c'], false])
  expect(request.mock.calls).toEqual([[{ ...query, cursor: null }], [{ ...query, cursor: 'two' }], [{ ...query, cursor: 'three' }]])
})

test.each([
  [{ text: 'x' }, '2 to 100'],
  [{ text: ' ' }, '2 to 100'],
  [{ text: 'x'.repeat(101) }, '2 to 100'],
  [{ text: 'refund', player: 'Asha' }, 'a number'],
])('%j is not sent', async (fields, reason) => {
  const request = vi.fn()
  const search = searchWith(request)
  search.change(fields)
  await search.start()
  expect([search.state, search.canRetry, search.hasMore, request.mock.calls.length]).toEqual(['failed', false, false, 0])
  expect(search.error).toContain(reason)
})

test('after a refusal what was found stays, and the same page is asked for again', async () => {
  const request = vi.fn()
  const search = searchWith(request)
  request.mockResolvedValueOnce({ messages: [found('a')], next: 'two' })
  await search.startWith('refund')
  request.mockRejectedValueOnce(new ApiError(429, 'too_many_reads', 'Too fast.', 3))
  await search.loadMore()
  expect([search.state, search.error, search.canRetry, search.results.length]).toEqual(['failed', 'Too fast. Try again in 3 s.', true, 1])
  request.mockRejectedValueOnce(new ApiError(0, 'unreachable', 'The server does not answer.'))
  await search.loadMore()
  expect([search.error, search.canRetry]).toEqual(['The server does not answer.', true])
  request.mockResolvedValueOnce({ messages: [found('b')], next: null })
  await search.loadMore()
  expect([search.state, search.results.length, request.mock.lastCall]).toEqual(['done', 2, [{ q: 'refund', cursor: 'two' }]])
  request.mockRejectedValueOnce(new ApiError(400, 'query_invalid', 'Other words.'))
  await search.start()
  expect([search.error, search.canRetry, search.results.length]).toEqual(['Other words.', false, 0])
})

test('the page of an earlier search is dropped', async () => {
  const answers: ((page: unknown) => void)[] = []
  const search = searchWith(() => new Promise((resolve) => answers.push(resolve as never)) as never)
  const first = search.startWith('first')
  const second = search.startWith('second')
  answers[1]!({ messages: [found('2')], next: null })
  await second
  answers[0]!({ messages: [found('1')], next: 'x' })
  await first
  expect([search.results.map(({ id }) => id), search.hasMore, search.words]).toEqual([['2'], false, 'second'])
})
