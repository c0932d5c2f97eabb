/** Where unsent texts are kept: one name for each text, so that two tabs of one person do not overwrite each other's. */
import type { ChatStorage } from './api.js';
export interface Kept {
    get(name: string): string | null | undefined;
    /** Null removes. */
    set(name: string, value: string | null): void;
    /** The names that begin with a prefix. */
    names(prefix: string): string[];
}
/** By default localStorage; null: none. What storage refuses (it is full, or forbidden) is not kept; reading finds nothing then. */
export declare function openStorage(given: ChatStorage | null | undefined): Kept;
