import { expect, test } from 'vitest'

import { open, pass, SAM, shown } from './support/page.js'

const start = () => open({ getToken: () => SAM })
const ids = (rows: readonly { id: string }[]): string[] => rows.map(({ id }) => id)

test('the queue has the longest wait first, and live messages move sessions', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'first question')
  daemon.store('s2', 'player', 'second question')
  daemon.store('s3', 'staff', 'answered')
  expect(chat.staff.queue()).toMatchObject({ state: 'loading', sessions: [] })
  await pass(200)
  expect(chat.staff.queue()).toMatchObject({ state: 'complete', hasMore: false })
  expect(ids(chat.staff.queue().sessions)).toEqual(['s1', 's2', 's3'])
  daemon.store('s1', 'staff', 'an answer')
  expect(ids(chat.staff.queue().sessions)).toEqual(['s2', 's1', 's3'])
  daemon.store('s3', 'player', 'another question')
  expect(ids(chat.staff.queue().sessions)).toEqual(['s2', 's3', 's1'])
  // A session that this page has not seen: only the queue knows its place.
  daemon.store('s4', 'player', 'new')
  daemon.socket.hear({ type: 'session_updated', session: daemon.row('s4') })
  await pass(500)
  expect(ids(chat.staff.queue().sessions)).toEqual(['s2', 's3', 's4', 's1'])
})

test('filters, pages, and sessions that are gone', async () => {
  const { chat, daemon } = start()
  for (let index = 0; index < 150; index += 1) daemon.store(`s${index}`, 'player', 'question', {})
  chat.staff.queue({ status: 'active' })
  chat.staff.queue({ assigned: 'me' })
  await pass(300)
  expect(chat.staff.queue({ status: 'active' }).hasMore).toBe(true)
  expect(chat.staff.queue({ assigned: 'me' }).sessions).toEqual([])
  const more = chat.staff.loadMore({ status: 'active' })
  await pass(100)
  await more
  expect(chat.staff.queue({ status: 'active' })).toMatchObject({ hasMore: false })
  expect(chat.staff.queue({ status: 'active' }).sessions).toHaveLength(150)
  const taken = chat.staff.take('s7')
  await pass(100)
  expect(await taken).toMatchObject({ id: 's7', assigned_staff_id: 's1' })
  expect(ids(chat.staff.queue({ assigned: 'me' }).sessions)).toEqual(['s7'])
  daemon.socket.end(1006)
  daemon.sessions.delete('s3')
  await pass(6000)
  expect(ids(chat.staff.queue({ status: 'active' }).sessions)).not.toContain('s3')
  expect(chat.staff.queue({ status: 'active' }).sessions).toHaveLength(149)
})

test('a refused action says who was faster', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'question')
  await pass(100)
  daemon.refusal = { status: 409, code: 'session_taken', details: { by: 's2' } }
  const refused = expect(chat.staff.take('s1')).rejects.toMatchObject({ code: 'session_taken', details: { by: 's2' } })
  await pass(100)
  await refused
})

test('a reply after a colleague’s is refused, and a retry has seen what is loaded by then', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'question')
  chat.messages('s1')
  await pass(100)
  daemon.refusal = { status: 409, code: 'session_moved', details: { by: 's2', seq: 2 } }
  const { id } = chat.staff.reply('s1', 'mine', { afterSeq: 1 })
  daemon.store('s1', 'staff', 'of a colleague')
  await pass(100)
  expect(chat.messages('s1').unsent).toMatchObject([{ id, state: 'refused', error: { code: 'session_moved', details: { by: 's2', seq: 2 } } }])
  daemon.refusal = undefined
  chat.retry(id)
  await pass(100)
  expect(shown(chat, 's1')).toEqual(['question', 'of a colleague', 'mine'])
  expect(daemon.calls.filter(({ line }) => line.endsWith('/reply')).map(({ body }) => body!.afterSeq)).toEqual([1, 2])
})

test('notes are read, come live, are written safely, and are no messages', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'question')
  daemon.note('s1', 'old')
  chat.messages('s1')
  chat.staff.notes('s1')
  await pass(200)
  expect(chat.staff.notes('s1')).toMatchObject({ state: 'complete', notes: [{ n: 1, text: 'old' }], unsent: [] })
  daemon.socket.hear({ type: 'session_note', note: daemon.note('s1', 'live') })
  daemon.loseAnswers = true
  chat.staff.addNote('s1', 'mine')
  await pass(100)
  expect(chat.staff.notes('s1')).toMatchObject({ notes: [{ n: 1 }, { n: 2, text: 'live' }], unsent: [{ text: 'mine', state: 'waiting' }] })
  expect(chat.messages('s1').unsent).toEqual([])
  chat.staff.reply('s2', 'to another')
  expect(chat.staff.unsent()).toMatchObject([{ text: 'mine', note: true, sessionId: 's1' }, { text: 'to another', sessionId: 's2' }])
  expect(chat.staff.unsent()).toBe(chat.staff.unsent())
  daemon.loseAnswers = false
  await pass(5000)
  expect(chat.staff.notes('s1').notes.map(({ text }) => text)).toEqual(['old', 'live', 'mine'])
  expect(chat.staff.notes('s1').unsent).toEqual([])
  expect(chat.staff.unsent()).toEqual([])
  expect(shown(chat, 's1')).toEqual(['question'])
})

test('a note that was missed while another came is read after the reconnection', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'question')
  chat.staff.notes('s1')
  await pass(200)
  daemon.note('s1', 'missed')
  daemon.socket.hear({ type: 'session_note', note: daemon.note('s1', 'live') })
  daemon.socket.end(1006)
  await pass(6000)
  expect(chat.staff.notes('s1').notes.map(({ text }) => text)).toEqual(['missed', 'live'])
})

test('looking at a session is repeated until the person leaves it', async () => {
  const { chat, daemon } = start()
  await pass(100)
  chat.staff.viewing('s1', true)
  await pass(15_000)
  const frames = (): unknown[] => daemon.sockets.flatMap(({ sent }) => sent).filter(({ type }) => type === 'viewing').map(({ viewing }) => viewing)
  expect(frames()).toEqual([true, true, true])
  daemon.socket.hear({ type: 'session_viewers', sessionId: 's1', viewers: [{ staffId: 's2', displayName: 'Kim', typing: false }] })
  expect(chat.staff.viewers('s1')).toMatchObject([{ staffId: 's2' }])
  expect(chat.staff.viewers('s2')).toEqual([])
  chat.staff.viewing('s1', false)
  await pass(30_000)
  expect(frames()).toEqual([true, true, true, false])
})

test('a status that was set is set again after a reconnection', async () => {
  const { chat, daemon } = start()
  await pass(100)
  chat.staff.setStatus('away')
  await pass(100)
  daemon.socket.end(1006)
  await pass(6000)
  expect(daemon.sockets.map(({ sent }) => sent.filter(({ type }) => type === 'set_status').map(({ status }) => status))).toEqual([['away'], ['away']])
})

test('the code of the desk is not loaded for players', async () => {
  const { chat, daemon } = open()
  chat.messages()
  await pass(1000)
  expect(daemon.calls.filter(({ line }) => line.includes('gre-admin'))).toEqual([])
})

test('a queue, notes and the place of a session that could not be read are read again', async () => {
  const { chat, daemon } = start()
  daemon.store('s1', 'player', 'question')
  await pass(100)
  daemon.rest = 'unavailable'
  chat.staff.queue()
  chat.staff.notes('s1')
  await pass(300)
  expect(chat.staff.queue()).toMatchObject({ state: 'failed', error: { transient: true } })
  expect(chat.staff.notes('s1')).toMatchObject({ state: 'failed' })
  expect(chat.status().connection).toBe('live')
  daemon.rest = 'works'
  await pass(10_000)
  expect(ids(chat.staff.queue().sessions)).toEqual(['s1'])
  expect(chat.staff.queue()).toMatchObject({ state: 'complete' })
  expect(chat.staff.queue().error).toBeUndefined()
  expect(chat.staff.notes('s1')).toMatchObject({ state: 'complete' })
  daemon.rest = 'unavailable'
  daemon.store('s2', 'player', 'new')
  daemon.socket.hear({ type: 'session_updated', session: daemon.row('s2') })
  await pass(500)
  daemon.rest = 'works'
  await pass(25_000)
  expect(ids(chat.staff.queue().sessions)).toEqual(['s1', 's2'])
})
