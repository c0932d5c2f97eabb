/**
 * The custom element: a button with a badge, and what is loaded behind it. All of this file is in the loader, which has
 * at most 3 KB: what only an open panel needs belongs to panel.tsx.
 */
import type { Chat, ChatOptions } from '../src/api';
import type { Host, Panel } from './host';
/** The parts that are loaded later. */
export interface Modules {
    core(): Promise<{
        createChat(options: ChatOptions): Chat;
    }>;
    panel(): Promise<{
        mount(host: Host): Panel;
    }>;
}
/**
 * Define `<gre-chat>`. `url` is the daemon's address for elements without the attribute `url`.
 * Does nothing if the element is defined already.
 */
export declare function define(modules: Modules, url: string): void;
