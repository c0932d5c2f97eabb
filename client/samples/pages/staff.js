import { createChat } from '@gre-bridge/client'
import { getToken } from './token.js'

const chat = createChat({ url: 'https://chat.example', getToken })
const at = (selector) => document.querySelector(selector)
const row = (tag, text, onclick = null) => Object.assign(document.createElement(tag), { textContent: text, onclick })
let open // the id of the session that is shown

chat.subscribe(() => {
  const { sessions } = chat.staff.queue({ status: 'active' })
  at('#queue').replaceChildren(
    ...sessions.map(({ id, player_name, last_message }) => row('button', `${player_name}: ${last_message}`, () => show(id))),
  )
  if (!open) return
  const { messages, unsent } = chat.messages(open)
  at('#messages').replaceChildren(
    ...messages.map((message) => row('li', `${message.sender_name}: ${message.message}`)),
    ...unsent.map(({ text, error }) => row('li', `${text} (${error?.message ?? 'not sent yet'})`)),
  )
})
const show = (id) => chat.staff.take((open = id)).catch((error) => alert(error.message)) // session_taken: a colleague's
at('#write').addEventListener('submit', (event) => {
  event.preventDefault()
  const afterSeq = chat.messages(open).messages.at(-1)?.seq // refused if a colleague has answered meanwhile
  chat.staff.reply(open, event.target.elements.text.value, { afterSeq })
  event.target.reset()
})
