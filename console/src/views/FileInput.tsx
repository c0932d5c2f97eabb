/** Choosing files: buttons, the camera of phones, pasting, and dropping onto the page. */

import { useEffect, useRef } from 'preact/hooks'
import { Icon } from './icons'

interface Props {
  onFiles: (files: File[]) => void
}

export function FileButtons({ onFiles }: Props) {
  const chooser = useRef<HTMLInputElement>(null)
  const camera = useRef<HTMLInputElement>(null)
  const take = (event: Event): void => {
    const input = event.currentTarget as HTMLInputElement
    onFiles([...(input.files ?? [])])
    // The same file may be chosen again.
    input.value = ''
  }
  return (
    <span class="file-buttons">
      <button type="button" class="tool" data-testid="choose-files" aria-label="Add files" title="Add files, or drop or paste them" onClick={() => chooser.current?.click()}>
        <Icon name="clip" />
      </button>
      <button type="button" class="tool camera" data-testid="take-photo" aria-label="Take a photo" onClick={() => camera.current?.click()}>
        <Icon name="camera" />
      </button>
      <input ref={chooser} type="file" multiple hidden data-testid="file-input" onChange={take} />
      <input ref={camera} type="file" accept="image/*" capture="environment" hidden data-testid="camera-input" onChange={take} />
    </span>
  )
}

/** The pasted files; none if there is text, too, which is meant then (a copied table has a picture of itself). */
export function pastedFiles({ clipboardData }: ClipboardEvent): File[] {
  return clipboardData && !clipboardData.types.includes('text/plain') ? [...clipboardData.files] : []
}

/** Take the files that are dropped anywhere on the page, but not behind a dialog; undefined takes none. */
export function useFileDrop(onFiles: ((files: File[]) => void) | undefined): void {
  const latest = useRef(onFiles)
  latest.current = onFiles
  useEffect(() => {
    const controller = new AbortController()
    const onDrop = (event: DragEvent): void => {
      if (hasFiles(event) && !document.querySelector('dialog:modal')) latest.current?.([...(event.dataTransfer?.files ?? [])])
    }
    addEventListener('drop', onDrop, { signal: controller.signal })
    return () => controller.abort()
  }, [])
}

/** A file that is dropped where nobody takes it must not replace the page. */
export function guardDrops(): void {
  for (const name of ['dragover', 'drop'] as const) {
    addEventListener(name, (event) => {
      if (hasFiles(event)) event.preventDefault()
    })
  }
}

function hasFiles({ dataTransfer }: DragEvent): boolean {
  return dataTransfer?.types.includes('Files') ?? false
}
