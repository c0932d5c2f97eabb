import type { Attachment, Message, Note, Session, SessionEvent, Template } from './protocol.js';
export type Json = string | number | boolean | null | {
    [key: string]: Json | undefined;
} | Json[];
export type Actor = {
    rating_enabled?: boolean;
    role: 'player' | 'staff' | 'admin' | 'service' | 'none';
    player_id: number | null;
    staff_id: string | null;
    display_name: string | null;
    chat_enabled: boolean | null;
    user_id: string | null;
    expires_at: number | null;
};
export type AssignedSession = {
    session: Session;
    over_limit?: Record<'open_sessions' | 'max_sessions', number>;
};
export type AutoReply = {
    id: string;
    name: string;
    occasion: string;
    wait: number | null;
    once: 'cycle' | 'day' | 'question';
    hours: string | null;
    texts: Record<string, string>;
    priority: number;
    push: boolean;
    active: boolean;
    valid_from: string | null;
    valid_to: string | null;
};
export type AutoReplyList = {
    auto_replies: AutoReply[];
    now: AutoReplyNow | null;
};
export type AutoReplyNow = {
    text: string;
    missing: string[];
    id: string;
};
export type BegunAttachment = {
    refused?: string;
    id: string;
    kind: 'image' | 'file';
    type: string;
    name: string;
    alt: string | null;
    bytes: number;
    width: number | null;
    height: number | null;
    preview: string | null;
    place: number | null;
    state: 'awaited' | 'stored' | 'ready' | 'refused' | 'gone';
    object: string;
    object_type: string;
};
export type Block = {
    until: string | null;
    reason: string | null;
    by: string | null;
    at: string;
};
export type CatchUp = {
    attachments?: ChangedAttachment[];
    sessions: Session[];
    positions: Record<string, number>;
    missed: Message[];
};
export type ChangedAttachment = {
    session_id: string;
    attachment: Attachment;
};
export type ChangedSession = {
    session: Session;
};
export type ClosedSession = {
    session: Session | null;
};
export type CountedPage = {
    items: Record<string, Json>[];
    next: string | null;
};
export type DateEntry = {
    day: string;
    label: string | null;
    opens: string | null;
    closes: string | null;
};
export type DeadLetter = {
    id: string;
    sink: string;
    event: string;
    session_id: string | null;
    message_id: string | null;
    attempts: number;
    error: string | null;
    created_at: string;
};
export type DeadLetterPage = {
    dead: DeadLetter[];
    next: string | null;
};
export type DeskSettings = {
    assignment: 'off' | 'round_robin' | 'least_busy';
    max_sessions: number | null;
    returning_within: number | null;
    offline_after: number;
    idle_warn_after: number | null;
    idle_close_after: number | null;
    first_reply_goal: number | null;
    reply_goal: number | null;
    goals_in_hours: boolean;
    hours: string | null;
    rating_enabled: boolean;
};
export type DeskState = {
    open: boolean;
    opens_at: string | null;
    closes_at: string | null;
    timezone: string | null;
    now: string;
    staff: OnlineStaff[];
};
export type DroppedAttachment = {
    id: string;
};
export type Entry = {
    actor: Actor;
    missed: CatchUp | null;
};
export type ExportPage = {
    rows: Record<string, Json>[];
    next: string | null;
};
export type FoundMessage = {
    id: string;
    seq: number;
    session_id: string;
    player_id: number;
    player_name: string | null;
    message: string;
    sender: 'player' | 'staff' | 'system';
    sender_name: string | null;
    status: 'sent' | 'delivered' | 'read';
    timestamp: string;
    created_at: string;
    auto?: true;
    attachments?: Attachment[];
    session: Session;
};
export type HistoryPage = {
    messages: Message[];
    has_more: boolean;
    next: string | null;
    session: Session | null;
    sessions: Session[] | null;
};
export type Hours = {
    name: string;
    timezone: string;
    week: WeekEntry[];
    dates: DateEntry[];
};
export type LiveFigures = {
    at: string;
    staff: Record<string, Json>[];
    open: number;
    waiting: number;
    unassigned: number;
    longest_wait: number | null;
};
export type NotePage = {
    notes: Note[];
    has_more: boolean;
};
export type ObjectName = {
    id: string;
    object: string;
    name: string;
};
export type OnlineStaff = {
    staff_id: string;
    display_name: string | null;
    status: 'online' | 'away' | 'offline';
};
export type PlayerEnabled = {
    player_id: number;
    enabled: boolean;
};
export type PlayerState = {
    player_id: number;
    enabled: boolean;
    block?: Block;
    display_name: string | null;
};
export type QueuePage = {
    sessions: QueuedSession[];
    next: string | null;
};
export type QueuedSession = {
    id: string;
    player_id: number;
    player_name: string | null;
    status: 'active' | 'closed';
    assigned_staff_id: string | null;
    last_seq: number;
    rev: number;
    unread_by_staff: number;
    unread_by_player: number;
    last_message: string | null;
    last_message_at: string | null;
    created_at: string;
    closed_at: string | null;
    closed_by?: 'player' | 'idle' | 'system';
    cycle?: number;
    rating?: number;
    waiting_since: string | null;
    replied?: boolean;
};
export type ReadMark = {
    session_id: string;
    by: 'player' | 'staff';
    up_to_seq: number;
    timestamp: string | null;
    changed: boolean;
};
export type Rendered = {
    text: string;
    missing: string[];
};
export type Report = {
    timezone: string;
    by: string;
    basis: string | null;
    in_hours: boolean;
    whole_from: string | null;
    rows: Record<string, Json>[];
    total: Record<string, Json>;
};
export type ReportCheck = {
    checked: number;
    incomplete: number;
    differences: Record<string, Json>[];
    next: string | null;
};
export type SearchPage = {
    messages: FoundMessage[];
    next: string | null;
};
export type SessionEventPage = {
    events: SessionEvent[];
    has_more: boolean;
};
export type SessionPage = {
    sessions: Session[];
    next: string | null;
};
export type StaffMember = {
    staff_id: string;
    display_name: string | null;
    status: 'online' | 'away' | 'offline';
    role: 'staff' | 'admin';
    open_sessions: number;
    takes_sessions: boolean;
    max_sessions: number | null;
};
export type StoredMessage = {
    message: Message;
    duplicate: boolean;
};
export type StoredNote = {
    note: Note;
    duplicate: boolean;
};
export type WeekEntry = {
    weekday: number;
    opens: string | null;
    closes: string | null;
    valid_from: string;
};
/** For `createClient<Database>`: a new project's tables and functions of the chat. A bigint is a number, exact up to 2^53. */
export type Database = {
    public: {
        Tables: {
            gre_chat_attachments: {
                Row: {
                    id: string;
                    player_id: number;
                    session_id: string | null;
                    message_id: string | null;
                    place: number | null;
                    by: string;
                    staff_id: string | null;
                    name: string;
                    alt: string | null;
                    kind: string;
                    type: string;
                    bytes: number;
                    width: number | null;
                    height: number | null;
                    preview: string | null;
                    state: string;
                    refused: string | null;
                    announced_bytes: number;
                    object_id: string | null;
                    object_version: string | null;
                    object_type: string;
                    rev: number | null;
                    created_at: string;
                    stored_at: string | null;
                    ready_at: string | null;
                    changed_at: string | null;
                };
                Insert: never;
                Update: never;
                Relationships: [];
            };
            gre_chat_blocks: {
                Row: {
                    player_id: number;
                    reason: string | null;
                    by_staff_id: string | null;
                    created_at: string;
                };
                Insert: never;
                Update: never;
                Relationships: [
                    {
                        foreignKeyName: 'gre_chat_blocks_player_id_fkey';
                        columns: ['player_id'];
                        isOneToOne: true;
                        referencedRelation: 'gre_chat_players';
                        referencedColumns: ['player_id'];
                    }
                ];
            };
            gre_chat_events: {
                Row: {
                    session_id: string;
                    rev: number;
                    at: string;
                    after_seq: number;
                    kind: string;
                    staff_id: string | null;
                    by_staff_id: string | null;
                    data: Json;
                };
                Insert: never;
                Update: never;
                Relationships: [];
            };
            gre_chat_messages: {
                Row: {
                    id: string;
                    session_id: string;
                    seq: number;
                    player_id: number;
                    player_name: string | null;
                    sender: string;
                    sender_id: string | null;
                    sender_name: string | null;
                    message: string;
                    status: string;
                    origin: string;
                    metadata: Json;
                    attachment_ids: string[];
                    created_at: string;
                    timestamp: string | null;
                };
                Insert: {
                    id?: string;
                    session_id?: string;
                    seq?: number;
                    player_id?: number;
                    player_name?: string | null;
                    sender: string;
                    sender_id?: string | null;
                    sender_name?: string | null;
                    message: string;
                    status?: string;
                    origin?: string;
                    metadata?: Json;
                    attachment_ids?: string[];
                    created_at?: string;
                    timestamp?: string | null;
                };
                Update: {
                    id?: string;
                    session_id?: string;
                    seq?: number;
                    player_id?: number;
                    player_name?: string | null;
                    sender?: string;
                    sender_id?: string | null;
                    sender_name?: string | null;
                    message?: string;
                    status?: string;
                    origin?: string;
                    metadata?: Json;
                    attachment_ids?: string[];
                    created_at?: string;
                    timestamp?: string | null;
                };
                Relationships: [
                    {
                        foreignKeyName: 'gre_chat_messages_session_fk';
                        columns: ['session_id'];
                        isOneToOne: false;
                        referencedRelation: 'gre_chat_sessions';
                        referencedColumns: ['id'];
                    }
                ];
            };
            gre_chat_players: {
                Row: {
                    player_id: number;
                    user_id: string | null;
                    display_name: string | null;
                    chat_enabled: boolean;
                    blocked_until: string | null;
                    updated_at: string;
                };
                Insert: {
                    player_id: number;
                    user_id?: string | null;
                    display_name?: string | null;
                    chat_enabled?: boolean;
                    blocked_until?: string | null;
                    updated_at?: string;
                };
                Update: {
                    player_id?: number;
                    user_id?: string | null;
                    display_name?: string | null;
                    chat_enabled?: boolean;
                    blocked_until?: string | null;
                    updated_at?: string;
                };
                Relationships: [];
            };
            gre_chat_sessions: {
                Row: {
                    id: string;
                    player_id: number;
                    player_name: string | null;
                    status: string;
                    assigned_staff_id: string | null;
                    last_seq: number;
                    rev: number;
                    last_message_at: string | null;
                    unread_by_staff: number;
                    unread_by_player: number;
                    staff_read_seq: number;
                    staff_read_at: string | null;
                    player_read_seq: number;
                    player_read_at: string | null;
                    waiting_since: string | null;
                    created_at: string;
                    updated_at: string;
                    closed_at: string | null;
                    closed_by: string | null;
                    cycle: number;
                    rating: number | null;
                    changed_xid: unknown;
                };
                Insert: {
                    id?: string;
                    player_id: number;
                    player_name?: string | null;
                    status?: string;
                    assigned_staff_id?: string | null;
                    last_seq?: number;
                    rev?: number;
                    last_message_at?: string | null;
                    unread_by_staff?: number;
                    unread_by_player?: number;
                    staff_read_seq?: number;
                    staff_read_at?: string | null;
                    player_read_seq?: number;
                    player_read_at?: string | null;
                    waiting_since?: string | null;
                    created_at?: string;
                    updated_at?: string;
                    closed_at?: string | null;
                    closed_by?: string | null;
                    cycle?: number;
                    rating?: number | null;
                    changed_xid?: unknown;
                };
                Update: {
                    id?: string;
                    player_id?: number;
                    player_name?: string | null;
                    status?: string;
                    assigned_staff_id?: string | null;
                    last_seq?: number;
                    rev?: number;
                    last_message_at?: string | null;
                    unread_by_staff?: number;
                    unread_by_player?: number;
                    staff_read_seq?: number;
                    staff_read_at?: string | null;
                    player_read_seq?: number;
                    player_read_at?: string | null;
                    waiting_since?: string | null;
                    created_at?: string;
                    updated_at?: string;
                    closed_at?: string | null;
                    closed_by?: string | null;
                    cycle?: number;
                    rating?: number | null;
                    changed_xid?: unknown;
                };
                Relationships: [];
            };
            gre_online_status: {
                Row: {
                    staff_id: string;
                    display_name: string | null;
                    status: string;
                    last_seen_at: string | null;
                    updated_at: string | null;
                    expires_at: string | null;
                };
                Insert: {
                    staff_id: string;
                    display_name?: string | null;
                    status?: string;
                    last_seen_at?: string | null;
                    updated_at?: string | null;
                    expires_at?: string | null;
                };
                Update: {
                    staff_id?: string;
                    display_name?: string | null;
                    status?: string;
                    last_seen_at?: string | null;
                    updated_at?: string | null;
                    expires_at?: string | null;
                };
                Relationships: [];
            };
            gre_staff: {
                Row: {
                    staff_id: string;
                    user_id: string | null;
                    display_name: string | null;
                    role: string;
                    active: boolean;
                    updated_at: string;
                    takes_sessions: boolean;
                    max_sessions: number | null;
                };
                Insert: {
                    staff_id: string;
                    user_id?: string | null;
                    display_name?: string | null;
                    role?: string;
                    active?: boolean;
                    updated_at?: string;
                    takes_sessions?: boolean;
                    max_sessions?: number | null;
                };
                Update: {
                    staff_id?: string;
                    user_id?: string | null;
                    display_name?: string | null;
                    role?: string;
                    active?: boolean;
                    updated_at?: string;
                    takes_sessions?: boolean;
                    max_sessions?: number | null;
                };
                Relationships: [];
            };
            push_notifications: {
                Row: {
                    id: string;
                    delivery_id: string | null;
                    message_id: string | null;
                    audience: string | null;
                    recipients: string[] | null;
                    title: string | null;
                    body: string | null;
                    data: Json | null;
                    status: string;
                    provider_id: string | null;
                    error: string | null;
                    created_at: string | null;
                    sent_at: string | null;
                };
                Insert: {
                    id?: string;
                    delivery_id?: string | null;
                    message_id?: string | null;
                    audience?: string | null;
                    recipients?: string[] | null;
                    title?: string | null;
                    body?: string | null;
                    data?: Json | null;
                    status?: string;
                    provider_id?: string | null;
                    error?: string | null;
                    created_at?: string | null;
                    sent_at?: string | null;
                };
                Update: {
                    id?: string;
                    delivery_id?: string | null;
                    message_id?: string | null;
                    audience?: string | null;
                    recipients?: string[] | null;
                    title?: string | null;
                    body?: string | null;
                    data?: Json | null;
                    status?: string;
                    provider_id?: string | null;
                    error?: string | null;
                    created_at?: string | null;
                    sent_at?: string | null;
                };
                Relationships: [];
            };
        };
        Views: {
            [_ in never]: never;
        };
        Functions: {
            gre_add_note: {
                Args: {
                    p_session_id: string;
                    p_text: string;
                    p_id?: string | null;
                };
                Returns: StoredNote;
            };
            gre_attachment_begin: {
                Args: {
                    p_id: string;
                    p_player_id?: number | null;
                    p_session_id?: string | null;
                    p_name?: string | null;
                    p_type?: string | null;
                    p_bytes?: number | null;
                    p_alt?: string | null;
                };
                Returns: BegunAttachment;
            };
            gre_attachment_drop: {
                Args: {
                    p_id: string;
                };
                Returns: DroppedAttachment;
            };
            gre_attachment_get: {
                Args: {
                    p_id: string;
                };
                Returns: Attachment;
            };
            gre_attachment_names: {
                Args: {
                    p_ids: string[];
                    p_variant: string;
                };
                Returns: ObjectName[];
            };
            gre_block_player: {
                Args: {
                    p_player_id: number;
                    p_until?: string | null;
                    p_reason?: string | null;
                };
                Returns: PlayerState;
            };
            gre_catch_up: {
                Args: {
                    p_since?: Json | null;
                    p_limit?: number;
                    p_total?: number;
                };
                Returns: CatchUp;
            };
            gre_chat_history: {
                Args: {
                    p_player_id?: number | null;
                    p_session_id?: string | null;
                    p_before?: string | null;
                    p_before_seq?: number | null;
                    p_after_seq?: number | null;
                    p_limit?: number;
                    p_sessions?: boolean;
                };
                Returns: HistoryPage;
            };
            gre_close_session: {
                Args: {
                    p_player_id: number;
                };
                Returns: ClosedSession;
            };
            gre_dead_letters: {
                Args: {
                    p_sink?: string | null;
                    p_limit?: number;
                    p_cursor?: string | null;
                };
                Returns: DeadLetterPage;
            };
            gre_delete_auto_reply: {
                Args: {
                    p_id: string;
                };
                Returns: AutoReply;
            };
            gre_delete_hours: {
                Args: {
                    p_name: string;
                };
                Returns: Hours;
            };
            gre_delete_template: {
                Args: {
                    p_id: string;
                };
                Returns: Template;
            };
            gre_enable_all_players: {
                Args: never;
                Returns: number;
            };
            gre_enable_player: {
                Args: {
                    p_player_id: number;
                    p_enabled?: boolean;
                };
                Returns: PlayerEnabled;
            };
            gre_enter: {
                Args: {
                    p_since?: Json | null;
                };
                Returns: Entry;
            };
            gre_erase_player: {
                Args: {
                    p_player_id: number;
                };
                Returns: Json;
            };
            gre_export: {
                Args: {
                    p_what: string;
                    p_from?: string | null;
                    p_to?: string | null;
                    p_cursor?: string | null;
                    p_limit?: number;
                };
                Returns: ExportPage;
            };
            gre_get_auto_reply: {
                Args: {
                    p_id: string;
                };
                Returns: AutoReply;
            };
            gre_get_desk: {
                Args: never;
                Returns: DeskState;
            };
            gre_get_hours: {
                Args: {
                    p_name: string;
                };
                Returns: Hours;
            };
            gre_get_player: {
                Args: {
                    p_player_id: number;
                };
                Returns: PlayerState;
            };
            gre_get_settings: {
                Args: never;
                Returns: DeskSettings;
            };
            gre_get_template: {
                Args: {
                    p_id: string;
                };
                Returns: Template;
            };
            gre_link_user: {
                Args: {
                    p_user_id: string;
                    p_player_id?: number | null;
                    p_staff_id?: string | null;
                };
                Returns: undefined;
            };
            gre_list_auto_replies: {
                Args: never;
                Returns: AutoReplyList;
            };
            gre_list_hours: {
                Args: never;
                Returns: Hours[];
            };
            gre_list_notes: {
                Args: {
                    p_session_id: string;
                    p_after_n?: number;
                    p_limit?: number;
                };
                Returns: NotePage;
            };
            gre_list_sessions: {
                Args: {
                    p_status?: string | null;
                    p_assigned?: string | null;
                    p_limit?: number;
                    p_cursor?: string | null;
                };
                Returns: SessionPage;
            };
            gre_list_staff: {
                Args: never;
                Returns: StaffMember[];
            };
            gre_list_templates: {
                Args: never;
                Returns: Template[];
            };
            gre_mark_read: {
                Args: {
                    p_session_id: string;
                    p_up_to_seq: number;
                };
                Returns: ReadMark;
            };
            gre_operations: {
                Args: never;
                Returns: Record<string, Json>;
            };
            gre_rate_session: {
                Args: {
                    p_session_id: string;
                    p_score: number;
                    p_comment?: string | null;
                };
                Returns: ChangedSession;
            };
            gre_release_session: {
                Args: {
                    p_session_id: string;
                };
                Returns: AssignedSession;
            };
            gre_render_template: {
                Args: {
                    p_template_id: string;
                    p_session_id: string;
                };
                Returns: Rendered;
            };
            gre_report: {
                Args: {
                    p_from: string;
                    p_to: string;
                    p_timezone?: string;
                    p_by?: string;
                    p_basis?: string | null;
                    p_in_hours?: boolean;
                };
                Returns: Report;
            };
            gre_report_check: {
                Args: {
                    p_from: string;
                    p_to: string;
                    p_cursor?: string | null;
                    p_limit?: number;
                };
                Returns: ReportCheck;
            };
            gre_report_live: {
                Args: never;
                Returns: LiveFigures;
            };
            gre_report_sessions: {
                Args: {
                    p_from: string;
                    p_to: string;
                    p_timezone?: string;
                    p_by?: string;
                    p_basis?: string | null;
                    p_in_hours?: boolean;
                    p_metric?: string;
                    p_key?: string | null;
                    p_cursor?: string | null;
                    p_limit?: number;
                };
                Returns: CountedPage;
            };
            gre_retry_dead: {
                Args: {
                    p_ids: string[];
                };
                Returns: number;
            };
            gre_save_auto_reply: {
                Args: {
                    p_auto_reply: Json;
                    p_id?: string | null;
                };
                Returns: AutoReply;
            };
            gre_save_template: {
                Args: {
                    p_template: Json;
                    p_id?: string | null;
                };
                Returns: Template;
            };
            gre_search_messages: {
                Args: {
                    p_query: string;
                    p_from?: string | null;
                    p_to?: string | null;
                    p_staff?: string | null;
                    p_player?: number | null;
                    p_limit?: number;
                    p_cursor?: string | null;
                };
                Returns: SearchPage;
            };
            gre_send_message: {
                Args: {
                    p_message: string;
                    p_player_id?: number | null;
                    p_session_id?: string | null;
                    p_id?: string | null;
                    p_sender?: string | null;
                    p_player_name?: string | null;
                    p_sender_name?: string | null;
                    p_metadata?: Json | null;
                    p_after_seq?: number | null;
                    p_template_id?: string | null;
                    p_attachment_ids?: string[];
                };
                Returns: StoredMessage;
            };
            gre_send_messages: {
                Args: {
                    p_messages: Json;
                };
                Returns: Json;
            };
            gre_session_events: {
                Args: {
                    p_session_id: string;
                    p_after_rev?: number;
                    p_limit?: number;
                };
                Returns: SessionEventPage;
            };
            gre_session_queue: {
                Args: {
                    p_status?: string | null;
                    p_assigned?: string | null;
                    p_player?: string | null;
                    p_limit?: number;
                    p_cursor?: string | null;
                };
                Returns: QueuePage;
            };
            gre_set_hours: {
                Args: {
                    p_name: string;
                    p_timezone: string;
                    p_week?: Json;
                    p_dates?: Json;
                    p_new?: boolean | null;
                };
                Returns: Hours;
            };
            gre_set_online_status: {
                Args: {
                    p_status: string;
                    p_expires_in?: number | null;
                };
                Returns: OnlineStaff;
            };
            gre_set_session_status: {
                Args: {
                    p_session_id: string;
                    p_status: string;
                    p_staff_id?: string | null;
                };
                Returns: ChangedSession;
            };
            gre_set_settings: {
                Args: {
                    p_settings: Json;
                };
                Returns: DeskSettings;
            };
            gre_set_staff: {
                Args: {
                    p_staff_id: string;
                    p_settings: Json;
                };
                Returns: StaffMember;
            };
            gre_staff_reply: {
                Args: {
                    p_message: string;
                    p_session_id?: string | null;
                    p_player_id?: number | null;
                    p_id?: string | null;
                    p_metadata?: Json | null;
                    p_after_seq?: number | null;
                    p_template_id?: string | null;
                    p_attachment_ids?: string[];
                };
                Returns: StoredMessage;
            };
            gre_take_session: {
                Args: {
                    p_session_id: string;
                    p_from_staff?: string | null;
                };
                Returns: AssignedSession;
            };
            gre_transfer_session: {
                Args: {
                    p_session_id: string;
                    p_to_staff?: string | null;
                    p_note?: string | null;
                    p_after_seq?: number | null;
                    p_from_staff?: string | null;
                    p_note_id?: string | null;
                };
                Returns: AssignedSession;
            };
            gre_unblock_player: {
                Args: {
                    p_player_id: number;
                };
                Returns: PlayerState;
            };
            gre_whoami: {
                Args: {
                    p_required?: boolean;
                };
                Returns: Actor;
            };
        };
        Enums: {
            [_ in never]: never;
        };
        CompositeTypes: {
            [_ in never]: never;
        };
    };
};
