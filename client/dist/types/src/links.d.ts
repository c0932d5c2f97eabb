/** Addresses of files: asked for together, and kept until shortly before they end. In memory only. */
/** The daemon's answer for one file. */
export interface FoundLink {
    url?: string;
    expiresAt?: string;
    code?: string;
}
export interface KeptLink {
    url: string;
    /** Milliseconds since 1970, as `now` has it: from then on it is asked for again. */
    until: number;
}
/** `read` asks the daemon for addresses; it raises ChatError. `now` is the daemon's time, as well as it is known. */
export declare function createLinks(read: (ids: string[], variant: string) => Promise<Record<string, FoundLink>>, now?: () => number): {
    /** The address of a file. Raises ChatError; with status 404 there is none. */
    get(id: string, variant: string): Promise<KeptLink>;
    /** An address did not work: the next `get` asks for another one. */
    forget: (id: string, variant: string) => boolean;
};
