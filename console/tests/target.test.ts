/** A conversation that is opened at one of its messages. */

import { afterEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { Conversation } from '../src/conversation'
import { TaskScope } from '../src/scope'
import type { Message, Session } from '../src/types'

afterEach(() => void vi.useRealTimers())

const AT = '2026-11-22T17:08:14.171Z'
const message = (seq: number): Message => ({ id: `m${seq}`, seq, session_id: 's', sender: 'player', timestamp: AT, created_at: AT }) as Message

/** A conversation of a session with messages 1 to `last`, without those in `deleted`. */
function conversationAt(seq: number | undefined, last: number, deleted: number[] = []) {
  const stored = Array.from({ length: last }, (_, n) => message(n + 1)).filter(({ seq: one }) => !deleted.includes(one))
  const messages = vi.fn(async (_: string, { limit = 100, before_seq: before = Infinity }) => {
    const page = stored.filter((one) => one.seq < before)
    return { messages: page.slice(-limit), has_more: page.length > limit, session: { status: 'active', rev: 1 } as Session }
  })
  const api = { messages, notes: async () => ({ notes: [], has_more: false }), events: async () => ({ events: [], has_more: false }) }
  const position = vi.fn()
  const conversation = new Conversation('s', api as unknown as Api, new TaskScope(), () => {}, () => {}, position, seq)
  return { conversation, messages, position }
}

test('older pages are loaded until the message is there', async () => {
  const { conversation, messages } = conversationAt(150, 1500)
  await conversation.findTarget(() => true)
  expect(messages.mock.calls.length).toBe(0)
  await conversation.refresh()
  await conversation.findTarget(() => true)
  expect(conversation.target?.message.id).toBe('m150')
  expect(messages.mock.calls.map(([, { before_seq: before, limit }]) => [before, limit])).toEqual([[undefined, 100], [1401, 500], [901, 500], [401, 500]])
  // The same again is a new target: the view is positioned again, without a request.
  const { target } = conversation
  await conversation.seek(150, () => true)
  expect([conversation.target === target, conversation.target?.message.id, messages.mock.calls.length]).toEqual([false, 'm150', 4])
})

test('in place of a deleted message the next one is the target', async () => {
  const { conversation } = conversationAt(2, 5, [2, 3])
  await conversation.refresh()
  await conversation.findTarget(() => true)
  expect(conversation.target?.message.id).toBe('m4')
  await conversation.seek(9, () => true)
  expect(conversation.target).toBeUndefined()
})

test('nothing more is loaded after another conversation was opened, and after a failure it is tried again', async () => {
  const { conversation, messages } = conversationAt(1, 1500)
  await conversation.refresh()
  await conversation.findTarget(() => false)
  expect([messages.mock.calls.length, conversation.target]).toEqual([1, undefined])
  messages.mockRejectedValueOnce(new ApiError(503, 'unavailable', 'Later.'))
  await conversation.findTarget(() => true)
  expect([conversation.error, conversation.target]).toEqual(['Later.', undefined])
  await conversation.refresh()
  await conversation.findTarget(() => true)
  expect(conversation.target?.message.id).toBe('m1')
})

test('messages that could not be read are read again by themselves, and the view is positioned then', async () => {
  vi.useFakeTimers()
  const { conversation, messages, position } = conversationAt(undefined, 5)
  messages.mockRejectedValueOnce(new ApiError(503, 'unavailable', 'Later.'))
  await conversation.refresh()
  expect([conversation.loaded, conversation.error]).toEqual([false, 'Later.'])
  position.mockClear()
  await vi.advanceTimersByTimeAsync(1000)
  expect([conversation.loaded, conversation.error, conversation.messages.length]).toEqual([true, '', 5])
  expect(position).toHaveBeenCalledTimes(1)
})

test('nothing is read again by itself once another conversation is open', async () => {
  vi.useFakeTimers()
  const { conversation, messages } = conversationAt(undefined, 5)
  messages.mockRejectedValueOnce(new ApiError(503, 'unavailable', 'Later.'))
  await conversation.refresh()
  conversation.close()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(messages).toHaveBeenCalledTimes(1)
})

test('an older page that cannot be read changes nothing that is shown, so that the view does not ask for it at once', async () => {
  const { conversation, messages } = conversationAt(undefined, 500)
  await conversation.refresh()
  const { version } = conversation
  messages.mockRejectedValueOnce(new ApiError(503, 'unavailable', 'Later.'))
  await conversation.loadOlder()
  expect([conversation.error, conversation.version]).toEqual(['Later.', version])
  await conversation.loadOlder()
  expect([conversation.error, conversation.messages.length, conversation.version > version]).toEqual(['', 200, true])
})
