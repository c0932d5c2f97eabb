// A player's page made with the client over /ws.
import ws from 'ws'
import { clear, env, folderStorage, getToken, render, serve } from './driver.mjs'

globalThis.WebSocket ??= ws
const { createChat } = await import(`${env.CLIENT}/index.js`)

let chat

function open() {
  const opened = createChat({ url: env.DAEMON, getToken, name: 'Asha', storage: folderStorage(env.STORAGE) })
  chat = opened
  const show = () => chat === opened && render(opened.messages().messages)
  opened.subscribe(show)
  show()
}

open()
await serve({
  send: ({ text }) => void chat.send(text),
  unsent: () => chat.messages().unsent.map(({ text }) => text),
  status: () => chat.status(),
  state: () => chat.messages().state,
  connect: () => chat.connect(),
  loadOlder: () => chat.loadOlder().then(() => chat.messages().hasOlder),
  /** Another person signs in: the page opens a chat for the token that it has now. */
  reopen() {
    chat.close()
    clear()
    open()
  },
})
