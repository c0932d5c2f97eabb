/** The order of messages, and replies until they are stored. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { Conversation } from '../src/conversation'
import { Life } from '../src/life'
import { Outbox, type Outgoing } from '../src/outbox'
import type { Message } from '../src/types'

const message = (seq: number, status: Message['status'] = 'sent'): Message =>
  ({ id: `m${seq}`, seq, session_id: 's', sender: 'staff', status }) as Message

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('messages are put in order once, and a mark never goes back', () => {
  const open = new Conversation('s', {} as Api, new Life(), () => {}, () => {})
  open.take([message(3), message(1), message(3, 'read'), message(3, 'delivered')])
  expect(open.messages.map(({ seq, status }) => [seq, status])).toEqual([[1, 'sent'], [3, 'read']])
  expect(open.upTo).toBe(1)
})

test('a hole that does not close by itself is asked for', async () => {
  const asked = vi.fn(async () => ({ session: {}, messages: [message(2)], has_more: false }))
  const open = new Conversation('s', { messages: asked } as unknown as Api, new Life(), () => {}, () => {})
  open.take([message(1), message(3)])
  expect(asked).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(1000)
  expect(asked).toHaveBeenCalledWith('s', { limit: 100, after_seq: 1 })
  expect(open.upTo).toBe(3)
})

function outbox(reply: (session: string, id: string, text: string) => Promise<unknown>) {
  const failed: Outgoing[] = []
  const api = { now: () => 0, reply } as unknown as Api
  const life = new Life()
  const listener = { stored: () => {}, failed: (_: string, one: Outgoing) => void failed.push(one), changed: () => {} }
  return { box: new Outbox(api, life, '', listener), failed, life }
}

test('a reply without an answer is sent again after 1, 3 and 6 s under one id, before the next reply', async () => {
  const sent: string[][] = []
  const { box } = outbox(async (_, id, text) => {
    sent.push([id, text])
    if (sent.length < 4) throw new ApiError(0, 'unreachable', 'No answer.')
    return { message: message(1) }
  })
  box.send('s', 'first', 'Asha')
  box.send('s', 'second', 'Asha')
  await vi.advanceTimersByTimeAsync(9_999)
  expect(sent.map(([, text]) => text)).toEqual(['first', 'first', 'first'])
  await vi.advanceTimersByTimeAsync(1)
  expect(sent.map(([, text]) => text)).toEqual(['first', 'first', 'first', 'first', 'second'])
  expect(new Set(sent.map(([id]) => id)).size).toBe(2)
  expect(box.count).toBe(0)
})

test('a refused reply fails at once and stays until it is removed', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(409, 'session_closed', 'Closed.')))
  const { box, failed } = outbox(reply)
  box.send('s', 'text', 'Asha')
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
  expect(failed.map(({ error, transient }) => [error, transient])).toEqual([['Closed.', false]])
  box.remove('s', failed[0]!.id)
  expect([box.count, box.failedCount]).toEqual([0, 0])
})

test('nothing is sent after the end of the person\'s session', async () => {
  const reply = vi.fn(() => Promise.reject(new ApiError(0, 'unreachable', 'No answer.')))
  const { box, life } = outbox(reply)
  box.send('s', 'text', 'Asha')
  await vi.advanceTimersByTimeAsync(500)
  life.end()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(reply).toHaveBeenCalledTimes(1)
})
