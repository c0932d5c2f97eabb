/** Player ids in JSON, links, search, formatting. */

import { expect, test } from 'vitest'
import { exactJson } from '../../client/src/util'
import { sessionMatcher } from '../src/search'
import { day, initials, span } from '../src/format'
import { splitLinks } from '../src/links'
import type { Session } from '../src/types'

test('a player id beyond 2^53 stays exact, and a text that looks like one is unchanged', () => {
  expect(exactJson('{"player_id": 9007199254740993, "n": 29}')).toEqual({ player_id: '9007199254740993', n: 29 })
  const message = '"player_id": 9007199254740993'
  expect(exactJson(JSON.stringify({ message }))).toEqual({ message })
})

test.each([
  ['see https://a.example/b.', 'https://a.example/b', 'https://a.example/b'],
  ['(https://a.example/x_(y))', 'https://a.example/x_(y)', 'https://a.example/x_(y)'],
  ['write to asha@a.example!', 'asha@a.example', 'mailto:asha@a.example'],
  ['call +44 20 7946 0958', '+44 20 7946 0958', 'tel:+442079460958'],
])('%s has a link', (text, address, href) => {
  const parts = splitLinks(text)
  expect(parts.filter((part) => part.href !== undefined)).toEqual([{ text: address, href }])
  expect(parts.map((part) => part.text).join('')).toBe(text)
})

test('a javascript: URL is no link', () => {
  expect(splitLinks('javascript:alert(1)')).toEqual([{ text: 'javascript:alert(1)', href: undefined }])
})

test('the search matches player ids, and beginnings of words without accents', () => {
  const session = { player_id: 5000, player_name: 'Zoë Müller' } as Session
  const matching = ['5000', '#5000', 'zoe', 'mull', 'MÜ zo', ''].filter((search) => sessionMatcher(search)(session))
  expect(matching).toEqual(['5000', '#5000', 'zoe', 'mull', 'MÜ zo', ''])
  expect(['500', 'ller', 'zoe x'].filter((search) => sessionMatcher(search)(session))).toEqual([])
})

test('durations, days and initials are formatted', () => {
  expect([-5, 59_999, 60_000, 7_500_000, 7_200_000, 3 * 86_400_000].map(span)).toEqual(
    ['0 s', '59 s', '1 min', '2 h 5 min', '2 h', '3 d'])
  const noon = new Date(2026, 10, 28, 12).getTime()
  expect([day(noon, noon), day(noon - 86_400_000, noon)]).toEqual(['Today', 'Yesterday'])
  expect([initials('asha rao'), initials('Zoë'), initials(' ')]).toEqual(['AR', 'Z', '?'])
})
