/** Pusher's events as frames of the core. */
import type { Message, PlayerId, PusherEvents, ServerFrame, Session } from '../protocol.js';
export type MessageEvent = PusherEvents['new-staff-message'];
/**
 * Makes frames of events. pusher-js reads players' ids as numbers, which are not exact beyond 2^53: on a player's own channel
 * they are `playerId`. Events of messages do not have the player's name, which is kept from the rows of sessions.
 */
export declare function createReader(playerId: PlayerId | undefined): {
    /** Of an event that has the whole message. */
    message({ id, seq, session_id, player_id, sender, sender_name, message, status, timestamp, auto }: MessageEvent): Message;
    session(session: Session): ServerFrame;
    marks: ({ session_id, by, up_to_seq, timestamp }: PusherEvents['messages-read']) => ServerFrame;
};
/** True if the event only says that there is a message: cut, without the names of its files, or old, so that no page rings for it. */
export declare const isHint: ({ truncated, attachments, late, replayed }: MessageEvent) => boolean;
