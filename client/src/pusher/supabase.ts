/**
 * The calls of the core, through supabase-js: each path of REST as the function of the database that the daemon calls for it.
 *
 * The core's token goes with each call, whatever token the page's client has: a text is never sent as somebody else.
 */

import type { SupabaseAnswer, SupabaseCall, SupabaseClient } from './types.js'

type Row = Record<string, any>

interface Call {
  /** The function of the database. */
  name: string
  args: Row
  /** Make REST's answer of the function's. */
  answer?: (data: any) => unknown
  /** Header X-Next-Before. */
  next?: boolean
}

/** What stands in a path, the query, the body. */
type Route = (id: string, query: Row, body: Row) => Call

const history: Route = (id, { limit, before, sessionId, after_seq }) => ({
  name: 'gre_chat_history',
  args: { p_player_id: id, p_limit: limit, p_before: before, p_session_id: sessionId, p_after_seq: after_seq },
})

const member = ({ staff_id, display_name, role, status, open_sessions, takes_sessions, max_sessions }: Row): Row => ({
  staffId: staff_id, displayName: display_name, role, status, active: true, openSessions: open_sessions, takesSessions: takes_sessions, maxSessions: max_sessions,
})

const person = ({ role, player_id, staff_id, display_name, chat_enabled, expires_at, rating_enabled }: Row): Row => ({
  success: true, role, playerId: player_id, staffId: staff_id, displayName: display_name, chatEnabled: chat_enabled ?? true,
  expiresAt: expires_at ? new Date(expires_at * 1000).toISOString() : null,
  ...(rating_enabled && { ratingEnabled: true }),
})

const desk = ({ opens_at, closes_at, staff, ...more }: Row): Row => ({
  success: true, ...more, opensAt: opens_at, closesAt: closes_at,
  staff: staff.map(({ staff_id, display_name, status }: Row) => ({ staffId: staff_id, displayName: display_name, status })),
})

const message = ({ id, sessionId, playerId, attachmentIds, ...body }: Row): Row => ({
  p_id: id, p_session_id: sessionId, p_player_id: playerId, p_attachment_ids: attachmentIds, p_message: body.message ?? '',
})

/** By method and path, in which `*` stands for an id. */
const ROUTES: Record<string, Route> = {
  'GET /api/gre-chat/me': () => ({ name: 'gre_whoami', args: { p_required: true }, answer: person }),
  'GET /api/gre-chat/desk': () => ({ name: 'gre_get_desk', args: {}, answer: desk }),
  'GET /api/gre-chat/messages/*': (id, query, body) => ({ ...history(id, query, body), answer: ({ messages }) => messages, next: true }),
  'GET /api/chat-history/*': (id, query, body) => {
    const { name, args } = history(id, query, body)
    return { name, args: { ...args, p_sessions: true }, answer: ({ messages, sessions, next }) => ({ messages, conversations: sessions ?? [], next }) }
  },
  'POST /api/gre-chat/send': (_, __, body) => ({ name: 'gre_send_message', args: { ...message(body), p_sender: body.sender, p_player_name: body.playerName } }),
  'POST /api/gre-chat/read/*': (id, _, { upToSeq }) => ({ name: 'gre_mark_read', args: { p_session_id: id, p_up_to_seq: upToSeq } }),
  'POST /api/gre-chat/rate': (_, __, { sessionId, score, comment }) => ({ name: 'gre_rate_session', args: { p_session_id: sessionId, p_score: score, p_comment: comment } }),
  'POST /api/gre-chat/close-session/*': (id) => ({ name: 'gre_close_session', args: { p_player_id: id } }),
  'GET /api/gre-admin/queue': (_, { status, assigned, player, limit, cursor }) => ({
    name: 'gre_session_queue',
    args: { p_status: status, p_assigned: assigned, p_player: player, p_limit: limit, p_cursor: cursor },
  }),
  'GET /api/gre-admin/messages/*': (id, { limit, before_seq, after_seq }) => ({
    name: 'gre_chat_history',
    args: { p_session_id: id, p_limit: limit, p_before_seq: before_seq, p_after_seq: after_seq },
  }),
  'POST /api/gre-admin/reply': (_, __, body) => ({ name: 'gre_staff_reply', args: { ...message(body), p_after_seq: body.afterSeq, p_template_id: body.templateId } }),
  'PUT /api/gre-admin/session/*/status': (id, _, { status, staffId }) => ({ name: 'gre_set_session_status', args: { p_session_id: id, p_status: status, p_staff_id: staffId } }),
  'POST /api/gre-admin/take': (_, __, { sessionId, fromStaffId }) => ({ name: 'gre_take_session', args: { p_session_id: sessionId, p_from_staff: fromStaffId } }),
  'POST /api/gre-admin/release': (_, __, { sessionId }) => ({ name: 'gre_release_session', args: { p_session_id: sessionId } }),
  'POST /api/gre-admin/transfer': (_, __, { sessionId, toStaffId, note, noteId, afterSeq }) => ({
    name: 'gre_transfer_session',
    args: { p_session_id: sessionId, p_to_staff: toStaffId, p_note: note, p_note_id: noteId, p_after_seq: afterSeq },
  }),
  'GET /api/gre-admin/notes/*': (id, { after_n }) => ({ name: 'gre_list_notes', args: { p_session_id: id, p_after_n: after_n } }),
  'POST /api/gre-admin/notes': (_, __, { id, sessionId, text }) => ({ name: 'gre_add_note', args: { p_id: id, p_session_id: sessionId, p_text: text } }),
  'GET /api/gre-admin/templates': () => ({ name: 'gre_list_templates', args: {}, answer: (templates) => ({ templates }) }),
  'POST /api/gre-admin/templates/*/render': (id, _, { sessionId }) => ({ name: 'gre_render_template', args: { p_template_id: id, p_session_id: sessionId } }),
  'GET /api/gre-admin/staff': () => ({ name: 'gre_list_staff', args: {}, answer: (staff) => ({ staff: staff.map(member) }) }),
}

const reply = (status: number, body: unknown, headers: Record<string, string> = {}): Response => new Response(JSON.stringify(body), { status, headers })

function routeOf(method: string, path: string): [Route, string] | undefined {
  const exact = ROUTES[`${method} ${path}`]
  if (exact) return [exact, '']
  const parts = path.split('/')
  // The id is the fourth part (chat-history), the fifth, or the one before the last.
  for (let at = 3; at < parts.length; at += 1) {
    const found = ROUTES[`${method} ${parts.with(at, '*').join('/')}`]
    if (found) return [found, decodeURIComponent(parts[at]!)]
  }
  return undefined
}

/** A `fetch` for paths without a host, which calls functions of the database; addresses with a host go to the network. */
export function supabaseFetch(supabase: SupabaseClient) {
  return async (address: string, init: RequestInit): Promise<Response> => {
    if (!address.startsWith('/')) return fetch(address, init)
    const { pathname, searchParams } = new URL(address, 'http://localhost')
    const found = routeOf(init.method!, pathname)
    if (!found) {
      const isFile = pathname.startsWith('/api/gre-chat/attachments')
      return reply(isFile ? 503 : 404, { code: isFile ? 'files_off' : 'not_found', error: 'This needs the address of the daemon.' })
    }
    const [route, id] = found
    const { name, args, answer, next } = route(id, Object.fromEntries(searchParams), init.body ? JSON.parse(init.body as string) : {})
    const given = Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined))
    const rpc = supabase.rpc.bind(supabase) as unknown as (name: string, args: Row) => SupabaseCall
    const call = rpc(name, given).setHeader('Authorization', (init.headers as Record<string, string>).Authorization!)
    const { data, error, status } = await (init.signal ? call.abortSignal(init.signal) : call)
    // Nothing is known of it.
    if (!status) throw new TypeError('no answer')
    if (error) return refusal(error, status)
    const cursor = next && (data as Row).next
    return reply(200, answer ? answer(data) : data, cursor ? { 'X-Next-Before': cursor } : {})
  }
}

/** As the daemon says it: the codes of the chat's own rules are hints of errors whose SQLSTATE is PT and the status. */
function refusal({ code = '', message, hint, details }: NonNullable<SupabaseAnswer['error']>, status: number): Response {
  // What is between here and the database answers without a code.
  if (!code.startsWith('PT')) return reply(status, { code: codeOf(code, message, status), error: message })
  const wait = /retry_after=(\d+)/.exec(details ?? '')?.[1]
  return reply(status, { code: hint || 'refused', error: message, details: detailsIn(details) }, wait ? { 'Retry-After': wait } : {})
}

function codeOf(code: string, message: string, status: number): string {
  if (status === 401) return message === 'JWT expired' ? 'token_expired' : 'token_invalid'
  return code === '42501' ? 'forbidden' : code === '23505' ? 'conflict' : status < 500 ? 'value_invalid' : 'unavailable'
}

function detailsIn(text: string | null | undefined): Row | undefined {
  try {
    return JSON.parse(text ?? '') as Row
  } catch {
    return undefined // words for people
  }
}
