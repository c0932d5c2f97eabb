/** The chat that the components below a provider use. Nothing here opens a connection: the first subscription does. */

import { type ReactElement, type ReactNode, createContext, createElement, useContext } from 'react'
import type { Chat } from '../src/index.js'

const ChatContext = createContext<Chat | undefined>(undefined)

export type GreProviderProps = { children?: ReactNode; chat: Chat }

/**
 * Give the components below a chat.
 *
 * @example
 * <GreProvider chat={chat}>
 *   <Conversation />
 * </GreProvider>
 */
export function GreProvider(props: GreProviderProps): ReactElement {
  return createElement(ChatContext.Provider, { value: props.chat }, props.children)
}

/**
 * Return the chat, for its actions: the same object in each render.
 *
 * @throws Error if there is no `GreProvider` above the component.
 *
 * @example
 * const chat = useChat()
 * <button onClick={() => chat.loadOlder()}>Earlier messages</button>
 */
export function useChat(): Chat {
  const chat = useContext(ChatContext)
  if (!chat) throw new Error('There is no GreProvider above this component.')
  return chat
}
