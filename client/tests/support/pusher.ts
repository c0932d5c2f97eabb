/** pusher-js in memory: connects, authorizes, loses and refuses as the package does, and counts what it was asked. */

import type { Chat, Message, PusherEvents } from '../../src/index.js'
import { type PusherChannel, type PusherClient, type PusherOptions, pusherTransport } from '../../src/pusher/index.js'
import { ASHA, open, type Page } from './page.js'

type Callback = (data: any) => void

class Emitter {
  private readonly bound = new Map<string, Set<Callback>>()

  bind(event: string, callback: Callback): this {
    this.bound.set(event, (this.bound.get(event) ?? new Set()).add(callback))
    return this
  }

  unbind(event = '', callback?: Callback): this {
    this.bound.get(event)?.delete(callback!)
    return this
  }

  emit(event: string, data: unknown = {}): void {
    for (const callback of [...(this.bound.get(event) ?? [])]) callback(data)
  }

  get listeners(): number {
    return [...this.bound.values()].reduce((sum, { size }) => sum + size, 0)
  }
}

class FakeConnection extends Emitter {
  state = 'connecting'
}

class FakeChannel extends Emitter implements PusherChannel {
  subscribed = false
  pending = false
}

export class FakePusher implements PusherClient {
  readonly connection = new FakeConnection()
  readonly channels = new Map<string, FakeChannel>()
  /** What the authorization answers next: a status, `hang`; by default it agrees. */
  answers: (number | 'hang')[] = []
  /** False: no connection can be had. */
  reachable = true
  /** True: the connection is dead, and nobody says so. */
  dead = false
  connections = 0
  asked = 0
  pings = 0

  constructor() {
    this.dial()
  }

  channel(name: string): FakeChannel | undefined {
    return this.channels.get(name)
  }

  subscribe(name: string): FakeChannel {
    const channel = this.channels.get(name) ?? new FakeChannel()
    this.channels.set(name, channel)
    if (this.connection.state === 'connected') this.authorize(channel)
    return channel
  }

  unsubscribe(name: string): void {
    this.channels.delete(name)
  }

  connect(): void {
    if (!['disconnected', 'initialized'].includes(this.connection.state)) return
    this.move('connecting')
    this.dial()
  }

  disconnect(): void {
    this.drop('disconnected')
  }

  send_event(name: string): boolean {
    if (name === 'pusher:ping') this.pings += 1
    if (!this.dead) setTimeout(() => this.connection.emit('message', { event: 'pusher:pong' }), 5)
    return true
  }

  /** The connection is lost; pusher-js tries again after a second, unless it is `disconnected` or has `failed`. */
  drop(state: 'connecting' | 'unavailable' | 'failed' | 'disconnected' = 'connecting'): void {
    for (const channel of this.channels.values()) channel.subscribed = channel.pending = false
    this.move(state)
    if (state === 'connecting' || state === 'unavailable') setTimeout(() => this.dial(), 1000)
  }

  /** An event comes. */
  announce<Name extends keyof PusherEvents>(channel: string, name: Name, data: PusherEvents[Name]): void {
    if (!this.dead && this.channels.get(channel)?.subscribed) this.channels.get(channel)!.emit(name, data)
  }

  private dial(): void {
    setTimeout(() => {
      if (['connected', 'disconnected', 'failed'].includes(this.connection.state)) return
      if (!this.reachable) return this.drop('unavailable')
      this.dead = false
      this.connections += 1
      this.move('connected')
      for (const channel of this.channels.values()) this.authorize(channel)
    }, 5)
  }

  private move(current: string): void {
    const previous = this.connection.state
    if (previous === current) return
    this.connection.state = current
    this.connection.emit('state_change', { previous, current })
  }

  private authorize(channel: FakeChannel): void {
    if (channel.subscribed || channel.pending) return
    channel.pending = true
    this.asked += 1
    const answer = this.answers.shift()
    const connection = this.connections
    if (answer === 'hang') return
    setTimeout(() => {
      if (connection !== this.connections || this.connection.state !== 'connected') return
      channel.pending = false
      if (answer !== undefined) return channel.emit('pusher:subscription_error', { type: 'AuthError', error: 'refused', ...(answer && { status: answer }) })
      channel.subscribed = true
      channel.emit('pusher:subscription_succeeded')
    }, 5)
  }
}

/** The event of a stored message, as the daemon makes it. */
export function eventOf({ id, message, sender, sender_name, player_id, timestamp, session_id, seq }: Message): PusherEvents['new-staff-message'] {
  return { id, message, sender, sender_name, player_id, timestamp, status: 'sent', session_id, seq }
}

export const MINE = 'private-player-29'

/** A page whose chat receives through Pusher. */
export function openOverPusher(options: Partial<PusherOptions> & { token?: string } = {}): Page & { pusher: FakePusher; tell(message: Message): void } {
  const pusher = new FakePusher()
  const { token = ASHA, ...more } = options
  const page = open({ getToken: (refused) => (page.asked.push(refused), page.token), transport: pusherTransport({ pusher, ...more }) })
  page.token = token
  return Object.assign(page, { pusher, tell: (message: Message) => pusher.announce(MINE, 'new-staff-message', eventOf(message)) })
}

export const connection = (chat: Chat): string => chat.status().connection
