/** The message that is being written: its text and its files. It is the person's, and survives a reload. */
import type { Chat, ChatError, Person, Upload } from '../src/index';
/** Files of a message, and bytes of a file: what the server takes. */
export declare const MAX_FILES = 5;
export declare const MAX_BYTES: number;
export interface DraftFile {
    /** Names it while it is here; its `id` changes with its description. */
    key: string;
    id: string;
    /** Absent from files that came back with a refused text. */
    file?: File;
    alt: string;
    name: string;
    bytes: number;
    picture: boolean;
    state: 'uploading' | 'stored' | 'failed';
    /** From 0 to 1. */
    progress: number;
    error?: ChatError | undefined;
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
    /** `alt` says what a picture shows; `before` is the file that it takes the place of. */
    private upload;
    /** Say what a picture shows. A description is part of what is announced before the bytes, so the picture is uploaded anew. */
    describe(key: string, alt: string): void;
    retry(key: string): void;
    remove(key: string): void;
    private find;
    /** Send once all files are stored. Returns false if it is empty or a file has failed; then everything stays. */
    send(): Promise<boolean>;
    /** Put a text that was not sent back, with its files, before what is written already. */
    restore(id: string): void;
}
