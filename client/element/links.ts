/** Find web and e-mail addresses in a text. Everything else stays text. */

export interface Part {
  text: string
  /** Where a link leads; absent from plain text. */
  href?: string
}

const ADDRESS = /\bhttps?:\/\/[^\s<>"]+|[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.\p{L}{2,}/giu

export function parts(text: string): Part[] {
  const found: Part[] = []
  let end = 0
  for (const match of text.matchAll(ADDRESS)) {
    const address = withoutSentence(match[0])
    const href = /^http/i.test(address) ? address : `mailto:${address}`
    if (!URL.canParse(href)) continue
    if (match.index > end) found.push({ text: text.slice(end, match.index) })
    found.push({ text: address, href })
    end = match.index + address.length
  }
  if (end < text.length) found.push({ text: text.slice(end) })
  return found
}

/** Without the punctuation of the sentence around it, and without a bracket that the address does not open. */
function withoutSentence(address: string): string {
  for (;;) {
    const last = address.at(-1)!
    const unpaired = last === ')' && address.split(')').length > address.split('(').length
    if (!unpaired && !/[.,;:!?'’”»…*_~]/u.test(last)) return address
    address = address.slice(0, -1)
  }
}
