/** @jsxImportSource preact */
/**
 * The panel: a dialog with the conversation. It is modal on small screens, which it fills, and beside the page on others.
 * Nothing here writes HTML or inline styles as text, so a page's Content-Security-Policy needs no exception.
 */
import type { Host, Panel } from './host';
/** Create the panel in the element's shadow root, closed. */
export declare function mount(host: Host): Panel;
