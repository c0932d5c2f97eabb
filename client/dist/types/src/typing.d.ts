/** Who types, and that this person types. */
import type { Typist } from './api.js';
import type { Message, ServerFrame } from './protocol.js';
export declare function createTyping(send: (typing: boolean, sessionId: string | undefined) => void, changed: () => void): {
    /** Somebody types, or has stopped. */
    apply({ sessionId, by, staffId, typing, for: purpose }: ServerFrame & {
        type: 'typing';
    }): void;
    /** A message of this side has come: nobody of it types it any more. */
    wrote({ session_id, sender }: Message): void;
    list: (sessionId?: string) => Typist[];
    stop: () => void;
    set(typing: boolean, sessionId?: string): void;
    clear(): void;
};
