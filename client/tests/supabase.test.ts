import { createClient } from '@supabase/supabase-js'
import { expect, test, vi } from 'vitest'

import { ChatError, createChat, type Message } from '../src/index.js'
import { pusherTransport } from '../src/pusher/index.js'
import { supabaseFetch } from '../src/pusher/supabase.js'
import { ASHA, memoryStorage, pass, SAM, shown, unsent } from './support/page.js'
import { FakePusher } from './support/pusher.js'

interface Asked {
  name: string
  args: Record<string, unknown>
  token: string | null
}

type Answer = { status: number; body: unknown } | 'none'

/** The page's client of supabase-js, whose own token is another one, before a database that answers as `answer` says. */
function database(answer: (name: string, args: Record<string, unknown>) => Answer) {
  const asked: Asked[] = []
  const client = createClient('http://project.test', 'anon', {
    accessToken: async () => 'the token of the page',
    realtime: { transport: class {} as never }, // Node.js 20 has no WebSocket
    global: {
      async fetch(address, init) {
        const name = new URL(String(address)).pathname.split('/').at(-1)!
        const args = JSON.parse(String(init!.body)) as Record<string, unknown>
        asked.push({ name, args, token: new Headers(init!.headers).get('Authorization') })
        const found = answer(name, args)
        if (found === 'none') throw new TypeError('fetch failed')
        return new Response(JSON.stringify(found.body), { status: found.status, headers: { 'Content-Type': 'application/json' } })
      },
    },
  })
  return { client, asked, fetch: supabaseFetch(client) }
}

const ok = (body: unknown): Answer => ({ status: 200, body })
const pt = (status: number, hint: string, details: string | null = null): Answer => ({ status, body: { code: `PT${status}`, message: 'no', hint, details } })
const init = (method: string, body?: object): RequestInit => ({ method, headers: { Authorization: `Bearer ${ASHA}` }, body: body && JSON.stringify(body) })

const MESSAGE: Message = {
  id: 'm1', seq: 1, session_id: 's1', player_id: 29, player_name: 'Asha', message: 'one', sender: 'staff', sender_name: 'Sam', status: 'sent',
  timestamp: '2026-11-29T12:00:00.000Z', created_at: '2026-11-29T12:00:00.000Z',
}
const ME = { role: 'player', player_id: 29, staff_id: null, display_name: 'Asha', chat_enabled: true, user_id: null, expires_at: 1_800_000_000, rating_enabled: true }

test('a chat without a daemon: who I am, messages, a text, a mark, and each call with the token of the chat', async () => {
  const stored = [MESSAGE]
  const { client, asked } = database((name, args) => {
    if (name === 'gre_whoami') return ok(ME)
    if (name === 'gre_chat_history') return ok({ messages: stored, next: null, has_more: false, session: null, sessions: null })
    if (name === 'gre_mark_read') return ok({ session_id: 's1', by: 'player', up_to_seq: 1, timestamp: null, changed: true })
    const message = { ...MESSAGE, id: args.p_id as string, seq: 2, message: args.p_message as string, sender: 'player' as const }
    stored.push(message)
    return ok({ message, duplicate: false })
  })
  const fetched = vi.spyOn(globalThis, 'fetch')
  const chat = createChat({ url: '', getToken: () => ASHA, name: 'Asha', storage: memoryStorage(), transport: pusherTransport({ pusher: new FakePusher(), supabase: client }) })
  chat.connect()
  chat.messages()
  await pass(500)
  expect(chat.status()).toMatchObject({ connection: 'live', me: { role: 'player', playerId: 29, displayName: 'Asha', ratingEnabled: true } })
  chat.markRead()
  chat.send('two')
  await pass(200)
  expect(shown(chat)).toEqual(['one', 'two'])
  expect(unsent(chat)).toEqual([])
  expect(asked.find(({ name }) => name === 'gre_mark_read')!.args).toEqual({ p_session_id: 's1', p_up_to_seq: 1 })
  expect(asked.find(({ name }) => name === 'gre_send_message')!.args).toEqual({ p_id: stored[1]!.id, p_player_id: 29, p_message: 'two', p_sender: 'player', p_player_name: 'Asha' })
  expect(new Set(asked.map(({ token }) => token))).toEqual(new Set([`Bearer ${ASHA}`]))
  expect(fetched).not.toHaveBeenCalled()
  chat.close()
})

test.each([
  ['GET', '/api/gre-chat/messages/29?limit=100&before=abc&sessionId=s1', undefined, 'gre_chat_history', { p_player_id: '29', p_limit: '100', p_before: 'abc', p_session_id: 's1' }],
  ['GET', '/api/chat-history/29?limit=1', undefined, 'gre_chat_history', { p_player_id: '29', p_limit: '1', p_sessions: true }],
  ['POST', '/api/gre-chat/rate', { sessionId: 's1', score: 5 }, 'gre_rate_session', { p_session_id: 's1', p_score: 5 }],
  ['POST', '/api/gre-chat/close-session/29', undefined, 'gre_close_session', { p_player_id: '29' }],
  ['GET', '/api/gre-admin/queue?status=active&limit=100', undefined, 'gre_session_queue', { p_status: 'active', p_limit: '100' }],
  ['GET', '/api/gre-admin/messages/s1?limit=500&after_seq=3', undefined, 'gre_chat_history', { p_session_id: 's1', p_limit: '500', p_after_seq: '3' }],
  ['POST', '/api/gre-admin/reply', { id: 'm', sessionId: 's1', message: 'hi', afterSeq: 4, attachmentIds: ['f'] }, 'gre_staff_reply', { p_id: 'm', p_session_id: 's1', p_message: 'hi', p_after_seq: 4, p_attachment_ids: ['f'] }],
  ['PUT', '/api/gre-admin/session/s1/status', { status: 'closed' }, 'gre_set_session_status', { p_session_id: 's1', p_status: 'closed' }],
  ['POST', '/api/gre-admin/take', { sessionId: 's1', fromStaffId: 's2' }, 'gre_take_session', { p_session_id: 's1', p_from_staff: 's2' }],
  ['POST', '/api/gre-admin/release', { sessionId: 's1' }, 'gre_release_session', { p_session_id: 's1' }],
  ['POST', '/api/gre-admin/transfer', { sessionId: 's1', toStaffId: null, note: 'n', noteId: 'i', afterSeq: 2 }, 'gre_transfer_session', { p_session_id: 's1', p_to_staff: null, p_note: 'n', p_note_id: 'i', p_after_seq: 2 }],
  ['GET', '/api/gre-admin/notes/s1?after_n=2', undefined, 'gre_list_notes', { p_session_id: 's1', p_after_n: '2' }],
  ['POST', '/api/gre-admin/notes', { id: 'n', sessionId: 's1', text: 't' }, 'gre_add_note', { p_id: 'n', p_session_id: 's1', p_text: 't' }],
  ['POST', '/api/gre-admin/templates/t1/render', { sessionId: 's1' }, 'gre_render_template', { p_template_id: 't1', p_session_id: 's1' }],
])('%s %s is a function of the database', async (method, path, body, name, args) => {
  const { fetch, asked } = database(() => ok({ messages: [] }))
  expect((await fetch(path, init(method, body))).status).toBe(200)
  expect(asked).toEqual([{ name, args, token: `Bearer ${ASHA}` }])
})

test('answers have the form of REST', async () => {
  const answers: Record<string, unknown> = {
    gre_list_templates: [{ id: 't1' }],
    gre_list_staff: [{ staff_id: 's1', display_name: 'Sam', role: 'staff', status: 'online', open_sessions: 2, takes_sessions: true, max_sessions: null, active: true }],
    gre_chat_history: { messages: [MESSAGE], sessions: [{ id: 's1' }], next: 'cursor' },
  }
  const { fetch } = database((name) => ok(answers[name]))
  answers.gre_get_desk = { open: false, opens_at: 'o', closes_at: null, timezone: 'UTC', now: 'n', staff: [{ staff_id: 's1', display_name: 'Sam', status: 'away' }] }
  const read = async (path: string): Promise<unknown> => (await fetch(path, init('GET'))).json()
  expect(await read('/api/gre-admin/templates')).toEqual({ templates: [{ id: 't1' }] })
  expect(await read('/api/gre-admin/staff')).toEqual({
    staff: [{ staffId: 's1', displayName: 'Sam', role: 'staff', status: 'online', active: true, openSessions: 2, takesSessions: true, maxSessions: null }],
  })
  expect(await read('/api/gre-chat/desk')).toMatchObject({
    open: false, opensAt: 'o', closesAt: null, timezone: 'UTC', now: 'n', staff: [{ staffId: 's1', displayName: 'Sam', status: 'away' }],
  })
  expect(await read('/api/chat-history/29')).toEqual({ messages: [MESSAGE], conversations: [{ id: 's1' }], next: 'cursor' })
  const page = await fetch('/api/gre-chat/messages/29', init('GET'))
  expect(await page.json()).toEqual([MESSAGE])
  expect(page.headers.get('X-Next-Before')).toBe('cursor')
})

test.each([
  [pt(409, 'session_moved', '{"by": "s2", "seq": 14}'), 409, 'session_moved', { by: 's2', seq: 14 }],
  [pt(403, 'chat_disabled'), 403, 'chat_disabled', undefined],
  [pt(429, 'too_fast', 'retry_after=7'), 429, 'too_fast', undefined],
  [{ status: 401, body: { code: 'PGRST303', message: 'JWT expired', hint: null, details: null } }, 401, 'token_expired', undefined],
  [{ status: 401, body: { code: 'PGRST301', message: 'no suitable key', hint: null, details: null } }, 401, 'token_invalid', undefined],
  [{ status: 403, body: { code: '42501', message: 'permission denied', hint: 'a hint for people', details: null } }, 403, 'forbidden', undefined],
  [{ status: 409, body: { code: '23505', message: 'duplicate key', hint: null, details: 'Key (id)' } }, 409, 'conflict', undefined],
  [{ status: 400, body: { code: '22P02', message: 'invalid input', hint: null, details: null } }, 400, 'value_invalid', undefined],
  [{ status: 503, body: { code: 'PGRST002', message: 'no schema', hint: null, details: null } }, 503, 'unavailable', undefined],
] as const)('a refusal has the code of REST: %o', async (given, status, code, details) => {
  const { fetch } = database(() => given as Answer)
  const answer = await fetch('/api/gre-chat/me', init('GET'))
  expect(answer.status).toBe(status)
  expect(await answer.json()).toMatchObject({ code, error: expect.any(String), ...(details && { details }) })
  expect(answer.headers.get('Retry-After')).toBe(code === 'too_fast' ? '7' : null)
})

test('without an answer nothing is known', async () => {
  const { fetch } = database(() => 'none')
  await expect(fetch('/api/gre-chat/me', init('GET'))).rejects.toThrow('no answer')
  const late = new AbortController()
  late.abort()
  await expect(fetch('/api/gre-chat/me', { ...init('GET'), signal: late.signal })).rejects.toThrow('no answer')
})

test('what needs the daemon is refused, finally; an address of a daemon is called itself', async () => {
  const { client, asked, fetch } = database((name) => ok(name === 'gre_whoami' ? { ...ME, role: 'staff', player_id: null, staff_id: 's1' } : []))
  const chat = createChat({ url: '', getToken: () => SAM, storage: null, transport: pusherTransport({ pusher: new FakePusher(), supabase: client }) })
  chat.connect()
  await pass(500)
  const upload = chat.upload(new Blob(['x']))
  await pass(200)
  expect(upload).toMatchObject({ state: 'failed', error: { code: 'files_off' } })
  const refused = chat.url('f1').catch((error: unknown) => error)
  await pass(200)
  expect(await refused).toBeInstanceOf(ChatError)
  chat.close()
  const count = asked.length
  expect((await fetch('/api/gre-admin/search?q=x', init('GET'))).status).toBe(404)
  const network = vi.spyOn(globalThis, 'fetch').mockResolvedValue(new Response('{}'))
  await fetch('https://chat.example/api/gre-chat/me', init('GET'))
  expect(network).toHaveBeenCalledOnce()
  expect(asked).toHaveLength(count)
})

test.each([403, 503])('an answer of something in between (%i), without a code, keeps its status and its words', async (status) => {
  const { fetch } = database(() => ({ status, body: { message: 'not now' } }))
  const answer = await fetch('/api/gre-chat/rate', init('POST', { sessionId: 's1', score: 5 }))
  expect([answer.status, await answer.json()]).toMatchObject([status, { error: 'not now' }])
})
