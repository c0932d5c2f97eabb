/** Whether the desk is open: read when it is first asked for, again when that changes, and now and then. The answer also says who is there. */
import type { Desk } from './api.js';
import type { Core } from './core.js';
import type { StaffStatus } from './protocol.js';
/** `present` are the members of staff by id, as frames change them. */
export declare function createOpening({ rest, isUsable, changed }: Core, present: Map<string, StaffStatus>): {
    /** What is known by now; reads it if it may have changed. */
    read(): Desk | undefined;
    clear(): void;
};
