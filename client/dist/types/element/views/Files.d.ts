/** @jsxImportSource preact */
/** The files of a message: pictures as thumbnails that open large, everything else to save. Addresses are asked for when shown. */
import type { Attachment } from '../../src/index';
export declare function Files({ files, mine }: {
    files: readonly Attachment[];
    mine: boolean;
}): import("preact").JSX.Element;
