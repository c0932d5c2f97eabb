/** The chat that the components below a provider use. Nothing here opens a connection: the first subscription does. */

import { type ReactElement, type ReactNode, createContext, createElement, useContext, useEffect, useRef, useState } from 'react'
import { type Chat, type ChatOptions, createChat } from '../src/index.js'

const ChatContext = createContext<Chat | undefined>(undefined)

/** A chat that the page has made, or the options of one that the provider makes. */
export type GreProviderProps = { children?: ReactNode } & ({ chat: Chat } | ChatOptions)

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
export function GreProvider(props: GreProviderProps): ReactElement {
  if ('chat' in props) return createElement(ChatContext.Provider, { value: props.chat }, props.children)
  return createElement(OwnChat, { ...props, key: props.url })
}

function OwnChat(props: ChatOptions & { children?: ReactNode }): ReactElement {
  const latest = useRef<ChatOptions>(props)
  useEffect(() => {
    latest.current = props
  })
  // StrictMode calls this twice and drops one: a chat without subscribers holds nothing open.
  const [chat] = useState(() =>
    createChat({
      ...props,
      getToken: (refused) => latest.current.getToken(refused),
      onFrame: (frame) => latest.current.onFrame?.(frame),
      get name() {
        return latest.current.name
      },
    }),
  )
  return createElement(ChatContext.Provider, { value: chat }, props.children)
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
