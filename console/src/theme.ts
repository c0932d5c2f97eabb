/** The colour theme: light, dark, or the system's. */

import { getItem, setItem } from './storage'

export type Theme = 'auto' | 'light' | 'dark'

const KEY = 'gre.theme'
const NEXT: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' }

export function currentTheme(): Theme {
  const stored = getItem(KEY, true)
  return stored === 'light' || stored === 'dark' ? stored : 'auto'
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = currentTheme()
}

/** Switch to the next theme and store it. */
export function cycleTheme(): void {
  setItem(KEY, NEXT[currentTheme()], true)
  applyTheme()
}
