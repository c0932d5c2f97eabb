/** @jsxImportSource preact */
/** The panel from top to bottom. */
export declare function App({ open }: {
    open: boolean;
}): import("preact").JSX.Element;
