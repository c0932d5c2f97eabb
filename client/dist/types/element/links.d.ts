/** Find web and e-mail addresses in a text. Everything else stays text. */
export interface Part {
    text: string;
    /** Where a link leads; absent from plain text. */
    href?: string;
}
export declare function parts(text: string): Part[];
