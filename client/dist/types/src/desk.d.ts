/** The desk of a member of staff, whose code is loaded when it is first used, or when the person is known to be staff. */
import type { StaffChat, Unsent } from './api.js';
import type { Draft } from './outbox.js';
import type { createStaff, StaffOwner } from './staff.js';
type Part = ReturnType<typeof createStaff>;
export type Desk = ReturnType<typeof createDesk>;
export declare function createDesk(owner: StaffOwner, send: (draft: Draft) => Unsent): {
    part: Part | undefined;
    kept: Set<unknown>;
    load: () => Promise<Part>;
    chat: StaffChat;
};
export {};
