/** What every view of the panel needs. */
import type { Chat } from '../src/index';
import type { Draft } from './draft';
import type { Words } from './words';
export interface PanelContext {
    chat: Chat;
    draft: Draft;
    words: Words;
    language: string;
    close: () => void;
    /** The page is asked to sign the person in. */
    signIn: () => void;
}
export declare const Context: import("preact").Context<PanelContext | undefined>;
export declare function usePanel(): PanelContext;
