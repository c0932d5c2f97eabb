/** The rows of the log: days, messages, and own texts that are not stored yet. Pure functions of the chat's snapshots. */
import type { Attachment, Conversation, Message, Session, Unsent } from '../src/index';
export type Row = {
    kind: 'day';
    key: string;
    at: string;
} | {
    kind: 'message';
    key: string;
    message: Message;
    mine: boolean;
    first: boolean;
    receipt: '' | 'sent' | 'read';
} | {
    kind: 'unsent';
    key: string;
    unsent: Unsent;
    first: boolean;
};
/**
 * `first` marks the first row of an author in a row; `receipt` stands at the last own message, and at the last one that
 * was read. A text keeps its key (its id) when it is stored, so its row stays where it is.
 */
export declare function rowsOf({ messages, unsent, readUpTo }: Conversation): Row[];
/** The closed session that a page may ask the player to rate: the latest, if both sides wrote and it has no rating. */
export declare function sessionToRate(session: Session | undefined, messages: readonly Message[], enabled: boolean | undefined): Session | undefined;
/** The server's text for a message that has files only: it is for pages that show no files. */
export declare function isFilesText(message: Message): boolean;
/** Pictures and other files; what is not examined yet is neither. */
export declare function isPicture(file: Attachment): boolean;
