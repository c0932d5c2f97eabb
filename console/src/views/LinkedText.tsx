/** A text with links for web, e-mail and telephone addresses; everything else stays text. */

import { splitLinks } from '../links'

export function LinkedText({ text }: { text: string }) {
  return (
    <>
      {splitLinks(text).map((part, n) =>
        part.href === undefined ? part.text : <a key={n} href={part.href} target="_blank" rel="noopener noreferrer">{part.text}</a>,
      )}
    </>
  )
}
