/** Templates: the shortcut that is being typed, the search, blanks and the insertion. */

import { expect, test } from 'vitest'
import type { Api } from '../src/api'
import { fillBlanks, insertAt, slashQuery, TemplateList } from '../src/templates'
import type { Template } from '../src/types'

test.each([
  ['/', 1, ''],
  ['/ref', 4, 'ref'],
  ['Hello /ref', 10, 'ref'],
  ['Hello\n/re and more', 9, 're'],
  ['and/or', 6, undefined],
  ['https://a', 9, undefined],
  ['/ref ', 5, undefined],
  ['', 0, undefined],
])('in %j at %i the shortcut is %j', (text, cursor, query) => {
  expect(slashQuery(text, cursor)?.query).toBe(query)
})

const template = (shortcut: string, title: string, more: Partial<Template> = {}): Template => ({
  id: shortcut, shortcut, title, texts: { en: title }, staff_id: null, uses: 0, active: true, ...more,
})

test('shortcuts come before titles, an exact one first; templates that are not active are not found', async () => {
  const list = new TemplateList({
    templates: async () => ({ templates: [
      template('hours', 'Opening times'), template('refunds', 'All refunds', { uses: 9 }), template('refund', 'One'),
      template('late', 'Refund is late'), template('refold', 'Old', { active: false }),
    ] }),
  } as unknown as Api, () => {})
  await list.reload()
  const found = (query: string): string[] => list.matching(query).map(({ shortcut }) => shortcut)
  expect(found('refund')).toEqual(['refund', 'refunds', 'late'])
  expect(found('ref')).toEqual(['refunds', 'refund', 'late'])
  expect(found('TIMES')).toEqual(['hours'])
  expect(found('x')).toEqual([])
})

test('a list that could not be loaded is loaded by the next call', async () => {
  let calls = 0
  const list = new TemplateList({
    templates: async () => {
      calls += 1
      if (calls === 1) throw new Error('down')
      return { templates: [template('a', 'A')] }
    },
  } as unknown as Api, () => {})
  await list.reload()
  expect(list.matching('')).toEqual([])
  await Promise.all([list.reload(), list.reload()])
  expect([list.matching('').length, calls]).toEqual([1, 2])
})

test('blanks are filled in, and those without a value stay', () => {
  const text = 'We pay {{?amount}} on {{?day}}, from {{next_open}}.'
  expect(fillBlanks(text, { amount: '{{day}}', day: ' ', next_open: '09:00' })).toBe('We pay {{day}} on {{?day}}, from 09:00.')
})

test('the text replaces the shortcut, and is appended if the draft has changed meanwhile', () => {
  const at = slashQuery('Hello /ref', 10)!
  expect(insertAt('Hello /ref!', at, '/ref', 'TEXT')).toEqual({ text: 'Hello TEXT!', cursor: 10 })
  expect(insertAt('Bye', at, '/ref', 'TEXT').text).toBe('Bye TEXT')
  expect(insertAt('', at, '/ref', 'TEXT').text).toBe('TEXT')
})
