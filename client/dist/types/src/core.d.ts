/** What the parts of a chat share. */
import type { Person } from './api.js';
import type { ClientFrame } from './protocol.js';
import type { Rest } from './rest.js';
export interface Core {
    rest: Rest;
    /** Undefined until the server has said who the person is. */
    me(): Person | undefined;
    /** The name of whoever is signed in, for `owner` of calls; undefined until something is known of the person. */
    author(): string | undefined;
    isStaff(): boolean;
    /** True while the server can be reached, over a link or by REST. */
    isUsable(): boolean;
    /** Send a frame over the link; false if that cannot be done. */
    link(frame: ClientFrame): boolean;
    changed(): void;
}
