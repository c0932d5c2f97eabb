/** @jsxImportSource preact */
/** The files of the message that is being written, with the progress of each. */
export declare function Tray(): import("preact").JSX.Element | null;
