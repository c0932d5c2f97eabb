// What the pages that are made with the client have in common: how a chat is made, and the commands of the tests.
import ws from 'ws'
import { env } from './driver.mjs'

globalThis.WebSocket ??= ws
export const { createChat } = await import(`${env.CLIENT}/index.js`)

/** A chat over the transport of this page: /ws, or what TRANSPORT names. */
export async function openChat(getToken, storage) {
  const transport = env.TRANSPORT ? (await import('./pusher.mjs')).pusherOptions() : {}
  return createChat({ url: env.DAEMON, getToken, name: 'Asha', storage, ...transport })
}

/** The commands of the tests; `chat` returns the chat that is open. */
export const commands = (chat) => ({
  send: ({ text }) => void chat().send(text),
  unsent: () => chat().messages().unsent.map(({ text }) => text),
  status: () => chat().status(),
  state: () => chat().messages().state,
  connect: () => chat().connect(),
  loadOlder: () => chat().loadOlder().then(() => chat().messages().hasOlder),
})
