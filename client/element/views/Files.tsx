/** @jsxImportSource preact */
/** The files of a message: pictures as thumbnails that open large, everything else to save. Addresses are asked for when shown. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { Attachment } from '../../src/index'
import { usePanel } from '../context'
import { size } from '../format'
import { isPicture } from '../rows'
import { fill } from '../words'
import { Icon } from './Icon'

export function Files({ files, mine }: { files: readonly Attachment[]; mine: boolean }) {
  const [open, setOpen] = useState<Attachment>()
  return (
    <ul class="files">
      {files.map((file) => (
        <li key={file.id}>{isPicture(file) ? <Picture file={file} onOpen={() => setOpen(file)} /> : <OtherFile file={file} mine={mine} />}</li>
      ))}
      {open && <li class="over"><Viewer file={open} onClose={() => setOpen(undefined)} /></li>}
    </ul>
  )
}

/** The address of a picture; asked for again once if it fails, since addresses expire. */
function useAddress(id: string, variant: 'thumb' | 'view') {
  const { chat } = usePanel()
  const [attempt, setAttempt] = useState(0)
  const [url, setUrl] = useState<string>()
  const [failed, setFailed] = useState(false)
  useEffect(() => {
    let current = true
    chat.url(id, variant).then((found) => current && setUrl(found), () => current && setFailed(true))
    return () => {
      current = false
    }
  }, [id, variant, attempt])
  const onError = (): void => {
    if (attempt) return setFailed(true)
    setUrl(undefined)
    setAttempt(1)
  }
  return { url, failed, onError }
}

/** CSS pixels of the longer side of a thumbnail. */
const THUMB = 240

/** The size of a thumbnail, known before it is loaded, so that nothing jumps. */
function shownSize({ width, height }: Attachment): { width: number; height: number } {
  if (!width || !height) return { width: THUMB, height: (THUMB * 3) / 4 }
  const scale = Math.min(1, THUMB / Math.max(width, height))
  return { width: Math.round(width * scale), height: Math.round(height * scale) }
}

function Picture({ file, onOpen }: { file: Attachment; onOpen: () => void }) {
  const { words } = usePanel()
  const { url, failed, onError } = useAddress(file.id, 'thumb')
  if (failed) return <OtherFile file={file} mine={false} />
  const alt = file.alt || words.image
  const { width, height } = shownSize(file)
  return (
    <button type="button" class="picture" part="picture" aria-label={fill(words.openPicture, { name: file.alt || file.name })} onClick={onOpen}>
      <img alt={alt} src={url} width={width} height={height} referrerpolicy="no-referrer" onError={onError} />
    </button>
  )
}

/** A file to save, or the state of one that cannot be fetched. */
function OtherFile({ file, mine }: { file: Attachment; mine: boolean }) {
  const { chat, words, language } = usePanel()
  const [failed, setFailed] = useState(false)
  const reason = file.state === 'refused' ? words.fileRefused : file.state === 'gone' ? words.fileGone : file.state !== 'ready' && !mine ? words.fileWaits : ''
  const name = <><Icon name="file" /><bdi>{file.name}</bdi> <small>{size(file.bytes, language)}</small></>
  const save = (): void => {
    setFailed(false)
    chat.url(file.id, 'file').then((url) => {
      // The answer is an attachment, so the page stays.
      Object.assign(document.createElement('a'), { href: url, download: file.name, referrerPolicy: 'no-referrer' }).click()
    }, () => setFailed(true))
  }
  return (
    <>
      {reason || file.state !== 'ready' ? <span class="file">{name}</span>
      : <button type="button" class="file" part="file" aria-label={fill(words.download, { name: file.name })} onClick={save}>{name}</button>}
      {(reason || failed) && <p class="meta" role={failed ? 'alert' : undefined}>{failed ? words.fileFailed : reason}</p>}
    </>
  )
}

function Viewer({ file, onClose }: { file: Attachment; onClose: () => void }) {
  const { words } = usePanel()
  const { url, failed, onError } = useAddress(file.id, 'view')
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const element = dialog.current!
    element.showModal()
    return () => element.close()
  }, [])
  return (
    <dialog ref={dialog} class="viewer" part="viewer" aria-label={file.alt || words.image} onClose={onClose}>
      <button type="button" class="tool" aria-label={words.closePicture} title={words.closePicture} onClick={() => dialog.current!.close()}><Icon name="close" /></button>
      {failed ? <p role="alert">{words.fileFailed}</p> : <img alt={file.alt || words.image} src={url} width={file.width ?? 4} height={file.height ?? 3} referrerpolicy="no-referrer" onError={onError} />}
    </dialog>
  )
}
