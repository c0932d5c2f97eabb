/** @jsxImportSource preact */
/** Asks the player how a closed conversation was. What was chosen stays until it is stored. */
import type { Session } from '../../src/index';
/** `session` is the one to rate, if there is one; `closed`: the latest session is closed. */
export declare function Rating({ session, closed }: {
    session: Session | undefined;
    closed: boolean;
}): import("preact").JSX.Element | null;
