/** The viewer: one picture in a dialog. Arrow keys move among the pictures, Escape closes it, and the focus returns. */

import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import { altOf } from '../attachments'
import { useChanges } from '../emitter'
import type { FileLinks } from '../file-links'
import type { Attachment } from '../types'
import { Download, Preview } from './Attachments'
import { Icon } from './icons'

interface Props {
  pictures: readonly Attachment[]
  /** The picture that is shown. */
  id: string
  links: FileLinks
  onMove: (id: string) => void
  onClose: () => void
}

export function Viewer({ pictures, id, links, onMove, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    // The focus returns to where it was only if the dialog is closed before it is removed.
    return () => element?.close()
  }, [])
  const index = pictures.findIndex((picture) => picture.id === id)
  const picture = pictures[index]
  const step = (by: 1 | -1): void => {
    const next = pictures[index + by]
    if (next) onMove(next.id)
  }
  return (
    <dialog
      ref={dialog} class="viewer" data-testid="viewer" data-attachment-id={id} aria-label="Picture" onClose={onClose}
      onClick={(event) => {
        if (event.target === dialog.current) dialog.current?.close()
      }}
      onKeyDown={(event) => {
        if (event.key === 'ArrowLeft') step(-1)
        else if (event.key === 'ArrowRight') step(1)
      }}
    >
      <div class="viewer-bar">
        <button type="button" class="tool" data-testid="viewer-previous" aria-label="Previous picture" aria-disabled={index <= 0} onClick={() => step(-1)}><Icon name="back" /></button>
        <span class="quiet" role="status">{pictures.length > 1 && `${index + 1} of ${pictures.length}`}</span>
        <button type="button" class="tool flipped" data-testid="viewer-next" aria-label="Next picture" aria-disabled={index >= pictures.length - 1} onClick={() => step(1)}><Icon name="back" /></button>
        <span class="space" />
        {picture && <Download key={id} file={picture} links={links} />}
        <button type="button" class="tool" data-testid="viewer-close" aria-label="Close" autofocus onClick={() => dialog.current?.close()}><Icon name="close" /></button>
      </div>
      {picture ? <LargePicture key={id} picture={picture} links={links} /> : <p>The picture was deleted.</p>}
    </dialog>
  )
}

function LargePicture({ picture, links }: { picture: Attachment; links: FileLinks }) {
  useChanges(links)
  const shownUrl = useRef<string>(undefined)
  const failures = useRef(0)
  const [loaded, setLoaded] = useState(false)
  const link = shownUrl.current === undefined ? links.get(picture.id, 'view') : { url: shownUrl.current, error: '' }
  if (link.url !== undefined) shownUrl.current = link.url
  const { width, height } = picture
  return (
    <figure>
      <div class="large" style={{ aspectRatio: `${width ?? 4} / ${height ?? 3}` }}>
        <Preview preview={picture.preview} />
        {link.url !== undefined && (
          <img
            src={link.url} alt={altOf(picture)} data-testid="viewer-picture" data-loaded={loaded} referrerpolicy="no-referrer" onLoad={() => setLoaded(true)}
            onError={() => {
              failures.current += 1
              shownUrl.current = undefined
              if (failures.current < 3) links.renew(picture.id, 'view')
            }}
          />
        )}
        {link.error !== '' && <p class="error" role="alert">{link.error}</p>}
      </div>
      <figcaption data-testid="viewer-caption">
        {picture.alt && <p dir="auto">{picture.alt}</p>}
        <p class="quiet" dir="auto">{picture.name}</p>
      </figcaption>
    </figure>
  )
}
