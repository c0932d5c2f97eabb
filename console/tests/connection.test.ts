/** The connection: which token it uses, and what stands in for a socket. */

import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Api, ApiError } from '../src/api'
import type { Auth } from '../src/auth'
import { Connection, type ConnectionState } from '../src/connection'
import type { Frame } from '../src/types'

/** The sockets of a test, the latest last. */
let sockets: FakeSocket[] = []

class FakeSocket {
  readyState = 0
  sent: { type: string; token?: string; since?: unknown }[] = []
  onopen?: () => void
  onmessage?: (event: { data: string }) => void
  onclose?: (event: { code: number }) => void

  constructor() {
    sockets.push(this)
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text))
  }

  close(): void {
    this.readyState = 3
  }

  open(): void {
    this.readyState = 1
    this.onopen?.()
  }

  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) })
  }

  /** The tokens that it was given. */
  get tokens() {
    return this.sent.flatMap(({ type, token }) => (type === 'authenticate' ? [token] : []))
  }
}

const IDENTITY = { type: 'authenticated', success: true, role: 'staff', staffId: 's1', expiresAt: null, sessions: [], staffOnline: 0 }

/** A sign-in whose renewals are answered by `renewals`: a token, or undefined for no answer. */
function page(renewals: (string | undefined)[] = []) {
  const auth = {
    token: 't1',
    signedIn: true,
    asked: 0,
    async renew() {
      auth.asked += 1
      const token = renewals.shift()
      if (!token) return false
      auth.token = token
      connection.useNewToken()
      return true
    },
  }
  const states: ConnectionState[] = []
  const frames: Frame[] = []
  const server = { answers: true, reads: 0 }
  const api = {
    me: async () => {
      if (!server.answers) throw new ApiError(0, 'unreachable', 'The server does not answer.')
      return { role: 'staff', staffId: 's1', expiresAt: null }
    },
  } as unknown as Api
  const connection = new Connection(auth as unknown as Auth, api, {
    since: () => ({ s: 7 }),
    onFrame: (frame) => frames.push(frame),
    onState: (state) => states.push(state),
    readMissed: async () => Boolean((server.reads += 1)),
  })
  connection.start()
  return { auth, connection, states, frames, server }
}

/** Wait for the next socket, and open it. */
async function opened(count: number): Promise<FakeSocket> {
  await vi.waitFor(() => expect(sockets).toHaveLength(count))
  sockets.at(-1)!.open()
  return sockets.at(-1)!
}

beforeEach(() => {
  vi.useFakeTimers({ shouldAdvanceTime: true })
  vi.stubGlobal('WebSocket', FakeSocket)
  vi.stubGlobal('location', { href: 'http://chat.example/console' })
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
  sockets = []
})

test('it authenticates with the token of the sign-in and what is loaded, and hands over the frames', async () => {
  const { connection, frames, states } = page()
  const socket = await opened(1)
  expect(socket.sent).toEqual([{ type: 'authenticate', token: 't1', since: { s: 7 } }])
  expect(connection.send({ type: 'set_status', status: 'away' })).toBe(false)
  socket.say(IDENTITY)
  socket.say({ type: 'session_viewers', sessionId: 's', viewers: [] })
  expect(frames.map(({ type }) => type)).toEqual(['authenticated', 'session_viewers'])
  expect(states.at(-1)).toBe('live')
  expect(connection.send({ type: 'set_status', status: 'away' })).toBe(true)
  connection.stop()
  expect([states.at(-1), socket.readyState]).toEqual(['stopped', 3])
})

test('a refused token is renewed before it is used again, however long that takes', async () => {
  const { auth, connection, states } = page([undefined, undefined, 't2'])
  const first = await opened(1)
  first.onclose?.({ code: 4401 })
  await vi.waitFor(() => expect(auth.asked).toBe(3))
  const second = await opened(2)
  expect(second.tokens).toEqual(['t2'])
  second.say(IDENTITY)
  expect(states.at(-1)).toBe('live')
  connection.stop()
})

test('an expired token is renewed on the same socket, and sent once', async () => {
  const { auth, connection } = page(['t2'])
  const socket = await opened(1)
  socket.say(IDENTITY)
  socket.say({ type: 'error', code: 'token_expired', error: 'expired' })
  await vi.waitFor(() => expect(socket.tokens).toEqual(['t1', 't2']))
  expect([auth.asked, sockets.length]).toEqual([1, 1])
  connection.stop()
})

test('a token that was renewed in time is sent on the same socket', async () => {
  const { auth, connection } = page(['t2'])
  const socket = await opened(1)
  socket.say(IDENTITY)
  await auth.renew()
  expect(socket.tokens).toEqual(['t1', 't2'])
  connection.stop()
})

test('a page whose socket was ended by the server connects again with a new token', async () => {
  const { auth, connection, states } = page(['t2'])
  const socket = await opened(1)
  socket.onclose?.({ code: 4403 })
  expect(states.at(-1)).toBe('stopped')
  await auth.renew()
  expect((await opened(2)).tokens).toEqual(['t2'])
  connection.stop()
})

test('without a socket the page reads by REST, and keeps what it shows while that fails, too', async () => {
  const { connection, frames, server, states } = page()
  server.answers = false
  for (let count = 1; count <= 3; count += 1) {
    await vi.waitFor(() => expect(sockets).toHaveLength(count))
    sockets.at(-1)!.onclose?.({ code: 1006 })
    await vi.advanceTimersByTimeAsync(15_000)
  }
  expect([server.reads, states.at(-1)]).toEqual([0, 'reconnecting'])
  server.answers = true
  await vi.advanceTimersByTimeAsync(60_000)
  expect(server.reads).toBeGreaterThan(1)
  expect(frames).toEqual([IDENTITY])
  expect(states.at(-1)).toBe('polling')
  connection.stop()
})
