import { expect, test } from 'vitest'

import type { Page } from './support/page.js'
import { BINA, open, pass } from './support/page.js'

const reads = ({ daemon }: Page): number => daemon.calls.filter(({ line }) => line === 'GET /api/gre-chat/desk').length
const MINUTE = 60_000
const SAM = { staffId: 's1', displayName: 'Sam', status: 'online' } as const
const SUE = { staffId: 's2', displayName: 'Sue', status: 'online' } as const

/** A page that shows the desk, as it is after each change. */
async function showing(desk: Page['daemon']['desk']): Promise<Page & { leaveDesk: () => void }> {
  const page = open()
  page.daemon.desk = desk
  const leaveDesk = page.chat.subscribe(() => void page.chat.desk())
  page.chat.desk()
  await pass(200)
  return Object.assign(page, { leaveDesk })
}

test('the desk is read when a page first asks for it, and not before', async () => {
  const page = open()
  page.daemon.desk = { open: false, opensAt: '2026-11-30T08:00:00.000Z' }
  await pass(10 * MINUTE)
  expect(reads(page)).toBe(0)
  expect(page.chat.desk()).toBeUndefined()
  page.chat.subscribe(() => void page.chat.desk())
  await pass(200)
  expect(page.chat.desk()).toEqual({ open: false, opensAt: '2026-11-30T08:00:00.000Z', closesAt: null, timezone: 'Europe/Malta' })
  expect(page.chat.desk()).toBe(page.chat.desk())
  expect(reads(page)).toBe(1)
})

test('it is read again at its opening, by the clock of the server', async () => {
  const page = open()
  page.daemon.ahead = 60 * MINUTE // it is 14:00 there
  page.daemon.desk = { open: false, opensAt: '2026-11-29T14:01:00.000Z' }
  page.chat.subscribe(() => void page.chat.desk())
  page.chat.desk()
  await pass(55_000)
  expect(reads(page)).toBe(1)
  page.daemon.desk = { open: true, closesAt: '2026-11-29T18:00:00.000Z' }
  await pass(20_000)
  expect(reads(page)).toBe(2)
  expect(page.chat.desk()).toMatchObject({ open: true, opensAt: null, closesAt: '2026-11-29T18:00:00.000Z' })
})

test('changes of the hours are noticed within three minutes, and only while a page shows the desk', async () => {
  const page = await showing({ open: true })
  page.daemon.desk = { open: false }
  await pass(3 * MINUTE)
  expect(page.chat.desk()).toMatchObject({ open: false })
  page.leaveDesk()
  await pass(3 * MINUTE)
  const before = reads(page)
  await pass(20 * MINUTE)
  expect(reads(page)).toBe(before)
})

test('a read that says nothing new changes no snapshot', async () => {
  const page = await showing({ open: true, closesAt: '2026-11-29T18:00:00.000Z', staff: [SAM] })
  const before = [page.chat.desk(), page.chat.staffOnline()]
  await pass(10 * MINUTE)
  expect(reads(page)).toBeGreaterThan(3)
  expect(page.chat.desk()).toBe(before[0])
  expect(page.chat.staffOnline()).toBe(before[1])
})

test('a desk that cannot be read is asked for again, not at every change', async () => {
  const page = await showing(undefined)
  for (let n = 0; n < 20; n += 1) page.daemon.store('s1', 'staff', 'Hello')
  await pass(MINUTE)
  expect(page.chat.desk()).toBeUndefined()
  expect(reads(page)).toBe(1)
  page.daemon.desk = { open: true }
  await pass(3 * MINUTE)
  expect(page.chat.desk()).toMatchObject({ open: true })
})

test('after a reconnection it is read again, and says who has left meanwhile', async () => {
  const page = await showing({ open: true, staff: [SAM, SUE] })
  expect(page.chat.staffOnline()).toMatchObject([SAM, SUE])
  page.daemon.desk = { open: false, staff: [SUE] }
  page.daemon.socket.close()
  await pass(MINUTE)
  expect(page.chat.desk()).toMatchObject({ open: false })
  expect(page.chat.staffOnline()).toMatchObject([SUE])
})

test('a change of presence during the call is newer than its answer', async () => {
  const page = open()
  page.daemon.desk = { open: true, staff: [SAM] }
  page.daemon.delay = 1000
  page.chat.subscribe(() => void page.chat.desk())
  page.chat.desk()
  await pass(1500)
  expect(reads(page)).toBe(1)
  page.daemon.socket.hear({ type: 'staff_status', ...SAM, status: 'offline' })
  page.daemon.socket.hear({ type: 'staff_status', ...SUE })
  await pass(2000)
  expect(page.chat.desk()).toMatchObject({ open: true })
  expect(page.chat.staffOnline()).toMatchObject([SUE])
})

test("nothing that was read for one person is another's", async () => {
  const page = await showing({ open: true, staff: [SAM] })
  page.daemon.desk = undefined
  page.token = BINA
  page.daemon.socket.close()
  await pass(MINUTE)
  expect(page.chat.status().me).toMatchObject({ playerId: 30 })
  expect(page.chat.desk()).toBeUndefined()
  expect(page.chat.staffOnline()).toEqual([])
})
