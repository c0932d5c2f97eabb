import { createChat } from '@gre-bridge/client'
import { getToken } from './token.js'

const chat = createChat({ url: 'https://chat.example', getToken })
const at = (selector) => document.querySelector(selector)
const row = (tag, text, onclick = null) => Object.assign(document.createElement(tag), { textContent: text, onclick })
const field = at('#write').elements.text
const texts = {} // what was written and not sent, by session id
let open // the id of the session that is shown, and in which the form writes
const show = () => {
  const rows = chat.staff.queue({ status: 'active' }).sessions.map(({ id, player_name: name, last_message: text }) => row('button', `${name}: ${text}`, () => take(id)))
  at('#queue').replaceChildren(...rows)
  if ((at('#write').hidden = !open)) return
  const { messages, unsent } = chat.messages(open)
  const said = messages.map((message) => row('li', `${message.sender_name}: ${message.message}`))
  at('#messages').replaceChildren(...said, ...unsent.map(({ text, error }) => row('li', `${text} (${error?.message ?? 'not sent yet'})`)))
  if (document.visibilityState === 'visible') chat.markRead(open)
}
const take = (id) => chat.staff.take(id).then(() => {
  texts[open] = field.value
  field.value = texts[(open = id)] ?? '' // the other session's: no text is sent to somebody else
  show()
}, (error) => alert(error.message)) // session_taken: a colleague's; what is shown stays
at('#write').addEventListener('submit', (event) => {
  event.preventDefault()
  chat.staff.reply(open, field.value, { afterSeq: chat.messages(open).messages.at(-1)?.seq }) // refused if a colleague has answered meanwhile
  field.value = ''
})
chat.subscribe(show)
