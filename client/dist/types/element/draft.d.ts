/** The message that is being written: its text and its files. It is the person's, and survives a reload. */
import type { Chat, ChatError, Person, Upload } from '../src/index';
/** Files of a message, and bytes of a file: what the server takes. */
export declare const MAX_FILES = 5;
export declare const MAX_BYTES: number;
export interface DraftFile {
    id: string;
    alt: string;
    name: string;
    bytes: number;
    picture: boolean;
    state: 'uploading' | 'stored' | 'failed';
    /** From 0 to 1. */
    progress: number;
    error?: ChatError | undefined;
    /** Absent from files that were uploaded earlier: after a reload, or with a refused text. */
    upload?: Upload;
}
/** Why files were not taken. */
export type Rejection = {
    kind: 'many';
} | {
    kind: 'large';
    name: string;
};
export declare class Draft {
    private readonly chat;
    private readonly onChange;
    private readonly url;
    /** The field changes it with `write`. */
    text: string;
    files: readonly DraftFile[];
    /** True while a message waits for its files. */
    waiting: boolean;
    private wake;
    /** The name under which it is kept; undefined while nobody knows who writes. */
    private name;
    /** For whom a message that waits for its files is sent; null: for nobody any more. */
    private asker;
    /** `onChange` is called after every change but those of `write`. `url` is the daemon's address, as far as the page gives it. */
    constructor(chat: Chat, onChange: () => void, url?: string);
    private store;
    private changed;
    /** The person has changed the text. */
    write(text: string): void;
    /**
     * Show the draft of this person. What was written for another one is kept for that one and gone from here; what was written
     * while nobody knew by whom belongs to whom the server then names.
     */
    belongTo(person: Person | undefined): void;
    get isEmpty(): boolean;
    /** Upload files; returns why some were not taken. */
    add(files: readonly File[]): Rejection | undefined;
    private upload;
    private set;
    /** Say what a picture shows, also after its upload. The message waits until the server has it. */
    describe(id: string, text: string): void;
    retry(id: string): void;
    remove(id: string): void;
    private find;
    /** Send once all files are stored. Returns false if it is empty or a file has failed; then everything stays. */
    send(): Promise<boolean>;
    /** Put a text that was not sent back, with its files, before what is written already. */
    restore(id: string): void;
}
