import { GreProvider, useChatStatus, useMarkRead, useMessages, useSend, useTyping, useUnsent } from '@gre-bridge/client/react'
import { getToken } from './token'

export function ChatPage({ url }: { url: string }) {
  return <GreProvider url={url} getToken={getToken} name="Asha"><Conversation /></GreProvider>
}

function Conversation() {
  const { messages } = useMessages()
  const { unsent, retry } = useUnsent()
  const { typists, setTyping } = useTyping()
  const send = useSend()
  useMarkRead()
  return (
    <main>
      <p role="status">{useChatStatus().connection}{typists.length > 0 && ', guest relations is typing'}</p>
      <ol>
        {messages.map(({ id, sender_name, message }) => <li key={id}>{sender_name}: {message}</li>)}
        {unsent.map(({ id, text, error }) => (
          <li key={id}>{text} {error ? <button onClick={() => retry(id)}>{error.message} Again?</button> : '…'}</li>
        ))}
      </ol>
      <form action={(form) => void send(String(form.get('text')))}>
        <input name="text" aria-label="Message" required onChange={(event) => setTyping(event.target.value !== '')} />
      </form>
    </main>
  )
}
