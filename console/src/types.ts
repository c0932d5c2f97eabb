/** The shapes of REST and WebSocket that the console uses; docs/rest.md and docs/websocket.md say what they mean. */

export type Sender = 'player' | 'staff' | 'system'
export type Mark = 'sent' | 'delivered' | 'read'
export type Presence = 'online' | 'away' | 'offline'
export type Role = 'staff' | 'admin'

/** A number; text where it is larger than numbers are exact. */
export type PlayerId = number | string

export interface Message {
  id: string
  seq: number
  session_id: string
  player_id: PlayerId
  player_name: string | null
  message: string
  sender: Sender
  sender_name: string | null
  status: Mark
  timestamp: string
}

export interface Session {
  id: string
  player_id: PlayerId
  player_name: string | null
  status: 'active' | 'closed'
  assigned_staff_id: string | null
  last_seq: number
  rev: number
  unread_by_staff: number
  last_message: string | null
  last_message_at: string | null
  created_at: string
  closed_at: string | null
  /** By whom it was closed: `staff`, `player`, `idle`, `system`. Older servers do not say. */
  closed_by?: string | null
}

/** A session as the queue tells it: since when its player waits for an answer. */
export interface Queued extends Session {
  waiting_since: string | null
}

export interface Colleague {
  staffId: string
  displayName: string | null
  role: Role
  status: Presence
}

export interface SinkState {
  name: string
  enabled: boolean
  pending: number
  dead: number
  blocked: number
  oldest_age_seconds: number | null
  breaker: 'closed' | 'open' | 'half-open' | null
  last_error?: string | null
}

export interface Operations {
  backlog: number
  oldest_age_seconds: number
  dead: number
  sinks: SinkState[]
  feed: string | null
  workers: { host: string; version: string; seen_seconds: number }[]
  per_minute: { minute: string; count: number }[]
}

export interface DeadLetter {
  id: string
  sink: string
  event: string
  sessionId: string | null
  messageId: string | null
  attempts: number
  error: string | null
  created_at: string
}

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
