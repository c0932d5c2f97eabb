import { createChat } from '@gre-bridge/client'

const chat = createChat({ url: 'https://chat.example', getToken, name: 'Asha' })
const list = document.querySelector('#messages')
const form = document.querySelector('#write')
const line = (text) => Object.assign(document.createElement('li'), { textContent: text })

chat.subscribe(() => {
  const { messages, unsent } = chat.messages()
  list.replaceChildren(
    ...messages.map((message) => line(`${message.sender_name ?? 'You'}: ${message.message}`)),
    ...unsent.map(({ text, error }) => line(`You: ${text} (${error?.message ?? 'not sent yet'})`)),
  )
  document.querySelector('#state').textContent = chat.status().connection
  if (document.visibilityState === 'visible') chat.markRead()
})
form.addEventListener('input', () => chat.setTyping(form.elements.text.value !== ''))
form.addEventListener('submit', (event) => {
  event.preventDefault()
  chat.send(form.elements.text.value)
  form.reset()
})

async function getToken(refused) {
  const answer = await fetch(`/api/chat-token?renew=${refused}`) // your server: the signed-in person's token
  if (!answer.ok && answer.status !== 401) throw new Error('There is no token at the moment.') // asked again
  return answer.ok ? answer.text() : null // null: signed out
}
