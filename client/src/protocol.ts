/** Messages, sessions and frames as the server sends and takes them: docs/rest.md and docs/websocket.md. */

/** A number; text where it is larger than numbers are exact (2^53). */
export type PlayerId = number | string

/** A file of a message. */
export interface Attachment {
  id: string
  kind: 'image' | 'file'
  type: string
  name: string
  alt: string | null
  bytes: number
  width: number | null
  height: number | null
  preview: string | null
  place: number | null
  state: 'awaited' | 'stored' | 'ready' | 'refused' | 'gone'
  refused?: string | null
}

export interface Message {
  id: string
  /** 1, 2, 3 … in its session, without gaps. */
  seq: number
  session_id: string
  player_id: PlayerId
  player_name: string | null
  message: string
  sender: 'player' | 'staff' | 'system'
  sender_name: string | null
  status: 'sent' | 'delivered' | 'read'
  timestamp: string
  created_at: string
  /** True if the server wrote the message by itself. */
  auto?: boolean
  attachments?: Attachment[]
}

export interface Session {
  id: string
  player_id: PlayerId
  player_name: string | null
  status: 'active' | 'closed'
  assigned_staff_id: string | null
  last_seq: number
  /** Increases with every change of the session. */
  rev: number
  unread_by_staff: number
  unread_by_player: number
  last_message: string | null
  last_message_at: string | null
  created_at: string
  closed_at: string | null
  closed_by?: 'player' | 'idle' | 'system' | null
  cycle?: number
  rating?: number | null
  /** In the queue of staff: since when the player waits for an answer. */
  waiting_since?: string | null
  replied?: boolean
}

/** A private note of staff. */
export interface Note {
  id: string
  session_id: string
  /** 1, 2, 3 … in its session. */
  n: number
  after_seq: number
  staff_id: string
  staff_name: string
  text: string
  created_at: string
}

export interface SessionEvent {
  rev: number
  at: string
  after_seq: number
  kind: string
  staff_id: string | null
  by_staff_id: string | null
  data: Record<string, unknown>
}

/** A staff member who looks at a session. */
export interface Viewer {
  staffId: string
  displayName: string | null
  typing: boolean
}

export interface StaffStatus {
  staffId: string
  displayName: string | null
  status: 'online' | 'away' | 'offline'
}

export interface Template {
  id: string
  shortcut: string
  title: string
  texts: Record<string, string>
  staff_id: string | null
  uses: number
  active: boolean
}

/** The answer of GET /api/gre-chat/me. */
export interface Me {
  role: 'player' | 'staff' | 'admin'
  playerId: PlayerId | null
  staffId: string | null
  displayName: string | null
  chatEnabled: boolean
  expiresAt: string | null
  ratingEnabled?: boolean
}

export type ErrorCode = string

export type ClientFrame =
  | { type: 'authenticate'; token: string; since?: Record<string, number> }
  | {
      type: 'send_message'
      message?: string
      playerId?: PlayerId
      sessionId?: string
      id?: string
      clientId?: string
      afterSeq?: number
      templateId?: string
      attachmentIds?: string[]
    }
  | { type: 'typing'; sessionId?: string; typing: boolean; for?: 'note' }
  | { type: 'add_note'; sessionId: string; text: string; id?: string; clientId?: string }
  | { type: 'rate_session'; sessionId: string; score: number; comment?: string; clientId?: string }
  | { type: 'viewing'; sessionId: string; viewing: boolean }
  | { type: 'mark_read'; sessionId: string; upToSeq: number }
  | { type: 'set_status'; status: 'online' | 'away' | 'offline' }
  | { type: 'ping' }

export type ServerFrame =
  | {
      type: 'authenticated'
      success: true
      role: 'player' | 'staff' | 'admin'
      playerId?: PlayerId
      staffId?: string
      expiresAt: string | null
      sessions: Session[]
      staffOnline: number
    }
  | {
      type: 'message_ack'
      clientId?: string | null
      id: string
      sessionId: string
      seq: number
      timestamp: string
      duplicate: boolean
      attachments?: Attachment[]
    }
  | { type: 'chat_message'; message: Message; replay: boolean }
  | { type: 'attachment_updated'; sessionId: string; attachment: Attachment }
  | { type: 'typing'; sessionId: string; playerId: PlayerId; by: 'player' | 'staff'; typing: boolean; staffId?: string; for?: 'note' }
  | { type: 'session_note'; note: Note; clientId?: string }
  | { type: 'session_rated'; session: Session; clientId?: string }
  | { type: 'session_viewers'; sessionId: string; viewers: Viewer[] }
  | { type: 'messages_read'; sessionId: string; by: 'player' | 'staff'; upToSeq: number; timestamp: string }
  | { type: 'session_event'; sessionId: string; event: SessionEvent }
  | { type: 'session_updated'; session: Session }
  | { type: 'staff_status'; staffId: string; displayName: string | null; status: StaffStatus['status'] }
  | { type: 'error'; code: ErrorCode; error: string; clientId?: string; retryAfter?: number; details?: Record<string, unknown> }
  | { type: 'pong' }
