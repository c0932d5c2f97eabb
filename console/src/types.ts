/**
 * The types of the server's messages. Those of REST come from docs/openapi.json (openapi.d.ts, `npm run types`), those of the
 * frames of the WebSocket from docs/asyncapi.json (client/src/protocol.ts, `make types`).
 */

export type { ServerFrame as Frame, Viewer } from '../../client/src/protocol'
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

/** The response of a REST operation that succeeds. */
export type Answer<Id extends keyof operations> = Exact<Answers<operations[Id]['responses']>>
/** The parameters of an operation's query. */
export type Query<Id extends keyof operations> = NonNullable<operations[Id]['parameters']['query']>
/** The request body of an operation. */
export type Body<Id extends keyof operations> = Content<NonNullable<operations[Id]['requestBody']>>

export type Message = Schema<'Message'>
/** A file of a message. */
export type Attachment = Schema<'Attachment'>
export type Session = Schema<'Session'>
/** A session with `waiting_since`: since when its player waits for an answer. */
export type QueuedSession = Schema<'Waiting'> & Session
/** A message that a search has found, with its session. */
export type FoundMessage = Schema<'FoundMessage'>
export type SessionEvent = Schema<'SessionEvent'>
export type Note = Schema<'Note'>
export type Player = Schema<'Player'>
export type Hours = Schema<'Hours'>
export type Settings = Schema<'Settings'>
export type Template = Schema<'Template'>
/** A text in each language: {"en": "…"}. */
export type Texts = Template['texts']
export type AutoReply = Schema<'AutoReply'>
/** What a new session's first message would get at this moment. */
export type AutoReplyNow = Schema<'AutoReplyNow'>
/** A text for a session; `missing` are the placeholders that have no value. */
export type Rendered = Schema<'Rendered'>
export type SessionAssigned = Schema<'SessionAssigned'>
export type StaffMember = Schema<'StaffMember'>
export type SinkState = Schema<'SinkState'>
export type Operations = Schema<'Operations'>
export type DeadLetter = Schema<'DeadLetter'>

export type Presence = StaffMember['status']
export type Role = StaffMember['role']
export type MessageStatus = Message['status']

