/** `@gre-bridge/client/element`: defines `<gre-chat>` in a page that has a bundler. The daemon serves the same as /widget.js. */
import type { Chat, ChatOptions } from '../src/index.js';
/** The element, as a page sees it. docs/element.md says what each does. */
export interface GreChatElement extends HTMLElement {
    getToken: ChatOptions['getToken'] | undefined;
    chat: Chat | undefined;
    words: Record<string, string>;
    open: boolean;
}
declare global {
    interface HTMLElementTagNameMap {
        'gre-chat': GreChatElement;
    }
}
/**
 * Define the element; without effect if it is defined, or without a document (on a server). `url` is the daemon's address for
 * elements without the attribute `url`; "" is the page's origin.
 */
export declare function defineChat(url?: string): void;
