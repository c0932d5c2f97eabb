import { ChatPage } from './ChatPage'

export default function Page() {
  return <ChatPage url={process.env.NEXT_PUBLIC_CHAT_URL ?? ''} />
}
