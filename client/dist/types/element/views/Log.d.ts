/** @jsxImportSource preact */
/** The messages. The log stays at its end while the person is there, and where it is while somebody reads above. */
import type { Row } from '../rows';
import type { Conversation } from '../../src/index';
interface Props {
    rows: readonly Row[];
    conversation: Conversation;
    /** The latest session is closed. */
    closed: boolean;
    onEnd: (atEnd: boolean) => void;
}
export declare function Log(props: Props): import("preact").JSX.Element;
export {};
