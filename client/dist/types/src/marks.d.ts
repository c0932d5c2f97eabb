/** What this side has read: noted at once, and sent until the server has it. */
import type { Core } from './core.js';
import type { Sessions } from './sessions.js';
import type { Timeline } from './timeline.js';
export declare function createMarks({ rest, isStaff, isUsable }: Pick<Core, 'rest' | 'isStaff' | 'isUsable'>, { markOf, note }: Pick<Sessions, 'markOf' | 'note'>, timelines: {
    values(): Iterable<Timeline>;
}): {
    /** What is loaded is read, of a session or of all, up to a seq or to its end. */
    read(sessionId?: string, upTo?: number): void;
    /** The connection is back. */
    resend: () => void;
    clear(): void;
};
