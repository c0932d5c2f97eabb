/** The rows of the element's log, and the texts in them. */

import { afterEach, describe, expect, test, vi } from 'vitest'
import { appointment, clock, dayName, size } from '../element/format'
import { parts } from '../element/links'
import { isFilesText, rowsOf, sessionToRate } from '../element/rows'
import { fill, wordsOf } from '../element/words'
import type { Attachment, Conversation, Message, Session, Unsent } from '../src/index'

const SESSION = '0b7e8f52-0000-4000-8000-000000000001'

function message(seq: number, more: Partial<Message> = {}): Message {
  const at = `2026-11-22T17:0${seq}:00.000Z`
  return {
    id: `m${seq}`, seq, session_id: SESSION, player_id: 29, player_name: 'Asha', message: `Text ${seq}`, sender: 'player', sender_name: 'Asha',
    status: 'sent', timestamp: at, created_at: at, ...more,
  }
}

function unsent(id: string, more: Partial<Unsent> = {}): Unsent {
  return { id, text: 'Hello', files: [], createdAt: '2026-11-22T17:09:00.000Z', state: 'waiting', ...more }
}

function conversation(messages: Message[], more: Partial<Conversation> = {}): Conversation {
  return { messages, unsent: [], state: 'complete', hasOlder: false, loadingOlder: false, readUpTo: {}, ...more }
}

const staff = { sender: 'staff', sender_name: 'Sam' } as const

describe('rows', () => {
  test('a day stands above its first message, and an author above the first of several', () => {
    const rows = rowsOf(conversation([message(1), message(2), message(3, staff), message(4, { ...staff, created_at: '2026-11-24T12:00:00.000Z' })]))
    expect(rows.map((row) => row.kind)).toEqual(['day', 'message', 'message', 'message', 'day', 'message'])
    expect(rows.flatMap((row) => (row.kind === 'message' ? [row.first] : []))).toEqual([true, false, true, true])
  })

  test('another member of staff is another author', () => {
    const rows = rowsOf(conversation([message(1, staff), message(2, { ...staff, sender_name: 'Sue' })]))
    expect(rows.flatMap((row) => (row.kind === 'message' ? [row.first] : []))).toEqual([true, true])
  })

  test('receipts stand at the last own message and at the last one that was read', () => {
    const receipts = (more: Partial<Conversation>) => rowsOf(conversation([message(1), message(2), message(3, staff), message(4)], more)).flatMap((row) => (row.kind === 'message' ? [row.receipt] : []))
    expect(receipts({})).toEqual(['', '', '', 'sent'])
    expect(receipts({ readUpTo: { [SESSION]: 2 } })).toEqual(['', 'read', '', 'sent'])
    expect(receipts({ readUpTo: { [SESSION]: 4 } })).toEqual(['', '', '', 'read'])
    expect(receipts({ readUpTo: { other: 9 } })).toEqual(['', '', '', 'sent'])
  })

  test('unsent texts come last, under the key that they keep when they are stored', () => {
    const before = rowsOf(conversation([message(1)], { unsent: [unsent('m2')] }))
    expect(before.at(-1)).toMatchObject({ kind: 'unsent', key: 'm2', first: false })
    const after = rowsOf(conversation([message(1), message(2)]))
    expect(after.at(-1)).toMatchObject({ kind: 'message', key: 'm2' })
  })

  test('a text that is stored already is shown once', () => {
    const rows = rowsOf(conversation([message(1)], { unsent: [unsent('m1')] }))
    expect(rows.map(({ key }) => key).filter((key) => key === 'm1')).toHaveLength(1)
  })

  test('an unsent text of a slow clock begins no earlier day', () => {
    const rows = rowsOf(conversation([message(1)], { unsent: [unsent('u', { createdAt: '2026-11-20T10:00:00.000Z' })] }))
    expect(rows.filter(({ kind }) => kind === 'day')).toHaveLength(1)
  })

  test("the server's text of a message with files only is recognized, and no other", () => {
    const attachments = [{ id: 'a' } as Attachment]
    expect(isFilesText(message(1, { message: '📷 2 photos', attachments }))).toBe(true)
    expect(isFilesText(message(1, { message: '📎 File', attachments }))).toBe(true)
    expect(isFilesText(message(1, { message: '📷 Photo' }))).toBe(false)
    expect(isFilesText(message(1, { message: '📷 Photo of table 4', attachments }))).toBe(false)
  })
})

describe('a rating is asked for', () => {
  const closed = { id: SESSION, status: 'closed' } as Session
  const both = [message(1), message(2, staff)]

  test('if the latest session is closed, both sides wrote and there is none', () => {
    expect(sessionToRate(closed, both, true)).toBe(closed)
    expect(sessionToRate({ ...closed, rating: null } as unknown as Session, both, true)?.id).toBe(SESSION)
  })

  test.each([
    ['the session is open', { ...closed, status: 'active' } as Session, both, true],
    ['there is one', { ...closed, rating: 3 }, both, true],
    ['nobody answered', closed, [message(1)], true],
    ['another session was answered', closed, [message(1), message(2, { ...staff, session_id: 'other' })], true],
    ['ratings are off', closed, both, undefined],
    ['there is no session', undefined, both, true],
  ])('but not if %s', (_, session, messages, enabled) => {
    expect(sessionToRate(session, messages, enabled)).toBeUndefined()
  })
})

describe('links', () => {
  const links = (text: string) => parts(text).filter(({ href }) => href)

  test('web and e-mail addresses, without the punctuation around them', () => {
    expect(links('See https://example.com/a_(b), or (http://example.org/x). Write to a.b@example.com!')).toEqual([
      { text: 'https://example.com/a_(b)', href: 'https://example.com/a_(b)' },
      { text: 'http://example.org/x', href: 'http://example.org/x' },
      { text: 'a.b@example.com', href: 'mailto:a.b@example.com' },
    ])
  })

  test('nothing else is a link', () => {
    for (const text of ['javascript:alert(1)', 'data:text/html,x', 'file:///etc/passwd', 'https://', 'a@b']) expect(links(text)).toEqual([])
  })

  test('no character is lost', () => {
    const text = '(https://example.com). https://a.example/?q=1, and مرحبا https://مثال.example/ä…'
    expect(parts(text).map((part) => part.text).join('')).toBe(text)
  })
})

describe('words', () => {
  test('the language of a region, English for an unknown one, and the own texts of a page', () => {
    expect(wordsOf('de-AT').send).toBe('Senden')
    expect(wordsOf('DE').send).toBe('Senden')
    expect(wordsOf('xx').send).toBe('Send')
    expect(wordsOf('', { send: 'Absenden' })).toMatchObject({ send: 'Absenden', close: 'Close chat' })
  })

  test('every text of one language is there in the other, with the same places', () => {
    const places = (text: string) => (text.match(/\{\w+\}/g) ?? []).sort()
    const [english, german] = [wordsOf('en'), wordsOf('de')]
    expect(Object.keys(german)).toEqual(Object.keys(english))
    for (const [name, text] of Object.entries(english)) expect(places(german[name as keyof typeof german]), name).toEqual(places(text))
  })

  test('values are filled in; a place without a value stays', () => {
    expect(fill('{n} of {name}, {other}', { n: 2, name: '{n}' })).toBe('2 of {n}, {other}')
  })
})

describe('times and sizes', () => {
  const now = new Date(2026, 2, 30, 0, 30).getTime()
  const words = wordsOf('en')
  const at = (...args: [number, number, number, number]) => new Date(...args).toISOString()

  test('today, yesterday, a date, and a date of another year', () => {
    expect(dayName(at(2026, 2, 30, 0), now, 'en', words)).toBe('Today')
    expect(dayName(at(2026, 2, 29, 1), now, 'en', words)).toBe('Yesterday')
    expect(dayName(at(2026, 2, 28, 12), now, 'en', words)).toBe('Saturday, March 28')
    expect(dayName(at(2025, 2, 28, 12), now, 'en', words)).toBe('Friday, March 28, 2025')
    expect(dayName(at(2026, 2, 28, 12), now, 'de', words)).toBe('Samstag, 28. März')
  })

  test('a time of day in the language; an invalid language does no harm', () => {
    expect(clock(at(2026, 2, 30, 17), 'de')).toBe('17:00')
    expect(clock(at(2026, 2, 30, 17), 'en')).toMatch(/05:00\sPM/)
    expect(clock(at(2026, 2, 30, 17), 'not a language')).toMatch(/\d/)
  })

  test('sizes', () => {
    expect(size(1, 'en')).toBe('1 kB')
    expect(size(1_500_000, 'en')).toBe('1.5 MB')
    expect(size(1_500_000, 'de')).toBe('1,5 MB')
  })
})

describe('opening times', () => {
  const MALTA = 'Europe/Malta'
  /** The browser's time zone. */
  const live = (zone: string): void => void vi.stubEnv('TZ', zone)
  afterEach(() => vi.unstubAllEnvs())
  const now = Date.parse('2026-10-24T10:00:00Z') // noon in Malta; its clocks go back on the next day

  test.each([
    ['2026-10-24T15:00:00Z', 'today', /^05:00 PM/],
    ['2026-10-24T22:30:00Z', 'tomorrow', /^12:30 AM/], // still today in UTC
    ['2026-10-25T08:00:00Z', 'tomorrow', /^09:00 AM/], // after the change of clocks
    ['2026-10-26T08:00:00Z', 'Monday', /^09:00 AM/],
    ['2026-11-02T08:00:00Z', 'Monday, November 2', /^09:00 AM/],
  ])("%s is %s in the house's time zone", (at, day, time) => {
    live(MALTA)
    const found = appointment(at, now, MALTA, 'en-US')
    expect(found.day).toBe(day)
    expect(found.time).toMatch(time)
  })

  test("it names its zone where the person's clock shows another time, and the weekday where the day is another one", () => {
    const at = '2026-10-24T22:30:00Z'
    live(MALTA)
    expect(appointment(at, now, MALTA, 'en-US')).toEqual({ day: 'tomorrow', time: '12:30 AM' })
    live('America/New_York')
    expect(appointment(at, now, MALTA, 'en-US')).toEqual({ day: 'Sunday', time: '12:30 AM GMT+2' })
    live('Europe/Athens')
    expect(appointment(at, now, MALTA, 'en-US')).toEqual({ day: 'tomorrow', time: '12:30 AM GMT+2' })
  })

  test('in the language of the page; a zone that the browser does not know is its own', () => {
    expect(appointment('2026-10-25T08:00:00Z', now, MALTA, 'de')).toMatchObject({ day: 'morgen', time: expect.stringMatching(/^09:00/) })
    expect(appointment('2026-10-25T08:00:00Z', now, 'Mars/Base', 'en')).toEqual(appointment('2026-10-25T08:00:00Z', now, null, 'en'))
    expect(appointment('2026-10-25T08:00:00Z', now, MALTA, 'not a language').day).toBeTruthy()
  })
})
