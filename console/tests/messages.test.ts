/** The order of messages, and unsent replies. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { Conversation } from '../src/conversation'
import { UnsentReplies, type OutgoingReply } from '../src/unsent-replies'
import { TaskScope } from '../src/scope'
import type { Message } from '../src/types'

const message = (seq: number, status: Message['status'] = 'sent'): Message =>
  ({ id: `m${seq}`, seq, session_id: 's', sender: 'staff', status }) as Message

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('messages are sorted and deduplicated, and a status never goes back', () => {
  const conversation = new Conversation('s', {} as Api, new TaskScope(), () => {}, () => {})
  conversation.addMessages([message(3), message(1), message(3, 'read'), message(3, 'delivered')])
  expect(conversation.messages.map(({ seq, status }) => [seq, status])).toEqual([[1, 'sent'], [3, 'read']])
  expect(conversation.contiguousSeq).toBe(1)
})

test('a missing message that does not arrive is requested', async () => {
  const request = vi.fn(async () => ({ session: {}, messages: [message(2)], has_more: false }))
  const conversation = new Conversation('s', { messages: request, events: async () => ({ events: [], has_more: false }) } as unknown as Api, new TaskScope(), () => {}, () => {})
  conversation.addMessages([message(1), message(3)])
  expect(request).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(1000)
  expect(request).toHaveBeenCalledWith('s', { limit: 100, after_seq: 1 })
  expect(conversation.contiguousSeq).toBe(3)
})

test('a message that arrives before the first page is shown with it', async () => {
  let answer = (): void => {}
  const request = () => new Promise((resolve) => (answer = () => resolve({ session: {}, messages: [message(1), message(2)], has_more: false })))
  const api = { messages: request, notes: async () => ({ notes: [], has_more: false }), events: async () => ({ events: [], has_more: false }) }
  const conversation = new Conversation('s', api as unknown as Api, new TaskScope(), () => {}, () => {})
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

function unsentReplies(reply: (session: string, id: string, text: string, afterSeq?: number) => Promise<unknown>) {
  const failed: OutgoingReply[] = []
  const delivery = {
    now: () => 0, storageKey: (owner: string) => `test.${owner}`,
    store: (session: string, { id, text, afterSeq }: OutgoingReply) => reply(session, id, text, afterSeq),
  }
  const scope = new TaskScope()
  const listener = {
    onStored: () => {}, onFailed: (_: string, reply: OutgoingReply) => void failed.push(reply), onChange: () => {},
    describe: (error: unknown) => (error as Error).message,
  }
  return { replies: new UnsentReplies(delivery, scope, '', listener), failed, scope }
}

test('a reply without a response is sent again after 1, 3 and 6 s with the same id, before the next reply', async () => {
  const sent: string[][] = []
  const { replies } = unsentReplies(async (_, id, text) => {
    sent.push([id, text])
    if (sent.length < 4) throw new ApiError(0, 'unreachable', 'No answer.')
    return { message: message(1) }
  })
  replies.send('s', 'first', 'Asha')
  replies.send('s', 'second', 'Asha')
  await vi.advanceTimersByTimeAsync(9_999)
  expect(sent.map(([, text]) => text)).toEqual(['first', 'first', 'first'])
  await vi.advanceTimersByTimeAsync(1)
  expect(sent.map(([, text]) => text)).toEqual(['first', 'first', 'first', 'first', 'second'])
  expect(new Set(sent.map(([id]) => id)).size).toBe(2)
  expect(replies.count).toBe(0)
})

test('no reply is sent before an earlier one that is retried automatically', async () => {
  const sent: string[] = []
  let reachable = false
  const { replies, failed } = unsentReplies(async (_, _id, text) => {
    if (!reachable) throw new ApiError(503, 'unavailable', 'Not now.')
    sent.push(text)
    return { message: message(1) }
  })
  replies.send('s', 'first', 'Asha')
  replies.send('s', 'second', 'Asha')
  await vi.advanceTimersByTimeAsync(20_000)
  expect(failed.map(({ text }) => text)).toEqual(['first'])
  reachable = true
  await vi.advanceTimersByTimeAsync(15_000)
  expect(sent).toEqual(['first', 'second'])
})

test('the next reply is sent when the earlier one is refused, or discarded by the user', async () => {
  const sent: string[] = []
  let error = new ApiError(503, 'unavailable', 'Not now.')
  const { replies, failed } = unsentReplies(async (_, _id, text) => {
    if (text === 'first') throw error
    sent.push(text)
    return { message: message(1) }
  })
  replies.send('s', 'first', 'Asha')
  replies.send('s', 'second', 'Asha')
  await vi.advanceTimersByTimeAsync(20_000)
  expect(sent).toEqual([])
  replies.remove('s', failed[0]!.id)
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['second'])
  error = new ApiError(403, 'not_allowed', 'No.')
  replies.send('s', 'first', 'Asha')
  replies.send('s', 'third', 'Asha')
  await vi.advanceTimersByTimeAsync(0)
  expect(sent).toEqual(['second', 'third'])
  expect(replies.failedCount).toBe(1)
})

test('a rejected reply fails at once and stays until it is removed', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(409, 'session_closed', 'Closed.')))
  const { replies, failed } = unsentReplies(reply)
  replies.send('s', 'text', 'Asha')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
  expect(failed.map(({ error, transient }) => [error, transient])).toEqual([['Closed.', false]])
  replies.remove('s', failed[0]!.id)
  expect([replies.count, replies.failedCount]).toEqual([0, 0])
})

test('nothing is sent after the sign-out', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(0, 'unreachable', 'No answer.')))
  const { replies, scope } = unsentReplies(reply)
  replies.send('s', 'text', 'Asha')
  await vi.advanceTimersByTimeAsync(500)
  scope.close()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
})

test('a request that ends with the sign-out is not repeated', async () => {
  let end = (_: ApiError): void => {}
  const reply = vi.fn(() => new Promise((_, reject) => (end = reject)))
  const { replies, scope } = unsentReplies(reply)
  replies.send('s', 'text', 'Asha')
  scope.close()
  end(new ApiError(0, 'unreachable', 'No answer.'))
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
})
