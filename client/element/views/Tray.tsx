/** @jsxImportSource preact */
/** The files of the message that is being written, with the progress of each. */

import { usePanel } from '../context'
import { size } from '../format'
import { fill } from '../words'
import { Icon } from './Icon'

/** Characters of a description that the server takes. */
const MAX_ALT = 1000

export function Tray() {
  const { draft, words, language } = usePanel()
  if (!draft.files.length) return null
  return (
    <ul class="tray" part="tray" aria-label={words.files}>
      {draft.files.map(({ id, name, bytes, picture, state, progress, error }) => (
        <li key={id} data-state={state}>
          <span class="file"><Icon name="file" /><bdi>{name || words.files}</bdi> {bytes > 0 && <small>{size(bytes, language)}</small>}</span>
          {state === 'uploading' && <progress aria-label={fill(words.uploading, { name })} value={progress} />}
          {state === 'failed' && <button type="button" part="action" aria-label={fill(words.retryFile, { name })} onClick={() => draft.retry(id)}>{words.again}</button>}
          <button type="button" class="tool" aria-label={fill(words.remove, { name: name || words.files })} onClick={() => draft.remove(id)}><Icon name="close" /></button>
          {picture && <input type="text" maxLength={MAX_ALT} dir="auto" aria-label={fill(words.describe, { name })} placeholder={words.describeShort} onChange={(event) => draft.describe(id, event.currentTarget.value)} />}
          {state === 'failed' && <p class="meta error" role="alert">{fill(words.uploadFailed, { name, error: error?.message ?? '' })}</p>}
        </li>
      ))}
    </ul>
  )
}
