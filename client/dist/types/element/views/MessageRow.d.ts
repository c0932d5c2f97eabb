/** @jsxImportSource preact */
/** One message, or one own text that is not stored yet. Texts of people are shown as text, never as HTML. */
import { Component } from 'preact';
import type { Message, Unsent } from '../../src/index';
import { type Words } from '../words';
interface MessageProps {
    message: Message;
    mine: boolean;
    first: boolean;
    receipt: '' | 'sent' | 'read';
    words: Words;
    language: string;
}
/** Renders again only if something of its own has changed: other rows are many. */
export declare class MessageRow extends Component<MessageProps> {
    shouldComponentUpdate(next: MessageProps): boolean;
    render(): import("preact").JSX.Element;
}
export declare function UnsentRow({ unsent, words }: {
    unsent: Unsent;
    words: Words;
}): import("preact").JSX.Element;
export {};
