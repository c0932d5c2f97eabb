/** One row of a conversation. Message text is rendered as text, never as HTML. */

import type { Desk } from '../desk'
import { clock, day, full } from '../format'
import { describeEvent } from '../story'
import { MessageStatusIcon } from './icons'
import { LinkedText } from './LinkedText'
import type { Row } from './rows'

export function MessageRow({ desk, row, session }: { desk: Desk; row: Row; session: string }) {
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
      return (
        <article
          class={`message from-${message.sender} ${follows ? 'follows' : ''}`} data-testid="message" data-message-id={message.id}
          data-seq={message.seq} data-sender={message.sender} data-state={message.status}
        >
          {!follows && <p class="sender" dir="auto">{message.sender_name || (message.sender === 'player' ? `Player ${message.player_id}` : message.sender)}</p>}
          <div class="bubble">
            <p class="text" dir="auto" data-testid="message-text"><LinkedText text={message.message} /></p>
            <p class="meta">
              <time dateTime={message.timestamp} title={full(message.timestamp)}>{clock(message.timestamp)}</time>
              {fromUs && message.sender === 'staff' && <MessageStatusIcon state={message.status} />}
            </p>
          </div>
        </article>
      )
    }
    case 'outgoing': {
      const { outgoing } = row
      const failed = outgoing.state === 'failed'
      return (
        <article class={`message from-staff ${failed ? 'is-failed' : ''}`} data-testid="message" data-message-id={outgoing.id} data-sender="staff" data-state={outgoing.state}>
          <div class="bubble">
            <p class="text" dir="auto" data-testid="message-text">{outgoing.text}</p>
            <p class="meta">
              <time>{clock(outgoing.createdAt)}</time>
              {!failed && <MessageStatusIcon state="sending" />}
            </p>
          </div>
          {failed && (
            <p class="failure" role="alert">
              <span>Not sent. {outgoing.error}{outgoing.transient && ' Your reply is kept and is tried again by itself.'}</span>
              <button type="button" data-testid="retry" onClick={() => desk.unsentReplies.retry(session, outgoing.id)}>Retry</button>
              <button type="button" class="plain" data-testid="discard" onClick={() => desk.unsentReplies.remove(session, outgoing.id)}>Discard</button>
            </p>
          )}
        </article>
      )
    }
  }
}
