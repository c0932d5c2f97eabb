/**
 * A daemon in memory, behind a `WebSocket` and a `fetch` of its own: stores messages, answers REST, sends frames. It can lose,
 * refuse and delay what a real network and a real daemon lose, refuse and delay.
 */

import type { Attachment, DeskRead, Message, Note, Session } from '../../src/index.js'

export interface Who {
  role: 'player' | 'staff'
  playerId?: number | string
  staffId?: string
}

type Frame = Record<string, unknown> & { type: string }

/** The time of the first message. */
const START = Date.parse('2026-11-29T12:00:00Z')

export class FakeSocket {
  static daemon: Daemon
  readyState = 0
  onopen: (() => void) | null = null
  onmessage: ((event: { data: string }) => void) | null = null
  onclose: ((event: { code: number }) => void) | null = null
  onerror: (() => void) | null = null
  who: Who | undefined
  readonly sent: Frame[] = []

  constructor(readonly url: string) {
    FakeSocket.daemon.sockets.push(this)
    setTimeout(() => {
      const { daemon } = FakeSocket
      if (this.readyState !== 0 || daemon.upgrades === 'hang') return
      if (daemon.upgrades === 'refuse') return this.end(1006)
      this.readyState = 1
      this.onopen?.()
    }, 5)
  }

  send(text: string): void {
    const frame = JSON.parse(text) as Frame
    this.sent.push(frame)
    setTimeout(() => this.readyState === 1 && FakeSocket.daemon.take(this, frame), 5)
  }

  close(): void {
    this.readyState = 3
  }

  /** The connection ends, as the client sees it. */
  end(code: number): void {
    if (this.readyState === 3) return
    this.readyState = 3
    this.onclose?.({ code })
  }

  hear(frame: Frame): void {
    if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify(frame) })
  }
}

export class Daemon {
  readonly sockets: FakeSocket[] = []
  readonly sessions = new Map<string, Session & { messages: Message[] }>()
  readonly persons = new Map<string, Who>()
  /** What differs from an empty desk; undefined: it cannot be read. */
  desk: Partial<DeskRead> | undefined = { open: true }
  /** Milliseconds that the server's clock is ahead. */
  ahead = 0
  /** Calls of REST: "GET /api/gre-chat/me". */
  readonly calls: { line: string; token: string; body: Record<string, unknown> | undefined }[] = []
  upgrades: 'work' | 'refuse' | 'hang' = 'work'
  /** Milliseconds until REST answers. */
  delay = 10
  /** `hangs`: calls get no answer, and go on so, as on a connection that is dead. */
  rest: 'works' | 'fails' | 'unavailable' | 'hangs' = 'works'
  /** Answers of REST to what changes something do not arrive. */
  loseAnswers = false
  /** Refuse what a person sends. */
  refusal: { status: number; code: string; details?: object; retryAfter?: number } | undefined
  /** What the storage of files does with an upload. */
  storage: 'works' | 'fails' | 'refuses' | 'loses the answer' = 'works'
  readonly files = new Map<string, Attachment>()
  readonly notes: Note[] = []
  private linkCount = 0
  /** Called before a frame of a client is taken; true: it is lost. */
  lose: (frame: Frame) => boolean = () => false
  /** Called for each message that is about to be sent to a socket; true: it is lost. */
  loseMessage: (message: Message) => boolean = () => false
  /** Close the next authentications with this code. */
  refusals: number[] = []
  displayName: string | null = 'Asha'
  readonly marks: { sessionId: string; upToSeq: number }[] = []
  private readonly byId = new Map<string, Message>()
  private count = 0
  private rev = 0

  constructor() {
    FakeSocket.daemon = this
    Object.assign(globalThis, { WebSocket: FakeSocket, fetch: (url: string, init: RequestInit) => this.fetch(url, init) })
  }

  get live(): FakeSocket[] {
    return this.sockets.filter(({ readyState, who }) => readyState === 1 && who)
  }

  get socket(): FakeSocket {
    return this.sockets.at(-1)!
  }

  open(id: string, playerId: number | string = 29): Session & { messages: Message[] } {
    const created_at = new Date(START + this.count).toISOString()
    const session = {
      id, player_id: playerId, player_name: 'Asha', status: 'active' as const, assigned_staff_id: null, last_seq: 0, rev: ++this.rev,
      unread_by_staff: 0, unread_by_player: 0, last_message: null, last_message_at: null, created_at, closed_at: null, messages: [],
    }
    this.sessions.set(id, session)
    return session
  }

  /** Store a message, and send it to whom it belongs. */
  store(sessionId: string, sender: Message['sender'], message: string, { id = `m${this.count + 1}` }: { id?: string } = {}): { message: Message; duplicate: boolean } {
    const session = this.sessions.get(sessionId) ?? this.open(sessionId)
    const known = this.byId.get(id)
    if (known) return { message: known, duplicate: true }
    this.count += 1
    const at = new Date(START + this.count * 1000).toISOString()
    const stored: Message = {
      id, seq: session.messages.length + 1, session_id: sessionId, player_id: session.player_id, player_name: 'Asha', message, sender,
      sender_name: sender === 'player' ? 'Asha' : 'Sam', status: 'sent', timestamp: at, created_at: at,
    }
    session.messages.push(stored)
    this.byId.set(id, stored)
    const unread = sender === 'player' ? 'unread_by_staff' : 'unread_by_player'
    Object.assign(session, { last_seq: stored.seq, last_message: message, last_message_at: at, rev: ++this.rev, [unread]: session[unread] + 1 })
    for (const socket of this.live) if (this.sees(socket.who!, session) && !this.loseMessage(stored)) socket.hear({ type: 'chat_message', message: stored, replay: false })
    return { message: stored, duplicate: false }
  }

  row(id: string): Session {
    const { messages: _, ...row } = this.sessions.get(id)!
    return row
  }

  take(socket: FakeSocket, frame: Frame): void {
    if (this.lose(frame)) return
    const { who } = socket
    if (frame.type === 'ping') return socket.hear({ type: 'pong' })
    if (frame.type === 'authenticate') return this.authenticate(socket, frame)
    if (!who) return socket.hear({ type: 'error', code: 'not_authenticated', error: 'authenticate first', clientId: frame.clientId })
  }

  read(who: Who, sessionId: string, upToSeq: number): void {
    this.marks.push({ sessionId, upToSeq })
    const session = this.sessions.get(sessionId)!
    const own = (message: Message): boolean => (message.sender === 'player') === (who.role === 'player')
    session.messages = session.messages.map((message) => (message.seq <= upToSeq && !own(message) ? { ...message, status: 'read' as const } : message))
    const left = session.messages.filter((message) => !own(message) && message.status !== 'read').length
    Object.assign(session, { rev: ++this.rev, [who.role === 'player' ? 'unread_by_player' : 'unread_by_staff']: left })
    for (const socket of this.live) socket.hear({ type: 'messages_read', sessionId, by: who.role, upToSeq, timestamp: '' })
  }

  private sees(who: Who, session: Session): boolean {
    return who.role === 'staff' || who.playerId === session.player_id
  }

  private openOf(who: Who): string {
    for (const session of this.sessions.values()) if (session.status === 'active' && session.player_id === who.playerId) return session.id
    return this.open(`s${this.sessions.size + 1}`, who.playerId).id
  }

  private authenticate(socket: FakeSocket, frame: Frame): void {
    const who = this.persons.get(frame.token as string)
    const refusal = this.refusals.shift()
    if (refusal || !who) return socket.end(refusal ?? 4401)
    const again = socket.who !== undefined
    socket.who = who
    const since = frame.since as Record<string, number> | undefined
    const seen = [...this.sessions.values()].filter((session) => this.sees(who, session))
    const rows = again ? [] : seen.map(({ id }) => this.row(id))
    socket.hear({ type: 'authenticated', success: true, ...who, expiresAt: null, sessions: rows, staffOnline: 1 })
    if (!since || again) return
    for (const session of seen) {
      for (const message of session.messages) {
        const missed = message.seq > (since[session.id] ?? 0)
        if (missed && !this.loseMessage(message)) socket.hear({ type: 'chat_message', message, replay: true })
      }
    }
  }

  /** Write a note, without a frame. */
  note(sessionId: string, text: string, id = `n${this.notes.length + 1}`): Note {
    const known = this.notes.find((note) => note.id === id)
    if (known) return known
    const n = this.notes.filter(({ session_id }) => session_id === sessionId).length + 1
    const note: Note = { id, session_id: sessionId, n, after_seq: 1, staff_id: 's2', staff_name: 'Kim', text, created_at: new Date(START).toISOString() }
    this.notes.push(note)
    return note
  }

  /** Uploads that have reached the storage. */
  puts = 0

  private async put(id: string, signal: AbortSignal): Promise<Response> {
    await new Promise((resolve) => setTimeout(resolve, 10))
    signal.throwIfAborted()
    if (this.storage === 'fails') throw new TypeError('fetch failed')
    if (this.storage === 'refuses') return new Response(JSON.stringify({ statusCode: '415', error: 'invalid_mime_type' }), { status: 400 })
    this.files.get(id)!.state = 'stored'
    if (this.storage === 'loses the answer') throw new TypeError('fetch failed')
    return new Response('{}')
  }

  private async fetch(address: string, init: RequestInit): Promise<Response> {
    const url = new URL(address)
    if (url.host === 'storage.test') this.puts += 1
    if (url.host === 'storage.test') return this.put(url.pathname.slice(1), init.signal!)
    const token = ((init.headers as Record<string, string>).Authorization ?? '').slice(7)
    const body = init.body ? (JSON.parse(String(init.body)) as Record<string, unknown>) : undefined
    const line = `${init.method} ${url.pathname}`
    this.calls.push({ line, token, body })
    await new Promise((resolve) => setTimeout(resolve, this.delay))
    init.signal!.throwIfAborted()
    if (this.rest === 'fails') throw new TypeError('fetch failed')
    if (this.rest === 'hangs') await new Promise((_, reject) => init.signal!.addEventListener('abort', reject))
    const answer = (status: number, content: unknown, headers: Record<string, string> = {}): Response =>
      new Response(status === 304 ? null : JSON.stringify(content), { status, headers })
    if (this.rest === 'unavailable') return answer(503, { success: false, code: 'unavailable', error: 'try again' }, { 'Retry-After': '1' })
    const who = this.persons.get(token)
    if (!who) return answer(401, { success: false, code: 'token_invalid', error: 'the token is invalid' })
    const query = (name: string): string | undefined => url.searchParams.get(name) ?? undefined
    if (url.pathname === '/api/gre-chat/me') {
      return answer(200, { success: true, playerId: null, staffId: null, ...who, displayName: this.displayName, chatEnabled: true, expiresAt: null })
    }
    if (url.pathname === '/api/gre-chat/desk') {
      if (!this.desk) return answer(503, { code: 'unavailable', error: 'try again' })
      return answer(200, { success: true, opensAt: null, closesAt: null, timezone: 'Europe/Malta', now: new Date(Date.now() + this.ahead).toISOString(), staff: [], ...this.desk })
    }
    if (url.pathname.startsWith('/api/gre-chat/messages/')) return this.page(url, init, answer)
    if (url.pathname.startsWith('/api/gre-admin/messages/')) {
      const session = this.sessions.get(url.pathname.split('/').at(-1)!)
      if (!session) return answer(404, { code: 'session_unknown', error: 'there is no such session' })
      const before = Number(query('before_seq') ?? Infinity)
      const after = Number(query('after_seq') ?? 0)
      const all = session.messages.filter(({ seq }) => seq < before && seq > after)
      const page = query('after_seq') ? all.slice(0, Number(query('limit'))) : all.slice(-Number(query('limit')))
      return answer(200, { success: true, messages: page, session: this.row(session.id), has_more: page.length < all.length })
    }
    if (url.pathname.startsWith('/api/chat-history/')) return answer(200, { messages: [], conversations: [...this.sessions.keys()].slice(-1).map((id) => ({ ...this.row(id), chat_messages: [] })), next: null })
    if (url.pathname.startsWith('/api/gre-chat/read/')) {
      const sessionId = url.pathname.split('/').at(-1)!
      this.read(who, sessionId, body!.upToSeq as number)
      return answer(200, { success: true, sessionId, by: who.role, upToSeq: body!.upToSeq, changed: true })
    }
    if (url.pathname === '/api/gre-chat/send' || url.pathname === '/api/gre-admin/reply') {
      if (who.role === 'player' && body!.playerId !== who.playerId) return answer(403, { code: 'player_mismatch', error: 'not your id' })
      if (!body!.message && !body!.attachmentIds) return answer(400, { code: 'message_empty', error: 'a message needs a text' })
      if (this.refusal) return answer(this.refusal.status, { success: false, code: this.refusal.code, error: 'refused', details: this.refusal.details }, this.refusal.retryAfter ? { 'Retry-After': String(this.refusal.retryAfter) } : {})
      const sessionId = (body!.sessionId as string) ?? this.openOf(who)
      const { message, duplicate } = this.store(sessionId, who.role, body!.message as string, { id: body!.id as string })
      if (this.loseAnswers) throw new TypeError('fetch failed')
      return answer(duplicate ? 200 : 201, { success: true, message })
    }
    if (url.pathname === '/api/gre-chat/attachments') {
      if (this.refusal) return answer(this.refusal.status, { code: this.refusal.code, error: 'refused' })
      const { id, name, type, bytes, alt = null } = body as unknown as Attachment
      const known = this.files.get(id)
      if (known && 'alt' in body!) known.alt = alt
      const file: Attachment = known ?? { id, kind: 'image', type, name, alt, bytes, width: null, height: null, preview: null, place: null, state: 'awaited' }
      this.files.set(id, file)
      const upload = file.state === 'awaited' ? { url: `http://storage.test/${id}`, method: 'PUT', headers: {}, expiresAt: new Date(Date.now() + 7_200_000).toISOString() } : null
      return answer(201, { attachment: { ...file }, upload })
    }
    if (url.pathname.endsWith('/attachments/urls')) {
      this.linkCount += 1
      const link = (id: string): object =>
        id === 'gone' ? { code: 'attachment_gone' } : { url: `http://storage.test/${id}/${body!.variant}/${this.linkCount}`, expiresAt: new Date(Date.now() + 300_000).toISOString() }
      return answer(200, { urls: Object.fromEntries((body!.ids as string[]).map((id) => [id, link(id)])) })
    }
    if (url.pathname.startsWith('/api/gre-chat/attachments/') && init.method === 'GET') {
      const file = this.files.get(url.pathname.split('/').at(-1)!)
      return file ? answer(200, { attachment: { ...file } }) : answer(404, { code: 'attachment_not_found', error: 'there is no such file' })
    }
    if (url.pathname.startsWith('/api/gre-chat/attachments/')) return answer(200, { success: true })
    if (url.pathname.startsWith('/api/gre-chat/close-session/')) {
      const session = [...this.sessions.values()].find(({ status }) => status === 'active')!
      Object.assign(session, { status: 'closed', rev: ++this.rev })
      return answer(200, { session: this.row(session.id) })
    }
    if (url.pathname === '/api/gre-chat/rate') {
      const session = this.sessions.get(body!.sessionId as string)!
      if (session.rating && session.rating !== body!.score) return answer(409, { code: 'already_rated', error: 'rated already' })
      Object.assign(session, { rating: body!.score, rev: ++this.rev })
      return answer(200, { session: this.row(session.id) })
    }
    if (url.pathname === '/api/gre-admin/take') {
      if (this.refusal) return answer(this.refusal.status, { code: this.refusal.code, error: 'refused', details: this.refusal.details })
      Object.assign(this.sessions.get(body!.sessionId as string)!, { assigned_staff_id: who.staffId, rev: ++this.rev })
      return answer(200, { session: this.row(body!.sessionId as string) })
    }
    if (url.pathname === '/api/gre-admin/notes') {
      const note = this.note(body!.sessionId as string, body!.text as string, body!.id as string)
      if (this.loseAnswers) throw new TypeError('fetch failed')
      return answer(201, { note })
    }
    if (url.pathname.startsWith('/api/gre-admin/notes/')) {
      const after = Number(query('after_n') ?? 0)
      return answer(200, { notes: this.notes.filter(({ session_id, n }) => session_id === url.pathname.split('/').at(-1) && n > after), has_more: false })
    }
    if (url.pathname === '/api/gre-admin/queue') return this.queue(url, who, answer)
    if (url.pathname === '/api/gre-admin/staff') return answer(200, { staff: [{ staffId: 's1', displayName: 'Sam', status: 'online' }] })
    return answer(404, { code: 'not_found', error: 'there is no such path' })
  }

  private queue(url: URL, who: Who, answer: (status: number, content: unknown) => Response): Response {
    const rows = [...this.sessions.values()].map(({ id, messages }) => {
      const lastAnswer = messages.findLastIndex(({ sender }) => sender === 'staff')
      return { ...this.row(id), waiting_since: messages.slice(lastAnswer + 1)[0]?.created_at ?? null }
    })
    const status = url.searchParams.get('status')
    const mine = url.searchParams.get('assigned') === 'me'
    const found = rows
      .filter((row) => (!status || row.status === status) && (!mine || row.assigned_staff_id === who.staffId))
      .sort((a, b) => ((a.waiting_since ?? 'z') < (b.waiting_since ?? 'z') ? -1 : 1))
    const from = Number(url.searchParams.get('cursor') ?? 0)
    const to = from + Number(url.searchParams.get('limit'))
    return answer(200, { sessions: found.slice(from, to), next: to < found.length ? String(to) : null })
  }

  private page(url: URL, init: RequestInit, answer: (status: number, content: unknown, headers?: Record<string, string>) => Response): Response {
    const sessionId = url.searchParams.get('sessionId')
    const limit = Number(url.searchParams.get('limit'))
    const after = url.searchParams.get('after_seq')
    const player = url.pathname.split('/').at(-1)!
    let all = [...this.sessions.values()]
      .filter(({ id, player_id }) => String(player_id) === player && (!sessionId || id === sessionId))
      .flatMap(({ messages }) => messages)
      .sort((a, b) => (a.created_at < b.created_at ? -1 : 1))
    if (after) return answer(200, all.filter(({ seq }) => seq > Number(after)).slice(0, limit))
    const before = url.searchParams.get('before')
    if (before) all = all.slice(0, all.findIndex(({ id }) => id === before))
    const page = all.slice(-limit)
    const etag = `W/"${btoa(encodeURIComponent(JSON.stringify(page.map(({ id, status }) => id + status))))}"`
    const headers: Record<string, string> = { ETag: etag, ...(page.length < all.length && { 'X-Next-Before': page[0]!.id }) }
    return (init.headers as Record<string, string>)['If-None-Match'] === etag ? answer(304, null, headers) : answer(200, page, headers)
  }
}
