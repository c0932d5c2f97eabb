/** The order of messages. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Api } from '../src/api'
import { Conversation } from '../src/conversation'
import { TaskScope } from '../src/scope'
import type { Message } from '../src/types'

const message = (seq: number, status: Message['status'] = 'sent'): Message =>
  ({ id: `m${seq}`, seq, session_id: 's', sender: 'staff', status, created_at: '2026-11-22T17:08:14.171Z' }) as Message

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** A conversation with its first page; `request` answers what is asked for after it. */
async function opened(messages: Message[], request = async (): Promise<unknown> => ({ session: {}, messages: [], has_more: false })) {
  const answers = [async (): Promise<unknown> => ({ session: {}, messages, has_more: false })]
  const api = { messages: (...given: []) => (answers.shift() ?? request)(...given), notes: async () => ({ notes: [], has_more: false }), events: async () => ({ events: [], has_more: false }) }
  const conversation = new Conversation('s', api as unknown as Api, new TaskScope(), () => {}, () => {}, () => {})
  await conversation.refresh()
  return conversation
}

test('messages are sorted and deduplicated, and a status never goes back', async () => {
  const conversation = await opened([message(1)])
  for (const received of [message(3), message(1), message(2), message(3, 'read'), message(3, 'delivered')]) conversation.receive(received)
  expect(conversation.messages.map(({ seq, status }) => [seq, status])).toEqual([[1, 'sent'], [2, 'sent'], [3, 'read']])
  expect(conversation.contiguousSeq).toBe(3)
})

test("the user's own message is shown at once, though one before it is missing; the player's waits for it", async () => {
  const conversation = await opened([message(1)])
  conversation.receive(message(3))
  conversation.receive({ ...message(4), sender: 'player' })
  expect(conversation.messages.map(({ seq }) => seq)).toEqual([1, 3])
  expect(conversation.contiguousSeq).toBe(1)
  conversation.receive(message(2))
  expect(conversation.messages.map(({ seq }) => seq)).toEqual([1, 2, 3, 4])
  expect(conversation.contiguousSeq).toBe(4)
})

test('a missing message that does not arrive is requested', async () => {
  const request = vi.fn(async () => ({ session: {}, messages: [message(2), message(3)], has_more: false }))
  const conversation = await opened([message(1)], request)
  conversation.receive(message(3))
  expect(request).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(1000)
  expect(request).toHaveBeenCalledWith('s', { limit: 500, after_seq: 1 })
  expect(conversation.contiguousSeq).toBe(3)
})

test('a message that arrives before the first page is shown with it', async () => {
  let answer = (): void => {}
  const request = () => new Promise((resolve) => (answer = () => resolve({ session: {}, messages: [message(1), message(2)], has_more: false })))
  const api = { messages: request, notes: async () => ({ notes: [], has_more: false }), events: async () => ({ events: [], has_more: false }) }
  const conversation = new Conversation('s', api as unknown as Api, new TaskScope(), () => {}, () => {}, () => {})
  const loading = conversation.refresh()
  await vi.advanceTimersByTimeAsync(0)
  // The server has read the page before message 3 was stored; its frame overtakes the answer.
  conversation.receive(message(3))
  expect(conversation.messages).toEqual([])
  answer()
  await loading
  expect(conversation.messages.map(({ seq }) => seq)).toEqual([1, 2, 3])
  conversation.receive(message(4))
  expect(conversation.contiguousSeq).toBe(4)
})
