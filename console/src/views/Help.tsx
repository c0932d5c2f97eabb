/** The dialog with the keyboard shortcuts. */

import { useEffect, useRef } from 'preact/hooks'

const KEYS: [string, string][] = [
  ['j / k', 'next, previous conversation'],
  ['Enter', 'write a reply; in the reply: send'],
  ['n', 'write a private note'],
  ['Ctrl + Enter', 'send, and open the next that waits'],
  ['Shift + Enter', 'a new line'],
  ['/', 'search a player; in the reply: insert a template'],
  ['s', 'search all messages; in the search of players: Enter'],
  ['Esc', 'leave the field; then close the conversation'],
  ['?', 'this list'],
]

export function Help({ open, onClose }: { open: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    if (open) dialog.current?.showModal()
  }, [open])
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="help-title">
      <h2 id="help-title">Keyboard</h2>
      <dl>
        {KEYS.map(([key, description]) => (
          <div key={key}>
            <dt><kbd>{key}</kbd></dt>
            <dd>{description}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog"><button class="primary" type="submit">Close</button></form>
    </dialog>
  )
}
