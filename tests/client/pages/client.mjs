// A player's page made with the client.
import { env, folderStorage, getToken, render, serve } from './driver.mjs'
import { commands, openChat } from './chats.mjs'

let chat

async function open() {
  const opened = await openChat(getToken, folderStorage(env.STORAGE))
  chat = opened
  const show = () => chat === opened && render(opened.messages().messages)
  opened.subscribe(show)
  show()
}

await open()
await serve({
  ...commands(() => chat),
  /** Another person signs in: the page opens a chat for the token that it has now. */
  async reopen() {
    chat.close()
    await open()
  },
})
