/** The pages of messages that a timeline reads. */
import type { Core } from './core.js';
import type { Desk } from './desk.js';
import type { Page, PageQuery } from './timeline.js';
/** Raises ChatError. */
export declare function readPage({ rest, me, isStaff }: Core, { load }: Desk, query: PageQuery): Promise<Page>;
