import { expect, test } from 'vitest'

import type { Link, Transport, TransportHost } from '../src/index.js'
import { ASHA, open, pass, SAM, shown } from './support/page.js'

/** A transport as one over Pusher: it receives, says who the person is, and sends nothing. */
function receiver(): { transport: Transport; host(): TransportHost; closed: number } {
  let host: TransportHost
  const own = {
    closed: 0,
    host: () => host,
    transport: {
      open(given: TransportHost): Link {
        host = given
        return { send: () => false, close: () => void (own.closed += 1), wake: () => {} }
      },
    },
  }
  return own
}

test('a transport without a socket: texts and marks go by REST, with the token of the person', async () => {
  const own = receiver()
  const { chat, daemon } = open({ transport: own.transport })
  daemon.store('s1', 'staff', 'one')
  chat.messages()
  expect(chat.status().connection).toBe('connecting')
  const who = own.host().request<{ playerId: number }>('GET', '/api/gre-chat/me')
  await pass(50)
  expect((await who).playerId).toBe(29)
  own.host().frame({ type: 'authenticated', success: true, role: 'player', playerId: 29, expiresAt: null, sessions: [], staffOnline: 0 })
  own.host().state('live')
  const read = own.host().missed()
  await pass(100)
  expect(await read).toBe(true)
  expect(shown(chat)).toEqual(['one'])
  expect(chat.unread()).toBe(1)
  chat.send('two')
  chat.markRead()
  await pass(100)
  expect(shown(chat)).toEqual(['one', 'two'])
  expect(daemon.marks).toHaveLength(1)
  expect(daemon.calls.every(({ token }) => token === ASHA)).toBe(true)
  own.host().frame({ type: 'chat_message', message: daemon.store('s1', 'staff', 'three').message, replay: false })
  expect(shown(chat)).toEqual(['one', 'two', 'three'])
})

test('what is missed is read when the transport says so, and it learns whether that was done', async () => {
  const own = receiver()
  const { chat, daemon } = open({ transport: own.transport })
  chat.messages()
  daemon.rest = 'fails'
  const failed = own.host().missed()
  await pass(100)
  expect(await failed).toBe(false)
  daemon.rest = 'works'
  daemon.store('s1', 'staff', 'one')
  const done = own.host().missed()
  await pass(100)
  expect(await done).toBe(true)
  expect(chat.status().me).toMatchObject({ playerId: 29 })
  expect(shown(chat)).toEqual(['one'])
})

test('a transport that was closed is not heard any more', async () => {
  const own = receiver()
  const { chat, leave } = open({ transport: own.transport })
  const old = own.host()
  old.state('live')
  leave()
  await pass(6000)
  expect(own.closed).toBe(1)
  old.state('live')
  expect(chat.status().connection).toBe('idle')
})

test('after close a chat stays closed', async () => {
  const { chat, daemon } = open()
  await pass(100)
  chat.close()
  chat.connect()
  expect(chat.status()).toMatchObject({ connection: 'stopped', reason: 'closed' })
  chat.send('too late')
  await pass(60_000)
  expect(daemon.sessions.size).toBe(0)
})

test('after a reconnection only the conversations that were used last are read again', async () => {
  const { chat, daemon } = open({ getToken: () => SAM })
  for (let index = 0; index < 30; index += 1) daemon.store(`s${index}`, 'player', 'question')
  for (let index = 0; index < 30; index += 1) chat.messages(`s${index}`)
  await pass(200)
  chat.messages('s3')
  await pass(100)
  daemon.calls.length = 0
  daemon.socket.end(1006)
  daemon.store('s3', 'player', 'another')
  await pass(6000)
  const read = daemon.calls.map(({ line }) => line).filter((line) => line.includes('/messages/'))
  expect(read).toHaveLength(10)
  expect(read).toContain('GET /api/gre-admin/messages/s3')
  expect(shown(chat, 's3')).toEqual(['question', 'another'])
})
