/** @jsxImportSource preact */
/** Icons of one stroke, drawn for this project. */
declare const PATHS: {
    close: string;
    send: string;
    clip: string;
    down: string;
    file: string;
};
export declare function Icon({ name }: {
    name: keyof typeof PATHS;
}): import("preact").JSX.Element;
export {};
