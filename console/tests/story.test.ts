/** The events of a session: when they are loaded, where they are shown, and their texts. */

import { expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import { Conversation } from '../src/conversation'
import { describeEvent, Story } from '../src/story'
import type { Message, Session, SessionEvent } from '../src/types'
import { rowsOf } from '../src/views/rows'

const AT = '2026-11-22T17:08:14.171Z'
const event = (rev: number, kind: SessionEvent['kind'], more: Partial<SessionEvent> = {}): SessionEvent => ({
  rev, kind, at: AT, after_seq: 1, staff_id: null, by_staff_id: null, data: {}, ...more,
})
const session = (more: Partial<Session> = {}): Session => ({ status: 'active', assigned_staff_id: null, rev: 0, ...more }) as Session
const message = (seq: number): Message => ({ id: `m${seq}`, seq, sender: 'player', timestamp: AT }) as Message

test('the story is loaded once for each state of the session, from the last event on', async () => {
  const pages = [[event(1, 'opened')], [event(3, 'assigned')], []]
  const events = vi.fn(async () => ({ events: pages.shift() ?? [], has_more: false }))
  const story = new Story('s', { events } as unknown as Api, () => {})
  for (const assigned of [null, null, 's1', 's1']) {
    story.follow(session({ assigned_staff_id: assigned }))
    await vi.waitFor(() => expect(story.events.length).toBe(assigned ? 2 : 1))
  }
  expect(events.mock.calls).toEqual([['s', { after_rev: 0 }], ['s', { after_rev: 1 }]])
})

test('a response that a frame has overtaken hides no later event', async () => {
  const stored = [event(1, 'opened')]
  const story = new Story('s', {
    events: async (_: string, { after_rev: after = 0 }) => ({ events: stored.filter(({ rev }) => rev > after), has_more: false }),
  } as unknown as Api, () => {})
  const change = async (rev: number, assigned: string | null): Promise<void> => {
    story.follow(session({ rev, assigned_staff_id: assigned }))
    await new Promise((resolve) => setTimeout(resolve))
  }
  await change(1, null)
  stored.push(event(2, 'assigned'))
  await change(2, 's1')
  await change(1, null)
  stored.push(event(3, 'released'))
  await change(3, null)
  expect(story.events.map(({ rev }) => rev)).toEqual([1, 2, 3])
})

test('an event that the socket reports is loaded once, and the frame of its session loads nothing more', async () => {
  const stored = [event(1, 'opened')]
  const events = vi.fn(async (_: string, { after_rev: after = 0 }) => ({ events: stored.filter(({ rev }) => rev > after), has_more: false }))
  const story = new Story('s', { events } as unknown as Api, () => {})
  story.follow(session({ rev: 1 }))
  await vi.waitFor(() => expect(story.events.length).toBe(1))
  stored.push(event(2, 'assigned'), event(3, 'released'))
  story.notify(3)
  story.follow(session({ rev: 3, assigned_staff_id: 's1' }))
  await vi.waitFor(() => expect(story.events.map(({ rev }) => rev)).toEqual([1, 2, 3]))
  story.notify(2)
  expect(events).toHaveBeenCalledTimes(2)
  story.follow(session({ rev: 4 }))
  await vi.waitFor(() => expect(events).toHaveBeenCalledTimes(3))
})

test('all pages are loaded, and a change meanwhile causes another request', async () => {
  const story: Story = new Story('s', {
    events: async (_: string, { after_rev: after = 0 }: { after_rev?: number }) => {
      if (after === 0) story.follow(session({ status: 'closed' }))
      return { events: after < 4 ? [event(after + 1, 'assigned')] : [], has_more: after < 2 }
    },
  } as unknown as Api, () => {})
  story.follow(session())
  await vi.waitFor(() => expect(story.events.map(({ rev }) => rev)).toEqual([1, 2, 3]))
})

test('a failure is not reported, and the next frame of the session retries', async () => {
  let calls = 0
  const story = new Story('s', {
    events: async () => {
      calls += 1
      if (calls === 1) throw new ApiError(503, 'down', 'Down.')
      return { events: [event(1, 'opened')], has_more: false }
    },
  } as unknown as Api, () => {})
  story.follow(session())
  await vi.waitFor(() => {
    story.follow(session())
    expect(story.events.length).toBe(1)
  })
})

test('an event is shown after the message that it follows, if that is loaded', () => {
  const events = [
    event(2, 'assigned', { after_seq: 3 }), event(6, 'released', { after_seq: 4 }), event(7, 'closed', { after_seq: 5 }),
    event(8, 'reopened', { after_seq: 5 }), event(9, 'opened', { after_seq: 5 }), event(12, 'closed', { after_seq: 6 }),
  ]
  const conversation = { messages: [message(5), message(6)], loaded: true, hasOlder: true, unreadFrom: 0, story: { events }, notes: { list: [] } }
  expect(rowsOf(conversation as unknown as Conversation, []).map(({ key }) => key).filter((key) => !key.startsWith('day'))).toEqual([
    'event-6', 'm5', 'event-7', 'event-8', 'm6', 'event-12',
  ])
})

test.each([
  [event(1, 'assigned', { staff_id: 's1', by_staff_id: 's1' }), 'Taken by Sam'],
  [event(1, 'assigned', { staff_id: 's1', by_staff_id: 's2' }), 'Assigned to Sam by Sue'],
  [event(1, 'assigned', { staff_id: 's1' }), 'Assigned to Sam'],
  [event(1, 'transferred', { staff_id: 's2', by_staff_id: 's1', data: { from: 's1' } }), 'Handed over to Sue by Sam'],
  [event(1, 'transferred', { staff_id: 's2', by_staff_id: 's2', data: { from: 's1' } }), 'Taken over from Sam by Sue'],
  [event(1, 'released', { staff_id: 's1', by_staff_id: 's1' }), 'Unassigned by Sam'],
  [event(1, 'closed', { by_staff_id: 's1', data: { by: 'staff' } }), 'Closed by Sam'],
  [event(1, 'closed', { data: { by: 'system' } }), 'Closed'],
  [event(1, 'closed', { data: { by: 'player' } }), 'Closed by the player'],
  [event(1, 'closed', { data: { by: 'idle' } }), 'Closed: no answer from the player'],
  [event(1, 'reopened', { by_staff_id: 's9' }), 'Reopened by s9'],
  [event(1, 'blocked', { by_staff_id: 's1' }), 'Player blocked by Sam'],
  [event(1, 'unblocked'), 'Player unblocked'],
  [event(1, 'opened'), ''],
])('%o', (told, text) => {
  expect(describeEvent(told, (id) => ({ s1: 'Sam', s2: 'Sue' })[id] ?? id)).toBe(text)
})
