/** @jsxImportSource preact */
/** One message, or one own text that is not stored yet. Texts of people are shown as text, never as HTML. */

import { Component, type ComponentChildren } from 'preact'
import type { Message, Unsent } from '../../src/index'
import { usePanel } from '../context'
import { clock } from '../format'
import { parts } from '../links'
import { isFilesText } from '../rows'
import { fill, type Words } from '../words'
import { Files } from './Files'

interface MessageProps {
  message: Message
  mine: boolean
  first: boolean
  receipt: '' | 'sent' | 'read'
  words: Words
  language: string
}

/** Renders again only if something of its own has changed: other rows are many. */
export class MessageRow extends Component<MessageProps> {
  override shouldComponentUpdate(next: MessageProps): boolean {
    return (['message', 'first', 'receipt', 'words', 'language'] as const).some((name) => next[name] !== this.props[name])
  }

  override render() {
    const { message, mine, first, receipt, words, language } = this.props
    const { sender, sender_name, auto, created_at, attachments } = message
    const kind = mine ? 'mine' : sender === 'system' ? 'system' : 'theirs'
    const author = mine ? words.you : auto ? words.system : (sender_name ?? words.staff)
    return (
      <div class={`message ${kind}`} part={`message message-${kind}`} data-id={message.id}>
        <p class={first && !mine ? 'author' : 'hidden'} dir="auto">{author}</p>
        {!isFilesText(message) && <Bubble text={message.message} />}
        {attachments && attachments.length > 0 && <Files files={attachments} mine={mine} />}
        <p class="meta">
          <time dateTime={created_at} part="time">{clock(created_at, language)}</time>
          {receipt && <span> · {words[receipt]}</span>}
        </p>
      </div>
    )
  }
}

export function UnsentRow({ unsent, words }: { unsent: Unsent; words: Words }) {
  const { chat, draft } = usePanel()
  const { id, text, files, state, error } = unsent
  const refused = state === 'refused'
  return (
    <div class="message mine unsent" part="message message-mine message-unsent" data-id={id} data-state={state}>
      <p class="hidden">{words.you}</p>
      {text && <Bubble text={text} />}
      {files.length > 0 && <p class="file">{words.files}: {files.length}</p>}
      <p class={refused ? 'meta error' : 'meta'} role={refused ? 'alert' : undefined}>{refused ? fill(words.refused, { error: error?.message ?? '' }) : words[state]}</p>
      {refused && (
        <p class="actions">
          <button type="button" part="action" onClick={() => chat.retry(id)}>{words.retry}</button>
          <button type="button" part="action" onClick={() => draft.restore(id)}>{words.edit}</button>
        </p>
      )}
    </div>
  )
}

function Bubble({ text }: { text: string }) {
  return (
    <p class="bubble" part="bubble" dir="auto">
      {parts(text).map(({ text, href }): ComponentChildren => (href === undefined ? text : <a href={href} target="_blank" rel="noopener noreferrer">{text}</a>))}
    </p>
  )
}
