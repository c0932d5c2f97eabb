/** @jsxImportSource preact */
/** The state of the connection, in words, if there is something to say. */
export declare function Notice(): import("preact").JSX.Element;
