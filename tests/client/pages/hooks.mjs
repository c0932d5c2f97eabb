// A player's page made with the hooks, in StrictMode. What counts as shown is what React has put into the document.
import { createRequire } from 'node:module'
import { env, folderStorage, getToken, render, serve } from './driver.mjs'
import { commands, openChat } from './chats.mjs'

// React and the document are those that the client's own tests use.
const require = createRequire(`${env.CLIENT}/../package.json`)
const { Window } = await import(require.resolve('happy-dom'))
const window = new Window({ url: 'http://localhost/' })
for (const [name, value] of Object.entries({ window, document: window.document, navigator: window.navigator }))
  Object.defineProperty(globalThis, name, { value, configurable: true })
const { StrictMode, createElement, memo, useLayoutEffect } = require('react')
const { createRoot } = require('react-dom/client')
const { GreProvider, useChat, useChatStatus, useMessages, useSend, useUnsent } = await import(`${env.CLIENT}/react.js`)

const list = document.body.appendChild(document.createElement('div'))
const page = {}

const Item = memo(({ message }) =>
  createElement(
    'li',
    { 'data-id': message.id, 'data-seq': message.seq, 'data-session': message.session_id },
    message.message,
  ),
)

const known = new WeakMap()

/** The message of an item of the document. Items never change: React makes a new one for another message. */
function read(item) {
  if (!known.has(item)) {
    const { id, seq, session } = item.dataset
    known.set(item, { id, seq: Number(seq), session_id: session, message: item.textContent })
  }
  return known.get(item)
}

function Conversation() {
  const chat = useChat()
  const { messages } = useMessages()
  const { unsent } = useUnsent()
  const status = useChatStatus()
  const send = useSend()
  useLayoutEffect(() => {
    Object.assign(page, { unsent, status, send })
    render([...list.firstChild.childNodes].map(read))
  })
  return createElement('ul', null, messages.map((message) => createElement(Item, { key: message.id, message })))
}

let chat
const root = createRoot(list)

async function open() {
  chat = await openChat(getToken, folderStorage(env.STORAGE))
  const provider = createElement(GreProvider, { chat }, createElement(Conversation))
  root.render(createElement(StrictMode, null, provider))
  while (!page.send) await new Promise((resolve) => setTimeout(resolve))
}

await open()
await serve({
  ...commands(() => chat),
  send: ({ text }) => void page.send(text),
  unsent: () => page.unsent.map(({ text }) => text),
  status: () => page.status,
  /** Another person signs in: the page opens a chat for the token that it has now. */
  async reopen() {
    chat.close()
    delete page.send
    await open()
  },
})
