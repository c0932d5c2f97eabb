/**
 * The signed-in page: what the server tells goes in here, what staff do goes out from here.
 *
 * It keeps what is known and says when that changes; it must not know how anything looks.
 */

import { Api, ApiError } from './api'
import type { Auth } from './auth'
import { Conversation } from './conversation'
import { Emitter } from './emitter'
import { keep, kept } from './kept'
import { Bell } from './notify'
import { Outbox } from './outbox'
import { Queue } from './queue'
import { type Link, LiveSocket } from './socket'
import { Typing } from './typing'
import type { Colleague, Frame, Message, Presence, Role, Session } from './types'

/** A message older than this rings no bell, whatever the frame says. */
const LATE = 30_000
/** Sessions named when coming back; the server finds the others by the newest of these. */
const NAMED = 200
const STATUS = 'gre.status'

export class Desk extends Emitter {
  me: { staffId: string; role: Role } | undefined
  link: Link = 'connecting'
  /** Why the page cannot go on, if it cannot. */
  stopped = ''
  endsAt: number | undefined
  toast = ''
  announcement = ''
  open: Conversation | undefined
  readonly staff = new Map<string, Colleague>()
  readonly players = new Map<number, boolean>()
  readonly api: Api
  readonly queue: Queue
  readonly outbox: Outbox
  readonly bell: Bell
  readonly typing: Typing
  private readonly socket: LiveSocket
  private marked = 0
  private toasting: number | undefined

  constructor(private readonly auth: Auth) {
    super()
    this.api = new Api(() => auth.token, () => this.denied())
    this.queue = new Queue(this.api, () => this.me?.staffId ?? '', this.changed, () => this.open?.id)
    this.outbox = new Outbox(this.api, (message) => this.told(message), this.changed)
    this.bell = new Bell(this.changed)
    this.typing = new Typing((typing) => {
      if (this.open) this.socket.send({ type: 'typing', sessionId: this.open.id, typing })
    }, this.changed)
    const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`
    this.socket = new LiveSocket(url, {
      token: () => auth.token,
      since: () => this.since(),
      frame: (frame) => this.hear(frame),
      link: (state) => this.linked(state),
      denied: () => this.denied(),
    })
    auth.onRenewed = () => {
      this.endsAt = undefined
      this.socket.authenticate()
    }
    auth.onEnding = (at) => {
      this.endsAt = at
      this.changed()
    }
  }

  start(): void {
    this.socket.start()
    this.auth.watch()
    void this.queue.reload()
  }

  stop(): void {
    this.socket.stop()
  }

  /** The session that is open on the page, as far as it is known. */
  get session(): Session | undefined {
    return this.open && this.queue.sessions.get(this.open.id)
  }

  nameOf(staffId: string): string {
    return this.staff.get(staffId)?.displayName || staffId
  }

  // What staff do

  show(session: string | undefined): void {
    if (session === this.open?.id) return
    this.typing.hush()
    this.marked = 0
    this.open = undefined
    if (session) {
      const open = new Conversation(session, this.api, this.changed, (found) => this.found(found))
      this.open = open
      void open.refresh().then(() => this.opened(open))
    }
    this.changed()
  }

  send(text: string): void {
    if (!this.open) return
    this.typing.hush()
    this.outbox.send(this.open.id, text)
  }

  /** Everything of the open session that is here has been looked at. */
  seen(): void {
    const { open, session } = this
    if (!open?.loaded || !session?.unread_by_staff) return
    const upTo = open.upTo
    if (upTo > this.marked && this.socket.send({ type: 'mark_read', sessionId: open.id, upToSeq: upTo })) this.marked = upTo
  }

  setStatus(status: Presence): void {
    keep(STATUS, status)
    if (!this.socket.send({ type: 'set_status', status })) this.complain('Not connected: your status was not changed.')
  }

  /** Change the open session: `assigned` (to `staffId`, or to me), `active`, `closed`. */
  change(status: 'assigned' | 'active' | 'closed', staffId?: string): Promise<void> {
    return this.attempt(async () => {
      if (this.open) this.queue.put((await this.api.setStatus(this.open.id, status, staffId)).session)
    })
  }

  enable(player: number, enabled: boolean): Promise<void> {
    return this.attempt(async () => {
      this.players.set(player, (await this.api.enablePlayer(player, enabled)).enabled)
      this.changed()
    })
  }

  /** Do something, and tell why where it is refused. */
  async attempt(what: () => Promise<void>): Promise<void> {
    try {
      await what()
    } catch (error) {
      this.complain(error instanceof ApiError ? error.message : 'That did not work.')
    }
  }

  complain(text: string): void {
    clearTimeout(this.toasting)
    this.toast = text
    if (text) this.toasting = setTimeout(() => this.complain(''), 8000)
    this.changed()
  }

  // What the server tells

  private hear(frame: Frame): void {
    switch (frame.type) {
      case 'authenticated':
        return this.entered(frame)
      case 'chat_message':
        this.told(frame.message)
        return this.ring(frame.message, frame.replay)
      case 'typing':
        return this.typing.heard(frame.sessionId, frame.by, frame.typing)
      case 'messages_read':
        if (frame.by === 'staff') this.queue.read(frame.sessionId, frame.upToSeq)
        else if (frame.sessionId === this.open?.id) this.open.marked(frame.upToSeq)
        return this.changed()
      case 'session_updated':
        return this.queue.put(frame.session)
      case 'staff_status': {
        const old = this.staff.get(frame.staffId)
        if (!old) void this.meet()
        else this.staff.set(frame.staffId, { ...old, displayName: frame.displayName, status: frame.status })
        return this.changed()
      }
      case 'error':
        if (frame.code === 'token_expired') return this.denied()
        if (frame.code === 'no_identity') this.stopped = 'You are no longer active staff.'
        else if (!this.stopped && frame.code !== 'too_fast') this.complain(frame.error)
        return this.changed()
      default:
    }
  }

  private entered(frame: Extract<Frame, { type: 'authenticated' }>): void {
    const { role, staffId } = frame
    if ((role !== 'staff' && role !== 'admin') || !staffId) {
      this.auth.signOut()
      return this.auth.onEnded('This is not the token of staff.')
    }
    const again = this.me !== undefined
    this.me = { staffId, role }
    for (const session of frame.sessions) if (this.queue.sessions.has(session.id)) this.queue.put(session)
    const wanted = kept(STATUS)
    if (again && wanted && wanted !== 'online') this.socket.send({ type: 'set_status', status: wanted })
    this.marked = 0
    void this.queue.reload()
    void this.open?.refresh()
    void this.meet()
    this.outbox.resume()
    this.changed()
  }

  private told(message: Message): void {
    this.queue.told(message)
    if (message.session_id === this.open?.id && this.open.loaded) this.open.take([message])
    if (message.sender === 'staff') this.outbox.remove(message.session_id, message.id)
    else this.typing.heard(message.session_id, 'player', false)
    this.changed()
  }

  private ring(message: Message, replay: boolean): void {
    if (message.sender !== 'player') return
    const name = message.player_name || `player ${message.player_id}`
    if (message.session_id === this.open?.id) this.announcement = `${name}: ${message.message}`
    else if (!replay) this.announcement = `New message from ${name}`
    if (replay || this.api.now() - Date.parse(message.timestamp) > LATE) return
    this.bell.ring(name, message.session_id, () => (location.hash = `#s=${message.session_id}`))
  }

  private opened(open: Conversation): void {
    if (open !== this.open) return
    const unread = this.session?.unread_by_staff ?? 0
    const players = open.messages.filter((one) => one.sender === 'player')
    open.unreadFrom = unread ? (players.at(-unread)?.seq ?? players[0]?.seq ?? 0) : 0
    this.changed()
  }

  private found(session: Session): void {
    if (!this.queue.sessions.has(session.id) || session.status === 'closed') this.queue.put(session)
    if (this.players.has(session.player_id)) return
    void this.attempt(async () => {
      this.players.set(session.player_id, (await this.api.player(session.player_id)).player.enabled)
      this.changed()
    })
  }

  private async meet(): Promise<void> {
    await this.attempt(async () => {
      for (const one of (await this.api.staff()).staff) this.staff.set(one.staffId, one)
    })
    this.changed()
  }

  // The connection

  private linked(state: Link): void {
    this.link = state
    if (state === 'stopped') this.stopped ||= 'The connection was ended by the server.'
    this.changed()
  }

  private denied(): void {
    void this.auth.renew()
  }

  private since(): Record<string, number> | undefined {
    if (!this.queue.sessions.size) return undefined
    const latest = [...this.queue.sessions.values()].sort((a, b) => ((a.last_message_at ?? '') < (b.last_message_at ?? '') ? 1 : -1))
    const named = Object.fromEntries(latest.slice(0, NAMED).map((one) => [one.id, one.last_seq]))
    if (this.open?.loaded) named[this.open.id] = this.open.upTo
    return named
  }
}
