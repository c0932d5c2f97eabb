/** The files of a message: pictures in their place, which is there before they load, and cards of the other files. */

import { useRef, useState } from 'preact/hooks'
import { altOf, fileSize, frameOf, isPicture, PREVIEW_COLUMNS, previewColours, stateInWords, typeName } from '../attachments'
import { useChanges } from '../emitter'
import type { FileLinks } from '../file-links'
import type { Attachment } from '../types'
import { Icon } from './icons'

interface Props {
  files: readonly Attachment[]
  links: FileLinks
  /** The user wants to see a picture. */
  onOpen: (id: string) => void
}

export function Attachments({ files, links, onOpen }: Props) {
  if (!files.length) return null
  return (
    <ul class="files" data-testid="attachments" aria-label="Files">
      {files.map((file) => (
        <li key={file.id} data-testid="attachment" data-attachment-id={file.id} data-kind={file.kind} data-state={file.state}>
          {isPicture(file) ? <Picture file={file} links={links} onOpen={onOpen} /> : isPending(file) ? <PendingPicture file={file} /> : <Card file={file} links={links} />}
        </li>
      ))}
    </ul>
  )
}

const isPending = ({ kind, state }: Attachment): boolean => kind === 'image' && (state === 'awaited' || state === 'stored')

function Picture({ file, links, onOpen }: { file: Attachment; links: FileLinks; onOpen: (id: string) => void }) {
  useChanges(links)
  const [loaded, setLoaded] = useState(false)
  const failures = useRef(0)
  const shownUrl = useRef<string>(undefined)
  // A picture that is shown needs no new link when its link ends.
  const link = shownUrl.current === undefined ? links.get(file.id, 'thumb') : { url: shownUrl.current, error: '' }
  if (link.url !== undefined) shownUrl.current = link.url
  const onError = (): void => {
    failures.current += 1
    shownUrl.current = undefined
    // The link may have ended while the page slept.
    if (failures.current < 3) links.renew(file.id, 'thumb')
  }
  const frame = frameOf(file)
  const alt = altOf(file)
  return (
    <button
      type="button" class="picture" data-testid="picture" data-loaded={loaded} aria-label={`Show ${alt}`} onClick={() => onOpen(file.id)}
      style={{ width: `${frame.width}px`, aspectRatio: `${frame.width} / ${frame.height}` }}
    >
      <Preview preview={file.preview} />
      {link.url !== undefined && (
        <img src={link.url} alt={alt} width={frame.width} height={frame.height} decoding="async" referrerpolicy="no-referrer" onLoad={() => setLoaded(true)} onError={onError} />
      )}
      {link.error !== '' && <span class="no-picture">{link.error}</span>}
    </button>
  )
}

/** The colours of a picture, until it is loaded. */
export function Preview({ preview }: { preview: string | null }) {
  const colours = previewColours(preview)
  if (!colours.length) return null
  return (
    <svg class="colours" viewBox={`0 0 ${PREVIEW_COLUMNS} ${colours.length / PREVIEW_COLUMNS}`} preserveAspectRatio="none" aria-hidden="true" focusable="false">
      {colours.map((colour, n) => <rect key={n} x={n % PREVIEW_COLUMNS} y={Math.floor(n / PREVIEW_COLUMNS)} width="1.02" height="1.02" fill={colour} />)}
    </svg>
  )
}

function PendingPicture({ file }: { file: Attachment }) {
  const frame = frameOf(file)
  return (
    <div class="picture is-pending" style={{ width: `${frame.width}px`, aspectRatio: `${frame.width} / ${frame.height}` }}>
      <p><span dir="auto">{altOf(file)}</span><br />{stateInWords(file)}</p>
    </div>
  )
}

function Card({ file, links }: { file: Attachment; links: FileLinks }) {
  const words = stateInWords(file)
  return (
    <div class={`card is-${file.state}`}>
      <Icon name="file" />
      <div class="card-text">
        <p class="file-name" dir="auto" title={file.name}>{file.name}</p>
        <p class="quiet">{typeName(file)} · {fileSize(file.bytes)}</p>
        {words !== '' && <p class={file.state === 'refused' ? 'error' : 'quiet'} data-testid="file-state">{words}</p>}
      </div>
      {file.state === 'ready' && <Download file={file} links={links} />}
    </div>
  )
}

/** A link to save a file. It opens in a tab of its own, so that an error of the storage does not replace this page. */
export function Download({ file, links }: { file: Attachment; links: FileLinks }) {
  useChanges(links)
  const { url, error } = links.get(file.id, 'file')
  if (error) return <span class="error">{error}</span>
  const label = `Download ${file.name}`
  return url === undefined ? (
    <span class="button tool" aria-disabled="true" role="link" aria-label={label}><Icon name="download" /></span>
  ) : (
    <a class="button tool" data-testid="download" href={url} download={file.name} target="_blank" rel="noopener noreferrer" referrerpolicy="no-referrer" aria-label={label} title={label}><Icon name="download" /></a>
  )
}
