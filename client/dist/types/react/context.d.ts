/** The chat that the components below a provider use. Nothing here opens a connection: the first subscription does. */
import { type ReactElement, type ReactNode } from 'react';
import { type Chat, type ChatOptions } from '../src/index.js';
/** A chat that the page has made, or the options of one that the provider makes. */
export type GreProviderProps = {
    children?: ReactNode;
} & ({
    chat: Chat;
} | ChatOptions);
/**
 * Give the components below a chat.
 *
 * With options, the provider makes one chat for as long as it is mounted. `getToken`, `name` and `onFrame` may change
 * with each render; another `url` makes another chat, with the components below mounted anew; `transport` and `storage`
 * are read once. The connection is opened when the first hook subscribes, and closes 5 seconds after the last one has
 * left. Where people sign out and others in without a reload, give the provider the person's id as its `key`.
 *
 * @example
 * <GreProvider url="https://chat.example" getToken={(refused) => auth.token({ renew: refused })}>
 *   <Conversation />
 * </GreProvider>
 */
export declare function GreProvider(props: GreProviderProps): ReactElement;
/**
 * Return the chat, for its actions: the same object in each render.
 *
 * @throws Error if there is no `GreProvider` above the component.
 *
 * @example
 * const chat = useChat()
 * <button onClick={() => chat.loadOlder()}>Earlier messages</button>
 */
export declare function useChat(): Chat;
