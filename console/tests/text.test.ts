/** Texts: players' numbers in JSON, links, the search, words for times. */

import { expect, test } from 'vitest'
import { exactJson } from '../src/api'
import { finder } from '../src/find'
import { day, initials, span } from '../src/format'
import { parts } from '../src/links'
import type { Session } from '../src/types'

test('a player number beyond 2^53 stays exact, and a text that looks like one is not touched', () => {
  expect(exactJson('{"player_id": 9007199254740993, "n": 29}')).toEqual({ player_id: '9007199254740993', n: 29 })
  const message = '"player_id": 9007199254740993'
  expect(exactJson(JSON.stringify({ message }))).toEqual({ message })
})

test.each([
  ['see https://a.example/b.', 'https://a.example/b', 'https://a.example/b'],
  ['(https://a.example/x_(y))', 'https://a.example/x_(y)', 'https://a.example/x_(y)'],
  ['write to asha@a.example!', 'asha@a.example', 'mailto:asha@a.example'],
  ['call +44 20 7946 0958', '+44 20 7946 0958', 'tel:+442079460958'],
])('%s has a link', (text, shown, href) => {
  const found = parts(text)
  expect(found.filter((part) => part.href !== undefined)).toEqual([{ text: shown, href }])
  expect(found.map((part) => part.text).join('')).toBe(text)
})

test('a script address is no link', () => {
  expect(parts('javascript:alert(1)')).toEqual([{ text: 'javascript:alert(1)', href: undefined }])
})

test('the search finds numbers, and beginnings of words without their accents', () => {
  const session = { player_id: 5000, player_name: 'Zoë Müller' } as Session
  const finds = ['5000', '#5000', 'zoe', 'mull', 'MÜ zo', ''].filter((search) => finder(search)(session))
  expect(finds).toEqual(['5000', '#5000', 'zoe', 'mull', 'MÜ zo', ''])
  expect(['500', 'ller', 'zoe x'].filter((search) => finder(search)(session))).toEqual([])
})

test('times and names are shortened', () => {
  expect([-5, 59_999, 60_000, 7_500_000, 7_200_000, 3 * 86_400_000].map(span)).toEqual(
    ['0 s', '59 s', '1 min', '2 h 5 min', '2 h', '3 d'])
  const noon = new Date(2026, 10, 28, 12).getTime()
  expect([day(noon, noon), day(noon - 86_400_000, noon)]).toEqual(['Today', 'Yesterday'])
  expect([initials('asha rao'), initials('Zoë'), initials(' ')]).toEqual(['AR', 'Z', '?'])
})
