/** Where unsent texts are kept: one name for each text, so that two tabs of one person do not overwrite each other's. */
import type { ChatStorage } from './api.js';
export interface Kept {
    get(name: string): string | null;
    /** Null removes. */
    set(name: string, value: string | null): void;
    /** The names that begin with a prefix. */
    names(prefix: string): string[];
}
/** By default localStorage. What it refuses, or all if there is none or it is null, is in memory until the page closes. */
export declare function openStorage(given: ChatStorage | null | undefined): Kept;
