/**
 * The types of what the server sends. Those of REST come from docs/openapi.json (openapi.d.ts, `npm run types`); the
 * frames of the WebSocket are written here, as docs/websocket.md describes them.
 */

import type { components, operations } from './openapi'

/** A number; text where it is larger than numbers are exact. */
export type PlayerId = number | string

/** JSON as `exactJson` reads it: players' numbers may be text. */
type Exact<T> = T extends (infer Item)[]
  ? Exact<Item>[]
  : T extends object
    ? { [Key in keyof T]: Key extends 'player_id' | 'playerId' ? PlayerId : Exact<T[Key]> }
    : T

type Schema<Name extends keyof components['schemas']> = Exact<components['schemas'][Name]>
type Content<T> = T extends { content: { 'application/json': infer Body } } ? Body : never
type Answers<T> = { [Status in keyof T]: Status extends 200 | 201 ? Content<T[Status]> : never }[keyof T]

/** What an operation of REST answers when it succeeds. */
export type Answer<Id extends keyof operations> = Exact<Answers<operations[Id]['responses']>>
/** The parameters of an operation's query. */
export type Query<Id extends keyof operations> = NonNullable<operations[Id]['parameters']['query']>
/** What an operation takes as its body. */
export type Body<Id extends keyof operations> = Content<NonNullable<operations[Id]['requestBody']>>

export type Message = Schema<'Message'>
/** `closed_by`, which not every server sends: `staff`, `player`, `idle`, `system`. */
export type Session = Schema<'Session'> & { closed_by?: string | null }
/** A session as the queue has it: since when its player waits for an answer. */
export type Queued = Schema<'Waiting'> & Session
export type Colleague = Schema<'StaffMember'>
export type SinkState = Schema<'SinkState'>
export type Operations = Schema<'Operations'>
export type DeadLetter = Schema<'DeadLetter'>

export type Presence = Colleague['status']
export type Role = Colleague['role']
export type Mark = Message['status']

/** What the server says on the socket. Types that are not here are ignored. */
export type Frame =
  | { type: 'authenticated'; role: string; staffId?: string; expiresAt: string | null; sessions: Session[] }
  | { type: 'chat_message'; message: Message; replay: boolean }
  | { type: 'typing'; sessionId: string; playerId: PlayerId; by: 'player' | 'staff'; typing: boolean; staffId?: string; displayName?: string | null }
  | { type: 'messages_read'; sessionId: string; by: 'player' | 'staff'; upToSeq: number }
  | { type: 'session_updated'; session: Session }
  | { type: 'staff_status'; staffId: string; displayName: string | null; status: Presence }
  | { type: 'error'; code: string; error: string }
  | { type: 'pong' }
