import { createClient } from '@supabase/supabase-js'
import Pusher from 'pusher-js'
import { createChat } from '@gre-bridge/client'
import { pusherTransport } from '@gre-bridge/client/pusher'
import { PUSHER_AUTH_URL, PUSHER_KEY, PUSHER_OPTIONS, SUPABASE_ANON_KEY, SUPABASE_URL } from './settings.js'

let token // the last one: Pusher's authorization and the chat have to name the same person
const channelAuthorization = { endpoint: PUSHER_AUTH_URL, headersProvider: () => ({ Authorization: `Bearer ${token}` }) }
const pusher = new Pusher(PUSHER_KEY, { ...PUSHER_OPTIONS, channelAuthorization })
const supabase = createClient(SUPABASE_URL, SUPABASE_ANON_KEY)
const chat = createChat({ url: '', getToken, name: 'Asha', transport: pusherTransport({ pusher, supabase }) })
const line = (text) => Object.assign(document.createElement('li'), { textContent: text })
chat.subscribe(() => {
  const { messages, unsent } = chat.messages()
  const stored = messages.map((message) => line(`${message.sender_name ?? 'You'}: ${message.message}`))
  const waiting = unsent.map(({ text, error }) => line(`You: ${text} (${error?.message ?? 'not sent yet'})`))
  document.querySelector('#messages').replaceChildren(...stored, ...waiting)
  if (document.visibilityState === 'visible') chat.markRead()
})
document.querySelector('#write').addEventListener('submit', (event) => {
  event.preventDefault()
  chat.send(event.target.elements.text.value)
  event.target.reset()
})
async function getToken(refused) {
  const answer = await fetch(`/api/chat-token?renew=${refused}`) // your server: the signed-in person's token
  if (!answer.ok && answer.status !== 401) throw new Error('There is no token at the moment.') // asked again
  return (token = answer.ok ? await answer.text() : null) // null: signed out
}
