/** Goals: the open time between two moments, the share of a goal and its text, and the goal of a session. */

import { expect, test, vi } from 'vitest'
import type { Api } from '../src/api'
import { Goals, goalState } from '../src/goals'
import { OpenTime } from '../src/open-time'
import { TaskScope } from '../src/scope'
import type { Hours, QueuedSession, Settings } from '../src/types'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

const week = (weekdays: number[], opens: string | null, closes: string | null, valid_from = '2026-01-01') =>
  weekdays.map((weekday) => ({ weekday, opens, closes, valid_from }))
const EVERY_DAY = [1, 2, 3, 4, 5, 6, 7]
const hours = (more: Partial<Hours>): Hours => ({ name: 'desk', timezone: 'Europe/Malta', week: [], dates: [], ...more })
const openHours = (given: Hours, from: string, to: string): number => new OpenTime(given).between(Date.parse(from), Date.parse(to)) / HOUR

test.each<[string, Hours, string, string, number]>([
  ['a day', hours({ week: week([6], '09:00', '18:00') }), '2026-11-28T00:00+01:00', '2026-11-29T00:00+01:00', 9],
  ['a part of a day', hours({ week: week([6], '09:00', '18:00') }), '2026-11-28T17:00+01:00', '2026-11-29T12:00+01:00', 1],
  ['a closed day', hours({ week: week([6], '09:00', '18:00') }), '2026-11-29T00:00+01:00', '2026-11-30T00:00+01:00', 0],
  ['overlapping ranges', hours({ week: [...week([6], '09:00', '12:00'), ...week([6], '11:00', '13:00'), ...week([6], '11:30', '12:30')] }), '2026-11-28T00:00+01:00', '2026-11-29T00:00+01:00', 4],
  ['the night before', hours({ week: week([6], '18:00', '02:00') }), '2026-11-29T00:00+01:00', '2026-11-29T12:00+01:00', 2],
  ['a special day', hours({ week: week(EVERY_DAY, '09:00', '18:00'), dates: [{ day: '2026-11-28', label: null, opens: '10:00', closes: '11:30' }] }), '2026-11-28T00:00+01:00', '2026-11-29T00:00+01:00', 1.5],
  ['a holiday', hours({ week: week(EVERY_DAY, '09:00', '18:00'), dates: [{ day: '2026-11-28', label: null, opens: null, closes: null }] }), '2026-11-28T00:00+01:00', '2026-11-29T00:00+01:00', 0],
  ['a later week', hours({ week: [...week(EVERY_DAY, '09:00', '18:00'), ...week(EVERY_DAY, '09:00', '10:00', '2026-11-28')] }), '2026-11-27T00:00+01:00', '2026-11-29T00:00+01:00', 10],
  ['before the first week: always open', hours({ week: week([1], null, null, '2026-11-28') }), '2026-11-27T00:00+01:00', '2026-11-29T00:00+01:00', 24],
  ['a night into summer time', hours({ week: week([6], '22:00', '06:00') }), '2026-03-28T12:00+01:00', '2026-03-29T12:00+02:00', 7],
  ['a night into winter time', hours({ week: week([6], '22:00', '06:00') }), '2026-10-24T12:00+02:00', '2026-10-25T12:00+01:00', 9],
  ['a time that is skipped', hours({ week: week([7], '02:30', '06:00') }), '2026-03-29T00:00+01:00', '2026-03-29T12:00+02:00', 2.5],
  ['a time that is there twice: the later one', hours({ week: week([7], '02:30', '06:00') }), '2026-10-25T00:00+02:00', '2026-10-25T12:00+01:00', 3.5],
  ['half an hour at Lord Howe', hours({ timezone: 'Australia/Lord_Howe', week: week([6], '22:00', '06:00') }), '2026-04-04T00:00Z', '2026-04-05T00:00Z', 8.5],
  ['midnight', hours({ week: week(EVERY_DAY, '00:00', '24:00') }), '2026-11-01T00:00+01:00', '2026-11-08T00:00+01:00', 7 * 24],
])('open hours: %s', (_, given, from, to, expected) => {
  expect(openHours(given, from, to)).toBe(expected)
})

test('a desk is open from the first to before the last moment', () => {
  const time = new OpenTime(hours({ week: week([6], '09:00', '18:00') }))
  const at = (text: string): boolean => time.isOpen(Date.parse(text))
  expect([at('2026-11-28T08:59:59.999+01:00'), at('2026-11-28T09:00+01:00'), at('2026-11-28T17:59:59+01:00'), at('2026-11-28T18:00+01:00')]).toEqual([false, true, true, false])
})

test('a time zone that the browser does not know is refused', () => {
  expect(() => new OpenTime(hours({ timezone: 'Europe/Nowhere' }))).toThrow(RangeError)
})

test.each<[number, number, boolean, string, number, string]>([
  [0, 5 * MINUTE, true, 'running', 0, '0 of 5 minutes'],
  [3.9 * MINUTE, 5 * MINUTE, true, 'running', 0.78, '3 of 5 minutes'],
  [3.9 * MINUTE, 5 * MINUTE, false, 'paused', 0.78, '3 of 5 minutes, paused while the desk is closed'],
  [5 * MINUTE, 5 * MINUTE, true, 'over', 1, 'less than a minute over the goal'],
  [6 * MINUTE, 5 * MINUTE, true, 'over', 1, '1 minute over the goal'],
  [7.5 * MINUTE, 5 * MINUTE, false, 'over', 1, '2 minutes over the goal'],
  [30 * SECOND, 90.5 * SECOND, true, 'running', 30 / 90.5, '30 of 90.5 seconds'],
  [0, SECOND, true, 'running', 0, '0 of 1 second'],
  [1.5 * HOUR, 4 * HOUR, true, 'running', 0.375, '1 of 4 hours'],
  [4 * HOUR, 4 * HOUR, true, 'over', 1, 'less than an hour over the goal'],
  [24 * HOUR, 96 * HOUR, true, 'running', 0.25, '1 of 4 days'],
])('%d ms of a goal of %d ms (open: %s): %s', (passed, goal, isOpen, state, share, text) => {
  expect(goalState(passed, goal, isOpen)).toEqual({ state, share, text })
})

const NOW = Date.parse('2026-11-28T12:00:00Z')
const waiting = (minutes: number, replied = false): QueuedSession =>
  ({ waiting_since: new Date(NOW - minutes * MINUTE).toISOString(), replied }) as unknown as QueuedSession

async function loaded(settings: Partial<Settings>, known: Hours[] = []) {
  const api = {
    settings: vi.fn(async () => ({ settings: { first_reply_goal: null, reply_goal: null, goals_in_hours: true, hours: null, ...settings } })),
    hours: vi.fn(async () => ({ hours: known })),
  }
  const onFirstGoal = vi.fn()
  const scope = new TaskScope()
  const goals = new Goals(api as unknown as Api, scope, () => {}, onFirstGoal)
  await goals.load()
  scope.close()
  return { goals, api, onFirstGoal, text: (session: QueuedSession) => goals.stateOf(session, NOW)?.text }
}

test('the first answer of a cycle has its own goal', async () => {
  const { text } = await loaded({ first_reply_goal: 120, reply_goal: 600 })
  expect([text(waiting(1)), text(waiting(1, true)), text({ waiting_since: null } as QueuedSession)]).toEqual(['1 of 2 minutes', '1 of 10 minutes', undefined])
  const one = await loaded({ reply_goal: 600 })
  expect([one.text(waiting(1)), one.text(waiting(1, true))]).toEqual(['1 of 10 minutes', '1 of 10 minutes'])
  const other = await loaded({ first_reply_goal: 120 })
  expect([other.text(waiting(1)), other.text(waiting(1, true))]).toEqual(['1 of 2 minutes', undefined])
})

test('without goals nothing is shown, and the hours are not loaded', async () => {
  const { text, api } = await loaded({ hours: 'desk' })
  expect([text(waiting(1)), api.hours.mock.calls.length]).toEqual([undefined, 0])
})

test('a goal counts open hours if the settings say so', async () => {
  const closed = hours({ week: week([7], '09:00', '18:00') })
  const open = hours({ week: week([6], '12:50', '18:00') })
  const settings = { reply_goal: 600, hours: 'desk' }
  expect((await loaded(settings, [closed])).text(waiting(30))).toBe('0 of 10 minutes, paused while the desk is closed')
  expect((await loaded(settings, [hours({ week: week([6], '12:52', '18:00') })])).text(waiting(30))).toBe('8 of 10 minutes')
  expect((await loaded(settings, [open])).text(waiting(30))).toBe('less than a minute over the goal')
  expect((await loaded({ ...settings, goals_in_hours: false }, [closed])).text(waiting(30))).toBe('20 minutes over the goal')
  // Deleted hours, or a zone that the browser does not know: all time counts.
  expect((await loaded(settings, [])).text(waiting(30))).toBe('20 minutes over the goal')
  expect((await loaded(settings, [{ ...closed, timezone: 'Europe/Nowhere' }])).text(waiting(30))).toBe('20 minutes over the goal')
})

test('the list is read again when a goal for the first answer is set', async () => {
  const { goals, api, onFirstGoal } = await loaded({})
  for (const [first, calls] of [[null, 0], [60, 1], [90, 1], [null, 1], [60, 2]] as const) {
    api.settings.mockResolvedValueOnce({ settings: { first_reply_goal: first, reply_goal: null, goals_in_hours: true, hours: null } })
    await goals.load()
    expect(onFirstGoal.mock.calls.length).toBe(calls)
  }
})
