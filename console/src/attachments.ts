/** What is known of the files of messages: their states, their size on the page, and their words. Pure functions. */

import { isLater } from '../../client/src/timeline'
import type { Attachment, Message } from './types'

/** The largest place of a picture in the list, in CSS pixels. */
const FRAME_WIDTH = 320
const FRAME_HEIGHT = 200
/** The shortest side of a picture's place, so that it can be seen and pressed. */
const FRAME_SIDE = 44
/** `preview` has the colours of 4 x 3 fields, three hexadecimal digits each. */
const PREVIEW = /^[0-9a-f]{36}$/
export const PREVIEW_COLUMNS = 4
/** The texts that the server writes for a message that has files only. */
const FILES_TEXT = /^(📷 (Photo|[2-5] photos)|📎 (File|[2-5] files))$/u
const UNITS = ['B', 'kB', 'MB', 'GB']
const REASONS: Record<string, string> = {
  empty: 'the file is empty',
  too_large: 'it is too large',
  virus: 'a virus was found in it',
  not_scanned: 'it could not be checked for viruses',
  undecodable: 'the picture is damaged',
  unsupported: 'pictures of this format cannot be shown',
  too_many_pixels: 'the picture has too many pixels',
  too_large_to_decode: 'the picture needs too much memory',
  too_slow_to_decode: 'the picture takes too long to decode',
}

/** The newer of two states of one file: states go forwards only. */
export function newerAttachment(known: Attachment, other: Attachment): Attachment {
  return isLater(known.state, other.state) ? known : other
}

/** True if the text stands for the message's files, which are shown instead. */
export function isFilesText({ message, attachments }: Pick<Message, 'message' | 'attachments'>): boolean {
  return (attachments?.length ?? 0) > 0 && FILES_TEXT.test(message)
}

/** True if there is a picture to show. */
export function isPicture({ kind, state }: Attachment): boolean {
  return kind === 'image' && state === 'ready'
}

/** The pictures that the viewer shows, in the order of the messages. */
export function picturesOf(messages: readonly Pick<Message, 'attachments'>[]): Attachment[] {
  return messages.flatMap(({ attachments }) => attachments ?? []).filter(isPicture)
}

/** The place of a picture in the list, in its true proportions; one of which nothing is known yet gets the place of most photos. */
export function frameOf({ width, height }: Pick<Attachment, 'width' | 'height'>): { width: number; height: number } {
  if (!width || !height) return { width: Math.round((FRAME_HEIGHT * 4) / 3), height: FRAME_HEIGHT }
  // A thumbnail is not enlarged.
  const scale = Math.min(1, FRAME_WIDTH / width, FRAME_HEIGHT / height)
  const side = (length: number): number => Math.max(FRAME_SIDE, Math.round(length * scale))
  return { width: side(width), height: side(height) }
}

/** The CSS colours of a preview, row by row; empty without one. */
export function previewColours(preview: string | null): string[] {
  return preview !== null && PREVIEW.test(preview) ? preview.match(/.{3}/g)!.map((digits) => `#${digits}`) : []
}

/** A size in bytes as text: "812 B", "4.2 MB". */
export function fileSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`
}

/** A file's type in a word: the ending of its name, else its media type. */
export function typeName({ name, type }: Pick<Attachment, 'name' | 'type'>): string {
  const ending = /\.([a-z0-9]{1,5})$/i.exec(name)?.[1]
  return ending ? ending.toUpperCase() : type === 'application/octet-stream' ? 'File' : type
}

/** What is said of a file that cannot be fetched; empty if it can. */
export function stateInWords({ state, refused }: Attachment): string {
  switch (state) {
    case 'awaited':
    case 'stored':
      return 'Being checked …'
    case 'refused':
      return `Refused: ${REASONS[refused ?? ''] ?? 'it cannot be shown'}.`
    case 'gone':
      return 'Deleted.'
    default:
      return ''
  }
}

/** What a picture shows, in words: its alt text, else its name. */
export const altOf = ({ alt, name }: Pick<Attachment, 'alt' | 'name'>): string => alt || name
