/**
 * Where a draft is kept: in the tab (sessionStorage), so it survives a reload, two tabs have one each, and it ends with the tab.
 * What the browser refuses to keep is lost with the page.
 */

export interface KeptFile {
  id: string
  name: string
  bytes: number
}

interface Kept {
  text: string
  files: readonly KeptFile[]
  /** When it was kept, in milliseconds. */
  at: number
}

/** Milliseconds after which the server may have deleted files that were not sent: it does after a day. */
const FILES_LAST = 20 * 3600_000

/** Keep a text, and the files that are stored on the server. An empty draft is removed. */
export function storeDraft(name: string, { text, files }: { text: string; files: readonly (KeptFile & { state: string })[] }): void {
  const stored = files.filter(({ state }) => state === 'stored').map(({ id, name, bytes }): KeptFile => ({ id, name, bytes }))
  const kept: Kept = { text, files: stored, at: Date.now() }
  try {
    if (text || stored.length) sessionStorage.setItem(name, JSON.stringify(kept))
    else sessionStorage.removeItem(name)
  } catch {
    // Storage is full or forbidden.
  }
}

/** The draft that was kept; undefined if there is none that can be read. */
export function loadDraft(name: string): Pick<Kept, 'text' | 'files'> | undefined {
  try {
    const { text, files, at } = JSON.parse(sessionStorage.getItem(name)!) as Kept
    return { text: String(text), files: Date.now() - at < FILES_LAST ? [...files] : [] }
  } catch {
    return undefined
  }
}
