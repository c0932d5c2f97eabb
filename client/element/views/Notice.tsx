/** @jsxImportSource preact */
/** The state of the connection, in words, if there is something to say. */

import { usePanel } from '../context'

export function Notice() {
  const { chat, words, signIn } = usePanel()
  const { connection, reason, me, error } = chat.status()
  let text = ''
  let action: 'signIn' | 'again' | undefined
  if (connection === 'stopped') {
    if (reason === 'signed_out' || reason === 'token_rejected') {
      text = reason === 'signed_out' ? words.signedOut : words.expired
      action = 'signIn'
    } else if (reason === 'chat_disabled') {
      text = words.disabled
      action = 'again'
    } else if (reason !== 'closed') {
      text = [words.stopped, error?.message].filter(Boolean).join(' ')
      action = 'again'
    }
  } else if (me?.chatEnabled === false) text = words.disabled
  else if (connection === 'connecting') text = words.connecting
  else if (connection === 'reconnecting') text = words.reconnecting
  else if (connection === 'offline') text = words.offline
  return (
    <div class="notice" part="notice" data-state={connection}>
      <p role="status" dir="auto">{text}</p>
      {action && <button type="button" part="action" onClick={action === 'signIn' ? signIn : () => chat.connect()}>{words[action]}</button>}
    </div>
  )
}
