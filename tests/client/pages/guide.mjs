// What is around the page of docs/client.md for Pusher: its packages and settings, a document, the portal's server, and a
// person who reads its list and writes into its form.
import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { commands, createChat as create } from './chats.mjs'
import { env, folderStorage, getToken, render, serve } from './driver.mjs'

const transports = await import(`${env.CLIENT}/pusher.js`)

export { createClient, Pusher }
export const { PUSHER_AUTH_URL, PUSHER_KEY, SUPABASE_ANON_KEY, SUPABASE_URL } = env
export const PUSHER_OPTIONS = {
  cluster: env.PUSHER_CLUSTER,
  enabledTransports: ['ws'],
  disableStats: true,
  wsHost: env.PUSHER_HOST,
  wsPort: Number(env.PUSHER_PORT),
  forceTLS: false,
}
/** Milliseconds: what another tab has sent is announced by no event. */
const readEvery = 10_000

let chat
let pusher

export const createChat = (options) => (chat = create(options))
export function pusherTransport(options) {
  pusher = options.pusher
  return transports.pusherTransport({ readEvery, ...options })
}

const form = { elements: { text: { value: '' } }, reset: () => (form.elements.text.value = '') }
let items = []
let submit

const elements = {
  '#messages': { replaceChildren: (...children) => (items = children) },
  '#write': { addEventListener: (_, listener) => (submit = listener) },
}
const document = { visibilityState: 'visible', querySelector: (selector) => elements[selector], createElement: () => ({}) }
const fetch = globalThis.fetch

/** The portal's server has the person's token. */
async function request(url, init) {
  if (!String(url).startsWith('/api/chat-token')) return fetch(url, init)
  const token = await getToken(String(url).endsWith('=true'))
  return new Response(token, { status: token ? 200 : 401 })
}

for (const [name, value] of Object.entries({ document, fetch: request, localStorage: folderStorage(env.STORAGE) }))
  Object.defineProperty(globalThis, name, { value, configurable: true })

/** What stands in the list, with the ids of the messages. */
function show() {
  const { messages } = chat.messages()
  render(messages.map((message, n) => ({ ...message, message: items[n]?.textContent.replace(/^[^:]*: /, '') })))
}

/** Open the page, whose code is `load`, and execute the commands of the test. */
export async function begin(load) {
  const open = () => {
    load()
    const opened = chat
    opened.subscribe(() => chat === opened && show())
  }
  open()
  await serve({
    ...commands(() => chat),
    send({ text }) {
      form.elements.text.value = text
      submit({ target: form, preventDefault: () => {} })
    },
    unsent: () => items.slice(chat.messages().messages.length).map(({ textContent }) => textContent.match(/^You: (.*) \(.*\)$/)[1]),
    /** Another person signs in: the page is loaded anew. */
    reopen() {
      chat.close()
      pusher.disconnect()
      open()
    },
  })
}
