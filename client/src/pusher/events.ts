/** Pusher's events as frames of the core. */

import type { Message, PlayerId, PusherEvents, ServerFrame, Session } from '../protocol.js'

export type MessageEvent = PusherEvents['new-staff-message']

/**
 * Makes frames of events. pusher-js reads players' ids as numbers, which are not exact beyond 2^53: on a player's own channel
 * they are `playerId`. Events of messages do not have the player's name, which is kept from the rows of sessions.
 */
export function createReader(playerId: PlayerId | undefined) {
  const names = new Map<string, string | null>()

  return {
    /** Of an event that has the whole message. */
    message({ id, seq, session_id, player_id, sender, sender_name, message, status, timestamp, auto }: MessageEvent): Message {
      if (sender === 'player') names.set(session_id, sender_name)
      return {
        id, seq, session_id, player_id: playerId ?? player_id, player_name: names.get(session_id) ?? null,
        message, sender, sender_name, status, timestamp, created_at: timestamp, ...(auto && { auto }),
      }
    },
    session(session: Session): ServerFrame {
      names.set(session.id, session.player_name)
      return { type: 'session_updated', session: { ...session, player_id: playerId ?? session.player_id } }
    },
    marks: ({ session_id, by, up_to_seq, timestamp }: PusherEvents['messages-read']): ServerFrame =>
      ({ type: 'messages_read', sessionId: session_id, by, upToSeq: up_to_seq, timestamp }),
  }
}

/** True if the event only says that there is a message: cut, without the names of its files, or old, so that no page rings for it. */
export const isHint = ({ truncated, attachments, late, replayed }: MessageEvent): boolean => !!(truncated || attachments || late || replayed)
