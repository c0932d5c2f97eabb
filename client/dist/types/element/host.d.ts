/** What the element and its panel know of each other. An older loader may get a newer panel: names here stay. */
import type { Chat } from '../src/api';
export interface Host {
    root: ShadowRoot;
    /** Gets the focus when the panel is closed. */
    button: HTMLElement;
    chat: Chat;
    element: HTMLElement & {
        words: Record<string, string>;
        open: boolean;
    };
}
export interface Panel {
    /** `focus`: take the focus. */
    show(focus: boolean): void;
    hide(): void;
    /** The words, the language or another attribute has changed. */
    update(): void;
    unmount(): void;
}
