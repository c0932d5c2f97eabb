/**
 * The connection of one signed-in person: the client's (client/src/socket.ts), with the tokens of this page's sign-in.
 *
 * It passes frames on without interpreting them.
 */

import { socketTransport } from '../../client/src/socket'
import type { ClientFrame } from '../../client/src/protocol'
import type { Link, LinkState, TransportHost } from '../../client/src/transport'
import type { Api } from './api'
import type { Auth } from './auth'
import type { Frame } from './types'

/** `polling`: no socket can be had, REST is asked every few seconds. */
export type ConnectionState = LinkState

export interface ConnectionOwner {
  /** By session id, the seq up to which all messages are loaded; undefined before sessions are loaded. */
  since(): Record<string, number> | undefined
  onFrame(frame: Frame): void
  onState(state: ConnectionState): void
  /** Read by REST what a socket would have brought; false if that failed. */
  readMissed(): Promise<boolean>
}

export class Connection {
  private link: Link | undefined
  private state: ConnectionState = 'connecting'
  /** True once the server has said who the person is. */
  private identified = false
  private givenToken = ''
  /** The last token that the server has refused, or that has expired. */
  private refusedToken = ''
  /** True while the link waits for a renewed token: it will use it by itself. */
  private awaitingToken = false

  constructor(
    private readonly auth: Auth,
    private readonly api: Api,
    private readonly owner: ConnectionOwner,
  ) {}

  start(): void {
    const host: TransportHost = {
      url: '',
      token: (refused) => this.token(refused),
      since: () => this.owner.since(),
      frame: (frame) => this.hear(frame),
      state: (state) => this.setState(state),
      missed: () => this.readMissed(),
      request: (method, path, body) => this.api.call(method, path, body),
    }
    this.link = socketTransport.open(host)
  }

  stop(): void {
    this.link?.close()
    this.link = undefined
    this.setState('stopped')
  }

  /** Send a frame if the connection is live; return false if it is not. */
  send(frame: ClientFrame): boolean {
    return this.link?.send(frame) ?? false
  }

  /** The same person has a new token. */
  useNewToken(): void {
    if (!this.link || this.awaitingToken) return
    if (this.state === 'stopped') return this.start()
    this.givenToken = this.auth.token
    if (!this.send({ type: 'authenticate', token: this.givenToken })) this.link.wake()
  }

  /** The token to authenticate with; null after the sign-out. Raises an error if a refused token cannot be renewed now. */
  private async token(refused: boolean): Promise<string | null> {
    if (refused) this.refusedToken = this.givenToken
    if (this.auth.signedIn && this.auth.token === this.refusedToken) {
      this.awaitingToken = true
      const renewed = await this.auth.renew().finally(() => (this.awaitingToken = false))
      if (!renewed && this.auth.signedIn) throw new Error('The token is not renewed yet.')
    }
    this.givenToken = this.auth.token
    return this.givenToken || null
  }

  private hear(frame: Frame): void {
    this.identified ||= frame.type === 'authenticated'
    this.owner.onFrame(frame)
  }

  private async readMissed(): Promise<boolean> {
    try {
      // One small call first: while the server does not answer, the page keeps what it shows.
      const { role, staffId, expiresAt } = await this.api.me()
      if (!this.identified) this.hear({ type: 'authenticated', success: true, role, ...(staffId && { staffId }), expiresAt, sessions: [], staffOnline: 0 })
      return await this.owner.readMissed()
    } catch {
      return false
    }
  }

  private setState(state: ConnectionState): void {
    if (state === this.state && state !== 'connecting') return
    this.state = state
    this.owner.onState(state)
  }
}
