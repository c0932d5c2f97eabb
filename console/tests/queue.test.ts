/** The list of sessions when an answer of REST and the socket cross. */

import { expect, test } from 'vitest'

import type { Api } from '../src/api'
import { Queue } from '../src/queue'
import { TaskScope } from '../src/scope'
import type { Message, QueuedSession } from '../src/types'

const session = (more: Partial<QueuedSession>): QueuedSession =>
  ({ id: 's', player_id: 29, player_name: 'Asha', status: 'active', rev: 1, last_seq: 1, unread_by_staff: 0, waiting_since: null, created_at: '', ...more }) as QueuedSession

test('the state of a session that was read before its last message is read again', async () => {
  const answers = [session({ rev: 5, last_seq: 1 }), session({ rev: 6, last_seq: 2 })]
  const api = { queue: async () => ({ sessions: [answers.shift()!], next: null }) } as unknown as Api
  const scope = new TaskScope()
  const queue = new Queue(api, scope, () => 's1', () => {}, () => undefined)
  queue.applySession(session({ status: 'closed', rev: 4 }))
  // Reopened: since when the player waits is only known over REST, whose answer the reply overtakes.
  const { waiting_since: _, ...frame } = session({ rev: 5 })
  queue.applySession(frame)
  queue.applyMessage({ id: 'm', seq: 2, session_id: 's', player_id: 29, sender: 'staff', message: 'Hello', timestamp: '' } as Message)
  await expect.poll(() => queue.sessions.get('s')?.status).toBe('active')
  scope.close()
})

test('a change of a session that the socket reports after a later message is read again', async () => {
  const api = { queue: async () => ({ sessions: [session({ rev: 9, last_seq: 3, cycle: 2, waiting_since: 'now' })], next: null }) } as unknown as Api
  const scope = new TaskScope()
  const queue = new Queue(api, scope, () => 's1', () => {}, () => undefined)
  queue.applySession(session({ rev: 5, last_seq: 2, cycle: 1, waiting_since: 'before', replied: true }))
  queue.applyMessage({ id: 'm', seq: 3, session_id: 's', player_id: 29, sender: 'player', message: 'Hello', timestamp: '' } as Message)
  const { waiting_since: _, ...reopened } = session({ rev: 8, last_seq: 2, cycle: 2 })
  queue.applySession(reopened)
  await expect.poll(() => queue.sessions.get('s')).toMatchObject({ cycle: 2, waiting_since: 'now' })
  expect(queue.sessions.get('s')?.replied ?? false).toBe(false)
  scope.close()
})
