import { GreProvider, useChat, useChatStatus, useMarkRead, useMessages, useTyping } from '@gre-bridge/client/react'
import { getToken } from './token'

export function ChatPage({ url }: { url: string }) {
  return <GreProvider url={url} getToken={getToken} name="Asha"><Conversation /></GreProvider>
}

function Conversation() {
  const chat = useChat()
  const { messages, unsent, hasOlder } = useMessages()
  const { typists, setTyping } = useTyping()
  useMarkRead()
  return (
    <main>
      <p role="status">{useChatStatus().connection}{typists.length > 0 && ', guest relations is typing'}</p>
      {hasOlder && <button onClick={() => void chat.loadOlder()}>Earlier messages</button>}
      <ul>
        {messages.map(({ id, sender_name, message }) => <li key={id}>{sender_name}: {message}</li>)}
        {unsent.map(({ id, text, error }) => (
          <li key={id}>{text} {error ? <button onClick={() => chat.retry(id)}>{error.message} Again?</button> : '…'}</li>
        ))}
      </ul>
      <form action={(form) => void chat.send(String(form.get('text')))}>
        <input name="text" aria-label="Message" required onChange={(event) => setTyping(event.target.value !== '')} />
      </form>
    </main>
  )
}
