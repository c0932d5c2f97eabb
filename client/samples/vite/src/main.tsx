import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { ChatPage } from './ChatPage'

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <ChatPage url={import.meta.env.VITE_CHAT_URL} />
  </StrictMode>,
)
