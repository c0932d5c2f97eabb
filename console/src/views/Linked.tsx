/** A text with its links. Whatever is no address of the web, of mail or of a telephone stays text. */

import { parts } from '../links'

export function Linked({ text }: { text: string }) {
  return (
    <>
      {parts(text).map((part, n) =>
        part.href === undefined ? part.text : <a key={n} href={part.href} target="_blank" rel="noopener noreferrer">{part.text}</a>,
      )}
    </>
  )
}
