/** The files of a draft, or of a message that is being sent: thumbnail, name, size, progress, and what went wrong. */

import { useEffect, useRef } from 'preact/hooks'
import { fileSize } from '../attachments'
import type { ChosenFile, Uploads } from '../uploads'
import { Icon } from './icons'

/** Pixels, on screens with two pixels per CSS pixel. */
const THUMB = 88

interface Props {
  files: readonly ChosenFile[]
  uploads: Uploads
  /** For a draft; without it the files cannot be changed. */
  edit?: {
    onRemove: (file: ChosenFile) => void
    onAlt: (file: ChosenFile, alt: string) => void
  }
}

export function FileTray({ files, uploads, edit }: Props) {
  if (!files.length) return null
  return (
    <ul class="tray" data-testid={edit ? 'file-tray' : 'sending-files'} aria-label="Files">
      {files.map((file) => <TrayRow key={file.id} file={file} uploads={uploads} edit={edit} />)}
    </ul>
  )
}

function TrayRow({ file, uploads, edit }: { file: ChosenFile; uploads: Uploads; edit: Props['edit'] }) {
  const { state, progress, error } = uploads.statusOf(file)
  const percent = Math.round(progress * 100)
  const isImage = file.type.startsWith('image/')
  return (
    <li class={`tray-file is-${state}`} data-testid="draft-file" data-attachment-id={file.id} data-state={state}>
      <LocalThumb file={isImage ? uploads.fileOf(file) : undefined} />
      <div class="tray-text">
        <p class="file-name" dir="auto" title={file.name}>{file.name}</p>
        <p class="quiet">
          {fileSize(file.bytes)}
          {state === 'uploading' && ` · ${percent} %`}
          {state === 'stored' && edit && ' · uploaded'}
        </p>
        {state === 'uploading' && <progress max={100} value={percent} aria-label={`Upload of ${file.name}`} />}
        {state === 'failed' && <p class="error" role="alert" data-testid="file-error">{error}</p>}
        {edit && isImage && state !== 'failed' && (
          <input
            class="alt" data-testid="file-alt" value={file.alt} maxLength={1000} dir="auto" aria-label={`What ${file.name} shows`} placeholder="What does it show? (alt text)"
            onInput={(event) => edit.onAlt(file, event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === 'Enter') event.preventDefault()
            }}
          />
        )}
      </div>
      {state === 'failed' && <button type="button" data-testid="file-retry" aria-label={`Upload ${file.name} again`} onClick={() => uploads.retry(file)}>Retry</button>}
      {edit && (
        <button
          type="button" class="tool" data-testid="file-remove" onClick={() => edit.onRemove(file)}
          aria-label={state === 'uploading' ? `Cancel the upload of ${file.name}` : `Remove ${file.name}`} title={state === 'uploading' ? 'Cancel' : 'Remove'}
        >
          <Icon name="close" />
        </button>
      )}
    </li>
  )
}

/** A thumbnail of a picture on this machine, drawn, since the page's policy allows no address for it; an icon if it cannot be drawn. */
function LocalThumb({ file }: { file: File | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => {
    if (!file) return
    let shown = true
    void createImageBitmap(file, { resizeHeight: THUMB, resizeQuality: 'medium' })
      .then((bitmap) => {
        const { current } = canvas
        const context = shown ? current?.getContext('2d') : undefined
        // The middle of it.
        if (context && current) context.drawImage(bitmap, (current.width - bitmap.width) / 2, 0)
        if (context && current) current.dataset['drawn'] = 'true'
        bitmap.close()
      })
      .catch(() => {})
    return () => void (shown = false)
  }, [file])
  return (
    <span class="tray-thumb">
      <Icon name="file" />
      {file && <canvas ref={canvas} width={THUMB} height={THUMB} aria-hidden="true" />}
    </span>
  )
}
