/** Where unsent texts are kept: one name for each text, so that two tabs of one person do not overwrite each other's. */

import type { ChatStorage } from './api.js'

export interface Kept {
  get(name: string): string | null | undefined
  /** Null removes. */
  set(name: string, value: string | null): void
  /** The names that begin with a prefix. */
  names(prefix: string): string[]
}

/** By default localStorage; null: none. What storage refuses (it is full, or forbidden) is not kept; reading finds nothing then. */
export function openStorage(given: ChatStorage | null | undefined): Kept {
  const use = <T>(act: (storage: ChatStorage) => T): T | null | undefined => {
    try {
      const storage = given === undefined ? globalThis.localStorage : given
      return storage && act(storage)
    } catch {
      return undefined
    }
  }
  return {
    get: (name) => use((storage) => storage.getItem(name)),
    set: (name, value) => use((storage) => (value === null ? storage.removeItem(name) : storage.setItem(name, value))),
    names: (prefix) => (use((storage) => Array.from({ length: storage.length }, (_, index) => storage.key(index)!)) ?? []).filter((name) => name.startsWith(prefix)),
  }
}
