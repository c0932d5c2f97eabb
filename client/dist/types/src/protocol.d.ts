/** A player's id: text where it is larger than numbers are exact (2^53). */
export type PlayerId = number | string;
/** Every code of a refusal. A trigger of the project's own may refuse with another one. */
export type ErrorCode = 'act_as_invalid' | 'act_as_required' | 'admin_only' | 'already_rated' | 'api_off' | 'attachment_gone' | 'attachment_invalid' | 'attachment_not_found' | 'attachment_not_stored' | 'attachment_refused' | 'attachment_used' | 'attachments_invalid' | 'auto_reply_invalid' | 'auto_reply_unknown' | 'bad_frame' | 'busy' | 'channel_refused' | 'chat_disabled' | 'comment_too_long' | 'conflict' | 'cors_refused' | 'cursor_invalid' | 'enabled_invalid' | 'file_quota' | 'file_too_large' | 'files_off' | 'forbidden' | 'header_repeated' | 'headers_too_large' | 'hours_counted' | 'hours_exist' | 'hours_in_the_past' | 'hours_in_use' | 'hours_invalid' | 'hours_unknown' | 'id_conflict' | 'id_taken' | 'identity_mismatch' | 'ids_invalid' | 'internal_error' | 'invalid' | 'key_unknown' | 'malformed' | 'message_empty' | 'message_too_long' | 'message_unknown' | 'messages_invalid' | 'metadata_too_large' | 'method_not_allowed' | 'no_identity' | 'not_authenticated' | 'not_found' | 'note_empty' | 'note_too_long' | 'origin_refused' | 'placeholder_invalid' | 'placeholder_unknown' | 'player_invalid' | 'player_mismatch' | 'player_only' | 'pusher_off' | 'query_invalid' | 'range_invalid' | 'rating_off' | 'read_only' | 'reason_too_long' | 'refused' | 'report_too_large' | 'row_too_large' | 'schema_outdated' | 'score_invalid' | 'sender_forged' | 'sender_unknown' | 'seq_invalid' | 'service_only' | 'session_closed' | 'session_mismatch' | 'session_missing' | 'session_moved' | 'session_open' | 'session_taken' | 'session_unknown' | 'settings_invalid' | 'shortcut_taken' | 'since_invalid' | 'socket_refused' | 'staff_mismatch' | 'staff_missing' | 'staff_only' | 'staff_unknown' | 'status_unknown' | 'storage_unavailable' | 'target_missing' | 'template_incomplete' | 'template_invalid' | 'template_unknown' | 'texts_invalid' | 'timezone_unknown' | 'token_expired' | 'token_invalid' | 'too_fast' | 'too_large' | 'too_many' | 'too_many_connections' | 'too_many_failures' | 'too_many_files' | 'too_many_reads' | 'too_slow' | 'type_unknown' | 'unavailable' | 'unsupported_media_type' | 'until_invalid' | 'value_invalid';
/** A: a file of the chat. */
export interface Attachment {
    id: string;
    /** `image`: shown by its `thumb` and `view`; `file`: to download. Final in state `ready`. */
    kind: 'image' | 'file';
    type: string;
    name: string;
    alt: string | null;
    bytes: number;
    /** Pixels of an image, upright; null until it was examined. */
    width: number | null;
    height: number | null;
    /** 12 colours of an image (4 columns in 3 rows, row by row), 3 hex digits each as in CSS's `#abc`, for its place while it loads */
    preview: string | null;
    /** Its place in its message; null before it was sent. */
    place: number | null;
    state: 'awaited' | 'stored' | 'ready' | 'refused' | 'gone';
    /** Why; only in state `refused`. */
    refused?: string;
}
/** The staff's desk, as players know it. */
export interface DeskRead {
    success: true;
    /** True inside the opening hours, and always for a desk without any. */
    open: boolean;
    /** The next opening of a closed desk; null if it is open, or does not open within 400 days. */
    opensAt: string | null;
    /** Until when an open desk stays open; null if it is closed, or stays open for 8 days. */
    closesAt: string | null;
    /** The time zone of the opening hours; null without any. */
    timezone: string | null;
    /** The server's time, to which the others are relative. */
    now: string;
    /** Those who are online, then those who are away, by name. */
    staff: StaffOnline[];
}
/** A file of a message: neither its name nor its address, since a channel may be public. */
export interface EventFile {
    id: string;
    kind: 'image' | 'file';
}
/** Who the caller is. */
export interface Me {
    success: true;
    role: 'player' | 'staff' | 'admin';
    /** Of a player. */
    playerId: PlayerId | null;
    /** Of staff and admins. */
    staffId: string | null;
    /** The stored name, if there is one. */
    displayName: string | null;
    /** False for a player whose chat is off; true for everybody else. */
    chatEnabled: boolean;
    /** When the token ends; null if it does not. */
    expiresAt: string | null;
    /** True for a player who can rate closed sessions; otherwise absent. */
    ratingEnabled?: true;
}
/** M: a message. */
export interface Message {
    id: string;
    /** 1, 2, 3 … in its session, without gaps, in the order of commit. */
    seq: number;
    session_id: string;
    player_id: PlayerId;
    player_name: string | null;
    message: string;
    sender: 'player' | 'staff' | 'system';
    sender_name: string | null;
    status: 'sent' | 'delivered' | 'read';
    /** The same as `created_at`. */
    timestamp: string;
    created_at: string;
    /** True for a message that the server wrote by itself; otherwise absent. */
    auto?: true;
    /** Its files, in their order; absent without any. */
    attachments?: Attachment[];
}
/** N: a private note of staff. */
export interface Note {
    id: string;
    session_id: string;
    /** 1, 2, 3 … in its session. */
    n: number;
    /** `seq` of the last message before the note; 0 before the first. */
    after_seq: number;
    staff_id: string;
    staff_name: string;
    text: string;
    created_at: string;
}
/** S: a session. */
export interface Session {
    id: string;
    player_id: PlayerId;
    player_name: string | null;
    status: 'active' | 'closed';
    assigned_staff_id: string | null;
    last_seq: number;
    /** Grows with every change of the session. */
    rev: number;
    unread_by_staff: number;
    unread_by_player: number;
    last_message: string | null;
    last_message_at: string | null;
    created_at: string;
    closed_at: string | null;
    /** The side that closed it; absent if it is open, or if staff closed it. */
    closed_by?: 'player' | 'idle' | 'system';
    /** One more with each reopening; absent before the first. */
    cycle?: number;
    /** The player's rating of this cycle; absent without one. */
    rating?: number;
}
/** One change of a session, with its place between the messages. */
export interface SessionEvent {
    /** The session's `rev` after the event. */
    rev: number;
    at: string;
    /** `seq` of the last message before the event; 0 before the first. */
    after_seq: number;
    kind: 'opened' | 'closed' | 'reopened' | 'assigned' | 'released' | 'transferred' | 'rated' | 'blocked' | 'unblocked' | 'deleted';
    /** The staff member to whom the session is assigned by the event, or was until `released`. */
    staff_id: string | null;
    /** The staff member who caused the event; null for a player, a back end or the server. */
    by_staff_id: string | null;
    /** `closed`: `by` (`staff`, `player`, `idle` or `system`). */
    data: Record<string, unknown>;
}
/** Somebody of the staff who is there, as players know it. */
export interface StaffOnline {
    staffId: string;
    displayName: string | null;
    status: 'online' | 'away';
}
/** A text that staff send often. */
export interface Template {
    id: string;
    shortcut: string;
    title: string;
    /** The text in each language, with placeholders such as `{{player_name|there}}`. */
    texts: Record<string, string>;
    /** Whose own template it is; null: everybody's. */
    staff_id: string | null;
    /** Messages sent from it. */
    uses: number;
    active: boolean;
}
/** A staff member who looks at a session. */
export interface Viewer {
    staffId: string;
    displayName: string | null;
    typing: boolean;
}
/** A session in the queue. */
export interface Waiting {
    id: string;
    player_id: PlayerId;
    player_name: string | null;
    status: 'active' | 'closed';
    assigned_staff_id: string | null;
    last_seq: number;
    /** Grows with every change of the session. */
    rev: number;
    unread_by_staff: number;
    unread_by_player: number;
    last_message: string | null;
    last_message_at: string | null;
    created_at: string;
    closed_at: string | null;
    /** The side that closed it; absent if it is open, or if staff closed it. */
    closed_by?: 'player' | 'idle' | 'system';
    /** One more with each reopening; absent before the first. */
    cycle?: number;
    /** The player's rating of this cycle; absent without one. */
    rating?: number;
    /** Time of the player's first message since staff's last one; null when answered or closed. */
    waiting_since: string | null;
    /** True if staff have written since the session was opened or reopened; only while `first_reply_goal` is set. */
    replied?: boolean;
}
/** What a client sends on `/ws`, by `type`. */
export interface ClientFrames {
    /** Identifies the client; sent again before the token expires. */
    authenticate: {
        clientId?: string;
        token?: string;
        role?: 'player' | 'gre_staff' | 'gre' | 'staff' | 'admin';
        playerId?: PlayerId;
        staffId?: string;
        since?: Record<string, number>;
    };
    /** Sends a message; `id` makes it idempotent, the acknowledgement returns `clientId`. */
    send_message: {
        clientId?: string;
        /** Files that were begun and uploaded, in the order in which they are shown. */
        attachmentIds?: string[];
        /** May be absent in a message with files. */
        message?: string;
        playerId?: PlayerId;
        sessionId?: string;
        id?: string;
        afterSeq?: number;
        templateId?: string;
    };
    /** Adds a private note of staff; `id` makes it idempotent. */
    add_note: {
        clientId?: string;
        sessionId: string;
        text: string;
        id?: string;
    };
    /** A player's rating of its closed session. */
    rate_session: {
        clientId?: string;
        sessionId: string;
        score: number;
        comment?: string;
    };
    /** Says that the client types, or has stopped; with `"for": "note"` a note of staff. */
    typing: {
        clientId?: string;
        sessionId?: string;
        typing?: boolean;
        for?: 'note';
    };
    /** Says that a staff member looks at a session, or has left it. */
    viewing: {
        clientId?: string;
        sessionId: string;
        viewing?: boolean;
    };
    /** Marks messages as read up to a seq. */
    mark_read: {
        clientId?: string;
        sessionId: string;
        upToSeq: number;
    };
    /** Sets the presence of a staff member. */
    set_status: {
        clientId?: string;
        status: 'online' | 'away' | 'offline';
    };
    /** Asks for a pong. */
    ping: {
        clientId?: string;
    };
}
/** What the server sends on `/ws`, by `type`. */
export interface ServerFrames {
    /** The token is accepted; what was missed and what is new follows. */
    authenticated: {
        success: true;
        role: 'player' | 'staff' | 'admin';
        /** Of a player. */
        playerId?: PlayerId;
        /** Of staff and admins. */
        staffId?: string;
        /** When the token has to be renewed; null for a socket of the service key. */
        expiresAt: string | null;
        /** Those of `since`, the open ones, and those with missed messages */
        sessions: Session[];
        /** The number of staff who are online. */
        staffOnline: number;
    };
    /** The socket's own message is stored. */
    message_ack: {
        clientId: string | null;
        id: string;
        sessionId: string;
        seq: number;
        /** The message's `created_at`. */
        timestamp: string;
        /** True if a message with this id was stored already. */
        duplicate: boolean;
        /** Its files as they are now; absent without any. */
        attachments?: Attachment[];
    };
    /** A message. */
    chat_message: {
        message: Message;
        /** True for a message that was missed: an answer to `since`. */
        replay: boolean;
    };
    /** A file of a message has changed. */
    attachment_updated: {
        sessionId: string;
        attachment: Attachment;
    };
    /** Somebody types, or has stopped; expires after 6 seconds. */
    typing: {
        sessionId: string;
        playerId: PlayerId;
        by: 'player' | 'staff';
        typing: boolean;
        /** Who of the staff; for staff only. */
        staffId?: string;
        /** A private note is typed; for staff only. */
        for?: 'note';
    };
    /** A new private note, or the answer to `add_note`; for staff only. */
    session_note: {
        note: Note;
        /** Of the `add_note` that this answers. */
        clientId?: string;
    };
    /** The answer to `rate_session`. */
    session_rated: {
        session: Session;
        clientId?: string;
    };
    /** Everybody who looks at a session now; for staff only. */
    session_viewers: {
        sessionId: string;
        viewers: Viewer[];
    };
    /** One side has read the other's messages up to a seq. */
    messages_read: {
        sessionId: string;
        by: 'player' | 'staff';
        upToSeq: number;
        timestamp: string | null;
    };
    /** Something happened to a session: an event of its story; for staff only. */
    session_event: {
        sessionId: string;
        event: SessionEvent;
    };
    /** A session is new to this socket, or has changed. */
    session_updated: {
        session: Session;
    };
    /** The presence of a staff member. */
    staff_status: {
        staffId: string;
        displayName: string | null;
        status: 'online' | 'away' | 'offline';
    };
    /** A frame was not processed, or the connection is about to be closed. */
    error: {
        code: ErrorCode;
        /** One line to read. */
        error: string;
        /** Of the frame that was refused. */
        clientId?: string;
        /** Seconds. */
        retryAfter?: number;
        /** For programs; present with some codes only. */
        details?: Record<string, unknown>;
    };
    /** The answer to `ping`. */
    pong: {};
}
/** The data of Pusher's events, by name. */
export interface PusherEvents {
    /** A player's message. */
    'new-player-message': {
        id: string;
        message: string;
        sender: 'player' | 'staff' | 'system';
        sender_name: string | null;
        player_id: PlayerId;
        timestamp: string;
        status: 'sent';
        session_id: string;
        seq: number;
        /** Present if the server wrote the message by itself. */
        auto?: true;
        /** Its files; absent without any. */
        attachments?: EventFile[];
        /** Present if the event is older than 30 seconds. */
        late?: true;
        /** Present if an operator sent the event again. */
        replayed?: true;
        /** Present if the text was cut to fit: read the message by its `id`. */
        truncated?: true;
    };
    /** A message of staff or of the system. */
    'new-staff-message': PusherEvents['new-player-message'];
    /** A session was opened, assigned, released, closed or reopened; `last_message` may be cut to fit. */
    'session-updated': {
        session: Session;
    };
    /** One side has read the other's messages up to a seq. */
    'messages-read': {
        session_id: string;
        by: 'player' | 'staff';
        up_to_seq: number;
        timestamp: string | null;
    };
    /** A session went from one staff member to another; for staff only. */
    'session-transferred': {
        session_id: string;
        from: string;
        to: string;
        /** Who did it; null for a back end or the server. */
        by: string | null;
    };
    /** A new private note; for staff only. */
    'session-note': {
        note: Note;
        /** Present if the text was cut to fit. */
        truncated?: true;
    };
}
type Typed<Frames> = {
    [Type in keyof Frames]: {
        type: Type;
    } & Frames[Type];
}[keyof Frames];
export type ClientFrame = Typed<ClientFrames>;
export type ServerFrame = Typed<ServerFrames>;
export type StaffStatus = ServerFrames['staff_status'];
/** A session, with what only the queue of staff says of it. */
export type QueuedSession = Session & Partial<Waiting>;
export {};
