/**
 * The signed-in page: what the server tells goes in here, what staff do goes out from here.
 *
 * It keeps what is known and says when that changes; it must not know how anything looks.
 */

import { Actions } from './actions'
import { Alerts } from './alerts'
import { Api } from './api'
import { type Auth, STATUS } from './auth'
import { Conversation } from './conversation'
import { Drafts, type KeptForOther, keptForOthers } from './drafts'
import { Emitter } from './emitter'
import { keep, kept } from './kept'
import { Life } from './life'
import { Notices } from './notices'
import { Bell } from './notify'
import { Outbox } from './outbox'
import { Queue } from './queue'
import { type Link, LiveSocket } from './socket'
import { Typing } from './typing'
import type { Colleague, Frame, Message, Presence, Role, Session } from './types'

/** Sessions named when coming back; the server finds the others by the newest of these. */
const NAMED = 200
/** Older pages that are read to reach the first unread message. */
const PAGES_TO_UNREAD = 10

let desks = 0

export class Desk extends Emitter {
  /** No two sessions of the page have the same. */
  readonly number = (desks += 1)
  me: { staffId: string; role: Role } | undefined
  link: Link = 'connecting'
  /** Why the page cannot go on, if it cannot. */
  stopped = ''
  endsAt: number | undefined
  open: Conversation | undefined
  /** What is kept in this tab for others, who wrote it here. */
  others: KeptForOther[] = []
  readonly staff = new Map<string, Colleague>()
  readonly life = new Life()
  readonly notices = new Notices(this.life, this.changed)
  readonly drafts: Drafts
  readonly api: Api
  readonly queue: Queue
  readonly outbox: Outbox
  readonly actions: Actions
  readonly bell: Bell
  readonly typing: Typing
  private readonly alerts: Alerts
  private readonly socket: LiveSocket
  private marked = 0
  /** Since when the open session's player waited when it was opened. */
  private waitedSince: string | null = null

  constructor(private readonly auth: Auth) {
    super()
    const { life } = this
    this.bell = new Bell(this.changed, life)
    this.alerts = new Alerts(this.notices, this.bell, () => this.api.now())
    this.drafts = new Drafts(auth.staffId)
    this.api = new Api(() => auth.token, () => this.denied(), life)
    this.queue = new Queue(this.api, life, () => this.me?.staffId ?? '', this.changed, () => this.open?.id)
    this.outbox = new Outbox(this.api, life, auth.staffId, {
      stored: (message) => this.told(message),
      failed: (session, reply) => this.alerts.unsent(session, this.playerOf(session), reply),
      changed: () => {
        this.alerts.settled((session) => this.outbox.hasFailed(session))
        this.changed()
      },
    })
    this.actions = new Actions(this.api, this.queue, this.outbox, (why) => this.complain(why), this.changed)
    this.typing = new Typing(life, (typing) => {
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
    auth.attach({
      renewed: () => {
        this.endsAt = undefined
        this.socket.authenticate()
        this.changed()
      },
      ending: (at) => {
        this.endsAt = at
        this.changed()
      },
      over: () => this.stop(),
    })
  }

  start(): void {
    if (this.life.over) return
    this.socket.start()
    this.auth.watch()
    void this.queue.reload()
  }

  /** End everything that was begun for this person. */
  stop(): void {
    if (this.life.over) return
    this.life.end()
    this.socket.stop()
  }

  get offer(): string | undefined {
    return this.auth.offer
  }

  hideOthers(): void {
    this.others = []
    this.changed()
  }

  declineOffer(): void {
    this.auth.decline()
    this.changed()
  }

  /** The session that is open on the page, as far as it is known. */
  get session(): Session | undefined {
    return this.open && this.queue.sessions.get(this.open.id)
  }

  /** What is read for a player. */
  playerOf(session: string): string {
    const known = this.queue.sessions.get(session)
    return known ? known.player_name || `Player ${known.player_id}` : ''
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
    this.waitedSince = (session && this.queue.sessions.get(session)?.waiting_since) || null
    if (session) {
      const open = new Conversation(session, this.api, this.life, this.changed, (found) => this.found(found))
      this.open = open
      void this.refresh()
    }
    this.changed()
  }

  /** Read the open session's latest messages. */
  async refresh(): Promise<void> {
    const { open } = this
    await open?.refresh()
    if (open && !open.ready) await this.opened(open)
  }

  send(text: string): void {
    if (!this.open) return
    this.typing.hush()
    this.outbox.send(this.open.id, text, this.playerOf(this.open.id))
  }

  /** Which session `j` and `k` open. */
  neighbour(by: 1 | -1): Session | undefined {
    return this.queue.neighbour(this.open?.id, by, this.waitedSince)
  }

  /** The open session has been looked at up to there. */
  seen(seq: number): void {
    const { open, session } = this
    if (!open?.loaded || !session?.unread_by_staff) return
    const upTo = Math.min(seq, open.upTo)
    if (upTo > this.marked && this.socket.send({ type: 'mark_read', sessionId: open.id, upToSeq: upTo })) this.marked = upTo
  }

  setStatus(status: Presence): void {
    keep(STATUS, status)
    if (!this.socket.send({ type: 'set_status', status })) this.complain('Not connected: your status was not changed.')
  }

  complain(text: string): void {
    if (!this.life.over) this.notices.show('refusal', text)
  }

  // What the server tells

  private hear(frame: Frame): void {
    switch (frame.type) {
      case 'authenticated':
        return this.entered(frame)
      case 'chat_message':
        this.told(frame.message)
        return this.alerts.message(frame.message, frame.replay, frame.message.session_id === this.open?.id)
      case 'typing':
        return this.typing.heard(frame.sessionId, frame.by, frame.typing, this.typist(frame))
      case 'messages_read':
        if (frame.by === 'staff') this.queue.read(frame.sessionId, frame.upToSeq)
        else if (frame.sessionId === this.open?.id) this.open.marked(frame.upToSeq)
        return this.changed()
      case 'session_updated':
        return this.updated(frame.session)
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
      return this.auth.onEnded('This account is not staff.')
    }
    const again = this.me !== undefined
    this.me = { staffId, role }
    this.auth.identify(staffId)
    this.drafts.belongTo(staffId)
    this.others = keptForOthers(staffId)
    for (const session of frame.sessions) if (this.queue.sessions.has(session.id)) this.queue.put(session)
    const wanted = kept(STATUS)
    if (again && wanted && wanted !== 'online') this.socket.send({ type: 'set_status', status: wanted })
    this.marked = 0
    void this.queue.reload()
    void this.refresh()
    void this.meet()
    this.outbox.resume(staffId)
    this.changed()
  }

  private told(message: Message): void {
    this.queue.told(message)
    if (message.session_id === this.open?.id && this.open.loaded) this.open.take([message])
    if (message.sender === 'staff') this.outbox.remove(message.session_id, message.id)
    else this.typing.heard(message.session_id, 'player', false)
    this.changed()
  }

  /** A session as it is now. One that somebody else has just handed over to me is told. */
  private updated(session: Session): void {
    const me = this.me?.staffId
    const old = this.queue.sessions.get(session.id)
    this.queue.put(session)
    const mine = me !== undefined && session.assigned_staff_id === me && session.status === 'active'
    if (!old || !mine || old.assigned_staff_id === me || old.rev >= session.rev || this.actions.isChanging(session.id)) return
    this.alerts.handedOver(session.id, this.playerOf(session.id))
  }

  private typist(frame: Extract<Frame, { type: 'typing' }>): string {
    if (frame.by !== 'staff') return ''
    return frame.displayName || (frame.staffId ? this.nameOf(frame.staffId) : '')
  }

  private async opened(open: Conversation): Promise<void> {
    const unread = this.session?.unread_by_staff ?? 0
    const players = (): Message[] => open.messages.filter((message) => message.sender === 'player')
    for (let pages = 0; pages < PAGES_TO_UNREAD && open.hasOlder && !open.error; pages += 1) {
      if (open !== this.open || players().length >= unread) break
      await open.older()
    }
    // (While pages are read, a new connection may have begun this a second time.)
    if (open !== this.open || open.ready) return
    open.unreadFrom = unread ? (players().at(-unread)?.seq ?? players()[0]?.seq ?? 0) : 0
    open.ready = open.loaded
    this.waitedSince ??= this.queue.sessions.get(open.id)?.waiting_since ?? null
    this.changed()
  }

  private found(session: Session): void {
    if (!this.queue.sessions.has(session.id) || session.status === 'closed') this.queue.put(session)
    void this.actions.lookUp(session.player_id)
  }

  private async meet(): Promise<void> {
    await this.actions.attempt(async () => {
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
    if (!this.life.over) void this.auth.renew()
  }

  private since(): Record<string, number> | undefined {
    if (!this.queue.sessions.size) return undefined
    const latest = [...this.queue.sessions.values()].sort((a, b) => ((a.last_message_at ?? '') < (b.last_message_at ?? '') ? 1 : -1))
    const named = Object.fromEntries(latest.slice(0, NAMED).map((one) => [one.id, one.last_seq]))
    if (this.open?.loaded) named[this.open.id] = this.open.upTo
    return named
  }
}
