/** One row of a conversation. Message text is rendered as text, never as HTML. */

import { isFilesText } from '../attachments'
import type { Conversation } from '../conversation'
import type { Desk } from '../desk'
import { clock, day, full } from '../format'
import { isFailed, kindOf, type TextKind } from '../outgoing'
import { describeEvent } from '../story'
import { Attachments } from './Attachments'
import { FileTray } from './FileTray'
import { MessageStatusIcon } from './icons'
import { LinkedText } from './LinkedText'
import type { Row } from './rows'

interface Props {
  desk: Desk
  row: Row
  conversation: Conversation
  /** The user wants to edit a failed text: it is in its draft. */
  onEdit: (kind: TextKind) => void
  /** The user wants to see a picture. */
  onOpen: (attachment: string) => void
}

export function MessageRow({ desk, row, conversation, onEdit, onOpen }: Props) {
  switch (row.kind) {
    case 'day':
      return <div class="day" data-testid="day"><span>{day(row.at, desk.api.now())}</span></div>
    case 'unread':
      return <div class="day unread-line" data-testid="unread-line"><span>New</span></div>
    case 'event':
      return (
        <p class="event" data-testid="event" data-kind={row.event.kind}>
          <span dir="auto">{describeEvent(row.event, (id) => desk.staffName(id))}</span> <time dateTime={row.event.at} title={full(row.event.at)}>{clock(row.event.at)}</time>
        </p>
      )
    case 'message': {
      const { message, follows } = row
      const fromUs = message.sender !== 'player'
      const isTarget = message.id === conversation.target?.message.id
      return (
        <article
          class={`message from-${message.sender} ${follows ? 'follows' : ''} ${isTarget ? 'is-target' : ''}`} aria-current={isTarget || undefined}
          data-testid="message" data-message-id={message.id}
          data-seq={message.seq} data-sender={message.sender} data-state={message.status}
        >
          {!follows && <p class="sender" dir="auto">{message.sender_name || (message.sender === 'player' ? `Player ${message.player_id}` : message.sender)}</p>}
          <div class="bubble">
            <Attachments files={message.attachments ?? []} links={desk.files.links} onOpen={onOpen} />
            {!isFilesText(message) && <p class="text" dir="auto" data-testid="message-text"><LinkedText text={message.message} /></p>}
            <p class="meta">
              <time dateTime={message.timestamp} title={full(message.timestamp)}>{clock(message.timestamp)}</time>
              {fromUs && message.sender === 'staff' && <MessageStatusIcon state={message.status} />}
            </p>
          </div>
        </article>
      )
    }
    case 'note':
      return (
        <article class="message note" data-testid="note" data-note-id={row.note.id} data-staff-id={row.note.staff_id}>
          <p class="sender" dir="auto">Private note of {row.note.staff_name}</p>
          <div class="bubble">
            <p class="text" dir="auto" data-testid="note-text"><LinkedText text={row.note.text} /></p>
            <p class="meta"><time dateTime={row.note.created_at} title={full(row.note.created_at)}>{clock(row.note.created_at)}</time></p>
          </div>
        </article>
      )
    case 'outgoing': {
      const { text } = row
      const kind = kindOf(text)
      const failed = isFailed(text)
      const isRefused = text.state === 'refused'
      return (
        <article
          class={`message ${kind === 'note' ? 'note' : 'from-staff'} ${failed ? 'is-failed' : ''}`} data-testid={kind === 'note' ? 'note' : 'message'}
          data-message-id={text.id} data-sender="staff" data-state={failed ? 'failed' : 'sending'}
        >
          {kind === 'note' && <p class="sender">Private note, not stored yet</p>}
          <div class="bubble">
            <FileTray files={text.data.files} uploads={desk.files.uploads} />
            {text.text !== '' && <p class="text" dir="auto" data-testid={`${kind === 'note' ? 'note' : 'message'}-text`}>{text.text}</p>}
            <p class="meta">
              <time>{clock(text.data.at)}</time>
              {!failed && <MessageStatusIcon state="sending" />}
            </p>
          </div>
          {failed && (
            <p class="failure" role="alert">
              <span>Not sent. {text.error?.message}{!isRefused && ` Your ${kind} is kept and is tried again by itself.`}</span>
              <button type="button" data-testid="retry" onClick={(event) => { keepFocus(event.currentTarget); desk.outgoing.retry(conversation, text) }}>{isRefused ? 'Send again' : 'Retry'}</button>
              {isRefused && <button type="button" data-testid="edit" onClick={() => { desk.outgoing.edit(text); onEdit(kind) }}>Edit</button>}
              <button type="button" class="plain" data-testid="discard" onClick={(event) => { keepFocus(event.currentTarget); desk.outgoing.drop(text) }}>Discard</button>
            </p>
          )}
        </article>
      )
    }
  }
}

/** Move the focus from a button that will be removed to the messages. */
function keepFocus(button: HTMLElement): void {
  button.closest<HTMLElement>('[role=log]')?.focus({ preventScroll: true })
}
