/**
 * The state of the page for one signed-in person: applies the server's frames, and sends the user's actions.
 *
 * It emits a change after each change of state. It must not know the views.
 */

import { createTyping } from '../../client/src/typing'
import { Actions } from './actions'
import { Alerts } from './alerts'
import { Api } from './api'
import { type Auth, STATUS_KEY } from './auth'
import { Connection, type ConnectionState } from './connection'
import { Conversation } from './conversation'
import { Drafts, type StoredForOther, storedForOthers } from './drafts'
import { Emitter } from './emitter'
import { Files } from './files'
import { Goals } from './goals'
import { MessageSearch } from './message-search'
import { Notices } from './notices'
import { Notifier } from './notifier'
import { Outgoing } from './outgoing'
import { Queue } from './queue'
import { createReadMarks, type ReadMarks } from './read-marks'
import { describeRefusal } from './refusals'
import { TaskScope } from './scope'
import { StaffList } from './staff-list'
import { getItem, setItem } from './storage'
import { TemplateList } from './templates'
import type { Frame, Message, Note, Presence, QueuedSession, Role, Session, StaffMember } from './types'
import { Viewers } from './viewers'

let deskCount = 0

export class Desk extends Emitter {
  /** Unique among the desks of this page. */
  readonly key = (deskCount += 1)
  me: { staffId: string; role: Role } | undefined
  connection: ConnectionState = 'connecting'
  /** The reason why the connection is not restored; empty if it is. */
  stopReason = ''
  /** The expiry of a token that cannot be renewed, once it is near, in milliseconds since 1970. */
  tokenExpiresAt: number | undefined
  /** The open conversation. */
  conversation: Conversation | undefined
  /** Other people's drafts and replies that are stored in this tab. */
  storedForOthers: StoredForOther[] = []
  readonly scope = new TaskScope()
  readonly notices = new Notices(this.scope, this.emitChange)
  readonly drafts: Drafts
  readonly api: Api
  readonly queue: Queue
  readonly files: Files
  readonly outgoing: Outgoing
  readonly templates: TemplateList
  readonly actions: Actions
  readonly messageSearch: MessageSearch
  readonly goals: Goals
  readonly notifier: Notifier
  readonly typing: ReturnType<typeof createTyping>
  readonly viewers: Viewers
  private readonly staffList: StaffList
  private readonly alerts: Alerts
  private readonly link: Connection
  private readonly marks: ReadMarks
  /** The open session, once its player is requested. */
  private playerLoadedFor: string | undefined
  /** Since when the player of the open session was waiting when it was opened. */
  private waitingSinceAtOpen: string | null = null

  constructor(private readonly auth: Auth) {
    super()
    const { scope } = this
    this.notifier = new Notifier(this.emitChange, scope)
    this.alerts = new Alerts(this.notices, this.notifier, () => this.api.now())
    this.drafts = new Drafts(auth.staffId)
    this.api = new Api(() => auth.token, () => this.renewToken(), scope)
    this.queue = new Queue(this.api, scope, () => this.me?.staffId ?? '', this.emitChange, () => this.conversation?.id)
    this.files = new Files(this.api, scope, this.drafts, { targetOf: (sessionId) => ({ sessionId }), describe: this.describe, onChange: this.emitChange })
    this.outgoing = new Outgoing(this.api, scope, auth.staffId, this.drafts, this.files, {
      onMessage: (message) => this.applyMessage(message),
      onNote: (note) => this.applyNote(note),
      onFailed: (text, error) => this.alerts.announceFailed(text, this.playerName(text.sessionId), error),
      onChange: () => {
        this.alerts.dismissFailed((session) => this.outgoing.hasFailed(session))
        this.emitChange()
      },
      describe: this.describe,
    })
    this.actions = new Actions(this.api, this.queue, {
      showError: (text) => this.showError(text),
      showNews: (text) => this.notices.show('news', text),
      describe: this.describe,
    }, this.emitChange)
    this.staffList = new StaffList(this.api, (action) => this.actions.attempt(action), this.emitChange)
    this.messageSearch = new MessageSearch(this.api, this.describe, this.emitChange)
    this.goals = new Goals(this.api, scope, this.emitChange, () => void this.queue.reload())
    this.templates = new TemplateList(this.api, this.emitChange)
    this.marks = createReadMarks(this.api, () => this.conversation?.timeline, () => this.connection === 'live' || this.connection === 'polling')
    this.viewers = new Viewers(scope, (frame) => this.link.send(frame), this.emitChange)
    this.typing = createTyping((typing, sessionId) => this.link.send({ type: 'typing', typing, ...(sessionId && { sessionId }) }), this.emitChange)
    this.link = new Connection(auth, this.api, {
      since: () => this.queue.since(this.conversation),
      onFrame: (frame) => this.handleFrame(frame),
      onState: (state) => this.handleState(state),
      readMissed: async () => (await Promise.all([this.queue.poll(), this.refresh()]))[0] && !this.conversation?.error,
    })
    auth.attach({
      onRenewed: () => {
        this.tokenExpiresAt = undefined
        this.link.useNewToken()
        this.emitChange()
      },
      onExpiring: (at) => {
        this.tokenExpiresAt = at
        this.emitChange()
      },
      onSignedOut: () => this.stop(),
    })
  }

  start(): void {
    if (this.scope.closed) return
    this.link.start()
    this.auth.scheduleRenewal()
    void this.queue.reload()
  }

  /** Stop all timers, requests and the connection. */
  stop(): void {
    if (this.scope.closed) return
    this.scope.close()
    this.typing.clear()
    this.link.stop()
  }

  get offeredName(): string | undefined {
    return this.auth.offeredName
  }

  dismissStoredForOthers(): void {
    this.storedForOthers = []
    this.emitChange()
  }

  declineOffer(): void {
    this.auth.declineOffer()
    this.emitChange()
  }

  /** The open conversation's session; undefined while it is not loaded. */
  get session(): QueuedSession | undefined {
    return this.conversation && this.queue.sessions.get(this.conversation.id)
  }

  /** The name to show for a session's player; empty if the session is not loaded. */
  playerName(sessionId: string): string {
    const session = this.queue.sessions.get(sessionId)
    return session ? session.player_name || `Player ${session.player_id}` : ''
  }

  /** The staff by id. */
  get staff(): ReadonlyMap<string, StaffMember> {
    return this.staffList.members
  }

  staffName(staffId: string): string {
    return this.staffList.nameOf(staffId)
  }

  // The user's actions

  /** Open a session by its id, at the message with the seq `seq`; an undefined id closes the open one. */
  openSession(id: string | undefined, seq?: number): void {
    this.viewers.open(id)
    const { conversation: open } = this
    if (id === open?.id) return seq === undefined ? undefined : void open?.seek(seq, () => open === this.conversation)
    this.typing.stop()
    open?.close()
    this.playerLoadedFor = this.conversation = undefined
    this.waitingSinceAtOpen = (id && this.queue.sessions.get(id)?.waiting_since) || null
    if (id) {
      this.conversation = new Conversation(id, this.api, this.scope, this.emitChange, (session) => this.applyLoadedSession(session), () => this.position(), seq)
      void this.refresh()
    }
    this.emitChange()
  }

  /** Load the open session's latest messages. */
  async refresh(): Promise<void> {
    await this.conversation?.refresh()
  }

  /** Load what the view of the open conversation is positioned at. */
  private async position(): Promise<void> {
    const { conversation } = this
    const isOpen = (): boolean => conversation === this.conversation
    await conversation?.findTarget(isOpen)
    if (!conversation || conversation.unreadKnown) return
    await conversation.findUnread(this.session?.unread_by_staff ?? 0, isOpen)
    if (conversation === this.conversation) this.waitingSinceAtOpen ??= this.session?.waiting_since ?? null
  }

  /** Send a reply with the files of its draft; `templateId` is the template from which its text was made. */
  send(text: string, templateId?: string, conversation = this.conversation): void {
    if (!conversation) return
    this.typing.stop()
    this.outgoing.sendReply(conversation, text, this.playerName(conversation.id), templateId)
  }

  sendNote(text: string): void {
    if (this.conversation) this.outgoing.sendNote(this.conversation.id, text, this.playerName(this.conversation.id))
  }

  /** Reopen the open session and send a reply; `onSent` is called when the reply is queued. */
  async reopenAndSend(text: string, onSent: () => void): Promise<void> {
    const { conversation } = this
    if (!conversation || !(await this.actions.setStatus(conversation.id, 'active'))) return
    this.send(text, undefined, conversation)
    onSent()
  }

  /** The session that `j` (1) or `k` (-1) opens. */
  adjacentSession(step: 1 | -1): Session | undefined {
    return this.queue.adjacent(this.conversation?.id, step, this.waitingSinceAtOpen)
  }

  /** The user has seen the open session's messages up to `seq`: mark them as read. */
  markSeen(seq: number): void {
    const { conversation, session } = this
    if (conversation?.loaded && session?.unread_by_staff) this.marks.read(conversation.id, Math.min(seq, conversation.contiguousSeq))
  }

  setStatus(status: Presence): void {
    setItem(STATUS_KEY, status)
    if (!this.link.send({ type: 'set_status', status })) this.showError('Not connected: your status was not changed.')
  }

  /** An error in a sentence for the user. */
  readonly describe = (error: unknown): string => describeRefusal(error, (id) => this.staffName(id))

  showError(text: string): void {
    if (!this.scope.closed) this.notices.show('refusal', text)
  }

  // Frames of the server

  private handleFrame(frame: Frame): void {
    switch (frame.type) {
      case 'authenticated':
        return this.handleAuthenticated(frame)
      case 'chat_message':
        this.applyMessage(frame.message)
        return this.alerts.announceMessage(frame.message, frame.replay, frame.message.session_id === this.conversation?.id)
      case 'typing':
        return this.typing.apply(frame)
      case 'messages_read':
        if (frame.by === 'staff') this.queue.applyRead(frame.sessionId, frame.upToSeq)
        else if (frame.sessionId === this.conversation?.id) this.conversation.applyRead(frame.upToSeq)
        return this.emitChange()
      case 'session_updated':
        return this.applySession(frame.session)
      case 'session_event':
        if (frame.sessionId !== this.conversation?.id) return
        if (/^(un)?blocked$/.test(frame.event.kind) && this.session) void this.actions.loadPlayer(this.session.player_id)
        return this.conversation.story.notify(frame.event.rev)
      case 'session_note':
        return this.applyNote(frame.note)
      case 'attachment_updated':
        if (frame.sessionId === this.conversation?.id) this.conversation.applyAttachment(frame.attachment)
        return
      case 'session_viewers':
        return this.viewers.apply(frame.sessionId, frame.viewers)
      case 'staff_status':
        return this.staffList.applyStatus(frame.staffId, frame.displayName, frame.status)
      case 'error':
        if (frame.code === 'token_expired') return // the connection renews it
        if (frame.code === 'no_identity') this.stopReason = 'You are no longer active staff.'
        else if (!this.stopReason && frame.code !== 'too_fast') this.showError(frame.error)
        return this.emitChange()
      default:
    }
  }

  private handleAuthenticated(frame: Extract<Frame, { type: 'authenticated' }>): void {
    const { role, staffId } = frame
    if ((role !== 'staff' && role !== 'admin') || !staffId) return this.auth.signOut('This account is not staff.')
    const reconnected = this.me !== undefined
    this.me = { staffId, role }
    this.auth.identify(staffId)
    this.drafts.setOwner(staffId)
    this.storedForOthers = storedForOthers(staffId)
    for (const session of frame.sessions) if (this.queue.sessions.has(session.id)) this.queue.applySession(session)
    const chosenStatus = getItem(STATUS_KEY) as Presence | null
    if (reconnected && chosenStatus && chosenStatus !== 'online') this.link.send({ type: 'set_status', status: chosenStatus })
    this.playerLoadedFor = undefined
    void this.queue.reload()
    void this.refresh()
    void this.staffList.load()
    void this.goals.load()
    this.outgoing.resume(staffId)
    this.viewers.reset()
    this.emitChange()
  }

  private applyMessage(message: Message): void {
    this.queue.applyMessage(message)
    if (message.session_id === this.conversation?.id) this.conversation.receive(message)
    if (message.sender === 'staff') this.outgoing.confirm(message)
    this.typing.wrote(message)
    this.emitChange()
  }

  private applyNote(note: Note): void {
    this.outgoing.confirm(note)
    if (note.session_id === this.conversation?.id) this.conversation.notes.add(note)
  }

  /** Store a session, and alert the user if a colleague has just handed it over to them. */
  private applySession(session: Session): void {
    const myId = this.me?.staffId
    const known = this.queue.sessions.get(session.id)
    this.queue.applySession(session)
    if (session.id === this.conversation?.id) this.conversation.story.follow(session)
    const mine = myId !== undefined && session.assigned_staff_id === myId && session.status === 'active'
    if (!known || !mine || known.assigned_staff_id === myId || known.rev >= session.rev || this.actions.isChanging(session.id)) return
    this.alerts.announceHandOver(session.id, this.playerName(session.id))
  }

  private applyLoadedSession(session: Session): void {
    if (!this.queue.sessions.has(session.id) || session.status === 'closed') this.queue.applySession(session)
    if (this.playerLoadedFor === session.id) return
    this.playerLoadedFor = session.id
    void this.actions.loadPlayer(session.player_id)
  }

  // The connection

  private handleState(state: ConnectionState): void {
    this.connection = state
    this.marks.resend()
    if (state === 'stopped') this.stopReason ||= 'The connection was ended by the server.'
    this.emitChange()
  }

  private renewToken(): void {
    if (!this.scope.closed) void this.auth.renew()
  }
}
