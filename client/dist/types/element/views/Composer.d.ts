/** @jsxImportSource preact */
/** Where a message is written: its text, its files, and the button. Enter sends; on touch screens it begins a line. */
export declare function Composer(): import("preact").JSX.Element;
