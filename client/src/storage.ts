/** Where unsent texts are kept: one name for each text, so that two tabs of one person do not overwrite each other's. */

import type { ChatStorage } from './api.js'

export interface Kept {
  get(name: string): string | null
  /** Null removes. */
  set(name: string, value: string | null): void
  /** The names that begin with a prefix. */
  names(prefix: string): string[]
}

/** By default localStorage. What it refuses, or all if there is none or it is null, is in memory until the page closes. */
export function openStorage(given: ChatStorage | null | undefined): Kept {
  const memory = new Map<string, string>()
  const use = <T>(act: (storage: ChatStorage) => T): T | undefined => {
    try {
      const storage = given === undefined ? globalThis.localStorage : given
      return storage ? act(storage) : undefined
    } catch {
      // It is full, or forbidden.
      return undefined
    }
  }
  return {
    get: (name) => use((storage) => storage.getItem(name)) ?? memory.get(name) ?? null,
    set(name, value) {
      if (value === null) memory.delete(name)
      else memory.set(name, value)
      use((storage) => {
        // An older value must not be read instead of one that is refused.
        storage.removeItem(name)
        if (value === null) return
        storage.setItem(name, value)
        memory.delete(name)
      })
    },
    names: (prefix) =>
      [...memory.keys(), ...(use((storage) => Array.from({ length: storage.length }, (_, index) => storage.key(index)!)) ?? [])].filter((name) => name.startsWith(prefix)),
  }
}
