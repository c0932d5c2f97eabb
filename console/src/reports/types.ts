/** The answers of the reports' REST operations. */

/** Durations in seconds; the values are null without any. */
export interface Spread {
  n: number
  mean: number | null
  median: number | null
  p90: number | null
  max: number | null
}

/** The figures of a bucket, of a person, or of everything. */
export interface FigureRow {
  /** The start of a bucket, a staff id, or null. */
  key: string | null
  /** Of buckets of time only. */
  start?: string | null
  end?: string | null
  sessions_opened: number
  sessions_closed: number
  closed_idle: number
  missed: number
  dropped: number
  transfers: number
  messages: { player: number; staff: number; auto: number }
  players: number
  first_reply: Spread
  reply: Spread
  time_to_close: Spread
  handle: Spread
  rating: { asked: number; answered: number; mean: number | null; good_share: number | null }
  within_goal: { n: number; met: number }
}

export type By = 'none' | 'hour' | 'day' | 'week' | 'month' | 'staff'
export type Basis = 'asked' | 'answered' | 'closed'
export type Metric =
  | 'sessions_opened' | 'sessions_closed' | 'closed_idle' | 'missed' | 'dropped' | 'transfers' | 'messages_player' | 'messages_staff' | 'messages_auto'
  | 'players' | 'first_reply' | 'reply' | 'time_to_close' | 'handle' | 'rating_asked' | 'rating' | 'within_goal'

/** A question to the server; the moments are ISO 8601. */
export interface ReportQuery {
  from: string
  to: string
  timezone: string
  by: By
  basis?: Basis
  in_hours: boolean
}

export interface Report {
  timezone: string
  from: string
  to: string
  /** The time of the oldest figures; earlier ones are not whole. Null: all are. */
  whole_from: string | null
  rows: FigureRow[]
  total: FigureRow
}

export interface CellQuery extends ReportQuery {
  metric: Metric
  /** A row's key. */
  key?: string
  cursor?: string
}

export interface CellItem {
  session_id: string
  cycle: number | null
  at: string
  /** Seconds, or a score. */
  value: number | null
  /** Of messages: their number. */
  count: number | null
  staff_id: string | null
}

export interface LiveStaff {
  staff_id: string
  display_name: string | null
  status: 'online' | 'away' | 'offline'
  open_sessions: number
  max_sessions: number | null
}

export interface LiveFigures {
  at: string
  staff: LiveStaff[]
  open: number
  waiting: number
  unassigned: number
  /** Seconds at the time `at`. */
  longest_wait: number | null
}
