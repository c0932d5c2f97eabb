/**
 * Where a draft is kept: in the tab (sessionStorage), so it survives a reload, two tabs have one each, and it ends with the tab.
 * What the browser refuses to keep is lost with the page.
 */
export interface KeptFile {
    id: string;
    name: string;
    bytes: number;
}
interface Kept {
    text: string;
    files: readonly KeptFile[];
    /** When it was kept, in milliseconds. */
    at: number;
}
/** Keep a text, and the files that are stored on the server. An empty draft is removed. */
export declare function storeDraft(name: string, { text, files }: {
    text: string;
    files: readonly (KeptFile & {
        state: string;
    })[];
}): void;
/** The draft that was kept; undefined if there is none that can be read. */
export declare function loadDraft(name: string): Pick<Kept, 'text' | 'files'> | undefined;
export {};
